"""REST servicers of watches: one JSON object a line, or server-sent events where the caller's `Accept` names them.

Both carry the same objects. The id of a server-sent event is the cursor after it, so that a reader (a browser's
EventSource) resumes after the last one by itself, with the header `Last-Event-ID`.
"""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from google.api.httpbody_pb2 import HttpBody

from service import jsontext
from service.errors import TicketError
from service.operation import CALL, View
from service.transport.dialect import Servicer
from service.transport.documented import EVENTS, LINES, Documented, documented
from service.transport.rest import Context, Sections, error_body, reader, send_status
from service.watch import Watch

_OK = 200
# Proxies must not buffer events on their way to the reader; the second header is nginx's.
_AS_THEY_COME = {"cache-control": "no-store", "x-accel-buffering": "no"}
# How long a reader waits before it reconnects.
_RETRY_MILLISECONDS = 2000
# A parameter of a media type.
_NOT_ACCEPTABLE = re.compile(r"\s*q=0(\.0{0,3})?\s*")


class Form(NamedTuple):
    """How the messages of a watch are written."""

    content_type: str
    # What comes before the first.
    opening: bytes
    message: Callable[[Any], bytes]
    # The last message of a watch that fails, made of the error's body.
    failure: Callable[[View], bytes]


def _line(view: View) -> bytes:
    return jsontext.dump(view) + b"\n"


def _event(view: Any) -> bytes:
    # A change has no event name, so that `onmessage` gets every change, also of types that are added later.
    name = b"event: heartbeat\n" if view["event"] is None else b""
    return b"%bid: %b\ndata: %b\n\n" % (name, view["cursor"].encode(), jsontext.dump(view))


def _last_event(body: View) -> bytes:
    return b"event: error\ndata: %b\n\n" % jsontext.dump(body)


_LINES = Form(LINES, b"", _line, _line)
_EVENTS = Form(EVENTS, b"retry: %d\n" % _RETRY_MILLISECONDS, _event, _last_event)


def watch(watch: Watch[Any], *, failure: Callable[[TicketError], View] = error_body) -> Any:
    """The method of a `…Rest` service that streams a watch; `failure` is the body of its last message, if it fails."""
    read = reader(watch.command)

    async def method(self: Servicer, request: Any, context: Context) -> AsyncIterator[HttpBody]:
        call, begun = CALL.get(), False
        form, sections = _as_asked(context, read(request, call))
        opening = form.opening
        try:
            async for view in watch(self.dependencies.feed, call, sections):
                if not begun:
                    await send_status(context, _OK, {**call.answer.rate_limit, **_AS_THEY_COME})
                begun = True
                if call.answer.is_head:
                    yield HttpBody(content_type=form.content_type)
                    return
                yield HttpBody(content_type=form.content_type, data=opening + form.message(view))
                opening = b""
        except Exception as error:
            # As broad as the interceptor's, which logs it. The HTTP status was sent long ago, so the gateway ends a
            # broken stream like a complete one: the last message must report the failure.
            if not begun:
                raise
            failed = error if isinstance(error, TicketError) else TicketError("internal")
            call.outcome = failed.reason
            yield HttpBody(data=form.failure(failure(failed)))
            if failed is not error:
                raise

    return documented(method, Documented(watch.command, watch.view, media_types=(LINES, EVENTS)))


def _as_asked(context: Context, sections: Sections) -> tuple[Form, Sections]:
    """The form that a request's headers ask for, and the request with the cursor of `Last-Event-ID`.

    Lines are the default, and server-sent events are for callers whose `Accept` names them and not lines. A reader that
    reconnects calls the same URL, so its last event is newer than the cursor in the query.
    """
    metadata = dict(context.invocation_metadata() or ())
    kinds = _acceptable(str(metadata.get("accept", "")))
    if EVENTS not in kinds or LINES in kinds:
        return _LINES, sections
    last_id = metadata.get("last-event-id")
    if not last_id:
        return _EVENTS, sections
    return _EVENTS, {**sections, "query": {**sections.get("query", {}), "cursor": str(last_id)}}


def _acceptable(accept: str) -> set[str]:
    """The media types that an `Accept` names, but for those with a weight of 0 (RFC 9110, 12.4.2)."""
    named = (part.lower().split(";") for part in accept.split(","))
    return {kind.strip() for kind, *parameters in named if not any(map(_NOT_ACCEPTABLE.fullmatch, parameters))}
