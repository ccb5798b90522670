"""The lifecycle of a handoff ticket: how a change moves its stage, its stamps and its roles.

The rules of contracts/handoff.md, "Life of a ticket". Pure: a ticket, a change and an instant in, the changed ticket
out. A ticket here is a row with its roles in the documented form.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from service.errors import TicketError, invalid
from service.storage.statement import Row

FINISHED = ("done", "skipped")
_NOT_BEGUN = ("backlog", "up_next")
_MOVES: Mapping[str, Sequence[str]] = {
    "pending": ("in_progress", "skipped"),
    "in_progress": ("done", "skipped", "pending"),
    "done": ("in_progress", "pending"),
    "skipped": ("in_progress", "pending"),
}
# The members that take the value given, and affect no other member.
PLAIN = (
    "title",
    "description",
    "request_type",
    "priority",
    "blocking",
    "evidence",
    "suggested_resolution",
    "implementation_notes",
    "milestone_id",
    "github_issue_number",
)
# Where a ticket is: each follows the other.
_PLACE = ("stage", "status")
_RESOLUTION = ("resolution_note", "resolution_type")
# The members of a ticket whose changes are in its events.
EVENT_MEMBERS = (*PLAIN, *_PLACE, *_RESOLUTION, "merge_sha", "deployed_at", "deploy_failed_at")
_ROLE_GIVEN = ("assignee_note", "assignee_user_id", "blocking_reason")
_ROLE_STAMPS = dict.fromkeys(("started_at", "completed_at", "work_started_note", "agent_origin"))
# The members of a role whose changes are in events, with their values in a new role.
_ROLE_EVENT_MEMBERS = {"status": "pending", **dict.fromkeys(("work_started_note", "agent_origin", *_ROLE_GIVEN))}


def changed(ticket: Row, given: Mapping[str, Any], at: datetime) -> Row:
    """The ticket after a change; `given` are the members of the change that were set.

    Raises TicketError: `validation_error`, `invalid_transition`, `roles_incomplete`.
    """
    roles = _with_roles(ticket, given["roles"], at) if "roles" in given else ticket["roles"]
    if given.get("role_status") is not None:
        roles = _with_role_changed(roles, given["role_status"], at)
    if roles != ticket["roles"] and all(given.get(name) == ticket[name] for name in _PLACE):
        # A ticket that was read, and is sent back whole with other roles, does not ask to stay where it was.
        repeated = {name for name in (*_PLACE, *_RESOLUTION) if name in given and given[name] == ticket[name]}
        given = {name: value for name, value in given.items() if name not in repeated}
    stage = _requested_stage(ticket, given)
    if stage == "live" and given.get("skip_pending_roles"):
        roles = [_moved(role, {"status": "skipped"}, at) if role["status"] == "pending" else role for role in roles]
    if stage is None:
        stage = _stage_by_roles(ticket, roles)
    elif stage == "live":
        _require_finished(roles)
    after = ticket | {name: given[name] for name in PLAIN if name in given}
    after |= {"roles": roles, "stage": stage, "status": "closed" if stage == "live" else "open"}
    after |= _resolution(ticket, after["status"], given, at)
    return after if after == ticket else after | {"updated_at": at}


def is_as_it_was(ticket: Row, name: str, value: Any) -> bool:
    """Whether a ticket has this value of a member already, as in a ticket that was read and is sent back."""
    if name == "roles":
        return bool(value == [role["role"] for role in ticket["roles"]])
    return name in ticket and bool(ticket[name] == value)


def deployed(ticket: Row, merge_sha: str, outcome: str, happened_at: datetime, at: datetime) -> Row:
    """The ticket after a deployment report. An outcome older than a stamp leaves that stamp as it is."""
    failed_at, deployed_at = ticket["deploy_failed_at"], ticket["deployed_at"]
    is_newest = all(stamp is None or stamp <= happened_at for stamp in (failed_at, deployed_at))
    after = ticket | {"merge_sha": merge_sha if is_newest else ticket["merge_sha"]}
    if outcome == "deployed" and (deployed_at is None or deployed_at <= happened_at):
        after["deployed_at"] = happened_at
    if outcome == "deployed" and failed_at is not None and failed_at <= happened_at:
        after["deploy_failed_at"] = None
    if outcome == "failed" and is_newest:
        after["deploy_failed_at"] = happened_at
    return after if after == ticket else after | {"updated_at": at}


def diff(before: Row, after: Row, work_started_note: str | None = None) -> Row:
    """The `changes` of an event: `{"stage": {"from": …, "to": …}, "roles.backend.status": …}`."""
    pairs = {name: (before[name], after[name]) for name in EVENT_MEMBERS if name in before}
    changes = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if work_started_note is not None and after["stage"] == "in_progress" != before["stage"]:
        changes["work_started_note"] = (None, work_started_note)
    roles_before = {role["role"]: role for role in before["roles"]}
    names = [role["role"] for role in after["roles"]]
    if list(roles_before) != names:
        changes["roles"] = (list(roles_before), names)
    for role in after["roles"]:
        old = roles_before.get(role["role"], _ROLE_EVENT_MEMBERS)
        changes |= {
            f"roles.{role['role']}.{name}": (old[name], role[name])
            for name in _ROLE_EVENT_MEMBERS
            if old[name] != role[name]
        }
    return {name: {"from": old, "to": new} for name, (old, new) in changes.items()}


def event_type(before: Row, after: Row) -> str:
    """The type of the event of a change."""
    if before["status"] == after["status"]:
        return "ticket.updated"
    return "ticket.closed" if after["status"] == "closed" else "ticket.reopened"


def _requested_stage(ticket: Row, given: Mapping[str, Any]) -> str | None:
    """The stage that a change asks for, by itself or by the status. Raises TicketError `validation_error`."""
    stage, status = given.get("stage"), given.get("status")
    if stage is None and status == "closed":
        stage = "live"
    elif stage is None and status == "open" and ticket["status"] == "closed":
        stage = "backlog"
    if stage is not None and status is not None and (stage == "live") != (status == "closed"):
        raise invalid("body", "status", "A ticket is closed exactly when its stage is live", value=status)
    if stage == "in_progress" != ticket["stage"] and given.get("work_started_note") is None:
        raise note_required()
    return stage


def note_required() -> TicketError:
    """The failure of a move to `in_progress` without a note."""
    return invalid("body", "work_started_note", "Moving to in_progress requires a work_started_note", "missing")


def only_of_closed_tickets(resolution_type: str) -> TicketError:
    """The failure of a change that gives this to a ticket that is open after it."""
    return invalid("body", "resolution_type", "Only a closed ticket has a resolution_type", value=resolution_type)


def _stage_by_roles(ticket: Row, roles: Sequence[Row]) -> str:
    """The stage that a ticket's roles lead it to when the change names none."""
    stage: str = ticket["stage"]
    statuses_before = {role["role"]: role["status"] for role in ticket["roles"]}
    moved_to = {role["status"] for role in roles if role["status"] != statuses_before.get(role["role"], "pending")}
    is_finished = all(role["status"] in FINISHED for role in roles)
    is_under_way = any(role["status"] == "in_progress" for role in roles)
    if stage == "live":
        if is_finished:
            return stage
        return "in_progress" if is_under_way else "backlog"
    if is_finished and not moved_to.isdisjoint(FINISHED):
        return "live"
    return "in_progress" if stage in _NOT_BEGUN and "in_progress" in moved_to else stage


