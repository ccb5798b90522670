"""Epochs of events: their order goes on when the database moves to another server.

Revision 0023, after 0019. Until it has moved, the version before writes and reads the same ids.
"""

import sqlalchemy as sa
from alembic import op

from service.migrations import epochs

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_EVENTS = ("itsm_events", "helpdesk_events", "handoff_events")
_TABLES = (*_EVENTS, "itsm_tickets", "helpdesk_tickets", "handoff_tickets")
# A dump that was restored before this step has ids that this server has not given yet. (Lower ones come first anyway.)
_IS_FOREIGN = " OR ".join(
    f"EXISTS (SELECT FROM {table} WHERE transaction_id >= pg_snapshot_xmax(pg_current_snapshot()))" for table in _EVENTS
)


def upgrade() -> None:
    """Apply."""
    epochs.define(op.get_bind(), 0)
    with op.get_context().autocommit_block():
        for table in _TABLES:
            op.alter_column(table, "transaction_id", server_default=sa.text("in_epoch(pg_current_xact_id())"))
    op.create_table(
        "event_epochs",
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("system_identifier", sa.BigInteger(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name=op.f("event_epochs_pkey")),
    )
    op.execute(
        "INSERT INTO event_epochs (epoch, system_identifier)"  # noqa: S608 - our own names
        f" SELECT 0, CASE WHEN {_IS_FOREIGN} THEN 0 ELSE system_identifier END FROM pg_control_system()"
    )


def downgrade() -> None:
    """Undo. Raises RuntimeError where ids have an epoch, which nobody would know any more."""
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM event_epochs")) != 1:
        raise RuntimeError("the database has moved to another server since, and its order of events cannot be undone")
    for table in _TABLES:
        op.alter_column(table, "transaction_id", server_default=sa.text("pg_current_xact_id()"))
    op.drop_table("event_epochs")
    op.execute("DROP FUNCTION in_epoch(xid8)")
