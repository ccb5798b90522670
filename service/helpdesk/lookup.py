"""How a request names a ticket, which tickets its caller sees, and what is raised when there is none."""

import re
from collections.abc import Sequence
from typing import Any

from service import jsontext
from service.errors import TicketError
from service.helpdesk import queries, rights
from service.operation import Call
from service.storage.database import Connection
from service.storage.statement import Row

_ID = re.compile(r"tkt_[0-9A-HJKMNP-TV-Z]{26}")
# As it is written, and no other way; any number of eighteen digits fits a bigint.
_NUMBER = re.compile(r"TKT-(0[0-9]{3}|[1-9][0-9]{3,17})")


def caller_scope(call: Call) -> dict[str, Any]:
    """The columns and values that limit what the caller sees: the tenant, and with an application's token its own."""
    scope = {"tenant_id": call.caller.tenant_id}
    return scope if call.caller.app_id is None else {**scope, "app_id": call.caller.app_id}


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


def parse_number(text: str) -> int | None:
    """Of `TKT-0001` the 1; None for text that is not a ticket's number."""
    number = _NUMBER.fullmatch(text)
    return None if number is None else int(number[1])


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


def ticket_not_found() -> TicketError:
    """The failure of a caller who names no ticket that they see."""
    return TicketError("not_found", "Ticket not found")


async def lock_ticket(connection: Connection, call: Call, id_or_number: str, *, with_deleted: bool = False) -> Row:
    """The ticket, locked until the transaction ends. Raises TicketError `not_found`."""
    key = ticket_key(call, id_or_number)
    return found(await connection.one(queries.lock_ticket(frozenset(key), with_deleted=with_deleted), key))


def require_to_see(call: Call, ticket: Row) -> None:
    """Raise TicketError `not_found`, as for a ticket that does not exist, unless the caller may know of this one."""
    if not rights.may_see_ticket(call.caller, ticket):
        raise ticket_not_found()


async def lock_to_change(connection: Connection, call: Call, id_or_number: str, *, with_deleted: bool = False) -> Row:
    """The same, for a caller who may change it. Raises TicketError `not_found`, `forbidden`."""
    ticket = await lock_ticket(connection, call, id_or_number, with_deleted=with_deleted)
    require_to_see(call, ticket)
    rights.require_change_ticket(call.caller, ticket)
    return ticket


def key_scope(call: Call, _command: object = None) -> str:
    """The scope of the caller's idempotency keys. As JSON, because an id may hold any separator."""
    caller = call.caller
    return f"helpdesk:{jsontext.dump([caller.tenant_id, caller.app_id, caller.subject]).decode()}"
