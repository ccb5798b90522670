"""REST servicers: path, query and body into a command, a view into JSON bytes with their HTTP status.

Envoy's transcoder passes requests and responses on as `google.api.HttpBody`. The HTTP status and headers are sent as
initial metadata, the status as `x-http-status`. That costs gRPC a batch of its own, so a 200 of one message has its
headers in the message of the gRPC status instead: `etag="3"|ratelimit=…`. A gateway that cannot read that message sends
its name in `x-gateway`, and gets initial metadata for a 200 too. The gateway itself adds `x-request-id`.
"""

import re
import sys
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, NoReturn, TypeAlias, cast
from urllib.parse import parse_qsl, unquote

import grpc
from google.api.httpbody_pb2 import HttpBody

from service import jsontext
from service.access.policy import POLICIES
from service.errors import ECHO_LENGTH, MAX_ISSUES, REASONS, Issue, Reason, TicketError, field_errors
from service.etags import matches
from service.fields import Command
from service.operation import CALL, Answer, Call, Operation, View, validated
from service.transport.dialect import Servicer
from service.transport.documented import JSON, Documented, documented

# Envoy ignores a query parameter that is named like a path variable of any method (`ignored_query_parameters`). So a
# path variable has another name in the protos where its documented name is a query parameter of another method.
_VARIABLES = {"project_id": "project"}

# A plus is a space in a query, but many forget to escape it in an instant's offset, where no space can be.
_OFFSET = re.compile(r"(?<=[0-9]) (?=[0-9]{2}:?[0-9]{2}$)")
_OK = 200
_NO_CONTENT = 204
_NOT_MODIFIED = 304
_UNAUTHORIZED = 401
# The `WWW-Authenticate` of a 401. RFC 6750, 3: it has a parameter, and no `error` where no token was sent.
_BEARER = 'Bearer realm="tickets"'
_BAD_TOKEN = dict.fromkeys(("invalid_token", "token_expired"), _BEARER + ', error="invalid_token"')
API_KEY = "ApiKey"
# How much of an invalid input an error repeats: characters of a text, bytes of any other JSON.
_MAX_SHOWN = 1000
# A streamed list is read in pieces: the first of a complete list has few rows, the next ones as many as make about this
# many bytes, up to a limit.
_FIRST_ROWS = 20
_PAGE_BYTES = 512 * 1024
_MAX_ROWS = 250

# An answer without a body.
_EMPTY = HttpBody(content_type=JSON)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Sections = Mapping[str, Any]


def unary(operation: Operation[Any], *, status: int = 200, members_of: str = "") -> Any:
    """The method of a `…Rest` service that runs an operation; `status` is the HTTP status of its success.

    `members_of` names an object in the query, each member of which is a parameter of its own: `metadata.floor=3`.
    """
    read = reader(operation.command, members_of)

    async def method(self: Servicer, request: Any, context: Context) -> HttpBody:
        call = CALL.get()
        view = await operation(self.dependencies, call, read(request, call))
        headers = {**call.answer.rate_limit}
        if call.replayed:
            headers["idempotent-replayed"] = "true"
        if call.etag is not None:
            headers["etag"] = call.etag
            if call.if_none_match is not None and _is_read(call) and matches(call.etag, call.if_none_match):
                call.answer.initial_metadata = _metadata(_NOT_MODIFIED, headers)
                return _EMPTY
        data = b"" if status == _NO_CONTENT else jsontext.dump(view)
        if call.answer.is_head:
            call.answer.initial_metadata = _metadata(status, {**headers, "x-content-length": str(len(data))})
            return _EMPTY
        if status == _OK and call.answer.headers_in_status:
            context.set_details("|".join(map("=".join, headers.items())))
        else:
            call.answer.initial_metadata = _metadata(status, headers)
        return HttpBody(content_type=JSON, data=data)

    return documented(method, Documented(operation.command, operation.view, status, members_of=members_of))


