"""The commands of the helpdesk API: every bound, vocabulary and default of its inputs (contracts/helpdesk.md)."""

import re
from datetime import date
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from service.fields import (
    Command,
    Creation,
    IdempotencyHeader,
    Instant,
    JsonTags,
    OpaqueId,
    Page,
    PersonId,
    Resumable,
    Section,
    Words,
    WriteHeaders,
    comma_list,
    distinct,
    without_nul,
)
from service.jsontext import JsonText

Type = Literal["incident", "service_request", "change", "problem"]
Status = Literal["open", "in_progress", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]
Sort = Literal["-created_at", "created_at", "-updated_at", "due_at", "-priority"]
PolicyStatus = Literal["active", "inactive"]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
SourceType = Literal["frontend", "backend", "server", "system", "api"]

Title = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]
Description = Annotated[str, StringConstraints(max_length=65_536), without_nul]
Category = Annotated[str, StringConstraints(max_length=255), without_nul]
Source = Annotated[str, StringConstraints(min_length=1, max_length=64), without_nul]
CommentBody = Annotated[str, StringConstraints(min_length=1, max_length=65_536), without_nul]
Etag = Annotated[str, StringConstraints(max_length=64)]
ResolutionNote = Annotated[str, StringConstraints(max_length=5_000), without_nul]

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _iso_date(value: Any) -> Any:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise PydanticCustomError("date_parsing", "Input should be a date, such as 2030-12-25")
    return value


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _iana(name: str) -> str:
    if name not in _time_zones():
        raise PydanticCustomError("time_zone", "Input should be an IANA time zone, such as Europe/Berlin")
    return name


def _end_after_start(hours: "Hours") -> "Hours":
    if hours.start >= hours.end:
        raise PydanticCustomError("hours", "Input should end after it starts; 24:00 is the end of the day")
    return hours


Holiday = Annotated[date, BeforeValidator(_iso_date), Field(strict=False)]
TimeZone = Annotated[str, AfterValidator(_iana)]
# Local times; as text they sort by time.
Time = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
EndTime = Annotated[str, StringConstraints(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
# At most a year.
Minutes = Annotated[int, Field(ge=1, le=525_600)]

T = TypeVar("T")
# A filter for any of several values.
AnyOf = Annotated[list[T], comma_list, Field(min_length=1, max_length=50)]
Flag = Annotated[bool, Field(strict=False)]
FilterText = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]


class TicketPath(Section):
    """The path of one ticket: its id or its number. Without bounds: any other text is not found, not invalid."""

    id: str = ""


class TicketMembers(Section):
    """The members of a ticket that a POST and a PATCH may set."""

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
    tags: JsonTags = JsonText("[]")
    source_type: SourceType = "api"


class TicketChanges(TicketMembers):
    """The body of a PATCH: members that are left out stay; null clears those that may be None."""

    # The same condition as `If-Match`.
    etag: Etag | None = None


class NewTicket(Creation, TicketMembers):
    """The body of a POST: the members that can be changed later, and those that cannot."""

    title: Title
    # None: the caller.
    submitted_by_id: PersonId | None = None
    source: Source = "edm"


class Closing(Creation):
    """The body of a close."""

    resolution_note: ResolutionNote | None = None
    etag: Etag | None = None


class Condition(Section):
    """A condition without other members: the same as `If-Match`."""

    etag: Etag | None = None


class GetTicketQuery(Section):
    """The query of a get."""

    include_deleted: Flag = False


class CommentPath(TicketPath):
    """The path of one comment."""

    comment_id: str = ""


class NewComment(Creation):
    """The body of a comment."""

    body: CommentBody
    internal: bool = False


class CommentChange(Section):
    """The body of an edit."""

    body: CommentBody


class PolicyPath(Section):
    """The path of one SLA policy. Without bounds: any other text is not found, not invalid."""

    id: str = ""


class PolicyMembers(Section):
    """The members of an SLA policy that a POST and a PATCH may set."""

    name: Title = ""
    description: Description | None = None
    # Empty: all types.
    applies_to: Annotated[list[Type], Field(max_length=len(get_args(Type))), distinct] = Field(default_factory=list)
    priority: Priority = "medium"
    # None: no target for the first response.
    first_response_minutes: Minutes | None = None
    resolution_minutes: Minutes = 1
    business_hours_only: bool = False
    status: PolicyStatus = "active"


class NewPolicy(Creation, PolicyMembers):
    """The body of a POST."""

    name: Title
    priority: Priority
    resolution_minutes: Minutes


class Hours(Section):
    """One interval of business hours, in local time of the calendar's time zone."""

    weekday: Weekday
    start: Time
    end: EndTime


_OFFICE_HOURS = [Hours(weekday=weekday, start="09:00", end="17:00") for weekday in get_args(Weekday)[:5]]


class CalendarMembers(Section):
    """The body of a PATCH of the calendar; its defaults are the default calendar."""

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
