"""HTTP as its clients speak it (contracts/README.md), and the headers and words of answers (contracts/errors.md)."""

import asyncio
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx2
import pytest
from google.api.httpbody_pb2 import HttpBody
from support.by_hand import by_hand, response_by_hand
from support.frames import connected, grpc_headers
from support.methods import METHODS
from support.system import Credential, World
from support.transports import Rest, rest_reply
from tickets.itsm.rest.v1.rest_pb2 import (
    TicketRestCreateTicketRequest,
    TicketRestGetTicketRequest,
    TicketRestListTicketsRequest,
)
from tickets.itsm.rest.v1.rest_pb2_grpc import TicketRestStub

ITSM = {"subject": "VPN is down", "description": "Since nine."}


@dataclass(frozen=True)
class Callers:
    """Who may use each of the APIs, and a project."""

    project: str
    credentials: Mapping[str, Credential]

    def lines(self, api: str) -> list[str]:
        """The credential as lines of a request."""
        return [f"{name}: {value}" for name, value in self.credentials[api].items()]


@pytest.fixture(scope="module")
async def callers(world: World) -> Callers:
    project = await world.project()
    program = await world.program(scopes=("tickets:read", "tickets:write", "webhooks:manage"))
    helpdesk = world.person("read", "write", "agent")
    credentials = {"itsm": program.credential, "helpdesk": helpdesk, "handoff": await world.member(project)}
    return Callers(project, credentials)


# Versions and upgrades

LISTS = {"itsm": "/api/v1/tickets", "helpdesk": "/api/v1/helpdesk/tickets", "handoff": "/api/tickets"}
WATCHES = {"itsm": "/api/v1/events", "helpdesk": "/api/v1/helpdesk/events", "handoff": "/api/projects/{}/events"}


@pytest.mark.parametrize("upgrade", ["TLS/1.2", "websocket", "h2c"])
@pytest.mark.parametrize("api", LISTS)
async def test_an_upgrade_that_we_do_not_do_is_ignored(
    gateway_url: str, callers: Callers, api: str, upgrade: str
) -> None:
    offer = ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMAAABkAAQAAP__"]
    reply = await by_hand(gateway_url, f"GET {LISTS[api]} HTTP/1.1", [*callers.lines(api), *offer], api)
    assert "tickets" in reply.succeeded()


@pytest.mark.parametrize("api", LISTS)
async def test_an_answer_over_http_2_has_nothing_of_grpc_in_it(gateway_url: str, callers: Callers, api: str) -> None:
    request = [(":method", "GET"), (":scheme", "http"), (":path", LISTS[api]), (":authority", "a")]
    async with connected(gateway_url.removeprefix("http://")) as peer:
        # With its trailers: the complete list is a stream.
        answer = await peer.answer(await peer.begin([*request, *callers.credentials[api].items()], end=True))
    assert answer[":status"] == "200"
    assert [name for name in answer if name.startswith("grpc-")] == []


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("api", LISTS)
async def test_http_1_0_and_a_slash_at_the_end_are_as_good(
    gateway_url: str, callers: Callers, api: str, version: str, slash: str
) -> None:
    reply = await by_hand(gateway_url, f"GET {LISTS[api]}{slash} HTTP/{version}", callers.lines(api), api)
    assert "tickets" in reply.succeeded()
    watch = WATCHES[api].format(callers.project)
    line = f"GET {watch}{slash} HTTP/{version}"
    response = await response_by_hand(gateway_url, line, callers.lines(api), first_line=True)
    assert (response.status_code, set(response.json())) == (200, {"event", "cursor"})


# Verbs


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.verb == "GET"])
async def test_head_answers_as_get_without_a_body(client: httpx2.AsyncClient, callers: Callers, name: str) -> None:
    method = METHODS[name]
    path = method.path.replace("{project_id}", callers.project)
    for credential in (callers.credentials[method.api], {}):
        get, head = [await client.request(verb, path, headers=dict(credential)) for verb in ("GET", "HEAD")]
        assert (head.status_code, head.content, told(head)) == (get.status_code, b"", told(get))
        # A stream's length is not known before its end.
        is_stream = head.is_success and method.api == "handoff" and "transfer-encoding" in get.headers
        assert head.headers.get("content-length") == (None if is_stream else str(len(get.content)))


def told(response: httpx2.Response) -> dict[str, str]:
    """Its headers, but those of its length and those that differ with each request."""
    others = {"date", "x-request-id", "ratelimit", "content-length", "transfer-encoding"}
    return {name: value for name, value in response.headers.items() if name not in others}


