"""What is odd about a request of REST is seen at the gateway; a request that has nothing odd costs it no script."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.by_hand import by_hand, response_by_hand
from support.system import Program, World

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port

TICKET = {"subject": "VPN is down", "description": "Since nine."}
PATH = "/api/v1/tickets"


@pytest.fixture(scope="module")
async def program(world: World) -> Program:
    return await world.program()


# Names that are not ours


@pytest.mark.parametrize("name", ["x_api_key", "x-api_key", "x_api-key", "x!api-key"])
async def test_what_only_looks_like_a_credential_is_none(gateway_url: str, program: Program, name: str) -> None:
    (await by_hand(gateway_url, f"GET {PATH} HTTP/1.1", [f"{name}: {program.key}"], "itsm")).failed("unauthenticated")


@pytest.mark.parametrize(
    "line",
    ["Idempotency_Key: a", "x!y: 1", "x~: 1", "X-Http-Method: HEAD", "X-Http-Status: 500", "Grpc-Status: 13", "a.b: c"],
)
async def test_a_header_that_nobody_reads_changes_nothing(gateway_url: str, program: Program, line: str) -> None:
    reply = await by_hand(gateway_url, f"GET {PATH} HTTP/1.1", [f"X-API-Key: {program.key}", line], "itsm")
    assert "tickets" in reply.succeeded()


async def test_a_client_of_rest_sets_no_deadline_of_grpc(gateway_url: str, program: Program) -> None:
    lines = [f"X-API-Key: {program.key}", "Grpc-Timeout: 1n"]
    # Of all calls a watch has no deadline that would take its place.
    response = await response_by_hand(gateway_url, "GET /api/v1/events HTTP/1.1", lines, first_line=True)
    assert (response.status_code, set(response.json())) == (200, {"event", "cursor"})


# Request ids

IDS: Mapping[str, tuple[Sequence[str], str]] = {
    "plain": (["a-B_1.~:/+=@"], "a-B_1.~:/+=@"),
    "as long as may be": (["x" * 128], "x" * 128),
    "too long": (["x" * 129], "x" * 128),
    "spaces": (["a b\tc"], "a-b-c"),
    "bytes": (["a\xe9\xe8b"], "a-b"),
    "two": (["a", "b"], "a-b"),
}


@pytest.mark.parametrize(("given", "seen"), IDS.values(), ids=IDS.keys())
async def test_a_request_id_is_short_and_plain_and_one(gateway_url: str, given: Sequence[str], seen: str) -> None:
    lines = [(b"x-request-id", one.encode("latin-1")) for one in given]
    async with httpx2.AsyncHTTPTransport() as transport:
        url = httpx2.URL(f"{gateway_url}{PATH}")
        response = await transport.handle_async_request(httpx2.Request("GET", url, headers=[(b"host", b"a"), *lines]))
        await response.aread()
    assert (response.status_code, response.headers.get_list("x-request-id")) == (401, [seen])


# Which requests meet the script


SCRIPT = """
    function envoy_on_request(handle)
      local status = "431"
      for name in pairs(handle:headers()) do
        if name:find("[_!]") or name:find("^grpc") then status = "415" end
      end
      handle:respond({[":status"] = status}, "")
    end
