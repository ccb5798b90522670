"""Failures as the helpdesk and handoff APIs document them; those of ITSM are FastAPI's own."""

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

_ITSM = "/api/v1/tickets"


class ApiError(Exception):
    """A failure with its status, its stable code and words for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def invalid(name: str, message: str) -> RequestValidationError:
    """The failure of a member of the body that only an endpoint can see."""
    return RequestValidationError([{"loc": ("body", name), "msg": message, "type": "value_error"}])


def install(app: FastAPI) -> None:
    """Answer failures so."""

    @app.exception_handler(ApiError)
    async def _api_error(_: Request, error: ApiError) -> Response:
        return JSONResponse({"error": error.message, "code": error.code}, error.status)

    @app.exception_handler(RequestValidationError)
    async def _validation_error(request: Request, error: RequestValidationError) -> Response:
        if request.url.path.startswith(_ITSM):
            return await request_validation_exception_handler(request, error)
        issues = [{"path": _path(one["loc"]), "message": one["msg"]} for one in error.errors()]
        first = {issue["path"]: issue["message"] for issue in reversed(issues)}
        words = f"{issues[0]['path']}: {issues[0]['message']}"
        body = {"error": words, "code": "validation_error", "fieldErrors": first, "issues": issues}
        return JSONResponse(body, 400)


def _path(loc: tuple[str | int, ...]) -> str:
    return ".".join(str(step) for step in loc[1:] or loc)
