"""helpdesk lists of a person's own tickets and of an asset's, what only agents count, every kind of tags.

Revision 0013, after 0012.
"""

import sqlalchemy as sa
from alembic import op

from service.migrations.online import create_index, fill

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_NEWEST = ("created_at DESC", "id DESC")
_RANK = "array_position(ARRAY['low'::text, 'medium'::text, 'high'::text, 'urgent'::text], priority)"
_ORDERS = {
    "newest": _NEWEST,
    "changed": ("updated_at DESC", "id DESC"),
    "due": ("coalesce(due_at, '9999-12-31 23:59:59.999999+00'::timestamptz)", "id"),
    "priority": (f"{_RANK} DESC", "id DESC"),
}
_RELATED = ("related_asset_id", "related_vulnerability_id")

# Until now the strings of an object were no terms.
_TAG_TERMS = """
UPDATE helpdesk_tickets SET tag_terms = ARRAY(
    SELECT '#' || left(key, 500) FROM json_each(tags)
    UNION
    SELECT '#' || left(value #>> '{}', 500) FROM json_each(tags) WHERE json_typeof(value) = 'string')
  WHERE (tenant_id, id) BETWEEN :first AND :last AND json_typeof(tags) = 'object' AND tags::text <> '{}'
"""
_OF_TICKETS = """
UPDATE helpdesk_tickets AS tickets SET internal_changes = counted.number
  FROM (
    SELECT tenant_id, ticket_id, count(*) AS number FROM helpdesk_events
      WHERE (tenant_id, ticket_id) BETWEEN :first AND :last AND internal GROUP BY tenant_id, ticket_id
  ) AS counted
  WHERE tickets.tenant_id = counted.tenant_id AND tickets.id = counted.ticket_id
"""
# Of an event: those before it.
_OF_EVENTS = """
UPDATE helpdesk_events AS events SET internal_changes = counted.number
  FROM (
    SELECT tenant_id, transaction_id, id, count(*) FILTER (WHERE internal) OVER (
        PARTITION BY tenant_id, ticket_id ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS number
      FROM helpdesk_events WHERE (tenant_id, ticket_id) BETWEEN :first AND :last
  ) AS counted
  WHERE counted.number > 0 AND events.tenant_id = counted.tenant_id
    AND events.transaction_id = counted.transaction_id AND events.id = counted.id
"""


def upgrade() -> None:
    """Apply."""
    for name, order in _ORDERS.items():
        columns = [sa.text(part) for part in order]
        if name != "newest":  # that one is there
            create_index(
                f"helpdesk_tickets_submitted_by_id_{name}_idx",
                "helpdesk_tickets",
                ["tenant_id", "submitted_by_id", *columns],
            )
        create_index(
            f"helpdesk_tickets_created_by_{name}_idx",
            "helpdesk_tickets",
            ["tenant_id", "created_by", *columns],
            postgresql_where=sa.text("created_by <> submitted_by_id"),
        )
    for name in _RELATED:
        create_index(
            f"helpdesk_tickets_{name}_newest_idx",
            "helpdesk_tickets",
            ["tenant_id", name, *(sa.text(part) for part in _NEWEST)],
            postgresql_where=sa.text(f"{name} IS NOT NULL"),
        )
    for table in ("helpdesk_tickets", "helpdesk_events"):
        op.add_column(
            table,
            sa.Column("internal_changes", sa.Integer(), server_default=sa.text("0"), nullable=False),
            if_not_exists=True,
        )
    fill("helpdesk_tickets", ["tenant_id", "id"], _TAG_TERMS, _OF_TICKETS, _OF_EVENTS)


def downgrade() -> None:
    """Undo. The terms of objects stay: the version before finds more by them."""
    for table in ("helpdesk_events", "helpdesk_tickets"):
        op.drop_column(table, "internal_changes")
    for name in _RELATED:
        op.drop_index(f"helpdesk_tickets_{name}_newest_idx", table_name="helpdesk_tickets")
    for name in _ORDERS:
        op.drop_index(f"helpdesk_tickets_created_by_{name}_idx", table_name="helpdesk_tickets")
        if name != "newest":
            op.drop_index(f"helpdesk_tickets_submitted_by_id_{name}_idx", table_name="helpdesk_tickets")
