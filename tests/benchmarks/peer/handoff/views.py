"""Rows as they are answered."""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping

from .schemas import Role, Ticket

_SUMMARY_LENGTH = 140
_WHOLE_WORDS = re.compile(r".{0,139}\S(?=\s)")
_TRIAGERS = ("triager", "owner")
# What a ticket takes from its project, from its roles or from another of its members.
_COMPUTED = frozenset(
    {"billing_account_id", "project_name", "backend_repo", "frontend_repo", "category", "severity", "roles", "summary"}
    | {"suggested_backend_change", "ticket_ref", "can_triage", "github_issue_url"}
)
_COLUMNS = tuple(name for name in Ticket.model_fields if name not in _COMPUTED)


def ticket(row: RowMapping, roles: Sequence[RowMapping], project: RowMapping, *, listed: bool = False) -> Ticket:
    """A ticket in the form of a list, or by itself."""
    columns: dict[str, Any] = {name: row[name] for name in _COLUMNS}
    if listed:
        columns["summary"] = _summary(row["description"])
    number, repo = row["github_issue_number"], project["github_repo"]
    return Ticket.model_construct(
        **columns,
        billing_account_id=project["account_id"],
        project_name=project["name"],
        backend_repo=project["backend_repo"],
        frontend_repo=project["frontend_repo"],
        category=row["request_type"],
        severity=row["priority"],
        suggested_backend_change=row["suggested_resolution"],
        roles=[_role(role) for role in roles],
        ticket_ref=f"HO-{row['number']}-{project['slug']}",
        can_triage=may_triage(project),
        github_issue_url=f"https://github.com/{repo}/issues/{number}" if repo and number else None,
    )


def may_triage(project: RowMapping) -> bool:
    """Whether the caller may change everybody's tickets in this project."""
    return project["member_role"] in _TRIAGERS


def _role(row: RowMapping) -> Role:
    return Role.model_construct(**row, handoff_request_id=row["ticket_id"])


def _summary(description: str) -> str:
    line = next(iter(description.strip().splitlines()), "").rstrip()
    if len(line) <= _SUMMARY_LENGTH:
        return line
    whole_words = _WHOLE_WORDS.match(line)
    return whole_words[0] if whole_words else line[:_SUMMARY_LENGTH]
