"""Any bytes at all get a documented 4xx in the shape of the API whose path was called (contracts/errors.md)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest
from support.system import Service, World
from support.transports import Reply, rest_reply

from service.outbound import trusted_authorities

ITSM = {"subject": "VPN is down", "description": "Since nine."}
HELPDESK = {"title": "VPN is down"}
POLICY = {"name": "Urgent", "priority": "urgent", "resolution_minutes": 60}
HANDOFF = {"title": "VPN is down", "description": "Since nine.", "request_type": "bug"}
BULK = {"action": "move", "stage": "up_next", "ticket_ids": ["1"]}
# What is sent about a ticket of the helpdesk, and where.
ABOUT = {"close": ("/close", {}), "restore": ("/restore", {}), "comment": ("/comments", {"body": "It is."})}


@dataclass(frozen=True)
class Endpoint:
    """A documented endpoint, and the credential of a caller who may use it."""

    api: str
    verb: str
    path: str
    credential: Mapping[str, str]
    body: Mapping[str, Any]


WRITES = [
    "itsm POST",
    "itsm PATCH",
    "helpdesk POST",
    "helpdesk PATCH",
    "helpdesk close",
    "helpdesk restore",
    "helpdesk comment",
    "helpdesk policy",
    "helpdesk calendar",
    "handoff POST",
    "handoff bulk",
]
# Those that need none.
WITHOUT_BODY = ("helpdesk close", "helpdesk restore")


async def endpoint(name: str, world: World, client: httpx2.AsyncClient) -> Endpoint:
    """The endpoint of that name, for a new caller."""
    api, what = name.split()
    if api == "itsm":
        credential = (await world.program()).credential
        path, body = "/api/v1/tickets", ITSM
    elif what == "policy":
        return Endpoint(api, "POST", "/api/v1/helpdesk/sla-policies", world.person("agent"), POLICY)
    elif what == "calendar":
        return Endpoint(api, "PATCH", "/api/v1/helpdesk/calendar", world.person("agent"), {})
    elif api == "helpdesk":
        credential = world.person("read", "write")
        path, body = "/api/v1/helpdesk/tickets", HELPDESK
    else:
        project = await world.project()
        credential = await world.member(project)
        path, body = f"/api/projects/{project}/tickets", HANDOFF
    if what == "POST":
        return Endpoint(api, "POST", path, credential, body)
    if what == "bulk":
        return Endpoint(api, "POST", f"{path}/bulk", credential, BULK)
    made = (await client.post(path, json=body, headers=credential)).json()
    verb, tail, body = ("PATCH", "", body) if what == "PATCH" else ("POST", *ABOUT[what])
    return Endpoint(api, verb, f"{path}/{made['id']}{tail}", credential, body)


async def send(client: httpx2.AsyncClient, to: Endpoint, content: bytes, **headers: str) -> Reply:
    given = {"content-type": "application/json", **to.credential, **headers}
    return rest_reply(to.api, await client.request(to.verb, to.path, content=content, headers=given))


BODIES: Mapping[str, bytes] = {
    "not JSON": b"subject=VPN",
    "cut off": b'{"title": "VPN',
    "trailing comma": b'{"title": "VPN",}',
    "single quotes": b"{'title': 'VPN'}",
    "bare keys": b'{title: "VPN"}',
    "a comment": b'{"title": "VPN"} // hello',
    "two values": b"{} {}",
    "NaN": b'{"tags": [NaN]}',
    "infinity": b'{"evidence": {"a": -Infinity, "b": 1.5}}',
    "an array": b"[]",
    "a string": b'"title"',
    "a number": b"12",
    "a byte order mark": b'\xef\xbb\xbf{"title": "VPN"}',
    "UTF-16": '{"title": "VPN"}'.encode("utf-16"),
    "bytes that are not UTF-8": b'{"title": "\xff\xfe"}',
    "an overlong NUL": b'{"title": "\xc0\x80"}',
    "a raw control character": b'{"title": "a\nb"}',
    "only NULs": b"\0" * 64,
    "a lone surrogate": b'{"title": "\\ud800", "subject": "\\ud800", "resolution_note": "\\ud800"}',
    "a lone surrogate beside a fraction": b'{"title": "\\udfff", "tags": {"a": 1.5}}',
    "1,000 levels of arrays": b'{"title": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "1,000 levels of objects": b'{"metadata": ' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b', "n": 1.5}',
    "100,000 levels": b"[" * 100_000,
    "a number beyond all exponents": b'{"tags": {"n": 1e99999999999999999999}}',
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("content", BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_is_not_a_json_object_is_invalid(
    client: httpx2.AsyncClient, world: World, name: str, content: bytes
) -> None:
    to = await endpoint(name, world, client)
    (await send(client, to, content)).failed("validation_error")


@pytest.mark.parametrize("name", [name for name in WRITES if name not in WITHOUT_BODY])
@pytest.mark.parametrize("content", [b"", b"null"])
async def test_a_missing_body_is_invalid(client: httpx2.AsyncClient, world: World, name: str, content: bytes) -> None:
    to = await endpoint(name, world, client)
    (await send(client, to, content)).failed("validation_error", paths=["body"])


WRONG: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "itsm POST": {
        "subject": (12, True, None, [], {}, "a\0b"),
        "metadata": ("{}", [], 1, {"a": "\0"}),
        "priority": ("LOW", 1, "", []),
        "status": ("new", 0),
        "requester_email": ("", "a@", 1, "a@b@c.de", "\0@example.com"),
    },
    "itsm PATCH": {
        "subject": (None,),
        "description": ("",),
        "status": ("x",),
        "metadata": (None,),
        "priority": (3,),
    },
    "helpdesk POST": {
        "title": (12, None, "", "x" * 256, "\0"),
        "tags": (["\0"], {"\0": 1}, "x" * 16_383),
        "due_at": (
            1700000000,
            "1700000000",
            "tomorrow",
            True,
            "2026-02-30T00:00:00Z",
            "9999-12-31T23:59:59-12:00",
            "0001-01-01T00:00:00+12:00",
            1e300,
        ),
        "assigned_to_id": (1, "", "x" * 65, "a\0"),
        "type": ("Incident", 1),
    },
    "helpdesk PATCH": {"title": (None,), "status": (None,), "tags": ("\0",), "due_at": (1,), "source_type": ("mail",)},
    "helpdesk close": {"resolution_note": (1, "x" * 5001, "\0"), "etag": ("a\0b", "x" * 65)},
    "helpdesk restore": {"etag": ("a\0b", "x" * 65)},
    "handoff bulk": {"ticket_ids": (["a\0b"], ["1", "x" * 20_000], [1], [])},
    "helpdesk policy": {
        "applies_to": ([["incident"]], ["x"] * 1000),
        "resolution_minutes": ("60", 1e300, 2**64),
        "business_hours_only": ("true", 0),
    },
    "helpdesk calendar": {
        "time_zone": (None, "../../etc/passwd", "\0", "x" * 100_000),
        "hours": (None, [[]], [{}] * 10_000),
        "holidays": (None, [20301225], ["\0"]),
    },
    "handoff POST": {
        "title": (12, None, "", "   ", "x" * 141, "\0"),
        "description": ("", "x" * 20_001, 1),
        "blocking": ("true", 1, 0),
        "roles": ("backend", [1], ["backend", "backend"], ["x"] * 1000),
        "evidence": ([], "{}", 1, {"a": "x" * 262_144}),
        "request_type": (None, "BUG", 1),
        "actor_id": ("x" * 129, 1),
    },
}


@pytest.mark.parametrize(
    ("name", "member", "value"),
    [
        (name, member, value)
        for name, members in WRONG.items()
        for member, values in members.items()
        for value in values
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_wrong_value_is_reported_by_its_path(
    client: httpx2.AsyncClient, world: World, name: str, member: str, value: Any
) -> None:
    to = await endpoint(name, world, client)
    reply = await send(client, to, json.dumps({**to.body, member: value}).encode())
    reply.failed("validation_error")
    assert {issue["path"].split(".")[0] for issue in reply.issues()} == {member}


@pytest.mark.parametrize("name", WRITES)
async def test_a_mebibyte_is_not_too_large_but_more_is(client: httpx2.AsyncClient, world: World, name: str) -> None:
    to = await endpoint(name, world, client)
    most = json.dumps(to.body).encode().ljust(2**20)
    (await send(client, to, most + b" ")).failed("payload_too_large")
    assert (await send(client, to, most)).status in (200, 201)


@pytest.mark.parametrize("name", WRITES)
async def test_unknown_members_are_ignored_or_in_the_helpdesk_refused(
    client: httpx2.AsyncClient, world: World, name: str
) -> None:
    to = await endpoint(name, world, client)
    unknown = {"header": {}, "path": {}, "idempotency-key": "", "\0": "\0"}
    reply = await send(client, to, json.dumps({**to.body, **unknown, "id": "x"}).encode())
    if to.api == "helpdesk":
        # (An `id` is a stamp, where there is one.)
        named = [*unknown, "id"] if name == "helpdesk calendar" else [*unknown]
        reply.failed("validation_error", paths=named)
    else:
        assert reply.status in (200, 201), reply.body


async def test_numbers_keep_their_precision(client: httpx2.AsyncClient, world: World) -> None:
    numbers = '{"big":12345678901234567890123,"fine":1.10,"small":-0.0,"far":1E+400,"int":9007199254740993}'
    for name, member in (("itsm POST", "metadata"), ("helpdesk POST", "tags"), ("handoff POST", "evidence")):
        to = await endpoint(name, world, client)
        plain = json.dumps(to.body)[:-1]
        text = f'{plain}, "{member}": {numbers}}}'
        response = await client.post(to.path, content=text.encode(), headers=to.credential)
        assert response.status_code == 201, response.text
        assert f'"{member}":{numbers}' in response.text


RAW_TARGETS = [
    "/api/v1/tickets/%",
    "/api/v1/tickets/%zz",
    "/api/v1/tickets/%00",
    "/api/v1/tickets/%ff%fe",
    "/api/v1/tickets/%2F..%2F",
    "/api/v1/tickets?status=%ff",
    "/api/v1/tickets?status=%00",
    "/api/v1/tickets?limit=%zz",
    "/api/v1/tickets?limit=abc",
    "/api/v1/tickets?limit=99999999999999999999999999999999",
    "/api/v1/tickets?offset=9223372036854775808",
    "/api/v1/tickets?offset=1.5",
    "/api/v1/tickets?limit=",
    "/api/v1/tickets?start_date=yesterday",
    "/api/v1/tickets?start_date=1700000000",
    "/api/v1/tickets?end_date=9999-12-31T23:59:59-12:00",
    "/api/v1/tickets?limit=1&limit=1000",
    "/api/v1/tickets?metadata.=x",
    "/api/v1/tickets?metadata.%00=x",
    "/api/v1/tickets?metadata.a=%ff",
    "/api/v1/tickets?" + "&".join(f"metadata.{number}=x" for number in range(11)),
    "/api/v1/helpdesk/tickets/%ff",
    "/api/v1/helpdesk/tickets?limit=0",
    "/api/v1/helpdesk/tickets?cursor=%00",
    "/api/v1/helpdesk/tickets?cursor=a%22b",
    "/api/v1/helpdesk/tickets/%00/sla",
    "/api/v1/helpdesk/sla-policies/%00",
    "/api/v1/helpdesk/sla-policies/%ff%fe",
    "/api/v1/helpdesk/sla-policies?status=%00",
    "/api/v1/helpdesk/sla-policies?cursor=%F0%9F%8E%AB",
    "/api/tickets?limit=1001",
    "/api/tickets?cursor=%F0%9F%8E%AB",
    "/api/tickets?slim=perhaps",
    "/api/tickets?limit=" + "9" * 5000,
]


@pytest.mark.parametrize("target", RAW_TARGETS, ids=lambda target: target[:60])
async def test_bad_paths_and_queries_are_refused(gateway_url: str, world: World, target: str) -> None:
    api = "itsm" if target.startswith("/api/v1/tickets") else "handoff"
    credentials = {"itsm": (await world.program()).credential, "handoff": world.person("agent", sub=str(uuid4()))}
    reply = await raw(gateway_url, api, "GET", target, credentials[api])
    assert isinstance(reply.status, int)
    assert 400 <= reply.status < 500, reply
    assert ("detail" if api == "itsm" else "code") in reply.body


HEADERS = [
    {"x-a-bin": "!!!"},
    {"x-a-bin": "\xff\xfe"},
    {"grpc-timeout": "garbage"},
    {"grpc-timeout": "1n"},
    {"grpc-encoding": "snappy"},
    {"content-encoding": "identity"},
    {"grpc-accept-encoding": "\xff"},
    {"te": "trailers, deflate"},
    {"x-request-id": "x" * 5000},
    {"x-request-id": "a b\tc"},
    {"x-http-status": "500"},
    {"x-real-status": "\xe9\xe8"},
    {"accept": "application/xml"},
    {"accept-encoding": "br, gzip"},
    {"content-type": "text/plain"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"user-agent": "\xf0\x9f\x8e\xab"},
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
async def test_odd_headers_do_no_harm(gateway_url: str, world: World, header: dict[str, str]) -> None:
    credential = (await world.program()).credential
    body = json.dumps(ITSM).encode()
    reply = await raw(gateway_url, "itsm", "POST", "/api/v1/tickets", {**credential, **header}, body)
    assert reply.status in (201, 400), reply
    assert "id" in reply.body or "detail" in reply.body


@pytest.mark.parametrize("key", ["", "x" * 256, "\xd0\xba\xd0\xbb\xd1\x8e\xd1\x87", "a\tb"])
async def test_odd_idempotency_keys_are_invalid(gateway_url: str, world: World, key: str) -> None:
    credential = (await world.program()).credential
    given = {**credential, "idempotency-key": key}
    reply = await raw(gateway_url, "itsm", "POST", "/api/v1/tickets", given, json.dumps(ITSM).encode())
    assert reply.status in (400, 422), reply
    assert (await client_total(gateway_url, credential)) == 0


async def client_total(gateway_url: str, credential: Mapping[str, str]) -> int:
    total: int = (await raw(gateway_url, "itsm", "GET", "/api/v1/tickets", credential)).body["total"]
    return total


async def raw(
    gateway_url: str, api: str, verb: str, target: str, headers: Mapping[str, str], body: bytes = b""
) -> Reply:
    """Send a request with target and headers byte for byte as given."""
    async with httpx2.AsyncHTTPTransport(verify=trusted_authorities()) as transport:
        parts = urlsplit(gateway_url)
        url = httpx2.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port)
        request = httpx2.Request(
            verb,
            url,
            headers=[
                (b"host", parts.netloc.encode()),
                *((name.encode(), value.encode("latin-1")) for name, value in headers.items()),
                (b"content-length", str(len(body)).encode()),
            ],
            content=body,
            extensions={"target": target.encode()},
        )
        response = await transport.handle_async_request(request)
        await response.aread()
        return rest_reply(api, response)


@pytest.mark.parametrize("api", ["itsm", "handoff"])
async def test_a_credential_with_an_odd_byte_is_refused_and_stays_out_of_the_log(
    gateway_url: str, world: World, service: Service, api: str
) -> None:
    program, user = await world.program(), world.issuer.bearer(str(uuid4()))
    credential = program.credential if api == "itsm" else user
    odd = {name: value + "\xe9" for name, value in credential.items()}
    target = "/api/v1/tickets" if api == "itsm" else "/api/tickets"
    (await raw(gateway_url, api, "GET", target, odd)).failed("unauthenticated")
    assert program.key.encode() not in service.log.read_bytes()
    assert user["authorization"].encode() not in service.log.read_bytes()


@pytest.mark.parametrize(("api", "path"), [("itsm", "/api/v1/a"), ("helpdesk", "/api/v1/helpdesk/a")])
async def test_grpc_by_content_type_alone_is_a_404_in_the_apis_shape(
    client: httpx2.AsyncClient, api: str, path: str
) -> None:
    reply = rest_reply(api, await client.post(path, content=b"{}", headers={"content-type": "application/grpc"}))
    assert reply.status == 404
    assert ("detail" if api == "itsm" else "code") in reply.body
