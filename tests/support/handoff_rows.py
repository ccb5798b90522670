"""Handoff tickets as rows, for tests of their lifecycle: changes, refusals, and the changes in events."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import NAMESPACE_OID, uuid5

import pytest

from service.errors import TicketError
from service.handoff import lifecycle
from service.handoff.commands import Outcome, ResolutionType, RoleStatus, Stage
from service.storage.statement import Row

STAGES: Sequence[str] = get_args(Stage)
OPEN_STAGES = [stage for stage in STAGES if stage != "live"]
STATUSES: Sequence[str] = get_args(RoleStatus)
TYPES: Sequence[str] = get_args(ResolutionType)
OUTCOMES: Sequence[str] = get_args(Outcome)

THEN = datetime(2026, 2, 20, 14, 30, tzinfo=UTC)
NOW = THEN + timedelta(hours=1)
NO_RESOLUTION = {"resolved_at": None, "resolution_type": None, "resolution_note": None}
# The members of a role that work on it sets.
STAMPS = ("started_at", "completed_at", "work_started_note", "agent_origin")
# The members that events leave out: instants, ids and names.
NOT_IN_EVENTS = {
    "id",
    "handoff_request_id",
    "role",
    "created_at",
    "updated_at",
    "started_at",
    "completed_at",
    "resolved_at",
}


def role(name: str = "backend", status: str = "pending", *, begun: bool = False, **more: Any) -> dict[str, Any]:
    """A role in this status; `begun`: a skipped role that was in progress before."""
    begun = begun or status in ("in_progress", "done")
    return {
        "id": str(uuid5(NAMESPACE_OID, name)),
        "handoff_request_id": "2c1d8a51-3f3c-4f0e-9a52-6d6f3b0d5a11",
        "role": name,
        "status": status,
        "assignee_user_id": None,
        "assignee_note": None,
        "blocking_reason": None,
        "work_started_note": "On it." if begun else None,
        "agent_origin": "agent-1" if begun else None,
        "started_at": THEN if begun else None,
        "completed_at": THEN if status == "done" else None,
        "created_at": THEN,
        "updated_at": THEN,
        **more,
    }


def ticket(*roles: Mapping[str, Any], stage: str = "backlog", **more: Any) -> Row:
    """A ticket in this stage."""
    is_closed = stage == "live"
    return {
        "id": "2c1d8a51-3f3c-4f0e-9a52-6d6f3b0d5a11",
        "number": 1,
        "title": "Login loops",
        "description": "Since nine.",
        "request_type": "bug",
        "priority": "medium",
        "blocking": False,
        "evidence": None,
        "suggested_resolution": None,
        "implementation_notes": None,
        "milestone_id": None,
        "github_issue_number": None,
        "stage": stage,
        "status": "closed" if is_closed else "open",
        "resolved_at": THEN if is_closed else None,
        "resolution_type": "duplicate" if is_closed else None,
        "resolution_note": "Twice." if is_closed else None,
        "merge_sha": None,
        "deployed_at": None,
        "deploy_failed_at": None,
        "created_at": THEN,
        "updated_at": None,
        "roles": [dict(role) for role in roles],
        **more,
    }


def to(status: str, name: str = "backend", **more: Any) -> dict[str, Any]:
    """The change of a role to this status, with a note when it starts."""
    note = {"work_started_note": "Mine."} if status == "in_progress" else {}
    return {"role_status": {"role": name, "status": status, **note, **more}}


def changed(before: Row, **given: Any) -> Row:
    return lifecycle.changed(before, given, NOW)


def resolution(of: Row) -> dict[str, Any]:
    return {name: of[name] for name in NO_RESOLUTION}


def refusal(before: Row, given: Mapping[str, Any], reason: str, path: str | None = None) -> TicketError:
    """The failure of a change; checks its reason and the member it names, and that the ticket stays as it was."""
    copy = deepcopy(before)
    with pytest.raises(TicketError) as caught:
        lifecycle.changed(before, given, NOW)
    assert before == copy
    assert caught.value.reason == reason
    if path is not None:
        assert [issue.path for issue in caught.value.issues] == [path]
    return caught.value


def differences(before: Row, after: Row) -> dict[str, Any]:
    """The expected `changes` of an event: every member that differs, the members of roles included."""
    flat: list[dict[str, Any]] = []
    for one in (before, after):
        members = {name: value for name, value in one.items() if name not in NOT_IN_EVENTS}
        members["roles"] = [role["role"] for role in one["roles"]]
        members |= {
            f"roles.{role['role']}.{name}": value
            for role in one["roles"]
            for name, value in role.items()
            if name not in NOT_IN_EVENTS
        }
        flat.append(members)
    old, new = flat
    # A new role counts as one that was pending and empty before.
    for name in new.keys() - old.keys():
        old[name] = "pending" if name.endswith(".status") else None
    return {name: {"from": old[name], "to": new[name]} for name in new if name in old and old[name] != new[name]}
