"""`client.handoff.tickets`: tickets in the projects that the caller is a member of. Every call raises TicketsError.

A `ticket_id` is the ticket's UUID, its number, or its `ticket_ref`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Required, TypeAlias, TypedDict, Unpack

from tickets.client.api import PAGE_SIZE, AnyOf, Api, Stream, Unary, Words, stream, unary
from tickets.client.messages import methods, result
from tickets.client.session import TransportT
from tickets.handoff.v1 import ticket_pb2, ticket_service_pb2

RequestType: TypeAlias = Literal["bug", "feature_request", "clarification_needed", "decision_needed"]
Status: TypeAlias = Literal["open", "closed"]
Stage: TypeAlias = Literal["backlog", "up_next", "in_progress", "validation", "live"]
Priority: TypeAlias = Literal["low", "medium", "high"]
RoleName: TypeAlias = Literal["frontend", "backend", "design", "devops", "qa", "test", "other"]
RoleStatus: TypeAlias = Literal["pending", "in_progress", "done", "skipped"]
ResolutionType: TypeAlias = Literal[
    "completed", "already_done", "duplicate", "wont_fix", "no_longer_relevant", "cancelled"
]
Ship: TypeAlias = Literal["merged", "deploying", "deployed", "deploy_failed"]
Outcome: TypeAlias = Literal["merged", "deployed", "failed"]
Action: TypeAlias = Literal["move", "close"]


@result(ticket_pb2.Role)
@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One role's part in a ticket."""

    id: str
    handoff_request_id: str
    role: RoleName
    status: RoleStatus
    assignee_user_id: str | None
    assignee_note: str | None
    blocking_reason: str | None
    work_started_note: str | None
    agent_origin: str | None
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime


