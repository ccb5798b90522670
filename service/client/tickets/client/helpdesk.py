"""`client.helpdesk.tickets` of the caller's tenant; its SLA is in sla.py. Every call raises TicketsError."""

# ruff: noqa: A002 - documented names

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Required, TypeAlias, TypedDict, Unpack

from tickets.client.api import PAGE_SIZE, AnyOf, Api, Stream, Unary, stream, unary
from tickets.client.messages import methods, result
from tickets.client.session import TransportT
from tickets.client.sla import (
    BusinessHours,
    Calendar,
    CalendarChanges,
    Hours,
    Interval,
    NewSlaPolicy,
    PolicyStatus,
    Priority,
    SlaPolicies,
    SlaPolicy,
    SlaPolicyChanges,
    SlaTarget,
    TenantCalendar,
    TicketSla,
    Type,
    Weekday,
)
from tickets.helpdesk.v1 import comment_pb2, comment_service_pb2, sla_service_pb2, ticket_pb2, ticket_service_pb2

# All that callers may name of the helpdesk API, whichever module has it.
__all__ = [
    "AnyOf",
    "BusinessHours",
    "Calendar",
    "CalendarChanges",
    "Comment",
    "Hours",
    "Interval",
    "NewSlaPolicy",
    "NewTicket",
    "PolicyStatus",
    "Priority",
    "SlaPolicies",
    "SlaPolicy",
    "SlaPolicyChanges",
    "SlaTarget",
    "Sort",
    "SourceType",
    "Status",
    "Tags",
    "TenantCalendar",
    "Ticket",
    "TicketChanges",
    "TicketEvent",
    "TicketFilter",
    "TicketSla",
    "Tickets",
    "Type",
    "WatchResponse",
    "Weekday",
]

Status: TypeAlias = Literal["open", "in_progress", "pending", "resolved", "closed"]
SourceType: TypeAlias = Literal["frontend", "backend", "server", "system", "api"]
Sort: TypeAlias = Literal["-created_at", "created_at", "-updated_at", "due_at", "-priority"]
# Any JSON value.
Tags: TypeAlias = Sequence[Any] | Mapping[str, Any] | str | float | bool


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
    tags: Any
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


