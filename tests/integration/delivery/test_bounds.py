"""How much of a process one account's provider may take, and how deliveries that are in doubt end."""

import asyncio
from typing import Any

import pytest
from support.emulators.http import Fault, Response
from support.provider_lab import (
    NO_REFERENCE,
    TICKET,
    Desk,
    Process,
    create,
    deliveries,
    external,
    link,
    linked,
    until,
)
from support.system import World
from support.transports import Grpc, Rest

from service.admin import lists
from service.admin import operations as admin
from service.errors import TicketError
from service.itsm.delivery import attempt, queue
from service.itsm.delivery import queries as delivery_queries
from service.itsm.delivery.breaker import FAILURES_TO_OPEN, OPEN_SECONDS

DOWN: Fault = "503"
MAY_BE_ELSEWHERE = "the account is linked to another provider now, or to none, and the one before may have the ticket"


async def test_metadata_may_be_as_deep_as_without_a_provider(rest: Rest, rpc: Grpc, world: World) -> None:
    async with linked(world) as (program, desk):
        # Over REST the body itself is the first of a hundred levels.
        for transport, levels in ((rest, 99), (rpc, 100)):
            deep: Any = 1
            for _ in range(levels):
                deep = {"a": deep}
            ticket = (await create(transport, program, metadata=deep)).succeeded(201)
            assert ticket["metadata"] == deep
        assert len(desk.tickets) == 2


