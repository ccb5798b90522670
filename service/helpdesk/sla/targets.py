"""What an SLA asks of a ticket: when its targets are due, which of its events are to be told and when. Pure.

A ticket here is its row; of it count the stamps, the instants due, and what was told (tables.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from service.helpdesk.sla import clock as sla
from service.helpdesk.sla.clock import Calendar, Pause, Standing

Target = Literal["first_response", "resolution"]

# Of counted time: who has four hours or more is told an hour before, who has less when three quarters of it are over.
_SOON_MINUTES = 60
_SOON_PART = 4
_FIRST_INSTANT = datetime.min.replace(tzinfo=UTC)


class Policy(NamedTuple):
    """What a policy promises; None where it promises nothing."""

    first_response_minutes: int | None
    resolution_minutes: int
    business_hours_only: bool


@dataclass(frozen=True)
class Terms:
    """What decides beside the ticket itself; `pauses` are those that are over."""

    now: datetime
    policy: Policy | None
    calendar: Calendar
    pauses: Sequence[Pause]

    @property
    def clock(self) -> Calendar | None:
        """The calendar that the policy counts by; None: every minute counts."""
        return self.calendar if self.policy is not None and self.policy.business_hours_only else None

    def due(self, ticket: Mapping[str, Any], minutes: int | None) -> datetime | None:
        """When so many minutes have counted since the ticket was created. In an open pause that stands still."""
        return None if minutes is None else sla.due_at(ticket["created_at"], minutes, self.pauses, self.clock)


class Told(NamedTuple):
    """One event of a ticket's SLA: what of which target, the instant it tells of, and when the target is due."""

    target: Target
    kind: Literal["due_soon", "breached"]
    at: datetime
    due_at: datetime

    @property
    def name(self) -> str:
        """What is kept of it once it was told."""
        return f"{self.target}.{self.kind}"


class Outlook(NamedTuple):
    """Which events were told and still hold, by their names, and which are to be told, the first one first."""

    told: list[str]
    ahead: list[Told]


class Promise(NamedTuple):
    """One target of a ticket; `minutes` is None where its instant was given, and no clock leads to it."""

    target: Target
    minutes: int | None
    due_at: datetime | None
    met_at: datetime | None


def dues(ticket: Mapping[str, Any], terms: Terms, *, anew: bool) -> dict[str, datetime | None]:
    """When the targets of a ticket are due; left out is a resolution that is due as it was said.

    Not `anew`, a response that was given is left out too: no pause or hours after it have a say.
    """
    policy = terms.policy
    found = {}
    if anew or ticket["first_response_at"] is None:
        found["first_response_due_at"] = terms.due(ticket, policy and policy.first_response_minutes)
    if not ticket["due_at_given"]:
        found["due_at"] = terms.due(ticket, policy and policy.resolution_minutes)
    return found


def outlook(ticket: Mapping[str, Any], terms: Terms) -> Outlook:
    """What was told of a ticket and what is to be; nothing is told twice while it holds."""
    told, ahead = [], []
    for promise in _promises(ticket, terms):
        for event in _events(ticket, terms, promise):
            if event.name in ticket["sla_emitted"] and event.at <= terms.now:
                told.append(event.name)
            # Nobody is warned of what is done.
            elif promise.met_at is None or (event.kind == "breached" and event.at < promise.met_at):
                ahead.append(event)
    return Outlook(told, sorted(ahead, key=lambda event: event.at))


def standings(ticket: Mapping[str, Any], terms: Terms) -> Mapping[Target, tuple[Promise, Standing]]:
    """The targets that a ticket has, and how they stand."""
    found: dict[Target, tuple[Promise, Standing]] = {}
    for promise in _promises(ticket, terms):
        # Whoever gives an instant means the clock on the wall.
        is_given = promise.minutes is None
        pauses, clock = ([], None) if is_given else (_pauses(ticket, terms), terms.clock)
        standing = sla.explain(
            ticket["created_at"], promise.due_at, pauses, clock, met_at=promise.met_at, now=terms.now
        )
        found[promise.target] = promise, standing
    return found


def _promises(ticket: Mapping[str, Any], terms: Terms) -> Iterator[Promise]:
    policy, resolved_at = terms.policy, ticket["resolved_at"]
    if policy is not None and policy.first_response_minutes is not None:
        stamps = [stamp for stamp in (ticket["first_response_at"], resolved_at) if stamp is not None]
        # Nobody waits for a response to what is resolved.
        met_at = min(stamps, default=None)
        yield Promise("first_response", policy.first_response_minutes, ticket["first_response_due_at"], met_at)
    if ticket["due_at_given"]:
        if ticket["due_at"] is not None:
            yield Promise("resolution", None, ticket["due_at"], resolved_at)
    elif policy is not None:
        yield Promise("resolution", policy.resolution_minutes, ticket["due_at"], resolved_at)


def _events(ticket: Mapping[str, Any], terms: Terms, promise: Promise) -> Iterator[Told]:
    """The events of a target whose instants are known."""
    due_at = promise.due_at
    if due_at is None:
        return
    if promise.minutes is None:
        # The first instants that there are have none before them.
        soon, paused_at = due_at - min(timedelta(minutes=_SOON_MINUTES), due_at - _FIRST_INSTANT), None
    else:
        lead = min(_SOON_MINUTES, promise.minutes // _SOON_PART)
        # The due instant is kept, so that a policy that changed meanwhile cannot put this one behind it.
        soon = min(terms.due(ticket, max(promise.minutes - lead, 1)) or due_at, due_at)
        paused_at = ticket["paused_at"]
    if paused_at is None or soon <= paused_at:
        yield Told(promise.target, "due_soon", soon, due_at)
    if paused_at is None or due_at <= paused_at:
        yield Told(promise.target, "breached", due_at, due_at)


def _pauses(ticket: Mapping[str, Any], terms: Terms) -> list[Pause]:
    paused_at = ticket["paused_at"]
    return [*terms.pauses, *([] if paused_at is None else [Pause(paused_at, None)])]
