"""The commands of the handoff API: every bound, vocabulary and default of its input (contracts/handoff.md)."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from service.directory import RoleName
from service.fields import (
    Command,
    IdempotencyHeader,
    Instant,
    JsonObject,
    Number,
    Page,
    Resumable,
    Section,
    Uuid,
    Words,
    comma_list,
    distinct,
    uuid_or,
    without_nul,
)

RequestType = Literal["bug", "feature_request", "clarification_needed", "decision_needed"]
Status = Literal["open", "closed"]
Stage = Literal["backlog", "up_next", "in_progress", "validation", "live"]
Priority = Literal["low", "medium", "high"]
RoleStatus = Literal["pending", "in_progress", "done", "skipped"]
Ship = Literal["merged", "deployed", "deploy_failed"]
Outcome = Literal["merged", "deployed", "failed"]
ResolutionType = Literal["completed", "already_done", "duplicate", "wont_fix", "no_longer_relevant", "cancelled"]

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=140), without_nul]
Description = Annotated[str, StringConstraints(min_length=1, max_length=20_000), without_nul]
Note = Annotated[str, StringConstraints(max_length=5_000), without_nul]
# The note that starting work on a ticket or a role requires.
StartNote = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5_000), without_nul]
Provenance = Annotated[str, StringConstraints(max_length=64), without_nul]
ActorId = Annotated[str, StringConstraints(max_length=128), without_nul]
Roles = Annotated[list[RoleName], Field(max_length=7), distinct]
# A UUID, a number or a `ticket_ref`; any other text refers to no ticket.
TicketId = str


class ProjectPath(Section):
    """The path of one project's tickets."""

    project_id: Uuid


class TicketPath(ProjectPath):
    """The path of one ticket."""

    ticket_id: TicketId


class NewTicket(Section):
    """The body of a POST."""

    title: Title
    description: Description
    request_type: RequestType
    # Empty: the project's default roles, except for bots, which must name some (operations.py).
    roles: Roles = Field([])
    priority: Priority = "medium"
    blocking: bool = False
    evidence: JsonObject | None = None
    suggested_resolution: Note | None = None
    implementation_notes: Note | None = None
    actor_role: Provenance = "user"
    # None: the caller.
    actor_id: ActorId | None = None
    source: Provenance = "portal"


class LongPage(Page):
    """The query of a list page by page; pages may be long."""

    limit: Annotated[Number, Field(ge=1, le=1000)] = 100


class TicketFilters(LongPage):
    """The query of every list of tickets."""

    slim: Annotated[bool, Field(strict=False)] = False
    status: Status | None = None
    stage: Annotated[list[Stage], comma_list, Field(min_length=1, max_length=5)] | None = None
    priority: Priority | None = None
    request_type: RequestType | None = None
    role: RoleName | None = None
    assignee: Annotated[UUID | Literal["me"], uuid_or("me")] | None = None
    updated_since: Instant | None = None


class AllTicketsQuery(TicketFilters):
    """The query of GET /api/tickets."""

    project_id: Uuid | None = None


class ProjectTicketsQuery(TicketFilters):
    """The query of GET /api/projects/{project_id}/tickets."""

    ship: Ship | None = None
    milestone: Annotated[UUID | Literal["none"], uuid_or("none")] | None = None
    q: Words | None = None


class Declared(Section):
    """The provenance that a caller declares, for the events of the changes."""

    actor_role: Provenance | None = None
    actor_id: ActorId | None = None


class RoleChange(Section):
    """The change of one role."""

    role: RoleName
    status: RoleStatus
    work_started_note: StartNote | None = None
    assignee_note: Note | None = None
    assignee_user_id: Uuid | None = None
    blocking_reason: Note | None = None
    agent_origin: Provenance | None = None


class TicketChanges(Declared):
    """The body of a PATCH. Null clears the members that may be None; no other may be null."""

    title: Title = ""
    description: Description = ""
    request_type: RequestType = "bug"
    priority: Priority = "medium"
    blocking: bool = False
    evidence: JsonObject | None = None
    suggested_resolution: Note | None = None
    implementation_notes: Note | None = None
    stage: Stage = "backlog"
    status: Status = "open"
    work_started_note: StartNote | None = None
    resolution_note: Note | None = None
    resolution_type: ResolutionType = "completed"
    role_status: RoleChange | None = None
    milestone_id: Uuid | None = None
    roles: Roles = Field([])
    github_issue_number: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    # The ticket's `updated_at` as the caller last read it.
    updated_at: Instant | None = None


class BulkChange(Declared):
    """The body of a bulk move or close."""

    action: Literal["move", "close"]
    ticket_ids: Annotated[list[TicketId], Field(min_length=1, max_length=100)]
    stage: Stage | None = None
    skip_pending_roles: bool = False
    resolution_note: Note | None = None
    resolution_type: ResolutionType = "completed"
    work_started_note: StartNote | None = None


class Deployment(Declared):
    """The body of a deployment report."""

    merge_sha: Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,64}$")]
    outcome: Outcome
    # None: now.
    at: Instant | None = None


class CreateTicket(Command):
    """POST /api/projects/{project_id}/tickets."""

    path: ProjectPath
    header: IdempotencyHeader
    body: NewTicket


class ListTickets(Command):
    """GET /api/tickets."""

    query: AllTicketsQuery


class ListProjectTickets(Command):
    """GET /api/projects/{project_id}/tickets."""

    path: ProjectPath
    query: ProjectTicketsQuery


class GetTicket(Command):
    """GET /api/projects/{project_id}/tickets/{ticket_id}."""

    path: TicketPath


class UpdateTicket(Command):
    """PATCH /api/projects/{project_id}/tickets/{ticket_id}."""

    path: TicketPath
    header: IdempotencyHeader
    body: TicketChanges


class BulkUpdateTickets(Command):
    """POST /api/projects/{project_id}/tickets/bulk."""

    path: ProjectPath
    header: IdempotencyHeader
    body: BulkChange


class ReportDeployment(Command):
    """POST /api/projects/{project_id}/tickets/{ticket_id}/deployments."""

    path: TicketPath
    header: IdempotencyHeader
    body: Deployment


class ListTicketEvents(Command):
    """GET /api/projects/{project_id}/tickets/{ticket_id}/events."""

    path: TicketPath
    query: LongPage


class WatchTickets(Command):
    """GET /api/projects/{project_id}/events."""

    path: ProjectPath
    query: Resumable
