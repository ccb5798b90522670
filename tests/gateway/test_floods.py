"""Who has no credential takes the service from nobody, at the gateway and at the service's own port.

Each flood comes while others call, and leaves the memory of the process as it was.
"""

import asyncio
import base64
import copy
import gzip
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx2
import psutil
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from support.frames import FLOODER, Peer, connected, framed, grpc_headers, reset_rapidly
from support.system import Credential, Issuer, Service, World, health, run_service
from support.transports import Rest, rest_reply
from tickets.errors.v1 import error_pb2

from service.errors import REASONS
from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port

pytestmark = pytest.mark.processes

LIST = "/tickets.itsm.v1.TicketService/ListTickets"
WATCH = "/tickets.itsm.v1.TicketService/WatchTickets"
CHECK, HEALTH_WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
OK, INVALID, TOO_LATE, EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE, UNAUTHENTICATED = "0", "3", "4", "8", "12", "14", "16"
MIB = 2**20
MAX_REQUEST = MIB
# More than a process grows by itself, and far less than a flood would add to it.
GROWTH = 80 * MIB
SECONDS = 2.5


@dataclass(frozen=True)
class Flooded:
    """A service and its gateway, which these tests have for themselves: others would suffer with them."""

    service: Service
    gateway: str
    world: World

    def target(self, door: str) -> str:
        """Where a door is."""
        return self.gateway if door == "gateway" else self.service.target

    def memory(self) -> int:
        """The resident memory of the service."""
        rss: int = psutil.Process(self.service.process.pid).memory_info().rss
        return rss

    async def others_are_served(self) -> None:
        """Another caller's list, complete list and native call through the gateway, and one straight."""
        program = (await self.world.program()).credential
        async with (
            httpx2.AsyncClient(base_url=f"http://{self.gateway}", timeout=20) as client,
            grpc.aio.insecure_channel(self.gateway) as native,
            grpc.aio.insecure_channel(self.service.target) as straight,
        ):
            (await Rest(client).call("itsm.list", program)).succeeded()
            (await Rest(client).call("handoff.list", self.world.issuer.bearer(str(uuid4())))).succeeded()
            for channel in (native, straight):
                call: Any = channel.unary_unary(LIST)
                assert await call(b"", metadata=tuple(program.items()), timeout=20)


