"""The use cases of the handoff API, and who may do what."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import Field, TypeAdapter

from service import events, idempotency, jsontext, paging, watch
from service.database import Connection
from service.errors import TicketError, invalid
from service.fields import Instant, Uuid, tsquery
from service.handoff import life, queries, views
from service.handoff.commands import (
    BulkUpdateTickets,
    CreateTicket,
    Declared,
    GetTicket,
    ListProjectTickets,
    ListTicketEvents,
    ListTickets,
    NewTicket,
    ReportDeployment,
    TicketFilters,
    UpdateTicket,
    WatchTickets,
)
from service.jsontext import JsonText
from service.operation import Call, View, operation
from service.statement import Row

# The keys of the lists' orders.
_PLACE: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Instant, Uuid])
_VERSION: TypeAdapter[tuple[int]] = TypeAdapter(tuple[Annotated[int, Field(ge=0, lt=2**31)]])

_BOT_ROLE = "mcp_bot"
_BOT_SOURCE = "mcp"
_DEPLOY = "handoff:deploy"
_CLOCKS_DIFFER = timedelta(minutes=5)
# What a PATCH may change, beside what anybody may who works.
_BY_TRIAGE = {"milestone_id", "roles", "github_issue_number"}
_BY_AUTHOR = set(life.PLAIN) - _BY_TRIAGE

# As they are written, and no other way; eighteen digits are the most that any bigint can have.
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_REF = re.compile(r"HO-([1-9][0-9]{0,17})-([a-z0-9-]+)")
_SEARCHED_NUMBER = re.compile(r"(?:#|HO-)?([1-9][0-9]{0,17})(?:-[a-z0-9-]+)?", re.IGNORECASE)


class _Named(NamedTuple):
    """A ticket as a request names it: by id, by number, or by number and the project's slug."""

    by: queries.By
    key: UUID | int
    slug: str | None = None


@operation(ListTickets, one_statement=True)
async def list_tickets(connection: Connection, call: Call, command: ListTickets) -> View:
    """A page of the tickets of all the caller's projects, newest first."""
    query = command.query
    filters = {} if query.project_id is None else {"project_id": query.project_id}
    return await _list(connection, call, query, filters, of_project=False)


@operation(ListProjectTickets, one_statement=True)
async def list_project_tickets(connection: Connection, call: Call, command: ListProjectTickets) -> View:
    """A page of the tickets of one project, newest first."""
    query = command.query
    filters: dict[str, Any] = {"project_id": command.path.project_id}
    if query.ship is not None:
        filters[query.ship] = None
    if query.milestone is not None:
        filters["no_milestone" if query.milestone == "none" else "milestone"] = query.milestone
    if query.q is not None:
        number = _SEARCHED_NUMBER.fullmatch(query.q)
        filters["words" if number is None else "words_or_number"] = query.q
        filters |= {} if number is None else {"number": int(number[1])}
    return await _list(connection, call, query, filters, of_project=True)


async def _list(
    connection: Connection, call: Call, query: TicketFilters, filters: dict[str, Any], *, of_project: bool
) -> View:
    user_id = _user_id(call)
    names = ("status", "stage", "priority", "request_type", "role", "updated_since")
    filters |= {name: value for name in names if (value := getattr(query, name)) is not None}
    if query.assignee is not None:
        filters["assignee"] = user_id if query.assignee == "me" else query.assignee
    binding = jsontext.dump(["handoff tickets", user_id, of_project, sorted(filters.items())]).decode()
    parameters = {**filters, "user_id": user_id, "limit": query.limit + 1}
    if (q := filters.get("words", filters.get("words_or_number"))) is not None:
        parameters["words"] = tsquery(q)
    if query.cursor is not None:
        parameters["after_created_at"], parameters["after_id"] = paging.place(query.cursor, binding, _PLACE)
    names_of_filters = frozenset(filters) - {"number"}
    statement = queries.list_tickets(
        names_of_filters - {"project_id"} if of_project else names_of_filters,
        after=query.cursor is not None,
        of_project=of_project,
    )
    rows = await connection.all(statement, parameters)
    if of_project and not rows:
        raise _no_project()
    there = [row for row in rows if row["id"] is not None]
    page, next_cursor = paging.cut(there, query.limit, binding, "created_at", "id", more=_is_cut(there))
    return {
        "tickets": [views.listed_ticket(row, slim=query.slim) for row in page],
        "next_cursor": next_cursor,
    }


def _is_cut(rows: Sequence[Row]) -> bool:
    """Whether a page was cut short for its size."""
    return bool(rows) and len(rows) < rows[0]["in_page"]


