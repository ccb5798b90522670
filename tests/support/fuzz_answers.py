"""What every answer promises, whatever was asked: a documented status and shape, and nothing from inside."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from tickets.errors.v1 import error_pb2

from service.errors import REASONS

# The gateway's own, beside those of the reasons.
_GATEWAY = {
    404: "not_found",
    405: "method_not_allowed",
    408: "deadline_exceeded",
    431: "payload_too_large",
}
_LEAKED_HEADERS = {"grpc-status", "grpc-message", "grpc-encoding", "grpc-accept-encoding", "x-http-status"}
_INSIDE = re.compile(
    r"Traceback|\b[A-Z]\w*(Error|Exception|Violation)\b|psycopg|sqlalchemy|pydantic|libpq|\.py\b|\bSELECT\b|\$\d+\b"
    r"|\bobject at 0x|<class |for key |invalid byte sequence"
)
# By which the service says that it is not to blame; nothing here makes it so.
_OURS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.DATA_LOSS,
}


@dataclass(frozen=True)
class HttpAnswer:
    """A response as it came."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str:
        """The last of that name, or nothing."""
        return dict(self.headers).get(name, "")

    def document(self) -> Any:
        """Its JSON."""
        return json.loads(self.body)


def http_problem(answer: HttpAnswer, apis: Sequence[str], view: Any = None, *, has_body: bool = True) -> str | None:
    """What is wrong with an answer of one of these APIs; `view` is what a success looks like."""
    if answer.status >= 500:
        return "a failure of the service"
    names = [name for name, _ in answer.headers]
    if names.count("x-request-id") != 1:
        return "not one x-request-id"
    if not _LEAKED_HEADERS.isdisjoint(names):
        return "headers of gRPC"
    if answer.status in (204, 302, 304) or not has_body:  # 302: the root leads to the page
        return None if answer.body == b"" else "a body where none belongs"
    if not answer.header("content-type").startswith("application/json"):
        return "not JSON by its content type"
    try:
        document = answer.document()
    except ValueError:
        return "not JSON"
    if answer.status < 400:
        return misfit(view, document) if view is not None else None
    problems = [_failure_problem(api, answer.status, document) for api in apis]
    return problems[0] if all(problems) else None


def _failure_problem(api: str, status: int, document: Any) -> str | None:
    if _INSIDE.search(json.dumps(_without_input(document))):
        return "something from inside the service"
    return _detail_problem(status, document) if api == "itsm" else _error_problem(api, status, document)


def _without_input(document: Any) -> Any:
    """A failure without what it repeats of the request."""
    if isinstance(document, dict):
        return {name: _without_input(value) for name, value in document.items() if name != "input"}
    return [_without_input(one) for one in document] if isinstance(document, list) else document


def _detail_problem(status: int, document: Any) -> str | None:
    if status not in {reason.itsm_http for reason in REASONS.values()} | set(_GATEWAY):
        return "a status that is not documented"
    if not isinstance(document, dict) or set(document) != {"detail"} or not document["detail"]:
        return "not {detail}"
    detail = document["detail"]
    if isinstance(detail, str):
        return None
    if status != REASONS["validation_error"].itsm_http or not isinstance(detail, list):
        return "a list of problems with another status than 422"
    for issue in detail:
        if not {"type", "loc", "msg", "input"} <= set(issue) <= {"type", "loc", "msg", "input", "ctx"}:
            return "a problem that is not in FastAPI's form"
        if not issue["loc"] or issue["loc"][0] not in ("body", "path", "query", "header"):
            return "a problem without its place"
    return None


def _error_problem(api: str, status: int, document: Any) -> str | None:
    if not isinstance(document, dict) or not isinstance(document.get("error"), str) or not document["error"]:
        return "not {error, code}"
    code, reason = document.get("code"), REASONS.get(document.get("code", ""))
    statuses = {(reason.handoff_http if api == "handoff" else None) or reason.http} if reason else set[int]()
    if status not in statuses and _GATEWAY.get(status) != code:
        return "a code that does not go with its status"
    if not set(document) <= {"error", "code", "fieldErrors", "issues", "retryAfter", "reconnect"}:
        return "members of a failure that are not documented"
    if ("issues" in document) != ("fieldErrors" in document):
        return "issues without fieldErrors, or fieldErrors without issues"
    if any(set(issue) != {"path", "message"} for issue in document.get("issues", ())):
        return "an issue that is not {path, message}"
    return None


def misfit(kind: Any, value: Any, where: str = "the answer") -> str | None:
    """How a JSON value differs from a type of a view; None if it does not."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return misfit(arguments[0], value, where)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        problems = [misfit(one, value, where) for one in arguments if one is not NoneType]
        return problems[0] if all(problems) else None
    if origin is list:
        if not isinstance(value, list):
            return f"{where} is no list"
        return next(filter(None, (misfit(arguments[0], one, f"{where}[]") for one in value)), None)
    if is_typeddict(kind):
        return _members_misfit(kind, value, where)
    if kind in (bool, int, str) and not isinstance(value, kind):
        return f"{where} is no {kind.__name__}"
    return f"{where} is null" if value is None and kind is not NoneType and kind is not object else None


def _members_misfit(kind: Any, value: Any, where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where} is no object"
    hints = get_type_hints(kind)
    # A complete list has no cursor.
    if missing := kind.__required_keys__ - set(value) - {"next_cursor"}:
        return f"{where} lacks {sorted(missing)}"
    if strangers := set(value) - set(hints):
        return f"{where} has {sorted(strangers)}"
    return next(filter(None, (misfit(hints[name], one, f"{where}.{name}") for name, one in value.items())), None)


def grpc_problem(
    code: grpc.StatusCode, message: str, trailing: Mapping[str, Any], *, allowed: Collection[grpc.StatusCode] = ()
) -> str | None:
    """What is wrong with how a call ended, of a method that there is."""
    if code in allowed:
        return None
    if code in _OURS:
        return "a failure of the service"
    if not trailing.get("x-request-id"):
        return "no x-request-id"
    if code is grpc.StatusCode.OK:
        return None
    if _INSIDE.search(message):
        return "something from inside the service"
    try:
        return _details_problem(code, message, status_pb2.Status.FromString(trailing["grpc-status-details-bin"]))
    except (KeyError, DecodeError):
        return "no details"


def _details_problem(code: grpc.StatusCode, message: str, status: Any) -> str | None:
    info, error = error_details_pb2.ErrorInfo(), error_pb2.Error()
    if (status.code, status.message) != (code.value[0], message):
        return "details with another status or message"
    if not status.details or not status.details[0].Unpack(info) or not status.details[-1].Unpack(error):
        return "details without ErrorInfo or Error"
    if (info.domain, info.reason, error.message) != ("tickets", error.code, message):
        return "details that do not agree"
    if error.code not in REASONS or REASONS[error.code].status != code:
        return "a reason that does not go with its status"
    kinds = {detail.TypeName() for detail in status.details}
    if ("google.rpc.BadRequest" in kinds) != bool(error.issues):
        return "issues in one of the details only"
    return "something from inside the service" if _INSIDE.search(str(error)) else None
