"""re-clocks of helpdesk tickets: what is left of them, and the index of the tickets that they walk.

Revision 0011, after 0010.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "helpdesk_reclocks",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("policy_ids", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("after_id", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("turn_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("helpdesk_reclocks_pkey")),
    )
    op.create_index("helpdesk_reclocks_turn_idx", "helpdesk_reclocks", ["turn_at"])
    op.create_index(
        "helpdesk_tickets_clocks_idx",
        "helpdesk_tickets",
        ["tenant_id", "sla_policy", "id"],
        postgresql_where=sa.text("sla_policy IS NOT NULL AND resolved_at IS NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("helpdesk_tickets_clocks_idx", table_name="helpdesk_tickets")
    op.drop_table("helpdesk_reclocks")
