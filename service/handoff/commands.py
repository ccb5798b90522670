"""What comes in to the handoff API: every bound, vocabulary and default (contracts/handoff.md)."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from service.directory import RoleName
from service.fields import Command, IdempotencyHeader, JsonObject, Number, Section, Uuid, distinct, without_nul

RequestType = Literal["bug", "feature_request", "clarification_needed", "decision_needed"]
Status = Literal["open", "closed"]
Stage = Literal["backlog", "up_next", "in_progress", "validation", "live"]
Priority = Literal["low", "medium", "high"]
RoleStatus = Literal["pending", "in_progress", "done", "skipped"]
ResolutionType = Literal["completed", "already_done", "duplicate", "wont_fix", "no_longer_relevant", "cancelled"]

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=140), without_nul]
Description = Annotated[str, StringConstraints(min_length=1, max_length=20_000), without_nul]
Note = Annotated[str, StringConstraints(max_length=5_000), without_nul]
Provenance = Annotated[str, StringConstraints(max_length=64), without_nul]


class ProjectPath(Section):
    """The path of one project's tickets."""

    project_id: Uuid


class NewTicket(Section):
    """The body of a POST."""

    title: Title
    description: Description
    request_type: RequestType
    # Empty: the project's default roles, save for bots, who must name some (operations.py).
    roles: Annotated[list[RoleName], Field(max_length=7), distinct] = Field([])
    priority: Priority = "medium"
    blocking: bool = False
    evidence: JsonObject | None = None
    suggested_resolution: Note | None = None
    implementation_notes: Note | None = None
    actor_role: Provenance = "user"
    # None: the caller.
    actor_id: Annotated[str, StringConstraints(max_length=128), without_nul] | None = None
    source: Provenance = "portal"


class TicketQuery(Section):
    """The query of a list."""

    slim: Annotated[bool, Field(strict=False)] = False
    limit: Annotated[Number, Field(ge=1, le=1000)] = 100
    cursor: str | None = None


class CreateTicket(Command):
    """POST /api/projects/{project_id}/tickets."""

    path: ProjectPath
    header: IdempotencyHeader
    body: NewTicket


class ListTickets(Command):
    """GET /api/tickets."""

    query: TicketQuery
