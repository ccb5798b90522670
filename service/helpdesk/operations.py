"""The use cases of the helpdesk API, and how a ticket's status moves its stamps."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import TypeAdapter
from ulid import ULID

from service import events, idempotency, jsontext, paging
from service.database import Connection
from service.errors import TicketError
from service.fields import Instant
from service.helpdesk import queries, views
from service.helpdesk.commands import CloseTicket, CreateTicket, GetTicket, ListTickets, Status, UpdateTicket
from service.operation import Call, View, operation
from service.statement import Row

_AGENT = "helpdesk:agent"

# The keys of the list's order: created_at and id.
_PLACE: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Instant, str])

_ID = re.compile(r"tkt_[0-9A-HJKMNP-TV-Z]{26}")
# As it is written, and no other way; eighteen digits are the most that any bigint can have.
_NUMBER = re.compile(r"TKT-(0[0-9]{3}|[1-9][0-9]{3,17})")


@operation(ListTickets, one_statement=True)
async def list_tickets(connection: Connection, call: Call, command: ListTickets) -> View:
    """A page of the tickets that the caller may see, newest first."""
    scope, limit, cursor = _scope(call), command.query.limit, command.query.cursor
    binding = jsontext.dump(["helpdesk tickets", "-created_at", scope]).decode()
    behind = {}
    if cursor is not None:
        behind["behind_created_at"], behind["behind_id"] = paging.place(cursor, binding, _PLACE)
    statement = queries.list_tickets(frozenset(scope), onward=cursor is not None)
    rows = await connection.all(statement, {**scope, **behind, "rows": limit + 1})
    page, next_cursor = paging.cut(rows, limit, binding, "created_at", "id")
    return {"tickets": [views.ticket(row) for row in page], "next_cursor": next_cursor}


@operation(GetTicket, one_statement=True)
async def get_ticket(connection: Connection, call: Call, command: GetTicket) -> View:
    """Read one ticket."""
    named = _scope(call) | _which(command.path.id)
    return views.ticket(_found(await connection.one(queries.get_ticket(frozenset(named)), named)))


@operation(CreateTicket, one_statement=True)
async def create_ticket(connection: Connection, call: Call, command: CreateTicket) -> View:
    """Raise a ticket, once for each idempotency key."""
    scope = {"app_id": None, **_scope(call)}
    stamps = {
        "id": f"tkt_{ULID()}",
        "submitted_by_id": command.body.submitted_by_id or call.caller.subject,
        "resolved": resolution(None, command.body.status) == "stamp",
    }
    # As JSON, because ids may hold any character that could stand between them.
    keys = jsontext.dump([scope["tenant_id"], scope["app_id"], call.caller.subject]).decode()
    row = await idempotency.once(
        connection,
        call,
        f"helpdesk:{keys}",
        queries.CREATE,
        {**vars(command.body), **scope, **stamps, **events.who(call)},
    )
    return views.ticket(_found(row))


@operation(UpdateTicket)
async def update_ticket(connection: Connection, call: Call, command: UpdateTicket) -> View:
    """Change some members of a ticket; any status may follow any other."""
    ticket = await _locked(connection, call, command.path.id)
    changes = {name: getattr(command.body, name) for name in command.body.model_fields_set}
    return views.ticket(await _change(connection, call, ticket, changes))


@operation(CloseTicket)
async def close_ticket(connection: Connection, call: Call, command: CloseTicket) -> View:
    """Close a ticket; one that is closed stays as it is."""
    ticket = await _locked(connection, call, command.path.id)
    if ticket["status"] != "closed":
        ticket = await _change(connection, call, ticket, {"status": "closed"}, command.body.resolution_note)
    return views.ticket(ticket)


def resolution(was: Status | None, becomes: Status) -> Literal["stamp", "clear", "keep"]:
    """What a move from one status to another does to `resolved_at`; a ticket that is being created was None."""
    if becomes == was:
        return "keep"
    if becomes == "resolved":
        return "stamp"
    if becomes == "closed":
        return "keep" if was == "resolved" else "stamp"
    return "clear"


async def _locked(connection: Connection, call: Call, id_or_number: str) -> Row:
    """The ticket as it is until the transaction ends, if the caller may change it."""
    named = _scope(call) | _which(id_or_number)
    ticket = _found(await connection.one(queries.lock_ticket(frozenset(named)), named))
    if _AGENT not in call.caller.scopes and ticket["submitted_by_id"] != call.caller.subject:
        raise TicketError("forbidden", "Only agents may change a ticket that someone else submitted")
    return ticket


async def _change(
    connection: Connection, call: Call, ticket: Row, changes: Mapping[str, Any], resolution_note: str | None = None
) -> Row:
    """The locked ticket, changed."""
    named = _scope(call) | {"id": ticket["id"]}
    values = {f"new_{name}": changes.get(name) for name in queries.CHANGEABLE}
    stamps = {
        "changed": list(changes),
        "resolution": resolution(ticket["status"], changes.get("status", ticket["status"])),
        "resolution_note": resolution_note,
    }
    statement = queries.update_ticket(frozenset(named))
    return _found(await connection.one(statement, {**named, **values, **stamps, **events.who(call)}, last=True))


def _scope(call: Call) -> dict[str, Any]:
    """What the caller may see: the tenant, and of it one application when the token is made for one."""
    scope = {"tenant_id": call.caller.tenant_id}
    return scope if call.caller.app_id is None else {**scope, "app_id": call.caller.app_id}


def _which(id_or_number: str) -> dict[str, Any]:
    """The column and value that a ticket is found by. What is neither id nor number is no ticket."""
    if _ID.fullmatch(id_or_number):
        return {"id": id_or_number}
    number = _NUMBER.fullmatch(id_or_number)
    if number is None:
        raise _no_ticket()
    return {"number": int(number[1])}


def _found(row: Row | None) -> Row:
    if row is None:
        raise _no_ticket()
    return row


def _no_ticket() -> TicketError:
    return TicketError("not_found", "Ticket not found")
