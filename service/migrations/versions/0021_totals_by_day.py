"""totals of ITSM tickets by the day of their creation.

Revision 0021, after 0019. The version before goes on to write and merge changes without their days: this one sees that
it did, counts as before, and in the background counts the days anew.
"""

import sqlalchemy as sa
from alembic import op

from service.storage.database import Xid8

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_STATUSES = "status IN ('open', 'pending', 'resolved', 'closed')"


def upgrade() -> None:
    """Apply."""
    op.add_column("itsm_totals", sa.Column("days_as_of", Xid8()))
    op.add_column("itsm_total_changes", sa.Column("day", sa.Date()))
    op.create_table(
        "itsm_day_totals",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(_STATUSES, name=op.f("itsm_day_totals_status_check")),
        sa.PrimaryKeyConstraint("account_id", "live", "day", "status", name=op.f("itsm_day_totals_pkey")),
    )
    op.create_table(
        "itsm_day_recounts",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("before", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "live", name=op.f("itsm_day_recounts_pkey")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("itsm_day_recounts")
    op.drop_table("itsm_day_totals")
    op.drop_column("itsm_total_changes", "day")
    op.drop_column("itsm_totals", "days_as_of")