async def test_a_few_callers_of_an_account_wait_for_its_provider(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_MAX_WAITING_OF_ACCOUNT", 2)
    async with linked(apart) as (program, desk), linked(apart) as (other, well):
        desk.may_process.clear()
        waiting = [asyncio.ensure_future(process.create(program)) for _ in range(2)]
        await until(lambda: len(desk.requests) == 2, what="two calls")
        # The next one is answered at once, and so are callers of other accounts.
        late = await process.create(program)
        assert {name: late[name] for name in NO_REFERENCE} == NO_REFERENCE
        assert (await process.create(other))["external_ticket_id"] == str(well.tickets[0]["id"])
        desk.may_process.set()
        assert all(ticket["external_ticket_id"] for ticket in await asyncio.gather(*waiting))
        assert (await process.create(program))["external_ticket_id"] is not None
        await process.work_until_empty()
        assert len(desk.tickets) == 4


async def test_an_accounts_due_deliveries_follow_each_other_in_one_turn(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        desk.faults += [DOWN]
        ticket = await process.create(program)
        for n in range(5):
            await process.update(program, ticket, subject=f"s{n}")
        desk.faults.clear()
        await process.work()
        assert [body for method, body in desk.writes if method == "PUT"] == [{"subject": f"s{n}"} for n in range(5)]
        assert deliveries(apart, program.account_id) == []


async def test_a_delivery_is_not_repeated_when_the_database_fails_after_it(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, fails = process.database.one, [True]

    async def fail_once(statement: Any, *given: Any, **more: Any) -> Any:
        if statement is delivery_queries.LEASE_NEXT and fails:
            fails.clear()
            raise TicketError("unavailable")
        return await one(statement, *given, **more)

    async with linked(apart) as (program, desk):
        desk.faults += ["429"]
        ticket = await process.create(program)
        monkeypatch.setattr(process.database, "one", fail_once)
        await process.work()
        assert fails == []
        assert [method for method, _ in desk.writes] == ["POST", "POST"]
        assert [one["subject"] for one in desk.tickets] == [TICKET["subject"]]
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])


async def test_a_dead_delivery_makes_the_next_one_due(apart: World, process: Process) -> None:
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
async def test_a_creation_that_another_provider_may_have_is_not_repeated(
    apart: World, process: Process, elsewhere: bool
) -> None:
    async with linked(apart) as (program, desk), Desk().listening() as other:
        assert isinstance(other, Desk)
        desk.faults += ["reset after"]
        ticket = await process.create(program)
        await apart.operate(admin.unlink_provider, account_id=program.account_id)
        if elsewhere:
            await link(apart, program, other)
        await process.work_until_empty()
        assert deliveries(apart, program.account_id) == [("create", "dead", MAY_BE_ELSEWHERE)]
        assert (len(desk.tickets), other.tickets) == (1, [])
        # Linked there again and requeued, it is found.
        await link(apart, program, desk)
        [dead] = (await apart.operate(lists.list_deliveries, account_id=program.account_id))["deliveries"]
        await apart.operate(admin.requeue_delivery, delivery_id=dead["id"])
        await process.work_until_empty()
        found = await process.get(program, ticket)
        assert {name: found[name] for name in NO_REFERENCE} == external(desk)
        assert len(desk.tickets) == 1


async def test_callers_with_little_time_do_not_open_the_breaker(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(apart) as (program, desk):
        with monkeypatch.context() as patch:
            patch.setattr(queue, "_CALLER_SECONDS", 0.05)
            desk.may_process.clear()
            await asyncio.gather(*(process.create(program) for _ in range(2 * FAILURES_TO_OPEN)))
        desk.may_process.set()
        assert (await process.create(program))["external_ticket_id"] is not None


async def test_a_probe_without_enough_time_leaves_the_breaker_half_open(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(process.deliveries._breakers, "_now", lambda: now)
    async with linked(apart) as (program, desk):
        desk.faults += [DOWN] * FAILURES_TO_OPEN
        for _ in range(FAILURES_TO_OPEN):
            await process.create(program)
        now += OPEN_SECONDS
        with monkeypatch.context() as patch:
            # Too little for the probe: the provider is not called.
            patch.setattr(queue, "_CALLER_SECONDS", 4.0)
            await process.create(program)
            assert len(desk.requests) == FAILURES_TO_OPEN
            # Enough for the probe, which is cancelled before it shows anything: so is a caller who leaves.
            patch.undo()
            desk.may_process.clear()
            probe = asyncio.ensure_future(process.create(program))
            await until(lambda: len(desk.requests) > FAILURES_TO_OPEN, what="the probe")
            probe.cancel()
            await asyncio.wait([probe])
        desk.may_process.set()
        assert (await process.create(program))["external_ticket_id"] is not None


async def test_a_newly_linked_provider_has_not_failed_yet(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk), Desk().listening() as other:
        assert isinstance(other, Desk)
        desk.faults += [DOWN] * FAILURES_TO_OPEN
        for _ in range(FAILURES_TO_OPEN + 1):
            await process.create(program)
        assert len(desk.requests) == FAILURES_TO_OPEN
        await link(apart, program, other)
        assert (await process.create(program))["external_ticket_id"] == str(other.tickets[0]["id"])


@pytest.mark.parametrize("status", [408, 409, 423, 425])
async def test_a_transient_status_is_not_a_rejection(apart: World, process: Process, status: int) -> None:
    async with linked(apart) as (program, desk):
        desk.refusals.append(Response(status, {}))
        ticket = await process.create(program)
        await process.work_until_empty()
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])
        assert [one["subject"] for one in desk.tickets] == [TICKET["subject"]]


async def test_a_dead_creation_that_the_provider_has_gets_the_later_changes_when_requeued(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(apart) as (program, desk):
        desk.faults += ["reset after"]
        with monkeypatch.context() as patch:
            patch.setattr(attempt, "MAX_ATTEMPTS", 1)
            ticket = await process.create(program)
        [dead] = (await apart.operate(lists.list_deliveries, account_id=program.account_id, state="dead"))["deliveries"]
        await process.update(program, ticket, subject="Changed meanwhile", priority="high")
        await apart.operate(admin.requeue_delivery, delivery_id=dead["id"])
        await process.work_until_empty()
        assert [(one["subject"], one["priority"]) for one in desk.tickets] == [("Changed meanwhile", 3)]
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])
        assert deliveries(apart, program.account_id) == []
