"""`client.helpdesk`: the tickets, SLA policies and calendar of the caller's tenant. Every call raises TicketsError."""

# ruff: noqa: A002 - documented names

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Required, TypeAlias, TypedDict, TypeVar, Unpack

from tickets.helpdesk.v1 import service_pb2, sla_pb2, ticket_pb2

from service.client.api import PAGE_SIZE, Answer, Answers, Api, fresh, many, one
from service.client.link import W
from service.client.messages import methods, result

Type: TypeAlias = Literal["incident", "service_request", "change", "problem"]
Status: TypeAlias = Literal["open", "in_progress", "pending", "resolved", "closed"]
Priority: TypeAlias = Literal["low", "medium", "high", "urgent"]
SourceType: TypeAlias = Literal["frontend", "backend", "server", "system", "api"]
Sort: TypeAlias = Literal["-created_at", "created_at", "-updated_at", "due_at", "-priority"]
PolicyStatus: TypeAlias = Literal["active", "inactive"]
Weekday: TypeAlias = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Tags: TypeAlias = Sequence[str] | Mapping[str, Any]

T = TypeVar("T")
# A filter: what is wanted, or any of several.
AnyOf: TypeAlias = T | Sequence[T] | None


@result(ticket_pb2.Ticket)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A support ticket raised by an employee or a customer of a tenant; protos/tickets/helpdesk/v1/ticket.proto.

    `etag` goes back with a write that must not overwrite another; it is None in lists.
    """

    id: str
    number: str
    tenant_id: str
    app_id: str | None
    title: str
    description: str | None
    type: Type
    status: Status
    priority: Priority
    category: str | None
    submitted_by_id: str
    assigned_to_id: str | None
    team_id: str | None
    sla_policy: str | None
    first_response_at: datetime | None
    resolved_at: datetime | None
    due_at: datetime | None
    related_asset_id: str | None
    related_vulnerability_id: str | None
    tags: list[str] | dict[str, Any]
    source: str
    source_type: SourceType
    created_at: datetime
    updated_at: datetime
    created_by: str
    updated_by: str
    is_deleted: bool
    deleted_at: datetime | None
    deleted_by: str | None
    schema_version: int
    etag: str | None


@result(ticket_pb2.Comment)
@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """What somebody said about a ticket; an `internal` one is for agents alone."""

    id: str
    ticket_id: str
    body: str
    internal: bool
    author_id: str
    created_at: datetime
    updated_at: datetime | None


@result(ticket_pb2.TicketEvent)
@dataclass(frozen=True, slots=True, kw_only=True)
class TicketEvent:
    """One change of a ticket, as it was written; `changes` has `{"from": …, "to": …}` for each changed member."""

    tenant_id: str
    ticket_id: str
    version: int
    type: str
    changes: dict[str, Any]
    actor: str
    request_id: str
    created_at: datetime


@result(service_pb2.WatchTicketsResponse)
@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a watch tells: an event, or None as a sign of life, and the cursor to go on behind it."""

    event: TicketEvent | None
    cursor: str


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


class _Members(TypedDict, total=False):
    description: str | None
    type: Type
    status: Status
    priority: Priority
    category: str | None
    assigned_to_id: str | None
    team_id: str | None
    sla_policy: str | None
    due_at: datetime | None
    related_asset_id: str | None
    related_vulnerability_id: str | None
    tags: Tags
    source_type: SourceType


class NewTicket(_Members, total=False):
    """What a new ticket is made of; what is left out has its documented default."""

    title: Required[str]
    submitted_by_id: str | None
    source: str


class TicketChanges(_Members, total=False):
    """What changes; what is left out stays, and None clears."""

    title: str