"""


@pytest.fixture(scope="module")
def marked_url(directory: Path) -> Iterator[str]:
    """A gateway to nobody, whose script refuses all it sees: with 431, or 415 where a name that is not ours is left."""
    config = copy.deepcopy(envoy_config(port=free_port(), endpoints=[f"127.0.0.1:{free_port()}"]))
    manager: Any = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    [odd] = [entry["typed_config"] for entry in manager["http_filters"] if entry["name"] == "tickets.odd"]
    odd["extension_config"]["typed_config"]["default_source_code"] = {"inline_string": SCRIPT}
    with Envoy(config, log_file=directory / "envoy-of-odd-requests.log") as envoy:
        yield envoy.url


KEY = "X-API-Key: itsm_sk_live_0123456789"
TOKEN = "Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1In0.c2ln-X_0"
JSON = ["Content-Type: application/json; charset=utf-8", "Content-Length: 0"]
CLIENT = ["Accept: */*", "Accept-Encoding: gzip, deflate, br", "User-Agent: python-httpx/0.28.1 (a; b)"]
ORDINARY: Mapping[str, tuple[str, Sequence[str]]] = {
    "a list": (f"GET {PATH}?status=open&limit=20&offset=40", [KEY, *CLIENT]),
    "a list of the helpdesk": ("GET /api/v1/helpdesk/tickets?sort=-created_at,number", [TOKEN, *CLIENT]),
    "a complete list": ("GET /api/tickets", [TOKEN, *CLIENT, "Cookie: a=b; c=d"]),
    "a watch": ("GET /api/v1/events?cursor=a.b-c_d", [KEY, *CLIENT, "Last-Event-ID: a,b"]),
    "a new ticket": (f"POST {PATH}", [KEY, *CLIENT, *JSON, "Idempotency-Key: 0b3c-1"]),
    "a change": (f"PATCH {PATH}/01a20139-af25-72bc", [KEY, *JSON, 'If-Match: "1", W/"2"', "X-Request-Id: web-1/a"]),
    "no credential": (f"GET {PATH}", ["X-A: \xe9"]),
}
ODD: Mapping[str, tuple[str, Sequence[str]]] = {
    "HEAD": (f"HEAD {PATH}", []),
    "CONNECT": ("CONNECT a:80", []),
    "an escape": (f"GET {PATH}/%20", []),
    "an escape in the query": (f"GET {PATH}?q=%ff", []),
    "a backslash": (f"GET {PATH}\\a", []),
    "a coding": (f"POST {PATH}", [*JSON, "Content-Encoding: identity"]),
    "a coding that is empty": (f"POST {PATH}", [*JSON, "Content-Encoding:"]),
    "a content type's byte": (f"POST {PATH}", ["Content-Type: a/\xe9", "Content-Length: 0"]),
    "two hosts": (f"GET {PATH}", ["Host: b"]),
    "two keys": (f"GET {PATH}", [KEY, KEY]),
    "two keys of which one is empty": (f"GET {PATH}", [KEY, "X-API-Key:"]),
    "a key's byte": (f"GET {PATH}", [f"{KEY}\xe9"]),
    "two tokens": (f"GET {PATH}", [TOKEN, TOKEN]),
    "a token's byte": (f"GET {PATH}", [f"{TOKEN}\xe9"]),
    "a token's tab": (f"GET {PATH}", [f"{TOKEN}\ta"]),
    "two idempotency keys": (f"POST {PATH}", [*JSON, "Idempotency-Key: a", "Idempotency-Key: b"]),
    "two idempotency keys that are empty": (f"POST {PATH}", [*JSON, "Idempotency-Key:", "Idempotency-Key:"]),
    "a request id's space": (f"GET {PATH}", ["X-Request-Id: a b"]),
    "a long request id": (f"GET {PATH}", [f"X-Request-Id: {'x' * 129}"]),
    "two request ids": (f"GET {PATH}", ["X-Request-Id: a", "X-Request-Id: b"]),
    "many bytes of headers": (f"GET {PATH}", [f"X-A: {'x' * 10_000}"]),
    "many bytes of what is left out": (f"GET {PATH}", [f"Grpc-A: {'x' * 10_000}"]),
}


@pytest.mark.parametrize(("line", "headers"), ORDINARY.values(), ids=ORDINARY.keys())
async def test_an_ordinary_request_meets_no_script(marked_url: str, line: str, headers: Sequence[str]) -> None:
    assert (await response_by_hand(marked_url, f"{line} HTTP/1.1", headers)).status_code == 503


@pytest.mark.parametrize(("line", "headers"), ODD.values(), ids=ODD.keys())
async def test_what_the_script_looks_for_comes_to_it(marked_url: str, line: str, headers: Sequence[str]) -> None:
    assert (await response_by_hand(marked_url, f"{line} HTTP/1.1", headers)).status_code == 431


@pytest.mark.parametrize("line", ["X_Api_Key: a", "x!y: a", "Grpc-Timeout: 1n", "Grpc-Encoding: gzip"])
async def test_a_name_that_others_may_read_as_another_is_left_out(marked_url: str, line: str) -> None:
    assert (await response_by_hand(marked_url, f"HEAD {PATH} HTTP/1.1", [line])).status_code == 431
