"""The commands of the helpdesk API: every bound, vocabulary and default of its inputs (contracts/helpdesk.md)."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from service import fields
from service.fields import (
    Aliased,
    Creation,
    Etag,
    IdempotencyHeader,
    Instant,
    OpaqueId,
    Page,
    PersonId,
    Resumable,
    Section,
    Words,
    WriteHeaders,
    distinct,
    other_name,
)
from service.helpdesk.fields import (
    AnyOf,
    Body,
    Category,
    CommentBody,
    Description,
    EndTime,
    FilterText,
    Flag,
    Holiday,
    Minutes,
    ResolutionNote,
    Source,
    Tags,
    TicketNumber,
    Time,
    TimeZone,
    Title,
)
from service.jsontext import JsonText

Type = Literal["incident", "service_request", "change", "problem"]
Status = Literal["open", "in_progress", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]
Sort = Literal["-created_at", "created_at", "-updated_at", "due_at", "-priority"]
PolicyStatus = Literal["active", "inactive"]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
SourceType = Literal["frontend", "backend", "server", "system", "api"]


class TicketPath(Section):
    """The path of one ticket: its id or its number. Without bounds: any other text is not found, not invalid."""

    id: str = ""


def _end_after_start(hours: "Hours") -> "Hours":
    if hours.start >= hours.end:
        raise PydanticCustomError("hours", "Input should end after it starts; 24:00 is the end of the day")
    return hours


class Command(fields.Command):
    """A command of this API: names that it does not know are refused."""

    refuses_unknown: ClassVar[bool] = True


class OfTicket(Body):
    """A body about a ticket."""

    stamped: ClassVar[frozenset[str]] = frozenset(
        {
            *("id", "tenant_id", "app_id", "created_at", "updated_at", "created_by", "updated_by", "is_deleted"),
            *("deleted_at", "deleted_by", "schema_version", "number", "first_response_at", "resolved_at"),
        }
    )


class TicketMembers(OfTicket):
    """The members of a ticket that a POST and a PATCH may set.

    A default here only makes a member optional: a PATCH changes the members that are set, and a POST says itself which
    it requires.
    """

    title: Title = ""
    description: Description | None = None
    type: Type = "incident"
    status: Status = "open"
    priority: Priority = "medium"
    category: Category | None = None
    assigned_to_id: PersonId | None = None
    team_id: OpaqueId | None = None
    # Never "". In a POST, None means the active policy for priority and type; in a PATCH, no SLA.
    sla_policy: OpaqueId | None = None
    due_at: Instant | None = None
    related_asset_id: OpaqueId | None = None
    related_vulnerability_id: OpaqueId | None = None
    # Null clears them too: then there are none.
    tags: Tags = JsonText("[]")
    source: Source = "edm"
    source_type: SourceType = "api"


class TicketChanges(TicketMembers):
    """The body of a PATCH: members that are left out stay; null clears those that may be None."""

    submitted_by_id: PersonId = ""
    # The same condition as `If-Match`.
    etag: Etag | None = None


class NewTicket(Creation, TicketMembers):
    """The body of a POST."""

    title: Title
    # None: the caller.
    submitted_by_id: PersonId | None = None


class Closing(Creation, OfTicket):
    """The body of a close."""

    resolution_note: ResolutionNote | None = None
    etag: Etag | None = None


class Condition(OfTicket):
    """A condition without other members: the same as `If-Match`."""

    etag: Etag | None = None


class GetTicketQuery(Section):
    """The query of a get."""

    include_deleted: Flag = False


class CommentPath(TicketPath):
    """The path of one comment."""

    comment_id: str = ""


class CommentChange(Body):
    """What a comment and its edit say."""

    stamped: ClassVar[frozenset[str]] = frozenset({"id", "ticket_id", "author_id", "created_at", "updated_at"})

    body: CommentBody


class CommentEdit(CommentChange):
    """The body of an edit, which may be all that was read."""

    # As it is already (comments.py).
    internal: bool = False


class NewComment(Creation, CommentChange):
    """The body of a comment."""

    internal: bool = False


class PolicyPath(Section):
    """The path of one SLA policy. Without bounds: any other text is not found, not invalid."""

    id: str = ""


_FIRST_RESPONSE_MINS = other_name("first_response_minutes", "first_response_mins")
_RESOLUTION_MINS = other_name("resolution_minutes", "resolution_mins")


class PolicyMembers(Aliased, Body):
    """The members of an SLA policy that a POST and a PATCH may set."""

    stamped: ClassVar[frozenset[str]] = frozenset(
        {"id", "tenant_id", "created_at", "created_by", "updated_at", "updated_by"}
    )

    name: Title = ""
    description: Description | None = None
    # Empty: all types.
    applies_to: Annotated[list[Type], Field(max_length=len(get_args(Type))), distinct] = Field(default_factory=list)
    priority: Priority = "medium"
    # None: no target for the first response.
    first_response_minutes: Annotated[Minutes | None, _FIRST_RESPONSE_MINS] = None
    resolution_minutes: Annotated[Minutes, _RESOLUTION_MINS] = 1
    business_hours_only: bool = False
    status: PolicyStatus = "active"


class NewPolicy(Creation, PolicyMembers):
    """The body of a POST."""

    name: Title
    priority: Priority
    resolution_minutes: Annotated[Minutes, _RESOLUTION_MINS]


class Hours(Body):
    """One interval of business hours, in local time of the calendar's time zone."""

    weekday: Weekday
    start: Time
    end: EndTime