@operation(GetTicket, one_statement=True)
async def get_ticket(connection: Connection, call: Call, command: GetTicket) -> View:
    """Read one ticket."""
    named = _which(command.path.ticket_id)
    parameters = {"user_id": _user_id(call), "project_id": command.path.project_id, named.by: named.key}
    return {"ticket": views.ticket(_found(await connection.all(queries.read_tickets(named.by), parameters), named))}


@operation(CreateTicket, one_statement=True)
async def create_ticket(connection: Connection, call: Call, command: CreateTicket) -> View:
    """File a ticket in a project, once for each idempotency key."""
    _require_roles_of_bots(call, command.body)
    user_id, project_id = _user_id(call), command.path.project_id
    defaults = {
        "actor_id": command.body.actor_id or call.caller.subject,
        # None: the project's own.
        "roles": command.body.roles or None,
    }
    row = await idempotency.once(
        connection,
        call,
        _key_scope(call, project_id),
        queries.CREATE,
        {"user_id": user_id, "project_id": project_id, **events.who(call), **vars(command.body), **defaults},
    )
    if row is None:
        raise TicketError("forbidden", "You may not create tickets in this project")
    return {"ticket": views.ticket(row | {"roles": views.roles(row)})}


def _require_roles_of_bots(call: Call, body: NewTicket) -> None:
    is_bot = body.source == _BOT_SOURCE or _BOT_ROLE in (body.actor_role, call.caller.actor_role)
    if is_bot and not body.roles:
        raise invalid("body", "roles", "A bot must name at least one role", "missing")


@operation(UpdateTicket)
async def update_ticket(connection: Connection, call: Call, command: UpdateTicket) -> View:
    """Change a ticket: its texts, its place on the board, its roles, its milestone."""
    path, body = command.path, command.body
    given = {name: getattr(body, name) for name in body.model_fields_set}
    if body.role_status is not None:
        given["role_status"] = {name: getattr(body.role_status, name) for name in body.role_status.model_fields_set}
        if body.role_status.assignee_user_id is not None:
            given["role_status"]["assignee_user_id"] = str(body.role_status.assignee_user_id)

    async def act(connection: Connection) -> View:
        ticket = await _locked(connection, call, path.project_id, path.ticket_id)
        _require_rights(call, ticket, given.keys())
        if "updated_at" in given and given["updated_at"] != ticket["updated_at"]:
            raise TicketError("stale")
        change = _changed(ticket, given)
        role = body.role_status
        origin = role.agent_origin if role is not None and role.status == "in_progress" else None
        await _write(connection, call, path.project_id, body, [change], origin)
        return {"ticket": views.ticket(change.after)}

    return await _once(connection, call, path.project_id, [path.ticket_id], act)


@operation(BulkUpdateTickets)
async def bulk_update_tickets(connection: Connection, call: Call, command: BulkUpdateTickets) -> View:
    """Move or close tickets, each on its own: those that cannot be are told."""
    project_id, body = command.path.project_id, command.body
    if (body.action == "move") != (body.stage is not None):
        raise invalid("body", "stage", "A move needs a stage, and a close has none", "missing", body.stage)
    stage = body.stage or "live"
    given: dict[str, Any] = {"stage": stage, "work_started_note": body.work_started_note}
    if stage == "live":
        given |= {name: getattr(body, name) for name in ("resolution_note", "resolution_type", "skip_pending_roles")}
    elif stage == "in_progress" and body.work_started_note is None:
        raise invalid("body", "work_started_note", "Moving to in_progress needs a note", "missing")

    async def act(connection: Connection) -> View:
        find = await _locked_tickets(connection, call, project_id, body.ticket_ids)
        # By id: one that is named twice is changed once.
        changes, errors = dict[UUID, _Change](), list[View]()
        for name in dict.fromkeys(body.ticket_ids):
            try:
                ticket = find(name)
                # What is closed keeps its resolution.
                change = _changed(ticket, {"stage": "live"} if ticket["stage"] == stage == "live" else given)
            except TicketError as error:
                errors.append({"id": name, "error": error.message, "code": error.reason})
            else:
                changes[change.before["id"]] = change
        await _write(connection, call, project_id, body, list(changes.values()))
        return {"updated": len(changes), "errors": errors}

    return await _once(connection, call, project_id, [], act)


