"""A slow model of the helpdesk's SLA: it counts minute by minute, and shares no code with service/helpdesk/sla."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

# A Thursday, so that weekends are near. Instants of the model are minutes since then.
EPOCH = datetime(2026, 3, 5, 8, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
# After any due instant here, but for one that never comes.
END = 30 * 24 * 60


def instant(minute: int | None) -> datetime | None:
    return None if minute is None else EPOCH + minute * MINUTE


# In these statuses nobody works on a ticket: its clocks stand still.
STOPPED = ("pending", "resolved", "closed")

# A time zone, hours of weekdays, holidays.
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
    """Whether the calendar is open, for every minute."""
    zone, hours, holidays = ZoneInfo(week[0]), week[1], week[2]

    def is_open(minute: int) -> bool:
        local = (EPOCH + minute * MINUTE).astimezone(zone)
        clock = local.strftime("%H:%M")
        within = any(day == local.weekday() and start <= clock < end for day, start, end in hours)
        return within and local.date().isoformat() not in holidays

    return bytes(is_open(minute) for minute in range(END))


ALWAYS = bytes([1]) * END


@dataclass
class Policy:
    """A policy, now."""

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

    def is_still(self, minute: int) -> bool:
        """Whether the clock stands still before a minute and after it."""
        return any(start < minute < end for start, end in self.all_pauses())

    def all_pauses(self) -> list[tuple[int, int]]:
        return [*self.pauses, *([] if self.paused is None else [(self.paused, END)])]

    def is_late(self, now: int) -> bool:
        """Whether it was met late, or is not met and late by now."""
        until = now if self.met is None else self.met
        return self.due is not None and self.due < until and not self.is_still(self.due)


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
    # Whether it was past when it was given.
    due_over: bool = False
    first_due: int | None = None
    response: int | None = None
    resolved: int | None = None
    pauses: list[tuple[int, int]] = field(default_factory=list)
    paused: int | None = None
    deleted: bool = False
    emitted: set[tuple[str, str]] = field(default_factory=set)
    history: list[tuple[str, str | None]] = field(default_factory=lambda: [("ticket.created", None)])

    def opening(self, week: Week) -> bytes:
        return opening(week) if self.policy is not None and self.policy.business_hours_only else ALWAYS

    def counts(self, minutes: int | None, week: Week) -> int | None:
        """The minute at which so many have counted, with the pauses that have ended."""
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

    def settle(self, week: Week, *, new_policy: bool = False) -> None:
        """Set the due instants; that of a first response that was given only for a new policy."""
        if new_policy or self.response is None:
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
            targets["resolution"] = Target(None, self.due, self.resolved, ALWAYS, self.pauses, self.paused)
        elif not self.due_given and policy is not None:
            targets["resolution"] = Target(policy.resolution_minutes, self.due, self.resolved, *ours)
        return targets

    def events(self, week: Week) -> dict[tuple[str, str], int]:
        """The events of its targets with their minutes, where these are known, and the ticket was there to be late."""
        found: dict[tuple[str, str], int] = {}
        for name, target in self.targets(week).items():
            if target.due is None or target.due < self.created:
                continue
            if target.minutes is None:
                soon = target.due - 60
            else:
                early = max(target.minutes - min(60, target.minutes // 4), 1)
                soon = min(self.counts(early, week) or target.due, target.due)
            if self.paused is None or soon <= self.paused:
                found[name, "due_soon"] = soon
            if not target.is_still(target.due):
                found[name, "breached"] = target.due
        return found

    def drop_stale(self, week: Week, now: int) -> None:
        """An event that was emitted and moved into the future may be emitted again."""
        events = self.events(week)
        self.emitted = {event for event in self.emitted if event in events and events[event] <= now}

    def due_events(self, week: Week, now: int) -> list[tuple[str, str]]:
        """Which of its events the notifier emits now, in order."""
        if self.resolved is None:
            due = self.due
            self.settle(week)
            if self.due != due:
                self.history.append(("ticket.updated", "system"))
            self.drop_stale(week, now)
        events, targets = self.events(week), self.targets(week)
        due_events = []
        for name, kind in events:
            met, due = targets[name].met, targets[name].due or 0
            # Of what was past when a caller gave it nothing is emitted.
            if targets[name].minutes is None and self.due_over:
                continue
            # A target that was met emits no warning, and a breach only where it was met late.
            if (kind == "due_soon" and met is None and now <= due) or (
                kind == "breached" and (met is None or due < met)
            ):
                due_events.append((name, kind))
        due_events = [event for event in due_events if event not in self.emitted and events[event] < now]
        return sorted(due_events, key=lambda event: events[event])


def standing(ticket: Ticket, target: Target, now: int) -> dict[str, Any]:
    """How a target stands, minute by minute."""
    until = now if target.met is None else target.met
    pauses = [pause for pause in target.all_pauses() if pause[0] < until]
    paused = {minute for start, end in pauses for minute in range(start, min(end, until))}
    minutes = range(ticket.created, until)
    counted = [minute for minute in minutes if target.opening[minute] and minute not in paused]
    still = min((start for start, end in pauses if end > until), default=until)
    due, is_breached = target.due, target.is_late(now)
    remaining = (
        None if due is None else sum(target.opening[minute] for minute in range(max(still, ticket.created), due))
    )
    return {
        "target_minutes": target.minutes,
        "due_at": instant(due),
        "met_at": instant(target.met),
        "is_breached": is_breached,
        "breached_at": instant(max(ticket.created, due or 0)) if is_breached else None,
        "elapsed_seconds": 60 * len(counted),
        "remaining_seconds": None if remaining is None else 60 * remaining,
        "counted": runs(counted),
        "paused": [
            {"start": instant(start), "end": None if end == END and target.met is None else instant(min(end, until))}
            for start, end in pauses
        ],
    }


def runs(minutes: Sequence[int]) -> list[dict[str, datetime | None]]:
    """The spans of consecutive minutes."""
    there = set(minutes)
    starts = (minute for minute in minutes if minute - 1 not in there)
    ends = (minute + 1 for minute in minutes if minute + 1 not in there)
    return [{"start": instant(start), "end": instant(end)} for start, end in zip(starts, ends, strict=True)]
