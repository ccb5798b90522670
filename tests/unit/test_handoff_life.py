"""contracts/handoff.md, "Life of a ticket": what changes and deployment reports make of it, and what events tell."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from typing import Any, get_args
from uuid import uuid4

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.errors import TicketError
from service.handoff import life
from service.handoff.commands import Outcome, ResolutionType, RoleStatus, Stage
from service.statement import Row

STAGES: Sequence[str] = get_args(Stage)
OPEN_STAGES = [stage for stage in STAGES if stage != "live"]
STATUSES: Sequence[str] = get_args(RoleStatus)
TYPES: Sequence[str] = get_args(ResolutionType)
OUTCOMES: Sequence[str] = get_args(Outcome)

THEN = datetime(2026, 2, 20, 14, 30, tzinfo=UTC)
NOW = THEN + timedelta(hours=1)
NO_RESOLUTION = {"resolved_at": None, "resolution_type": None, "resolution_note": None}


def role(name: str = "backend", status: str = "pending", *, begun: bool = False, **more: Any) -> dict[str, Any]:
    """A role as it is in this status; `begun`: a skipped one that was in progress before."""
    begun = begun or status in ("in_progress", "done")
    return {
        "id": str(uuid4()),
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
    """A ticket as it is in this stage."""
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
    """The change that takes a role there, with a note where it starts."""
    note = {"work_started_note": "Mine."} if status == "in_progress" else {}
    return {"role_status": {"role": name, "status": status, **note, **more}}


def changed(before: Row, **given: Any) -> Row:
    return life.changed(before, given, NOW)


def resolution(of: Row) -> dict[str, Any]:
    return {name: of[name] for name in NO_RESOLUTION}


def refusal(before: Row, given: Mapping[str, Any], reason: str, path: str | None = None) -> TicketError:
    """The failure of a change; checks its reason, and the member that it names."""
    was = deepcopy(before)
    with pytest.raises(TicketError) as caught:
        life.changed(before, given, NOW)
    assert before == was
    assert caught.value.reason == reason
    if path is not None:
        assert [issue.path for issue in caught.value.issues] == [path]
    return caught.value


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
def test_a_stage_and_a_status_that_do_not_go_together_are_refused(was: str, stage: str, status: str) -> None:
    refusal(ticket(stage=was), {"stage": stage, "status": status}, "validation_error", "status")


@pytest.mark.parametrize("was", STAGES)
@pytest.mark.parametrize("note", [{}, {"work_started_note": None}])
def test_moving_to_in_progress_needs_a_note(was: str, note: dict[str, None]) -> None:
    before, move = ticket(stage=was), {"stage": "in_progress", **note}
    if was == "in_progress":
        assert life.changed(before, move, NOW) == before
    else:
        refusal(before, move, "validation_error", "work_started_note")
        assert life.changed(before, move | {"work_started_note": "Now."}, NOW)["stage"] == "in_progress"


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
def test_closing_stamps_and_takes_a_resolution(
    closing: dict[str, str], given: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    after = changed(ticket(role(status="skipped"), stage="validation"), **closing, **given)
    assert (after["stage"], after["status"], after["resolved_at"]) == ("live", "closed", NOW)
    assert (after["resolution_type"], after["resolution_note"]) == expected


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("closing", [{"stage": "live"}, {"status": "closed"}])
@pytest.mark.parametrize("unfinished", ["pending", "in_progress"])
def test_closing_names_every_role_that_is_neither_done_nor_skipped(
    stage: str, closing: dict[str, str], unfinished: str
) -> None:
    roles = [role("qa", unfinished), role("backend", "done"), role("design", "skipped"), role("other", "pending")]
    words = refusal(ticket(*roles, stage=stage), closing, "roles_incomplete").message
    assert "qa, other" in words
    assert "backend" not in words
    assert "design" not in words


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
def test_a_closed_ticket_keeps_its_resolution_but_for_what_is_given(
    given: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    after = changed(ticket(stage="live"), **given)
    assert (after["resolution_type"], after["resolution_note"]) == expected
    assert after["resolved_at"] == THEN


@pytest.mark.parametrize("name", ["resolution_note", "resolution_type"])
@pytest.mark.parametrize("given", [{}, {"stage": "up_next"}, {"status": "open"}, to("skipped", "qa")])
def test_an_open_ticket_has_no_resolution(name: str, given: dict[str, Any]) -> None:
    before = ticket(role(), role("qa"))
    refusal(before, {**given, name: "duplicate"}, "validation_error", name)
    assert changed(before, **given, **{name: None})[name] is None


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("pending", "done"), ("skipped", "done")),
        (("pending", "skipped", "pending"), ("skipped", "skipped", "skipped")),
        (("done",), ("done",)),
        (("pending", "in_progress"), None),
    ],
)
def test_closing_skips_the_roles_that_have_not_begun_when_asked_to(
    statuses: tuple[str, ...], expected: tuple[str, ...] | None
) -> None:
    before = ticket(*(role(name, status) for name, status in zip(("qa", "backend", "test"), statuses, strict=False)))
    closing = {"stage": "live", "skip_pending_roles": True}
    if expected is None:
        refusal(before, closing, "roles_incomplete")
    else:
        after = life.changed(before, closing, NOW)
        assert after["status"] == "closed"
        assert tuple(role["status"] for role in after["roles"]) == expected


def test_no_role_is_skipped_by_a_move_that_does_not_close() -> None:
    after = changed(ticket(role()), stage="up_next", skip_pending_roles=True)
    assert after["roles"][0]["status"] == "pending"


# Roles

STAMPS = ("started_at", "completed_at", "work_started_note", "agent_origin")
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


# What changes nothing


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
def test_what_changes_nothing_stamps_nothing(stage: str, given: dict[str, Any]) -> None:
    before = ticket(role(status="done"), role("qa", "skipped"), stage=stage, updated_at=THEN)
    assert changed(before, **given) == before
    assert changed(before, **given, stage=stage) == before
    assert changed(before, **given, status=before["status"]) == before


@pytest.mark.parametrize("stage", ["backlog", "live"])
@pytest.mark.parametrize("name", life.PLAIN)
def test_what_is_given_is_changed_and_stamped(stage: str, name: str) -> None:
    before = ticket(role(status="done"), stage=stage)
    assert changed(before, **{name: "x"}) == before | {name: "x", "updated_at": NOW}


# Any sequence of changes

NAMES = ("backend", "qa", "design")
SAID = ("assignee_user_id", "assignee_note", "blocking_reason")
NO_WAY = {("pending", "done"), ("done", "skipped"), ("skipped", "done")}
# Not told: instants, and who is who.
UNTOLD = {"id", "handoff_request_id", "role", "created_at", "updated_at", "started_at", "completed_at", "resolved_at"}


@dataclass
class Part:
    """A role, as the contract has it live."""

    status: str = "pending"
    started_at: datetime | None = None
    completed_at: datetime | None = None
    work_started_note: str | None = None
    agent_origin: str | None = None
    said: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(SAID))

    def take(self, given: Mapping[str, Any], at: datetime, refusals: set[str]) -> str | None:
        """Change; returns what it became, if it moved."""
        was, becomes, note = self.status, given["status"], given.get("work_started_note")
        if (was, becomes) in NO_WAY:
            refusals.add("invalid_transition")
        if becomes == "in_progress":
            if not (note or self.started_at):
                refusals.add("validation_error")
            self.started_at = self.started_at or at
            self.work_started_note = note or self.work_started_note
            self.agent_origin = given.get("agent_origin", self.agent_origin)
        if becomes == "pending":
            self.started_at = self.work_started_note = self.agent_origin = None
        if becomes in ("pending", "in_progress"):
            self.completed_at = None
        if becomes == "done" != was:
            self.completed_at = at
        self.said |= {name: given[name] for name in SAID if name in given}
        self.status = becomes
        return becomes if becomes != was else None


@dataclass
class Board:
    """A ticket, as the contract has it live."""

    parts: dict[str, Part]
    stage: str = "backlog"
    title: str = "Login loops"
    resolved_at: datetime | None = None
    resolution_type: str | None = None
    resolution_note: str | None = None

    def taken(self, given: Mapping[str, Any], at: datetime) -> tuple["Board", set[str]]:
        """What a change makes of it, and for what it may be refused."""
        after, refusals, moved = deepcopy(self), set[str](), None
        after.title = given.get("title", self.title)
        if "roles" in given:
            after.parts = {name: after.parts.get(name, Part()) for name in given["roles"]}
        if "role_status" in given:
            part = after.parts.get(given["role_status"]["role"])
            if part is None:
                refusals.add("validation_error")
            else:
                moved = part.take(given["role_status"], at, refusals)
        after.stage = self._asked(given, refusals) or ""
        if after.stage == "live" and given.get("skip_pending_roles"):
            for part in after.parts.values():
                part.status = "skipped" if part.status == "pending" else part.status
        if after.stage == "live" and after.work_left():
            refusals.add("roles_incomplete")
        after.stage = after.stage or self._led(after, moved)
        after._end(self, given, at, refusals)
        return after, refusals

    def work_left(self) -> bool:
        return any(part.status in ("pending", "in_progress") for part in self.parts.values())

    def _asked(self, given: Mapping[str, Any], refusals: set[str]) -> str | None:
        stage, status = given.get("stage"), given.get("status")
        if stage and status and (stage == "live") is not (status == "closed"):
            refusals.add("validation_error")
        if stage is None and status == "closed":
            stage = "live"
        if stage is None and status == "open" and self.stage == "live":
            stage = "backlog"
        if stage == "in_progress" and self.stage != "in_progress" and not given.get("work_started_note"):
            refusals.add("validation_error")
        return stage

    def _led(self, after: "Board", moved: str | None) -> str:
        if self.stage == "live" and after.work_left():
            begun = any(part.status == "in_progress" for part in after.parts.values())
            return "in_progress" if begun else "backlog"
        if moved in ("done", "skipped") and not after.work_left():
            return "live"
        if moved == "in_progress" and self.stage in ("backlog", "up_next"):
            return "in_progress"
        return self.stage

    def _end(self, before: "Board", given: Mapping[str, Any], at: datetime, refusals: set[str]) -> None:
        if self.stage != "live":
            if given.get("resolution_type") or given.get("resolution_note"):
                refusals.add("validation_error")
            self.resolved_at = self.resolution_type = self.resolution_note = None
            return
        if before.stage != "live":
            self.resolved_at, self.resolution_type, self.resolution_note = at, "completed", None
        self.resolution_type = given.get("resolution_type", self.resolution_type)
        self.resolution_note = given.get("resolution_note", self.resolution_note)


def board(of: Row) -> Board:
    """The same, read off a ticket."""
    names = ("stage", "title", "resolved_at", "resolution_type", "resolution_note")
    stamps = ("status", "started_at", "completed_at", "work_started_note", "agent_origin")
    parts = {
        role["role"]: Part(**{name: role[name] for name in stamps}, said={name: role[name] for name in SAID})
        for role in of["roles"]
    }
    return Board(parts, **{name: of[name] for name in names})


def differences(before: Row, after: Row) -> dict[str, Any]:
    """What differs, member by member, with the members of the roles that were and are there."""
    flat: list[dict[str, Any]] = []
    for one in (before, after):
        members = {name: value for name, value in one.items() if name not in UNTOLD}
        members["roles"] = [role["role"] for role in one["roles"]]
        members |= {
            f"roles.{role['role']}.{name}": value
            for role in one["roles"]
            for name, value in role.items()
            if name not in UNTOLD
        }
        flat.append(members)
    was, now = flat
    # A role that comes was as if it had been there and nothing had been done.
    for name in now.keys() - was.keys():
        was[name] = "pending" if name.endswith(".status") else None
    return {name: {"from": was[name], "to": now[name]} for name in now if name in was and was[name] != now[name]}


notes = st.sampled_from(["Now.", "Then."])
# Given, given as null, not given.
maybe_note = st.fixed_dictionaries({}, optional={"work_started_note": st.none() | notes})
moves = st.builds(lambda stage, note: {"stage": stage, **note}, st.sampled_from(STAGES), maybe_note)
statuses = st.fixed_dictionaries({"status": st.sampled_from(["open", "closed"])})
resolutions = st.fixed_dictionaries(
    {}, optional={"resolution_type": st.sampled_from(TYPES), "resolution_note": st.none() | notes}
)
said = st.fixed_dictionaries({}, optional=dict.fromkeys(SAID, st.none() | notes))
# An agent comes with work alone: see test_a_role_that_is_pending_has_no_agent.
agents = st.fixed_dictionaries({}, optional={"agent_origin": st.sampled_from([None, "agent-7", "agent-8"])})
nth = st.integers(0, 5)
role_names = st.sampled_from(NAMES)
role_sets = st.lists(role_names, unique=True)
some_roles = st.lists(role_names, unique=True, min_size=1)
begins = st.builds(
    lambda name, *more: {"role": name, "status": "in_progress", **more[0], **more[1], **more[2]},
    role_names,
    st.fixed_dictionaries({"work_started_note": notes}) | maybe_note,
    agents,
    said,
)
ends = st.builds(
    lambda name, status, more: {"role": name, "status": status, **more},
    role_names,
    st.sampled_from(["done", "skipped", "pending"]),
    said,
)
role_changes = st.fixed_dictionaries({"role_status": begins | ends})


class Life(RuleBasedStateMachine):
    """One ticket, changed again and again, beside what the contract makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.at = THEN
        self.ticket = ticket()

    @initialize(names=some_roles)
    def is_filed(self, names: list[str]) -> None:
        self.ticket = ticket(*map(role, names))

    def take(self, given: dict[str, Any]) -> None:
        before, change = deepcopy(self.ticket), deepcopy(given)
        self.at += timedelta(seconds=1)
        expected, refusals = board(before).taken(given, self.at)
        if refusals:
            with pytest.raises(TicketError) as caught:
                life.changed(self.ticket, given, self.at)
            assert caught.value.reason in refusals
            after = self.ticket
        else:
            after = life.changed(self.ticket, given, self.at)
            assert board(after) == expected
            assert [role["role"] for role in after["roles"]] == list(expected.parts)
        assert (self.ticket, given) == (before, change)
        self.check_stamps(before, after)
        self.check_told(before, after, given)
        self.ticket = after

    def check_stamps(self, before: Row, after: Row) -> None:
        was = {role["role"]: role for role in before["roles"]}
        for new in after["roles"]:
            old = was.get(new["role"])
            if old is None:
                assert new["created_at"] == new["updated_at"] == self.at
            else:
                same = {**new, "updated_at": old["updated_at"]} == old
                assert new["updated_at"] == (old["updated_at"] if same else self.at)
                assert (new["id"], new["created_at"]) == (old["id"], old["created_at"])
        untouched = {**after, "updated_at": before["updated_at"]} == before
        assert after["updated_at"] == (before["updated_at"] if untouched else self.at)

    def check_told(self, before: Row, after: Row, given: Mapping[str, Any]) -> None:
        note = given.get("work_started_note")
        expected = differences(before, after)
        if note is not None and expected.get("stage", {}).get("to") == "in_progress":
            expected["work_started_note"] = {"from": None, "to": note}
        assert life.told(before, after, note) == expected
        closes = {("open", "closed"): "ticket.closed", ("closed", "open"): "ticket.reopened"}
        assert life.kind(before, after) == closes.get((before["status"], after["status"]), "ticket.updated")

    @rule(given=moves)
    def goes_over_the_board(self, given: dict[str, Any]) -> None:
        self.take(given)

    @rule(given=statuses, resolution=resolutions)
    def opens_or_closes(self, given: dict[str, Any], resolution: dict[str, Any]) -> None:
        self.take(given | resolution)

    @rule(given=role_changes)
    def a_role_changes(self, given: dict[str, Any]) -> None:
        self.take(given)

    def role_is(self, *statuses: str) -> list[str]:
        return [role["role"] for role in self.ticket["roles"] if role["status"] in statuses]

    # What a change of any role by chance seldom comes to.

    @precondition(lambda self: self.role_is("pending", "done", "skipped"))
    @rule(nth=nth, note=notes, more=agents | st.just({"agent_origin": "agent-9"}))
    def a_role_begins(self, nth: int, note: str, more: dict[str, Any]) -> None:
        idle = self.role_is("pending", "done", "skipped")
        self.take(to("in_progress", idle[nth % len(idle)], work_started_note=note, **more))

    @precondition(lambda self: self.role_is("in_progress"))
    @rule(nth=nth, becomes=st.sampled_from(STATUSES), more=said)
    def a_role_goes_on(self, nth: int, becomes: str, more: dict[str, Any]) -> None:
        begun = self.role_is("in_progress")
        self.take({"role_status": {"role": begun[nth % len(begun)], "status": becomes, **more}})

    @precondition(lambda self: self.role_is("done", "skipped"))
    @rule(nth=nth, becomes=st.sampled_from(STATUSES), more=maybe_note)
    def a_role_goes_back(self, nth: int, becomes: str, more: dict[str, Any]) -> None:
        ended = self.role_is("done", "skipped")
        self.take({"role_status": {"role": ended[nth % len(ended)], "status": becomes, **more}})

    @rule(names=some_roles)
    def has_other_roles(self, names: list[str]) -> None:
        self.take({"roles": names})

    @rule(resolution=resolutions)
    def closes_without_those_that_have_not_begun(self, resolution: dict[str, Any]) -> None:
        self.take({"stage": "live", "skip_pending_roles": True, **resolution})

    @rule(resolution=resolutions)
    def is_resolved_otherwise(self, resolution: dict[str, Any]) -> None:
        self.take(resolution)

    @rule(title=st.sampled_from(["Login loops", "Login spins"]))
    def has_another_title(self, title: str) -> None:
        self.take({"title": title})

    @rule(
        parts=st.lists(
            st.one_of(
                moves,
                statuses,
                role_changes,
                resolutions,
                st.fixed_dictionaries({"roles": role_sets}),
            ),
            min_size=2,
            max_size=4,
        )
    )
    def changes_in_several_ways_at_once(self, parts: list[dict[str, Any]]) -> None:
        self.take({name: value for part in parts for name, value in part.items()})

    @invariant()
    def is_closed_and_live_and_resolved_or_nothing_of_it(self) -> None:
        one = self.ticket
        signs = (one["status"] == "closed", one["stage"] == "live", one["resolved_at"], one["resolution_type"])
        assert len({bool(sign) for sign in signs}) == 1
        assert one["status"] == "closed" or one["resolution_note"] is None

    @invariant()
    def has_no_work_left_when_it_is_closed(self) -> None:
        if self.ticket["status"] == "closed":
            assert {role["status"] for role in self.ticket["roles"]} <= {"done", "skipped"}

    @invariant()
    def has_roles_whose_stamps_agree_with_their_status(self) -> None:
        for one in self.ticket["roles"]:
            has = {name: one[name] is not None for name in STAMPS}
            assert has["started_at"] == has["work_started_note"]
            assert has["completed_at"] == (one["status"] == "done")
            if one["status"] in ("in_progress", "done"):
                assert has["started_at"]
            if one["status"] == "pending":
                assert not any(has.values())


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