@pytest.mark.parametrize("api", WATCHES)
async def test_the_head_of_a_watch_is_all_there_is(client: httpx2.AsyncClient, callers: Callers, api: str) -> None:
    path, credential = WATCHES[api].format(callers.project), dict(callers.credentials[api])
    response = await client.head(path, headers=credential)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "application/x-ndjson"
    assert (await client.head(f"{path}?cursor=x", headers=credential)).status_code == (422 if api == "itsm" else 400)


HEADS_OF_FAILURES: Mapping[str, tuple[str, Mapping[str, str], int]] = {
    "no such path": ("/api/v1/x", {}, 404),
    "a verb that it has not": ("/api/v1/webhooks/x", {}, 405),
    "a slash that is escaped": ("/api/tickets/a%2Fb", {}, 400),
    "two keys": ("/api/v1/tickets", {"x-api-key": "a", "X-API-Key": "b"}, 400),
    "gRPC, by its content type": ("/api/v1/tickets/a", {"content-type": "application/grpc"}, 404),
    "gRPC, and a slash that is escaped": ("/api/v1/tickets/a%2Fb", {"content-type": "application/grpc"}, 400),
    "gRPC, and no path of ours": ("/x", {"content-type": "application/grpc"}, 404),
}


@pytest.mark.parametrize(("path", "headers", "status"), HEADS_OF_FAILURES.values(), ids=HEADS_OF_FAILURES.keys())
async def test_the_head_of_a_failure_of_the_gateways_has_no_body_either(
    gateway_url: str, path: str, headers: Mapping[str, str], status: int
) -> None:
    # A body would be taken for the next answer.
    assert await bytes_after_head(gateway_url, path, headers) == (status, b"")


async def bytes_after_head(gateway_url: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """The status of a HEAD, and what follows its headers on a connection that is closed then."""
    reader, writer = await asyncio.open_connection(*gateway_url.removeprefix("http://").split(":"))
    lines = [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([f"HEAD {path} HTTP/1.1", "Host: a", "Connection: close", *lines, "", ""]).encode())
    head, _, rest = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split(b" ")[1]), rest


WRONG_VERBS = [
    ("itsm", "PUT", "/api/v1/tickets", "GET, HEAD, POST"),
    ("itsm", "DELETE", "/api/v1/tickets/x/", "GET, HEAD, PATCH"),
    ("itsm", "OPTIONS", "/api/v1/webhooks/x", "PATCH, DELETE"),
    ("helpdesk", "POST", "/api/v1/helpdesk/calendar", "GET, HEAD, PATCH"),
    ("helpdesk", "GET", "/api/v1/helpdesk/tickets/x/close?a=b", "POST"),
    ("handoff", "POST", "/api/tickets", "GET, HEAD"),
    ("handoff", "TRACE", "/api/projects/x/tickets/bulk", "POST"),
]


@pytest.mark.parametrize(("api", "verb", "path", "allow"), WRONG_VERBS)
async def test_a_wrong_verb_is_told_the_verbs_of_its_path(
    client: httpx2.AsyncClient, api: str, verb: str, path: str, allow: str
) -> None:
    # Also before anything is known of who asks, and whatever comes with it.
    for content in (b"", b"{}" * 2**20):
        reply = rest_reply(api, await client.request(verb, path, content=content))
        assert (reply.status, reply.headers["allow"]) == (405, allow)
        error = {"error": "Method Not Allowed", "code": "method_not_allowed"}
        assert reply.body == ({"detail": "Method Not Allowed"} if api == "itsm" else error)


# Bodies


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "deflate", "x"])
@pytest.mark.parametrize("api", ["itsm", "helpdesk"])
async def test_a_body_with_a_coding_is_refused(
    client: httpx2.AsyncClient, callers: Callers, api: str, coding: str
) -> None:
    headers = {**callers.credentials[api], "content-encoding": coding}
    body = gzip.compress(json.dumps(ITSM | {"title": "a"}).encode())
    reply = rest_reply(api, await client.post(LISTS[api], content=body, headers=headers))
    reply.failed("unsupported_media_type", "The body must not be compressed")
    assert reply.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["Identity", ""])
async def test_a_body_as_it_is_may_say_so(client: httpx2.AsyncClient, callers: Callers, coding: str) -> None:
    headers = {**callers.credentials["itsm"], "content-encoding": coding}
    assert (await client.post(LISTS["itsm"], json=ITSM, headers=headers)).status_code == 201