class TicketFilter(TypedDict, total=False):
    """Which tickets are listed, and in which order; None, or a sequence of nothing, leaves all of them in.

    `assigned_to_id="none"` are those of nobody, `include_deleted` adds the deleted ones.
    """

    status: AnyOf[Status]
    type: AnyOf[Type]
    priority: AnyOf[Priority]
    category: AnyOf[str]
    assigned_to_id: AnyOf[str]
    team_id: AnyOf[str]
    submitted_by_id: AnyOf[str]
    tag: str | None
    q: str | None
    created_after: datetime | None
    created_before: datetime | None
    updated_since: datetime | None
    overdue: bool
    include_deleted: bool
    sort: Sort | None


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
    applies_to: Sequence[Type]


class SlaPolicyChanges(_PolicyMembers, total=False):
    """What changes; what is left out stays, and None clears. `applies_to` replaces the old one whole; None is all."""

    name: str
    priority: Priority
    resolution_minutes: int
    applies_to: Sequence[Type] | None


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


_METHODS = methods(service_pb2)


class Tickets(Api[W]):
    """Helpdesk tickets, each by its id or its number.

    With `etag` a ticket must be as it was when it had that one; None, as in lists, is no condition.
    """

    METHODS = _METHODS

    @many
    def list(
        self, *, page_size: int = PAGE_SIZE, timeout: float | None = None, **filters: Unpack[TicketFilter]
    ) -> Answers[Ticket]:
        """The tickets that the caller may see, newest first unless sorted; `timeout` is that of each page.

        Raises ValidationError.
        """
        return self._list(Ticket, "ListTickets", filters, page_size, timeout)

    @one
    def get(self, id: str, *, include_deleted: bool = False, timeout: float | None = None) -> Answer[Ticket]:
        """One ticket. Raises NotFoundError, also for a deleted one unless that is asked for."""
        return self._ask(Ticket, "GetTicket", {"id": id, "include_deleted": include_deleted}, timeout)

    @one
    def create(
        self, *, idempotency_key: str | None = None, timeout: float | None = None, **ticket: Unpack[NewTicket]
    ) -> Answer[Ticket]:
        """Raise a ticket. Raises ValidationError."""
        key = fresh(idempotency_key)
        return self._ask(Ticket, "CreateTicket", ticket, timeout, key=key)

    @one
    def update(
        self, id: str, *, etag: str | None = None, timeout: float | None = None, **changes: Unpack[TicketChanges]
    ) -> Answer[Ticket]:
        """Change some members of a ticket. Raises NotFoundError, PermissionDeniedError, ValidationError, StaleError."""
        return self._ask(Ticket, "UpdateTicket", {"id": id, "etag": etag}, timeout, changes=changes)

    @one
    def close(
        self,
        id: str,
        *,
        resolution_note: str | None = None,
        etag: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Answer[Ticket]:
        """Close a ticket; a closed one stays as it is.

        Raises NotFoundError, PermissionDeniedError, ValidationError, StaleError.
        """
        members, key = {"id": id, "resolution_note": resolution_note, "etag": etag}, fresh(idempotency_key)
        return self._ask(Ticket, "CloseTicket", members, timeout, key=key)

    @one
    def delete(self, id: str, *, etag: str | None = None, timeout: float | None = None) -> Answer[Ticket]:
        """Delete a ticket, softly; a deleted one stays as it is.

        Raises NotFoundError, PermissionDeniedError, StaleError.
        """
        return self._ask(Ticket, "DeleteTicket", {"id": id, "etag": etag}, timeout)

    @one
    def restore(self, id: str, *, etag: str | None = None, timeout: float | None = None) -> Answer[Ticket]:
        """Restore a deleted ticket; one that is not deleted stays as it is.

        Raises NotFoundError, PermissionDeniedError, StaleError.
        """
        return self._ask(Ticket, "RestoreTicket", {"id": id, "etag": etag}, timeout)

    @one
    def comment(
        self,
        id: str,
        body: str,
        *,
        internal: bool = False,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Answer[Comment]:
        """Comment on a ticket; internally for agents, by agents.

        Raises NotFoundError, PermissionDeniedError, ValidationError.
        """
        members, key = {"id": id, "body": body, "internal": internal}, fresh(idempotency_key)
        return self._ask(Comment, "CreateComment", members, timeout, key=key, of="comment")

    @one
    def edit_comment(self, id: str, comment_id: str, body: str, *, timeout: float | None = None) -> Answer[Comment]:
        """Edit a comment of the caller's own. Raises NotFoundError, PermissionDeniedError, ValidationError."""
        members = {"id": id, "comment_id": comment_id, "body": body}
        return self._ask(Comment, "UpdateComment", members, timeout, of="comment")

    @many
    def comments(self, id: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None) -> Answers[Comment]:
        """A ticket's comments, oldest first; `timeout` is that of each page. Raises NotFoundError."""
        return self._list(Comment, "ListComments", {"id": id}, page_size, timeout, of="comments")

    @many
    def events(self, id: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None) -> Answers[TicketEvent]:
        """A ticket's history, oldest first, that of a deleted one too; `timeout` is that of each page.

        Raises NotFoundError.
        """
        return self._list(TicketEvent, "ListTicketEvents", {"id": id}, page_size, timeout, of="events")

    @one
    def sla(self, id: str, *, timeout: float | None = None) -> Answer[TicketSla]:
        """How a ticket's SLA stands right now: what time counted, was paused and is left. Raises NotFoundError."""
        return self._ask(TicketSla, "GetTicketSla", {"id": id}, timeout, of="sla")

    @many
    def watch(self, *, cursor: str | None = None, patience: float = 60.0) -> Answers[Watched]:
        """Every change of the tickets that the caller may see as it happens, from now on or behind a cursor.

        It tells until it is closed. The first answer comes at once and says where the watch begins. When the service
        goes away the watch goes on behind the last answer; it raises UnavailableError when that fails for `patience`
        seconds.
        """
        return self._watch(Watched, {"cursor": cursor}, patience)


class SlaPolicies(Api[W]):
    """The tenant's SLA policies, for agents."""

    METHODS = _METHODS

    @many
    def list(
        self, *, status: PolicyStatus | None = None, page_size: int = PAGE_SIZE, timeout: float | None = None
    ) -> Answers[SlaPolicy]:
        """The policies, all or those with a status, newest first; `timeout` is that of each page."""
        return self._list(SlaPolicy, "ListSlaPolicies", {"status": status}, page_size, timeout, of="sla_policies")

    @one
    def get(self, id: str, *, timeout: float | None = None) -> Answer[SlaPolicy]:
        """One policy. Raises NotFoundError."""
        return self._ask(SlaPolicy, "GetSlaPolicy", {"id": id}, timeout, of="sla_policy")

    @one
    def create(
        self, *, idempotency_key: str | None = None, timeout: float | None = None, **policy: Unpack[NewSlaPolicy]
    ) -> Answer[SlaPolicy]:
        """Create a policy. Raises ValidationError, ConflictError (`already_exists`)."""
        key = fresh(idempotency_key)
        return self._ask(SlaPolicy, "CreateSlaPolicy", policy, timeout, key=key, of="sla_policy")

    @one
    def update(
        self, id: str, *, timeout: float | None = None, **changes: Unpack[SlaPolicyChanges]
    ) -> Answer[SlaPolicy]:
        """Change some members of a policy; the clocks of its unresolved tickets follow within seconds.

        Raises NotFoundError, ValidationError, ConflictError (`already_exists`).
        """
        return self._ask(SlaPolicy, "UpdateSlaPolicy", {"id": id}, timeout, changes=changes, of="sla_policy")


class TenantCalendar(Api[W]):
    """The tenant's one calendar, for agents."""

    METHODS = _METHODS

    @one
    def get(self, *, timeout: float | None = None) -> Answer[Calendar]:
        """The calendar; there is one before anybody sets it."""
        return self._ask(Calendar, "GetCalendar", {}, timeout, of="calendar")

    @one
    def update(self, *, timeout: float | None = None, **changes: Unpack[CalendarChanges]) -> Answer[Calendar]:
        """Change some members of the calendar; the clocks that go by it follow within seconds.

        Raises ValidationError.
        """
        return self._ask(Calendar, "UpdateCalendar", {}, timeout, changes=changes, of="calendar")
