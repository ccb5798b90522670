"""indexes of ITSM tickets by priority and requester, names that webhooks may subscribe to, two messages of one event.

Revision 0014, after 0013.
"""

import sqlalchemy as sa
from alembic import op

from service.migrations.online import create_index

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TICKETS, _WEBHOOKS, _MESSAGES = "itsm_tickets", "itsm_webhooks", "itsm_webhook_messages"
_OLD_EVENTS = ["ticket.created", "ticket.updated", "ticket.closed", "ticket.reopened"]
_NEW_EVENTS = [
    *_OLD_EVENTS,
    "ticket.note_added",
    "conversation.created",
    "conversation.updated",
    "conversation.resolved",
    "conversation.assigned",
    "conversation.reply",
    "call.started",
    "call.completed",
    "call.escalated",
    "user.created",
]
_KEY = ["account_id", "live", "webhook_id", "ticket_id", "version"]


def _array(names: list[str]) -> str:
    texts = ", ".join(f"'{name}'::text" for name in names)
    return f"ARRAY[{texts}]"


def _allow(names: list[str]) -> None:
    op.drop_constraint(op.f("itsm_webhooks_events_check"), _WEBHOOKS)
    op.create_check_constraint(op.f("itsm_webhooks_events_check"), _WEBHOOKS, f"events <@ {_array(names)}")


def _key_messages(columns: list[str]) -> None:
    """Change the primary key, which keeps its name: statements of the version before name it."""
    create_index("itsm_webhook_messages_key", _MESSAGES, columns, unique=True)
    op.execute(
        f"ALTER TABLE {_MESSAGES} DROP CONSTRAINT itsm_webhook_messages_pkey,"
        " ADD CONSTRAINT itsm_webhook_messages_pkey PRIMARY KEY USING INDEX itsm_webhook_messages_key"
    )


def upgrade() -> None:
    """Apply."""
    newest = [sa.text("created_at DESC"), sa.text("id DESC")]
    create_index(
        "itsm_tickets_priority_newest_idx",
        _TICKETS,
        ["account_id", "live", "priority", *newest],
        postgresql_where=sa.text("priority IS NOT NULL"),
    )
    create_index(
        "itsm_tickets_requester_newest_idx",
        _TICKETS,
        ["account_id", "live", sa.text('lower(requester_email COLLATE "C")'), *newest],
        postgresql_include=["requester_email"],
        postgresql_where=sa.text("requester_email IS NOT NULL"),
    )
    _key_messages([*_KEY, "type"])
    _allow(_NEW_EVENTS)


def downgrade() -> None:
    """Undo: of two messages of one event the later one goes, and webhooks lose the names that are new."""
    op.execute(
        "UPDATE itsm_webhooks SET events = ARRAY("
        "SELECT name FROM unnest(events) name"
        " WHERE name IN ('ticket.created', 'ticket.updated', 'ticket.closed', 'ticket.reopened'))"
    )
    _allow(_OLD_EVENTS)
    op.execute(
        "DELETE FROM itsm_webhook_messages one USING itsm_webhook_messages other"
        " WHERE (one.account_id, one.live, one.webhook_id, one.ticket_id, one.version)"
        " = (other.account_id, other.live, other.webhook_id, other.ticket_id, other.version) AND one.type > other.type"
    )
    op.drop_constraint(op.f("itsm_webhook_messages_pkey"), _MESSAGES)
    op.create_primary_key(op.f("itsm_webhook_messages_pkey"), _MESSAGES, _KEY)
    op.drop_index("itsm_tickets_requester_newest_idx", table_name=_TICKETS)
    op.drop_index("itsm_tickets_priority_newest_idx", table_name=_TICKETS)
