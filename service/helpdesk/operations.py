"""The use cases of helpdesk tickets and their history. Comments are in comments.py, service levels in sla/."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter
from ulid import ULID

from service import etags, events, idempotency, paging, positions, watch
from service.errors import TicketError
from service.fields import Instant
from service.helpdesk import event_queries, index_terms, list_queries, lookup, queries, rights, views
from service.helpdesk.commands import (
    CloseTicket,
    CreateTicket,
    DeleteTicket,
    GetTicket,
    ListTicketEvents,
    ListTickets,
    NewTicket,
    RestoreTicket,
    Sort,
    TicketQuery,
    UpdateTicket,
    WatchTickets,
)
from service.helpdesk.fields import parse_number
from service.helpdesk.keys import KEYS
from service.helpdesk.lifecycle import UNRESOLVED, resolved_at
from service.helpdesk.sla import ticket_clock
from service.operation import Call, autocommit, operation, optimistic
from service.positions import Position
from service.search import tsqueries, tsquery
from service.storage.database import Connection
from service.storage.row_version import written
from service.storage.statement import Row, Statement

# How many events of a tenant one read scans for those of one person or application.
_LOOKED_AT = 2000
# The word of the filter `assigned_to_id` for tickets that nobody is assigned to.
_NOBODY = "none"

# The members of the query that are any of several values, with the names of their filters.
_ANY_OF = {
    **{
        name: name
        for name in (
            *("status", "type", "priority", "category", "team_id", "submitted_by_id", "related_asset_id"),
            *("related_vulnerability_id", "sla_policy", "source", "number"),
        )
    },
    "app_id": "of_app_id",
}

# What lists are ordered by: the key of their sort, and the id.
_BY_TIME: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Instant, str])
_BY_RANK: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Annotated[int, Field(ge=0, lt=2**31)], str])
_CURSOR_KEYS = dict.fromkeys(get_args(Sort), _BY_TIME) | {"-priority": _BY_RANK}


@operation(ListTickets, transaction=autocommit)
async def list_tickets(connection: Connection, call: Call, command: ListTickets) -> views.TicketPage:
    """A page of the tickets that the caller sees."""
    query, scope, filters = command.query, lookup.caller_scope(call), _filters(command.query)
    with_deleted = {"include_deleted": True} if query.include_deleted else {}
    binding = paging.binding_of("helpdesk tickets", query.sort, {**scope, **filters, **with_deleted})
    after = {}
    if query.cursor is not None:
        after["after_key"], after["after_id"] = paging.decode(query.cursor, binding, _CURSOR_KEYS[query.sort])
    search_scope = index_terms.search_scope(call.caller.tenant_id)
    words = [] if query.q is None else tsqueries(search_scope, query.q)
    statement = await list_queries.list_tickets(
        frozenset(scope),
        frozenset(filters).union(_implied(query, words)),
        query.sort,
        after=query.cursor is not None,
        with_deleted=query.include_deleted,
        short=paging.is_short(query.limit),
    )
    facets = index_terms.facet_terms(search_scope, filters)
    parameters = {**scope, **filters, **after, "facets": facets, "rows": query.limit + 1}
    if query.q is not None:
        parameters |= {"terms": tsquery(search_scope, query.q), "words": words}
    rows = await connection.all(statement, parameters)
    page, next_cursor = paging.cut(rows, query.limit, binding, "sort_key", "id")
    return {"tickets": [views.ticket(row) for row in page], "next_cursor": next_cursor}


def _filters(query: TicketQuery) -> dict[str, Any]:
    """The filters of a list by their names in queries.py, each with its value."""
    filters: dict[str, Any] = {}
    for member, name in _ANY_OF.items():
        wanted = getattr(query, member)
        if wanted is not None:
            wanted = [*map(parse_number, wanted)] if member == "number" else wanted
            filters |= {name: wanted[0]} if len(wanted) == 1 else {f"any_{name}": wanted}
    filters |= _assignees(query.assigned_to_id)
    plain = ("tag", "created_after", "created_before", "updated_since")
    filters |= {name: value for name in plain if (value := getattr(query, name)) is not None}
    if query.overdue:
        filters["overdue"] = True
    if query.q is not None:
        filters["terms"] = query.q
    return filters


def _implied(query: TicketQuery, words: Sequence[str]) -> list[str]:
    """The names of what the filters imply: indexes have that."""
    is_unresolved = query.overdue or (query.status is not None and UNRESOLVED.issuperset(query.status))
    return [*(["unresolved"] if is_unresolved else []), *(["words"] if len(words) > 1 else [])]


def _assignees(wanted: Sequence[str] | None) -> dict[str, Any]:
    if wanted is None:
        return {}
    people = [person for person in wanted if person != _NOBODY]
    if len(people) < len(wanted):
        return {"any_or_unassigned": people} if people else {"unassigned": True}
    return {"assigned_to_id": people[0]} if len(people) == 1 else {"any_assigned_to_id": people}


@operation(GetTicket, transaction=autocommit)
async def get_ticket(connection: Connection, call: Call, command: GetTicket) -> views.Ticket:
    """Read one ticket."""
    key = lookup.ticket_key(call, command.path.id)
    statement = queries.get_ticket(frozenset(key), with_deleted=command.query.include_deleted)
    return _answer(call, await connection.one(statement, key))


# What a new ticket has where nothing is given.
_DEFAULTS = {name: field.get_default() for name, field in NewTicket.model_fields.items()}


@operation(CreateTicket, transaction=autocommit)
async def create_ticket(connection: Connection, call: Call, command: CreateTicket) -> views.Ticket:
    """Raise a ticket, once for each idempotency key."""
    body, caller = command.body, call.caller
    submitter = body.submitted_by_id or caller.subject
    named = {name: getattr(body, name) for name in body.model_fields_set} | {"submitted_by_id": submitter}
    rights.require_set_in_creation(caller, named, {**_DEFAULTS, "submitted_by_id": caller.subject})
    ticket = {
        **vars(body),
        "tenant_id": caller.tenant_id,
        "app_id": caller.app_id,
        "id": f"tkt_{ULID()}",
        "submitted_by_id": submitter,
        "tag_terms": index_terms.tag_terms(body.tags),
    }
    ticket["search_terms"] = index_terms.search_terms(ticket)
    try:
        ticket = await ticket_clock.on_create(connection, ticket)
    except TicketError as error:
        # Its policy may have become inactive since the first request with this key.
        if error.reason != "validation_error":
            raise
        row = await idempotency.replay(connection, call, command, queries.CREATE)
        if row is None:
            raise
    else:
        ticket |= events.actor_of(call)
        row = await idempotency.create_once(connection, call, command, queries.CREATE, ticket)
    return _answer(call, row)


@idempotency.write(UpdateTicket, KEYS, transaction=optimistic)
async def update_ticket(connection: Connection, call: Call, command: UpdateTicket) -> views.Ticket:
    """Change some members of a ticket; any status may follow any other."""
    ticket = await lookup.ticket_to_change(connection, call, command.path.id)
    changes = {name: getattr(command.body, name) for name in command.body.model_fields_set - {"etag"}}
    rights.require_set_later(call.caller, changes, ticket)
    etags.require_match(views.etag(ticket), command.header.if_match, command.body.etag)
    return _answer(call, await _change(connection, call, ticket, changes))


@idempotency.write(CloseTicket, KEYS, transaction=optimistic)
async def close_ticket(connection: Connection, call: Call, command: CloseTicket) -> views.Ticket:
    """Close a ticket; one that is closed stays as it is."""
    ticket = await lookup.ticket_to_change(connection, call, command.path.id)
    if ticket["status"] != "closed":
        etags.require_match(views.etag(ticket), command.header.if_match, command.body.etag)
        ticket = await _change(connection, call, ticket, {"status": "closed"}, command.body.resolution_note)
    return _answer(call, ticket)


@idempotency.write(DeleteTicket, KEYS, transaction=optimistic)
async def delete_ticket(connection: Connection, call: Call, command: DeleteTicket) -> views.Ticket:
    """Delete a ticket, softly; one that is deleted stays as it is."""
    return await _set_deleted(connection, call, command, command.query.etag, queries.DELETE, deleted=True)


@idempotency.write(RestoreTicket, KEYS, transaction=optimistic)
async def restore_ticket(connection: Connection, call: Call, command: RestoreTicket) -> views.Ticket:
    """Restore a deleted ticket; one that is not deleted stays as it is."""
    return await _set_deleted(connection, call, command, command.body.etag, queries.RESTORE, deleted=False)


async def _set_deleted(
    connection: Connection,
    call: Call,
    command: DeleteTicket | RestoreTicket,
    etag: str | None,
    statement: Statement,
    *,
    deleted: bool,
) -> views.Ticket:
    ticket = await lookup.ticket_to_change(connection, call, command.path.id, with_deleted=True)
    if ticket["is_deleted"] == deleted:
        return _answer(call, ticket)
    etags.require_match(views.etag(ticket), command.header.if_match, etag)
    named = {name: ticket[name] for name in ("tenant_id", "id", "row_version")}
    return _answer(call, written(await connection.one(statement, named | events.actor_of(call), commit=True)))


@operation(ListTicketEvents, transaction=autocommit)
async def list_ticket_events(connection: Connection, call: Call, command: ListTicketEvents) -> views.TicketEventPage:
    """A page of a ticket's history, oldest first; agents see the events about internal comments too."""
    query, sees_internal = command.query, rights.may_see_internal(call.caller)
    key = lookup.ticket_key(call, command.path.id)
    binding = paging.binding_of("helpdesk events", sees_internal, key)
    after = paging.version_after(query.cursor, binding)
    statement = event_queries.list_events(frozenset(key), internal=sees_internal)
    rows = await connection.all(statement, {**key, "after_version": after, "rows": query.limit + 1})
    page, next_cursor = paging.cut(lookup.found_rows(rows), query.limit, binding, "version")
    return {"events": [views.event(row) for row in page], "next_cursor": next_cursor}


