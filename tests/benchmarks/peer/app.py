"""The application: `uvicorn …peer.app:app`."""

import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import errors
from .database import engine
from .handoff.routes import router as handoff
from .helpdesk.routes import router as helpdesk
from .itsm.routes import router as itsm

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestId:
    """Takes over or makes the request's id, and says it in the response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()


app = FastAPI(lifespan=_lifespan, openapi_url=None)
# A path is matched in this order; what it costs to pass by the others is less than what can be measured.
for router in (itsm, helpdesk, handoff):
    app.include_router(router)
app.add_middleware(RequestId)
errors.install(app)
