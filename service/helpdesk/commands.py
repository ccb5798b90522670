"""What comes in to the helpdesk API: every bound, vocabulary and default (contracts/helpdesk.md)."""

from typing import Annotated, Literal, TypeVar

from pydantic import Field, StringConstraints

from service.fields import (
    Command,
    IdempotencyHeader,
    Instant,
    JsonTags,
    Number,
    OpaqueId,
    Section,
    WriteHeaders,
    comma_list,
    without_nul,
)
from service.jsontext import JsonText

Type = Literal["incident", "service_request", "change", "problem"]
Status = Literal["open", "in_progress", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]
Sort = Literal["-created_at", "created_at", "-updated_at", "due_at", "-priority"]
SourceType = Literal["frontend", "backend", "server", "system", "api"]

Title = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]
Description = Annotated[str, StringConstraints(max_length=65_536), without_nul]
Category = Annotated[str, StringConstraints(max_length=255), without_nul]
Source = Annotated[str, StringConstraints(min_length=1, max_length=64), without_nul]
CommentBody = Annotated[str, StringConstraints(min_length=1, max_length=65_536), without_nul]
Etag = Annotated[str, StringConstraints(max_length=64)]
ResolutionNote = Annotated[str, StringConstraints(max_length=5_000), without_nul]

T = TypeVar("T")
# A filter: any of what is named.
AnyOf = Annotated[list[T], comma_list, Field(min_length=1, max_length=50)]
Flag = Annotated[bool, Field(strict=False)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]


class TicketPath(Section):
    """The path of one ticket: its id or its number. Without bounds: what is neither is not found, and not invalid."""

    id: str = ""


class TicketMembers(Section):
    """What a caller may say of a ticket, in a POST and in a PATCH."""

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


class TicketChanges(TicketMembers):
    """The body of a PATCH: what is not set stays; null clears the members that may be None."""

    # As `If-Match`.
    etag: Etag | None = None


class NewTicket(TicketMembers):
    """The body of a POST: what may be changed later, and what may not."""

    title: Title
    # None: the caller.
    submitted_by_id: OpaqueId | None = None
    source: Source = "edm"


class Closing(Section):
    """The body of a close."""

    resolution_note: ResolutionNote | None = None
    etag: Etag | None = None


class Condition(Section):
    """The query of what has no body: as `If-Match`."""

    etag: Etag | None = None


class TicketView(Section):
    """The query of a get."""

    include_deleted: Flag = False


class CommentPath(TicketPath):
    """The path of one comment."""

    comment_id: str = ""


class NewComment(Section):
    """The body of a comment."""

    body: CommentBody
    internal: bool = False


class CommentChange(Section):
    """The body of an edit."""

    body: CommentBody


class WatchQuery(Section):
    """The query of a watch."""

    cursor: str | None = None


class Page(Section):
    """The part of a list that is wanted."""

    limit: Annotated[Number, Field(ge=1, le=100)] = 20
    cursor: str | None = None


class TicketQuery(Page):
    """The query of the list of tickets."""

    status: AnyOf[Status] | None = None
    type: AnyOf[Type] | None = None
    priority: AnyOf[Priority] | None = None
    category: AnyOf[Word] | None = None
    # `none`: of nobody.
    assigned_to_id: AnyOf[OpaqueId] | None = None
    team_id: AnyOf[OpaqueId] | None = None
    submitted_by_id: AnyOf[OpaqueId] | None = None
    tag: Word | None = None
    q: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), without_nul] | None = None
    created_after: Instant | None = None
    created_before: Instant | None = None
    updated_since: Instant | None = None
    overdue: Flag = False
    include_deleted: Flag = False
    sort: Sort = "-created_at"


class ListTickets(Command):
    """GET /api/v1/helpdesk/tickets."""

    query: TicketQuery


class GetTicket(Command):
    """GET /api/v1/helpdesk/tickets/{id}."""

    path: TicketPath
    query: TicketView


class CreateTicket(Command):
    """POST /api/v1/helpdesk/tickets."""

    header: IdempotencyHeader
    body: NewTicket


class UpdateTicket(Command):
    """PATCH /api/v1/helpdesk/tickets/{id}."""

    path: TicketPath
    header: WriteHeaders
    body: TicketChanges


class CloseTicket(Command):
    """POST /api/v1/helpdesk/tickets/{id}/close."""

    path: TicketPath
    header: WriteHeaders
    body: Closing = Closing()


class DeleteTicket(Command):
    """DELETE /api/v1/helpdesk/tickets/{id}."""

    path: TicketPath
    header: WriteHeaders
    query: Condition


class RestoreTicket(Command):
    """POST /api/v1/helpdesk/tickets/{id}/restore."""

    path: TicketPath
    header: WriteHeaders
    body: Condition = Condition()


class CreateComment(Command):
    """POST /api/v1/helpdesk/tickets/{id}/comments."""

    path: TicketPath
    header: IdempotencyHeader
    body: NewComment


class UpdateComment(Command):
    """PATCH /api/v1/helpdesk/tickets/{id}/comments/{comment_id}."""

    path: CommentPath
    body: CommentChange


class ListComments(Command):
    """GET /api/v1/helpdesk/tickets/{id}/comments."""

    path: TicketPath
    query: Page


class ListTicketEvents(Command):
    """GET /api/v1/helpdesk/tickets/{id}/events."""

    path: TicketPath
    query: Page


class WatchTickets(Command):
    """GET /api/v1/helpdesk/events."""

    query: WatchQuery
