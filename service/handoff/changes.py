"""The use cases that change a handoff ticket, and who may change what."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from service import events, idempotency, jsontext
from service.errors import TicketError, invalid
from service.handoff import lifecycle as life
from service.handoff import lookup, queries, views
from service.handoff.commands import BulkUpdateTickets, Declared, ReportDeployment, UpdateTicket
from service.jsontext import JsonText
from service.operation import Call, View, operation
from service.storage.database import Connection
from service.storage.statement import Row

_DEPLOY = "handoff:deploy"
_CLOCKS_DIFFER = timedelta(minutes=5)
# What a PATCH may change, beside what anybody may who works.
_BY_TRIAGE = {"milestone_id", "roles", "github_issue_number"}
_BY_AUTHOR = set(life.PLAIN) - _BY_TRIAGE


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
            "user_id": lookup.user_id(call),
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
        await _write(connection, call, path.project_id, body, [change], commit=False)
        return {"ticket": views.ticket(after)}

    return await _once(connection, call, path.project_id, [path.ticket_id], act, _require_deployer)


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
        member = {"user_id": lookup.user_id(call), "project_id": project_id}
        row = await connection.one(queries.MEMBERSHIP, member)
        if row is None:
            raise lookup.no_project()
        require(call, row)

    return await idempotency.replay_or_run(connection, call, lookup.key_scope(call, project_id), subject, act, admit)


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
    commit: bool = True,
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
        "user_id": lookup.user_id(call),
        "project_id": project_id,
        "tickets": _json(tickets),
        "roles": _json(roles),
        "removed_roles": removed,
        "actor_role": declared.actor_role or call.caller.actor_role,
        "actor_id": declared.actor_id,
        **events.actor_of(call),
    }
    if len(await connection.all(queries.WRITE, parameters, commit=commit)) < len(tickets):
        raise lookup.no_project()  # the membership ended meanwhile, and nothing was written


def _json(value: Any) -> JsonText:
    return jsontext.text(value)


async def _locked(connection: Connection, call: Call, project_id: UUID, ticket_id: str) -> Row:
    """The ticket as it is until the transaction ends. Raises TicketError `forbidden`, `not_found`."""
    named = lookup.which(ticket_id)
    parameters = {"user_id": lookup.user_id(call), "project_id": project_id, named.by: named.key}
    rows = await connection.all(queries.read_tickets(named.by), parameters, lock=queries.lock_tickets(named.by))
    return lookup.found(rows, named)


async def _locked_tickets(
    connection: Connection, call: Call, project_id: UUID, names: Iterable[str]
) -> Callable[[str], Row]:
    """The same for many, found by the name that the request has for each.

    Raises TicketError `forbidden`; what it returns raises `not_found`.
    """
    named = {name: lookup.which(name) for name in names}
    keys: Mapping[str, list[Any]] = {by: [one.key for one in named.values() if one.by == by] for by in ("id", "number")}
    parameters = {
        "user_id": lookup.user_id(call),
        "project_id": project_id,
        "ids": keys["id"],
        "numbers": keys["number"],
    }
    rows = await connection.all(queries.read_tickets("any"), parameters, lock=queries.lock_tickets("any"))
    if not rows:
        raise lookup.no_project()
    _require_worker(call, rows[0])
    tickets = [row | {"roles": views.roles(row)} for row in rows if row["id"] is not None]
    by_key: dict[Any, Row] = {ticket["id"]: ticket for ticket in tickets}
    by_key |= {ticket["number"]: ticket for ticket in tickets}

    def find(name: str) -> Row:
        one = named[name]
        ticket = by_key.get(one.key)
        if ticket is None or one.slug not in (None, ticket["project_slug"]):
            raise lookup.no_ticket()
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
    if names & _BY_AUTHOR and ticket["reported_by_user_id"] != lookup.user_id(call):
        raise TicketError("forbidden", f"Only its author, triagers and owners change {_words(names & _BY_AUTHOR)}")


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
