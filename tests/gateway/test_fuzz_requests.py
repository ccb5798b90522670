"""Requests of every method, valid and odd ones, at both transports (contracts/errors.md, Bad input).

No answer is a failure of the service, takes five seconds, or has a shape that its API does not document.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import fuzz_messages, fuzz_requests
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
from support.fuzz_answers import http_problem
from support.fuzz_grpc import grpc_call_problem
from support.fuzz_http import HttpConnection
from support.fuzz_messages import odd_message
from support.fuzz_requests import Request, named, odd_request, valid_request
from support.fuzz_rows import row_problems
from support.system import Service, World
from support.transports import Grpc

pytestmark = pytest.mark.processes

Case = Callable[[Random], Awaitable[str | None]]

# Of one party: its lists stay short.
PARTY_CASES = 1000
MISSES = 400
# Of one method: some are refused for what went before, such as a webhook too many.
TRIES = 50


@dataclass(frozen=True)
class Rest:
    """Requests over HTTP, on a connection of its own."""

    connection: HttpConnection

    async def ask(self, request: Request, party: Party) -> tuple[str | None, bool]:
        """What is wrong with the answer to a request, and whether that succeeded."""
        endpoint, answer = request.endpoint, await timely(self.connection.ask(request.http()), request)
        if answer is None:
            return f"no answer to {named(request)}", False
        if endpoint.is_watch and answer.status == httpx2.codes.OK:
            return None, True
        problem = http_problem(answer, [endpoint.api], endpoint.view)
        if problem is not None:
            return f"{problem}: {named(request)} → {answer.status} {answer.body[:500]!r}", False
        succeeded = answer.status < httpx2.codes.BAD_REQUEST
        if succeeded and answer.body:
            party.learn(endpoint, request.path, answer.document())
        return None, succeeded

    async def odd(self, random: Random, endpoint: Endpoint, party: Party) -> tuple[str | None, bool]:
        return await self.ask(odd_request(random, endpoint, party), party)

    def near_misses(self, endpoint: Endpoint) -> Sequence[Any]:
        return fuzz_requests.near_misses(endpoint)

    async def near_miss(self, random: Random, endpoint: Endpoint, party: Party, miss: Any) -> tuple[str | None, bool]:
        return await self.ask(fuzz_requests.near_miss(random, endpoint, party, miss), party)

    async def valid(self, random: Random, endpoint: Endpoint, party: Party) -> tuple[str | None, bool]:
        return await self.ask(valid_request(random, endpoint, party), party)


@dataclass(frozen=True)
class Typed:
    """Typed messages straight to the service."""

    channel: grpc.aio.Channel

    async def odd(self, random: Random, endpoint: Endpoint, party: Party) -> tuple[str | None, bool]:
        message, metadata = odd_message(random, endpoint, party)
        return await grpc_call_problem(self.channel, endpoint, message.SerializeToString(), metadata)

    def near_misses(self, endpoint: Endpoint) -> Sequence[Any]:
        return fuzz_messages.near_misses(endpoint)

    async def near_miss(self, random: Random, endpoint: Endpoint, party: Party, miss: Any) -> tuple[str | None, bool]:
        message, metadata = fuzz_messages.near_miss(random, endpoint, party, miss)
        return await grpc_call_problem(self.channel, endpoint, message.SerializeToString(), metadata)

    async def valid(self, random: Random, endpoint: Endpoint, party: Party) -> tuple[str | None, bool]:
        message, metadata = odd_message(random, endpoint, party, odds=[0])
        return await grpc_call_problem(self.channel, endpoint, message.SerializeToString(), metadata)


@pytest.fixture(params=["rest", "grpc"], scope="module")
def doors(
    request: pytest.FixtureRequest, gateway_url: str, channel: grpc.aio.Channel
) -> Iterator[Sequence[Rest | Typed]]:
    """The ways in, of which each takes one request at a time."""
    connections = [HttpConnection(gateway_url) for _ in range(LANES)]
    yield [Rest(one) if request.param == "rest" else Typed(channel) for one in connections]
    for connection in connections:
        connection.close()


@pytest.fixture(scope="module")
def served(doors: Sequence[Rest | Typed]) -> Sequence[Endpoint]:
    return [endpoint for endpoint in endpoints() if endpoint.path or isinstance(doors[0], Typed)]


@pytest.fixture(scope="module")
async def party(world: World, channel: grpc.aio.Channel) -> Party:
    return await new_party(world, Grpc(channel))


async def test_of_every_method_some_requests_succeed(
    doors: Sequence[Rest | Typed], served: Sequence[Endpoint], world: World, channel: grpc.aio.Channel
) -> None:
    """Or else its odd requests would all fail for the same reason: give fuzz_values.py a form for the member."""
    party, failing = await new_party(world, Grpc(channel)), []
    # What is deleted cannot be replayed.
    for endpoint in sorted(served, key=lambda endpoint: endpoint.name.startswith("Delete")):
        random = Random(endpoint.rpc_path)  # noqa: S311 - it must be the same again
        for _ in range(TRIES):
            problem, succeeded = await doors[0].valid(random, endpoint, party)
            assert problem is None
            if succeeded:
                break
        else:
            failing.append(endpoint.rpc_path)
    # Of an operator's there is too little to be found by chance.
    assert [path for path in failing if "admin" not in path] == []


@pytest.mark.parametrize("all_", [pytest.param(False, id="most"), pytest.param(True, id="all", marks=pytest.mark.long)])
async def test_a_member_that_just_misses_is_refused_or_kept(
    doors: Sequence[Rest | Typed], served: Sequence[Endpoint], world: World, channel: grpc.aio.Channel, all_: bool
) -> None:
    """Every member of every request, one at a time: NUL, one too many, one too few, null, another type."""
    misses = [(endpoint, miss) for endpoint in served for miss in doors[0].near_misses(endpoint)]
    # In another order, so that what one method does to a ticket does not always come before the same others.
    Random(0).shuffle(misses)  # noqa: S311 - the same each time
    if not all_:
        del misses[::3]
    for begin in range(0, len(misses), MISSES):
        party = await new_party(world, Grpc(channel))
        some = misses[begin : begin + MISSES]
        remaining = iter(some)
        lanes = [_near_lane(door, party, remaining) for door in doors]
        findings = await run_cases(f"misses {begin}", range(len(some)), lanes)
        findings += row_problems(world, party)
        assert not findings, "\n".join(findings)


@pytest.mark.parametrize(
    "cases", [pytest.param(1200, id="few"), pytest.param(300_000, id="many", marks=pytest.mark.long)]
)
async def test_odd_requests_get_documented_answers(
    service: Service,
    doors: Sequence[Rest | Typed],
    served: Sequence[Endpoint],
    channel: grpc.aio.Channel,
    world: World,
    cases: int,
) -> None:
    chosen, warm = seed(is_long=cases > PARTY_CASES * 10), 0
    for begin in range(0, cases, PARTY_CASES):
        party = await new_party(world, Grpc(channel))
        lanes = [_lane(door, served, party) for door in doors]
        findings = await run_cases(chosen, range(begin, min(cases, begin + PARTY_CASES)), lanes)
        findings += row_problems(world, party)
        assert not findings, "\n".join(findings)
        warm = warm or resident_kib(service.process.pid)
    assert resident_kib(service.process.pid) - warm < GROWTH_KIB


def _near_lane(door: Rest | Typed, party: Party, misses: Iterator[tuple[Endpoint, Any]]) -> Case:
    async def case(random: Random) -> str | None:
        endpoint, miss = next(misses)
        problem, _ = await door.near_miss(random, endpoint, party, miss)
        return problem

    return case


def _lane(door: Rest | Typed, served: Sequence[Endpoint], party: Party) -> Case:
    async def case(random: Random) -> str | None:
        problem, _ = await door.odd(random, random.choice(served), party)
        return problem

    return case


@settings(max_examples=100, derandomize=True)
@given(random=st.randoms(use_true_random=False))
async def test_the_smallest_odd_request_gets_a_documented_answer(
    doors: Sequence[Rest | Typed], served: Sequence[Endpoint], party: Party, random: Random
) -> None:
    """Fewer cases than above, of which Hypothesis shows the smallest that fails."""
    # What this one learns would change the next.
    problem, _ = await doors[0].odd(random, random.choice(served), party.copy())
    assert problem is None