_OFFICE_HOURS = [Hours(weekday=weekday, start="09:00", end="17:00") for weekday in get_args(Weekday)[:5]]


class CalendarMembers(Body):
    """The body of a PATCH of the calendar; its defaults are the default calendar."""

    stamped: ClassVar[frozenset[str]] = frozenset({"tenant_id", "updated_at", "updated_by"})

    time_zone: TimeZone = "UTC"
    hours: Annotated[list[Annotated[Hours, AfterValidator(_end_after_start)]], Field(max_length=100)] = _OFFICE_HOURS
    holidays: Annotated[list[Holiday], Field(max_length=1000)] = Field(default_factory=list)


class TicketQuery(Page):
    """The query of the list of tickets."""

    status: AnyOf[Status] | None = None
    type: AnyOf[Type] | None = None
    priority: AnyOf[Priority] | None = None
    category: AnyOf[FilterText] | None = None
    # `none`: unassigned.
    assigned_to_id: AnyOf[PersonId] | None = None
    team_id: AnyOf[OpaqueId] | None = None
    submitted_by_id: AnyOf[PersonId] | None = None
    related_asset_id: AnyOf[OpaqueId] | None = None
    related_vulnerability_id: AnyOf[OpaqueId] | None = None
    app_id: AnyOf[OpaqueId] | None = None
    sla_policy: AnyOf[OpaqueId] | None = None
    source: AnyOf[Source] | None = None
    number: AnyOf[TicketNumber] | None = None
    tag: FilterText | None = None
    q: Words | None = None
    created_after: Instant | None = None
    created_before: Instant | None = None
    updated_since: Instant | None = None
    overdue: Flag = False
    include_deleted: Flag = False
    sort: Sort = "-created_at"


class PolicyQuery(Page):
    """The query of the list of SLA policies."""

    status: PolicyStatus | None = None


class ListTickets(Command):
    """GET /api/v1/helpdesk/tickets."""

    query: TicketQuery


class GetTicket(Command):
    """GET /api/v1/helpdesk/tickets/{id}."""

    path: TicketPath
    query: GetTicketQuery


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
    header: IdempotencyHeader = IdempotencyHeader()
    body: CommentEdit


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

    query: Resumable


class GetTicketSla(Command):
    """GET /api/v1/helpdesk/tickets/{id}/sla."""

    path: TicketPath


class ListSlaPolicies(Command):
    """GET /api/v1/helpdesk/sla-policies."""

    query: PolicyQuery


class GetSlaPolicy(Command):
    """GET /api/v1/helpdesk/sla-policies/{id}."""

    path: PolicyPath


class CreateSlaPolicy(Command):
    """POST /api/v1/helpdesk/sla-policies."""

    header: IdempotencyHeader
    body: NewPolicy


class UpdateSlaPolicy(Command):
    """PATCH /api/v1/helpdesk/sla-policies/{id}."""

    path: PolicyPath
    header: IdempotencyHeader = IdempotencyHeader()
    body: PolicyMembers


class GetCalendar(Command):
    """GET /api/v1/helpdesk/calendar."""


class UpdateCalendar(Command):
    """PATCH /api/v1/helpdesk/calendar."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: CalendarMembers
