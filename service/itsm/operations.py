"""The use cases of the ITSM API."""

from typing import Any

from service import events, idempotency
from service.database import Connection
from service.errors import TicketError
from service.fields import uuid7
from service.itsm import queries, views
from service.itsm.commands import CreateTicket, GetTicket, ListTickets, UpdateTicket
from service.operation import Call, View, operation


@operation(CreateTicket, one_statement=True)
async def create_ticket(connection: Connection, call: Call, command: CreateTicket) -> View:
    """Create a ticket, once for each idempotency key."""
    scope = _scope(call)
    mode = "live" if call.caller.live else "test"
    row = await idempotency.once(
        connection,
        call,
        f"itsm:{call.caller.account_id}:{mode}",
        queries.CREATE,
        {**scope, "id": uuid7(), **events.who(call), **vars(command.body)},
    )
    return views.ticket(_found(row))


@operation(GetTicket, one_statement=True)
async def get_ticket(connection: Connection, call: Call, command: GetTicket) -> View:
    """Read one ticket."""
    return views.ticket(_found(await connection.one(queries.GET, _scope(call) | vars(command.path))))


@operation(ListTickets, one_statement=True)
async def list_tickets(connection: Connection, call: Call, command: ListTickets) -> View:
    """A page of the account's tickets, newest first, and how many match."""
    given = {name: value for name, value in command.query if value is not None}
    filters = frozenset(given) - {"limit", "offset"}
    rows = await connection.all(queries.list_tickets(filters), _scope(call) | given)
    return {
        "tickets": [views.ticket(row) for row in rows if row["id"] is not None],
        "total": rows[0]["total"],
        "limit": command.query.limit,
        "offset": command.query.offset,
    }


@operation(UpdateTicket, one_statement=True)
async def update_ticket(connection: Connection, call: Call, command: UpdateTicket) -> View:
    """Change some members of a ticket; any status may follow any other."""
    changed = command.body.model_fields_set
    values = {f"new_{name}": getattr(command.body, name) for name in changed}
    row = await connection.one(
        queries.update_ticket(frozenset(changed)), _scope(call) | events.who(call) | vars(command.path) | values
    )
    return views.ticket(_found(row))


async def merge_totals(connection: Connection) -> None:
    """Merge what was appended to the totals of all accounts; run in the background, so that lists stay cheap."""
    await connection.all(queries.MERGE_TOTALS, {})


def _scope(call: Call) -> dict[str, Any]:
    return {"account_id": call.caller.account_id, "live": call.caller.live}


def _found(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise TicketError("not_found", "Ticket not found")
    return row
