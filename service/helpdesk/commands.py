"""What comes in to the helpdesk API: every bound, vocabulary and default (contracts/helpdesk.md)."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from service.fields import Command, IdempotencyHeader, Instant, JsonTags, Number, OpaqueId, Section, without_nul
from service.jsontext import JsonText

Type = Literal["incident", "service_request", "change", "problem"]
Status = Literal["open", "in_progress", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]
SourceType = Literal["frontend", "backend", "server", "system", "api"]

Title = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]
Description = Annotated[str, StringConstraints(max_length=65_536), without_nul]
Category = Annotated[str, StringConstraints(max_length=255), without_nul]
Source = Annotated[str, StringConstraints(min_length=1, max_length=64), without_nul]
ResolutionNote = Annotated[str, StringConstraints(max_length=5_000), without_nul]


class TicketPath(Section):
    """The path of one ticket: its id or its number. Without bounds: what is neither is not found, and not invalid."""

    id: str = ""


class TicketChanges(Section):
    """The body of a PATCH: what is not set stays; null clears the members that may be None."""

    title: Title = ""
    description: Description | None = None
    type: Type = "incident"
    status: Status = "open"
    priority: Priority = "medium"
    category: Category | None = None
    assigned_to_id: OpaqueId | None = None
    team_id: OpaqueId | None = None
    sla_policy: OpaqueId | None = None
    due_at: Instant | None = None
    related_asset_id: OpaqueId | None = None
    related_vulnerability_id: OpaqueId | None = None
    tags: JsonTags = JsonText("[]")
    source_type: SourceType = "api"


class NewTicket(TicketChanges):
    """The body of a POST: what may be changed later, and what may not."""

    title: Title
    # None: the caller.
    submitted_by_id: OpaqueId | None = None
    source: Source = "edm"


class Closing(Section):
    """The body of a close."""

    resolution_note: ResolutionNote | None = None


class TicketPage(Section):
    """The query of a list."""

    limit: Annotated[Number, Field(ge=1, le=100)] = 20
    cursor: str | None = None


class ListTickets(Command):
    """GET /api/v1/helpdesk/tickets."""

    query: TicketPage


class GetTicket(Command):
    """GET /api/v1/helpdesk/tickets/{id}."""

    path: TicketPath


class CreateTicket(Command):
    """POST /api/v1/helpdesk/tickets."""

    header: IdempotencyHeader
    body: NewTicket


class UpdateTicket(Command):
    """PATCH /api/v1/helpdesk/tickets/{id}."""

    path: TicketPath
    body: TicketChanges


class CloseTicket(Command):
    """POST /api/v1/helpdesk/tickets/{id}/close."""

    path: TicketPath
    body: Closing = Closing()
