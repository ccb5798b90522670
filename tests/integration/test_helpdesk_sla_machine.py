"""contracts/helpdesk.md, SLA: whatever happens, clocks run and events are told as a slow model says.

The model counts minute by minute and knows neither sla.py nor targets.py. The database's clock is a hand that the test
moves, from minute to minute: so every stamp is a whole minute, and nothing is told behind the test's back.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg
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

from service import migrations
from service.auth import Caller
from service.database import Database
from service.directory import METADATA
from service.errors import TicketError
from service.helpdesk import levels, operations
from service.local import EmbeddedPostgres
from service.operation import Call
from service.settings import Settings

# A Thursday, so that weekends are near. Instants of the model are minutes since then.
EPOCH = datetime(2026, 3, 5, 8, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
# Further than any due instant here, but one that never comes.
END = 30 * 24 * 60
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
AGENT = Caller("per_agent", frozenset({"helpdesk:read", "helpdesk:write", "helpdesk:agent"}))

# `now()` as the database says it wherever a statement asks: what stands before pg_catalog is found first.
CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.hand (at timestamptz NOT NULL);
INSERT INTO clock.hand VALUES (now());
CREATE FUNCTION clock.now() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT at FROM clock.hand';
ALTER DATABASE {name} SET search_path = clock, pg_catalog, public;
"""


def instant(minute: int | None) -> datetime | None:
    return None if minute is None else EPOCH + minute * MINUTE


# Time zone, hours of weekdays, holidays.
Week = tuple[str, tuple[tuple[int, str, str], ...], tuple[str, ...]]
WEEKS: Sequence[Week] = (
    ("UTC", tuple((day, "09:00", "17:00") for day in range(5)), ()),
    ("UTC", tuple((day, *hours) for day in range(7) for hours in (("08:00", "12:00"), ("11:30", "20:00"))), ()),
    ("UTC", tuple((day, "00:00", "24:00") for day in range(7)), ("2026-03-05", "2026-03-07")),
    ("Asia/Kolkata", ((3, "13:00", "24:00"), (4, "00:00", "06:00"), (5, "10:00", "10:45")), ("2026-03-13",)),
    ("UTC", (), ()),
)


@cache
def opening(week: Week) -> bytes:
    """For every minute whether the calendar is open."""
    zone, hours, holidays = ZoneInfo(week[0]), week[1], week[2]

    def is_open(minute: int) -> bool:
        wall = (EPOCH + minute * MINUTE).astimezone(zone)
        clock = wall.strftime("%H:%M")
        within = any(day == wall.weekday() and start <= clock < end for day, start, end in hours)
        return within and wall.date().isoformat() not in holidays

    return bytes(is_open(minute) for minute in range(END))


ALWAYS = bytes([1]) * END


@dataclass
class Policy:
    """What a policy says now."""

    id: str
    priority: str
    types: Sequence[str]
    first_response_minutes: int | None
    resolution_minutes: int
    business_hours_only: bool
    is_active: bool = True


@dataclass
class Target:
    """One target of a ticket, now."""

    minutes: int | None
    due: int | None
    met: int | None
    # What counts, and the pauses that do not.
    opening: bytes
    pauses: Sequence[tuple[int, int]]
    paused: int | None


