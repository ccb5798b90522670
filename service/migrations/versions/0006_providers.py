"""external providers of accounts, and what is on its way to them.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    instant, now, false = sa.DateTime(timezone=True), sa.text("now()"), sa.text("false")
    op.create_table(
        "provider_links",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("credential", sa.LargeBinary(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("created_at", instant, server_default=now, nullable=False),
        sa.Column("updated_at", instant, server_default=now, nullable=False),
        sa.CheckConstraint(
            "provider IN ('freshservice', 'zendesk', 'servicenow', 'jira')", name=op.f("provider_links_provider_check")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("provider_links_account_id_fkey")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("provider_links_pkey")),
    )
    op.create_table(
        "provider_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("members", sa.JSON(), nullable=False),
        sa.Column("is_kept", sa.Boolean(), nullable=False),
        sa.Column("idempotency_scope", sa.Text()),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("request_hash", sa.LargeBinary()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", instant, server_default=now, nullable=False),
        sa.Column("lease", sa.Uuid()),
        sa.Column("leased_until", instant),
        sa.Column("maybe_done", sa.Boolean(), server_default=false, nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("is_requeued", sa.Boolean(), server_default=false, nullable=False),
        sa.Column("created_at", instant, server_default=now, nullable=False),
        sa.CheckConstraint("kind IN ('create', 'update')", name=op.f("provider_deliveries_kind_check")),
        sa.CheckConstraint("state IN ('queued', 'dead')", name=op.f("provider_deliveries_state_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("provider_deliveries_pkey")),
    )
    op.create_index(
        "provider_deliveries_key_idx",
        "provider_deliveries",
        ["idempotency_scope", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("NOT is_kept"),
    )
    op.create_index("provider_deliveries_ticket_idx", "provider_deliveries", ["ticket_id", "version"], unique=True)
    op.create_index(
        "provider_deliveries_due_idx",
        "provider_deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("state = 'queued'"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("provider_deliveries")
    op.drop_table("provider_links")
