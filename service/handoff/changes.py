"""The use cases that change handoff tickets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from service import events, idempotency, jsontext
from service.errors import TicketError, invalid
from service.handoff import change_queries, index_terms, lifecycle, lookup, queries, rights, views
from service.handoff.commands import BulkUpdateTickets, Declared, ReportDeployment, UpdateTicket
from service.handoff.keys import KEYS
from service.operation import Call, optimistic
from service.storage.database import Connection
from service.storage.row_version import ChangedMeanwhileError
from service.storage.statement import Row

# How far a caller's clock may be ahead of ours.
_MAX_CLOCK_SKEW = timedelta(minutes=5)


@idempotency.write(UpdateTicket, KEYS, transaction=optimistic)
async def update_ticket(connection: Connection, call: Call, command: UpdateTicket) -> views.TicketAnswer:
    """Change a ticket: its texts, its stage, its roles, its milestone."""
    path, body = command.path, command.body
    given = {name: getattr(body, name) for name in body.model_fields_set}
    if body.role_status is not None:
        given["role_status"] = {name: getattr(body.role_status, name) for name in body.role_status.model_fields_set}
        if body.role_status.assignee_user_id is not None:
            given["role_status"]["assignee_user_id"] = str(body.role_status.assignee_user_id)
    ticket = await _ticket(connection, call, path.project_id, path.ticket_id)
    is_author = ticket["reported_by_user_id"] == lookup.user_id(call)
    changing = [name for name in given if not lifecycle.is_as_it_was(ticket, name, given[name])]
    rights.require_right_to_change(changing, ticket["member_role"], is_author=is_author)
    if "updated_at" in given and given["updated_at"] != ticket["updated_at"]:
        raise TicketError("stale")
    change = _changed(ticket, given)
    role = body.role_status
    origin = role.agent_origin if role is not None and role.status == "in_progress" else None
    await _write(connection, call, path.project_id, body, [change], origin)
    return {"ticket": views.ticket(change.after)}


@idempotency.write(BulkUpdateTickets, KEYS)
async def bulk_update_tickets(connection: Connection, call: Call, command: BulkUpdateTickets) -> views.BulkAnswer:
    """Move or close tickets, each on its own, and report those that could not be."""
    project_id, body = command.path.project_id, command.body
    if (body.action == "move") != (body.stage is not None):
        raise invalid("body", "stage", "A move requires a stage, a close takes none", "missing", body.stage)
    stage = body.stage or "live"
    if stage == "in_progress" and body.work_started_note is None:
        raise lifecycle.note_required()
    if stage != "live" and body.resolution_type is not None:
        raise lifecycle.only_of_closed_tickets(body.resolution_type)
    names = {"work_started_note", "resolution_note", "resolution_type", "skip_pending_roles"} & body.model_fields_set
    given: dict[str, Any] = {"stage": stage, **{name: getattr(body, name) for name in names}}
    find = await _locked_tickets(connection, call, project_id, body.ticket_ids)
    # Kept by id: a ticket that is named twice is changed once.
    changes, errors = dict[UUID, _Change](), list[views.BulkError]()
    for ticket_id in dict.fromkeys(body.ticket_ids):
        try:
            ticket = find(ticket_id)
            # A ticket that is closed already keeps its resolution.
            change = _changed(ticket, {"stage": "live"} if ticket["stage"] == stage == "live" else given)
        except TicketError as error:
            errors.append({"id": ticket_id, "error": error.message, "code": error.reason})
        else:
            changes[change.before["id"]] = change
    await _write(connection, call, project_id, body, list(changes.values()))
    return {"updated": len(changes), "errors": errors}


@idempotency.write(ReportDeployment, KEYS)
async def report_deployment(connection: Connection, call: Call, command: ReportDeployment) -> views.TicketAnswer:
    """Record what became of a ticket's commit, once for each commit and outcome."""
    path, body = command.path, command.body
    ticket = await _ticket(connection, call, path.project_id, path.ticket_id)
    rights.require_deployer(ticket["member_role"], scopes=call.caller.scopes)
    happened_at = body.at or ticket["at"]
    if happened_at > ticket["at"] + _MAX_CLOCK_SKEW:
        raise invalid("body", "at", "Input should not be in the future", value=body.at)
    report = {
        "user_id": lookup.user_id(call),
        "project_id": path.project_id,
        "ticket_id": ticket["id"],
        "merge_sha": body.merge_sha,
        "outcome": body.outcome,
        "happened_at": happened_at,
    }
    if await connection.one(change_queries.REPORT, report) is None:
        return {"ticket": views.ticket(ticket)}
    after = lifecycle.deployed(ticket, body.merge_sha, body.outcome, happened_at, ticket["at"])
    change = _Change(ticket, after, lifecycle.diff(ticket, after))
    # Not committed here: a failure of the write must undo the report as well.
    await _write(connection, call, path.project_id, body, [change], commit=False)
    return {"ticket": views.ticket(after)}


