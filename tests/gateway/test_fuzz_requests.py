"""Requests of every method, valid and odd ones, at both transports (contracts/errors.md, Bad input).

No answer is a failure of the service, takes five seconds, or has a shape that its API does not document.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from random import Random

import grpc
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzz import GROWTH_KIB, LANES, Party, endpoints, new_party, resident_kib, run_cases, seed, timely
from support.fuzz_answers import HttpAnswer, http_problem
from support.fuzz_grpc import grpc_call_problem
from support.fuzz_http import HttpConnection
from support.fuzz_messages import odd_message
from support.fuzz_requests import Request, named, odd_request
from support.fuzz_rows import row_problems
from support.system import Service, World
from support.transports import Grpc

Lane = Callable[[Random], Awaitable[str | None]]

ROUTES = [endpoint for endpoint in endpoints() if endpoint.path]
# Of one party: its lists stay short.
PARTY_CASES = 1000


async def rest_problem(connection: HttpConnection, request: Request) -> tuple[str | None, HttpAnswer | None]:
    """What is wrong with the answer to a request, and the answer."""
    endpoint = request.endpoint
    answer = await timely(connection.ask(request.http()), request)
    if answer is None:
        return f"no answer to {named(request)}", None
    is_begun_watch = endpoint.is_watch and answer.status == httpx2.codes.OK
    problem = None if is_begun_watch else http_problem(answer, [endpoint.api], endpoint.view)
    if problem is not None:
        return f"{problem}: {named(request)} → {answer.status} {answer.body[:500]!r}", answer
    return None, answer


def rest_lane(connection: HttpConnection, party: Party, succeeded: set[str]) -> Lane:
    async def case(random: Random) -> str | None:
        request = odd_request(random, random.choice(ROUTES), party)
        problem, answer = await rest_problem(connection, request)
        if answer is not None and answer.status < httpx2.codes.BAD_REQUEST:
            succeeded.add(f"{request.endpoint.api}.{request.endpoint.name}")
            if answer.body:
                party.learn(request.endpoint, request.path, answer.document())
        return problem

    return case


def grpc_lane(channel: grpc.aio.Channel, party: Party, succeeded: set[str]) -> Lane:
    async def case(random: Random) -> str | None:
        endpoint = random.choice(endpoints())
        message, metadata = odd_message(random, endpoint, party)
        return await grpc_call_problem(channel, endpoint, message.SerializeToString(), metadata, succeeded)

    return case


FEW_AND_MANY = pytest.mark.parametrize(
    "cases", [pytest.param(2500, id="few"), pytest.param(300_000, id="many", marks=pytest.mark.long)]
)


@pytest.mark.parametrize("door", ["rest", "grpc"])
@FEW_AND_MANY
async def test_odd_requests_get_documented_answers(
    service: Service,
    connections: Sequence[HttpConnection],
    channel: grpc.aio.Channel,
    world: World,
    door: str,
    cases: int,
) -> None:
    chosen, succeeded, warm = seed(is_long=cases > PARTY_CASES * 10), set[str](), 0
    for begin in range(0, cases, PARTY_CASES):
        party = await new_party(world, Grpc(channel))
        lanes: Sequence[Lane] = (
            [rest_lane(connection, party, succeeded) for connection in connections]
            if door == "rest"
            else [grpc_lane(channel, party, succeeded)] * LANES
        )
        findings = await run_cases(f"{chosen}/{door}", range(begin, min(cases, begin + PARTY_CASES)), lanes)
        findings += row_problems(world, party)
        assert not findings, "\n".join(findings)
        warm = warm or resident_kib(service.process.pid)
    expected = {f"{one.api}.{one.name}" for one in (ROUTES if door == "rest" else endpoints())}
    # Of an operator's there is too little to be found.
    assert {name for name in expected - succeeded if not name.startswith("admin.")} == set()
    assert resident_kib(service.process.pid) - warm < GROWTH_KIB


@pytest.fixture(scope="module")
def connections(gateway_url: str) -> Iterator[Sequence[HttpConnection]]:
    made = [HttpConnection(gateway_url) for _ in range(LANES)]
    yield made
    for connection in made:
        connection.close()


@pytest.fixture(scope="module")
async def party(world: World, channel: grpc.aio.Channel) -> Party:
    return await new_party(world, Grpc(channel))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(random=st.randoms(use_true_random=False))
async def test_the_smallest_odd_request_gets_a_documented_answer(
    connections: Sequence[HttpConnection], party: Party, random: Random
) -> None:
    """Fewer cases than above, of which Hypothesis shows the smallest that fails."""
    problem, _ = await rest_problem(connections[0], odd_request(random, random.choice(ROUTES), party))
    assert problem is None