def _require_finished(roles: Sequence[Row]) -> None:
    unfinished = [role["role"] for role in roles if role["status"] not in FINISHED]
    if unfinished:
        raise TicketError("roles_incomplete", f"Roles that are neither done nor skipped: {', '.join(unfinished)}")


def _resolution(ticket: Row, status: str, given: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """The members of a ticket's resolution that a change sets. A note may come before the ticket closes."""
    note = {"resolution_note": given["resolution_note"]} if "resolution_note" in given else {}
    kind = given.get("resolution_type")
    if status == "open":
        if kind is not None:
            raise only_of_closed_tickets(kind)
        reopened = {"resolved_at": None, "resolution_type": None, "resolution_note": None}
        return note if ticket["status"] == "open" else reopened | note
    if ticket["status"] == "open":
        return {"resolved_at": at, "resolution_type": kind or "completed", **note}
    if kind is None and "resolution_type" in given:
        raise invalid("body", "resolution_type", "A closed ticket has a resolution_type")
    return note if kind is None else {"resolution_type": kind, **note}


def _with_roles(ticket: Row, names: Sequence[str], at: datetime) -> list[Row]:
    """The roles of these names, in this order. A role that the ticket already has keeps its state."""
    current = {role["role"]: role for role in ticket["roles"]}
    return [current.get(name) or _new_role(ticket, name, at) for name in names]


def _new_role(ticket: Row, name: str, at: datetime) -> Row:
    return {
        "id": str(uuid4()),
        "handoff_request_id": str(ticket["id"]),
        "role": name,
        "status": "pending",
        **dict.fromkeys((*_ROLE_GIVEN, *_ROLE_STAMPS)),
        "created_at": at,
        "updated_at": at,
    }


def _with_role_changed(roles: Sequence[Row], change: Mapping[str, Any], at: datetime) -> list[Row]:
    if change["role"] not in [role["role"] for role in roles]:
        raise invalid("body", "role_status.role", "The ticket has no such role", value=change["role"])
    return [_moved(role, change, at) if role["role"] == change["role"] else role for role in roles]


def _moved(role: Row, change: Mapping[str, Any], at: datetime) -> Row:
    old, new = role["status"], change["status"]
    if new != old and new not in _MOVES[old]:
        raise TicketError("invalid_transition", f"A role that is {old} cannot become {new}")
    after = role | {name: change[name] for name in _ROLE_GIVEN if name in change} | {"status": new}
    note = change.get("work_started_note")
    if new == "pending" != old:
        after |= _ROLE_STAMPS
    elif new == "in_progress":
        if role["started_at"] is None and note is None:
            message = "Starting work on a role requires a work_started_note"
            raise invalid("body", "role_status.work_started_note", message, "missing")
        after["started_at"] = role["started_at"] or at
        after["work_started_note"] = note or role["work_started_note"]
        after["agent_origin"] = change.get("agent_origin", role["agent_origin"])
        after["completed_at"] = None
    elif new == "done" != old:
        after["completed_at"] = at
    return after if after == role else after | {"updated_at": at}