class _Change(NamedTuple):
    """A ticket as it was read, and after a change, and the `changes` of its event."""

    before: Row
    after: Row
    diff: Row


def _changed(ticket: Row, given: Mapping[str, Any]) -> _Change:
    """A ticket and what a change makes of it. Raises TicketError as `lifecycle.changed`."""
    after = lifecycle.changed(ticket, given, ticket["at"])
    return _Change(ticket, after, lifecycle.diff(ticket, after, given.get("work_started_note")))


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
    """Write the changes with their events; `commit` ends the transaction with them. Raises ChangedMeanwhileError.

    A change that leaves its ticket as it was is not written and has no event.
    """
    changes = [change for change in changes if change.before != change.after]
    if not changes:
        return
    parameters = {
        "user_id": lookup.user_id(call),
        "project_id": project_id,
        "tickets": jsontext.text([_ticket_row(change, agent_origin) for change in changes]),
        "roles": jsontext.text([role for change in changes for role in _written_roles(change)]),
        "removed_roles": [role_id for change in changes for role_id in _removed_roles(change)],
        "actor_role": declared.actor_role or call.caller.actor_role,
        "actor_id": declared.actor_id,
        **events.actor_of(call),
    }
    statement = change_queries.WRITE
    if len(changes) == 1:
        statement, parameters["ticket_id"] = change_queries.WRITE_ONE, changes[0].after["id"]
    if len(await connection.all(statement, parameters, commit=commit)) == len(changes):
        return
    if not connection.holds_locks:
        raise ChangedMeanwhileError
    raise rights.not_a_member()  # the membership ended meanwhile, and nothing was written


def _ticket_row(change: _Change, agent_origin: str | None) -> Row:
    """The row of the parameter `tickets`: the columns that change, and the ticket's event."""
    before, after, diff = change
    names = [name for name in change_queries.CHANGEABLE if name in before and after[name] != before[name]]
    new = {name: after[name] for name in names}
    if new.keys() & {"title", "description"}:
        names.append("search_terms")
        new["search_terms"] = index_terms.search_terms(after)
    event = {"kind": lifecycle.event_type(before, after), "changes": diff, "agent_origin": agent_origin}
    return {"id": after["id"], "row_version": before["row_version"], "changed": names, **new, **event}


def _written_roles(change: _Change) -> Sequence[Row]:
    """The rows of the parameter `roles`: those that are new, changed or moved."""
    before = list(enumerate(change.before["roles"]))
    return [
        {**role, "ticket_id": change.after["id"], "position": position + 1}
        for position, role in enumerate(change.after["roles"])
        if (position, role) not in before
    ]


def _removed_roles(change: _Change) -> Sequence[str]:
    kept = {role["id"] for role in change.after["roles"]}
    return [role["id"] for role in change.before["roles"] if role["id"] not in kept]


async def _ticket(connection: Connection, call: Call, project_id: UUID, ticket_id: str) -> Row:
    """The ticket, locked until the transaction ends where there is one. Raises TicketError `forbidden`, `not_found`."""
    ref = lookup.parse_ticket_ref(ticket_id)
    parameters = lookup.parameters(call, project_id, ref)
    lock = change_queries.lock_tickets(ref.by) if connection.holds_locks else None
    return lookup.one_ticket(await connection.all(queries.read_tickets(ref.by), parameters, lock=lock), ref)


async def _locked_tickets(
    connection: Connection, call: Call, project_id: UUID, ticket_ids: Iterable[str]
) -> Callable[[str], Row]:
    """The same for many: a function that finds each by the text that the request has for it.

    Raises TicketError `forbidden`; the function raises `not_found`.
    """
    refs = {ticket_id: lookup.parse_ticket_ref(ticket_id) for ticket_id in ticket_ids}
    parameters = {
        "user_id": lookup.user_id(call),
        "project_id": project_id,
        "ids": [ref.key for ref in refs.values() if ref.by == "id"],
        "numbers": [ref.key for ref in refs.values() if ref.by == "number"],
    }
    lock = change_queries.lock_tickets("any")
    rows = await connection.all(queries.read_tickets("any"), parameters, lock=lock)
    if not rows:
        raise rights.not_a_member()
    rights.require_worker(rows[0]["member_role"])
    tickets = [row | {"roles": views.roles(row)} for row in rows if row["id"] is not None]
    by_key: dict[Any, Row] = {ticket["id"]: ticket for ticket in tickets}
    by_key |= {ticket["number"]: ticket for ticket in tickets}

    def find(ticket_id: str) -> Row:
        ref = refs[ticket_id]
        ticket = by_key.get(ref.key)
        if ticket is None or not ref.fits(ticket["project_slug"]):
            raise lookup.ticket_not_found()
        return ticket

    return find