async def test_a_coding_is_none_of_a_request_that_has_no_body(client: httpx2.AsyncClient, callers: Callers) -> None:
    credential = dict(callers.credentials["helpdesk"])
    made = (await client.post(LISTS["helpdesk"], json={"title": "a"}, headers=credential)).json()
    for verb, path in (("GET", ""), ("HEAD", ""), ("GET", f"/{made['id']}"), ("DELETE", f"/{made['id']}")):
        answer = await client.request(
            verb, LISTS["helpdesk"] + path, headers={**credential, "content-encoding": "gzip"}
        )
        assert (verb, path, answer.status_code) == (verb, path, 200)


# ETags


async def test_an_etag_is_compared_weakly(client: httpx2.AsyncClient, callers: Callers) -> None:
    credential = dict(callers.credentials["helpdesk"])
    made = await client.post(LISTS["helpdesk"], json={"title": "a"}, headers=credential)
    path, etag = f"{LISTS['helpdesk']}/{made.json()['id']}", made.headers["etag"]
    for known in (etag, f"W/{etag}", f'"x", W/{etag}', "*"):
        for verb in ("GET", "HEAD"):
            response = await client.request(verb, path, headers={**credential, "if-none-match": known})
            assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
            assert response.headers["x-request-id"]
            assert {"content-type", "content-length"}.isdisjoint(response.headers)
    other = await client.get(path, headers={**credential, "if-none-match": 'W/"x"'})
    assert (other.status_code, other.headers["etag"], other.json()["title"]) == (200, etag, "a")
    # A condition of reads is none of a write.
    changed = await client.patch(
        path, json={"title": "b"}, headers={**credential, "if-match": f'"x", W/{etag}', "if-none-match": etag}
    )
    assert (changed.status_code, changed.json()["title"]) == (200, "b")
    late = await client.patch(path, json={"title": "c"}, headers={**credential, "if-match": f"W/{etag}"})
    rest_reply("helpdesk", late).failed("stale")


# Headers of answers

NO_TOKEN, BAD_TOKEN = 'Bearer realm="tickets"', 'Bearer realm="tickets", error="invalid_token"'
CHALLENGES: Mapping[str, tuple[str, Mapping[str, str], str]] = {
    "no token": ("handoff", {}, NO_TOKEN),
    "another scheme": ("handoff", {"authorization": "Basic YTpi"}, NO_TOKEN),
    "an API key": ("helpdesk", {"x-api-key": "itsm_sk_live_x"}, NO_TOKEN),
    "a bad token": ("handoff", {"authorization": "Bearer x"}, BAD_TOKEN),
    "no key": ("itsm", {}, "ApiKey"),
    "a bad key": ("itsm", {"x-api-key": "itsm_sk_live_x"}, "ApiKey"),
}


@pytest.mark.parametrize(("api", "credential", "challenge"), CHALLENGES.values(), ids=CHALLENGES.keys())
async def test_a_401_says_what_it_asks_for(
    client: httpx2.AsyncClient, api: str, credential: Mapping[str, str], challenge: str
) -> None:
    for path in (LISTS[api], WATCHES[api].format("x")):
        response = await client.get(path, headers=dict(credential))
        assert (response.status_code, response.headers.get_list("www-authenticate")) == (401, [challenge])


async def test_an_expired_token_is_a_bad_one(client: httpx2.AsyncClient, world: World) -> None:
    response = await client.get(LISTS["helpdesk"], headers=dict(world.person("read", exp=1)))
    assert (response.status_code, response.headers["www-authenticate"]) == (401, BAD_TOKEN)


RATES: Mapping[str, tuple[str, str, str, int]] = {
    "a page": ("itsm", "GET", "/api/v1/tickets", 200),
    "a complete list": ("handoff", "GET", "/api/tickets", 200),
    "a page of it": ("handoff", "GET", "/api/tickets?limit=1", 200),
    "a head": ("helpdesk", "HEAD", "/api/v1/helpdesk/tickets", 200),
    "nothing there": ("helpdesk", "GET", "/api/v1/helpdesk/tickets/x", 404),
    "a write": ("helpdesk", "POST", "/api/v1/helpdesk/tickets", 201),
    "a write that is not valid": ("itsm", "POST", "/api/v1/tickets", 422),
}