def streamed_list(operation: Operation[Any], member: str, *, complete: bool = False) -> Any:
    """The method of a `…Rest` service that streams a list, `limit` items of it in pieces.

    A `complete` one has no limit when neither `limit` nor `cursor` is given. The operation answers `{member: […],
    "next_cursor"}`, and may cut a page short for its size. No more than a piece is ever held, here or in the gateway,
    and neither a connection nor a place while the client reads.
    """
    read = reader(operation.command)

    async def method(self: Servicer, request: Any, context: Context) -> AsyncIterator[HttpBody]:
        call = CALL.get()
        sections = read(request, call)
        has_limit = not complete or not sections["query"].keys().isdisjoint(("limit", "cursor"))
        limit = validated(operation.command, sections).query.limit if has_limit else sys.maxsize
        pieces = _Pieces(operation, self, call, sections, member, limit)
        if not has_limit:
            call.place.count_stream()
        items = await pieces.read(_MAX_ROWS if has_limit else _FIRST_ROWS)
        is_whole = has_limit and pieces.are_over
        if has_limit and not is_whole:
            call.place.count_stream()
        await send_status(context, _OK, call.answer.rate_limit)
        if call.answer.is_head:
            yield HttpBody(content_type=JSON)
        elif is_whole:
            yield HttpBody(content_type=JSON, data=jsontext.dump({member: items, "next_cursor": pieces.cursor}))
        else:
            text = _items(items)
            yield HttpBody(content_type=JSON, data=b'{"%b":[%b' % (member.encode(), text))
            while not pieces.are_over:
                items = await pieces.read(max(1, min(_MAX_ROWS, len(items) * _PAGE_BYTES // len(text))))
                text = _items(items)
                # None, when the rows that were left no longer match the filters.
                yield HttpBody(data=b"," + text if items else b"")
            yield HttpBody(data=b'],"next_cursor":%b}' % jsontext.dump(pieces.cursor) if has_limit else b"]}")

    return documented(method, Documented(operation.command, operation.view, complete=complete))


class _Pieces:
    """The pieces of one list, each read when the one before it has been sent."""

    def __init__(
        self, operation: Operation[Any], servicer: Servicer, call: Call, sections: Sections, member: str, limit: int
    ) -> None:
        self._operation, self._dependencies, self._call = operation, servicer.dependencies, call
        self._sections, self._query, self._member = sections, sections["query"], member
        self._left = limit
        # Where the next piece begins; None after the last one.
        self.cursor: str | None = None

    @property
    def are_over(self) -> bool:
        """Whether there are no more items, or as many as were asked for have been read."""
        return self.cursor is None or not self._left

    async def read(self, rows: int) -> list[Any]:
        """The next items, `rows` of them at most. Raises TicketError."""
        await self._call.place.take()
        try:
            sections = {**self._sections, "query": {**self._query, "limit": min(rows, self._left)}}
            view = cast(Any, await self._operation(self._dependencies, self._call, sections))
        finally:
            self._call.place.give_back()
        items: list[Any] = view[self._member]
        self.cursor = view["next_cursor"]
        self._left -= len(items)
        # From here on the cursor says how many are skipped.
        self._query = {name: value for name, value in self._query.items() if name != "offset"} | {"cursor": self.cursor}
        return items


def _items(views: object) -> bytes:
    """The items of a JSON array, without its brackets."""
    return jsontext.dump(views)[1:-1]


def reader(command: type[Command], members_of: str = "") -> Callable[[Any, Call], Sections]:
    """Returns what sorts a transcoded request into the sections of a command, its values still as text."""
    sections = command.sections()
    path = [(name, _VARIABLES.get(name, name)) for name in sections.get("path", ())]
    read_query = _query_reader(command, sections.get("query", ()), members_of)

    def read(request: Any, call: Call) -> Sections:
        given: dict[str, Any] = {}
        if path:
            given["path"] = {name: getattr(request, variable) for name, variable in path}
        if read_query is not None:
            given["query"] = read_query(request, call.path)
        if "body" in sections:
            call.body = _json_body(request.body.data)
            # No body and `null` mean the same: nothing is given.
            if call.body is not None:
                given["body"] = call.body
        if "header" in sections:
            given["header"] = call.headers()
        return given

    return read


def _query_reader(
    command: type[Command], names: Sequence[str], members_of: str
) -> Callable[[Any, str | None], dict[str, Any]] | None:
    """Reads the section `query` of a request and its path; None for a command that has none, whatever is given."""
    needs_path = bool(members_of) or command.refuses_unknown
    plain, known = [name for name in names if name != members_of], frozenset(names)
    lists, instants = command.lists(), command.instants()
    if not names and not command.refuses_unknown:
        return None

    def read(request: Any, path: str | None) -> dict[str, Any]:
        if path is None:
            if needs_path:  # without the path a filter would be lost, and the list would be another one
                raise TicketError("internal", "The gateway does not say the path that was called")
            path = ""
        text = path.partition("?")[2]
        if text and command.refuses_unknown:
            _refuse_unknown(text, known)
        given = ((name, getattr(request, name)) for name in plain)
        query: dict[str, Any] = {name: _query_value(values, name in lists) for name, values in given if values}
        query |= dict.fromkeys(_without_value(text).intersection(plain), "")
        for name in instants & query.keys():
            query[name] = _OFFSET.sub("+", query[name])
        if members_of and (members := _members(text, members_of)):
            query[members_of] = members
        return query

    return read


def _without_value(query: str) -> set[str]:
    """The names of parameters without a `=`, whose value is the empty text. The transcoder leaves them out."""
    return {unquote(part) for part in query.split("&") if "=" not in part}


def _members(query: str, name: str) -> dict[str, str]:
    """The members of an object in the query. The transcoder cannot bind names that callers choose.

    Raises TicketError `validation_error` for the object itself, and for what other conventions would call a member: a
    filter that was left out would give the whole list.
    """
    if name not in unquote(query):
        return {}
    pairs = parse_qsl(query, keep_blank_values=True)
    if any(given == name or given.startswith(f"{name}[") for given, _ in pairs):
        issue = Issue(("query", name), f"Input should be a parameter for each member: {name}.member", "object_type")
        raise TicketError("validation_error", issues=[issue])
    prefix = f"{name}."
    return {given.removeprefix(prefix): text for given, text in pairs if given.startswith(prefix)}


def _refuse_unknown(query: str, known: Container[str]) -> None:
    """Raise TicketError `validation_error` for query parameters that are not known. The transcoder leaves them out."""
    pairs = parse_qsl(query, keep_blank_values=True)
    unknown = dict.fromkeys(name for name, _ in pairs if name not in known)
    if unknown:
        issues = [
            Issue(("query", name[:ECHO_LENGTH]), "Unknown query parameter", "extra_forbidden")
            for name in islice(unknown, MAX_ISSUES)
        ]
        raise TicketError("validation_error", issues=issues)


def _query_value(values: Sequence[str], is_list: bool) -> Any:
    """What is given of a parameter. Given more than once, each is a value of a list, and else the last one counts."""
    return [*values] if is_list and len(values) > 1 else values[-1]


def _json_body(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        value = jsontext.parse_request(raw)
    except jsontext.TooManyValuesError as error:
        raise TicketError("payload_too_large", f"The body has {error}") from None
    except ValueError as error:
        message = str(getattr(error, "msg", error))
        issue = Issue(("body",), "JSON decode error", "json_invalid", {}, {"error": message})
        raise TicketError("validation_error", issues=[issue]) from error
    # pydantic would read the attributes of a Decimal as members (`from_attributes`); a bare number is no body anyway.
    return float(value) if isinstance(value, Decimal) else value


class Failures:
    """Reports the failures of one `…Rest` service: the documented body, with its HTTP status."""

    def __init__(
        self, body: Callable[[TicketError], View], http: Callable[[Reason], int], challenge: str = _BEARER
    ) -> None:
        """`http` is the status of a reason in this API, and `challenge` the `WWW-Authenticate` of a 401."""
        self._body = body
        self._http = http
        self._challenge = challenge
        self._challenges = _BAD_TOKEN if challenge == _BEARER else {}

    def status_of(self, reason: Reason) -> int:
        """The HTTP status of a reason."""
        return self._http(reason)

    def body_of(self, error: TicketError) -> View:
        """The body of a failure."""
        return self._body(error)

    def begin(self, context: Context, request_id: str) -> None:
        """Nothing: the gateway returns the id that it gave the request."""

    async def fail(self, context: Context, error: TicketError, answer: Answer) -> HttpBody:
        """The failure as a response; its status and headers are sent first."""
        status = self._http(REASONS[error.reason])
        headers = {**answer.rate_limit}
        if status == _UNAUTHORIZED:
            headers["www-authenticate"] = self._challenges.get(error.reason, self._challenge)
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        if not error.begun:
            headers["x-retry-safe"] = "true"
        data = jsontext.dump(self._body(error))
        if answer.is_head:
            await send_status(context, status, {**headers, "x-content-length": str(len(data))})
            return _EMPTY
        await send_status(context, status, headers)
        return HttpBody(content_type=JSON, data=data)

    async def break_off(self, context: Context, error: TicketError) -> NoReturn:
        """End a stream that had begun so that its reader sees that it is incomplete."""
        await context.abort(grpc.StatusCode.INTERNAL, error.message)


def error_body(error: TicketError) -> View:
    """The handoff and helpdesk form of a failure (contracts/handoff.md, Errors)."""
    body: dict[str, Any] = {"error": error.message, "code": error.reason}
    if error.issues:
        body["fieldErrors"] = field_errors(error)
        body["issues"] = [{"path": issue.path, "message": issue.message} for issue in error.issues]
    if error.retry_after is not None:
        body["retryAfter"] = error.retry_after
    if error.reconnect:
        body["reconnect"] = True
    return body


def detail_body(error: TicketError) -> View:
    """The ITSM form of a failure: FastAPI's (contracts/itsm.md, Validation errors)."""
    if not error.issues:
        return {"detail": error.message}
    return {"detail": [_detail(issue) for issue in error.issues]}


def _detail(issue: Issue) -> View:
    section, *names = issue.loc
    # Names of query parameters have dots of their own.
    loc = [section, ".".join(map(str, names))] if section == "query" and names else list(issue.loc)
    detail = {"type": issue.type, "loc": loc, "msg": issue.message, "input": _shown(issue.input)}
    return {**detail, "ctx": issue.context} if issue.context else detail


def _shown(value: Any) -> Any:
    """As much of an input as an error repeats of it."""
    if isinstance(value, str):
        return value[:_MAX_SHOWN]
    return None if len(jsontext.dump(value)) > _MAX_SHOWN else value


def _is_read(call: Call) -> bool:
    return POLICIES[call.method].kind == "read"


def _metadata(status: int, headers: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """The HTTP status and headers of an answer; nothing for a 200 without headers, which is the default."""
    return (("x-http-status", str(status)), *headers.items()) if status != _OK or headers else ()


async def send_status(context: Context, status: int, headers: Mapping[str, str]) -> None:
    """Send the HTTP status and headers of a stream, or of a failure."""
    if metadata := _metadata(status, headers):
        await context.send_initial_metadata(metadata)
