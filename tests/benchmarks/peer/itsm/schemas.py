"""What comes in and goes out."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, EmailStr, Field

Status = Literal["open", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]
Subject = Annotated[str, Field(min_length=1, max_length=255)]
Description = Annotated[str, Field(min_length=1)]


def _in_utc(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_in_utc)]


class NewTicket(BaseModel):
    """The body of a POST."""

    subject: Subject
    description: Description
    status: Status = "open"
    priority: Priority | None = None
    requester_email: EmailStr | None = None
    metadata: dict[str, Any] = {}


class TicketChanges(BaseModel):
    """The body of a PATCH: what is not set stays."""

    subject: Subject = ""
    description: Description = ""
    status: Status = "open"
    priority: Priority | None = None
    requester_email: EmailStr | None = None
    metadata: dict[str, Any] = {}


class TicketFilter(BaseModel):
    """The query of a list."""

    status: Status | None = None
    start_date: Instant | None = None
    end_date: Instant | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    offset: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0


class Ticket(BaseModel):
    """A ticket as it is answered."""

    id: UUID
    subject: str
    description: str
    status: Status
    priority: Priority | None
    requester_email: str | None
    external_provider: str | None
    external_ticket_id: str | None
    external_ticket_url: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class TicketPage(BaseModel):
    """One page of tickets, and how many match on all pages together."""

    tickets: list[Ticket]
    total: int
    limit: int
    offset: int
