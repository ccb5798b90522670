"""Row → documented JSON of a helpdesk ticket, its comments and its events (contracts/helpdesk.md)."""

from datetime import datetime
from typing import NotRequired, TypedDict, cast

from service.helpdesk.commands import Priority, SourceType, Status, Type
from service.jsontext import JsonText
from service.storage.statement import Row

_SCHEMA_VERSION = 1


class Ticket(TypedDict):
    """A ticket. Every member is always there but `app_id`, which a ticket created by a person does not have."""

    id: str
    tenant_id: str
    app_id: NotRequired[str]
    created_at: datetime
    updated_at: datetime
    created_by: str
    updated_by: str
    source: str
    source_type: SourceType
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
    tags: JsonText


class TicketPage(TypedDict):
    """One page of a list of tickets."""

    tickets: list[Ticket]
    next_cursor: str | None


class Comment(TypedDict):
    """A comment; `updated_at` is null until it is edited."""

    id: str
    ticket_id: str
    body: str
    internal: bool
    author_id: str
    created_at: datetime
    updated_at: datetime | None


class CommentPage(TypedDict):
    """One page of a ticket's comments."""

    comments: list[Comment]
    next_cursor: str | None


class TicketEvent(TypedDict):
    """One change of a ticket."""

    tenant_id: str
    ticket_id: str
    version: int
    type: str
    changes: JsonText
    actor: str
    request_id: str
    created_at: datetime


class TicketEventPage(TypedDict):
    """One page of a ticket's history."""

    events: list[TicketEvent]
    next_cursor: str | None


class WatchMessage(TypedDict):
    """One message of a watch: an event, or a heartbeat without one, and the cursor after it."""

    event: TicketEvent | None
    cursor: str
    behind_seconds: NotRequired[int]


# Members of a ticket that are not its columns as they are.
_COMPUTED = ("app_id", "number", "schema_version")
_TICKET_COLUMNS = tuple(name for name in Ticket.__annotations__ if name not in _COMPUTED)
_COMMENT_COLUMNS = tuple(Comment.__annotations__)
_EVENT_COLUMNS = tuple(TicketEvent.__annotations__)


def ticket(row: Row) -> Ticket:
    """The ticket of a row."""
    view = cast(Ticket, {name: row[name] for name in _TICKET_COLUMNS})
    view["schema_version"] = _SCHEMA_VERSION
    view["number"] = f"TKT-{row['number']:04d}"
    if row["app_id"] is not None:
        view["app_id"] = row["app_id"]
    return view


def etag(row: Row) -> str:
    """The ETag of a ticket: its version, without what only agents see, for agents too: it is not in the ticket."""
    # (An answer that was stored before migration 0013 has no such count.)
    return f'"{row["version"] - (row["internal_changes"] or 0)}"'


def comment(row: Row) -> Comment:
    """The comment of a row."""
    return cast(Comment, {name: row[name] for name in _COMMENT_COLUMNS})


def event(row: Row) -> TicketEvent:
    """The event of a row."""
    return cast(TicketEvent, {name: row[name] for name in _EVENT_COLUMNS})
