"""What comes in and goes out."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

RequestType = Literal["bug", "feature_request", "clarification_needed", "decision_needed"]
Stage = Literal["backlog", "up_next", "in_progress", "validation", "live"]
Status = Literal["open", "closed"]
Priority = Literal["low", "medium", "high"]
RoleName = Literal["frontend", "backend", "design", "devops", "qa", "test", "other"]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=140)]
Description = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
Note = Annotated[str, StringConstraints(max_length=5_000)]
StartNote = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5_000)]


class NewTicket(BaseModel):
    """The body of a POST."""

    title: Title
    description: Description
    request_type: RequestType
    # Empty: the project's default roles.
    roles: Annotated[list[RoleName], Field(max_length=7)] = []
    priority: Priority = "medium"
    blocking: bool = False
    evidence: dict[str, Any] | None = None
    suggested_resolution: Note | None = None
    implementation_notes: Note | None = None
    actor_role: Annotated[str, Field(max_length=64)] | None = None
    actor_id: Annotated[str, Field(max_length=128)] | None = None
    source: Annotated[str, Field(max_length=64)] | None = None


class TicketChanges(BaseModel):
    """The body of a PATCH: what is not set stays. `updated_at` is the ticket's as the caller has read it."""

    title: Title = ""
    description: Description = ""
    request_type: RequestType = "bug"
    priority: Priority = "medium"
    blocking: bool = False
    evidence: dict[str, Any] | None = None
    suggested_resolution: Note | None = None
    implementation_notes: Note | None = None
    stage: Stage = "backlog"
    work_started_note: StartNote | None = None
    resolution_note: Note | None = None
    updated_at: datetime | None = None


class TicketFilter(BaseModel):
    """The query of a project's list."""

    status: Status | None = None
    priority: Priority | None = None
    request_type: RequestType | None = None
    limit: Annotated[int, Field(ge=1, le=2000)] = 1000
    cursor: str | None = None


class Role(BaseModel):
    """One role's part in a ticket."""

    handoff_request_id: UUID
    id: UUID
    role: RoleName
    status: str
    assignee_user_id: UUID | None
    assignee_note: str | None
    blocking_reason: str | None
    work_started_note: str | None
    agent_origin: str | None
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Ticket(BaseModel):
    """A ticket as its caller sees it; `summary` is in lists only."""

    id: UUID
    project_id: UUID
    billing_account_id: UUID
    milestone_id: UUID | None
    source: str
    number: int
    title: str
    description: str
    request_type: RequestType
    status: Status
    stage: Stage
    priority: Priority
    blocking: bool
    created_at: datetime
    updated_at: datetime | None
    merge_sha: str | None
    deployed_at: datetime | None
    deploy_failed_at: datetime | None
    resolution_type: str | None
    reported_by_user_id: UUID | None
    suggested_resolution: str | None
    implementation_notes: str | None
    resolution_note: str | None
    resolved_at: datetime | None
    evidence: dict[str, Any] | None
    project_name: str
    backend_repo: str | None
    frontend_repo: str | None
    github_issue_number: int | None
    category: RequestType
    severity: Priority
    suggested_backend_change: str | None
    roles: list[Role]
    ticket_ref: str
    can_triage: bool
    github_issue_url: str | None
    summary: str = ""


class TicketAnswer(BaseModel):
    """One ticket."""

    ticket: Ticket


class TicketPage(BaseModel):
    """A page of tickets."""

    tickets: list[Ticket]
    next_cursor: str | None
