"""A process dies at any step of a creation or a change: one ticket there and here, and a retry returns it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.emulators.http import Fault
from support.provider_lab import Desk, create, deliveries, events, external, linked, own_database, until, update
from support.system import Issuer, Program, Service, World, run_service
from support.transports import Grpc

pytestmark = pytest.mark.processes


@dataclass(frozen=True)
class Step:
    """The step of a creation at which the process dies: the faults of the provider, and how the step is recognized."""

    name: str
    faults: tuple[Fault, ...]
    is_reached: Callable[["Case"], bool]
    # Whether the caller has its answer, without an external reference.
    in_background: bool = False
    # Whether it is a step of a change after the creation.
    is_change: bool = False


@dataclass
class Case:
    step: Step
    key: str | None
    world: World
    program: Program
    desk: Desk
    # The answer before the process died, and that of the retry.
    first: Any = None
    again: Any = None
    log: list[dict[str, Any]] = field(default_factory=list)

    def is_recorded(self) -> bool:
        tickets = self.world.rows("SELECT 1 FROM itsm_tickets WHERE account_id = %s", self.program.account_id)
        return bool(tickets) and deliveries(self.world, self.program.account_id) == []


def requested(times: int) -> Callable[[Case], bool]:
    return lambda case: len(case.desk.requests) == times


def is_there(case: Case) -> bool:
    return len(case.desk.tickets) == 1


def is_changed(case: Case) -> bool:
    return len(case.desk.requests) == 3 and case.is_recorded()


STEPS = (
    Step("before it is processed", ("hang",), requested(1)),
    Step("before its answer is recorded", ("hang after",), is_there),
    Step("before its answer is sent", (), Case.is_recorded),
    Step("in the background, before it is processed", ("429", "hang"), requested(2), True),
    Step("in the background, before its answer is recorded", ("429", "hang after"), is_there, True),
    Step("in the background, during the search", ("reset after", "hang"), requested(2), True),
    Step("in the background, at the end", ("429",), Case.is_recorded, True),
    Step("before a change is processed", ("hang",), requested(2), is_change=True),
    Step("before the answer to a change is recorded", ("hang after",), requested(2), is_change=True),
    Step("in the background, before a change is processed", ("429", "hang"), requested(3), True, is_change=True),
    Step("in the background, before the answer to a change", ("429", "hang after"), requested(3), True, is_change=True),
    Step("in the background, at the end of a change", ("429",), is_changed, True, is_change=True),
)
NAMES = [(step.name, key) for step in STEPS for key in ("key", None)]


@pytest.fixture(scope="module")
async def cases(
    directory: Path, database_url: str, issuer: Issuer
) -> AsyncIterator[dict[tuple[str, str | None], Case]]:
    """Every case, in a process that is killed once all of them have come to their step, and then in another."""
    async with AsyncExitStack() as stack:
        url = stack.enter_context(own_database(database_url))
        world = World(url, issuer)
        stack.push_async_callback(world.close)
        cases = [
            Case(step, key, world, *await stack.enter_async_context(linked(world)))
            for step in STEPS
            for key in ("key", None)
        ]
        await _die(cases, stack.enter_context(run_service(directory, url, issuer)))
        survivor = stack.enter_context(run_service(directory, url, issuer))
        await _recover(cases, survivor)
        for case in cases:
            case.log = survivor.lines()
        yield {(case.step.name, case.key): case for case in cases}


async def _die(cases: list[Case], service: Service) -> None:
    async with grpc.aio.insecure_channel(service.target) as channel:
        calls = []
        # Those in the background first: the others hang only as long as their callers wait.
        for in_background in (True, False):
            begun = [case for case in cases if case.step.in_background == in_background]
            for case in begun:
                case.desk.retry_after = "0"
                calls.append(asyncio.ensure_future(_begin(case, Grpc(channel))))
            for case in begun:
                await until(partial(case.step.is_reached, case), what=case.step.name)
        service.process.kill()
        service.process.wait()
        await asyncio.gather(*calls)


async def _begin(case: Case, rpc: Grpc) -> None:
    if case.step.is_change:
        case.first = (await create(rpc, case.program, case.key)).succeeded(201)
    case.desk.faults += case.step.faults
    if case.step.is_change:
        with nullcontext() if case.step.in_background else pytest.raises(AssertionError, match="UNAVAILABLE"):
            await update(rpc, case.program, case.first, subject="Changed")
        return
    reply = await create(rpc, case.program, case.key)
    if case.step.in_background:
        case.first = reply.succeeded(201)


async def _recover(cases: list[Case], service: Service) -> None:
    async with grpc.aio.insecure_channel(service.target) as channel:
        retries = {
            id(case): asyncio.ensure_future(create(Grpc(channel), case.program, case.key)) for case in cases if case.key
        }
        # Instead of the seconds until the leases end.
        cases[0].world.run("UPDATE provider_deliveries SET leased_until = now() WHERE leased_until IS NOT NULL")
        for case in cases:
            if case.key:
                case.again = (await retries[id(case)]).succeeded(201)
            await until(case.is_recorded, what=f"the end of {case.step.name}")


@pytest.mark.parametrize(("name", "key"), NAMES)
async def test_there_is_one_ticket_there_and_one_here(
    cases: dict[tuple[str, str | None], Case], name: str, key: str | None
) -> None:
    case = cases[name, key]
    assert len(case.desk.tickets) == 1
    columns = "id::text, subject, external_provider, external_ticket_id, external_ticket_url"
    [(ticket_id, subject, *there)] = case.world.rows(
        f"SELECT {columns} FROM itsm_tickets WHERE account_id = %s", case.program.account_id
    )
    assert there == list(external(case.desk).values())
    assert (subject == "Changed", subject) == (case.step.is_change, case.desk.tickets[0]["subject"])
    # One creation, and one change: the caller's, or the external reference from the background.
    expected = ["ticket.created", "ticket.updated"][: 1 + (case.step.in_background or case.step.is_change)]
    assert [event[0] for event in events(case.world, {"id": ticket_id})] == expected
    for answer in (case.first, case.again):
        assert answer is None or answer["id"] == ticket_id
    if case.first and case.again:
        assert case.again == case.first
    assert not [line for line in case.log if line.get("outcome") == "internal"]
