"""Sets the clocks of tickets and emits the SLA events that are due, in the background.

In steps: each a short transaction of some tickets, which keeps the event loop for a millisecond at a time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from time import perf_counter

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
        for start in range(0, len(due), STEP):
            async with database.transaction() as connection:
                locked = await connection.all(clock_queries.LOCK_DUE, _keys(due[start : start + STEP]))
                await set_clocks(connection, locked)
        if len(due) < _ROUND:
            return


async def lock(connection: Connection, tickets: Sequence[Row]) -> list[Row]:
    """Lock tickets, given by their `tenant_id` and `id`, but for those that somebody is at work on."""
    return await connection.all(clock_queries.LOCK_TICKETS, _keys(tickets))


async def set_clocks(connection: Connection, locked: Sequence[Row]) -> None:
    """Set the clocks of locked tickets by their terms as they are now, and append their SLA events that are due."""
    if not locked:
        return
    rows = await connection.all(clock_queries.READ_TICKETS, _keys(locked))
    calendars = await _calendars(connection, rows)
    written, failed = list[Row](), list[tuple[str, Exception]]()
    begun = perf_counter()
    for row in rows:
        try:
            change = _change(row, calendars.get(row["tenant_id"]))
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
        await connection.all(clock_queries.SET_CLOCKS, values)


def _keys(tickets: Sequence[Row]) -> dict[str, list[str]]:
    return {f"{name}s": [ticket[name] for ticket in tickets] for name in ("tenant_id", "id")}


async def _calendars(connection: Connection, tickets: Sequence[Row]) -> Mapping[str, Calendar]:
    """The calendars by which some of the tickets count, of tenants that have one of their own."""
    tenants = sorted({ticket["tenant_id"] for ticket in tickets if ticket["policy_business_hours_only"]})
    rows = await connection.all(clock_queries.READ_CALENDARS, {"tenant_ids": tenants}) if tenants else []
    return {row["tenant_id"]: calendar_of(row) for row in rows}


def _change(row: Row, calendar: Calendar | None) -> Row | None:
    """What to write of a ticket, with its events (clock_queries.py, SET_CLOCKS); None when nothing changes."""
    ticket, due = _rescheduled(row, terms_of(row, calendar or calendar_of(None)))
    if ticket == row:
        return None
    is_moved, appended = ticket["due_at"] != row["due_at"], list[Row]()
    if is_moved:
        appended.append(_event("ticket.updated", "due_at", row["due_at"], ticket["due_at"]))
    for event in due:
        told = {"target": event.target, "due_at": event.due_at}
        appended.append(_event(f"sla.{event.kind}", "sla", None, told))
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
