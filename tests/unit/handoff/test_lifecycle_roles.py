"""contracts/handoff.md, "Life of a ticket": what becomes of roles, and what they do to the ticket."""

from collections.abc import Mapping
from typing import Any

import pytest
from support.handoff_rows import (
    NO_RESOLUTION,
    NOW,
    OPEN_STAGES,
    STAMPS,
    STATUSES,
    changed,
    refusal,
    resolution,
    role,
    ticket,
    to,
)

# What becomes of a role

# To pending, in_progress, done, skipped; `begun`: a skipped role that was in progress before.
ROLE_RULES: Mapping[str, tuple[str, str, str, str]] = {
    "pending": ("keep", "start", "no", "keep"),
    "in_progress": ("clear", "note", "finish", "keep"),
    "done": ("clear", "resume", "keep", "no"),
    "skipped": ("clear", "start", "no", "keep"),
    "begun": ("clear", "resume", "no", "keep"),
}
EFFECTS: Mapping[str, dict[str, Any]] = {
    "keep": {},
    "clear": dict.fromkeys(STAMPS),
    "start": {"started_at": NOW, "work_started_note": "Mine.", "completed_at": None},
    "note": {"work_started_note": "Mine."},
    "resume": {"work_started_note": "Mine.", "completed_at": None},
    "finish": {"completed_at": NOW},
}


def test_the_table_of_roles_is_complete() -> None:
    assert set(ROLE_RULES) == {*STATUSES, "begun"}


@pytest.mark.parametrize(
    ("was", "becomes", "effect"),
    [
        (was, becomes, effect)
        for was, effects in ROLE_RULES.items()
        for becomes, effect in zip(STATUSES, effects, strict=True)
    ],
)
def test_a_move_of_a_role_decides_over_its_stamps(was: str, becomes: str, effect: str) -> None:
    old = role(status="skipped", begun=True) if was == "begun" else role(status=was)
    before = ticket(old, role("qa"))
    if effect == "no":
        words = refusal(before, to(becomes), "invalid_transition").message
        assert old["status"] in words
        assert becomes in words
        return
    after = changed(before, **to(becomes))["roles"]
    moved = {"status": becomes, **EFFECTS[effect]}
    stamp = {"updated_at": NOW} if old | moved != old else {}
    assert after == [old | moved | stamp, before["roles"][1]]


@pytest.mark.parametrize("note", [{}, {"work_started_note": None}])
@pytest.mark.parametrize(
    ("old", "is_needed"),
    [
        (role(), True),
        (role(status="skipped"), True),
        (role(status="skipped", begun=True), False),
        (role(status="done"), False),
        (role(status="in_progress"), False),
    ],
)
def test_work_on_a_role_starts_with_a_note_of_its_own(
    old: dict[str, Any], is_needed: bool, note: dict[str, None]
) -> None:
    given: dict[str, Any] = {"role_status": {"role": "backend", "status": "in_progress", **note}}
    if is_needed:
        # The ticket's note is not the role's.
        given |= {"stage": "in_progress", "work_started_note": "Now."}
        refusal(ticket(old), given, "validation_error", "role_status.work_started_note")
    else:
        assert changed(ticket(old), **given)["roles"][0]["work_started_note"] == "On it."


def test_a_role_that_starts_takes_its_agent() -> None:
    after = changed(ticket(role()), **to("in_progress", agent_origin="agent-7"))
    assert after["roles"][0]["agent_origin"] == "agent-7"
    after = changed(after, **to("done"))
    assert after["roles"][0]["agent_origin"] == "agent-7"
    assert changed(after, **to("pending"))["roles"][0]["agent_origin"] is None


@pytest.mark.parametrize("was", ["pending", "in_progress"])
def test_a_role_that_is_pending_has_no_agent(was: str) -> None:
    after = changed(ticket(role(status=was)), **to("pending", agent_origin="agent-7"))
    assert after["roles"][0]["agent_origin"] is None


@pytest.mark.parametrize("name", ["blocking_reason", "assignee_note", "assignee_user_id"])
@pytest.mark.parametrize("status", STATUSES)
def test_what_is_said_of_a_role_is_set_and_null_clears_it_without_a_move(status: str, name: str) -> None:
    before = ticket(role(status=status), role("qa"))
    given = {"role": "backend", "status": status}
    after = changed(before, role_status={**given, name: "x"})
    assert after["roles"][0] == before["roles"][0] | {name: "x", "updated_at": NOW}
    assert after == before | {"roles": after["roles"], "updated_at": NOW}
    assert changed(after, role_status={**given, "assignee_note": after["roles"][0]["assignee_note"]}) == after
    assert changed(after, role_status={**given, name: None})["roles"][0][name] is None


@pytest.mark.parametrize("status", STATUSES)
def test_a_role_that_the_ticket_has_not_cannot_change(status: str) -> None:
    refusal(ticket(role()), to(status, "qa"), "validation_error", "role_status.role")
    refusal(ticket(role()), to(status) | {"roles": ["qa"]}, "validation_error", "role_status.role")