@pytest.mark.parametrize(("api", "verb", "path", "status"), RATES.values(), ids=RATES.keys())
async def test_every_answer_says_what_is_left_of_the_rate(
    client: httpx2.AsyncClient, world: World, callers: Callers, api: str, verb: str, path: str, status: int
) -> None:
    credential = {"itsm": (await world.program()).credential, "helpdesk": world.person("agent", "write")}
    headers = dict(credential.get(api) or await world.member(callers.project))
    body = {"title": "a"} if verb == "POST" else None
    for left in (99_999, 99_998):
        response = await client.request(verb, path, json=body, headers=headers)
        kind = "write" if verb == "POST" else "read"
        rate = f'"{kind}";r={left};t=1', f'"{kind}";q=100000;w=1'
        assert response.status_code == status
        assert (response.headers["ratelimit"], response.headers["ratelimit-policy"]) == rate


@pytest.mark.parametrize(("named", "seen"), [((), []), ((("x-gateway", "grpc-gateway"),), ["etag", "ratelimit"])])
async def test_a_gateway_that_says_its_name_gets_the_headers_of_a_200_apart_from_its_words(
    channel: grpc.aio.Channel, world: World, named: tuple[tuple[str, str], ...], seen: list[str]
) -> None:
    """Envoy reads the words of a success; most gRPC libraries do not show them."""
    program = await world.program()
    stub = TicketRestStub(channel)
    metadata = (*program.credential.items(), *named)
    body = HttpBody(data=json.dumps(ITSM).encode())
    made = json.loads((await stub.CreateTicket(TicketRestCreateTicketRequest(body=body), metadata=metadata)).data)
    path = ("x-envoy-original-path", f"/api/v1/tickets/{made['id']}")
    call = stub.GetTicket(TicketRestGetTicketRequest(ticket_id=made["id"]), metadata=(*metadata, path))
    before, words = {name for name, _ in await call.initial_metadata() or ()}, await call.details()
    assert [name for name in ("etag", "ratelimit") if name in before] == seen
    assert ("etag=" in (words or "")) is not bool(seen)


async def test_a_gateway_that_does_not_say_the_path_gets_no_list_without_its_filters(
    channel: grpc.aio.Channel, world: World
) -> None:
    credential = tuple((await world.program()).credential.items())
    call = TicketRestStub(channel).ListTickets(TicketRestListTicketsRequest(), metadata=credential)
    assert json.loads((await call).data) == {"detail": "The gateway does not say the path that was called"}
    assert ("x-http-status", "500") in [*(await call.initial_metadata() or ())]


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "", 200),
        ("HEAD", "", 200),
        ("GET", "?limit=2", 200),
        ("GET", "/%00", 400),
        ("PUT", "", 405),
        ("GET", "/a/b/c", 404),
    ],
)
@pytest.mark.parametrize("api", LISTS)
async def test_no_shared_cache_stores_an_answer_and_ones_own_asks_again(
    client: httpx2.AsyncClient, callers: Callers, api: str, verb: str, path: str, status: int
) -> None:
    response = await client.request(verb, LISTS[api] + path, headers=callers.credentials[api])
    assert response.status_code == status
    assert response.headers.get_list("cache-control") == ["private, no-cache"]


async def test_who_is_not_known_has_no_rate(client: httpx2.AsyncClient) -> None:
    assert "ratelimit" not in (await client.get(LISTS["itsm"])).headers


# Idle gRPC callers


async def test_a_client_that_only_waits_may_ping(gateway_url: str) -> None:
    async with connected(gateway_url.removeprefix("http://")) as peer:
        for _ in range(20):
            await peer.ping()
        assert (await peer.call(grpc_headers("/tickets.itsm.v1.TicketService/ListTickets", {})))["grpc-status"] == "16"
        assert not peer.was_dismissed


# Words

WORDS: Mapping[str, tuple[str, Any, str]] = {
    "one problem": ("helpdesk.create", {}, "title: Field required"),
    "three": ("helpdesk.create", {"type": "x", "priority": "x"}, "title: Field required (and 2 more)"),
    "a bound": ("helpdesk.create", {"title": "x" * 256}, "title: String should have at most 255 characters"),
}


@pytest.mark.parametrize(("operation", "body", "words"), WORDS.values(), ids=WORDS.keys())
async def test_a_message_names_the_first_problem(
    transport: Any, callers: Callers, operation: str, body: Any, words: str
) -> None:
    reply = await transport.call(operation, callers.credentials["helpdesk"], body=body)
    reply.failed("validation_error", words)


async def test_a_body_that_is_no_json_is_named_too(rest: Rest, callers: Callers) -> None:
    headers = dict(callers.credentials["helpdesk"])
    response = await rest.client.post(LISTS["helpdesk"], content=b"{", headers=headers)
    rest_reply("helpdesk", response).failed("validation_error", "body: JSON decode error", paths=["body"])