@watch.watch(WatchTickets)
async def watch_tickets(feed: watch.EventFeed, call: Call, command: WatchTickets) -> AsyncIterator[views.WatchMessage]:
    """Every event of the tickets that the caller sees, as it happens; agents see those about internal comments too."""
    scope, sees_internal = lookup.caller_scope(call), rights.may_see_internal(call.caller)
    binding = paging.binding_of("helpdesk watch", sees_internal, scope)
    statement = event_queries.events_after(frozenset(scope), internal=sees_internal)

    async def read(position: Position, rows: int, watchers: Sequence[str]) -> watch.Found[views.TicketEvent]:
        stop = await _stop(feed, scope, position)
        until = dict(zip(("until_transaction", "until_id"), map(str, stop or positions.AFTER_ALL), strict=True))
        found = await feed.database.all(statement, {**scope, **position.parameters(), **until, "rows": rows})
        # A token's claims hold until it expires, so every watcher may still see them.
        return watch.found(found, views.event, watchers, stop)

    # With the names, as an application's id may equal a person's.
    audience = (sees_internal, *scope.items())
    reader = watch.Reader(audience, read, call.caller.subject, lambda: TicketError("forbidden"))
    start = positions.resumed(command.query.cursor, binding)
    async for event, reached in watch.follow(feed, scope["tenant_id"], call, reader, start):
        yield feed.message(binding, event, reached)


