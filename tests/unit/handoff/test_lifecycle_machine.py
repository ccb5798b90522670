"""contracts/handoff.md, "Life of a ticket": any sequence of changes, compared with a model of the contract."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.handoff_rows import STAGES, STAMPS, STATUSES, THEN, TYPES, differences, role, ticket, to

from service.errors import TicketError
from service.handoff import lifecycle
from service.storage.statement import Row

NAMES = ("backend", "qa", "design")
SAID = ("assignee_user_id", "assignee_note", "blocking_reason")
NOT_ALLOWED = {("pending", "done"), ("done", "skipped"), ("skipped", "done")}


@dataclass
class RoleModel:
    """A role by the rules of the contract."""

    status: str = "pending"
    started_at: datetime | None = None
    completed_at: datetime | None = None
    work_started_note: str | None = None
    agent_origin: str | None = None
    said: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(SAID))

    def take(self, given: Mapping[str, Any], at: datetime, refusals: set[str]) -> str | None:
        """Change; returns the new status, if it differs."""
        was, becomes, note = self.status, given["status"], given.get("work_started_note")
        if (was, becomes) in NOT_ALLOWED:
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
class TicketModel:
    """A ticket by the rules of the contract."""

    roles: dict[str, RoleModel]
    stage: str = "backlog"
    title: str = "Login loops"
    resolved_at: datetime | None = None
    resolution_type: str | None = None
    resolution_note: str | None = None

    def taken(self, given: Mapping[str, Any], at: datetime) -> tuple["TicketModel", set[str]]:
        """The ticket after a change, and the reasons for which the change may be refused."""
        after, refusals, moved = deepcopy(self), set[str](), None
        after.title = given.get("title", self.title)
        if "roles" in given:
            after.roles = {name: after.roles.get(name, RoleModel()) for name in given["roles"]}
        if "role_status" in given:
            part = after.roles.get(given["role_status"]["role"])
            if part is None:
                refusals.add("validation_error")
            else:
                moved = part.take(given["role_status"], at, refusals)
        given = self._without_repeated(given, after.roles)
        after.stage = self._asked(given, refusals) or ""
        if after.stage == "live" and given.get("skip_pending_roles"):
            for part in after.roles.values():
                part.status = "skipped" if part.status == "pending" else part.status
        if after.stage == "live" and after.work_left():
            refusals.add("roles_incomplete")
        after.stage = after.stage or self._led(after, moved)
        after._end(self, given, at, refusals)
        return after, refusals

    def _without_repeated(self, given: Mapping[str, Any], roles: Mapping[str, RoleModel]) -> Mapping[str, Any]:
        """Of a ticket that is sent back whole with other roles: without where it was, and how it was resolved."""
        own = {"stage": self.stage, "status": "closed" if self.stage == "live" else "open"}
        is_whole = all(given.get(name) == value for name, value in own.items())
        if not is_whole or list(roles.items()) == list(self.roles.items()):
            return given
        own |= {name: getattr(self, name) for name in ("resolution_type", "resolution_note")}
        return {name: value for name, value in given.items() if name not in own or value != own[name]}

    def work_left(self) -> bool:
        return any(part.status in ("pending", "in_progress") for part in self.roles.values())

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

    def _led(self, after: "TicketModel", moved: str | None) -> str:
        if self.stage == "live" and after.work_left():
            begun = any(part.status == "in_progress" for part in after.roles.values())
            return "in_progress" if begun else "backlog"
        if moved in ("done", "skipped") and not after.work_left():
            return "live"
        if moved == "in_progress" and self.stage in ("backlog", "up_next"):
            return "in_progress"
        return self.stage

    def _end(self, before: "TicketModel", given: Mapping[str, Any], at: datetime, refusals: set[str]) -> None:
        kind = given.get("resolution_type")
        if before.stage == "live" != self.stage:
            self.resolved_at = self.resolution_type = self.resolution_note = None
        if before.stage != "live" == self.stage:
            self.resolved_at, self.resolution_type = at, kind or "completed"
        if kind and self.stage != "live":
            refusals.add("validation_error")
        if before.stage == self.stage == "live" and "resolution_type" in given:
            if kind is None:
                refusals.add("validation_error")
            self.resolution_type = kind
        self.resolution_note = given.get("resolution_note", self.resolution_note)


def model_of(of: Row) -> TicketModel:
    """The model of a ticket."""
    names = ("stage", "title", "resolved_at", "resolution_type", "resolution_note")
    stamps = ("status", "started_at", "completed_at", "work_started_note", "agent_origin")
    parts = {
        role["role"]: RoleModel(**{name: role[name] for name in stamps}, said={name: role[name] for name in SAID})
        for role in of["roles"]
    }
    return TicketModel(parts, **{name: of[name] for name in names})


notes = st.sampled_from(["Now.", "Then."])
# A note, null, or no such member.
maybe_note = st.fixed_dictionaries({}, optional={"work_started_note": st.none() | notes})
moves = st.builds(lambda stage, note: {"stage": stage, **note}, st.sampled_from(STAGES), maybe_note)
statuses = st.fixed_dictionaries({"status": st.sampled_from(["open", "closed"])})
resolutions = st.fixed_dictionaries(
    {}, optional={"resolution_type": st.none() | st.sampled_from(TYPES), "resolution_note": st.none() | notes}
)
said = st.fixed_dictionaries({}, optional=dict.fromkeys(SAID, st.none() | notes))
# Only work has an agent: see test_lifecycle_roles.py, test_a_pending_role_has_no_agent.
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


class Lifecycle(RuleBasedStateMachine):
    """One ticket with many changes, compared with its model after each."""

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
        expected, refusals = model_of(before).taken(given, self.at)
        if refusals:
            with pytest.raises(TicketError) as caught:
                lifecycle.changed(self.ticket, given, self.at)
            assert caught.value.reason in refusals
            after = self.ticket
        else:
            after = lifecycle.changed(self.ticket, given, self.at)
            assert model_of(after) == expected
            assert [role["role"] for role in after["roles"]] == list(expected.roles)
        assert (self.ticket, given) == (before, change)
        self.check_stamps(before, after)
        self.check_event(before, after, given)
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

    def check_event(self, before: Row, after: Row, given: Mapping[str, Any]) -> None:
        note = given.get("work_started_note")
        expected = differences(before, after)
        if note is not None and expected.get("stage", {}).get("to") == "in_progress":
            expected["work_started_note"] = {"from": None, "to": note}
        assert lifecycle.diff(before, after, note) == expected
        closes = {("open", "closed"): "ticket.closed", ("closed", "open"): "ticket.reopened"}
        assert lifecycle.event_type(before, after) == closes.get((before["status"], after["status"]), "ticket.updated")

    @rule(given=moves)
    def moves_through_the_stages(self, given: dict[str, Any]) -> None:
        self.take(given)

    @rule(given=statuses, resolution=resolutions)
    def opens_or_closes(self, given: dict[str, Any], resolution: dict[str, Any]) -> None:
        self.take(given | resolution)

    @rule(given=role_changes)
    def a_role_changes(self, given: dict[str, Any]) -> None:
        self.take(given)

    def role_is(self, *statuses: str) -> list[str]:
        return [role["role"] for role in self.ticket["roles"] if role["status"] in statuses]

    # Changes that random ones seldom reach.

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
    def changes_its_set_of_roles(self, names: list[str]) -> None:
        self.take({"roles": names})

    @rule(resolution=resolutions)
    def closes_with_skip_pending_roles(self, resolution: dict[str, Any]) -> None:
        self.take({"stage": "live", "skip_pending_roles": True, **resolution})

    @rule(resolution=resolutions)
    def changes_its_resolution(self, resolution: dict[str, Any]) -> None:
        self.take(resolution)

    @rule(title=st.sampled_from(["Login loops", "Login spins"]))
    def changes_its_title(self, title: str) -> None:
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
    def changes_several_members_at_once(self, parts: list[dict[str, Any]]) -> None:
        self.take({name: value for part in parts for name, value in part.items()})

    @invariant()
    def closed_and_live_and_resolved_go_together(self) -> None:
        one = self.ticket
        signs = (one["status"] == "closed", one["stage"] == "live", one["resolved_at"], one["resolution_type"])
        assert len({bool(sign) for sign in signs}) == 1

    @invariant()
    def a_closed_ticket_has_no_open_roles(self) -> None:
        if self.ticket["status"] == "closed":
            assert {role["status"] for role in self.ticket["roles"]} <= {"done", "skipped"}

    @invariant()
    def the_stamps_of_roles_agree_with_their_statuses(self) -> None:
        for one in self.ticket["roles"]:
            has = {name: one[name] is not None for name in STAMPS}
            assert has["started_at"] == has["work_started_note"]
            assert has["completed_at"] == (one["status"] == "done")
            if one["status"] in ("in_progress", "done"):
                assert has["started_at"]
            if one["status"] == "pending":
                assert not any(has.values())


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=60, stateful_step_count=25)