@result(comment_pb2.Comment)
@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment on a ticket; only agents see an `internal` one."""

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


@result(ticket_service_pb2.WatchTicketsResponse)
@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResponse:
    """One response of a watch: an event, or None as a keep-alive, and the cursor to resume after it.

    A keep-alive with `behind_seconds` says for how long events have been held back.
    """

    event: TicketEvent | None
    cursor: str
    behind_seconds: int | None


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
    source: str
    source_type: SourceType


class NewTicket(_Members, total=False):
    """What a new ticket is made of; what is left out has its documented default."""

    title: Required[str]
    submitted_by_id: str | None


class TicketChanges(_Members, total=False):
    """What changes; what is left out stays, and None clears."""

    title: str
    submitted_by_id: str


class TicketFilter(TypedDict, total=False):
    """Which tickets are listed, and in which order; None, or a sequence of nothing, leaves all of them in.

    `assigned_to_id="none"` are those that nobody is assigned to, `include_deleted` adds the deleted ones.
    """

    status: AnyOf[Status]
    type: AnyOf[Type]
    priority: AnyOf[Priority]
    category: AnyOf[str]
    assigned_to_id: AnyOf[str]
    team_id: AnyOf[str]
    submitted_by_id: AnyOf[str]
    related_asset_id: AnyOf[str]
    related_vulnerability_id: AnyOf[str]
    app_id: AnyOf[str]
    sla_policy: AnyOf[str]
    source: AnyOf[str]
    number: AnyOf[str]
    tag: str | None
    q: str | None
    created_after: datetime | None
    created_before: datetime | None
    updated_since: datetime | None
    overdue: bool | None
    include_deleted: bool | None
    sort: Sort | None


class Tickets(Api[TransportT]):
    """Helpdesk tickets, each by its id or its number.

    With `etag` a ticket must be as it was when it had that one; None, as in lists, is no condition.
    """

    METHODS = methods(ticket_service_pb2, comment_service_pb2, sla_service_pb2)

    @stream
    def list(
        self, *, page_size: int = PAGE_SIZE, timeout: float | None = None, **filters: Unpack[TicketFilter]
    ) -> Stream[Ticket]:
        """The tickets that the caller may see, newest first unless sorted; `timeout` is that of each page.

        Raises ValidationError.
        """
        return self._list(Ticket, "ListTickets", filters, page_size, timeout)

    @unary
    def get(self, id: str, *, include_deleted: bool = False, timeout: float | None = None) -> Unary[Ticket]:
        """One ticket. Raises NotFoundError, also for a deleted one without `include_deleted`."""
        return self._call(Ticket, "GetTicket", {"id": id, "include_deleted": include_deleted}, timeout)

    @unary
    def create(
        self, *, idempotency_key: str | None = None, timeout: float | None = None, **ticket: Unpack[NewTicket]
    ) -> Unary[Ticket]:
        """Create a ticket. Raises ValidationError."""
        return self._call(Ticket, "CreateTicket", ticket, timeout, key=idempotency_key)

    @unary
    def update(
        self,
        id: str,
        *,
        etag: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **changes: Unpack[TicketChanges],
    ) -> Unary[Ticket]:
        """Change some members of a ticket. Raises NotFoundError, PermissionDeniedError, ValidationError, StaleError."""
        members = {"id": id, "etag": etag}
        return self._call(Ticket, "UpdateTicket", members, timeout, changes=changes, key=idempotency_key)

    @unary
    def close(
        self,
        id: str,
        *,
        resolution_note: str | None = None,
        etag: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Unary[Ticket]:
        """Close a ticket; a closed one stays as it is.

        Raises NotFoundError, PermissionDeniedError, ValidationError, StaleError.
        """
        members = {"id": id, "resolution_note": resolution_note, "etag": etag}
        return self._call(Ticket, "CloseTicket", members, timeout, key=idempotency_key)

    @unary
    def delete(
        self, id: str, *, etag: str | None = None, idempotency_key: str | None = None, timeout: float | None = None
    ) -> Unary[Ticket]:
        """Delete a ticket, softly; a deleted one stays as it is.

        Raises NotFoundError, PermissionDeniedError, StaleError.
        """
        return self._call(Ticket, "DeleteTicket", {"id": id, "etag": etag}, timeout, key=idempotency_key)

    @unary
    def restore(
        self, id: str, *, etag: str | None = None, idempotency_key: str | None = None, timeout: float | None = None
    ) -> Unary[Ticket]:
        """Restore a deleted ticket; one that is not deleted stays as it is.

        Raises NotFoundError, PermissionDeniedError, StaleError.
        """
        return self._call(Ticket, "RestoreTicket", {"id": id, "etag": etag}, timeout, key=idempotency_key)

    @unary
    def comment(
        self,
        id: str,
        body: str,
        *,
        internal: bool = False,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Unary[Comment]:
        """Comment on a ticket; internally for agents, by agents.

        Raises NotFoundError, PermissionDeniedError, ValidationError.
        """
        members = {"id": id, "body": body, "internal": internal}
        return self._call(Comment, "CreateComment", members, timeout, key=idempotency_key, field="comment")

    @unary
    def edit_comment(
        self,
        id: str,
        comment_id: str,
        body: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Unary[Comment]:
        """Edit a comment of the caller's own. Raises NotFoundError, PermissionDeniedError, ValidationError."""
        members = {"id": id, "comment_id": comment_id, "body": body}
        return self._call(Comment, "UpdateComment", members, timeout, key=idempotency_key, field="comment")

    @stream
    def comments(self, id: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None) -> Stream[Comment]:
        """A ticket's comments, oldest first; `timeout` is that of each page. Raises NotFoundError."""
        return self._list(Comment, "ListComments", {"id": id}, page_size, timeout, field="comments")

    @stream
    def events(self, id: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None) -> Stream[TicketEvent]:
        """A ticket's history, oldest first, that of a deleted one too; `timeout` is that of each page.

        Raises NotFoundError.
        """
        return self._list(TicketEvent, "ListTicketEvents", {"id": id}, page_size, timeout, field="events")

    @unary
    def sla(self, id: str, *, timeout: float | None = None) -> Unary[TicketSla]:
        """How a ticket's SLA stands right now: what time counted, was paused and is left. Raises NotFoundError."""
        return self._call(TicketSla, "GetTicketSla", {"id": id}, timeout, field="sla")

    @stream
    def watch(self, *, cursor: str | None = None, resume_timeout: float = 60.0) -> Stream[WatchResponse]:
        """Every change of the tickets that the caller may see as it happens, from now on or after a cursor.

        It lasts until it is closed. The first response comes at once and says where the watch begins. When the service
        goes away the watch resumes after the last response; it raises UnavailableError when it cannot
        within `resume_timeout` seconds, and CursorExpiredError when events after the cursor were deleted.
        """
        return self._watch(WatchResponse, {"cursor": cursor}, resume_timeout)
