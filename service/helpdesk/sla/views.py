"""Row → documented JSON of SLA policies, the calendar, and how a ticket's SLA stands (contracts/helpdesk.md, SLA)."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypedDict, cast

from service import jsontext
from service.helpdesk.commands import PolicyStatus, Priority, Type, Weekday
from service.helpdesk.sla.clock import Span, Standing
from service.helpdesk.sla.targets import Target, TargetName, Terms, stopped_at
from service.storage.statement import Row


class SlaPolicy(TypedDict):
    """An SLA policy."""

    id: str
    tenant_id: str
    name: str
    description: str | None
    applies_to: list[Type]
    priority: Priority
    first_response_minutes: int | None
    resolution_minutes: int
    business_hours_only: bool
    status: PolicyStatus
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str


class SlaPolicyPage(TypedDict):
    """One page of the tenant's SLA policies."""

    sla_policies: list[SlaPolicy]
    next_cursor: str | None


class BusinessHours(TypedDict):
    """One interval of business hours, such as Monday 09:00 to 17:00."""

    weekday: Weekday
    start: str
    end: str


class Calendar(TypedDict):
    """A tenant's calendar; `updated_at` and `updated_by` are null for the default one."""

    tenant_id: str
    time_zone: str
    hours: list[BusinessHours]
    holidays: list[str]
    updated_at: datetime | None
    updated_by: str | None


class Interval(TypedDict):
    """The time from `start` until before `end`; that of an open pause has no end."""

    start: datetime
    end: datetime | None


class SlaTarget(TypedDict):
    """How one target of a ticket stands."""

    target_minutes: int | None
    due_at: datetime | None
    met_at: datetime | None
    is_breached: bool
    breached_at: datetime | None
    elapsed_seconds: int
    remaining_seconds: int | None
    counted: list[Interval]
    paused: list[Interval]


class TicketSla(TypedDict):
    """How a ticket's SLA stands; null for the targets that the ticket does not have."""

    ticket_id: str
    policy: SlaPolicy | None
    time_zone: str | None
    is_paused: bool
    as_of: datetime
    first_response: SlaTarget | None
    resolution: SlaTarget | None


_POLICY_COLUMNS = tuple(SlaPolicy.__annotations__)


def policy(row: Row, prefix: str = "") -> SlaPolicy:
    """The SLA policy of a row, whose columns may have a prefix."""
    return cast(SlaPolicy, {name: row[f"{prefix}{name}"] for name in _POLICY_COLUMNS})


def calendar(row: Row) -> Calendar:
    """The calendar of a row."""
    return {
        "tenant_id": row["tenant_id"],
        "time_zone": row["time_zone"],
        "hours": jsontext.parse(row["hours"].text.encode()),
        "holidays": [day.isoformat() for day in row["holidays"]],
        "updated_at": row["updated_at"],
        "updated_by": row["updated_by"],
    }


def ticket_sla(row: Row, standings: Mapping[TargetName, tuple[Target, Standing]], terms: Terms) -> TicketSla:
    """How a ticket's SLA stands now, given its row with its policy."""

    def target(name: TargetName) -> SlaTarget | None:
        return _target(*standings[name], row["paused_at"]) if name in standings else None

    return {
        "ticket_id": row["id"],
        "policy": None if row["policy_id"] is None else policy(row, "policy_"),
        "time_zone": None if terms.clock is None else terms.clock.time_zone,
        "is_paused": stopped_at(row) is not None,
        "as_of": terms.now,
        "first_response": target("first_response"),
        "resolution": target("resolution"),
    }


def _target(target: Target, standing: Standing, paused_at: datetime | None) -> SlaTarget:
    return {
        "target_minutes": target.minutes,
        "due_at": target.due_at,
        "met_at": target.met_at,
        "is_breached": standing.breached_at is not None,
        "breached_at": standing.breached_at,
        "elapsed_seconds": int(standing.elapsed.total_seconds()),
        "remaining_seconds": None if standing.remaining is None else int(standing.remaining.total_seconds()),
        "counted": _intervals(standing.counted),
        "paused": _intervals(standing.paused, None if target.met_at else paused_at),
    }


def _intervals(spans: Iterable[Span], open_since: datetime | None = None) -> list[Interval]:
    """The intervals, oldest first; that of an open pause has no end."""
    return [
        {"start": start, "end": None if open_since is not None and end > open_since else end} for start, end in spans
    ]
