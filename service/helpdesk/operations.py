"""The use cases of the helpdesk API, and how a ticket's status moves its stamps."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter
from ulid import ULID

from service import events, idempotency, jsontext, paging, watch
from service.errors import TicketError
from service.fields import Instant, matches
from service.helpdesk import queries, views
from service.helpdesk.commands import (
    CloseTicket,
    CreateComment,
    CreateTicket,
    DeleteTicket,
    GetTicket,
    GetTicketSla,
    ListComments,
    ListTicketEvents,
    ListTickets,
    RestoreTicket,
    Sort,
    Status,
    TicketQuery,
    UpdateComment,
    UpdateTicket,
    WatchTickets,
)
from service.helpdesk.sla import queries as level_queries
from service.helpdesk.sla import targets, ticket_clock
from service.operation import Call, View, operation
from service.search import tsquery
from service.storage.database import Connection
from service.storage.statement import Row, Statement

_AGENT = "helpdesk:agent"

_NOBODY = "none"

# The keys of the lists' orders: what they are sorted by, and the id.
_BY_TIME: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Instant, str])
_BY_RANK: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Annotated[int, Field(ge=0, lt=2**31)], str])
_PLACES = dict.fromkeys(get_args(Sort), _BY_TIME) | {"-priority": _BY_RANK}

_ID = re.compile(r"tkt_[0-9A-HJKMNP-TV-Z]{26}")
_COMMENT_ID = re.compile(r"cmt_[0-9A-HJKMNP-TV-Z]{26}")
# As it is written, and no other way; eighteen digits are the most that any bigint can have.
_NUMBER = re.compile(r"TKT-(0[0-9]{3}|[1-9][0-9]{3,17})")


@operation(ListTickets, one_statement=True)
async def list_tickets(connection: Connection, call: Call, command: ListTickets) -> View:
    """A page of the tickets that the caller may see."""
    query, scope, filters = command.query, _scope(call), _filters(command.query)
    with_deleted = {"include_deleted": True} if query.include_deleted else {}
    binding = jsontext.dump(["helpdesk tickets", query.sort, {**scope, **filters, **with_deleted}]).decode()
    after = {}
    if query.cursor is not None:
        after["after_key"], after["after_id"] = paging.decode(query.cursor, binding, _PLACES[query.sort])
    statement = queries.list_tickets(
        frozenset(scope),
        frozenset(filters),
        query.sort,
        after=query.cursor is not None,
        with_deleted=query.include_deleted,
    )
    parameters = {**scope, **filters, **after, "rows": query.limit + 1}
    if query.q is not None:
        parameters["terms"] = tsquery(query.q)
    rows = await connection.all(statement, parameters)
    page, next_cursor = paging.cut(rows, query.limit, binding, "sort_key", "id")
    return {"tickets": [views.ticket(row) for row in page], "next_cursor": next_cursor}


def _filters(query: TicketQuery) -> dict[str, Any]:
    """The filters of a list by their names in queries.py, each with its value."""
    filters: dict[str, Any] = {}
    for name in ("status", "type", "priority", "category", "team_id", "submitted_by_id"):
        wanted = getattr(query, name)
        if wanted is not None:
            filters |= {name: wanted[0]} if len(wanted) == 1 else {f"any_{name}": wanted}
    filters |= _assignees(query.assigned_to_id)
    plain = ("tag", "created_after", "created_before", "updated_since")
    filters |= {name: value for name in plain if (value := getattr(query, name)) is not None}
    if query.overdue:
        filters["overdue"] = True
    if query.q is not None:
        number = _NUMBER.fullmatch(query.q.upper())
        filters |= {"terms": query.q} if number is None else {"terms_or_number": int(number[1])}
    return filters


def _assignees(wanted: Sequence[str] | None) -> dict[str, Any]:
    if wanted is None:
        return {}
    persons = [person for person in wanted if person != _NOBODY]
    if len(persons) < len(wanted):
        return {"any_or_unassigned": persons} if persons else {"unassigned": True}
    return {"assigned_to_id": persons[0]} if len(persons) == 1 else {"any_assigned_to_id": persons}


@operation(GetTicket, one_statement=True)
async def get_ticket(connection: Connection, call: Call, command: GetTicket) -> View:
    """Read one ticket."""
    named = _scope(call) | _which(command.path.id)
    statement = queries.get_ticket(frozenset(named), with_deleted=command.query.include_deleted)
    return _one(call, await connection.one(statement, named))


@operation(CreateTicket, one_statement=True)
async def create_ticket(connection: Connection, call: Call, command: CreateTicket) -> View:
    """Raise a ticket, once for each idempotency key."""
    body = command.body
    ticket = {
        **vars(body),
        "app_id": None,
        **_scope(call),
        "id": f"tkt_{ULID()}",
        "submitted_by_id": body.submitted_by_id or call.caller.subject,
        "tag_terms": views.tag_terms(body.tags),
    }
    try:
        ticket = await ticket_clock.on_create(connection, ticket, resolved=resolution(None, body.status) == "stamp")
    except TicketError:
        # Its policy may have gone since the first time.
        row = await idempotency.replay(connection, call, _key_scope(call), queries.CREATE)
        if row is None:
            raise
    else:
        ticket |= events.actor_of(call)
        row = await idempotency.create_once(connection, call, _key_scope(call), queries.CREATE, ticket)
    return _one(call, row)


@operation(UpdateTicket)
async def update_ticket(connection: Connection, call: Call, command: UpdateTicket) -> View:
    """Change some members of a ticket; any status may follow any other."""
    ticket = await _locked(connection, call, command.path.id)
    _require_match(ticket, command.header.if_match, command.body.etag)
    changes = {name: getattr(command.body, name) for name in command.body.model_fields_set - {"etag"}}
    return _one(call, await _change(connection, call, ticket, changes))


@operation(CloseTicket)
async def close_ticket(connection: Connection, call: Call, command: CloseTicket) -> View:
    """Close a ticket, once for each idempotency key; one that is closed stays as it is."""

    async def act(connection: Connection) -> View:
        ticket = await _locked(connection, call, command.path.id)
        if ticket["status"] != "closed":
            _require_match(ticket, command.header.if_match, command.body.etag)
            ticket = await _change(connection, call, ticket, {"status": "closed"}, command.body.resolution_note)
        return _one(call, ticket)

    return await idempotency.replay_or_run(connection, call, _key_scope(call), [command.path.id], act)


@operation(GetTicketSla, one_statement=True)
async def get_ticket_sla(connection: Connection, call: Call, command: GetTicketSla) -> View:
    """Explain how a ticket's SLA stands."""
    named = _scope(call) | _which(command.path.id)
    ticket = _found(await connection.one(level_queries.get_ticket_and_terms(frozenset(named)), named))
    terms = ticket_clock.terms_of(ticket)
    return views.ticket_sla(ticket, targets.standings(ticket, terms), terms)


