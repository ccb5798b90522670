"""which members an ITSM event changed, where a provider was asked, and indexes of what is on its way.

Revision 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Older events need no names: what reads them works them out."""
    op.add_column("itsm_events", sa.Column("members", sa.ARRAY(sa.Text())))
    op.add_column("itsm_events", sa.Column("updated_at", sa.DateTime(timezone=True)))
    op.create_index(
        "itsm_webhook_messages_leased_idx",
        "itsm_webhook_messages",
        ["leased_until"],
        postgresql_where=sa.text("leased_until IS NOT NULL"),
    )
    op.add_column("provider_deliveries", sa.Column("asked_url", sa.Text()))
    op.create_index(
        "provider_deliveries_account_idx",
        "provider_deliveries",
        ["account_id", "next_attempt_at"],
        postgresql_where=sa.text("state = 'queued'"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("provider_deliveries_account_idx", table_name="provider_deliveries")
    op.drop_column("provider_deliveries", "asked_url")
    op.drop_index("itsm_webhook_messages_leased_idx", table_name="itsm_webhook_messages")
    op.drop_column("itsm_events", "updated_at")
    op.drop_column("itsm_events", "members")
