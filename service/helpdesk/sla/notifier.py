"""Emits the SLA events that are due, in the background, and moves `due_at` when policies or calendars have changed."""

from collections.abc import Sequence
from datetime import timedelta

import structlog
from ulid import ULID

from service import events, jsontext
from service.helpdesk.sla import queries, targets
from service.helpdesk.sla.targets import SlaEvent, Terms
from service.helpdesk.sla.terms import read_terms, terms_of
from service.helpdesk.sla.ticket_clock import next_event_at, with_schedule
from service.jsontext import JsonText
from service.storage.database import Connection, Database
from service.storage.statement import Row

_BATCH = 50
# When a ticket whose schedule cannot be worked out is tried again.
_RETRY_AFTER = timedelta(hours=1)

_log = structlog.get_logger()


async def emit_due_events(database: Database) -> None:
    """Append the SLA events that are due, of all tenants; run in the background, in every process."""
    while True:
        async with database.transaction() as connection:
            due = await connection.all(queries.DUE_TICKETS, {"rows": _BATCH})
            for ticket in due:
                await _emit(connection, ticket)
        if len(due) < _BATCH:
            return


async def _emit(connection: Connection, ticket: Row) -> None:
    """Set the clock of a locked ticket, and append its SLA events that are due, each as a version of its own."""
    row = await read_terms(connection, ticket, policy_id=ticket["sla_policy"] or "")
    old_due_at = ticket["due_at"]
    try:
        ticket, upcoming = _rescheduled(ticket, terms_of(row))
    except (LookupError, ValueError, OverflowError):
        # Such as a time zone that this host does not know: one ticket must not hold up all others.
        _log.exception("sla_schedule", ticket=ticket["id"])
        ticket, upcoming = {**ticket, "sla_look_at": row["now"] + _RETRY_AFTER}, []
    names = ("tenant_id", "id", "due_at", "first_response_due_at", "sla_emitted", "sla_look_at")
    values: Row = {name: ticket[name] for name in names}
    values |= {"actor": events.SYSTEM, "request_id": f"sla-{ULID()}"}
    if ticket["due_at"] == old_due_at:
        await connection.one(queries.SET_SCHEDULE, values)
    else:
        changes = _changes("due_at", old_due_at, ticket["due_at"])
        await connection.one(queries.MOVE_DUE, {**values, "kind": "ticket.updated", "changes": changes})
    while upcoming and upcoming[0].at < row["now"]:
        event, *upcoming = upcoming
        values |= {"sla_emitted": [*values["sla_emitted"], event.name], "sla_look_at": next_event_at(upcoming)}
        changes = _changes("sla", None, {"target": event.target, "due_at": event.due_at})
        await connection.one(queries.EMIT, {**values, "kind": f"sla.{event.kind}", "changes": changes})


def _rescheduled(ticket: Row, terms: Terms) -> tuple[Row, Sequence[SlaEvent]]:
    """A ticket with its clock set, unless it is resolved, and the events that it has still to emit."""
    if ticket["resolved_at"] is None:
        ticket = {**ticket, **targets.due_instants(ticket, terms, new_policy=False)}
    return with_schedule(ticket, terms), targets.schedule(ticket, terms).upcoming


def _changes(name: str, old: object, new: object) -> JsonText:
    return jsontext.text({name: {"from": old, "to": new}})