@operation(DeleteTicket)
async def delete_ticket(connection: Connection, call: Call, command: DeleteTicket) -> View:
    """Delete a ticket, softly; one that is deleted stays as it is."""
    return await _mark(connection, call, command, command.query.etag, queries.DELETE, deleted=True)


@operation(RestoreTicket)
async def restore_ticket(connection: Connection, call: Call, command: RestoreTicket) -> View:
    """Restore a deleted ticket; one that is not deleted stays as it is."""
    return await _mark(connection, call, command, command.body.etag, queries.RESTORE, deleted=False)


async def _mark(
    connection: Connection,
    call: Call,
    command: DeleteTicket | RestoreTicket,
    etag: str | None,
    statement: Statement,
    *,
    deleted: bool,
) -> View:
    ticket = await _locked(connection, call, command.path.id, with_deleted=True)
    if ticket["is_deleted"] == deleted:
        return _one(call, ticket)
    _require_match(ticket, command.header.if_match, etag)
    parameters = {"tenant_id": ticket["tenant_id"], "id": ticket["id"], **events.actor_of(call)}
    return _one(call, await connection.one(statement, parameters, commit=True))


@operation(CreateComment)
async def create_comment(connection: Connection, call: Call, command: CreateComment) -> View:
    """Comment on a ticket, once for each idempotency key; an agent's first public word is the first response."""
    body, is_agent = command.body, _AGENT in call.caller.scopes
    if body.internal and not is_agent:
        raise TicketError("forbidden", "Only agents write internal comments")

    async def act(connection: Connection) -> View:
        ticket = await _locked(connection, call, command.path.id)
        is_response = is_agent and not body.internal and ticket["submitted_by_id"] != call.caller.subject
        parameters = {
            "tenant_id": ticket["tenant_id"],
            "id": ticket["id"],
            "comment_id": f"cmt_{ULID()}",
            "is_response": is_response,
            **vars(body),
            **events.actor_of(call),
        }
        comment = await connection.one(queries.CREATE_COMMENT, parameters, commit=True)
        return views.comment(_found(comment))

    return await idempotency.replay_or_run(connection, call, _key_scope(call), [command.path.id], act)