@operation(ReportDeployment)
async def report_deployment(connection: Connection, call: Call, command: ReportDeployment) -> View:
    """Tell what became of a ticket's commit, once for each commit and outcome."""
    path, body = command.path, command.body

    async def act(connection: Connection) -> View:
        ticket = await _locked(connection, call, path.project_id, path.ticket_id)
        _require_deployer(call, ticket)
        happened_at = body.at or ticket["at"]
        if happened_at > ticket["at"] + _CLOCKS_DIFFER:
            raise invalid("body", "at", "Input should not be in the future", value=body.at)
        report = {
            "user_id": _user_id(call),
            "project_id": path.project_id,
            "ticket_id": ticket["id"],
            "merge_sha": body.merge_sha,
            "outcome": body.outcome,
            "happened_at": happened_at,
        }
        if await connection.one(queries.REPORT, report) is None:
            return {"ticket": views.ticket(ticket)}
        after = life.deployed(ticket, body.merge_sha, body.outcome, happened_at, ticket["at"])
        change = _Change(ticket, after, life.told(ticket, after))
        # With it the report would be undone.
        await _write(connection, call, path.project_id, body, [change], last=False)
        return {"ticket": views.ticket(after)}

    return await _once(connection, call, path.project_id, [path.ticket_id], act, _require_deployer)


@operation(ListTicketEvents, one_statement=True)
async def list_ticket_events(connection: Connection, call: Call, command: ListTicketEvents) -> View:
    """A page of a ticket's history, oldest first."""
    path, query = command.path, command.query
    named = _which(path.ticket_id)
    binding = f"handoff events {path.project_id} {path.ticket_id}"
    (after,) = (0,) if query.cursor is None else paging.place(query.cursor, binding, _VERSION)
    parameters = {
        "user_id": _user_id(call),
        "project_id": path.project_id,
        named.by: named.key,
        "after_version": after,
        "limit": query.limit + 1,
    }
    rows = await connection.all(queries.list_events(named.by), parameters)
    if not rows:
        raise _no_project()
    if rows[0]["found"] is None or named.slug not in (None, rows[0]["project_slug"]):
        raise _no_ticket()
    there = [row for row in rows if row["id"] is not None]
    page, next_cursor = paging.cut(there, query.limit, binding, "version", more=_is_cut(there))
    return {"events": [views.event(row) for row in page], "next_cursor": next_cursor}


@watch.watch(WatchTickets)
async def watch_tickets(news: watch.News, call: Call, command: WatchTickets) -> AsyncIterator[View]:
    """Every change of a project's tickets as it happens."""
    project_id = command.path.project_id
    binding = f"handoff watch {project_id}"
    place = watch.resumed(command.query.cursor, binding)

    async def read(place: watch.Place, rows: int) -> tuple[Sequence[Row], int]:
        found = await news.database.all(
            queries.NEWS,
            {
                "user_id": _user_id(call),
                "project_id": project_id,
                "rows": rows,
                **watch.behind(place),
            },
        )
        if not found:
            raise _no_project()
        return [row for row in found if row["id"] is not None], int(found[0]["fence"])

    async for row, behind in watch.follow(news, project_id, call, read, place):
        event = None if row is None else views.event(row)
        yield {"event": event, "cursor": paging.cursor(binding, *behind)}


def _require_worker(call: Call, member: Row) -> None:
    if member["member_role"] not in queries.WORKERS:
        raise TicketError("forbidden", "You may not change tickets of this project")


def _require_deployer(call: Call, member: Row) -> None:
    if member["member_role"] not in views.TRIAGE and _DEPLOY not in call.caller.scopes:
        raise TicketError("forbidden", f"Only triagers, owners and tokens with scope {_DEPLOY} report deployments")


async def _once(
    connection: Connection,
    call: Call,
    project_id: UUID,
    subject: Sequence[str],
    act: Callable[[Connection], Awaitable[View]],
    require: Callable[[Call, Row], None] = _require_worker,
) -> View:
    """What the act answers, once for each idempotency key, to who may still act."""

    async def admit(connection: Connection) -> None:
        member = {"user_id": _user_id(call), "project_id": project_id}
        row = await connection.one(queries.MEMBERSHIP, member)
        if row is None:
            raise _no_project()
        require(call, row)

    return await idempotency.act(connection, call, _key_scope(call, project_id), subject, act, admit)


class _Change(NamedTuple):
    """A locked ticket as it was and as it becomes, and what its event tells."""

    before: Row
    after: Row
    told: View


def _changed(ticket: Row, given: Mapping[str, Any]) -> _Change:
    """What a change makes of a ticket. Raises TicketError as `life.changed`."""
    after = life.changed(ticket, given, ticket["at"])
    return _Change(ticket, after, life.told(ticket, after, given.get("work_started_note")))


