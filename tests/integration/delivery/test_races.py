"""Several processes at the same delivery, or one that dies during it: one ticket there and one here."""

import asyncio
import itertools
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from support.emulators.http import Fault, Response
from support.provider_lab import (
    Desk,
    Process,
    deliveries,
    linked,
    processes,
    tables_with_rows,
    until,
)
from support.system import Program, World

from service import idempotency
from service.admin import operations as admin
from service.errors import TicketError

DOWN: Fault = "503"


pytestmark = pytest.mark.usefixtures("quiet_postgres")


@pytest.mark.parametrize("keyed", [True, False], ids=["under a key", "without"])
async def test_several_processes_deliver_each_once(apart: World, process: Process, keyed: bool) -> None:
    async with AsyncExitStack() as stack:
        accounts = [await stack.enter_async_context(linked(apart)) for _ in range(3)]
        for (program, desk), n in itertools.product(accounts, range(4)):
            desk.faults.append(DOWN)
            ticket = await process.create(program, str(n) if keyed else None, subject=f"s{n}")
            await process.update(program, ticket, status="pending")
        workers = await stack.enter_async_context(processes(apart, 4))
        for _ in range(8):
            await asyncio.gather(*(worker.work() for worker in workers))
        for program, desk in accounts:
            assert deliveries(apart, program.account_id) == []
            assert sorted(one["subject"] for one in desk.tickets) == ["s0", "s1", "s2", "s3"]
            assert sum(one.method == "PUT" for one in desk.requests) == 4


@pytest.mark.parametrize("keyed", [True, False], ids=["under a key", "without"])
async def test_a_lost_lease_makes_no_second_ticket(apart: World, process: Process, keyed: bool) -> None:
    async with linked(apart) as (program, desk), processes(apart, 1) as [other]:
        desk.may_answer.clear()
        first = asyncio.ensure_future(process.create(program, "key" if keyed else None))
        await until(lambda: len(desk.tickets) == 1, what="the ticket there")
        apart.run("UPDATE provider_deliveries SET leased_until = now() - interval '1 second'")
        taken = asyncio.ensure_future(other.work())
        await until(lambda: len(desk.requests) == 2, what="the search by the other process")
        desk.may_answer.set()
        await taken
        if keyed:
            ticket = await first
            assert (ticket["external_provider"], await process.create(program, "key")) == ("freshservice", ticket)
        else:
            # Without a key the caller cannot be given the other process's ticket.
            with pytest.raises(TicketError, match="unavailable"):
                await first
        assert len(desk.tickets) == 1
        count = "SELECT count(*) FROM itsm_tickets WHERE account_id = %s"
        assert apart.rows(count, program.account_id) == [(1,)]
        assert deliveries(apart, program.account_id) == []


