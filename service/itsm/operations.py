"""The use cases of the ITSM API."""

from typing import Any, Protocol

from service import events, idempotency, jsontext
from service.database import Connection
from service.errors import TicketError
from service.fields import uuid7
from service.itsm import queries, views
from service.itsm.commands import CreateTicket, GetTicket, ListTickets, UpdateTicket
from service.itsm.deliveries import MIRRORED, Deliveries
from service.jsontext import JsonText
from service.operation import Call, Host, View, errand, operation


class ItsmHost(Host, Protocol):
    """What the operations need that ask a provider."""

    @property
    def deliveries(self) -> Deliveries:
        """What is on its way to providers."""


@errand(CreateTicket)
async def create_ticket(host: ItsmHost, call: Call, command: CreateTicket) -> View:
    """Create a ticket, at the account's provider first if it has one, once for each idempotency key."""
    mode = "live" if call.caller.live else "test"
    key_scope = f"itsm:{call.caller.account_id}:{mode}"
    ticket = {**_scope(call), "id": uuid7(), **events.who(call), **vars(command.body)}
    if call.caller.is_linked:
        return views.ticket(await host.deliveries.create(call, key_scope, ticket))
    return views.ticket(_found(await idempotency.once(host.database, call, key_scope, queries.CREATE, ticket)))


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


@errand(UpdateTicket)
async def update_ticket(host: ItsmHost, call: Call, command: UpdateTicket) -> View:
    """Change some members of a ticket, here and then at the account's provider; any status may follow any other."""
    changed = {name: getattr(command.body, name) for name in command.body.model_fields_set}
    values = {f"new_{name}": value for name, value in changed.items()}
    mirrored = {name: value for name, value in changed.items() if name in MIRRORED} if call.caller.is_linked else {}
    delivery_id = uuid7()
    delivery = {"delivery_id": delivery_id, "members": JsonText(jsontext.dump(mirrored).decode())}
    statement = queries.update_ticket(frozenset(changed), mirrored=bool(mirrored))
    named = _scope(call) | events.who(call) | vars(command.path)
    ticket = _found(await host.database.one(statement, named | values | delivery))
    if mirrored:
        await host.deliveries.deliver(ticket["account_id"], delivery_id)
    return views.ticket(ticket)


async def merge_totals(connection: Connection) -> None:
    """Merge what was appended to the totals of all accounts; run in the background, so that lists stay cheap."""
    await connection.all(queries.MERGE_TOTALS, {})


def _scope(call: Call) -> dict[str, Any]:
    return {"account_id": call.caller.account_id, "live": call.caller.live}


def _found(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise TicketError("not_found", "Ticket not found")
    return row