@dataclass
class Ticket:
    """What the model knows of a ticket."""

    id: str
    created: int
    status: str
    priority: str
    type: str
    policy: Policy | None = None
    policy_given: bool = False
    due: int | None = None
    due_given: bool = False
    first_due: int | None = None
    response: int | None = None
    resolved: int | None = None
    pauses: list[tuple[int, int]] = field(default_factory=list)
    paused: int | None = None
    deleted: bool = False
    told: set[tuple[str, str]] = field(default_factory=set)
    history: list[tuple[str, str | None]] = field(default_factory=lambda: [("ticket.created", None)])

    def opening(self, week: Week) -> bytes:
        return opening(week) if self.policy is not None and self.policy.business_hours_only else ALWAYS

    def counts(self, minutes: int | None, week: Week) -> int | None:
        """The minute at which so many have counted, with the pauses that are over."""
        if minutes is None:
            return None
        is_open, left = self.opening(week), minutes
        paused = {minute for start, end in self.pauses for minute in range(start, end)}
        for minute in range(self.created, END):
            if is_open[minute] and minute not in paused:
                left -= 1
                if left == 0:
                    return minute + 1
        return None

    def settle(self, week: Week, *, anew: bool = False) -> None:
        """Work out what is due; of a response that was given only when it is matched anew."""
        if anew or self.response is None:
            self.first_due = None if self.policy is None else self.counts(self.policy.first_response_minutes, week)
        if not self.due_given:
            self.due = None if self.policy is None else self.counts(self.policy.resolution_minutes, week)

    def targets(self, week: Week) -> dict[str, Target]:
        targets, policy = {}, self.policy
        ours = (self.opening(week), self.pauses, self.paused)
        if policy is not None and policy.first_response_minutes is not None:
            met = min((stamp for stamp in (self.response, self.resolved) if stamp is not None), default=None)
            targets["first_response"] = Target(policy.first_response_minutes, self.first_due, met, *ours)
        if self.due_given and self.due is not None:
            targets["resolution"] = Target(None, self.due, self.resolved, ALWAYS, (), None)
        elif not self.due_given and policy is not None:
            targets["resolution"] = Target(policy.resolution_minutes, self.due, self.resolved, *ours)
        return targets

    def events(self, week: Week) -> dict[tuple[str, str], int]:
        """The events of its targets with their minutes, as far as these are known."""
        found: dict[tuple[str, str], int] = {}
        for name, target in self.targets(week).items():
            if target.due is None:
                continue
            if target.minutes is None:
                soon = target.due - 60
            else:
                early = max(target.minutes - min(60, target.minutes // 4), 1)
                soon = min(self.counts(early, week) or target.due, target.due)
            found |= {
                (name, kind): at
                for kind, at in (("due_soon", soon), ("breached", target.due))
                if target.paused is None or at <= target.paused
            }
        return found

    def forget(self, week: Week, now: int) -> None:
        """What was told and lies ahead again is as good as untold."""
        events = self.events(week)
        self.told = {event for event in self.told if event in events and events[event] <= now}

    def tell(self, week: Week, now: int) -> list[tuple[str, str]]:
        """Which of its events are told, in their order."""
        if self.resolved is None:
            due = self.due
            self.settle(week)
            if self.due != due:
                self.history.append(("ticket.updated", "system"))
            self.forget(week, now)
        events, targets = self.events(week), self.targets(week)
        telling = []
        for name, kind in events:
            met = targets[name].met
            # Nobody is warned of what is done.
            if met is None or (kind == "breached" and events[name, kind] < met):
                telling.append((name, kind))
        telling = [event for event in telling if event not in self.told and events[event] < now]
        return sorted(telling, key=lambda event: events[event])


def standing(ticket: Ticket, target: Target, now: int) -> dict[str, Any]:
    """How a target stands, minute by minute."""
    until = now if target.met is None else target.met
    pauses = [pause for pause in target.pauses if pause[0] < until]
    if target.paused is not None and target.paused < until:
        pauses.append((target.paused, END))
    paused = {minute for start, end in pauses for minute in range(start, min(end, until))}
    minutes = range(ticket.created, until)
    counted = [minute for minute in minutes if target.opening[minute] and minute not in paused]
    still = min((start for start, end in pauses if end > until), default=until)
    due = target.due
    is_breached = due is not None and due < until and due <= still
    ahead = None if due is None else sum(target.opening[minute] for minute in range(max(still, ticket.created), due))
    return {
        "target_minutes": target.minutes,
        "due_at": instant(due),
        "met_at": instant(target.met),
        "is_breached": is_breached,
        "breached_at": instant(due) if is_breached else None,
        "elapsed_seconds": 60 * len(counted),
        "remaining_seconds": None if ahead is None else 60 * ahead,
        "counted": runs(counted),
        "paused": [
            {"start": instant(start), "end": None if end == END and target.met is None else instant(min(end, until))}
            for start, end in pauses
        ],
    }


def runs(minutes: Sequence[int]) -> list[dict[str, datetime | None]]:
    """Spans of minutes that follow each other."""
    there = set(minutes)
    starts = (minute for minute in minutes if minute - 1 not in there)
    ends = (minute + 1 for minute in minutes if minute + 1 not in there)
    return [{"start": instant(start), "end": instant(end)} for start, end in zip(starts, ends, strict=True)]


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

    def __init__(self, desk: "Desk") -> None:
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
        # To say once more what is so is no change. (With others in one PATCH: test_helpdesk_levels.py.)
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
        self.desk.wait(levels.tell(self.desk.database))

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


class Desk:
    """A database whose clock is ours, and a loop to use it from tests that are no coroutines."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.connection = psycopg.connect(url, autocommit=True)
        self.database = Database(Settings(database_url=url, pool_size=1), METADATA)
        self.wait(self.database.open())

    def wait(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.wait(self.database.close())
        self.connection.close()
        self.loop.close()

    def begin(self) -> None:
        """What other examples left is not looked at."""
        self.connection.execute("UPDATE helpdesk_tickets SET sla_look_at = NULL WHERE sla_look_at IS NOT NULL")

    def set_clock(self, minute: int) -> None:
        self.connection.execute("UPDATE clock.hand SET at = %s", [instant(minute)])

    def pauses(self, ticket_id: str) -> list[tuple[Any, ...]]:
        sql = "SELECT started_at, ended_at FROM helpdesk_pauses WHERE ticket_id = %s ORDER BY 1"
        return self.connection.execute(sql, [ticket_id]).fetchall()

    def was_told(self, ticket_id: str, event: str) -> bool:
        sql = "SELECT 1 FROM helpdesk_tickets WHERE id = %s AND %s = ANY(sla_told)"
        return self.connection.execute(sql, [ticket_id, event]).fetchone() is not None

    def events(self, ticket_id: str) -> list[tuple[str, str | None]]:
        """Their types, and what the SLA told of: the target; or that it was the SLA. Versions count up without gaps."""
        sql = (
            "SELECT version, type, coalesce(changes->'sla'->'to'->>'target', nullif(actor, 'per_agent')), actor"
            " FROM helpdesk_events WHERE ticket_id = %s ORDER BY id"
        )
        rows = self.connection.execute(sql, [ticket_id]).fetchall()
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        return [(row[1], None if row[2] == "per_other" else row[2]) for row in rows]


@pytest.fixture(scope="module")
def desk(postgres: EmbeddedPostgres) -> Iterator[Desk]:
    with psycopg.connect(postgres.url_for("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE sla_machine")
    url = postgres.url_for("sla_machine")
    migrations.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CLOCK.format(name="sla_machine"))
    desk = Desk(url)
    yield desk
    desk.close()


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