@operation(UpdateComment)
async def update_comment(connection: Connection, call: Call, command: UpdateComment) -> View:
    """Edit a comment of one's own."""
    comment_id, named = command.path.comment_id, _scope(call) | _which(command.path.id)
    ticket = _found(await connection.one(queries.lock_ticket(frozenset(named)), named))
    parameters = {"tenant_id": ticket["tenant_id"], "id": ticket["id"], "comment_id": comment_id}
    comment = await connection.one(queries.GET_COMMENT, parameters) if _COMMENT_ID.fullmatch(comment_id) else None
    if comment is None or (comment["internal"] and _AGENT not in call.caller.scopes):
        raise TicketError("not_found", "Comment not found")
    if comment["author_id"] != call.caller.subject:
        raise TicketError("forbidden", "Only its author may edit a comment")
    if comment["body"] != command.body.body:
        change = {"body": command.body.body, "old_body": comment["body"], **events.actor_of(call)}
        comment = _found(await connection.one(queries.UPDATE_COMMENT, {**parameters, **change}, commit=True))
    return views.comment(comment)


@operation(ListComments, one_statement=True)
async def list_comments(connection: Connection, call: Call, command: ListComments) -> View:
    """A page of a ticket's comments, oldest first; internal ones for agents."""
    query, is_agent = command.query, _AGENT in call.caller.scopes
    named = _scope(call) | _which(command.path.id)
    binding = jsontext.dump(["helpdesk comments", is_agent, named]).decode()
    after = {}
    if query.cursor is not None:
        after["after_created_at"], after["after_id"] = paging.decode(query.cursor, binding, _BY_TIME)
    statement = queries.list_comments(frozenset(named), internal=is_agent, after=query.cursor is not None)
    rows = await connection.all(statement, {**named, **after, "rows": query.limit + 1})
    if not rows:
        raise _no_ticket()
    there = [row for row in rows if row["id"] is not None]
    page, next_cursor = paging.cut(there, query.limit, binding, "created_at", "id")
    return {"comments": [views.comment(row) for row in page], "next_cursor": next_cursor}


@operation(ListTicketEvents, one_statement=True)
async def list_ticket_events(connection: Connection, call: Call, command: ListTicketEvents) -> View:
    """A page of a ticket's history, oldest first; what is internal for agents."""
    query, is_agent = command.query, _AGENT in call.caller.scopes
    named = _scope(call) | _which(command.path.id)
    binding = jsontext.dump(["helpdesk events", is_agent, named]).decode()
    (after,) = (0,) if query.cursor is None else paging.decode(query.cursor, binding, paging.BY_VERSION)
    statement = queries.list_events(frozenset(named), internal=is_agent)
    rows = await connection.all(statement, {**named, "after_version": after, "rows": query.limit + 1})
    if not rows:
        raise _no_ticket()
    there = [row for row in rows if row["id"] is not None]
    page, next_cursor = paging.cut(there, query.limit, binding, "version")
    return {"events": [views.event(row) for row in page], "next_cursor": next_cursor}


