"""`client.helpdesk.sla_policies` and `.calendar`, and how a ticket's SLA stands. Every call raises TicketsError."""

# ruff: noqa: A002 - documented names

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Required, TypeAlias, TypedDict, Unpack

from tickets.client.api import PAGE_SIZE, Api, Stream, Unary, Words, stream, unary
from tickets.client.messages import methods, result
from tickets.client.session import TransportT
from tickets.helpdesk.v1 import sla_pb2, sla_service_pb2

Type: TypeAlias = Literal["incident", "service_request", "change", "problem"]
Priority: TypeAlias = Literal["low", "medium", "high", "urgent"]
PolicyStatus: TypeAlias = Literal["active", "inactive"]
Weekday: TypeAlias = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


@result(sla_pb2.SlaPolicy)
@dataclass(frozen=True, slots=True, kw_only=True)
class SlaPolicy:
    """What a tenant promises for tickets of one priority; for all types when `applies_to` is empty."""

    id: str
    tenant_id: str
    name: str
    description: str | None
    applies_to: tuple[Type, ...]
    priority: Priority
    first_response_minutes: int | None
    resolution_minutes: int
    business_hours_only: bool
    status: PolicyStatus
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str


@result(sla_pb2.BusinessHours)
@dataclass(frozen=True, slots=True, kw_only=True)
class BusinessHours:
    """One interval of a weekday, such as from `09:00` to `17:30`; `24:00` is the end of the day."""

    weekday: Weekday
    start: str
    end: str


@result(sla_pb2.Calendar)
@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """When a tenant does business; `holidays` are dates such as `2030-12-25`.

    `updated_at` and `updated_by` are None until somebody sets it.
    """

    tenant_id: str
    time_zone: str
    hours: tuple[BusinessHours, ...]
    holidays: tuple[str, ...]
    updated_at: datetime | None
    updated_by: str | None


@result(sla_pb2.Interval)
@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The time from one instant until before another; `end` is None while it lasts."""

    start: datetime
    end: datetime | None


@result(sla_pb2.SlaTarget)
@dataclass(frozen=True, slots=True, kw_only=True)
class SlaTarget:
    """How one target stands, as of when it was met, or now; protos/tickets/helpdesk/v1/sla.proto."""

    target_minutes: int | None
    due_at: datetime | None
    met_at: datetime | None
    is_breached: bool
    breached_at: datetime | None
    elapsed_seconds: int
    remaining_seconds: int | None
    counted: tuple[Interval, ...]
    paused: tuple[Interval, ...]


@result(sla_pb2.TicketSla)
@dataclass(frozen=True, slots=True, kw_only=True)
class TicketSla:
    """How a ticket's SLA stands; a target is None when there is none, `time_zone` when every minute counts."""

    ticket_id: str
    policy: SlaPolicy | None
    time_zone: str | None
    is_paused: bool
    as_of: datetime
    first_response: SlaTarget | None
    resolution: SlaTarget | None


class _PolicyMembers(TypedDict, total=False):
    description: str | None
    first_response_minutes: int | None
    business_hours_only: bool
    status: PolicyStatus


class NewSlaPolicy(_PolicyMembers, total=False):
    """What a new SLA policy is made of; what is left out has its documented default."""

    name: Required[str]
    priority: Required[Priority]
    resolution_minutes: Required[int]
    applies_to: Words[Type]


class SlaPolicyChanges(_PolicyMembers, total=False):
    """What changes; what is left out stays, and None clears. `applies_to` replaces the old one whole; None is all."""

    name: str
    priority: Priority
    resolution_minutes: int
    applies_to: Words[Type] | None


class Hours(TypedDict):
    """BusinessHours, to be written down."""

    weekday: Weekday
    start: str
    end: str


class CalendarChanges(TypedDict, total=False):
    """What changes; what is left out stays, lists replace the old ones whole, and None clears them.

    `hours` that were read may be written again. Without any, no time counts.
    """

    time_zone: str
    hours: Sequence[BusinessHours | Hours] | None
    holidays: Sequence[str] | None


_METHODS = methods(sla_service_pb2)


class SlaPolicies(Api[TransportT]):
    """The tenant's SLA policies, for agents."""

    METHODS = _METHODS

    @stream
    def list(
        self, *, status: PolicyStatus | None = None, page_size: int = PAGE_SIZE, timeout: float | None = None
    ) -> Stream[SlaPolicy]:
        """The policies, all or those with a status, newest first; `timeout` is that of each page."""
        return self._list(SlaPolicy, "ListSlaPolicies", {"status": status}, page_size, timeout, field="sla_policies")

    @unary
    def get(self, id: str, *, timeout: float | None = None) -> Unary[SlaPolicy]:
        """One policy. Raises NotFoundError."""
        return self._call(SlaPolicy, "GetSlaPolicy", {"id": id}, timeout, field="sla_policy")

    @unary
    def create(
        self, *, idempotency_key: str | None = None, timeout: float | None = None, **policy: Unpack[NewSlaPolicy]
    ) -> Unary[SlaPolicy]:
        """Create a policy. Raises ValidationError, ConflictError (`already_exists`)."""
        return self._call(SlaPolicy, "CreateSlaPolicy", policy, timeout, key=idempotency_key, field="sla_policy")

    @unary
    def update(
        self,
        id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **changes: Unpack[SlaPolicyChanges],
    ) -> Unary[SlaPolicy]:
        """Change some members of a policy; the clocks of its unresolved tickets follow, mostly within seconds.

        Raises NotFoundError, ValidationError, ConflictError (`already_exists`).
        """
        members, key = {"id": id}, idempotency_key
        return self._call(SlaPolicy, "UpdateSlaPolicy", members, timeout, changes=changes, key=key, field="sla_policy")


class TenantCalendar(Api[TransportT]):
    """The tenant's one calendar, for agents."""

    METHODS = _METHODS

    @unary
    def get(self, *, timeout: float | None = None) -> Unary[Calendar]:
        """The calendar; there is one before anybody sets it."""
        return self._call(Calendar, "GetCalendar", {}, timeout, field="calendar")

    @unary
    def update(
        self, *, idempotency_key: str | None = None, timeout: float | None = None, **changes: Unpack[CalendarChanges]
    ) -> Unary[Calendar]:
        """Change some members of the calendar; the clocks that go by it follow, mostly within seconds.

        Raises ValidationError.
        """
        key = idempotency_key
        return self._call(Calendar, "UpdateCalendar", {}, timeout, changes=changes, key=key, field="calendar")