# What an event tells


@pytest.mark.parametrize(
    ("before", "given", "expected"),
    [
        pytest.param(ticket(role()), {"title": "Login loops"}, {}, id="nothing"),
        pytest.param(
            ticket(role()),
            {"title": "New", "evidence": {"n": 1}},
            {"title": ("Login loops", "New"), "evidence": (None, {"n": 1})},
            id="texts",
        ),
        pytest.param(
            ticket(role()),
            {"stage": "in_progress", "work_started_note": "Now."},
            {"stage": ("backlog", "in_progress"), "work_started_note": (None, "Now.")},
            id="a note that the ticket does not keep",
        ),
        pytest.param(
            ticket(role(), stage="in_progress"),
            {"stage": "in_progress", "work_started_note": "Now."},
            {},
            id="a note without a move",
        ),
        pytest.param(
            ticket(role()),
            {"stage": "up_next", "work_started_note": "Now."},
            {"stage": ("backlog", "up_next")},
            id="a note with another move",
        ),
        pytest.param(
            ticket(role()),
            to("in_progress", agent_origin="agent-7", assignee_note="Mine."),
            {
                "stage": ("backlog", "in_progress"),
                "roles.backend.status": ("pending", "in_progress"),
                "roles.backend.work_started_note": (None, "Mine."),
                "roles.backend.agent_origin": (None, "agent-7"),
                "roles.backend.assignee_note": (None, "Mine."),
            },
            id="a role and where it takes the ticket",
        ),
        pytest.param(
            ticket(role(status="in_progress"), stage="validation"),
            to("done") | {"resolution_note": "Fine."},
            {
                "stage": ("validation", "live"),
                "status": ("open", "closed"),
                "resolution_type": (None, "completed"),
                "resolution_note": (None, "Fine."),
                "roles.backend.status": ("in_progress", "done"),
            },
            id="an end",
        ),
        pytest.param(
            ticket(role(), role("qa")),
            {"roles": ["qa", "backend"]},
            {"roles": (["backend", "qa"], ["qa", "backend"])},
            id="another order of roles",
        ),
        pytest.param(
            ticket(role(), role("qa")),
            {"roles": ["design"]},
            {"roles": (["backend", "qa"], ["design"])},
            id="another set of roles",
        ),
    ],
)
def test_an_event_tells_what_differs_and_nothing_else(
    before: Row, given: dict[str, Any], expected: dict[str, tuple[Any, Any]]
) -> None:
    told = life.told(before, changed(before, **given), given.get("work_started_note"))
    assert told == {name: {"from": old, "to": new} for name, (old, new) in expected.items()}


