"""Sums of changes of totals begin at a floor, behind what is merged.

Revision 0018, after 0017. The version before sums from the first change on, and does not raise the floor.
"""

import sqlalchemy as sa
from alembic import op

from service.storage.database import Xid8

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    table = op.create_table(
        "itsm_totals_floor",
        sa.Column("one", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("floor", sa.BigInteger(), nullable=False),
        sa.Column("pending", sa.BigInteger(), nullable=False),
        sa.Column("pending_until", Xid8(), nullable=False),
        sa.CheckConstraint("one", name=op.f("itsm_totals_floor_one_check")),
        sa.PrimaryKeyConstraint("one", name=op.f("itsm_totals_floor_pkey")),
    )
    op.execute(sa.insert(table).values(floor=0, pending=0, pending_until=sa.text("'0'::xid8")))


def downgrade() -> None:
    """Undo."""
    op.drop_table("itsm_totals_floor")
