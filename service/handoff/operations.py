"""The use cases of the handoff API."""

from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from service import events, idempotency, paging
from service.database import Connection
from service.errors import TicketError, invalid
from service.fields import Instant, Uuid
from service.handoff import queries, views
from service.handoff.commands import CreateTicket, ListTickets, NewTicket
from service.operation import Call, View, operation

# The keys of the list's order: created_at and id.
_PLACE: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Instant, Uuid])

_BOT_ROLE = "mcp_bot"
_BOT_SOURCE = "mcp"


@operation(ListTickets, one_statement=True)
async def list_tickets(connection: Connection, call: Call, command: ListTickets) -> View:
    """A page of the tickets of all the caller's projects, newest first."""
    query, user_id = command.query, UUID(call.caller.subject)
    binding = f"handoff.ListTickets:{user_id}"
    parameters: dict[str, Any] = {"user_id": user_id, "limit": query.limit + 1}
    if query.cursor is not None:
        parameters["after_created_at"], parameters["after_id"] = paging.place(query.cursor, binding, _PLACE)
    rows = await connection.all(queries.list_tickets(after=query.cursor is not None), parameters)
    page, next_cursor = paging.cut(rows, query.limit, binding, "created_at", "id")
    return {
        "tickets": [views.listed_ticket(row, slim=query.slim) for row in page],
        "next_cursor": next_cursor,
    }


@operation(CreateTicket, one_statement=True)
async def create_ticket(connection: Connection, call: Call, command: CreateTicket) -> View:
    """File a ticket in a project, once for each idempotency key."""
    _require_roles_of_bots(call, command.body)
    user_id, project_id = UUID(call.caller.subject), command.path.project_id
    defaults = {
        "actor_id": command.body.actor_id or call.caller.subject,
        # None: the project's own.
        "roles": command.body.roles or None,
    }
    row = await idempotency.once(
        connection,
        call,
        f"handoff:{project_id}:{user_id}",
        queries.CREATE,
        {"user_id": user_id, "project_id": project_id, **events.who(call), **vars(command.body), **defaults},
    )
    if row is None:
        raise TicketError("forbidden", "You may not create tickets in this project")
    return {"ticket": views.ticket(row)}


def _require_roles_of_bots(call: Call, body: NewTicket) -> None:
    is_bot = body.source == _BOT_SOURCE or _BOT_ROLE in (body.actor_role, call.caller.actor_role)
    if is_bot and not body.roles:
        raise invalid("body", "roles", "A bot must name at least one role", "missing")
