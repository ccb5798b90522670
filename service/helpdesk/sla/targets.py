"""The targets of a ticket's SLA: when they are due, how they stand, and which events they emit and when. Pure.

A ticket here is its row: its stamps, its due instants, and which events were emitted (tables.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from service.helpdesk.sla import clock as sla
from service.helpdesk.sla.business_hours import Calendar
from service.helpdesk.sla.clock import Pause, Standing

TargetName = Literal["first_response", "resolution"]

# A target of four hours or more is due soon an hour of counted time before it is due; a shorter one once three quarters
# of its time have counted.
_SOON_MINUTES = 60
_SOON_FRACTION = 4
_FIRST_INSTANT = datetime.min.replace(tzinfo=UTC)
# Stands in `sla_emitted` while a `due_at` holds that was over when a caller gave it: nothing is emitted about it.
_OVER_WHEN_GIVEN = "resolution.over"


class Policy(NamedTuple):
    """The targets of a policy, in minutes; None where it has no such target."""

    first_response_minutes: int | None
    resolution_minutes: int
    business_hours_only: bool


@dataclass(frozen=True)
class Terms:
    """What a ticket's SLA depends on beside the ticket itself; `pauses` are those that have ended."""

    now: datetime
    policy: Policy | None
    calendar: Calendar
    pauses: Sequence[Pause]

    @property
    def clock(self) -> Calendar | None:
        """The calendar that the policy counts by; None: every minute counts."""
        return self.calendar if self.policy is not None and self.policy.business_hours_only else None

    def due(self, ticket: Mapping[str, Any], minutes: int | None) -> datetime | None:
        """When this many minutes have counted since the ticket was created, as if an open pause were none."""
        return None if minutes is None else sla.due_at(ticket["created_at"], minutes, self.pauses, self.clock)


class SlaEvent(NamedTuple):
    """One event of a ticket's SLA: its target, what happens to it and at which instant, and when the target is due."""

    target: TargetName
    kind: Literal["due_soon", "breached"]
    at: datetime
    due_at: datetime

    @property
    def name(self) -> str:
        """What `sla_emitted` of the ticket holds once it was emitted."""
        return f"{self.target}.{self.kind}"


class Schedule(NamedTuple):
    """The events of a ticket: what is in `sla_emitted` and still holds, and those to emit, earliest first."""

    emitted: list[str]
    upcoming: list[SlaEvent]


class Target(NamedTuple):
    """One target of a ticket; `minutes` is None where a caller gave `due_at`: then no clock leads to it."""

    name: TargetName
    minutes: int | None
    due_at: datetime | None
    met_at: datetime | None


def due_instants(ticket: Mapping[str, Any], terms: Terms, *, new_policy: bool) -> dict[str, datetime | None]:
    """When the targets of a ticket are due; without a resolution whose `due_at` a caller gave.

    Unless the ticket has a `new_policy`, also without a first response that was given: later pauses and hours do not
    move it.
    """
    policy = terms.policy
    instants = {}
    if new_policy or ticket["first_response_at"] is None:
        instants["first_response_due_at"] = terms.due(ticket, policy and policy.first_response_minutes)
    if not ticket["due_at_given"]:
        instants["due_at"] = terms.due(ticket, policy and policy.resolution_minutes)
    return instants


def stopped_at(ticket: Mapping[str, Any]) -> datetime | None:
    """Since when the clocks of a ticket stand still; None while they run."""
    # A process from before migration 0015 sets `paused_at` of pending tickets alone.
    since: datetime | None = ticket["paused_at"] or ticket["resolved_at"]
    return since


def given(emitted: Sequence[str], due_at: datetime | None, now: datetime) -> list[str]:
    """What becomes of `sla_emitted` when a caller gives this `due_at`."""
    held = [name for name in emitted if name != _OVER_WHEN_GIVEN]
    return [*held, _OVER_WHEN_GIVEN] if due_at is not None and due_at < now else held


def schedule(ticket: Mapping[str, Any], terms: Terms) -> Schedule:
    """Which events of a ticket were emitted and which are to come; none is emitted twice while it holds."""
    emitted, upcoming = list[str](), list[SlaEvent]()
    for target in _targets(ticket, terms):
        is_over = target.minutes is None and _OVER_WHEN_GIVEN in ticket["sla_emitted"]
        emitted += [_OVER_WHEN_GIVEN] if is_over else []
        for event in _events(ticket, terms, target):
            if event.name in ticket["sla_emitted"] and event.at <= terms.now:
                emitted.append(event.name)
            elif not is_over and _is_to_come(event, target, terms.now):
                upcoming.append(event)
    return Schedule(emitted, sorted(upcoming, key=lambda event: event.at))


def _is_to_come(event: SlaEvent, target: Target, now: datetime) -> bool:
    """Whether an event that was not emitted will be: no warning of what is met or past, no breach of what was met."""
    if event.kind == "due_soon":
        return target.met_at is None and now <= event.due_at
    return target.met_at is None or event.at < target.met_at


def standings(ticket: Mapping[str, Any], terms: Terms) -> Mapping[TargetName, tuple[Target, Standing]]:
    """The targets that a ticket has, and how they stand."""
    found: dict[TargetName, tuple[Target, Standing]] = {}
    for target in _targets(ticket, terms):
        # A `due_at` that was given has no business hours.
        clock = None if target.minutes is None else terms.clock
        pauses = _pauses(ticket, terms)
        standing = sla.explain(ticket["created_at"], target.due_at, pauses, clock, met_at=target.met_at, now=terms.now)
        found[target.name] = target, standing
    return found


def _targets(ticket: Mapping[str, Any], terms: Terms) -> Iterator[Target]:
    policy, resolved_at = terms.policy, ticket["resolved_at"]
    if policy is not None and policy.first_response_minutes is not None:
        # A ticket that is resolved no longer waits for a first response.
        stamps = [stamp for stamp in (ticket["first_response_at"], resolved_at) if stamp is not None]
        met_at = min(stamps, default=None)
        yield Target("first_response", policy.first_response_minutes, ticket["first_response_due_at"], met_at)
    if ticket["due_at_given"]:
        if ticket["due_at"] is not None:
            yield Target("resolution", None, ticket["due_at"], resolved_at)
    elif policy is not None:
        yield Target("resolution", policy.resolution_minutes, ticket["due_at"], resolved_at)


def _events(ticket: Mapping[str, Any], terms: Terms, target: Target) -> Iterator[SlaEvent]:
    """The events of a target whose instants are known: when its clock runs, and the ticket exists."""
    due_at = target.due_at
    if due_at is None or due_at < ticket["created_at"]:
        return
    pauses, stopped = _pauses(ticket, terms), stopped_at(ticket)
    if target.minutes is None:
        # The first instants that a datetime can hold have no hour before them.
        soon = due_at - min(timedelta(minutes=_SOON_MINUTES), due_at - _FIRST_INSTANT)
    else:
        lead = min(_SOON_MINUTES, target.minutes // _SOON_FRACTION)
        # The due instant is stored: a policy that has changed since must not put the warning after it.
        soon = min(terms.due(ticket, max(target.minutes - lead, 1)) or due_at, due_at)
    if stopped is None or soon <= stopped:
        yield SlaEvent(target.name, "due_soon", soon, due_at)
    if sla.ran_at(due_at, pauses):
        yield SlaEvent(target.name, "breached", due_at, due_at)


def _pauses(ticket: Mapping[str, Any], terms: Terms) -> list[Pause]:
    stopped = stopped_at(ticket)
    return [*terms.pauses, *([] if stopped is None else [Pause(stopped, None)])]
