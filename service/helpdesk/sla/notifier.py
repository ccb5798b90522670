"""Emits what service levels have to say, in the background."""

from collections.abc import Sequence
from datetime import timedelta

import structlog
from ulid import ULID

from service import events, jsontext
from service.helpdesk.sla import queries, targets
from service.helpdesk.sla.targets import Terms, Told
from service.helpdesk.sla.ticket_clock import look_at, looked_at, read_terms, terms_of
from service.jsontext import JsonText
from service.storage.database import Connection, Database
from service.storage.statement import Row

_ROWS = 50


# Who makes the changes that nobody asked for.
_LATER = timedelta(hours=1)


_log = structlog.get_logger()


async def emit_due_events(database: Database) -> None:
    """Append the SLA events of all tenants whose time has come; run in the background, in every process."""
    while True:
        async with database.transaction() as connection:
            due = await connection.all(queries.DUE_TICKETS, {"rows": _ROWS})
            for ticket in due:
                await _tell(connection, ticket)
        if len(due) < _ROWS:
            return


async def _tell(connection: Connection, ticket: Row) -> None:
    """Set the clock of a locked ticket, and append its SLA events whose time has come, each as a version of its own."""
    row = await read_terms(connection, ticket, policy_id=ticket["sla_policy"] or "")
    was_due_at = ticket["due_at"]
    kept: Row = {"actor": events.SYSTEM, "request_id": f"sla-{ULID()}"}
    try:
        ticket, ahead = _worked_out(ticket, terms_of(row))
    except (LookupError, ValueError, OverflowError):
        # Such as a time zone that this host does not know: one ticket must not hold up all others.
        _log.exception("sla", ticket=ticket["id"])
        ticket, ahead = {**ticket, "sla_look_at": row["now"] + _LATER}, []
    names = ("tenant_id", "id", "due_at", "first_response_due_at", "sla_emitted", "sla_look_at")
    kept |= {name: ticket[name] for name in names}
    if ticket["due_at"] == was_due_at:
        await connection.one(queries.SET_LOOK, kept)
    else:
        changes = _changes("due_at", was_due_at, ticket["due_at"])
        await connection.one(queries.SET_DUE, {**kept, "kind": "ticket.updated", "changes": changes})
    while ahead and ahead[0].at < row["now"]:
        news, *ahead = ahead
        kept |= {"sla_emitted": [*kept["sla_emitted"], news.name], "sla_look_at": look_at(ahead)}
        changes = _changes("sla", None, {"target": news.target, "due_at": news.due_at})
        await connection.one(queries.TELL, {**kept, "kind": f"sla.{news.kind}", "changes": changes})


def _worked_out(ticket: Row, terms: Terms) -> tuple[Row, Sequence[Told]]:
    """A ticket with its clock set, unless it is resolved, and what is to be told of it."""
    if ticket["resolved_at"] is None:
        ticket = {**ticket, **targets.dues(ticket, terms, anew=False)}
    return looked_at(ticket, terms), targets.outlook(ticket, terms).ahead


def _changes(name: str, was: object, becomes: object) -> JsonText:
    return jsontext.text({name: {"from": was, "to": becomes}})
