"""How tests speak to the system: one request form, two transports, one form of reply."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import grpc
import httpx2
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from tickets.errors.v1 import error_pb2

from service.errors import REASONS
from support.methods import METHODS, Method


@dataclass
class Reply:
    """What came back, in the documented form whatever the transport."""

    transport: str
    api: str
    status: int | grpc.StatusCode
    body: Any
    headers: Mapping[str, str]
    # gRPC only: the status details by message name.
    details: Mapping[str, Message] = dataclass_field(default_factory=dict)

    def succeeded(self, status: int = 200) -> Any:
        """The documented body of a success with this HTTP status."""
        expected = status if self.transport == "rest" else grpc.StatusCode.OK
        assert self.status == expected, f"{self.status}: {self.body}"
        return self.body

    def failed(self, reason: str, message: str | None = None, *, paths: Sequence[str] | None = None) -> Any:
        """Check that it failed for this reason, in the documented shape; returns the body."""
        expected = REASONS[reason]
        if self.transport == "grpc":
            assert self.status == expected.status, f"{self.status}: {self.body}"
            self._check_details(reason)
        elif self.api == "itsm":
            assert self.status == expected.itsm_http, f"{self.status}: {self.body}"
            assert set(self.body) == {"detail"}
        else:
            # contracts/handoff.md has another status for `stale` than contracts/errors.md.
            http = (self.api == "handoff" and expected.handoff_http) or expected.http
            assert self.status == http, f"{self.status}: {self.body}"
            assert self.body["code"] == reason
            assert self.body["error"]
        if message is not None:
            assert self.message() == message
        if paths is not None:
            assert [issue["path"] for issue in self.issues()] == list(paths)
        return self.body

    def message(self) -> str:
        """The words for a person."""
        name = "detail" if self.transport == "rest" and self.api == "itsm" else "error"
        text: str = self.body[name]
        return text

    def issues(self) -> list[dict[str, str]]:
        """The problems of a validation error as path and message."""
        if self.transport == "rest" and self.api == "itsm":
            return [
                {"path": ".".join(map(str, issue["loc"][1:])) or issue["loc"][0], "message": issue["msg"]}
                for issue in self.body["detail"]
            ]
        issues: list[dict[str, str]] = self.body.get("issues", [])
        return issues

    def _check_details(self, reason: str) -> None:
        info = self.details["google.rpc.ErrorInfo"]
        assert isinstance(info, error_details_pb2.ErrorInfo)
        assert (info.reason, info.domain) == (reason, "tickets")
        error = self.details["tickets.errors.v1.Error"]
        assert isinstance(error, error_pb2.Error)
        assert error.code == reason
        assert ("google.rpc.BadRequest" in self.details) == bool(error.issues)
        assert ("google.rpc.RetryInfo" in self.details) == error.HasField("retry_after")


class Rest:
    """The REST transport: HTTP through the gateway."""

    name = "rest"

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def call(
        self,
        operation: str,
        credential: Mapping[str, str],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One call; `body` is a JSON value."""
        method = METHODS[operation]
        url = method.path.format_map({name: _segment(value) for name, value in (path or {}).items()})
        if query:
            url += f"?{httpx2.QueryParams(_query(query))}"
        # Made here and not by the client, which would parse the URL three times.
        request = httpx2.Request(
            method.verb,
            f"{self.client.base_url}".rstrip("/") + url,
            content=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", "accept": "*/*", **credential, **(headers or {})},
            extensions={"timeout": self.client.timeout.as_dict()},
        )
        response = await self.client.send(request)
        return rest_reply(method.api, response)


def _segment(value: str) -> str:
    """A value as a URL has it in its path."""
    return value if _PLAIN.fullmatch(value) else httpx2.URL(path=value).raw_path.decode()


_PLAIN = re.compile("[A-Za-z0-9_-]+")


def _query(given: Mapping[str, Any]) -> dict[str, str]:
    """As a query has it: a member of a member is `metadata.floor`."""
    query = dict[str, str]()
    for name, value in given.items():
        members = {f"{name}.{member}": text for member, text in value.items()} if isinstance(value, dict) else None
        query |= {name: str(value)} if members is None else members
    return query


def rest_reply(api: str, response: httpx2.Response) -> Reply:
    """A response in the form of a reply; checks what every response promises."""
    is_empty = response.status_code == httpx2.codes.NO_CONTENT
    if is_empty:
        assert (response.content, response.headers.get("content-type")) == (b"", None)
    else:
        assert response.headers["content-type"].startswith("application/json"), response.text
    assert len(response.headers.get_list("x-request-id")) == 1
    leaked = {"grpc-status", "grpc-message", "grpc-accept-encoding", "grpc-encoding", "x-http-status", "x-retry-safe"}
    assert leaked.isdisjoint(response.headers), response.headers
    return Reply("rest", api, response.status_code, {} if is_empty else response.json(), response.headers)


class Grpc:
    """The gRPC transport: typed messages straight to the service."""

    name = "grpc"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def call(
        self,
        operation: str,
        credential: Mapping[str, str],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The same call: the members of path, query and body become the fields of a typed request."""
        method = METHODS[operation]
        descriptor = method.service.methods_by_name[method.name]
        given = {**(query or {}), **(body or {}), **(path or {})}
        return await self.send(
            method, _message(descriptor.input_type._concrete_class, given), {**credential, **(headers or {})}
        )

    async def send(self, method: Method, request: Message, metadata: Mapping[str, str]) -> Reply:
        """One typed call."""
        descriptor = method.service.methods_by_name[method.name]
        invoke = self.channel.unary_unary(
            f"/{method.service.full_name}/{method.name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=descriptor.output_type._concrete_class.FromString,
        )
        call = invoke(request, metadata=tuple((name.lower(), value) for name, value in metadata.items()))
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            return _grpc_failure(method.api, error)
        body = _documented(answer)
        trailing = _metadata(await call.trailing_metadata())
        assert trailing["x-request-id"]
        if method.bare == "ticket" and answer.ticket.DESCRIPTOR.fields_by_name.get("etag") and answer.ticket.etag:
            trailing["etag"] = answer.ticket.etag  # what REST says in a header
        return Reply("grpc", method.api, grpc.StatusCode.OK, body[method.bare] if method.bare else body, trailing)


def _grpc_failure(api: str, error: grpc.aio.AioRpcError) -> Reply:
    trailing = _metadata(error.trailing_metadata())
    details: dict[str, Message] = {}
    if "grpc-status-details-bin" in trailing:
        status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
        assert (status.code, status.message) == (error.code().value[0], error.details())
        for packed in status.details:
            kind = packed.TypeName()
            details[kind] = _DETAILS[kind].FromString(packed.value)
    body = _documented(details["tickets.errors.v1.Error"]) if details else {}
    body["error"] = error.details()
    return Reply("grpc", api, error.code(), body, trailing, details)


def _metadata(pairs: Any) -> dict[str, Any]:
    return {name: value for name, value in pairs or ()}  # noqa: C416 - gRPC's pairs are no tuples


_DETAILS: Mapping[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_pb2.Error,
    )
}


def _message(kind: type[Message], given: Mapping[str, Any]) -> Message:
    """A typed request of documented members: null means cleared, so it is named in the mask and left unset."""
    fields = kind.DESCRIPTOR.fields_by_name
    message = json_format.ParseDict(_members(kind.DESCRIPTOR, given), kind())
    inner = [f"{name}.{member}" for name, value in given.items() for member in _nulls(value)]
    # Nothing given is no empty list: only a mask can name that.
    if "update_mask" in fields and (inner or None in given.values() or [] in given.values()):
        names = [name if name in fields else name + "_json" for name in given if name not in _PATH]
        message.update_mask.paths.extend([*names, *inner])  # type: ignore[attr-defined]
    return message


_PATH = ("id", "ticket_id", "project_id", "webhook_id")


def _nulls(value: Any) -> list[str]:
    return [name for name, inner in value.items() if inner is None] if isinstance(value, dict) else []


def _members(descriptor: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in given.items():
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_name[name + "_json"]
        if value is not None:
            plain[field.name] = json.dumps(value) if field.name.endswith("_json") else _plain(field, value)
    return plain


def _plain(field: Any, value: Any) -> Any:
    if field.is_repeated and isinstance(value, dict):
        return value  # a map
    if isinstance(value, dict):
        return _members(field.message_type, value)
    if field.is_repeated and isinstance(value, str):
        value = value.split(",")  # as a query has it
    if field.is_repeated and field.message_type is not None:
        return [_members(field.message_type, item) for item in value]
    if field.enum_type is None:
        return value
    return [_number(field.enum_type, word) for word in value] if field.is_repeated else _number(field.enum_type, value)


def with_enums(descriptor: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a message is made of, with numbers for the words of its enums."""
    fields = descriptor.fields_by_name
    return {
        name: _plain(fields[name], value) if fields[name].enum_type is not None else value
        for name, value in given.items()
    }


def _number(enum: Any, word: str) -> int:
    """The number of a word; one that nobody knows for a word that is in no vocabulary."""
    known = enum.values_by_name.get(enum.values[0].name.removesuffix("UNSPECIFIED") + word.upper())
    return known.number if known else 99


def _documented(message: Message) -> Any:
    """A typed message as documented JSON: lower-case words for enums, null where a member is not set."""
    view: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.name == "etag":
            continue
        value = getattr(message, field.name)
        if field.is_repeated:
            is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
            view[field.name] = dict(value) if is_map else [_value(field, item) for item in value]
        elif field.has_presence and not message.HasField(field.name):
            view[field.name.removesuffix("_json")] = None
        else:
            view[field.name.removesuffix("_json")] = _value(field, value)
    return view


def _value(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        name = field.enum_type.values_by_number[value].name
        return name.removeprefix(field.enum_type.values[0].name.removesuffix("UNSPECIFIED")).lower()
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return _instant(value)
        return _documented(value)
    return json.loads(value) if field.name.endswith("_json") else value


def _instant(stamp: Any) -> str:
    """As REST writes it: microseconds only where there are some."""
    text = stamp.ToDatetime().isoformat()
    return f"{text}Z"
