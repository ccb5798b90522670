"""How a request names a ticket, which tickets its caller sees, and what is raised when there is none."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import TicketError
from service.helpdesk import queries, rights
from service.helpdesk.fields import parse_number
from service.operation import Call
from service.storage.database import Connection
from service.storage.statement import Row

_ID = re.compile(r"tkt_[0-9A-HJKMNP-TV-Z]{26}")


def caller_scope(call: Call) -> dict[str, Any]:
    """What limits the tickets that the caller sees: the tenant, and in it their application, or whose own they are."""
    caller = call.caller
    scope = {"tenant_id": caller.tenant_id}
    if rights.is_integration(caller):
        return {**scope, "app_id": caller.app_id}
    return scope if rights.sees_whole_tenant(caller) else {**scope, "person_id": caller.subject}


def ticket_key(call: Call, id_or_number: str) -> dict[str, Any]:
    """The columns and values that identify a ticket within the caller's scope. Raises TicketError `not_found`."""
    return caller_scope(call) | parse_ticket_ref(id_or_number)


def parse_ticket_ref(id_or_number: str) -> dict[str, Any]:
    """The column and value of a ticket's id or number. Raises TicketError `not_found` for text that is neither."""
    if _ID.fullmatch(id_or_number):
        return {"id": id_or_number}
    number = parse_number(id_or_number)
    if number is None:
        raise ticket_not_found()
    return {"number": number}


def found(row: Row | None) -> Row:
    """The row that was read. Raises TicketError `not_found` when there is none."""
    if row is None:
        raise ticket_not_found()
    return row


def found_rows(rows: Sequence[Row]) -> list[Row]:
    """What belongs to a ticket, of rows that have one empty row for a ticket to which nothing does.

    Raises TicketError `not_found` when there is no row: there is no such ticket.
    """
    if not rows:
        raise ticket_not_found()
    return [row for row in rows if row["id"] is not None]


def ticket_not_found(*, is_final: bool = False) -> TicketError:
    """The failure of a caller who names no ticket that they see."""
    return TicketError("not_found", "Ticket not found", is_final=is_final)


async def ticket_to_write(connection: Connection, call: Call, id_or_number: str, *, with_deleted: bool = False) -> Row:
    """The ticket with its `row_version`, locked where a transaction is open. Raises TicketError `not_found`."""
    key = ticket_key(call, id_or_number)
    statement = queries.ticket_to_write(frozenset(key), locks=connection.holds_locks, with_deleted=with_deleted)
    ticket = await connection.one(statement, key)
    if ticket is None and call.idempotency_key is not None:
        await _require_to_see(connection, key)
    return found(ticket)


async def ticket_to_change(connection: Connection, call: Call, id_or_number: str, *, with_deleted: bool = False) -> Row:
    """The ticket as `ticket_to_write` reads it. Raises `forbidden` too, for a caller who may not change it."""
    ticket = await ticket_to_write(connection, call, id_or_number, with_deleted=with_deleted)
    rights.require_change_ticket(call.caller, ticket)
    return ticket


async def _require_to_see(connection: Connection, key: Mapping[str, Any]) -> None:
    """Raise TicketError `not_found` for good unless the caller sees the ticket, deleted or not.

    A caller who no longer sees it does not get the stored answer of an earlier request either.
    """
    if await connection.one(queries.get_ticket(frozenset(key), with_deleted=True), key) is None:
        raise ticket_not_found(is_final=True)