async def _stop(feed: watch.EventFeed, scope: Mapping[str, Any], position: Position) -> Position | None:
    """Where this read stops scanning a tenant's events for the few that a caller sees; None: at the horizon."""
    if not event_queries.is_narrow(scope):
        return None
    parameters = {**scope, **position.parameters(), "skipped": _LOOKED_AT - 1, "rows": 1}
    found = await feed.database.one(event_queries.NEXT_STOP, parameters)
    return None if found is None else Position(int(found["transaction_id"]), found["id"])


def _answer(call: Call, row: Row | None) -> views.Ticket:
    """The answer that is one ticket, with its ETag. Raises TicketError `not_found` when there is none."""
    ticket = lookup.found(row)
    call.etag = views.etag(ticket)
    return views.ticket(ticket)


async def _change(
    connection: Connection, call: Call, ticket: Row, changes: Mapping[str, Any], resolution_note: str | None = None
) -> Row:
    """Change a ticket as it was read; returns it as it is then. Raises ChangedMeanwhileError."""
    key = lookup.caller_scope(call) | {"id": ticket["id"]}
    becomes = changes.get("status", ticket["status"])
    resolved = resolved_at(ticket["status"], becomes, ticket["resolved_at"], ticket["stamp"])
    clock = await ticket_clock.on_change(connection, ticket, changes, resolved)
    changes = {**changes, **{name: clock[name] for name in ("sla_policy", "due_at") if clock[name] != ticket[name]}}
    values = {f"new_{name}": changes.get(name) for name in queries.CHANGEABLE}
    values["new_tag_terms"] = index_terms.tag_terms(changes["tags"]) if "tags" in changes else []
    values["new_search_terms"] = None
    if changes.keys() & {"title", "description"}:
        values["new_search_terms"] = index_terms.search_terms({**ticket, **changes})
    stamps = {
        **{name: clock[name] for name in queries.SLA_COLUMNS},
        "changed": [*changes, *([] if values["new_search_terms"] is None else ["search_terms"])],
        "resolved_at": resolved,
        "resolution_note": resolution_note,
        "stamp": ticket["stamp"],
        "row_version": ticket["row_version"],
    }
    statement, actor = queries.update_ticket(frozenset(key)), events.actor_of(call)
    return written(await connection.one(statement, {**key, **values, **stamps, **actor}, commit=True))
