"""contracts/helpdesk.md, SLA: whatever happens, clocks run and events are told as a slow model says."""

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
from support.sla_clock import Desk, desk_with_a_clock
from support.sla_model import ALWAYS, END, WEEKS, Policy, Ticket, Week, instant, standing

from service.access.policy import Caller
from service.errors import TicketError
from service.helpdesk import operations
from service.helpdesk.sla import notifier
from service.helpdesk.sla import operations as levels
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
# Often one change alone; a single one says most about what it does.
one_change = st.one_of(
    st.fixed_dictionaries({"priority": priorities}),
    st.fixed_dictionaries({"type": types}),
    st.fixed_dictionaries({"due_at": st.none() | dues}),
)
# After a change: when somebody looks at what is to be told; 0: not yet.
then = st.sampled_from([0, 0, 1, 45, 200, 400])
# Mostly the first one.
which = st.sampled_from([0, 0, 0, 1])


class Machine(RuleBasedStateMachine):
    """One tenant with four policies, and up to two tickets of it."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    def run(self, operation: Any, **sections: Any) -> Any:
        call = Call(("tickets.helpdesk.v1", "Test"), f"req-{uuid4()}", None, self.caller)
        return self.desk.wait(operation(SimpleNamespace(database=self.desk.database), call, sections))

    def tick(self, minutes: int = 1) -> None:
        # Late in its life it is hurried no more: what is due must come before the END.
        self.now += minutes if self.now < END // 2 else 1
        self.desk.set_clock(self.now)

    @initialize(changes=changes)
    def begin(self, changes: Mapping[str, Any]) -> None:
        self.now, self.week, self.tickets = 0, WEEKS[0], list[Ticket]()
        self.desk.begin()
        self.caller = Caller(AGENT.subject, AGENT.scopes, tenant_id=f"ten_{uuid4().hex}")
        self.desk.set_clock(0)
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
        made = self.run(levels.create_sla_policy, header={}, body=body)
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

    def written(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """As a body has it."""
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
        body = {"title": "T", **self.written({name: value for name, value in changes.items() if value is not None})}
        if self.refuses(changes):
            with pytest.raises(TicketError, match="not valid"):
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
        ticket.paused = self.now if ticket.status == "pending" else None
        ticket.settle(self.week)
        self.tickets.append(ticket)

    def some(self, which: int) -> Ticket | None:
        there = [ticket for ticket in self.tickets if not ticket.deleted]
        return there[which % len(there)] if there else None

    @rule(which=which, status=statuses, then=then)
    def move(self, which: int, status: str, then: int) -> None:
        self.patch(which, {"status": status})
        self.tell_all(then)

    @rule(which=which, changes=one_change | changes, then=then)
    def change(self, which: int, changes: Mapping[str, Any], then: int) -> None:
        self.patch(which, changes)
        self.tell_all(then)

    def patch(self, which: int, changes: Mapping[str, Any]) -> None:
        ticket = self.some(which)
        if ticket is None:
            return
        self.tick()
        due = None if changes.get("due_at") is None else self.now + changes["due_at"]
        policy = None if changes.get("sla_policy") is None else self.policies[changes["sla_policy"]]
        # To say once more what is so is no change. (With others in one PATCH: integration/helpdesk/test_sla.py.)
        same = {
            name
            for name, is_same in (("due_at", due == ticket.due), ("sla_policy", policy is ticket.policy))
            if is_same
        }
        changes = {name: value for name, value in changes.items() if name not in same}
        path, body = {"id": ticket.id}, self.written(changes)
        if self.refuses(changes, ticket.policy):
            with pytest.raises(TicketError, match="not valid"):
                self.run(operations.update_ticket, path=path, header={}, body=body)
            return
        self.run(operations.update_ticket, path=path, header={}, body=body)
        self.follow(ticket, changes, policy, due)

    def follow(
        self, ticket: Ticket, changes: Mapping[str, Any], policy: Policy | None = None, due: int | None = None
    ) -> None:
        """What a change makes of a ticket."""
        is_anew = any(name in changes and changes[name] != getattr(ticket, name) for name in ("priority", "type"))
        is_anew |= "sla_policy" in changes
        was, becomes = ticket.status, changes.get("status", ticket.status)
        ticket.history.append((self.kind(was, becomes), None))
        ticket.status = becomes
        ticket.priority, ticket.type = changes.get("priority", ticket.priority), changes.get("type", ticket.type)
        had_policy = ticket.policy is not None
        is_resumed, is_resolved_anew = was == "pending" != becomes, self.stamp(ticket, was, becomes)
        if "sla_policy" in changes:
            ticket.policy, ticket.policy_given = policy, True
        elif is_anew and not ticket.policy_given:
            ticket.policy = self.match(ticket)
        if "due_at" in changes:
            ticket.due, ticket.due_given = due, True
        elif is_anew and (ticket.policy is not None or had_policy):
            ticket.due_given = False
        if is_anew or is_resumed or is_resolved_anew or "due_at" in changes:
            ticket.settle(self.week, anew=is_anew)
            ticket.forget(self.week, self.now)

    def kind(self, was: str, becomes: str) -> str:
        if "closed" in (was, becomes) and was != becomes:
            return "ticket.closed" if becomes == "closed" else "ticket.reopened"
        return "ticket.updated"

    def stamp(self, ticket: Ticket, was: str, becomes: str) -> bool:
        """Its stamps; whether it is reopened, or resolved once more."""
        if was == becomes:
            return False
        was_resolved = ticket.resolved
        if ticket.paused is not None:
            ticket.pauses.append((ticket.paused, self.now))
        ticket.paused = self.now if becomes == "pending" else None
        if becomes == "resolved" or (becomes == "closed" and was != "resolved"):
            ticket.resolved = self.now
        if becomes not in ("resolved", "closed"):
            ticket.resolved = None
        return was_resolved is not None and ticket.resolved != was_resolved

    @rule(which=which)
    def close(self, which: int) -> None:
        ticket = self.some(which)
        if ticket is None:
            return
        self.tick()
        self.run(operations.close_ticket, path={"id": ticket.id}, header={}, body={})
        if ticket.status != "closed":
            self.follow(ticket, {"status": "closed"})

    @rule(which=which, is_agent=st.booleans(), internal=st.booleans())
    def comment(self, which: int, is_agent: bool, internal: bool) -> None:
        ticket = self.some(which)
        if ticket is None:
            return
        self.tick()
        # The submitter of all tickets is the agent of all else.
        caller, body = self.caller, {"body": "Hello", "internal": internal}
        with suppress(TicketError):
            self.caller = Caller("per_other" if is_agent else caller.subject, caller.scopes, tenant_id=caller.tenant_id)
            self.run(operations.create_comment, path={"id": ticket.id}, header={}, body=body)
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
        self.tell_all(then)

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
        self.run(levels.update_sla_policy, path={"id": policy.id}, body=members)
        for name, value in members.items():
            if name == "status":
                policy.is_active = value == "active"
            else:
                setattr(policy, name, value)
        self.tell_all(then)

    @rule(week=st.sampled_from(WEEKS), then=then)
    def change_calendar(self, week: Week, then: int) -> None:
        self.tick()
        hours = [{"weekday": DAYS[day], "start": start, "end": end} for day, start, end in week[1]]
        body = {"time_zone": week[0], "hours": hours, "holidays": list(week[2])}
        self.run(levels.update_calendar, body=body)
        self.week = week
        self.tell_all(then)

    @rule(minutes=st.sampled_from([1, 14, 60, 200, 900]), telling=st.booleans())
    def wait(self, minutes: int, telling: bool) -> None:
        if telling:
            self.tell_all(minutes)
        else:
            self.tick(minutes)

    def tell_all(self, minutes: int) -> None:
        """After so many minutes, if any."""
        if minutes == 0:
            return
        self.tick(minutes)
        for ticket in self.tickets:
            if not ticket.deleted:
                told = ticket.tell(self.week, self.now)
                ticket.told |= set(told)
                ticket.history += [(f"sla.{kind}", target) for target, kind in told]
        self.desk.wait(notifier.emit_due_events(self.desk.database))

    @invariant()
    def is_as_the_model_says(self) -> None:
        for ticket in self.tickets:
            self.check(ticket)

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
        assert self.desk.pauses(ticket.id) == [(instant(start), instant(end)) for start, end in ticket.pauses]
        assert self.desk.events(ticket.id) == ticket.history
        if ticket.resolved is not None:
            # Whether a warning before that still holds shows when it is reopened, if its terms are others by then.
            soon = {(name, "due_soon") for name in ("first_response", "resolution")}
            told = {(name, kind) for name, kind in soon if self.desk.was_told(ticket.id, f"{name}.{kind}")}
            ticket.told = (ticket.told - soon) | told
        targets = ticket.targets(self.week)
        if not ticket.deleted:
            shown = self.run(operations.get_ticket_sla, path={"id": ticket.id})
            assert (shown["is_paused"], shown["as_of"]) == (ticket.status == "pending", instant(self.now))
            assert (shown["time_zone"] is not None) == (ticket.opening(self.week) is not ALWAYS)
            for name in ("first_response", "resolution"):
                expected = standing(ticket, targets[name], self.now) if name in targets else None
                assert shown[name] == expected, name


@pytest.fixture(scope="module")
def desk(postgres: EmbeddedPostgres) -> Iterator[Desk]:
    with desk_with_a_clock(postgres, "sla_machine") as desk:
        yield desk


def run(desk: Desk, examples: int, steps: int) -> None:
    class Ours(Machine):
        def __init__(self) -> None:
            super().__init__(desk)

    profile = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Ours, settings=profile)


def test_clocks_run_as_a_slow_model_says(desk: Desk) -> None:
    run(desk, examples=40, steps=30)


@pytest.mark.long
def test_clocks_run_as_a_slow_model_says_many_times(desk: Desk) -> None:
    run(desk, examples=1000, steps=30)