def test_a_role_that_comes_with_the_change_can_start_with_it() -> None:
    after = changed(ticket(role()), roles=["backend", "qa"], **to("in_progress", "qa"))
    assert [role["status"] for role in after["roles"]] == ["pending", "in_progress"]
    assert after["stage"] == "in_progress"


# What roles do to the ticket


@pytest.mark.parametrize(
    ("stage", "others", "was", "becomes", "expected"),
    [
        # The last one closes it, wherever it stands.
        *((stage, ("done", "skipped"), "in_progress", "done", "live") for stage in OPEN_STAGES),
        *((stage, (), "pending", "skipped", "live") for stage in OPEN_STAGES),
        ("validation", ("done",), "in_progress", "skipped", "live"),
        ("validation", ("done", "pending"), "in_progress", "done", "validation"),
        ("validation", ("in_progress",), "pending", "skipped", "validation"),
        # One that has nothing left to become closes nothing.
        ("validation", ("done",), "done", "done", "validation"),
        ("validation", (), "skipped", "skipped", "validation"),
        # The first to start takes the ticket along.
        ("backlog", (), "pending", "in_progress", "in_progress"),
        ("up_next", ("pending",), "pending", "in_progress", "in_progress"),
        ("in_progress", (), "pending", "in_progress", "in_progress"),
        ("validation", (), "pending", "in_progress", "validation"),
        ("backlog", (), "in_progress", "in_progress", "backlog"),
        ("backlog", (), "done", "in_progress", "in_progress"),
        ("in_progress", (), "in_progress", "pending", "in_progress"),
        # One that goes back reopens it.
        ("live", ("skipped",), "done", "pending", "backlog"),
        ("live", ("done",), "skipped", "in_progress", "in_progress"),
        ("live", (), "done", "done", "live"),
    ],
)
def test_a_move_of_a_role_takes_the_ticket_along(
    stage: str, others: tuple[str, ...], was: str, becomes: str, expected: str
) -> None:
    rest = [role(name, status) for name, status in zip(("qa", "design"), others, strict=False)]
    before = ticket(*rest, role(status=was), stage=stage)
    after = changed(before, **to(becomes))
    assert (after["stage"], after["status"]) == (expected, "closed" if expected == "live" else "open")
    if (stage, expected) == ("live", "live"):
        assert resolution(after) == resolution(before)
    elif expected == "live":
        assert resolution(after) == {"resolved_at": NOW, "resolution_type": "completed", "resolution_note": None}
    else:
        assert resolution(after) == NO_RESOLUTION


def test_a_ticket_that_closes_by_itself_takes_a_resolution() -> None:
    after = changed(ticket(role()), **to("skipped"), resolution_type="wont_fix", resolution_note="No.")
    assert resolution(after) == {"resolved_at": NOW, "resolution_type": "wont_fix", "resolution_note": "No."}


@pytest.mark.parametrize("stage", OPEN_STAGES)
def test_a_stage_that_is_named_wins_over_what_roles_would_do(stage: str) -> None:
    for given in (to("skipped"), to("in_progress")):
        after = changed(ticket(role(), stage="up_next"), **given, stage=stage, work_started_note="Now.")
        assert (after["stage"], after["status"]) == (stage, "open")


def test_a_closed_ticket_does_not_stay_live_with_a_role_that_goes_back() -> None:
    refusal(ticket(role(status="done"), stage="live"), to("pending") | {"stage": "live"}, "roles_incomplete")


# The set of roles


def test_roles_that_stay_keep_their_state_and_those_that_come_are_pending() -> None:
    qa, backend = role("qa", "in_progress"), role("backend", "done", blocking_reason="No access.")
    before = ticket(qa, backend, stage="in_progress")
    after = changed(before, roles=["design", "backend"])
    design, kept = after["roles"]
    assert kept == backend
    assert design == role("design", id=design["id"], created_at=NOW, updated_at=NOW)
    assert design["id"] not in (qa["id"], backend["id"])
    assert after == before | {"roles": [design, backend], "updated_at": NOW}


@pytest.mark.parametrize(
    ("stage", "was", "names", "expected"),
    [
        # A set without the last role to finish finishes none.
        ("validation", ("done", "pending"), ["qa"], "validation"),
        ("validation", ("done",), [], "validation"),
        # Work to do is no closed ticket's.
        ("live", ("done",), ["qa", "backend"], "backlog"),
        ("live", ("done", "skipped"), ["backend"], "live"),
        ("live", ("done",), [], "live"),
    ],
)
def test_a_new_set_of_roles_closes_nothing_and_reopens_what_has_work_to_do(
    stage: str, was: tuple[str, ...], names: list[str], expected: str
) -> None:
    roles = [role(name, status) for name, status in zip(("qa", "backend"), was, strict=False)]
    after = changed(ticket(*roles, stage=stage), roles=names)
    assert (after["stage"], [role["role"] for role in after["roles"]]) == (expected, names)
    assert (after["resolved_at"] is None) == (expected != "live")


def test_a_new_role_is_named_when_it_keeps_the_ticket_from_closing() -> None:
    before = ticket(role(status="done"))
    words = refusal(before, {"roles": ["backend", "qa"], "status": "closed"}, "roles_incomplete").message
    assert "qa" in words
