"""Browsers at the gateway: which origins may call what and read what (CORS), and grpc-web."""

import copy
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from google.rpc import error_details_pb2
from support import grpc_web
from support.methods import METHODS
from support.system import Service, World
from tickets.errors.v1 import error_pb2
from tickets.itsm.v1 import ticket_service_pb2

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port

PORTAL = "https://portal.example"
OTHER = "http://127.0.0.1:3000"
STRANGERS = [
    "https://portal.example.evil.example",
    "http://portal.example",
    "https://portal.example:8443",
    "https://portal-example",
    "https://evil.example",
    "https://PORTAL.example",
    "null",
    "",
]

SENT = [
    "authorization",
    "x-api-key",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "x-request-id",
    "x-grpc-web",
    "x-user-agent",
    "grpc-timeout",
    "connect-protocol-version",
    "connect-timeout-ms",
]
READ = [
    "etag",
    "retry-after",
    "x-request-id",
    "idempotent-replayed",
    "ratelimit",
    "ratelimit-policy",
    "allow",
    "www-authenticate",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
]

TICKET = {"subject": "VPN is down", "description": "Since nine."}
CREATE = "tickets.itsm.v1.TicketService/CreateTicket"
WEB = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


@pytest.fixture(scope="module")
async def open_client(directory: Path, service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway that names two origins."""
    config = envoy_config(port=free_port(), endpoints=[service.target], cors_origins=f"{PORTAL},{OTHER}")
    with Envoy(config, log_file=directory / "envoy-for-browsers.log") as envoy:
        envoy.wait_until_ready(upstream=True)
        async with httpx2.AsyncClient(base_url=envoy.url, timeout=30) as client:
            yield client


def cors_of(response: httpx2.Response) -> Mapping[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def is_readable(response: httpx2.Response, origin: str = PORTAL) -> None:
    """Check that a page of the origin may read the response, and its headers."""
    cors = cors_of(response)
    assert cors["access-control-allow-origin"] == origin
    assert words(cors["access-control-expose-headers"]) == READ
    assert set(cors) == {"access-control-allow-origin", "access-control-expose-headers"}
    assert words(response.headers["vary"]).count("Origin") == 1


# Preflights

CALLS = sorted({(method.verb, method.path.replace("{", "").replace("}", "")) for method in METHODS.values()})

# (Envoy refuses the last of these before any filter, and then also what follows, which a page can read.)
MORE = [("GET", "/api/v1/events"), ("POST", f"/{CREATE}"), ("GET", "/nowhere"), ("GET", "/api/v1/tickets/a%2Fb")]


def preflight(verb: str, origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": verb,
        "access-control-request-headers": "x-api-key,content-type",
    }


@pytest.mark.parametrize(("verb", "path"), [*CALLS, *MORE])
async def test_every_call_has_a_preflight(open_client: httpx2.AsyncClient, verb: str, path: str) -> None:
    for origin in (PORTAL, OTHER):
        response = await open_client.options(path, headers=preflight(verb, origin))
        assert (response.status_code, response.content) == (200, b"")
        cors = cors_of(response)
        assert cors["access-control-allow-origin"] == origin
        assert verb in words(cors["access-control-allow-methods"])
        assert set(SENT) <= set(words(cors["access-control-allow-headers"]))
        assert int(cors["access-control-max-age"]) > 0
        assert "access-control-allow-credentials" not in cors  # no cookies here


@pytest.mark.parametrize("origin", STRANGERS)
async def test_an_origin_that_is_not_named_has_no_permission(open_client: httpx2.AsyncClient, origin: str) -> None:
    for path in ("/api/v1/tickets", f"/{CREATE}", "/nowhere"):
        response = await open_client.options(path, headers=preflight("POST", origin))
        assert cors_of(response) == {}
        assert response.status_code in (404, 405)
    for response in (
        await open_client.get("/api/v1/tickets", headers={"origin": origin}),
        await open_client.put("/api/v1/tickets", headers={"origin": origin}),
    ):
        assert response.status_code in (401, 405)
        assert cors_of(response) == {}
        assert words(response.headers["vary"]) == ["Origin"]


async def test_no_origin_is_named_by_default(client: httpx2.AsyncClient) -> None:
    asked = await client.options("/api/v1/tickets", headers=preflight("GET", PORTAL))
    answered = await client.get("/api/v1/tickets", headers={"origin": PORTAL})
    assert (asked.status_code, answered.status_code) == (405, 401)
    for response in (asked, answered):
        assert cors_of(response) == {}
        assert "vary" not in response.headers


async def test_options_that_are_no_preflight_are_a_verb_that_no_path_has(open_client: httpx2.AsyncClient) -> None:
    response = await open_client.options("/api/v1/tickets", headers={"origin": PORTAL})
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, POST")
    is_readable(response)


# What a page may read: answers, and every error, whoever makes it

ERRORS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/api/v1/tickets", {}, 401),  # the service
    ("GET", "/api/v1/helpdesk/tickets", {"headers": {"authorization": "Bearer x"}}, 401),
    ("GET", "/nowhere", {}, 404),  # the transcoder
    ("PUT", "/api/v1/tickets", {}, 405),  # a route
    ("POST", "/api/v1/tickets", {"headers": {"content-type": "application/grpc"}}, 404),  # what is no call
    ("POST", "/api/v1/tickets", {"headers": {"content-encoding": "gzip"}, "content": b"{}"}, 415),  # the Lua filter
    ("GET", "/api/v1/tickets?q=" + "a" * 17_000, {}, 431),
    ("GET", "/api/v1/tickets?q=%ff", {}, 400),
    ("GET", "/api/v1/tickets/a%2Fb", {}, 400),  # Envoy, before any filter
    ("POST", "/api/v1/tickets", {"content": b"x" * 2_000_000}, 413),  # the buffer filter
]


@pytest.mark.parametrize(("verb", "path", "options", "status"), ERRORS)
async def test_a_page_can_read_each_error(
    open_client: httpx2.AsyncClient, verb: str, path: str, options: dict[str, Any], status: int
) -> None:
    headers = {**options.get("headers", {}), "origin": PORTAL}
    response = await open_client.request(verb, path, **{**options, "headers": headers})
    assert response.status_code == status
    assert set(response.json()) in ({"detail"}, {"error", "code"}, {"error", "code", "issues", "fieldErrors"})
    is_readable(response)


async def test_a_page_can_read_answers(open_client: httpx2.AsyncClient, world: World) -> None:
    program = await world.program()
    headers = {"origin": OTHER, **program.credential}
    made = await open_client.post("/api/v1/tickets", json=TICKET, headers={**headers, "idempotency-key": "k"})
    again = await open_client.post("/api/v1/tickets", json=TICKET, headers={**headers, "idempotency-key": "k"})
    read = await open_client.get(f"/api/v1/tickets/{made.json()['id']}", headers=headers)
    unchanged = await open_client.get(
        f"/api/v1/tickets/{made.json()['id']}", headers={**headers, "if-none-match": read.headers["etag"]}
    )
    assert [made.status_code, again.status_code, read.status_code, unchanged.status_code] == [201, 201, 200, 304]
    assert again.headers["idempotent-replayed"] == "true"
    for response in (made, again, read, unchanged):
        is_readable(response, OTHER)
    async with open_client.stream("GET", "/api/v1/events", headers=headers) as response:
        is_readable(response, OTHER)


async def test_a_page_can_read_that_nothing_answers_or_that_it_asks_too_much(directory: Path) -> None:
    config = copy.deepcopy(envoy_config(port=free_port(), endpoints=[f"127.0.0.1:{free_port()}"], cors_origins=PORTAL))
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    limit = next(entry for entry in manager["http_filters"] if entry["name"].endswith("local_ratelimit"))
    bucket = limit["typed_config"]["descriptors"][0]["token_bucket"]
    bucket |= {"max_tokens": 4, "tokens_per_fill": 1, "fill_interval": "600s"}
    with Envoy(config, log_file=directory / "envoy-of-a-test.log") as envoy:
        # (Whether it is ready was one call.)
        async with httpx2.AsyncClient(base_url=envoy.url) as client:
            gone = await client.get("/api/v1/tickets", headers={"origin": PORTAL})
            web = await grpc_web.call(client, CREATE, b"", {"origin": PORTAL})
            asked = await client.options("/api/v1/tickets", headers=preflight("GET", PORTAL))
            many = await client.get("/api/v1/tickets", headers={"origin": PORTAL})
            web_many = await grpc_web.call(client, CREATE, b"", {"origin": PORTAL})
    assert [gone.status_code, asked.status_code, many.status_code] == [503, 200, 429]
    assert (web.status, web_many.status) == (grpc.StatusCode.UNAVAILABLE.value[0], 8)
    for response in (gone, many, web.response, web_many.response):
        is_readable(response)
    assert (gone.headers["retry-after"], many.headers["retry-after"]) == ("1", "1")


# grpc-web


@pytest.mark.parametrize("form", ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"])
async def test_grpc_web_calls_the_typed_services(client: httpx2.AsyncClient, world: World, form: str) -> None:
    program = await world.program()
    request = ticket_service_pb2.CreateTicketRequest(subject="VPN is down", description="Since nine.")
    reply = await grpc_web.call(client, CREATE, request, program.credential, content_type=form)
    [message] = reply.messages
    assert ticket_service_pb2.CreateTicketResponse.FromString(message).ticket.subject == TICKET["subject"]
    assert reply.status == 0
    assert reply.trailers["x-request-id"]


async def test_grpc_web_failures_keep_their_words_and_details(open_client: httpx2.AsyncClient, world: World) -> None:
    program = await world.program()
    headers = {"origin": PORTAL, **program.credential}
    reply = await grpc_web.call(open_client, CREATE, ticket_service_pb2.CreateTicketRequest(), headers)
    assert (reply.status, reply.message) == (3, "subject: Field required (and 1 more)")
    details = {packed.TypeName(): packed for packed in reply.details().details}
    info, error = error_details_pb2.ErrorInfo(), error_pb2.Error()
    assert details[info.DESCRIPTOR.full_name].Unpack(info)
    assert details[error.DESCRIPTOR.full_name].Unpack(error)
    assert (info.reason, [issue.path for issue in error.issues]) == ("validation_error", ["subject", "description"])
    is_readable(reply.response)


async def test_a_watch_comes_over_grpc_web_as_it_happens(client: httpx2.AsyncClient, world: World) -> None:
    program = await world.program()
    method, empty = "/tickets.itsm.v1.TicketService/WatchTickets", b"\0\0\0\0\0"
    async with client.stream("POST", method, content=empty, headers={**WEB, **program.credential}) as response:
        assert response.headers["content-type"] == "application/grpc-web+proto"
        pieces = response.aiter_raw()
        first = ticket_service_pb2.WatchTicketsResponse.FromString((await anext(pieces))[5:])
        assert first.cursor
        assert not first.HasField("event")
        await client.post("/api/v1/tickets", json=TICKET, headers=program.credential)
        while not (message := ticket_service_pb2.WatchTicketsResponse.FromString((await anext(pieces))[5:])).HasField(
            "event"
        ):
            pass
        assert message.event.version == 1


GATEWAY_ERRORS = [
    ({"grpc-timeout": "-1S"}, b"", 3, "The request is not valid"),
    ({"grpc-encoding": "gzip"}, b"", 12, "Compressed messages are not supported"),
    ({}, bytes(1024 * 1024 + 64), 3, "The request is too large"),
]


@pytest.mark.parametrize(("headers", "request_", "status", "message"), GATEWAY_ERRORS)
async def test_the_gateways_own_errors_are_grpc_web_too(
    open_client: httpx2.AsyncClient, headers: dict[str, str], request_: bytes, status: int, message: str
) -> None:
    reply = await grpc_web.call(open_client, CREATE, request_, {"origin": PORTAL, **headers})
    assert (reply.status, reply.message) == (status, message)
    # Of a status that is not in the body libraries look at HTTP's, which says the same.
    assert reply.response.status_code == (404 if status == 12 else 200)
    is_readable(reply.response)


# What is not offered


async def test_reflection_is_only_where_an_operator_asks_for_it(channel: grpc.aio.Channel) -> None:
    ask: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    # Without a message, as the call may end before one is sent.
    assert await ask().code() == grpc.StatusCode.UNIMPLEMENTED


CLOSED = [
    "tickets.admin.v1.AdminService/CreateAccount",
    "tickets.itsm.rest.v1.TicketRest/CreateTicket",
    "tickets.helpdesk.rest.v1.TicketRest/ListTickets",
    "tickets.handoff.rest.v1.TicketRest/ListTickets",
    "grpc.health.v1.Health/Check",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "tickets.itsm.v1.Nothing/Nothing",
]


@pytest.mark.parametrize("method", CLOSED)
async def test_what_is_the_operators_is_not_at_the_gateway(
    client: httpx2.AsyncClient, gateway_url: str, world: World, method: str
) -> None:
    admin = world.issuer.bearer("ops", scope="tickets:admin")
    async with grpc.aio.insecure_channel(gateway_url.removeprefix("http://")) as channel:
        native: Any = channel.unary_unary(f"/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await native(b"", metadata=tuple(admin.items()))
    assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED
    for form in ("application/grpc-web", "application/grpc-web-text+proto"):
        reply = await grpc_web.call(client, method, b"", admin, content_type=form)
        assert (reply.response.status_code, reply.status) == (404, 12)
    for form in ("application/json", "application/connect+proto", "application/proto"):
        assert (
            await client.post(f"/{method}", content=b"{}", headers={"content-type": form, **admin})
        ).status_code == 404
