"""Row → documented JSON of a handoff ticket (contracts/handoff.md, Ticket)."""

import re
from datetime import datetime
from typing import Any

import orjson

from service.operation import View
from service.storage.statement import Row

_SUMMARY_LENGTH = 140
_WHOLE_WORDS = re.compile(r".{0,139}\S(?=\s)")

_MEMBERS = (
    "id",
    "project_id",
    "billing_account_id",
    "milestone_id",
    "source",
    "number",
    "title",
    "description",
    "request_type",
    "status",
    "stage",
    "priority",
    "blocking",
    "created_at",
    "updated_at",
    "merge_sha",
    "deployed_at",
    "deploy_failed_at",
    "resolution_type",
    "reported_by_user_id",
    "suggested_resolution",
    "implementation_notes",
    "resolution_note",
    "resolved_at",
    "evidence",
    "project_name",
    "backend_repo",
    "frontend_repo",
    "github_issue_number",
)
_EVENT_MEMBERS = (
    "project_id",
    "ticket_id",
    "version",
    "type",
    "changes",
    "actor",
    "actor_role",
    "actor_id",
    "agent_origin",
    "request_id",
    "created_at",
)
_ROLE_TIMES = ("started_at", "completed_at", "created_at", "updated_at")
TRIAGE = ("triager", "owner")


def roles(row: Row) -> list[View]:
    """The roles of a ticket as it was read."""
    return [] if row["roles"] is None else [_role(role) for role in orjson.loads(row["roles"].text)]


def ticket(row: Row) -> View:
    """The detail form of a ticket with its roles in the documented form."""
    view: dict[str, Any] = {name: row[name] for name in _MEMBERS}
    # The names that older clients know.
    view["category"] = row["request_type"]
    view["severity"] = row["priority"]
    view["suggested_backend_change"] = row["suggested_resolution"]
    view["roles"] = row["roles"]
    view["ticket_ref"] = f"HO-{row['number']}-{row['project_slug']}"
    view["can_triage"] = row["member_role"] in TRIAGE
    is_linked = row["github_issue_number"] is not None and row["github_repo"] is not None
    view["github_issue_url"] = (
        f"https://github.com/{row['github_repo']}/issues/{row['github_issue_number']}" if is_linked else None
    )
    return view


def listed_ticket(row: Row, *, slim: bool) -> View:
    """The list form: with a summary, and without the description when `slim`."""
    view = dict(ticket(row | {"roles": roles(row)}))
    view["summary"] = summary(row["description"])
    if slim:
        del view["description"]
    return view


def event(row: Row) -> View:
    """One change of a ticket."""
    return {name: row[name] for name in _EVENT_MEMBERS}


def summary(description: str) -> str:
    """The first line of a description, at most 140 characters, whole words."""
    line = next(iter(description.strip().splitlines()), "").rstrip()
    if len(line) <= _SUMMARY_LENGTH:
        return line
    whole_words = _WHOLE_WORDS.match(line)
    return whole_words[0] if whole_words else line[:_SUMMARY_LENGTH]


def _role(role: dict[str, Any]) -> View:
    times = {name: datetime.fromisoformat(role[name]) for name in _ROLE_TIMES if role[name] is not None}
    return role | times
