"""What retention needs: marks of deleted events, webhooks that missed some, when kinds were looked through; autovacuum.

Revision 0022, after 0019. Where rows come and go all the time, autovacuum comes sooner than its share of a large table
(deploy/README.md, What grows, has the figures).
"""

import sqlalchemy as sa
from alembic import op

from service.migrations.online import create_index
from service.storage.database import Xid8

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_SCOPES = {
    "itsm_events": (("account_id", sa.Uuid), ("live", sa.Boolean)),
    "helpdesk_events": (("tenant_id", sa.Text),),
    "handoff_events": (("project_id", sa.Uuid),),
}
_INSERTS = ("autovacuum_vacuum_insert_scale_factor", "autovacuum_analyze_scale_factor")
_AUTOVACUUM = {
    "idempotency_keys": ("autovacuum_vacuum_scale_factor",),
    **dict.fromkeys(_SCOPES, ("autovacuum_vacuum_scale_factor", *_INSERTS)),
}
_DEAD = "provider_deliveries_dead_idx"


def upgrade() -> None:
    """Apply."""
    for events, scope in _SCOPES.items():
        op.create_table(
            f"{events}_purged",
            *(sa.Column(name, kind(), nullable=False) for name, kind in scope),
            sa.Column("transaction_id", Xid8(), nullable=False),
            sa.Column("event_id", sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint(*(name for name, _ in scope), name=op.f(f"{events}_purged_pkey")),
            if_not_exists=True,
        )
    op.create_table(
        "purges",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("purges_pkey")),
        if_not_exists=True,
    )
    # Autovacuum waits for a fifth of a table otherwise: of millions of rows that are there for an hour, or for months,
    # that is bloat. Those that are empty most of the time need nothing: fifty rows are soon reached.
    for table, settings in _AUTOVACUUM.items():
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = 0.05' for name in settings)})")
    op.add_column("itsm_webhooks", sa.Column("missed_events_at", sa.DateTime(timezone=True)), if_not_exists=True)
    create_index(_DEAD, "provider_deliveries", ["account_id", "id"], postgresql_where=sa.text("state = 'dead'"))


def downgrade() -> None:
    """Undo."""
    op.drop_index(_DEAD, "provider_deliveries")
    op.drop_column("itsm_webhooks", "missed_events_at")
    for table, settings in _AUTOVACUUM.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(settings)})")
    op.drop_table("purges")
    for events in _SCOPES:
        op.drop_table(f"{events}_purged")
