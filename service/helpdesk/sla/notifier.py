"""Sets the clocks of tickets and emits the SLA events that are due, in the background.

In steps: each a short transaction of some tickets of a tenant, which keeps the event loop for a millisecond at a time.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from time import perf_counter
from typing import Any

import structlog
from ulid import ULID

from service import events, jsontext
from service.helpdesk.sla import clock_queries, targets
from service.helpdesk.sla.business_hours import Calendar
from service.helpdesk.sla.targets import SlaEvent, Terms
from service.helpdesk.sla.terms import calendar_of, terms_of
from service.helpdesk.sla.ticket_clock import next_event_at
from service.storage.database import Connection, Database
from service.storage.statement import Row

# How many tickets one step takes, how long it keeps the event loop at a time, and how many tickets of all tenants are
# looked for at once. Twice as many would take a tenth less CPU for each, and hold their locks for twice as long.
STEP = 200
_AT_A_TIME_SECONDS = 0.001
_ROUND = 1000
# When a ticket whose schedule cannot be worked out is tried again.
_RETRY_AFTER = timedelta(hours=1)

_log = structlog.get_logger()


async def emit_due_events(database: Database) -> None:
    """Append the SLA events that are due, of all tenants; run in the background, in every process."""
    while True:
        due = await database.all(clock_queries.DUE_ROUND, {"rows": _ROUND})
        ids_of: dict[str, list[str]] = {}
        for ticket in due:
            ids_of.setdefault(ticket["tenant_id"], []).append(ticket["id"])
        # A tenant with few tickets does not wait for one with many.
        for tenant_id, ids in sorted(ids_of.items(), key=lambda of_tenant: len(of_tenant[1])):
            for start in range(0, len(ids), STEP):
                async with database.transaction() as connection:
                    picked = {"tenant_id": tenant_id, "ids": ids[start : start + STEP]}
                    locked = await connection.all(clock_queries.LOCK_DUE, picked)
                    await set_clocks(connection, tenant_id, locked)
        if len(due) < _ROUND:
            return


async def lock(connection: Connection, tenant_id: str, tickets: Sequence[Row]) -> list[Row]:
    """Lock tickets of a tenant, given by their `id`, but for those that another transaction has locked."""
    return await connection.all(clock_queries.LOCK_TICKETS, _keys(tenant_id, tickets))


async def set_clocks(connection: Connection, tenant_id: str, locked: Sequence[Row]) -> None:
    """Set the clocks of locked tickets by their terms as they are now, and append their SLA events that are due."""
    if not locked:
        return
    rows = await connection.all(clock_queries.READ_TICKETS, _keys(tenant_id, locked))
    calendar = await _calendar(connection, tenant_id, rows)
    written, failed = list[Row](), list[tuple[str, Exception]]()
    begun = perf_counter()
    for row in rows:
        try:
            change = _change(row, calendar)
        except (LookupError, ValueError, OverflowError) as error:
            # Such as a time zone that this host does not know: one ticket must not hold up all others.
            failed.append((row["id"], error))
            change = _written({**row, "sla_look_at": row["now"] + _RETRY_AFTER})
        written += [] if change is None else [change]
        if perf_counter() - begun > _AT_A_TIME_SECONDS:
            # Calls that came in meanwhile go first.
            await asyncio.sleep(0)
            begun = perf_counter()
    if failed:
        _log.error("sla_schedule", tickets=[ticket for ticket, _ in failed], exc_info=failed[0][1])
    if written:
        values = {"tickets": jsontext.text(written), "actor": events.SYSTEM, "request_id": f"sla-{ULID()}"}
        await connection.all(clock_queries.SET_CLOCKS, {"tenant_id": tenant_id, **values})


def _keys(tenant_id: str, tickets: Sequence[Row]) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "ids": [ticket["id"] for ticket in tickets]}


async def _calendar(connection: Connection, tenant_id: str, tickets: Sequence[Row]) -> Calendar:
    """The tenant's calendar, where some of the tickets count by it."""
    is_needed = any(ticket["policy_business_hours_only"] for ticket in tickets)
    named = {"tenant_id": tenant_id}
    return calendar_of(await connection.one(clock_queries.READ_CALENDAR, named) if is_needed else None)


def _change(row: Row, calendar: Calendar) -> Row | None:
    """What to write of a ticket, with its events (clock_queries.py, SET_CLOCKS); None when nothing changes."""
    ticket, due = _rescheduled(row, terms_of(row, calendar))
    if ticket == row:
        return None
    is_moved, appended = ticket["due_at"] != row["due_at"], list[Row]()
    if is_moved:
        appended.append(_event("ticket.updated", "due_at", row["due_at"], ticket["due_at"]))
    for event in due:
        target = {"target": event.target, "due_at": event.due_at}
        appended.append(_event(f"sla.{event.kind}", "sla", None, target))
    return _written(ticket, appended, is_moved=is_moved)


def _written(ticket: Row, appended: Sequence[Row] = (), *, is_moved: bool = False) -> Row:
    return {**{name: ticket[name] for name in clock_queries.WRITTEN}, "is_moved": is_moved, "appended": appended}


def _rescheduled(ticket: Row, terms: Terms) -> tuple[Row, Sequence[SlaEvent]]:
    """A ticket with its clock set, unless it is resolved, and its events that are due."""
    if ticket["is_deleted"]:
        # It is looked at once it is restored.
        return {**ticket, "sla_look_at": terms.now}, ()
    if ticket["resolved_at"] is None:
        ticket = {**ticket, **targets.due_instants(ticket, terms, new_policy=False)}
    emitted, upcoming = targets.schedule(ticket, terms)
    due = [event for event in upcoming if event.at < terms.now]
    emitted = [*emitted, *(event.name for event in due)]
    return {**ticket, "sla_emitted": emitted, "sla_look_at": next_event_at(upcoming[len(due) :])}, due


def _event(kind: str, name: str, old: object, new: object) -> Row:
    return {"kind": kind, "changes": {name: {"from": old, "to": new}}}