@result(ticket_pb2.Ticket)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Work that one part of a team asks of another; protos/tickets/handoff/v1/ticket.proto.

    `description` is None in a slim list, `summary` is None outside of lists. `category`, `severity` and
    `suggested_backend_change` are other names of `request_type`, `priority` and `suggested_resolution`.
    """

    id: str
    project_id: str
    billing_account_id: str
    milestone_id: str | None
    source: str
    number: int
    ticket_ref: str
    title: str
    description: str | None
    summary: str | None
    request_type: RequestType
    status: Status
    stage: Stage
    priority: Priority
    blocking: bool
    roles: tuple[Role, ...]
    created_at: datetime
    updated_at: datetime | None
    merge_sha: str | None
    deployed_at: datetime | None
    deploy_failed_at: datetime | None
    resolution_type: ResolutionType | None
    resolution_note: str | None
    resolved_at: datetime | None
    reported_by_user_id: str | None
    suggested_resolution: str | None
    implementation_notes: str | None
    evidence: dict[str, Any] | None
    project_name: str
    backend_repo: str | None
    frontend_repo: str | None
    can_triage: bool
    github_issue_number: int | None
    github_issue_url: str | None
    category: RequestType
    severity: Priority
    suggested_backend_change: str | None


@result(ticket_pb2.TicketEvent)
@dataclass(frozen=True, slots=True, kw_only=True)
class TicketEvent:
    """One change of a ticket, as it was written; `changes` has `{"from": …, "to": …}` for each changed member."""

    project_id: str
    ticket_id: str
    version: int
    type: str
    changes: dict[str, Any]
    actor: str
    actor_role: str | None
    actor_id: str | None
    agent_origin: str | None
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


@result(ticket_service_pb2.BulkError)
@dataclass(frozen=True, slots=True, kw_only=True)
class BulkError:
    """Why one ticket was not updated: `code` is stable, `error` is for people, `id` is as in the request."""

    id: str
    error: str
    code: str


@result(ticket_service_pb2.BulkUpdateTicketsResponse)
@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """How many tickets were updated, and why the others were not."""

    updated: int
    errors: tuple[BulkError, ...]


class Declared(TypedDict, total=False):
    """Who the caller declares to be, for the events."""

    actor_role: str | None
    actor_id: str | None


class _Members(Declared, total=False):
    priority: Priority
    blocking: bool
    evidence: Mapping[str, Any] | None
    suggested_resolution: str | None
    implementation_notes: str | None
    roles: Words[RoleName]


class NewTicket(_Members, total=False):
    """What a new ticket is made of; what is left out has its documented default."""

    title: Required[str]
    description: Required[str]
    request_type: Required[RequestType]
    source: str


class RoleChange(TypedDict, total=False):
    """The changes of one role; what is left out stays, and None clears."""

    role: Required[RoleName]
    status: Required[RoleStatus]
    work_started_note: str
    assignee_note: str | None
    assignee_user_id: str | None
    blocking_reason: str | None
    agent_origin: str | None


class TicketChanges(_Members, total=False):
    """What changes; what is left out stays, and None clears.

    With `updated_at` the ticket must not have changed since: None is that of one that never was.
    """

    title: str
    description: str
    request_type: RequestType
    stage: Stage
    status: Status
    work_started_note: str
    resolution_note: str | None
    resolution_type: ResolutionType
    role_status: RoleChange
    milestone_id: str | None
    github_issue_number: int | None
    updated_at: datetime | None


class BulkOptions(Declared, total=False):
    """Further members of a bulk update, by action."""

    stage: Stage | None
    skip_pending_roles: bool
    resolution_note: str | None
    resolution_type: ResolutionType | None
    work_started_note: str | None


class _Filter(TypedDict, total=False):
    slim: bool | None
    status: Status | None
    stage: AnyOf[Stage]
    priority: Priority | None
    request_type: RequestType | None
    role: RoleName | None
    assignee: str | None
    updated_since: datetime | None


class TicketFilter(_Filter, total=False):
    """Which tickets of all projects are listed; None leaves all of them in."""

    project_id: str | None


class ProjectFilter(_Filter, total=False):
    """Which tickets of one project are listed; None leaves all of them in."""

    ship: AnyOf[Ship]
    milestone: str | None
    q: str | None


class Tickets(Api[TransportT]):
    """Handoff tickets."""

    METHODS = methods(ticket_service_pb2)

    @stream
    def list(
        self, *, page_size: int = PAGE_SIZE, timeout: float | None = None, **filters: Unpack[TicketFilter]
    ) -> Stream[Ticket]:
        """The tickets of all the caller's projects, newest first; `timeout` is that of each page."""
        return self._list(Ticket, "ListTickets", filters, page_size, timeout)

    @stream
    def list_project(
        self,
        project_id: str,
        *,
        page_size: int = PAGE_SIZE,
        timeout: float | None = None,
        **filters: Unpack[ProjectFilter],
    ) -> Stream[Ticket]:
        """The tickets of one project, newest first; `timeout` is that of each page. Raises PermissionDeniedError."""
        members = {"project_id": project_id, **filters}
        return self._list(Ticket, "ListProjectTickets", members, page_size, timeout)

    @unary
    def get(self, project_id: str, ticket_id: str, *, timeout: float | None = None) -> Unary[Ticket]:
        """One ticket. Raises PermissionDeniedError, NotFoundError."""
        members = {"project_id": project_id, "ticket_id": ticket_id}
        return self._call(Ticket, "GetTicket", members, timeout)

    @unary
    def create(
        self,
        project_id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **ticket: Unpack[NewTicket],
    ) -> Unary[Ticket]:
        """Create a ticket in a project. Raises PermissionDeniedError, ValidationError."""
        members = {"project_id": project_id, **ticket}
        return self._call(Ticket, "CreateTicket", members, timeout, key=idempotency_key)

    @unary
    def update(
        self,
        project_id: str,
        ticket_id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **changes: Unpack[TicketChanges],
    ) -> Unary[Ticket]:
        """Change some members of a ticket.

        Raises PermissionDeniedError, NotFoundError, ValidationError, ConflictError (`roles_incomplete`,
        `invalid_transition`), StaleError.
        """
        members = {"project_id": project_id, "ticket_id": ticket_id}
        return self._call(Ticket, "UpdateTicket", members, timeout, changes=changes, key=idempotency_key)

    @unary
    def bulk(
        self,
        project_id: str,
        *,
        action: Action,
        ticket_ids: Sequence[str],
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **options: Unpack[BulkOptions],
    ) -> Unary[BulkResult]:
        """Move or close up to a hundred tickets, each on its own. Raises PermissionDeniedError, ValidationError."""
        members = {"project_id": project_id, "action": action, "ticket_ids": ticket_ids, **options}
        return self._call(BulkResult, "BulkUpdateTickets", members, timeout, key=idempotency_key)

    @unary
    def report_deployment(
        self,
        project_id: str,
        ticket_id: str,
        *,
        merge_sha: str,
        outcome: Outcome,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **declared: Unpack[Declared],
    ) -> Unary[Ticket]:
        """Report the outcome of a ticket's commit, now or `at` a time. Raises PermissionDeniedError, NotFoundError."""
        members = {
            "project_id": project_id,
            "ticket_id": ticket_id,
            "merge_sha": merge_sha,
            "outcome": outcome,
            "at": at,
            **declared,
        }
        return self._call(Ticket, "ReportDeployment", members, timeout, key=idempotency_key)

    @stream
    def events(
        self, project_id: str, ticket_id: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None
    ) -> Stream[TicketEvent]:
        """A ticket's history, oldest first; `timeout` is that of each page.

        Raises PermissionDeniedError, NotFoundError.
        """
        members = {"project_id": project_id, "ticket_id": ticket_id}
        return self._list(TicketEvent, "ListTicketEvents", members, page_size, timeout, field="events")

    @stream
    def watch(
        self, project_id: str, *, cursor: str | None = None, resume_timeout: float = 60.0
    ) -> Stream[WatchResponse]:
        """Every change of a project's tickets as it happens, from now on or after a cursor, until it is closed.

        The first response comes at once and says where the watch begins. When the service goes away the watch resumes
        after the last response; it raises UnavailableError when it cannot within `resume_timeout` seconds, and
        CursorExpiredError when events after the cursor were deleted.
        """
        return self._watch(WatchResponse, {"project_id": project_id, "cursor": cursor}, resume_timeout)
