"""Row → documented JSON of a helpdesk ticket (contracts/helpdesk.md, Ticket)."""

from service import jsontext
from service.jsontext import JsonText
from service.operation import View
from service.statement import Row

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
_EVENT_MEMBERS = ("tenant_id", "ticket_id", "version", "type", "changes", "actor", "request_id", "created_at")


def ticket(row: Row) -> View:
    """The ticket: every member always there, but `app_id`, which a person's ticket has none of."""
    view: View = {name: row[name] for name in _MEMBERS}
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


def tag_words(tags: JsonText) -> list[str]:
    """What a ticket's tags are found by: each string of the array, or each name of the object.

    Cut where PostgreSQL takes no longer word; the `#` keeps them apart from the words of texts.
    """
    return [f"#{tag[:_TAG_LENGTH]}" for tag in jsontext.parse(tags.text.encode())]
