"""No indexes of a person's own helpdesk tickets by due instant and by priority: they are few, and sorted.

Revision 0027, after 0026. The version before serves without them: it finds the same, slower for a person with many.
"""

import sqlalchemy as sa
from alembic import op

from service.migrations.online import drop_index

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_TABLE = "helpdesk_tickets"
_RANK = "array_position(ARRAY['low'::text, 'medium'::text, 'high'::text, 'urgent'::text], priority)"
_ORDERS = {
    "due": ("coalesce(due_at, '9999-12-31 23:59:59.999999+00'::timestamptz)", "id"),
    "priority": (f"{_RANK} DESC", "id DESC"),
}
_PERSONS = {"submitted_by_id": None, "created_by": sa.text("created_by <> submitted_by_id")}


def upgrade() -> None:
    """Apply."""
    for order in _ORDERS:
        for person in _PERSONS:
            drop_index(f"helpdesk_tickets_{person}_{order}_idx", _TABLE)


def downgrade() -> None:
    """Undo."""
    for order, columns in _ORDERS.items():
        for person, where in _PERSONS.items():
            op.create_index(
                f"helpdesk_tickets_{person}_{order}_idx",
                _TABLE,
                ["tenant_id", person, *map(sa.text, columns)],
                postgresql_where=where,
            )
