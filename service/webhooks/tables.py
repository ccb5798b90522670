"""The tables of a dialect's webhooks: the webhooks themselves, their queues of messages, and the log of attempts."""

from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    true,
)
from sqlalchemy.types import TypeEngine

from service.directory import all_of, created_at
from service.storage.database import Xid8
from service.storage.scope import scoped_by


class WebhookTables(NamedTuple):
    """The three tables of one dialect."""

    webhooks: Table
    messages: Table
    attempts: Table


# Keyed by prefix, once their dialect is imported: for the API of operators, which imports no other dialect.
TABLES: dict[str, WebhookTables] = {}


def scope_columns(events: Table) -> list[Column[Any]]:
    """The columns that an event table (events.py) is keyed by first."""
    return [column for column in events.primary_key.columns if column.name not in ("transaction_id", "id")]


def webhook_tables(prefix: str, events: Table, event_types: object) -> WebhookTables:
    """The tables `<prefix>_webhooks`, `<prefix>_webhook_messages` and `<prefix>_webhook_attempts`.

    They have the scope of the event table, and lie where it lies; `event_types` is a Literal.
    """
    webhooks = _webhooks(f"{prefix}_webhooks", events, event_types)
    TABLES[prefix] = WebhookTables(
        webhooks,
        _messages(f"{prefix}_webhook_messages", events, webhooks),
        _attempts(f"{prefix}_webhook_attempts", events, webhooks),
    )
    return TABLES[prefix]


def _webhooks(name: str, events: Table, event_types: object) -> Table:
    scope = _scope(events)
    webhooks = Table(
        name,
        events.metadata,
        *scope,
        Column("id", Text, nullable=False),
        Column("url", Text, nullable=False),
        Column("events", ARRAY(Text), nullable=False),
        # Encrypted (vault.py). The previous secret signs too, until an instant.
        Column("secret", LargeBinary, nullable=False),
        Column("previous_secret", LargeBinary),
        Column("previous_secret_until", DateTime(timezone=True)),
        Column("is_active", Boolean, nullable=False, server_default=true()),
        # Why the service disabled it; null where its owner did.
        Column("disabled_reason", Text),
        # Since when no attempt has succeeded.
        Column("failing_since", DateTime(timezone=True)),
        # When events were last deleted before they were sent to it (retention/).
        Column("missed_events_at", DateTime(timezone=True)),
        # Its position in the events: there are no messages yet of those after it.
        Column("transaction_id", Xid8, nullable=False),
        Column("event_id", BigInteger, nullable=False),
        created_at(),
        Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        PrimaryKeyConstraint(*(column.name for column in scope), "id"),
        all_of("events", event_types),
        info=_scoped(events),
    )
    Index(f"{name}_failing_idx", webhooks.c.id, postgresql_where=webhooks.c.failing_since.is_not(None))
    return webhooks


def _messages(name: str, events: Table, webhooks: Table) -> Table:
    """The queue: messages that a webhook has not accepted yet."""
    columns = _columns_of_webhook(events)
    messages = Table(
        name,
        events.metadata,
        *columns,
        *_message_columns(events.c.ticket_id.type),
        Column("attempts", Integer, nullable=False, server_default="0"),
        # Null while its webhook is disabled.
        Column("next_attempt_at", DateTime(timezone=True), server_default=func.now()),
        # The lease of the worker that sends it, and when it ends.
        Column("lease", Uuid),
        Column("leased_until", DateTime(timezone=True)),
        PrimaryKeyConstraint(*(column.name for column in columns), "ticket_id", "version", "type"),
        _foreign_key(events, webhooks),
        info=_scoped(events),
    )
    Index(None, messages.c.next_attempt_at)
    Index(f"{name}_leased_idx", messages.c.leased_until, postgresql_where=messages.c.leased_until.is_not(None))
    return messages


def _attempts(name: str, events: Table, webhooks: Table) -> Table:
    """The log: the last attempts of each webhook."""
    columns = _columns_of_webhook(events)
    return Table(
        name,
        events.metadata,
        *columns,
        # `dlv_` and a ULID, so that they sort by time.
        Column("id", Text, nullable=False),
        *_message_columns(events.c.ticket_id.type),
        # Which attempt of the message it was, from 1.
        Column("attempt", Integer, nullable=False),
        Column("attempted_at", DateTime(timezone=True), nullable=False),
        Column("duration_ms", Integer, nullable=False),
        Column("succeeded", Boolean, nullable=False),
        Column("status_code", Integer),
        Column("error", Text),
        PrimaryKeyConstraint(*(column.name for column in columns), "id"),
        _foreign_key(events, webhooks),
        info=_scoped(events),
    )


def _scoped(events: Table) -> dict[str, Any]:
    return scoped_by(*(column.name for column in scope_columns(events)))


def _scope(events: Table) -> list[Column[Any]]:
    return [Column(column.name, column.type, nullable=False) for column in scope_columns(events)]


def _columns_of_webhook(events: Table) -> list[Column[Any]]:
    return [*_scope(events), Column("webhook_id", Text, nullable=False)]


def _message_columns(ticket_id: TypeEngine[Any]) -> list[Column[Any]]:
    """What is sent, and which version of which ticket it shows."""
    return [
        Column("ticket_id", ticket_id, nullable=False),
        Column("version", Integer, nullable=False),
        Column("type", Text, nullable=False),
        # `evt_…`, the same for each attempt and each webhook.
        Column("event_id", Text, nullable=False),
        # The very text that is signed.
        Column("body", Text, nullable=False),
    ]


# The names of a message's own columns, both in the queue and in the log.
MESSAGE = tuple(column.name for column in _message_columns(Text()))


def _foreign_key(events: Table, webhooks: Table) -> ForeignKeyConstraint:
    scope = [column.name for column in scope_columns(events)]
    key = [webhooks.c[name] for name in (*scope, "id")]
    return ForeignKeyConstraint([*scope, "webhook_id"], key, ondelete="CASCADE")