def reason(answer: Mapping[str, str]) -> str:
    """The reason in the details of a gRPC failure."""
    text = answer["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))
    assert (str(status.code), status.message) == (answer["grpc-status"], answer["grpc-message"])
    info, error = error_details_pb2.ErrorInfo(), error_pb2.Error()
    assert status.details[0].Unpack(info)
    assert status.details[-1].Unpack(error)
    assert (info.reason, info.domain, error.message) == (error.code, "tickets", status.message)
    return error.code


@pytest.fixture(scope="module")
def flooded_service(directory: Path, database_url: str, issuer: Issuer) -> Iterator[Service]:
    with run_service(directory, database_url, issuer, default_deadline_seconds=SECONDS, reflection=True) as service:
        yield service


def start_gateway(directory: Path, service: Service, change: Callable[[Any], None] = lambda _: None) -> Envoy:
    """A gateway to it, with its configuration changed."""
    config = copy.deepcopy(envoy_config(port=free_port(), endpoints=[service.target]))
    change(config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"])
    return Envoy(config, log_file=directory / "envoy-of-floods.log")


def allow_everything(manager: Any) -> None:
    """No limit of an address, which would end a flood before it is one."""
    manager["http_filters"] = [one for one in manager["http_filters"] if "local_ratelimit" not in one["name"]]
    manager["request_timeout"] = f"{SECONDS}s"


@pytest.fixture(scope="module")
def flooded(directory: Path, flooded_service: Service, world: World) -> Iterator[Flooded]:
    with start_gateway(directory, flooded_service, allow_everything) as envoy:
        envoy.wait_until_ready(upstream=True)
        yield Flooded(flooded_service, envoy.url.removeprefix("http://"), world)


@pytest.fixture(params=["gateway", "port"])
def door(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def peer(flooded: Flooded, door: str) -> AsyncIterator[Peer]:
    async with connected(flooded.target(door)) as peer:
        yield peer


@pytest.fixture
async def credential(world: World) -> Credential:
    return (await world.program()).credential


# One call fails alone: connections are shared, also those from the gateway to the service.


UNREAD = {
    "x-a-bin": "!!!",
    "grpc-trace-bin": "!",
    "grpc-previous-rpc-attempts": "x",
    "grpc-retry-pushback-ms": "x",
    "grpc-status": "x",
    "grpc-internal-encoding-request": "x",
}


@pytest.mark.parametrize("value", ["-1S", "1x", "", "123456789S"])
async def test_a_deadline_that_is_none_is_invalid_at_the_gateway(flooded: Flooded, value: str) -> None:
    async with connected(flooded.gateway) as peer:
        answer = await peer.call(grpc_headers(LIST, {"grpc-timeout": value}))
    assert (answer["grpc-status"], answer["grpc-message"]) == (INVALID, REASONS["validation_error"].message)
    assert reason(answer) == "validation_error"
    await flooded.others_are_served()


@pytest.mark.parametrize(("name", "value"), UNREAD.items())
async def test_metadata_that_nobody_reads_does_no_harm_at_the_gateway(
    flooded: Flooded, credential: Credential, name: str, value: str
) -> None:
    async with connected(flooded.gateway) as peer:
        assert (await peer.call(grpc_headers(LIST, {**credential, name: value})))["grpc-status"] == OK
    await flooded.others_are_served()


async def test_what_the_service_cannot_parse_stays_in_no_table_of_the_gateways_connection(
    directory: Path, flooded_service: Service, world: World
) -> None:
    def let_it_pass(manager: Any) -> None:
        routes = manager["route_config"]["virtual_hosts"][0]["routes"]
        routes[:] = [route for route in routes if route.get("direct_response", {}).get("status") != 400]

    # A gateway of its own: the table of its connection is still empty.
    with start_gateway(directory, flooded_service, let_it_pass) as envoy:
        envoy.wait_until_ready(upstream=True)
        flooded = Flooded(flooded_service, envoy.url.removeprefix("http://"), world)
        async with connected(flooded.gateway) as peer:
            assert (await peer.call(grpc_headers(LIST, {"grpc-timeout": "-1S"})))["grpc-status"] == UNAVAILABLE
        await flooded.others_are_served()


async def test_what_the_service_cannot_parse_stays_in_no_table_of_a_callers_connection(
    flooded: Flooded, credential: Credential
) -> None:
    async with connected(flooded.service.target) as peer:
        assert await peer.call(grpc_headers(LIST, {**credential, "grpc-timeout": "-1S"})) == {}
        assert (await peer.call(grpc_headers(LIST, {**credential, "grpc-timeout": "9S"})))["grpc-status"] == OK


# Calls that never speak


@pytest.mark.parametrize("method", [LIST, WATCH])
async def test_a_call_without_a_message_is_answered_at_once(peer: Peer, credential: Credential, method: str) -> None:
    known, unknown = [await peer.begin(grpc_headers(method, who), end=True) for who in (credential, {})]
    answer = await peer.answer(known)
    assert (answer["grpc-status"], answer["grpc-message"]) == (INVALID, "The call has no message")
    assert (await peer.answer(unknown))["grpc-status"] == UNAUTHENTICATED


async def test_a_call_whose_message_never_ends_ends_by_the_default_deadline(
    flooded: Flooded, credential: Credential
) -> None:
    async with connected(flooded.target("gateway")) as gateway, connected(flooded.target("port")) as port:
        begun = [
            (peer, await peer.begin(grpc_headers(method, credential)))
            for peer in (gateway, port)
            for method in (LIST, WATCH)
        ]
        for peer, stream in begun:
            await peer.send(stream, framed(b"subject")[:8], end=False)
        for peer, stream in begun:
            answer = await peer.answer(stream)
            assert (answer["grpc-status"], reason(answer)) == (TOO_LATE, "deadline_exceeded")


async def test_methods_that_anybody_may_call_wait_for_nobody(flooded: Flooded) -> None:
    async with connected(flooded.service.target) as peer:
        silent = [await peer.begin(grpc_headers(method, {}), end=True) for method in (CHECK, HEALTH_WATCH)]
        assert [(await peer.answer(stream))["grpc-status"] for stream in silent] == [INVALID] * 2
        waiting = [await peer.begin(grpc_headers(method, {})) for method in (CHECK, HEALTH_WATCH, REFLECTION)]
        assert [(await peer.answer(stream))["grpc-status"] for stream in waiting] == [TOO_LATE] * 3


async def test_more_calls_without_a_message_than_a_process_takes_are_answered_while_others_are_served(
    flooded: Flooded, door: str
) -> None:
    before = flooded.memory()
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(flooded.target(door))) for _ in range(20)]
        streams = [(peer, await peer.begin(grpc_headers(LIST, {}), end=True)) for _ in range(60) for peer in peers]
        await flooded.others_are_served()
        answers = [await peer.answer(stream) for peer, stream in streams]
    # As many as the service takes at once are looked at; what is too many is told so.
    assert {answer["grpc-status"] for answer in answers} <= {UNAUTHENTICATED, UNAVAILABLE}
    assert flooded.memory() - before < GROWTH


async def test_health_and_reflection_are_the_operators_at_the_port_of_the_service(flooded: Flooded) -> None:
    assert health(flooded.service.target) == health_pb2.HealthCheckResponse.SERVING
    async with connected(flooded.service.target) as peer:
        assert (await peer.call(grpc_headers(REFLECTION, {})))["grpc-status"] == OK
        # Who watched and did not read would hold up every change of the status; gRPC takes this for SERVING.
        assert (await peer.call(grpc_headers(HEALTH_WATCH, {})))["grpc-status"] == UNIMPLEMENTED
    async with connected(flooded.gateway) as peer:
        for method in (CHECK, HEALTH_WATCH, REFLECTION):
            assert (await peer.call(grpc_headers(method, {})))["grpc-status"] == UNIMPLEMENTED


# Memory


async def test_a_compressed_message_is_refused_and_never_unpacked(flooded: Flooded, peer: Peer) -> None:
    bomb = framed(gzip.compress(bytes(150 * MIB), 1), compressed=True)
    before = flooded.memory()
    answering = asyncio.create_task(peer.call(grpc_headers(LIST, {"grpc-encoding": "gzip"}), bomb))
    await flooded.others_are_served()
    assert (await answering)["grpc-status"] == UNIMPLEMENTED
    assert flooded.memory() - before < GROWTH


async def test_unfinished_messages_of_unknown_callers_are_not_held(flooded: Flooded, door: str) -> None:
    before = flooded.memory()
    async with connected(flooded.target(door)) as peer:
        streams = [await peer.begin(grpc_headers(LIST, {})) for _ in range(40)]
        unfinished = framed(bytes(8 * MIB))[:-1]
        sending = [asyncio.create_task(peer.send(stream, unfinished, end=False)) for stream in streams]
        await flooded.others_are_served()
        answers = [await peer.answer(stream) for stream in streams]
        await asyncio.gather(*sending)
        grown = flooded.memory() - before
    assert {reason(answer) for answer in answers} <= {"unauthenticated", "payload_too_large"}
    assert grown < GROWTH


@pytest.mark.parametrize("size", [MAX_REQUEST + 1, MAX_REQUEST + 60_000, 5 * MIB])
async def test_a_message_that_is_too_large_is_refused_in_our_words(
    flooded: Flooded, door: str, credential: Credential, size: int
) -> None:
    headers = grpc_headers("/tickets.itsm.v1.TicketService/CreateTicket", credential)
    async with connected(flooded.target(door)) as peer:
        answer = await peer.call(headers, framed(bytes(size)))
    if door == "port" and size == 5 * MIB:
        # gRPC itself ends the call, before any of our code.
        assert answer["grpc-status"] == EXHAUSTED
    else:
        assert (answer["grpc-status"], reason(answer)) == (INVALID, "payload_too_large")


async def test_the_largest_message_passes_the_gateway(flooded: Flooded, credential: Credential) -> None:
    headers = grpc_headers("/tickets.itsm.v1.TicketService/CreateTicket", credential)
    async with connected(flooded.gateway) as peer:
        answer = await peer.call(headers, framed(bytes(MAX_REQUEST)))
    # It is read, and found to be no message of the method.
    assert (answer["grpc-status"], reason(answer)) == (INVALID, "validation_error")
    assert answer["grpc-message"] == "The request is not a message of this method"


async def test_calls_that_are_reset_at_once_leave_nothing_behind(flooded: Flooded, door: str) -> None:
    before = flooded.memory()
    flood = asyncio.create_task(reset_rapidly(flooded.target(door), grpc_headers(LIST, {}), 4 * MIB))
    await flooded.others_are_served()
    assert await flood > 0
    await flooded.others_are_served()
    assert flooded.memory() - before < GROWTH


# Credentials that are none


@pytest.fixture(scope="module")
def limited(directory: Path, flooded_service: Service, world: World) -> Iterator[Flooded]:
    def limit(manager: Any) -> None:
        [limits] = [one["typed_config"] for one in manager["http_filters"] if "local_ratelimit" in one["name"]]
        limits["descriptors"][0]["token_bucket"] = {"max_tokens": 20, "tokens_per_fill": 1, "fill_interval": "60s"}

    with start_gateway(directory, flooded_service, limit) as envoy:
        envoy.wait_until_ready(upstream=True)
        yield Flooded(flooded_service, envoy.url.removeprefix("http://"), world)


@pytest.mark.parametrize(("api", "path"), [("itsm", "/api/v1/tickets"), ("handoff", "/api/tickets")])
async def test_an_address_that_asks_too_much_is_told_to_wait_and_others_are_served(
    limited: Flooded, api: str, path: str
) -> None:
    address = httpx2.AsyncHTTPTransport(local_address=FLOODER)
    async with httpx2.AsyncClient(base_url=f"http://{limited.gateway}", transport=address) as client:
        replies = [
            rest_reply(api, await client.get(path, headers={"x-api-key": f"itsm_live_{n:040}"})) for n in range(25)
        ]
    replies[-1].failed("rate_limited", REASONS["rate_limited"].message)
    assert replies[-1].headers["retry-after"] == "1"
    async with connected(limited.gateway) as peer:
        answer = await peer.call(grpc_headers(LIST, {}))
    assert (answer["grpc-status"], reason(answer)) == (EXHAUSTED, "rate_limited")
    await limited.others_are_served()