@pytest.mark.parametrize(
    ("was", "becomes", "expected"),
    [
        ("backlog", "validation", "ticket.updated"),
        ("validation", "live", "ticket.closed"),
        ("live", "up_next", "ticket.reopened"),
        ("live", "live", "ticket.updated"),
    ],
)
def test_an_event_says_whether_the_ticket_closed_or_reopened(was: str, becomes: str, expected: str) -> None:
    before = ticket(stage=was)
    assert life.kind(before, changed(before, stage=becomes, title="New")) == expected


def test_a_role_that_comes_and_starts_at_once_is_told_to_start() -> None:
    before = ticket(role())
    told = life.told(before, changed(before, roles=["backend", "qa"], **to("in_progress", "qa")))
    assert told["roles"] == {"from": ["backend"], "to": ["backend", "qa"]}
    assert told["roles.qa.status"]["to"] == "in_progress"
    assert told["roles.qa.work_started_note"]["to"] == "Mine."


def test_a_ticket_that_was_read_without_its_texts_tells_the_rest() -> None:
    short = {name: value for name, value in ticket().items() if name not in life.PLAIN}
    told = life.told(short, changed(short, stage="up_next"))
    assert told == {"stage": {"from": "backlog", "to": "up_next"}}


# Shipping


def instant(hour: int | None) -> datetime | None:
    return None if hour is None else THEN + timedelta(hours=hour)


