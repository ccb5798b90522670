"""The row that shows whether all processes have the same encryption keys.

Revision 0016, after 0015.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "vault_check",
        sa.Column("id", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id", name=op.f("vault_check_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("vault_check_pkey")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("vault_check")