async def test_a_key_that_is_answered_between_two_looks_makes_no_second_ticket(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = idempotency.replay
    async with linked(apart) as (program, desk), processes(apart, 1) as [other]:
        first: list[Any] = []

        async def then_another_answers(*arguments: Any) -> Any:
            stored = await look(*arguments)
            if not first:
                first.append("on its way")
                first[0] = await other.create(program, "key")
            return stored

        monkeypatch.setattr(idempotency, "replay", then_another_answers)
        ticket = await process.create(program, "key")
        assert str(ticket["id"]) == str(first[0]["id"])
        assert len(desk.tickets) == 1
        assert deliveries(apart, program.account_id) == []


async def die(world: World, process: Process, program: Program, desk: Desk) -> None:
    """Create under the key `key` until the provider has been called, and die."""
    desk.may_answer.clear()
    creation = asyncio.ensure_future(process.create(program, "key"))
    await until(lambda: len(desk.requests) == 1, what="the call")
    for attempt in process.deliveries._for_callers:
        attempt.cancel()
    creation.cancel()
    desk.may_answer.set()
    world.run("UPDATE provider_deliveries SET leased_until = now() - interval '1 second'")


async def test_a_creation_that_is_rejected_after_its_process_died_is_not_stored(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        desk.refusals.append(Response(400, {"description": "No", "errors": []}))
        await die(apart, process, program, desk)
        desk.refusals.append(Response(400, {"description": "No", "errors": []}))
        desk.refusals.insert(0, Response(200, {"tickets": []}))
        desk.refusals.insert(1, Response(200, {"tickets": []}))
        await process.work_until_empty()
        assert [one.method for one in desk.requests] == ["POST", "GET", "GET", "POST"]
        assert (tables_with_rows(apart, program.account_id), desk.tickets) == ([], [])


async def test_a_rejected_search_does_not_mean_that_there_is_no_ticket(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        await die(apart, process, program, desk)
        desk.refusals.append(Response(400, {"description": "Bad query", "errors": []}))
        ticket = await process.create(program, "key")
        assert len(desk.requests) == 2
        await process.work_until_empty()
        assert len(desk.tickets) == 1
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])


async def test_a_key_that_was_answered_without_the_provider_stays_so(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        await die(apart, process, program, desk)
        await apart.operate(admin.unlink_provider, account_id=program.account_id)
        ticket = await process.create(program, "key", linked=False)
        await process.work_until_empty()
        count = "SELECT count(*) FROM itsm_tickets WHERE account_id = %s"
        assert apart.rows(count, program.account_id) == [(1,)]
        assert await process.create(program, "key") == ticket


async def test_an_account_whose_provider_hangs_blocks_no_other(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk), linked(apart) as (other, well):
        members = '{"subject": "s", "description": "d", "status": "open", "priority": null, "requester_email": null}'
        queue = (
            "INSERT INTO itsm_tickets (id, account_id, live, subject, description, status, metadata)"
            " VALUES (%s, %s, true, 's', 'd', 'open', '{}')",
            "INSERT INTO provider_deliveries (id, account_id, ticket_id, version, kind, members, has_ticket, actor,"
            " request_id) VALUES (%s, %s, %s, 1, 'create', %s, true, 'a', 'r')",
        )
        desk.may_process.clear()
        for program_ in [program] * 40 + [other]:
            ticket_id = str(uuid4())
            apart.run(queue[0], ticket_id, program_.account_id)
            apart.run(queue[1], str(uuid4()), program_.account_id, ticket_id, members)
        for _ in range(3):
            await process.deliveries.work(process.database)
        await until(lambda: len(well.tickets) == 1, what="the ticket of the other account")
        assert len(desk.requests) < 40
        desk.may_process.set()


async def test_the_lease_of_a_running_attempt_is_renewed(apart: World, process: Process) -> None:
    """However long its provider takes, no other process makes another ticket meanwhile."""
    async with linked(apart) as (program, desk):
        desk.refusals.append(Response(503))
        await process.create(program)
        desk.may_process.clear()
        apart.run("UPDATE provider_deliveries SET next_attempt_at = now()")
        await process.deliveries.work(process.database)
        await until(lambda: len(desk.requests) == 2, what="the second call")
        apart.run("UPDATE provider_deliveries SET leased_until = now() + interval '1 second'")
        await process.deliveries.work(process.database)
        seconds = "SELECT extract(epoch FROM leased_until - now())::float FROM provider_deliveries"
        [(lease,)] = apart.rows(seconds)
        assert 4 < lease <= 8
        desk.may_process.set()
        await asyncio.gather(*process.deliveries._running)
        assert (len(desk.tickets), deliveries(apart, program.account_id)) == (1, [])


async def test_a_key_that_is_answered_without_the_provider_during_its_attempt_has_one_answer(
    apart: World, process: Process
) -> None:
    async with linked(apart) as (program, desk):
        desk.may_process.clear()
        first = asyncio.ensure_future(process.create(program, "key"))
        await until(lambda: len(desk.requests) == 1, what="the call")
        other = await process.create(program, "key", linked=False)
        desk.may_process.set()
        assert str((await first)["id"]) == str(other["id"])
        count = "SELECT count(*) FROM itsm_tickets WHERE account_id = %s"
        assert apart.rows(count, program.account_id) == [(1,)]
        assert deliveries(apart, program.account_id) == []
