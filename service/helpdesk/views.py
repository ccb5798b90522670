"""Row → documented JSON of a helpdesk ticket (contracts/helpdesk.md, Ticket)."""

from service.operation import View
from service.statement import Row

_SCHEMA_VERSION = 1

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


def ticket(row: Row) -> View:
    """The ticket: every member always there, but `app_id`, which a person's ticket has none of."""
    view: View = {name: row[name] for name in _MEMBERS}
    view["schema_version"] = _SCHEMA_VERSION
    view["number"] = f"TKT-{row['number']:04d}"
    if row["app_id"] is not None:
        view["app_id"] = row["app_id"]
    return view
