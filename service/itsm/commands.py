"""What comes in to the ITSM API: every bound, vocabulary and default (contracts/itsm.md)."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from service.fields import Command, Email, IdempotencyHeader, Instant, JsonObject, Number, Section, Uuid, without_nul
from service.jsontext import JsonText

Status = Literal["open", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]

Subject = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]
Description = Annotated[str, StringConstraints(min_length=1), without_nul]

MAX_OFFSET = 2**63 - 1
MAX_NAME_LENGTH = 255

MemberName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH), without_nul]


class TicketPath(Section):
    """The path of one ticket."""

    ticket_id: Uuid


class TicketChanges(Section):
    """The body of a PATCH: what is not set stays."""

    subject: Subject = ""
    description: Description = ""
    status: Status = "open"
    priority: Priority | None = None
    requester_email: Email | None = None
    metadata: JsonObject = JsonText("{}")


class NewTicket(TicketChanges):
    """The body of a POST."""

    subject: Subject
    description: Description


class TicketFilter(Section):
    """The query of a list."""

    status: Status | None = None
    metadata: Annotated[dict[MemberName, Annotated[str, without_nul]], Field(max_length=10)] | None = None
    start_date: Instant | None = None
    end_date: Instant | None = None
    limit: Annotated[Number, Field(ge=1, le=100)] = 20
    offset: Annotated[Number, Field(ge=0, le=MAX_OFFSET)] = 0


class Page(Section):
    """The part of a history that is wanted."""

    limit: Annotated[Number, Field(ge=1, le=100)] = 20
    cursor: str | None = None


class WatchQuery(Section):
    """The query of a watch."""

    cursor: str | None = None


class CreateTicket(Command):
    """POST /api/v1/tickets."""

    header: IdempotencyHeader
    body: NewTicket


class GetTicket(Command):
    """GET /api/v1/tickets/{ticket_id}."""

    path: TicketPath


class ListTickets(Command):
    """GET /api/v1/tickets."""

    query: TicketFilter


class UpdateTicket(Command):
    """PATCH /api/v1/tickets/{ticket_id}."""

    path: TicketPath
    body: TicketChanges


class ListTicketEvents(Command):
    """GET /api/v1/tickets/{ticket_id}/events."""

    path: TicketPath
    query: Page


class WatchTickets(Command):
    """GET /api/v1/events."""

    query: WatchQuery
