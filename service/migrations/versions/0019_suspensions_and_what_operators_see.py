"""Suspended accounts, API keys and tenants; prefix and last use of keys; indexes for what operators list.

Revision 0019, after 0018.
"""

import sqlalchemy as sa
from alembic import op

from service.migrations.online import create_index

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_SUSPENDED = ("accounts", "api_keys", "tenants")
_DELIVERIES, _WEBHOOKS = "provider_deliveries", "itsm_webhooks"


def upgrade() -> None:
    """Apply."""
    for table in _SUSPENDED:
        op.add_column(table, sa.Column("suspended_at", sa.DateTime(timezone=True)), if_not_exists=True)
    op.add_column("api_keys", sa.Column("prefix", sa.Text()), if_not_exists=True)
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True)), if_not_exists=True)
    for table in _SUSPENDED:
        create_index(f"{table}_suspended_idx", table, ["id"], postgresql_where=sa.text("suspended_at IS NOT NULL"))
    create_index("provider_deliveries_account_id_idx", _DELIVERIES, ["account_id", "id"])
    create_index("provider_deliveries_state_idx", _DELIVERIES, ["state", "id"])
    create_index("itsm_webhooks_failing_idx", _WEBHOOKS, ["id"], postgresql_where=sa.text("failing_since IS NOT NULL"))


def downgrade() -> None:
    """Undo."""
    op.drop_index("itsm_webhooks_failing_idx", _WEBHOOKS)
    op.drop_index("provider_deliveries_state_idx", _DELIVERIES)
    op.drop_index("provider_deliveries_account_id_idx", _DELIVERIES)
    for table in reversed(_SUSPENDED):
        op.drop_index(f"{table}_suspended_idx", table)
    op.drop_column("api_keys", "last_used_at")
    op.drop_column("api_keys", "prefix")
    for table in reversed(_SUSPENDED):
        op.drop_column(table, "suspended_at")
