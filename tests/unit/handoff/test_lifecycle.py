"""contracts/handoff.md, "Life of a ticket": stages and statuses, closing, and changes without effect."""

from itertools import product
from typing import Any

import pytest
from support.handoff_rows import (
    NO_RESOLUTION,
    NOW,
    OPEN_STAGES,
    STAGES,
    THEN,
    TYPES,
    changed,
    refusal,
    resolution,
    role,
    ticket,
    to,
)

from service.handoff import lifecycle

# Stage and status


@pytest.mark.parametrize(("was", "becomes"), list(product(STAGES, repeat=2)))
def test_any_move_between_stages_is_allowed_and_the_status_follows(was: str, becomes: str) -> None:
    after = changed(ticket(role(status="done"), stage=was), stage=becomes, work_started_note="Now.")
    assert (after["stage"], after["status"]) == (becomes, "closed" if becomes == "live" else "open")
    assert (after["resolved_at"] is not None) == (becomes == "live")


@pytest.mark.parametrize(
    ("was", "status", "becomes"),
    [
        *((stage, "closed", "live") for stage in STAGES),
        *((stage, "open", stage) for stage in OPEN_STAGES),
        ("live", "open", "backlog"),
    ],
)
def test_a_status_sets_the_stage(was: str, status: str, becomes: str) -> None:
    after = changed(ticket(role(status="done"), stage=was), status=status)
    assert (after["stage"], after["status"]) == (becomes, status)


@pytest.mark.parametrize(
    ("stage", "status"), [("live", "open"), *((stage, "closed") for stage in OPEN_STAGES if stage != "in_progress")]
)
@pytest.mark.parametrize("was", STAGES)
def test_a_stage_and_a_status_that_contradict_each_other_are_refused(was: str, stage: str, status: str) -> None:
    refusal(ticket(stage=was), {"stage": stage, "status": status}, "validation_error", "status")


@pytest.mark.parametrize("was", STAGES)
@pytest.mark.parametrize("note", [{}, {"work_started_note": None}])
def test_moving_to_in_progress_requires_a_note(was: str, note: dict[str, None]) -> None:
    before, move = ticket(stage=was), {"stage": "in_progress", **note}
    if was == "in_progress":
        assert lifecycle.changed(before, move, NOW) == before
    else:
        refusal(before, move, "validation_error", "work_started_note")
        assert lifecycle.changed(before, move | {"work_started_note": "Now."}, NOW)["stage"] == "in_progress"


@pytest.mark.parametrize("reopening", [{"status": "open"}, *({"stage": stage} for stage in OPEN_STAGES)])
def test_leaving_live_clears_the_resolution(reopening: dict[str, str]) -> None:
    after = changed(ticket(role(status="done"), stage="live"), **reopening, work_started_note="Again.")
    assert after["status"] == "open"
    assert resolution(after) == NO_RESOLUTION


# Closing


