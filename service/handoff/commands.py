"""The commands of the handoff API: every bound, vocabulary and default of its input (contracts/handoff.md)."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, StringConstraints

from service.directory import RoleName
from service.fields import (
    Aliased,
    Command,
    Creation,
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
    other_name,
    uuid_or,
    whole,
    without_nul,
)

RequestType = Literal["bug", "feature_request", "clarification_needed", "decision_needed"]
Status = Literal["open", "closed"]
Stage = Literal["backlog", "up_next", "in_progress", "validation", "live"]
Priority = Literal["low", "medium", "high"]
RoleStatus = Literal["pending", "in_progress", "done", "skipped"]
Ship = Literal["merged", "deploying", "deployed", "deploy_failed"]
Outcome = Literal["merged", "deployed", "failed"]
ResolutionType = Literal["completed", "already_done", "duplicate", "wont_fix", "no_longer_relevant", "cancelled"]

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=140), without_nul]
Description = Annotated[str, StringConstraints(min_length=1, max_length=20_000), without_nul]
Note = Annotated[str, StringConstraints(max_length=5_000), without_nul]
# The note that starting work on a ticket or a role requires.
StartNote = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5_000), without_nul]
Provenance = Annotated[str, StringConstraints(max_length=64), without_nul]
ActorId = Annotated[str, StringConstraints(max_length=128), without_nul]


def _role_name(value: Any) -> Any:
    # A role as it is in answers, so that a ticket that was read may be sent back.
    return value["role"] if isinstance(value, dict) and "role" in value else value


Roles = Annotated[list[Annotated[RoleName, BeforeValidator(_role_name)]], Field(max_length=7), distinct]

# Members that older clients know by another name.
RequestTypeMember = Annotated[RequestType, other_name("request_type", "category")]
PriorityMember = Annotated[Priority, other_name("priority", "severity")]
Suggestion = Annotated[Note | None, other_name("suggested_resolution", "suggested_backend_change")]

# A UUID, a number or a `ticket_ref`; any other text refers to no ticket.
TicketId = str
# One of several in a body. A `ticket_ref` is at most 87 characters: `HO-`, a number, a project's slug.
NamedTicket = Annotated[TicketId, StringConstraints(max_length=128), without_nul]


class ProjectPath(Section):
    """The path of one project's tickets."""

    project_id: Uuid


class TicketPath(ProjectPath):
    """The path of one ticket."""

    ticket_id: TicketId


class NewTicket(Creation, Aliased):
    """The body of a POST."""

    title: Title
    description: Description
    request_type: RequestTypeMember
    # Empty: the project's default roles, except for bots, which must name some (operations.py).
    roles: Roles = Field([])
    priority: PriorityMember = "medium"
    blocking: bool = False
    evidence: JsonObject | None = None
    suggested_resolution: Suggestion = None
    implementation_notes: Note | None = None
    # None: by the caller's token (operations.py).
    actor_role: Provenance | None = None
    actor_id: ActorId | None = None
    source: Provenance | None = None


class LongPage(Page):
    """The query of a list page by page; pages may be long."""

    limit: Annotated[Number, Field(ge=1, le=1000)] = 100


class TicketFilters(LongPage, Aliased):
    """The query of every list of tickets."""

    slim: Annotated[bool, Field(strict=False)] = False
    status: Status | None = None
    stage: Annotated[list[Stage], comma_list, Field(min_length=1, max_length=5)] | None = None
    priority: Annotated[Priority | None, other_name("priority", "severity")] = None
    request_type: Annotated[RequestType | None, other_name("request_type", "category")] = None
    role: RoleName | None = None
    assignee: Annotated[UUID | Literal["me"], uuid_or("me")] | None = None
    updated_since: Instant | None = None


class AllTicketsQuery(TicketFilters):
    """The query of GET /api/tickets."""

    project_id: Uuid | None = None


class ProjectTicketsQuery(TicketFilters):
    """The query of GET /api/projects/{project_id}/tickets."""

    limit: Annotated[Number, Field(ge=1, le=2000)] = 1000
    # Not with a cursor (operations.py).
    offset: Annotated[Number, Field(ge=0, lt=2**63)] | None = None
    ship: Annotated[list[Ship], comma_list, Field(min_length=1, max_length=4)] | None = None
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


class TicketChanges(Declared, Aliased):
    """The body of a PATCH. Null clears the members that may be None; no other may be null.

    A default here only makes a member optional: only those that are set are changed.
    """

    title: Title = ""
    description: Description = ""
    request_type: RequestTypeMember = "bug"
    priority: PriorityMember = "medium"
    blocking: bool = False
    evidence: JsonObject | None = None
    suggested_resolution: Suggestion = None
    implementation_notes: Note | None = None
    stage: Stage = "backlog"
    status: Status = "open"
    work_started_note: StartNote | None = None
    resolution_note: Note | None = None
    # Null of an open ticket alone, which has none (lifecycle.py).
    resolution_type: ResolutionType | None = None
    role_status: RoleChange | None = None
    milestone_id: Uuid | None = None
    roles: Roles = Field([])
    github_issue_number: Annotated[int, Field(ge=1, lt=2**63), whole] | None = None
    # The ticket's `updated_at` as the caller last read it.
    updated_at: Instant | None = None


class BulkChange(Creation, Declared):
    """The body of a bulk move or close."""

    action: Literal["move", "close"]
    ticket_ids: Annotated[list[NamedTicket], Field(min_length=1, max_length=100)]
    stage: Stage | None = None
    skip_pending_roles: bool = False
    resolution_note: Note | None = None
    # None: of a close, `completed` (lifecycle.py). A move to another stage than live takes none.
    resolution_type: ResolutionType | None = None
    work_started_note: StartNote | None = None


class Deployment(Creation, Declared):
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
