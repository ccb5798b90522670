"""Which revisions of the schema only newer versions can serve.

Revision 0017, after 0016.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "breaking_revisions",
        sa.Column("revision", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("breaking_revisions_pkey")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("breaking_revisions")
