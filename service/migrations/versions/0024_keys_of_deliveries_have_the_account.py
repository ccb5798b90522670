"""Keys and unique indexes of deliveries have the account.

Revision 0024, after 0019. The version before names a unique index without it, and reads by another: both stay for now.
"""

from alembic import op

from service.migrations.online import create_index

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_TABLE = "provider_deliveries"


def upgrade() -> None:
    """Apply."""
    create_index("provider_deliveries_id_idx", _TABLE, ["id"])
    create_index("provider_deliveries_account_ticket_idx", _TABLE, ["account_id", "ticket_id", "version"], unique=True)
    create_index("provider_deliveries_next_pkey", _TABLE, ["account_id", "id"], unique=True)
    op.execute(
        "ALTER TABLE provider_deliveries DROP CONSTRAINT provider_deliveries_pkey,"
        " ADD CONSTRAINT provider_deliveries_pkey PRIMARY KEY USING INDEX provider_deliveries_next_pkey"
    )
    # The key is that index.
    op.drop_index("provider_deliveries_account_id_idx", _TABLE)


def downgrade() -> None:
    """Undo."""
    op.create_index("provider_deliveries_account_id_idx", _TABLE, ["account_id", "id"])
    op.drop_constraint("provider_deliveries_pkey", _TABLE)
    op.create_primary_key("provider_deliveries_pkey", _TABLE, ["id"])
    op.drop_index("provider_deliveries_account_ticket_idx", _TABLE)
    op.drop_index("provider_deliveries_id_idx", _TABLE)
