"""`client.handoff.tickets`: tickets in the projects that the caller is a member of. Every call raises TicketsError.

A `ticket_id` is the ticket's UUID, its number, or its `ticket_ref`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Required, TypeAlias, TypedDict, Unpack

from tickets.handoff.v1 import service_pb2, ticket_pb2

from service.client.api import PAGE_SIZE, Answer, Answers, Api, fresh, many, one
from service.client.link import W
from service.client.messages import methods, result

RequestType: TypeAlias = Literal["bug", "feature_request", "clarification_needed", "decision_needed"]
Status: TypeAlias = Literal["open", "closed"]
Stage: TypeAlias = Literal["backlog", "up_next", "in_progress", "validation", "live"]
Priority: TypeAlias = Literal["low", "medium", "high"]
RoleName: TypeAlias = Literal["frontend", "backend", "design", "devops", "qa", "test", "other"]
RoleStatus: TypeAlias = Literal["pending", "in_progress", "done", "skipped"]
ResolutionType: TypeAlias = Literal[
    "completed", "already_done", "duplicate", "wont_fix", "no_longer_relevant", "cancelled"
]
Ship: TypeAlias = Literal["merged", "deployed", "deploy_failed"]
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

    `description` is None in a slim list, `summary` is None outside of lists.
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


@result(service_pb2.WatchTicketsResponse)
@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a watch tells: an event, or None as a sign of life, and the cursor to go on behind it."""

    event: TicketEvent | None
    cursor: str


@result(service_pb2.BulkError)
@dataclass(frozen=True, slots=True, kw_only=True)
class BulkError:
    """Why one ticket was left as it was: `code` is stable, `error` is for people, `id` is as it was named."""

    id: str
    error: str
    code: str


@result(service_pb2.BulkUpdateTicketsResponse)
@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """How many tickets are now as asked, and those that are not."""

    updated: int
    errors: tuple[BulkError, ...]


class Declared(TypedDict, total=False):
    """Who the caller says that they are, for the events."""

    actor_role: str | None
    actor_id: str | None


class _Members(Declared, total=False):
    priority: Priority
    blocking: bool
    evidence: Mapping[str, Any] | None
    suggested_resolution: str | None
    implementation_notes: str | None
    roles: Sequence[RoleName]


class NewTicket(_Members, total=False):
    """What a new ticket is made of; what is left out has its documented default."""

    title: Required[str]
    description: Required[str]
    request_type: Required[RequestType]
    source: str


class RoleChange(TypedDict, total=False):
    """What becomes of one role; what is left out stays, and None clears."""

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
    """What some bulk changes need."""

    stage: Stage | None
    skip_pending_roles: bool
    resolution_note: str | None
    resolution_type: ResolutionType | None
    work_started_note: str | None


class _Filter(TypedDict, total=False):
    slim: bool
    status: Status | None
    stage: Sequence[Stage]
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

    ship: Ship | None
    milestone: str | None
    q: str | None


class Tickets(Api[W]):
    """Handoff tickets."""

    METHODS = methods(service_pb2)

    @many
    def list(
        self, *, page_size: int = PAGE_SIZE, timeout: float | None = None, **filters: Unpack[TicketFilter]
    ) -> Answers[Ticket]:
        """The tickets of all the caller's projects, newest first; `timeout` is that of each page."""
        return self._list(Ticket, "ListTickets", filters, page_size, timeout)

    @many
    def list_project(
        self,
        project_id: str,
        *,
        page_size: int = PAGE_SIZE,
        timeout: float | None = None,
        **filters: Unpack[ProjectFilter],
    ) -> Answers[Ticket]:
        """The tickets of one project, newest first; `timeout` is that of each page. Raises PermissionDeniedError."""
        members = {"project_id": project_id, **filters}
        return self._list(Ticket, "ListProjectTickets", members, page_size, timeout)

    @one
    def get(self, project_id: str, ticket_id: str, *, timeout: float | None = None) -> Answer[Ticket]:
        """One ticket. Raises PermissionDeniedError, NotFoundError."""
        members = {"project_id": project_id, "ticket_id": ticket_id}
        return self._ask(Ticket, "GetTicket", members, timeout)

    @one
    def create(
        self,
        project_id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **ticket: Unpack[NewTicket],
    ) -> Answer[Ticket]:
        """File a ticket in a project. Raises PermissionDeniedError, ValidationError."""
        members, key = {"project_id": project_id, **ticket}, fresh(idempotency_key)
        return self._ask(Ticket, "CreateTicket", members, timeout, key=key)

    @one
    def update(
        self,
        project_id: str,
        ticket_id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **changes: Unpack[TicketChanges],
    ) -> Answer[Ticket]:
        """Change some members of a ticket.

        Raises PermissionDeniedError, NotFoundError, ValidationError, ConflictError (`roles_incomplete`,
        `invalid_transition`), StaleError.
        """
        members, key = {"project_id": project_id, "ticket_id": ticket_id}, fresh(idempotency_key)
        return self._ask(Ticket, "UpdateTicket", members, timeout, changes=changes, key=key)

    @one
    def bulk(
        self,
        project_id: str,
        *,
        action: Action,
        ticket_ids: Sequence[str],
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **options: Unpack[BulkOptions],
    ) -> Answer[BulkResult]:
        """Move or close up to a hundred tickets, each on its own. Raises PermissionDeniedError, ValidationError."""
        members = {"project_id": project_id, "action": action, "ticket_ids": ticket_ids, **options}
        key = fresh(idempotency_key)
        return self._ask(BulkResult, "BulkUpdateTickets", members, timeout, key=key)

    @one
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
    ) -> Answer[Ticket]:
        """Tell what became of a ticket's commit, now or at an instant. Raises PermissionDeniedError, NotFoundError."""
        members = {
            "project_id": project_id,
            "ticket_id": ticket_id,
            "merge_sha": merge_sha,
            "outcome": outcome,
            "at": at,
            **declared,
        }
        key = fresh(idempotency_key)
        return self._ask(Ticket, "ReportDeployment", members, timeout, key=key)

    @many
    def events(
        self, project_id: str, ticket_id: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None
    ) -> Answers[TicketEvent]:
        """A ticket's history, oldest first; `timeout` is that of each page.

        Raises PermissionDeniedError, NotFoundError.
        """
        members = {"project_id": project_id, "ticket_id": ticket_id}
        return self._list(TicketEvent, "ListTicketEvents", members, page_size, timeout, of="events")

    @many
    def watch(self, project_id: str, *, cursor: str | None = None, patience: float = 60.0) -> Answers[Watched]:
        """Every change of a project's tickets as it happens, from now on or behind a cursor, until it is closed.

        The first answer comes at once and says where the watch begins. When the service goes away the watch goes on
        behind the last answer; it raises UnavailableError when that fails for `patience` seconds.
        """
        return self._watch(Watched, {"project_id": project_id, "cursor": cursor}, patience)
