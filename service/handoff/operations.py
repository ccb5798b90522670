"""The use cases of the handoff API except the changes of tickets (changes.py)."""

import re
import unicodedata
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from service import events, idempotency, paging, positions, watch
from service.access.policy import Caller
from service.errors import invalid
from service.fields import Instant, Uuid
from service.handoff import index_terms, list_queries, lookup, queries, rights, views
from service.handoff.commands import (
    CreateTicket,
    GetTicket,
    ListProjectTickets,
    ListTicketEvents,
    ListTickets,
    NewTicket,
    ProjectTicketsQuery,
    TicketFilters,
    WatchTickets,
)
from service.operation import Call, autocommit, operation
from service.search import tsqueries, tsquery
from service.storage.database import Connection
from service.storage.statement import Row

# The keys that lists are ordered by.
_POSITION: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Instant, Uuid])

_BOT_ROLE = "mcp_bot"
_BOT_SOURCE = "mcp"

# A number of up to eighteen digits fits a bigint.
_SEARCHED_NUMBER = re.compile(r"(?:#|HO-)?([1-9][0-9]{0,17})(?:-[a-z0-9-]+)?", re.IGNORECASE)


@operation(ListTickets, transaction=autocommit)
async def list_tickets(connection: Connection, call: Call, command: ListTickets) -> views.TicketPage:
    """A page of the tickets of all the caller's projects, newest first."""
    query = command.query
    filters = {} if query.project_id is None else {"project_id": query.project_id}
    return await _list(connection, call, query, filters, of_project=False)


@operation(ListProjectTickets, transaction=autocommit)
async def list_project_tickets(connection: Connection, call: Call, command: ListProjectTickets) -> views.TicketPage:
    """A page of the tickets of one project, newest first."""
    query = command.query
    if query.cursor is not None and query.offset is not None:
        raise invalid("query", "offset", "A page begins at a cursor or at an offset, not at both", value=query.offset)
    filters = {"project_id": command.path.project_id, **_project_filters(query)}
    return await _list(connection, call, query, filters, of_project=True, offset=query.offset)


def _project_filters(query: ProjectTicketsQuery) -> dict[str, Any]:
    """The filters that only the list of a project has."""
    filters: dict[str, Any] = {}
    if query.ship is not None:
        filters["ship"] = ["merged" if state == "deploying" else state for state in query.ship]
    if query.milestone is not None:
        filters["no_milestone" if query.milestone == "none" else "milestone"] = query.milestone
    if query.q is not None:
        number = _SEARCHED_NUMBER.fullmatch(query.q)
        filters["terms" if number is None else "terms_or_number"] = query.q
        filters |= {} if number is None else {"number": int(number[1])}
    return filters


async def _list(
    connection: Connection,
    call: Call,
    query: TicketFilters,
    filters: dict[str, Any],
    *,
    of_project: bool,
    offset: int | None = None,
) -> views.TicketPage:
    user_id = lookup.user_id(call)
    filters |= _filters(user_id, query)
    binding = paging.binding_of("handoff tickets", user_id, of_project, sorted(filters.items()))
    parameters = {**filters, **_index_terms(filters), "user_id": user_id, "limit": query.limit + 1}
    if query.cursor is not None:
        parameters["after_created_at"], parameters["after_id"] = paging.decode(query.cursor, binding, _POSITION)
    if offset:
        parameters["offset"] = offset
    names = _names(query, parameters)
    statement = await list_queries.list_tickets(
        names - {"project_id"} if of_project else names,
        after=query.cursor is not None,
        offset=bool(offset),
        of_project=of_project,
        short=paging.is_short(query.limit),
    )
    rows = await connection.all(statement, parameters)
    if of_project and not rows:
        raise rights.not_a_member()
    found = [row for row in rows if row["id"] is not None]
    page, next_cursor = paging.cut(found, query.limit, binding, "created_at", "id", more=_is_cut(found))
    return {
        "tickets": [views.listed_ticket(row, slim=query.slim) for row in page],
        "next_cursor": next_cursor,
    }


def _filters(user_id: UUID, query: TicketFilters) -> dict[str, Any]:
    """The filters that every list has."""
    names = ("status", "stage", "priority", "request_type", "role", "updated_since")
    filters = {name: value for name in names if (value := getattr(query, name)) is not None}
    if query.assignee is not None:
        filters["assignee"] = user_id if query.assignee == "me" else query.assignee
    return filters


def _index_terms(filters: Mapping[str, Any]) -> dict[str, Any]:
    """What indexes are asked for by some filters."""
    terms: dict[str, Any] = {}
    for name in ("unfailed", "undeployed") if "ship" in filters else ():
        terms[name] = [free for state in filters["ship"] for free in list_queries.FREE_OF_STAMPS[state][name]]
    if (q := filters.get("terms", filters.get("terms_or_number"))) is not None:
        in_project = index_terms.search_scope(filters["project_id"])
        terms |= {"terms": tsquery(in_project, q), "words": tsqueries(in_project, q)}
    return terms


