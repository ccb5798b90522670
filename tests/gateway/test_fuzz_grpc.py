"""Calls whose messages, metadata and frames are anything, with a gateway or without: a documented status or a reset."""

from collections.abc import AsyncIterator, Sequence
from random import Random

import grpc
import pytest
from support.fuzz import (
    GROWTH_KIB,
    LANES,
    Endpoint,
    Party,
    endpoints,
    new_party,
    resident_kib,
    run_cases,
    seed,
    timely,
)
from support.fuzz_frames import Caller, frames_problem, lanes_to, odd_call, odd_frames
from support.fuzz_grpc import grpc_call_problem
from support.fuzz_messages import mangled_bytes, odd_message
from support.fuzz_rows import row_problems
from support.system import Service, World
from support.transports import Grpc

pytestmark = pytest.mark.processes

PARTY_CASES = 1000
FEW_AND_MANY = pytest.mark.parametrize(
    "cases", [pytest.param(800, id="few"), pytest.param(75_000, id="many", marks=pytest.mark.long)]
)


@pytest.fixture(params=["gateway", "port"])
def target(request: pytest.FixtureRequest, service: Service, gateway_url: str) -> str:
    """The service's port, and the gateway."""
    return service.target if request.param == "port" else gateway_url.removeprefix("http://")


@pytest.fixture
def offered(target: str, service: Service) -> Sequence[Endpoint]:
    """The methods of a door: an operator's are at the service's own port alone."""
    return [endpoint for endpoint in endpoints() if target == service.target or endpoint.api != "admin"]


@pytest.fixture
async def door(target: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield channel


@FEW_AND_MANY
async def test_bytes_that_are_hardly_messages_get_a_documented_status(
    service: Service,
    door: grpc.aio.Channel,
    channel: grpc.aio.Channel,
    world: World,
    offered: Sequence[Endpoint],
    cases: int,
) -> None:
    chosen, warm = seed(is_long=cases > PARTY_CASES * 10), 0
    for begin in range(0, cases, PARTY_CASES):
        party = await new_party(world, Grpc(channel))

        async def case(random: Random, party: Party = party) -> str | None:
            endpoint, other = random.choice(offered), random.choice(endpoints())
            message, metadata = odd_message(random, random.choice((endpoint, endpoint, other)), party)
            content = message.SerializeToString()
            if random.random() < 0.9:
                content = mangled_bytes(random, content)
            return (await grpc_call_problem(door, endpoint, content, metadata))[0]

        findings = await run_cases(f"{chosen}/bytes", range(begin, min(cases, begin + PARTY_CASES)), [case] * LANES)
        findings += row_problems(world, party)
        assert not findings, "\n".join(findings)
        warm = warm or resident_kib(service.process.pid)
    assert resident_kib(service.process.pid) - warm < GROWTH_KIB


@pytest.fixture
async def callers(target: str) -> AsyncIterator[Sequence[Caller]]:
    async with lanes_to(target, LANES) as callers:
        yield callers


@pytest.mark.parametrize(
    "cases", [pytest.param(200, id="few"), pytest.param(25_000, id="many", marks=pytest.mark.long)]
)
async def test_calls_that_no_library_makes_are_refused_and_others_go_on(
    callers: Sequence[Caller], channel: grpc.aio.Channel, world: World, offered: Sequence[Endpoint], cases: int
) -> None:
    chosen, party = seed(is_long=cases > PARTY_CASES * 10), await new_party(world, Grpc(channel))
    unary: Sequence[Endpoint] = [endpoint for endpoint in offered if not endpoint.is_watch]

    async def case(caller: Caller, random: Random) -> str | None:
        call = odd_call(random, random.choice(unary), party)
        answer = await timely(caller.call(call), call)
        problem = call.problem(answer)
        return problem and f"{problem}: {call} → {answer}"

    lanes = [lambda random, one=caller: case(one, random) for caller in callers]
    findings = await run_cases(f"{chosen}/calls", range(cases), lanes)
    findings += row_problems(world, party)
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(
    "cases", [pytest.param(100, id="few"), pytest.param(25_000, id="many", marks=pytest.mark.long)]
)
async def test_frames_that_are_none_end_their_own_connection_alone(
    target: str, door: grpc.aio.Channel, channel: grpc.aio.Channel, world: World, cases: int
) -> None:
    chosen, party = seed(is_long=cases > PARTY_CASES * 10), await new_party(world, Grpc(channel))

    async def case(random: Random) -> str | None:
        frames = odd_frames(random, random.choice(endpoints()), party)
        problem = await timely(frames_problem(target, frames), frames)
        # Others are served meanwhile.
        endpoint = next(one for one in endpoints() if one.api == "itsm" and one.name == "ListTickets")
        metadata = list(party.credentials["itsm"][0].items())
        return problem or (await grpc_call_problem(door, endpoint, b"", metadata))[0]

    findings = await run_cases(f"{chosen}/frames", range(cases), [case] * LANES)
    assert not findings, "\n".join(findings)
