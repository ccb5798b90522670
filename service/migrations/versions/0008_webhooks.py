"""webhooks of ITSM tickets, what is on its way to them, and the log.

Revision 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

from service.storage.database import Xid8

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_EVENTS = "ARRAY['ticket.created'::text, 'ticket.updated'::text, 'ticket.closed'::text, 'ticket.reopened'::text]"


def _of_webhook() -> list[sa.Column[object]]:
    return [
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=False),
    ]


def _message() -> list[sa.Column[object]]:
    return [
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
    ]


def _with_webhook(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["account_id", "live", "webhook_id"],
        ["itsm_webhooks.account_id", "itsm_webhooks.live", "itsm_webhooks.id"],
        name=op.f(f"{table}_account_id_fkey"),
        ondelete="CASCADE",
    )


def upgrade() -> None:
    """Apply."""
    instant, now = sa.DateTime(timezone=True), sa.text("now()")
    op.create_table(
        "itsm_webhooks",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary()),
        sa.Column("previous_secret_until", instant),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("disabled_reason", sa.Text()),
        sa.Column("failing_since", instant),
        sa.Column("transaction_id", Xid8(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", instant, server_default=now, nullable=False),
        sa.Column("updated_at", instant, server_default=now, nullable=False),
        sa.CheckConstraint(f"events <@ {_EVENTS}", name=op.f("itsm_webhooks_events_check")),
        sa.PrimaryKeyConstraint("account_id", "live", "id", name=op.f("itsm_webhooks_pkey")),
    )
    op.create_table(
        "itsm_webhook_messages",
        *_of_webhook(),
        *_message(),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", instant, server_default=now),
        sa.Column("lease", sa.Uuid()),
        sa.Column("leased_until", instant),
        _with_webhook("itsm_webhook_messages"),
        sa.PrimaryKeyConstraint(
            "account_id", "live", "webhook_id", "ticket_id", "version", name=op.f("itsm_webhook_messages_pkey")
        ),
    )
    op.create_index("itsm_webhook_messages_next_attempt_at_idx", "itsm_webhook_messages", ["next_attempt_at"])
    op.create_table(
        "itsm_webhook_attempts",
        *_of_webhook(),
        sa.Column("id", sa.Text(), nullable=False),
        *_message(),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("attempted_at", instant, nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("succeeded", sa.Boolean(), nullable=False),
        sa.Column("status_code", sa.Integer()),
        sa.Column("error", sa.Text()),
        _with_webhook("itsm_webhook_attempts"),
        sa.PrimaryKeyConstraint("account_id", "live", "webhook_id", "id", name=op.f("itsm_webhook_attempts_pkey")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("itsm_webhook_attempts")
    op.drop_table("itsm_webhook_messages")
    op.drop_table("itsm_webhooks")