@pytest.mark.parametrize(
    ("was", "outcome", "hour", "expected"),
    [
        # `deployed_at` and `deploy_failed_at` before, the report, and both after.
        ((None, None), "merged", 1, (None, None)),
        ((None, None), "deployed", 1, (1, None)),
        ((None, None), "failed", 1, (None, 1)),
        ((1, None), "merged", 2, (1, None)),
        ((None, 1), "merged", 2, (None, 1)),
        # A later success clears the failure; a later failure does not undo the success.
        ((None, 1), "deployed", 2, (2, None)),
        ((1, 2), "deployed", 3, (3, None)),
        ((1, None), "failed", 2, (1, 2)),
        ((1, None), "deployed", 2, (2, None)),
        ((None, 1), "failed", 2, (None, 2)),
        # Reports that come late.
        ((None, 2), "deployed", 1, (1, 2)),
        ((2, None), "failed", 1, (2, None)),
        ((2, None), "deployed", 1, (2, None)),
        ((None, 2), "failed", 1, (None, 2)),
        ((1, 3), "deployed", 2, (2, 3)),
        ((1, 3), "failed", 2, (1, 3)),
    ],
)
def test_a_report_stamps_what_happened_last(
    was: tuple[int | None, int | None], outcome: str, hour: int, expected: tuple[int | None, int | None]
) -> None:
    before = ticket(stage="live", merge_sha="a", deployed_at=instant(was[0]), deploy_failed_at=instant(was[1]))
    kept, at = deepcopy(before), THEN + timedelta(hours=9)
    after = life.deployed(before, "a", outcome, THEN + timedelta(hours=hour), at)
    assert before == kept
    stamps = {"deployed_at": instant(expected[0]), "deploy_failed_at": instant(expected[1])}
    assert after == before | stamps | ({"updated_at": at} if was != expected else {})
    assert life.told(before, after) == differences(before, after)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_report_stamps_its_commit(outcome: str) -> None:
    before = ticket(stage="validation")
    after = life.deployed(before, "9fceb02", outcome, THEN, NOW)
    assert (after["merge_sha"], after["updated_at"]) == ("9fceb02", NOW)
    assert (after["stage"], after["status"]) == ("validation", "open")
    assert life.deployed(after, "9fceb02", outcome, THEN, NOW + timedelta(hours=1)) == after
    assert life.told(before, after)["merge_sha"] == {"from": None, "to": "9fceb02"}


@settings(deadline=None)
@hypothesis.given(outcomes=st.lists(st.sampled_from(OUTCOMES), max_size=5))
def test_reports_leave_the_same_stamps_in_whatever_order_they_come(outcomes: list[str]) -> None:
    reports = list(enumerate(outcomes))
    successes = [hour for hour, outcome in reports if outcome == "deployed"]
    failures = [hour for hour, outcome in reports if outcome == "failed"]
    deployed = max(successes, default=None)
    failed = max((hour for hour in failures if deployed is None or hour > deployed), default=None)
    for order in permutations(reports):
        after = ticket()
        for hour, outcome in order:
            after = life.deployed(after, "a", outcome, THEN + timedelta(hours=hour), NOW)
        assert (after["deployed_at"], after["deploy_failed_at"]) == (instant(deployed), instant(failed))
