"""Row → documented JSON of a handoff ticket (contracts/handoff.md, Ticket), and the answers of the operations."""

import re
from datetime import datetime
from typing import Any, NotRequired, TypedDict, cast
from uuid import UUID

import orjson

from service.directory import RoleName
from service.handoff import rights
from service.handoff.commands import Priority, RequestType, ResolutionType, RoleStatus, Stage, Status
from service.jsontext import JsonText
from service.storage.statement import Row

_SUMMARY_LENGTH = 140
_WHOLE_WORDS = re.compile(r".{0,139}\S(?=\s)")


class Role(TypedDict):
    """One role's part in a ticket."""

    # Ids as text: the database makes the JSON.
    handoff_request_id: str
    id: str
    role: RoleName
    status: RoleStatus
    assignee_user_id: str | None
    assignee_note: str | None
    blocking_reason: str | None
    work_started_note: str | None
    agent_origin: str | None
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime


class _TicketColumns(TypedDict):
    """The members of a ticket that are columns of its row, its project's included."""

    id: UUID
    project_id: UUID
    billing_account_id: UUID
    milestone_id: UUID | None
    source: str
    number: int
    title: str
    # Absent in a slim list.
    description: NotRequired[str]
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
    resolution_type: ResolutionType | None
    reported_by_user_id: UUID | None
    suggested_resolution: str | None
    implementation_notes: str | None
    resolution_note: str | None
    resolved_at: datetime | None
    evidence: JsonText | None
    project_name: str
    backend_repo: str | None
    frontend_repo: str | None
    github_issue_number: int | None


class Ticket(_TicketColumns):
    """A ticket as its caller sees it."""

    # The names that older clients know.
    category: RequestType
    severity: Priority
    suggested_backend_change: str | None
    roles: list[Role]
    ticket_ref: str
    can_triage: bool
    github_issue_url: str | None
    # In lists only.
    summary: NotRequired[str]


class TicketAnswer(TypedDict):
    """One ticket."""

    ticket: Ticket


class TicketPage(TypedDict):
    """A page of tickets."""

    tickets: list[Ticket]
    next_cursor: str | None


class BulkError(TypedDict):
    """Why one ticket of a bulk change was left as it was; `id` as the request has it."""

    id: str
    error: str
    code: str


class BulkAnswer(TypedDict):
    """How many tickets are now as asked, and which are not."""

    updated: int
    errors: list[BulkError]


class TicketEvent(TypedDict):
    """One change of a ticket."""

    project_id: UUID
    ticket_id: UUID
    version: int
    type: str
    changes: JsonText
    actor: str
    actor_role: str | None
    actor_id: str | None
    agent_origin: str | None
    request_id: str
    created_at: datetime


class EventPage(TypedDict):
    """A page of a ticket's history."""

    events: list[TicketEvent]
    next_cursor: str | None


class WatchMessage(TypedDict):
    """One event, or a heartbeat without one."""

    event: TicketEvent | None
    cursor: str
    behind_seconds: NotRequired[int]


_COLUMNS = tuple(_TicketColumns.__annotations__)
_EVENT_COLUMNS = tuple(TicketEvent.__annotations__)
_ROLE_TIMES = ("started_at", "completed_at", "created_at", "updated_at")


def roles(row: Row) -> list[Role]:
    """The roles of a ticket as it was read."""
    return [] if row["roles"] is None else [_role(role) for role in orjson.loads(row["roles"].text)]


def ticket(row: Row) -> Ticket:
    """The detail form of a ticket with its roles in the documented form."""
    return _ticket(row, row["roles"])


def _ticket(row: Row, roles: list[Role]) -> Ticket:
    view = cast(Ticket, {name: row[name] for name in _COLUMNS})
    view["category"] = row["request_type"]
    view["severity"] = row["priority"]
    view["suggested_backend_change"] = row["suggested_resolution"]
    view["roles"] = roles
    view["ticket_ref"] = f"HO-{row['number']}-{row['project_slug']}"
    view["can_triage"] = rights.may_triage(row["member_role"])
    is_linked = row["github_issue_number"] is not None and row["github_repo"] is not None
    view["github_issue_url"] = (
        f"https://github.com/{row['github_repo']}/issues/{row['github_issue_number']}" if is_linked else None
    )
    return view


def listed_ticket(row: Row, *, slim: bool) -> Ticket:
    """The list form: with a summary, and without the description when `slim`."""
    view = _ticket(row, roles(row))
    view["summary"] = summary(row["description"])
    if slim:
        del view["description"]
    return view


def event(row: Row) -> TicketEvent:
    """One change of a ticket."""
    return cast(TicketEvent, {name: row[name] for name in _EVENT_COLUMNS})


def summary(description: str) -> str:
    """The first line of a description, at most 140 characters, whole words."""
    line = next(iter(description.strip().splitlines()), "").rstrip()
    if len(line) <= _SUMMARY_LENGTH:
        return line
    whole_words = _WHOLE_WORDS.match(line)
    return whole_words[0] if whole_words else line[:_SUMMARY_LENGTH]


def _role(role: dict[str, Any]) -> Role:
    times = {name: datetime.fromisoformat(role[name]) for name in _ROLE_TIMES if role[name] is not None}
    return cast(Role, role | times)
