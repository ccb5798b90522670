"""Bytes at the gateway that are hardly HTTP: each gets a 4xx in a documented shape, or its connection is closed."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from random import Random

import grpc
import pytest
from support.fuzz import GROWTH_KIB, Party, endpoints, new_party, resident_kib, run_cases, seed, timely
from support.fuzz_answers import HttpAnswer, http_problem
from support.fuzz_frames import Caller, OddCall, lanes_to
from support.fuzz_http import HttpConnection, Wire, odd_wire
from support.fuzz_requests import valid_request
from support.fuzz_rows import row_problems
from support.system import Service, World
from support.transports import Grpc

pytestmark = pytest.mark.processes

ROUTES = [endpoint for endpoint in endpoints() if endpoint.path and not endpoint.is_watch]
APIS = ("itsm", "helpdesk", "handoff")
# Many of them wait until the gateway has seen that no more will come.
LANES = 24
PARTY_CASES = 1500


@pytest.fixture(scope="module")
def connections(gateway_url: str) -> Iterator[Sequence[HttpConnection]]:
    made = [HttpConnection(gateway_url) for _ in range(LANES)]
    yield made
    for connection in made:
        connection.close()


def _shown(wire: Wire) -> str:
    headers = [(name[:60], value[:60]) for name, value in wire.headers]
    return f"{wire.verb[:60]!r} {wire.target[:200]!r} {wire.version!r} {headers} {wire.body[:200]!r}"


def wire_problem(wire: Wire, api: str, answer: HttpAnswer | None) -> str | None:
    if answer is None:
        return "no answer to a whole request" if wire.is_http else None
    return http_problem(answer, [api] if wire.is_http else APIS, has_body=wire.verb != b"HEAD")


@pytest.mark.parametrize(
    "cases", [pytest.param(2000, id="few"), pytest.param(250_000, id="many", marks=pytest.mark.long)]
)
async def test_odd_bytes_are_refused_in_a_documented_shape(
    service: Service, connections: Sequence[HttpConnection], channel: grpc.aio.Channel, world: World, cases: int
) -> None:
    chosen, warm = seed(is_long=cases > PARTY_CASES * 10), 0
    for begin in range(0, cases, PARTY_CASES):
        party = await new_party(world, Grpc(channel))

        async def case(connection: HttpConnection, random: Random, party: Party = party) -> str | None:
            request = valid_request(random, random.choice(ROUTES), party)
            wire = odd_wire(random, request)
            asked = connection.ask(wire.http(), verb=wire.verb.decode("latin-1"), is_whole=wire.is_http)
            answer = await timely(asked, wire)
            problem = wire_problem(wire, request.endpoint.api, answer)
            return problem and f"{problem}: {_shown(wire)} → {answer}"

        lanes = [lambda random, one=connection: case(one, random) for connection in connections]
        findings = await run_cases(f"{chosen}/http", range(begin, min(cases, begin + PARTY_CASES)), lanes)
        findings += row_problems(world, party)
        assert not findings, "\n".join(findings)
        warm = warm or resident_kib(service.process.pid)
    assert resident_kib(service.process.pid) - warm < GROWTH_KIB


@pytest.fixture
async def callers(gateway_url: str) -> AsyncIterator[Sequence[Caller]]:
    async with lanes_to(gateway_url.removeprefix("http://"), LANES) as callers:
        yield callers


@pytest.mark.parametrize(
    "cases", [pytest.param(150, id="few"), pytest.param(25_000, id="many", marks=pytest.mark.long)]
)
async def test_odd_requests_of_http_2_are_refused_as_json(
    callers: Sequence[Caller], channel: grpc.aio.Channel, world: World, cases: int
) -> None:
    chosen, party = seed(is_long=cases > PARTY_CASES * 10), await new_party(world, Grpc(channel))

    async def case(caller: Caller, random: Random) -> str | None:
        wire = odd_wire(random, valid_request(random, random.choice(ROUTES), party))
        call = OddCall(http_2_headers(wire), wire.body or b"{}", is_known=False)
        answer = await timely(caller.call(call), wire)
        problem = call.problem(answer) or http_2_problem(answer)
        return problem and f"{problem}: {_shown(wire)} → {answer}"

    lanes = [lambda random, one=caller: case(one, random) for caller in callers]
    findings = await run_cases(f"{chosen}/http2", range(cases), lanes)
    findings += row_problems(world, party)
    assert not findings, "\n".join(findings)


def http_2_headers(wire: Wire) -> list[tuple[str, str | bytes]]:
    named = {":method": wire.verb, ":scheme": b"http", ":path": wire.target, ":authority": b"tickets"}
    given = [(name.decode("latin-1").lower(), value) for name, value in wire.headers if name.lower() != b"host"]
    return [*named.items(), *given]


def http_2_problem(answer: Mapping[str, str]) -> str | None:
    if answer.get(":status", "200") < "400" or "grpc-status" in answer:
        return None
    return None if answer.get("content-type") == "application/json" else "not JSON by its content type"
