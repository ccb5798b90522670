"""contracts/helpdesk.md, SLA: whatever happens, clocks run and events are emitted as in a slow model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.helpdesk import new_tenant_id
from support.sla_clock import ClockDatabase, database_with_clock
from support.sla_model import ALWAYS, END, STOPPED, WEEKS, Policy, Ticket, Week, instant, standing

from service.access.policy import Caller
from service.errors import TicketError
from service.helpdesk import comments, operations
from service.helpdesk.sla import notifier, reclock
from service.helpdesk.sla import operations as sla
from service.local.postgres import EmbeddedPostgres
from service.operation import Call

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
AGENT = Caller("per_agent", frozenset({"helpdesk:read", "helpdesk:write", "helpdesk:agent"}))

statuses = st.sampled_from(["open", "in_progress", "pending", "pending", "resolved", "closed"])
priorities = st.sampled_from(["low", "high", "urgent", "medium"])
types = st.sampled_from(["incident", "change"])
# From now.
dues = st.sampled_from([-90, -1, 1, 30, 61, 200])
changes = st.fixed_dictionaries(
    {},
    optional={
        "status": statuses,
        "priority": priorities,
        "type": types,
        "sla_policy": st.none() | st.integers(0, 3),
        "due_at": st.none() | dues,
    },
)
minutes = st.sampled_from([1, 2, 7, 15, 60, 200, 240, 500])
# Often only one change, which best shows the effect of each.
one_change = st.one_of(
    st.fixed_dictionaries({"priority": priorities}),
    st.fixed_dictionaries({"type": types}),
    st.fixed_dictionaries({"due_at": st.none() | dues}),
)
# Minutes after a change at which the notifier runs; 0: it does not.
then = st.sampled_from([0, 0, 1, 45, 200, 400])
# Mostly the first one.
which = st.sampled_from([0, 0, 0, 1])


class Machine(RuleBasedStateMachine):
    """One tenant with four policies, and up to two tickets of it."""

    def __init__(self, database: ClockDatabase) -> None:
        super().__init__()
        self.database = database

    def run(self, operation: Any, **sections: Any) -> Any:
        call = Call(("tickets.helpdesk.v1", "Test"), f"req-{uuid4()}", None, self.caller)
        return self.database.run(operation(SimpleNamespace(database=self.database.database), call, sections))

    def tick(self, minutes: int = 1) -> None:
        # Later on only in small steps: every due instant must come before the END.
        self.now += minutes if self.now < END // 2 else 1
        self.database.set_clock(self.now)

    @initialize(changes=changes)
    def begin(self, changes: Mapping[str, Any]) -> None:
        self.now, self.week, self.tickets = 0, WEEKS[0], list[Ticket]()
        self.database.forget_tickets()
        self.caller = Caller(AGENT.subject, AGENT.scopes, tenant_id=new_tenant_id())
        self.database.set_clock(0)
        self.policies = [
            self.policy("high", [], 30, 240, business=False),
            self.policy("urgent", ["incident"], 15, 60, business=True),
            self.policy("urgent", ["change", "problem"], 100, 500, business=True),
            self.policy("low", [], None, 90, business=False),
        ]
        self.create_ticket(changes)

    def policy(self, priority: str, types: Sequence[str], first: int | None, minutes: int, *, business: bool) -> Policy:
        members = {"first_response_minutes": first, "resolution_minutes": minutes, "business_hours_only": business}
        body = {"name": "P", "priority": priority, "applies_to": types, **members}
        made = self.run(sla.create_sla_policy, header={}, body=body)
        return Policy(made["id"], priority, types, first, minutes, business)

    def match(self, ticket: Ticket) -> Policy | None:
        for policy in self.policies:
            if (
                policy.is_active
                and policy.priority == ticket.priority
                and ticket.type in (policy.types or [ticket.type])
            ):
                return policy
        return None

    def body_of(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The changes as the body of a request."""
        body = dict(changes)
        if body.get("sla_policy") is not None:
            body["sla_policy"] = self.policies[body["sla_policy"]].id
        if body.get("due_at") is not None:
            body["due_at"] = instant(self.now + body["due_at"])
        return body

    def refuses(self, changes: Mapping[str, Any], was: Policy | None = None) -> bool:
        number = changes.get("sla_policy")
        return number is not None and self.policies[number] is not was and not self.policies[number].is_active

    @precondition(lambda self: len(self.tickets) < 2)
    @rule(changes=changes)
    def create(self, changes: Mapping[str, Any]) -> None:
        self.create_ticket(changes)

    def create_ticket(self, changes: Mapping[str, Any]) -> None:
        self.tick()
        body = {"title": "T", **self.body_of({name: value for name, value in changes.items() if value is not None})}
        if self.refuses(changes):
            with pytest.raises(TicketError, match="active SLA policy"):
                self.run(operations.create_ticket, header={}, body=body)
            return
        made = self.run(operations.create_ticket, header={}, body=body)
        named = {name: changes.get(name, default) for name, default in (("priority", "medium"), ("type", "incident"))}
        ticket = Ticket(made["id"], self.now, changes.get("status", "open"), **named)
        number = changes.get("sla_policy")
        ticket.policy_given = number is not None
        ticket.policy = self.match(ticket) if number is None else self.policies[number]
        if changes.get("due_at") is not None:
            ticket.due, ticket.due_given = self.now + changes["due_at"], True
        ticket.resolved = self.now if ticket.status in ("resolved", "closed") else None
        ticket.paused = self.now if ticket.status in STOPPED else None
        ticket.settle(self.week)
        self.tickets.append(ticket)

    def some(self, which: int) -> Ticket | None:
        there = [ticket for ticket in self.tickets if not ticket.deleted]
        return there[which % len(there)] if there else None

    @rule(which=which, status=statuses, then=then)
    def move(self, which: int, status: str, then: int) -> None:
        self.patch(which, {"status": status})
        self.emit_all(then)

    @rule(which=which, changes=one_change | changes, then=then)
    def change(self, which: int, changes: Mapping[str, Any], then: int) -> None:
        self.patch(which, changes)
        self.emit_all(then)

    def patch(self, which: int, changes: Mapping[str, Any]) -> None:
        ticket = self.some(which)
        if ticket is None:
            return
        self.tick()
        due = None if changes.get("due_at") is None else self.now + changes["due_at"]
        policy = None if changes.get("sla_policy") is None else self.policies[changes["sla_policy"]]
        # Repeating the current value is no change. (Together with others in one PATCH: test_sla.py.)
        same = {
            name
            for name, is_same in (("due_at", due == ticket.due), ("sla_policy", policy is ticket.policy))
            if is_same
        }
        changes = {name: value for name, value in changes.items() if name not in same}
        path, body = {"id": ticket.id}, self.body_of(changes)
        if self.refuses(changes, ticket.policy):
            with pytest.raises(TicketError, match="active SLA policy"):
                self.run(operations.update_ticket, path=path, header={}, body=body)
            return
        self.run(operations.update_ticket, path=path, header={}, body=body)
        self.apply(ticket, changes, policy, due)

    def apply(
        self, ticket: Ticket, changes: Mapping[str, Any], policy: Policy | None = None, due: int | None = None
    ) -> None:
        """Apply a change to the model's ticket."""
        new_policy = any(name in changes and changes[name] != getattr(ticket, name) for name in ("priority", "type"))
        new_policy |= "sla_policy" in changes
        was, becomes = ticket.status, changes.get("status", ticket.status)
        ticket.history.append((self.kind(was, becomes), None))
        ticket.status = becomes
        ticket.priority, ticket.type = changes.get("priority", ticket.priority), changes.get("type", ticket.type)
        had_policy = ticket.policy is not None
        goes_on = self.stamp(ticket, becomes)
        if "sla_policy" in changes:
            ticket.policy, ticket.policy_given = policy, True
        elif new_policy and not ticket.policy_given:
            ticket.policy = self.match(ticket)
        if "due_at" in changes:
            ticket.due, ticket.due_given = due, True
            ticket.due_over = due is not None and due < self.now
        elif new_policy and (ticket.policy is not None or had_policy):
            ticket.due_given = False
        if new_policy or goes_on or "due_at" in changes:
            ticket.settle(self.week, new_policy=new_policy)
            ticket.drop_stale(self.week, self.now)

    def kind(self, was: str, becomes: str) -> str:
        if "closed" in (was, becomes) and was != becomes:
            return "ticket.closed" if becomes == "closed" else "ticket.reopened"
        return "ticket.updated"

    def stamp(self, ticket: Ticket, becomes: str) -> bool:
        """Set its stamps; returns whether a clock goes on, or a target that was met is not any more."""
        was_paused, was_resolved = ticket.paused, ticket.resolved
        if becomes in STOPPED:
            ticket.paused = self.now if was_paused is None else was_paused
        elif was_paused is not None:
            ticket.pauses.append((was_paused, self.now))
            ticket.paused = None
        if becomes not in ("resolved", "closed"):
            ticket.resolved = None
        elif was_resolved is None:
            ticket.resolved = self.now
        return (was_paused is not None and ticket.paused is None) or (
            was_resolved is not None and ticket.resolved is None
        )

    @rule(which=which)
    def close(self, which: int) -> None:
        ticket = self.some(which)
        if ticket is None:
            return
        self.tick()
        self.run(operations.close_ticket, path={"id": ticket.id}, header={}, body={})
        if ticket.status != "closed":
            self.apply(ticket, {"status": "closed"})

    @rule(which=which, is_agent=st.booleans(), internal=st.booleans())
    def comment(self, which: int, is_agent: bool, internal: bool) -> None:
        ticket = self.some(which)
        if ticket is None:
            return
        self.tick()
        # The agent who makes all other changes is the submitter of all tickets.
        caller, body = self.caller, {"body": "Hello", "internal": internal}
        with suppress(TicketError):
            self.caller = Caller("per_other" if is_agent else caller.subject, caller.scopes, tenant_id=caller.tenant_id)
            self.run(comments.create_comment, path={"id": ticket.id}, header={}, body=body)
            ticket.history.append(("ticket.commented", None))
        self.caller = caller
        if is_agent and not internal and ticket.response is None:
            ticket.response = self.now

    @rule(which=which, then=then)
    def mark(self, which: int, then: int) -> None:
        self.tick()
        ticket = self.tickets[which % len(self.tickets)]
        path = {"id": ticket.id}
        if ticket.deleted:
            self.run(operations.restore_ticket, path=path, header={}, body={})
        else:
            self.run(operations.delete_ticket, path=path, header={}, query={})
        ticket.deleted = not ticket.deleted
        ticket.history.append(("ticket.deleted" if ticket.deleted else "ticket.restored", None))
        self.emit_all(then)

    @rule(
        number=st.integers(0, 3),
        members=st.fixed_dictionaries(
            {},
            optional={
                "first_response_minutes": st.none() | minutes,
                "resolution_minutes": minutes,
                "business_hours_only": st.booleans(),
                "status": st.sampled_from(["active", "active", "inactive"]),
            },
        ),
        then=then,
    )
    def change_policy(self, number: int, members: dict[str, Any], then: int) -> None:
        self.tick()
        policy = self.policies[number]
        is_back = policy.first_response_minutes is None and members.get("first_response_minutes") is not None
        if is_back and any(ticket.resolved is not None for ticket in self.tickets):
            # The model looks at all tickets again, the service not at resolved ones for what their policy has become.
            return
        # For the same reason no ticket may be resolved before it is re-clocked.
        then = max(then, is_back)
        self.run(sla.update_sla_policy, path={"id": policy.id}, body=members)
        for name, value in members.items():
            if name == "status":
                policy.is_active = value == "active"
            else:
                setattr(policy, name, value)
        self.emit_all(then)

    @rule(week=st.sampled_from(WEEKS), then=then)
    def change_calendar(self, week: Week, then: int) -> None:
        self.tick()
        hours = [{"weekday": DAYS[day], "start": start, "end": end} for day, start, end in week[1]]
        body = {"time_zone": week[0], "hours": hours, "holidays": list(week[2])}
        self.run(sla.update_calendar, body=body)
        self.week = week
        self.emit_all(then)

    @rule(minutes=st.sampled_from([1, 14, 60, 200, 900]), emitting=st.booleans())
    def wait(self, minutes: int, emitting: bool) -> None:
        if emitting:
            self.emit_all(minutes)
        else:
            self.tick(minutes)

    def emit_all(self, minutes: int) -> None:
        """Run the notifier, and the model, after so many minutes; 0: do not."""
        if minutes == 0:
            return
        self.tick(minutes)
        for ticket in self.tickets:
            if not ticket.deleted:
                due = ticket.due_events(self.week, self.now)
                ticket.emitted |= set(due)
                ticket.history += [(f"sla.{kind}", target) for target, kind in due]
        self.database.run(reclock.reclock(self.database.database))
        self.database.run(notifier.emit_due_events(self.database.database))

    @invariant()
    def matches_the_model(self) -> None:
        for ticket in self.tickets:
            self.check(ticket)
        found = self.run(operations.list_tickets, query={"overdue": "true"})["tickets"]
        late = {ticket.id for ticket in self.tickets if self.is_overdue(ticket)}
        assert {ticket["id"] for ticket in found} == late

    def is_overdue(self, ticket: Ticket) -> bool:
        """Whether it is in the list of those that are: as long as its resolution is awaited, and late."""
        target = ticket.targets(self.week).get("resolution")
        return not ticket.deleted and ticket.resolved is None and target is not None and target.is_late(self.now)

    def check(self, ticket: Ticket) -> None:
        seen = self.run(operations.get_ticket, path={"id": ticket.id}, query={"include_deleted": "true"})
        members = {
            "status": ticket.status,
            "sla_policy": ticket.policy and ticket.policy.id,
            "created_at": instant(ticket.created),
            "due_at": instant(ticket.due),
            "resolved_at": instant(ticket.resolved),
            "first_response_at": instant(ticket.response),
        }
        assert {name: seen[name] for name in members} == members
        assert self.database.pauses(ticket.id) == [(instant(start), instant(end)) for start, end in ticket.pauses]
        assert self.database.events(ticket.id) == ticket.history
        if ticket.resolved is not None:
            # Whether an earlier warning still holds is decided when it is reopened, if its terms have changed by then.
            soon = {(name, "due_soon") for name in ("first_response", "resolution")}
            emitted = {(name, kind) for name, kind in soon if self.database.was_emitted(ticket.id, f"{name}.{kind}")}
            ticket.emitted = (ticket.emitted - soon) | emitted
        targets = ticket.targets(self.week)
        if not ticket.deleted:
            shown = self.run(sla.get_ticket_sla, path={"id": ticket.id})
            assert (shown["is_paused"], shown["as_of"]) == (ticket.status in STOPPED, instant(self.now))
            assert (shown["time_zone"] is not None) == (ticket.opening(self.week) is not ALWAYS)
            for name in ("first_response", "resolution"):
                expected = standing(ticket, targets[name], self.now) if name in targets else None
                assert shown[name] == expected, name


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres) -> Iterator[ClockDatabase]:
    with database_with_clock(postgres, "sla_machine") as database:
        yield database


def run(database: ClockDatabase, examples: int, steps: int) -> None:
    class Ours(Machine):
        def __init__(self) -> None:
            super().__init__(database)

    profile = settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Ours, settings=profile)


def test_clocks_run_as_in_a_slow_model(database: ClockDatabase) -> None:
    run(database, examples=12, steps=30)


@pytest.mark.long
def test_clocks_run_as_in_a_slow_model_many_times(database: ClockDatabase) -> None:
    run(database, examples=2000, steps=30)