async def _write(
    connection: Connection,
    call: Call,
    project_id: UUID,
    declared: Declared,
    changes: Sequence[_Change],
    agent_origin: str | None = None,
    *,
    last: bool = True,
) -> None:
    """Write the changes and their events, and commit if it is the `last` write.

    What changes nothing is not written and leaves no event.
    """
    tickets, roles, removed = [], list[View](), list[str]()
    for before, after, told in changes:
        if before == after:
            continue
        new = {name: after[name] for name in queries.CHANGEABLE if name in before and after[name] != before[name]}
        event = {"kind": life.kind(before, after), "changes": told, "agent_origin": agent_origin}
        tickets.append({"id": after["id"], "changed": list(new), **new, **event})
        was = list(enumerate(before["roles"]))
        roles += [
            {**role, "ticket_id": after["id"], "position": position + 1}
            for position, role in enumerate(after["roles"])
            if (position, role) not in was
        ]
        stay = {role["id"] for role in after["roles"]}
        removed += [role["id"] for role in before["roles"] if role["id"] not in stay]
    if not tickets:
        return
    parameters = {
        "user_id": _user_id(call),
        "project_id": project_id,
        "tickets": _json(tickets),
        "roles": _json(roles),
        "removed_roles": removed,
        "actor_role": declared.actor_role or call.caller.actor_role,
        "actor_id": declared.actor_id,
        **events.who(call),
    }
    if len(await connection.all(queries.WRITE, parameters, last=last)) < len(tickets):
        raise _no_project()  # the membership ended meanwhile, and nothing was written


def _json(value: Any) -> JsonText:
    return JsonText(jsontext.dump(value).decode())


async def _locked(connection: Connection, call: Call, project_id: UUID, ticket_id: str) -> Row:
    """The ticket as it is until the transaction ends. Raises TicketError `forbidden`, `not_found`."""
    named = _which(ticket_id)
    parameters = {"user_id": _user_id(call), "project_id": project_id, named.by: named.key}
    rows = await connection.all(queries.read_tickets(named.by), parameters, behind=queries.lock_tickets(named.by))
    return _found(rows, named)


async def _locked_tickets(
    connection: Connection, call: Call, project_id: UUID, names: Iterable[str]
) -> Callable[[str], Row]:
    """The same for many, found by the name that the request has for each.

    Raises TicketError `forbidden`; what it returns raises `not_found`.
    """
    named = {name: _which(name) for name in names}
    keys: Mapping[str, list[Any]] = {by: [one.key for one in named.values() if one.by == by] for by in ("id", "number")}
    parameters = {"user_id": _user_id(call), "project_id": project_id, "ids": keys["id"], "numbers": keys["number"]}
    rows = await connection.all(queries.read_tickets("any"), parameters, behind=queries.lock_tickets("any"))
    if not rows:
        raise _no_project()
    _require_worker(call, rows[0])
    tickets = [row | {"roles": views.roles(row)} for row in rows if row["id"] is not None]
    by_key: dict[Any, Row] = {ticket["id"]: ticket for ticket in tickets}
    by_key |= {ticket["number"]: ticket for ticket in tickets}

    def find(name: str) -> Row:
        one = named[name]
        ticket = by_key.get(one.key)
        if ticket is None or one.slug not in (None, ticket["project_slug"]):
            raise _no_ticket()
        return ticket

    return find


def _require_rights(call: Call, ticket: Row, names: Iterable[str]) -> None:
    """Check that the caller may change these members of a ticket. Raises TicketError `forbidden`."""
    _require_worker(call, ticket)
    if ticket["member_role"] in views.TRIAGE:
        return
    names = set(names)
    if names & _BY_TRIAGE:
        raise TicketError("forbidden", f"Only triagers and owners change {_words(names & _BY_TRIAGE)}")
    if names & _BY_AUTHOR and ticket["reported_by_user_id"] != _user_id(call):
        raise TicketError("forbidden", f"Only its author, triagers and owners change {_words(names & _BY_AUTHOR)}")


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _user_id(call: Call) -> UUID:
    return UUID(call.caller.subject)


def _key_scope(call: Call, project_id: UUID) -> str:
    """Whose idempotency keys they are."""
    return f"handoff:{project_id}:{_user_id(call)}"


def _which(ticket_id: str) -> _Named:
    """What a text names. What is neither id nor number nor reference is the number that no ticket has."""
    if _NUMBER.fullmatch(ticket_id):
        return _Named("number", int(ticket_id))
    reference = _REF.fullmatch(ticket_id)
    if reference is not None:
        return _Named("number", int(reference[1]), reference[2])
    return _Named("id", UUID(ticket_id)) if _ID.fullmatch(ticket_id) else _Named("number", 0)


def _found(rows: Sequence[Row], named: _Named) -> Row:
    if not rows:
        raise _no_project()
    row = rows[0]
    if row["id"] is None or named.slug not in (None, row["project_slug"]):
        raise _no_ticket()
    return row | {"roles": views.roles(row)}


def _no_project() -> TicketError:
    return TicketError("forbidden", "You are no member of this project")


def _no_ticket() -> TicketError:
    return TicketError("not_found", "Ticket not found")
