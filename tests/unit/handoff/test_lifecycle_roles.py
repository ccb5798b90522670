"""contracts/handoff.md, "Life of a ticket": changes of roles, and their effects on the ticket."""

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

# Changes of a role

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
def test_a_transition_of_a_role_sets_and_clears_its_stamps(was: str, becomes: str, effect: str) -> None:
    old = role(status="skipped", begun=True) if was == "begun" else role(status=was)
    before = ticket(old, role("qa"))
    if effect == "no":
        message = refusal(before, to(becomes), "invalid_transition").message
        assert old["status"] in message
        assert becomes in message
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
def test_starting_a_role_requires_its_own_note(old: dict[str, Any], is_needed: bool, note: dict[str, None]) -> None:
    given: dict[str, Any] = {"role_status": {"role": "backend", "status": "in_progress", **note}}
    if is_needed:
        # The ticket's note does not count.
        given |= {"stage": "in_progress", "work_started_note": "Now."}
        refusal(ticket(old), given, "validation_error", "role_status.work_started_note")
    else:
        assert changed(ticket(old), **given)["roles"][0]["work_started_note"] == "On it."


def test_a_role_that_starts_has_its_agent() -> None:
    after = changed(ticket(role()), **to("in_progress", agent_origin="agent-7"))
    assert after["roles"][0]["agent_origin"] == "agent-7"
    after = changed(after, **to("done"))
    assert after["roles"][0]["agent_origin"] == "agent-7"
    assert changed(after, **to("pending"))["roles"][0]["agent_origin"] is None


@pytest.mark.parametrize("was", ["pending", "in_progress"])
def test_a_pending_role_has_no_agent(was: str) -> None:
    after = changed(ticket(role(status=was)), **to("pending", agent_origin="agent-7"))
    assert after["roles"][0]["agent_origin"] is None


@pytest.mark.parametrize("name", ["blocking_reason", "assignee_note", "assignee_user_id"])
@pytest.mark.parametrize("status", STATUSES)
def test_notes_assignee_and_blocking_reason_are_set_and_cleared_without_a_transition(status: str, name: str) -> None:
    before = ticket(role(status=status), role("qa"))
    given = {"role": "backend", "status": status}
    after = changed(before, role_status={**given, name: "x"})
    assert after["roles"][0] == before["roles"][0] | {name: "x", "updated_at": NOW}
    assert after == before | {"roles": after["roles"], "updated_at": NOW}
    assert changed(after, role_status={**given, "assignee_note": after["roles"][0]["assignee_note"]}) == after
    assert changed(after, role_status={**given, name: None})["roles"][0][name] is None


@pytest.mark.parametrize("status", STATUSES)
def test_a_role_that_the_ticket_does_not_have_cannot_change(status: str) -> None:
    refusal(ticket(role()), to(status, "qa"), "validation_error", "role_status.role")
    refusal(ticket(role()), to(status) | {"roles": ["qa"]}, "validation_error", "role_status.role")


def test_a_role_that_a_change_adds_can_start_in_the_same_change() -> None:
    after = changed(ticket(role()), roles=["backend", "qa"], **to("in_progress", "qa"))
    assert [role["status"] for role in after["roles"]] == ["pending", "in_progress"]
    assert after["stage"] == "in_progress"


# Effects on the ticket


@pytest.mark.parametrize(
    ("stage", "others", "was", "becomes", "expected"),
    [
        # The last role to finish closes the ticket in any stage.
        *((stage, ("done", "skipped"), "in_progress", "done", "live") for stage in OPEN_STAGES),
        *((stage, (), "pending", "skipped", "live") for stage in OPEN_STAGES),
        ("validation", ("done",), "in_progress", "skipped", "live"),
        ("validation", ("done", "pending"), "in_progress", "done", "validation"),
        ("validation", ("in_progress",), "pending", "skipped", "validation"),
        # A role that was finished before closes nothing.
        ("validation", ("done",), "done", "done", "validation"),
        ("validation", (), "skipped", "skipped", "validation"),
        # The first role to start moves the ticket to in_progress.
        ("backlog", (), "pending", "in_progress", "in_progress"),
        ("up_next", ("pending",), "pending", "in_progress", "in_progress"),
        ("in_progress", (), "pending", "in_progress", "in_progress"),
        ("validation", (), "pending", "in_progress", "validation"),
        ("backlog", (), "in_progress", "in_progress", "backlog"),
        ("backlog", (), "done", "in_progress", "in_progress"),
        ("in_progress", (), "in_progress", "pending", "in_progress"),
        # A role that goes back reopens the ticket.
        ("live", ("skipped",), "done", "pending", "backlog"),
        ("live", ("done",), "skipped", "in_progress", "in_progress"),
        ("live", (), "done", "done", "live"),
    ],
)
def test_a_transition_of_a_role_moves_the_ticket(
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


def test_a_ticket_that_its_roles_close_takes_the_given_resolution() -> None:
    after = changed(ticket(role()), **to("skipped"), resolution_type="wont_fix", resolution_note="No.")
    assert resolution(after) == {"resolved_at": NOW, "resolution_type": "wont_fix", "resolution_note": "No."}


@pytest.mark.parametrize("stage", OPEN_STAGES)
def test_a_given_stage_wins_over_the_one_by_roles(stage: str) -> None:
    for given in (to("skipped"), to("in_progress")):
        after = changed(ticket(role(), stage="up_next"), **given, stage=stage, work_started_note="Now.")
        assert (after["stage"], after["status"]) == (stage, "open")


def test_a_role_that_goes_back_cannot_keep_the_stage_live() -> None:
    refusal(ticket(role(status="done"), stage="live"), to("pending") | {"stage": "live"}, "roles_incomplete")


def test_a_ticket_that_is_sent_back_whole_with_a_role_moved_goes_where_its_roles_lead() -> None:
    place = {"stage": "up_next", "status": "open"}
    after = changed(ticket(role(), stage="up_next"), **to("in_progress"), **place)
    assert (after["stage"], after["status"]) == ("in_progress", "open")
    after = changed(ticket(role(), stage="up_next"), **to("skipped"), **place)
    assert (after["stage"], after["status"]) == ("live", "closed")
    after = changed(ticket(role(status="done"), stage="live"), **to("pending"), stage="live", status="closed")
    assert (after["stage"], after["status"]) == ("backlog", "open")


# The set of roles


def test_roles_that_stay_keep_their_state_and_new_ones_are_pending() -> None:
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
        # Removing the last unfinished role closes nothing.
        ("validation", ("done", "pending"), ["qa"], "validation"),
        ("validation", ("done",), [], "validation"),
        # A closed ticket has no open role.
        ("live", ("done",), ["qa", "backend"], "backlog"),
        ("live", ("done", "skipped"), ["backend"], "live"),
        ("live", ("done",), [], "live"),
    ],
)
def test_a_new_set_of_roles_never_closes_and_reopens_when_a_role_is_open(
    stage: str, was: tuple[str, ...], names: list[str], expected: str
) -> None:
    roles = [role(name, status) for name, status in zip(("qa", "backend"), was, strict=False)]
    after = changed(ticket(*roles, stage=stage), roles=names)
    assert (after["stage"], [role["role"] for role in after["roles"]]) == (expected, names)
    assert (after["resolved_at"] is None) == (expected != "live")


def test_a_refused_close_names_a_role_that_it_adds() -> None:
    before = ticket(role(status="done"))
    message = refusal(before, {"roles": ["backend", "qa"], "status": "closed"}, "roles_incomplete").message
    assert "qa" in message
