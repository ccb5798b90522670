"""Row → documented JSON of a helpdesk ticket and of its SLA (contracts/helpdesk.md)."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, get_args

from service import jsontext
from service.helpdesk.sla.clock import Span, Standing
from service.helpdesk.sla.targets import Promise, Target, Terms
from service.jsontext import JsonText
from service.operation import View
from service.storage.statement import Row

_SCHEMA_VERSION = 1
_TAG_LENGTH = 500

# Those that stand in the row as they are shown.
_MEMBERS = (
    "id",
    "tenant_id",
    "created_at",
    "updated_at",
    "created_by",
    "updated_by",
    "source",
    "source_type",
    "is_deleted",
    "deleted_at",
    "deleted_by",
    "title",
    "description",
    "type",
    "status",
    "priority",
    "category",
    "submitted_by_id",
    "assigned_to_id",
    "team_id",
    "sla_policy",
    "first_response_at",
    "resolved_at",
    "due_at",
    "related_asset_id",
    "related_vulnerability_id",
    "tags",
)
_COMMENT_MEMBERS = ("id", "ticket_id", "body", "internal", "author_id", "created_at", "updated_at")
_POLICY_MEMBERS = (
    "id",
    "tenant_id",
    "name",
    "description",
    "applies_to",
    "priority",
    "first_response_minutes",
    "resolution_minutes",
    "business_hours_only",
    "status",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
)
# Of the intervals of a target, the last so many are told.
_SPANS = 1000
_EVENT_MEMBERS = ("tenant_id", "ticket_id", "version", "type", "changes", "actor", "request_id", "created_at")


def ticket(row: Row) -> View:
    """The ticket: every member always there, but `app_id`, which a person's ticket has none of."""
    view: dict[str, Any] = {name: row[name] for name in _MEMBERS}
    view["schema_version"] = _SCHEMA_VERSION
    view["number"] = f"TKT-{row['number']:04d}"
    if row["app_id"] is not None:
        view["app_id"] = row["app_id"]
    return view


def etag(row: Row) -> str:
    """What says later whether a ticket has changed."""
    return f'"{row["version"]}"'


def comment(row: Row) -> View:
    """A comment; `updated_at` is null until it is edited."""
    return {name: row[name] for name in _COMMENT_MEMBERS}


def event(row: Row) -> View:
    """One change of a ticket."""
    return {name: row[name] for name in _EVENT_MEMBERS}


def policy(row: Row, prefix: str = "") -> View:
    """An SLA policy; its columns may have a prefix."""
    return {name: row[f"{prefix}{name}"] for name in _POLICY_MEMBERS}


def calendar(row: Row) -> View:
    """A tenant's calendar; nobody has updated the one that every tenant begins with."""
    return {
        "tenant_id": row["tenant_id"],
        "time_zone": row["time_zone"],
        "hours": jsontext.parse(row["hours"].text.encode()),
        "holidays": [day.isoformat() for day in row["holidays"]],
        "updated_at": row["updated_at"],
        "updated_by": row["updated_by"],
    }


def ticket_sla(row: Row, standings: Mapping[Target, tuple[Promise, Standing]], terms: Terms) -> View:
    """How a ticket's SLA stands now; null for the targets that it has not."""
    view: dict[str, Any] = {
        "ticket_id": row["id"],
        "policy": None if row["policy_id"] is None else policy(row, "policy_"),
        "time_zone": None if terms.clock is None else terms.clock.time_zone,
        "is_paused": row["paused_at"] is not None,
        "as_of": terms.now,
    }
    for name in _TARGETS:
        view[name] = _target(*standings[name], row["paused_at"]) if name in standings else None
    return view


_TARGETS: tuple[Target, ...] = get_args(Target)


def _target(promise: Promise, standing: Standing, paused_at: datetime | None) -> View:
    return {
        "target_minutes": promise.minutes,
        "due_at": promise.due_at,
        "met_at": promise.met_at,
        "is_breached": standing.breached_at is not None,
        "breached_at": standing.breached_at,
        "elapsed_seconds": int(standing.elapsed.total_seconds()),
        "remaining_seconds": None if standing.left is None else int(standing.left.total_seconds()),
        "counted": _intervals(standing.counted),
        "paused": _intervals(standing.paused, None if promise.met_at else paused_at),
    }


def _intervals(spans: Iterable[Span], open_since: datetime | None = None) -> list[dict[str, Any]]:
    """The intervals, oldest first; that of a pause that lasts has no end."""
    return [
        {"start": start, "end": None if open_since is not None and end > open_since else end}
        for start, end in list(spans)[-_SPANS:]
    ]


def tag_terms(tags: JsonText) -> list[str]:
    """What a ticket's tags are found by: each string of the array, or each name of the object.

    Cut where PostgreSQL takes no longer word; the `#` keeps them apart from the words of texts.
    """
    return [f"#{tag[:_TAG_LENGTH]}" for tag in jsontext.parse(tags.text.encode())]