def _names(query: TicketFilters, given: Mapping[str, Any]) -> frozenset[str]:
    """The filters that are given by their names in list_queries.py, with what they imply: indexes have that."""
    names = given.keys() & (list_queries.FILTERS.keys() | {"project_id"})
    names -= {"terms"} if "terms_or_number" in names else set()
    if query.status == "open":
        names = names - {"status"} | {"open"}
    elif query.stage is not None and "live" not in query.stage:
        names |= {"open"}
    return frozenset(names | {"words"} if "terms" in names and len(given["words"]) > 1 else names)


def _is_cut(rows: Sequence[Row]) -> bool:
    """Whether a page was cut short for its size."""
    return bool(rows) and len(rows) < rows[0]["in_page"]


@operation(GetTicket, transaction=autocommit)
async def get_ticket(connection: Connection, call: Call, command: GetTicket) -> views.TicketAnswer:
    """Read one ticket."""
    ref = lookup.parse_ticket_ref(command.path.ticket_id)
    parameters = lookup.parameters(call, command.path.project_id, ref)
    rows = await connection.all(queries.read_tickets(ref.by), parameters)
    return {"ticket": views.ticket(lookup.one_ticket(rows, ref))}


@operation(CreateTicket, transaction=autocommit)
async def create_ticket(connection: Connection, call: Call, command: CreateTicket) -> views.TicketAnswer:
    """File a ticket in a project, once for each idempotency key."""
    _require_roles_of_bots(call, command.body)
    user_id, project_id = lookup.user_id(call), command.path.project_id
    member = {"user_id": user_id, "project_id": project_id}

    given = {
        **member,
        **vars(command.body),
        **_provenance(call.caller, command.body),
        # None: the project's default roles.
        "roles": command.body.roles or None,
    }

    async def admit() -> None:
        row = await connection.one(queries.MEMBERSHIP, member)
        if row is None or not rights.may_work(row["member_role"]):
            raise rights.not_a_creator()

    row = await idempotency.create_once(
        connection,
        call,
        command,
        queries.CREATE,
        {**given, **events.actor_of(call), "search_terms": index_terms.search_terms(given)},
        admit=admit,
    )
    if row is None:
        raise rights.not_a_creator()
    return {"ticket": views.ticket(row | {"roles": views.roles(row)})}


def _provenance(caller: Caller, body: NewTicket) -> dict[str, str]:
    """What the caller declares, or else their token does. Who was authenticated is stored beside it."""
    by_token = {
        "actor_role": caller.actor_role or "user",
        "actor_id": caller.subject,
        "source": _BOT_SOURCE if _is(_BOT_ROLE, caller.actor_role) else "portal",
    }
    return by_token | {name: declared for name in by_token if (declared := getattr(body, name)) is not None}


def _require_roles_of_bots(call: Call, body: NewTicket) -> None:
    is_bot = _is(_BOT_SOURCE, body.source) or _is(_BOT_ROLE, body.actor_role) or _is(_BOT_ROLE, call.caller.actor_role)
    if is_bot and not body.roles:
        raise invalid("body", "roles", "A bot must name at least one role", "missing")


def _is(word: str, declared: str | None) -> bool:
    """Whether a declared text is this word, however it is written: `MCP`, and ` mcp` too."""
    return declared is not None and unicodedata.normalize("NFKC", declared).strip().casefold() == word


@operation(ListTicketEvents, transaction=autocommit)
async def list_ticket_events(connection: Connection, call: Call, command: ListTicketEvents) -> views.EventPage:
    """A page of a ticket's history, oldest first."""
    path, query = command.path, command.query
    ref = lookup.parse_ticket_ref(path.ticket_id)
    binding = f"handoff events {path.project_id} {path.ticket_id}"
    after = paging.version_after(query.cursor, binding)
    position = {"after_version": after, "limit": query.limit + 1}
    parameters = lookup.parameters(call, path.project_id, ref) | position
    rows = await connection.all(queries.list_events(ref.by), parameters)
    if not rows:
        raise rights.not_a_member()
    if rows[0]["found"] is None or not ref.fits(rows[0]["project_slug"]):
        raise lookup.ticket_not_found()
    found = [row for row in rows if row["id"] is not None]
    page, next_cursor = paging.cut(found, query.limit, binding, "version", more=_is_cut(found))
    return {"events": [views.event(row) for row in page], "next_cursor": next_cursor}


@watch.watch(WatchTickets)
async def watch_tickets(feed: watch.EventFeed, call: Call, command: WatchTickets) -> AsyncIterator[views.WatchMessage]:
    """Every change of a project's tickets as it happens."""
    project_id = command.path.project_id
    binding = f"handoff watch {project_id}"
    start = positions.resumed(command.query.cursor, binding)

    async def read(position: positions.Position, rows: int, user_ids: Sequence[UUID]) -> watch.Found[views.TicketEvent]:
        named = {"user_ids": user_ids, "project_id": project_id, "rows": rows}
        found = await feed.database.all(queries.EVENTS_AFTER, {**named, **position.parameters()})
        return watch.found(found, views.event, found[0]["members"] or ())

    reader = watch.Reader(project_id, read, lookup.user_id(call), rights.not_a_member)
    async for event, reached in watch.follow(feed, project_id, call, reader, start):
        yield feed.message(binding, event, reached)
