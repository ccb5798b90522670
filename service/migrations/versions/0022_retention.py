"""What retention needs: up to where events were deleted, webhooks that missed some, and when each kind was looked through.

Revision 0022, after 0019. Where rows come and go all the time, autovacuum comes sooner than its share of a large table
(deploy/README.md, What grows, has the figures).
"""

import sqlalchemy as sa
from alembic import op

from service.storage.database import Xid8

revision = "0022"
down_revision = "0019"
branch_labels = None
depends_on = None

_SCOPES = {
    "itsm_events": (("account_id", sa.Uuid), ("live", sa.Boolean)),
    "helpdesk_events": (("tenant_id", sa.Text),),
    "handoff_events": (("project_id", sa.Uuid),),
}


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
    op.add_column("itsm_webhooks", sa.Column("missed_events_at", sa.DateTime(timezone=True)), if_not_exists=True)


def downgrade() -> None:
    """Undo."""
    op.drop_column("itsm_webhooks", "missed_events_at")
    op.drop_table("purges")
    for events in _SCOPES:
        op.drop_table(f"{events}_purged")
