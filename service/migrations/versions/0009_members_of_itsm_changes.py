"""which members an ITSM event changed, and an index of the messages that are on their way.

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
    op.create_index(
        "itsm_webhook_messages_leased_idx",
        "itsm_webhook_messages",
        ["leased_until"],
        postgresql_where=sa.text("leased_until IS NOT NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("itsm_webhook_messages_leased_idx", table_name="itsm_webhook_messages")
    op.drop_column("itsm_events", "members")
