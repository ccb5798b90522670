"""Deliveries find an idempotency key by the account; indexes without it go.

Revision 0026, after 0025, since which no version serves that needs these.
"""

import sqlalchemy as sa
from alembic import op

from service.migrations.online import create_index, drop_index

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_TABLE = "provider_deliveries"
_WITHOUT_TICKET = sa.text("NOT has_ticket")


def upgrade() -> None:
    """Apply."""
    create_index(
        "provider_deliveries_account_key_idx",
        _TABLE,
        ["account_id", "idempotency_key"],
        unique=True,
        postgresql_where=_WITHOUT_TICKET,
    )
    drop_index("provider_deliveries_key_idx", _TABLE)
    drop_index("provider_deliveries_ticket_idx", _TABLE)


def downgrade() -> None:
    """Undo."""
    op.create_index("provider_deliveries_ticket_idx", _TABLE, ["ticket_id", "version"], unique=True)
    op.execute(
        f"UPDATE {_TABLE} SET idempotency_scope = concat('itsm:', account_id, ':', 'live')"  # noqa: S608 - our own words
        " WHERE idempotency_key IS NOT NULL AND NOT has_ticket"
    )
    op.create_index(
        "provider_deliveries_key_idx",
        _TABLE,
        ["idempotency_scope", "idempotency_key"],
        unique=True,
        postgresql_where=_WITHOUT_TICKET,
    )
    op.drop_index("provider_deliveries_account_key_idx", _TABLE)
