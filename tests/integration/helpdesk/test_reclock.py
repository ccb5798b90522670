"""contracts/helpdesk.md, SLA: changed policies and calendars move clocks in fair steps, once, whatever crashes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import psycopg
import pytest
import structlog
from support.helpdesk import Transport, get, new_tenant_id
from support.helpdesk_sla import HIGH, SlaTenant
from support.reclock_lab import (
    AROUND_THE_CLOCK,
    DUE,
    DUE_AROUND_THE_CLOCK,
    HOUR,
    ReclockLab,
    fill,
    open_reclock_lab,
)
from support.system import Credential, World

from service.helpdesk.sla import notifier, reclock
from service.helpdesk.sla import operations as sla
from service.local.processes import wait_for
from service.storage.database import Connection
from service.storage.statement import Row

# Few, so that there are many steps of few tickets.
STEP = 20
MOVED = f"due_at = '{DUE_AROUND_THE_CLOCK}'"
AS_IT_WAS = f"due_at = '{DUE}'"


@pytest.fixture
async def lab(apart_url: str) -> AsyncIterator[ReclockLab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notifier, "STEP", STEP)
        async with open_reclock_lab(apart_url) as lab:
            yield lab


async def test_every_unresolved_ticket_of_the_policy_moves_once_and_no_other_does(lab: ReclockLab) -> None:
    tenant = await lab.tenant(2 * STEP + 1)
    tenant.fill(1, status="resolved", resolved_at=DUE)
    tenant.fill(1, due_at_given=True)
    body = {**HOUR, "priority": "high", "business_hours_only": False}
    tenant.policy_id = (await tenant.run(sla.create_sla_policy, header={}, body=body))["id"]
    tenant.fill(1)
    await tenant.set_hours(AROUND_THE_CLOCK)
    await reclock.reclock(lab.database)
    assert (tenant.count(MOVED), tenant.count(AS_IT_WAS)) == (2 * STEP + 1, 3)
    assert tenant.events() == [(["ticket.updated"], 2 * STEP + 1)]
    assert not tenant.waits
    # What moves nothing is no event.
    await tenant.set_hours(AROUND_THE_CLOCK[::-1])
    await reclock.reclock(lab.database)
    assert tenant.events() == [(["ticket.updated"], 2 * STEP + 1)]


async def test_a_change_only_notes_whose_clocks_are_to_be_set(lab: ReclockLab) -> None:
    """So it takes as long for a hundred thousand tickets as for none, and locks none of them."""
    tenant = await lab.tenant(1)
    with psycopg.connect(lab.url) as other:
        other.execute("SELECT 1 FROM helpdesk_tickets WHERE tenant_id = %s FOR UPDATE", [tenant.id])
        async with asyncio.timeout(10):
            await tenant.set_hours(AROUND_THE_CLOCK)
            await tenant.run(sla.update_sla_policy, path={"id": tenant.policy_id}, body={"resolution_minutes": 90})
        assert (tenant.count(AS_IT_WAS), tenant.waits) == (1, True)


async def test_until_its_turn_a_ticket_shows_what_it_had_and_emits_nothing_by_it(lab: ReclockLab) -> None:
    # Long overdue by the hours of before, and never due by those of now.
    tenant = await lab.tenant(1, sla_emitted="{}", sla_look_at=DUE)
    await tenant.set_hours([])
    assert tenant.count(AS_IT_WAS) == 1
    await notifier.emit_due_events(lab.database)
    assert tenant.events() == [(["ticket.updated"], 1)]
    assert tenant.count("due_at IS NULL") == 1


async def test_a_ticket_that_is_late_by_its_new_terms_emits_that_with_the_change(lab: ReclockLab) -> None:
    tenant = await lab.tenant(1, sla_emitted="{}", due_at=None)
    await tenant.set_hours(AROUND_THE_CLOCK)
    await reclock.reclock(lab.database)
    assert tenant.events() == [(["ticket.updated", "sla.breached"], 1)]


# Fair


async def test_tenants_take_turns(lab: ReclockLab) -> None:
    large, small = await lab.tenant(5 * STEP), await lab.tenant(1)
    for tenant in (large, small):
        await tenant.set_hours(AROUND_THE_CLOCK)
    for _ in range(2):
        await reclock.step(lab.database)
    assert (large.count(MOVED), small.count(MOVED)) == (STEP, 1)
    # More changes do not move it to the front again.
    await small.set_hours([])
    await large.set_hours([])
    for _ in range(2):
        await reclock.step(lab.database)
    assert (large.count("due_at IS NULL"), small.count("due_at IS NULL")) == (STEP, 1)


async def test_the_longest_due_tickets_of_one_tenant_hold_up_no_other(lab: ReclockLab) -> None:
    large = await lab.tenant(5 * STEP + 1, sla_emitted="{}", sla_look_at=DUE)
    small = await lab.tenant(1, sla_emitted="{}", sla_look_at="2026-03-10T00:00:00Z")
    await notifier.emit_due_events(lab.database)
    emitted = ["sla.breached"]
    assert large.events() + small.events() == [(emitted, 5 * STEP + 1), (emitted, 1)]
    [(before,)] = lab.rows(
        "SELECT count(DISTINCT ticket_id) FROM helpdesk_events WHERE tenant_id = %s AND id < (SELECT max(id) FROM"
        " helpdesk_events WHERE tenant_id = %s)",
        large.id,
        small.id,
    )
    assert before < STEP


async def test_a_ticket_that_somebody_has_locked_holds_up_no_other(lab: ReclockLab) -> None:
    tenant, other = await lab.tenant(2 * STEP), await lab.tenant(1)
    [(third,)] = lab.rows(
        "SELECT id FROM helpdesk_tickets WHERE tenant_id = %s ORDER BY id OFFSET 2 LIMIT 1", tenant.id
    )
    with psycopg.connect(lab.url) as connection:
        connection.execute("SELECT 1 FROM helpdesk_tickets WHERE id = %s FOR UPDATE", [third])
        await tenant.set_hours(AROUND_THE_CLOCK)
        await other.set_hours(AROUND_THE_CLOCK)
        async with asyncio.timeout(10):
            await reclock.reclock(lab.database)
        assert (other.count(MOVED), other.waits) == (1, False)
        assert (tenant.count(f"{MOVED} AND id <> '{third}'"), tenant.waits) == (STEP + 1, True)
    lab.rows("UPDATE helpdesk_reclocks SET turn_at = now() RETURNING 1")
    await reclock.reclock(lab.database)
    assert (tenant.events(), tenant.waits) == ([(["ticket.updated"], 2 * STEP)], False)


# Once


async def test_a_tenant_that_a_process_is_at_work_on_is_left_to_it(lab: ReclockLab) -> None:
    first, second = await lab.tenant(STEP), await lab.tenant(STEP)
    for tenant in (first, second):
        await tenant.set_hours(AROUND_THE_CLOCK)
    with psycopg.connect(lab.url) as process:
        process.execute("SELECT 1 FROM helpdesk_reclocks WHERE tenant_id = %s FOR UPDATE", [first.id])
        async with asyncio.timeout(10):
            await reclock.reclock(lab.database)
        assert (first.count(AS_IT_WAS), second.count(MOVED)) == (STEP, STEP)


async def test_processes_that_re_clock_at_once_share_the_tenants(lab: ReclockLab) -> None:
    tenants = [await lab.tenant(STEP + 1) for _ in range(4)]
    for tenant in tenants:
        await tenant.set_hours(AROUND_THE_CLOCK)
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(lab.process()) for _ in range(3)]
        while any(tenant.waits for tenant in tenants):
            await asyncio.gather(*(reclock.reclock(process) for process in processes))
    for tenant in tenants:
        assert tenant.events() == [(["ticket.updated"], STEP + 1)]


async def test_what_a_crash_leaves_the_next_process_does(lab: ReclockLab, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = await lab.tenant(3 * STEP)
    await tenant.set_hours(AROUND_THE_CLOCK)
    await reclock.step(lab.database)
    set_clocks = notifier.set_clocks

    async def crash(connection: Connection, tenant_id: str, locked: list[Row]) -> None:
        await set_clocks(connection, tenant_id, locked)
        raise ConnectionResetError

    async with lab.process() as process:
        monkeypatch.setattr(notifier, "set_clocks", crash)
        with pytest.raises(ConnectionResetError):
            await reclock.step(process)
        monkeypatch.undo()
    assert tenant.count(MOVED) == STEP
    # (PostgreSQL may take a moment to notice that the connection has ended.)
    async with asyncio.timeout(30):
        while tenant.waits:
            await reclock.reclock(lab.database)
    assert tenant.events() == [(["ticket.updated"], 3 * STEP)]


async def test_the_last_change_holds_for_all_tickets(lab: ReclockLab) -> None:
    tenant = await lab.tenant(2 * STEP)
    first = tenant.policy_id
    tenant.policy_id = (await tenant.run(sla.create_sla_policy, header={}, body={**HOUR, "priority": "high"}))["id"]
    tenant.fill(1)
    await tenant.set_hours([])
    await reclock.step(lab.database)
    # Each policy waits once, and the first, which is under way, comes again.
    for hours in (AROUND_THE_CLOCK, [], AROUND_THE_CLOCK):
        await tenant.set_hours(hours)
    await tenant.run(sla.update_sla_policy, path={"id": first}, body={"resolution_minutes": 120})
    [(waiting,)] = lab.rows("SELECT policy_ids FROM helpdesk_reclocks WHERE tenant_id = %s", tenant.id)
    assert waiting == [first, tenant.policy_id, first]
    await reclock.reclock(lab.database)
    assert tenant.count("due_at = '2026-03-06T18:30:00Z'") == 2 * STEP
    assert tenant.count(MOVED) == 1


async def test_a_time_zone_that_the_host_does_not_know_holds_up_no_other_ticket(lab: ReclockLab) -> None:
    broken, other = await lab.tenant(STEP + 1), await lab.tenant(1)
    for tenant in (broken, other):
        await tenant.set_hours(AROUND_THE_CLOCK)
    lab.rows("UPDATE helpdesk_calendars SET time_zone = 'Mars/Olympus' WHERE tenant_id = %s RETURNING 1", broken.id)
    with structlog.testing.capture_logs() as log:
        await reclock.reclock(lab.database)
    assert [(line["event"], len(line["tickets"])) for line in log] == [("sla_schedule", STEP), ("sla_schedule", 1)]
    # They are tried again later.
    later = f"{AS_IT_WAS} AND sla_look_at > now() + interval '30 minutes'"
    assert (broken.count(later), broken.waits) == (STEP + 1, False)
    assert other.count(MOVED) == 1


# At a running service


async def make_large(transport: Transport, world: World, tickets: int) -> tuple[str, Credential]:
    """A tenant with so many open tickets, and a person who may change its calendar."""
    tenant_id = new_tenant_id()
    agent = world.person("agent", tenant_id=tenant_id)
    policy = (await transport.call("helpdesk.create_policy", agent, body=HOUR)).succeeded(201)
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        fill(connection, tenant_id, policy["id"], tickets)
    return tenant_id, agent


async def breach_while(own_tenant: SlaTenant, seconds: float) -> None:
    """Return when a ticket of the tenant has become late and told so; every call until then succeeds."""
    made = await own_tenant.create(**HIGH)
    own_tenant.pass_time(made, minutes=61)
    async with asyncio.timeout(seconds):
        while [event["type"] for event in await own_tenant.emitted(made)] != ["sla.breached"]:
            await own_tenant.sla(made)


# What the service does in the background does not depend on the transport.
@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
async def test_another_tenants_events_and_calls_do_not_wait_for_a_large_change(own_tenant: SlaTenant) -> None:
    world, transport = own_tenant.world, own_tenant.transport
    tickets = notifier.STEP + 1
    tenant_id, agent = await make_large(transport, world, tickets)
    waits = "SELECT 1 FROM helpdesk_reclocks WHERE tenant_id = %s"
    with psycopg.connect(world.database_url) as other:
        # As long as this one is locked, the change cannot come to its end.
        other.execute("SELECT 1 FROM helpdesk_tickets WHERE tenant_id = %s AND number = 150 FOR UPDATE", [tenant_id])
        (await transport.call("helpdesk.update_calendar", agent, body={"hours": AROUND_THE_CLOCK})).succeeded()
        office = await own_tenant.create(type="change", priority="low")
        (await transport.call("helpdesk.update_calendar", own_tenant.agent, body={"hours": []})).succeeded()
        await breach_while(own_tenant, 60)
        async with asyncio.timeout(60):
            while (await get(transport, own_tenant.person, office))["due_at"] is not None:
                pass
        assert world.rows(waits, tenant_id) == [(1,)]
    await asyncio.to_thread(wait_for, lambda: not world.rows(waits, tenant_id), what="the change", timeout=60)
    sql = f"SELECT count(*) FROM helpdesk_tickets WHERE tenant_id = %s AND {MOVED}"
    assert world.rows(sql, tenant_id) == [(tickets,)]


@pytest.mark.long
@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
async def test_a_hundred_thousand_tickets_are_re_clocked_while_others_work(own_tenant: SlaTenant) -> None:
    world, transport, tickets = own_tenant.world, own_tenant.transport, 100_000
    tenant_id, agent = await make_large(transport, world, tickets)
    (await transport.call("helpdesk.update_calendar", agent, body={"hours": AROUND_THE_CLOCK})).succeeded()
    left = "SELECT count(*) FROM helpdesk_tickets WHERE tenant_id = %s AND " + AS_IT_WAS
    rounds = 0
    async with asyncio.timeout(900):
        while (await asyncio.to_thread(world.rows, left, tenant_id)) != [(0,)]:
            await breach_while(own_tenant, 120)
            rounds += 1
    # The first of them at least came while there was much left to do.
    assert rounds > 1
    sql = "SELECT type, count(*), count(DISTINCT ticket_id) FROM helpdesk_events WHERE tenant_id = %s GROUP BY type"
    assert world.rows(sql, tenant_id) == [("ticket.updated", tickets, tickets)]
