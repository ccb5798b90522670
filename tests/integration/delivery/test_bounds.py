"""What one account's provider may take of a process, and what becomes of what is in doubt."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.emulators.http import Fault, Response
from support.provider_lab import (
    NOWHERE,
    TICKET,
    Desk,
    Process,
    create,
    deliveries,
    external,
    link,
    linked,
    processes,
    until,
)
from support.system import World
from support.transports import Grpc, Rest

from service.admin import operations as admin
from service.errors import TicketError
from service.itsm.delivery import breaker
from service.itsm.delivery import queries as delivery_queries
from service.itsm.delivery import queue as code

DOWN: Fault = "503"
DOUBT = "the account has another provider by now, or none, and the one before may have the ticket"


@pytest.fixture
async def process(apart: World) -> AsyncIterator[Process]:
    apart.run("DELETE FROM provider_deliveries")
    async with processes(apart, 1) as [process]:
        yield process


async def test_metadata_may_be_as_deep_as_without_a_provider(rest: Rest, rpc: Grpc, world: World) -> None:
    async with linked(world) as (program, desk):
        # At REST the body itself is the first of a hundred levels.
        for transport, levels in ((rest, 99), (rpc, 100)):
            deep: Any = 1
            for _ in range(levels):
                deep = {"a": deep}
            ticket = (await create(transport, program, metadata=deep)).succeeded(201)
            assert ticket["metadata"] == deep
        assert len(desk.tickets) == 2


async def test_few_of_an_accounts_callers_wait_for_its_provider(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "_MOST_WAITING", 2)
    async with linked(apart) as (program, desk), linked(apart) as (other, well):
        desk.does.clear()
        waiting = [asyncio.ensure_future(process.create(program)) for _ in range(2)]
        await until(lambda: len(desk.requests) == 2, what="two to wait")
        # Whoever comes then is answered at once, and so is everybody else.
        late = await process.create(program)
        assert {name: late[name] for name in NOWHERE} == NOWHERE
        assert (await process.create(other))["external_ticket_id"] == str(well.tickets[0]["id"])
        desk.does.set()
        assert all(ticket["external_ticket_id"] for ticket in await asyncio.gather(*waiting))
        assert (await process.create(program))["external_ticket_id"] is not None
        await process.work_off()
        assert len(desk.tickets) == 4


async def test_a_queue_goes_on_without_another_look(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        desk.faults += [DOWN]
        ticket = await process.create(program)
        for n in range(5):
            await process.update(program, ticket, subject=f"s{n}")
        desk.faults.clear()
        await process.work()
        assert [body for method, body in desk.asked if method == "PUT"] == [{"subject": f"s{n}"} for n in range(5)]
        assert deliveries(apart, program.account_id) == []


async def test_a_database_that_is_away_behind_a_delivery_makes_no_second_one(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, is_away = process.database.one, [True]

    async def away_once(statement: Any, *given: Any, **more: Any) -> Any:
        if statement is delivery_queries.LEASE_NEXT and is_away:
            is_away.clear()
            raise TicketError("unavailable")
        return await one(statement, *given, **more)

    async with linked(apart) as (program, desk):
        desk.faults += ["429"]
        ticket = await process.create(program)
        monkeypatch.setattr(process.database, "one", away_once)
        await process.work()
        assert is_away == []
        assert [method for method, _ in desk.asked] == ["POST", "POST"]
        assert [one["subject"] for one in desk.tickets] == [TICKET["subject"]]
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])


async def test_the_end_of_one_that_is_dead_wakes_the_next(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        ticket = await process.create(program)
        desk.faults += [DOWN]
        await process.update(program, ticket, subject="Rejected")
        await process.update(program, ticket, subject="Later")
        apart.run("UPDATE provider_deliveries SET next_attempt_at = now() + interval '1 hour' WHERE version = 3")
        apart.run("UPDATE provider_deliveries SET next_attempt_at = now() WHERE version = 2")
        desk.refusals.append(Response(400, {"description": "No", "errors": []}))
        await process.turn()
        assert deliveries(apart, program.account_id) == [("update", "dead", "No")]
        assert desk.tickets[0]["subject"] == "Later"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["unlinked", "linked elsewhere"])
async def test_a_creation_that_may_be_at_another_provider_is_not_made_twice(
    apart: World, process: Process, elsewhere: bool
) -> None:
    async with linked(apart) as (program, desk), Desk().listening() as other:
        assert isinstance(other, Desk)
        desk.faults += ["reset after"]
        ticket = await process.create(program)
        await apart.operate(admin.unlink_provider, account_id=program.account_id)
        if elsewhere:
            await link(apart, program, other)
        await process.work_off()
        assert deliveries(apart, program.account_id) == [("create", "dead", DOUBT)]
        assert (len(desk.tickets), other.tickets) == (1, [])
        # Linked to the one before again, it is found when an operator has it tried again.
        await link(apart, program, desk)
        [dead] = (await apart.operate(admin.list_deliveries, account_id=program.account_id))["deliveries"]
        await apart.operate(admin.requeue_delivery, delivery_id=dead["id"])
        await process.work_off()
        found = await process.get(program, ticket)
        assert {name: found[name] for name in NOWHERE} == external(desk)
        assert len(desk.tickets) == 1


async def test_callers_with_little_time_do_not_break_it_for_others(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(apart) as (program, desk):
        with monkeypatch.context() as patch:
            patch.setattr(code, "_WAIT_SECONDS", 0.05)
            desk.does.clear()
            await asyncio.gather(*(process.create(program) for _ in range(2 * breaker._BREAK_AFTER)))
        desk.does.set()
        assert (await process.create(program))["external_ticket_id"] is not None


async def test_another_provider_has_not_failed_yet(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk), Desk().listening() as other:
        assert isinstance(other, Desk)
        desk.faults += [DOWN] * breaker._BREAK_AFTER
        for _ in range(breaker._BREAK_AFTER + 1):
            await process.create(program)
        assert len(desk.requests) == breaker._BREAK_AFTER
        await link(apart, program, other)
        assert (await process.create(program))["external_ticket_id"] == str(other.tickets[0]["id"])


@pytest.mark.parametrize("status", [408, 409, 423, 425])
async def test_a_status_that_passes_is_no_rejection(apart: World, process: Process, status: int) -> None:
    async with linked(apart) as (program, desk):
        desk.refusals.append(Response(status, {}))
        ticket = await process.create(program)
        await process.work_off()
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])
        assert [one["subject"] for one in desk.tickets] == [TICKET["subject"]]


async def test_a_creation_that_was_dead_and_there_is_as_it_is_here_in_the_end(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(apart) as (program, desk):
        desk.faults += ["reset after"]
        with monkeypatch.context() as patch:
            patch.setattr(code, "_MOST_ATTEMPTS", 1)
            ticket = await process.create(program)
        [dead] = (await apart.operate(admin.list_deliveries, account_id=program.account_id, state="dead"))["deliveries"]
        await process.update(program, ticket, subject="Changed meanwhile", priority="high")
        await apart.operate(admin.requeue_delivery, delivery_id=dead["id"])
        await process.work_off()
        assert [(one["subject"], one["priority"]) for one in desk.tickets] == [("Changed meanwhile", 3)]
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])
        assert deliveries(apart, program.account_id) == []