@pytest.mark.parametrize("closing", [{"stage": "live"}, {"status": "closed"}, {"stage": "live", "status": "closed"}])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("completed", None)),
        ({"resolution_note": "Done."}, ("completed", "Done.")),
        *(({"resolution_type": name}, (name, None)) for name in TYPES),
        ({"resolution_type": "wont_fix", "resolution_note": None}, ("wont_fix", None)),
    ],
)
def test_closing_sets_resolved_at_and_the_resolution(
    closing: dict[str, str], given: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    after = changed(ticket(role(status="skipped"), stage="validation"), **closing, **given)
    assert (after["stage"], after["status"], after["resolved_at"]) == ("live", "closed", NOW)
    assert (after["resolution_type"], after["resolution_note"]) == expected


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("closing", [{"stage": "live"}, {"status": "closed"}])
@pytest.mark.parametrize("unfinished", ["pending", "in_progress"])
def test_a_refused_close_names_every_role_that_is_neither_done_nor_skipped(
    stage: str, closing: dict[str, str], unfinished: str
) -> None:
    roles = [role("qa", unfinished), role("backend", "done"), role("design", "skipped"), role("other", "pending")]
    message = refusal(ticket(*roles, stage=stage), closing, "roles_incomplete").message
    assert "qa, other" in message
    assert "backend" not in message
    assert "design" not in message


def test_a_ticket_without_roles_closes() -> None:
    assert changed(ticket(), status="closed")["status"] == "closed"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("duplicate", "Twice.")),
        ({"status": "closed"}, ("duplicate", "Twice.")),
        ({"stage": "live", "resolution_note": "Thrice."}, ("duplicate", "Thrice.")),
        ({"resolution_note": None}, ("duplicate", None)),
        ({"resolution_type": "cancelled"}, ("cancelled", "Twice.")),
    ],
)
def test_a_closed_ticket_keeps_the_rest_of_its_resolution(
    given: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    after = changed(ticket(stage="live"), **given)
    assert (after["resolution_type"], after["resolution_note"]) == expected
    assert after["resolved_at"] == THEN


@pytest.mark.parametrize("was", ["backlog", "live"])
@pytest.mark.parametrize("given", [{"stage": "up_next"}, {"status": "open"}, to("pending", "qa")])
def test_a_resolution_type_comes_only_with_or_after_closing(was: str, given: dict[str, Any]) -> None:
    before = ticket(role(status="done"), role("qa", "skipped"), stage=was)
    refusal(before, {**given, "resolution_type": "duplicate"}, "validation_error", "resolution_type")
    # Null is what an open ticket has, so that one that was read may be sent back.
    assert changed(before, **given, resolution_type=None)["resolution_type"] is None


def test_a_closed_ticket_keeps_a_resolution_type() -> None:
    refusal(ticket(stage="live"), {"resolution_type": None}, "validation_error", "resolution_type")
    assert changed(ticket(stage="backlog"), status="closed", resolution_type=None)["resolution_type"] == "completed"


@pytest.mark.parametrize("given", [{}, {"stage": "up_next"}, {"status": "open"}, to("skipped", "qa")])
def test_a_resolution_note_may_be_set_at_any_time(given: dict[str, Any]) -> None:
    noted = changed(ticket(role(), role("qa")), **given, resolution_note="Known.")
    assert (noted["resolution_note"], noted["status"]) == ("Known.", "open")
    assert changed(noted, resolution_note=None)["resolution_note"] is None


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "Known."), ({"resolution_note": "Done."}, "Done."), ({"resolution_note": None}, None)]
)
def test_an_earlier_note_stays_when_the_ticket_closes(given: dict[str, Any], expected: str | None) -> None:
    after = changed(ticket(role(status="done"), resolution_note="Known."), status="closed", **given)
    assert (after["resolution_note"], after["resolution_type"]) == (expected, "completed")


def test_a_note_given_with_the_reopening_is_of_the_open_ticket() -> None:
    after = changed(ticket(role(status="done"), stage="live"), status="open", resolution_note="It came back.")
    assert resolution(after) == {**NO_RESOLUTION, "resolution_note": "It came back."}


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("pending", "done"), ("skipped", "done")),
        (("pending", "skipped", "pending"), ("skipped", "skipped", "skipped")),
        (("done",), ("done",)),
        (("pending", "in_progress"), None),
    ],
)
def test_closing_with_skip_pending_roles_skips_them(
    statuses: tuple[str, ...], expected: tuple[str, ...] | None
) -> None:
    before = ticket(*(role(name, status) for name, status in zip(("qa", "backend", "test"), statuses, strict=False)))
    closing = {"stage": "live", "skip_pending_roles": True}
    if expected is None:
        refusal(before, closing, "roles_incomplete")
    else:
        after = lifecycle.changed(before, closing, NOW)
        assert after["status"] == "closed"
        assert tuple(role["status"] for role in after["roles"]) == expected


def test_another_move_with_skip_pending_roles_skips_none() -> None:
    after = changed(ticket(role()), stage="up_next", skip_pending_roles=True)
    assert after["roles"][0]["status"] == "pending"


# Changes without effect


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"title": "Login loops", "priority": "medium", "blocking": False, "evidence": None, "milestone_id": None},
        {"roles": ["backend", "qa"]},
        {"role_status": None},
        {"role_status": {"role": "backend", "status": "done", "blocking_reason": None}},
        {"role_status": {"role": "qa", "status": "skipped", "work_started_note": "Never."}},
        {"work_started_note": "For nothing."},
        {"skip_pending_roles": True},
        {"updated_at": None},
    ],
)
def test_a_change_without_effect_sets_no_stamp(stage: str, given: dict[str, Any]) -> None:
    before = ticket(role(status="done"), role("qa", "skipped"), stage=stage, updated_at=THEN)
    assert changed(before, **given) == before
    assert changed(before, **given, stage=stage) == before
    assert changed(before, **given, status=before["status"]) == before


@pytest.mark.parametrize("stage", ["backlog", "live"])
@pytest.mark.parametrize("name", lifecycle.PLAIN)
def test_a_given_member_changes_with_updated_at(stage: str, name: str) -> None:
    before = ticket(role(status="done"), stage=stage)
    assert changed(before, **{name: "x"}) == before | {name: "x", "updated_at": NOW}
