"""What comes in and goes out."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Type = Literal["incident", "service_request", "change", "problem"]
Status = Literal["open", "in_progress", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]
Title = Annotated[str, Field(min_length=1, max_length=255)]
OpaqueId = Annotated[str, Field(min_length=1, max_length=64)]


class NewTicket(BaseModel):
    """The body of a POST."""

    model_config = ConfigDict(extra="forbid")

    title: Title
    description: str | None = None
    type: Type = "incident"
    status: Status = "open"
    priority: Priority = "medium"
    category: str | None = None
    submitted_by_id: OpaqueId | None = None
    assigned_to_id: OpaqueId | None = None
    team_id: OpaqueId | None = None
    related_asset_id: OpaqueId | None = None
    related_vulnerability_id: OpaqueId | None = None
    tags: Any = []
    source: str = "edm"
    source_type: Literal["frontend", "backend", "server", "system", "api"] = "api"


class TicketChanges(BaseModel):
    """The body of a PATCH: what is not set stays."""

    model_config = ConfigDict(extra="forbid")

    title: Title = ""
    description: str | None = None
    status: Status = "open"
    category: str | None = None
    assigned_to_id: OpaqueId | None = None
    team_id: OpaqueId | None = None
    tags: Any = []


class TicketFilter(BaseModel):
    """The query of a list."""

    model_config = ConfigDict(extra="forbid")

    status: Status | None = None
    priority: Priority | None = None
    assigned_to_id: OpaqueId | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: str | None = None


class Ticket(BaseModel):
    """A ticket as it is answered; one that a person has raised has no `app_id`."""

    id: str
    tenant_id: str
    app_id: str | None = None
    created_at: datetime
    updated_at: datetime
    created_by: str
    updated_by: str
    source: str
    source_type: str
    is_deleted: bool
    deleted_at: datetime | None
    deleted_by: str | None
    schema_version: int
    number: str
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


class TicketPage(BaseModel):
    """One page of tickets."""

    tickets: list[Ticket]
    next_cursor: str | None