@watch.watch(WatchTickets)
async def watch_tickets(feed: watch.EventFeed, call: Call, command: WatchTickets) -> AsyncIterator[View]:
    """Every change of the tickets that the caller may see, as it happens; what is internal for agents."""
    scope, is_agent = _scope(call), _AGENT in call.caller.scopes
    binding = jsontext.dump(["helpdesk watch", is_agent, scope]).decode()
    statement = queries.events_after(of_app="app_id" in scope, internal=is_agent)

    async def read(position: watch.Position, rows: int) -> tuple[Sequence[Row], int]:
        found = await feed.database.all(statement, {**scope, **position.parameters(), "rows": rows})
        return [row for row in found if row["id"] is not None], int(found[0]["horizon"])

    position = watch.resumed(command.query.cursor, binding)
    async for row, reached in watch.follow(feed, scope["tenant_id"], call, read, position):
        event = None if row is None else views.event(row)
        yield {"event": event, "cursor": paging.encode(binding, *reached)}


def resolution(was: Status | None, becomes: Status) -> Literal["stamp", "clear", "keep"]:
    """What a move from one status to another does to `resolved_at`; a ticket that is being created was None."""
    if becomes == was:
        return "keep"
    if becomes == "resolved":
        return "stamp"
    if becomes == "closed":
        return "keep" if was == "resolved" else "stamp"
    return "clear"


def _one(call: Call, row: Row | None) -> View:
    """The answer that is one ticket."""
    ticket = _found(row)
    call.etag = views.etag(ticket)
    return views.ticket(ticket)


def _require_match(ticket: Row, *conditions: str | None) -> None:
    if not matches(views.etag(ticket), conditions):
        raise TicketError("stale")


async def _locked(connection: Connection, call: Call, id_or_number: str, *, with_deleted: bool = False) -> Row:
    """The ticket as it is until the transaction ends, if the caller may change it."""
    named = _scope(call) | _which(id_or_number)
    statement = queries.lock_ticket(frozenset(named), with_deleted=with_deleted)
    ticket = _found(await connection.one(statement, named))
    if _AGENT not in call.caller.scopes and ticket["submitted_by_id"] != call.caller.subject:
        raise TicketError("forbidden", "Only agents may change a ticket that someone else submitted")
    return ticket


async def _change(
    connection: Connection, call: Call, ticket: Row, changes: Mapping[str, Any], resolution_note: str | None = None
) -> Row:
    """The locked ticket, changed."""
    named = _scope(call) | {"id": ticket["id"]}
    move = resolution(ticket["status"], changes.get("status", ticket["status"]))
    resolved_at = {"stamp": ticket["stamp"], "clear": None, "keep": ticket["resolved_at"]}[move]
    clock = await ticket_clock.on_change(connection, ticket, changes, resolved_at)
    changes = {**changes, **{name: clock[name] for name in ("sla_policy", "due_at") if clock[name] != ticket[name]}}
    values = {f"new_{name}": changes.get(name) for name in queries.CHANGEABLE}
    values["new_tag_terms"] = views.tag_terms(changes["tags"]) if "tags" in changes else []
    stamps = {
        **{name: clock[name] for name in queries.SLA},
        "changed": list(changes),
        "resolved_at": resolved_at,
        "resolution_note": resolution_note,
    }
    statement = queries.update_ticket(frozenset(named))
    return _found(await connection.one(statement, {**named, **values, **stamps, **events.actor_of(call)}, commit=True))


def _key_scope(call: Call) -> str:
    """Whose idempotency keys they are. As JSON, because ids may hold any character that could stand between them."""
    caller = call.caller
    return f"helpdesk:{jsontext.dump([caller.tenant_id, caller.app_id, caller.subject]).decode()}"


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
