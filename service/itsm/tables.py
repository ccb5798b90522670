"""The tables of ITSM tickets, their events and totals, and of webhooks."""

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    true,
)

from service.directory import METADATA, all_of, created_at, one_of
from service.events import event_table, last_transaction
from service.itsm.commands import EventType, Priority, Status
from service.storage.database import Xid8

tickets = Table(
    "itsm_tickets",
    METADATA,
    # The scope: an account's live tickets and its test tickets never meet.
    # (No foreign key: it comes from an API key's row, which has one, and each creation would lock the account's row.)
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    Column("subject", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Text),
    Column("requester_email", Text),
    Column("external_provider", Text),
    Column("external_ticket_id", Text),
    Column("external_ticket_url", Text),
    # json and not jsonb: stored as sent.
    Column("metadata", JSON, nullable=False),
    # For the list's filter (metadata.py); null when there are none.
    Column("metadata_terms", ARRAY(Uuid)),
    created_at(),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # Counts changes from 1; the version of its newest event.
    Column("version", Integer, nullable=False, server_default="1"),
    last_transaction(),
    PrimaryKeyConstraint("account_id", "live", "id"),
    one_of("status", Status),
    one_of("priority", Priority),
)

_newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
Index("itsm_tickets_newest_idx", tickets.c.account_id, tickets.c.live, *_newest_first)
Index("itsm_tickets_status_newest_idx", tickets.c.account_id, tickets.c.live, tickets.c.status, *_newest_first)

# Without metadata it costs nothing; one term costs 213 bytes of WAL and a few µs, beside 704 and 55 of the row and its
# other indexes. (As rows of a table: 312 bytes. Computed by a function of the index: 173, but 30 µs. Of jsonb: 165, but
# not every JSON text is valid jsonb, and such an index is not per account.) New entries wait in the pending list, or it
# would be 992 bytes; the list is short, because each search reads it from end to end.
Index(
    "itsm_tickets_metadata_idx",
    tickets.c.metadata_terms,
    postgresql_using="gin",
    postgresql_with={"gin_pending_list_limit": 256},
    postgresql_where=tickets.c.metadata_terms.is_not(None),
)

# The number of tickets by status, so that a list need not count them: the totals as of the last merge, and the changes
# since. Each write appends its own rows, so no row is hot; a background task merges them.
totals = Table(
    "itsm_totals",
    METADATA,
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("total", BigInteger, nullable=False),
    PrimaryKeyConstraint("account_id", "live", "status"),
    one_of("status", Status),
)

total_changes = Table(
    "itsm_total_changes",
    METADATA,
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("id", BigInteger, Identity(always=True)),
    Column("status", Text, nullable=False),
    Column("change", SmallInteger, nullable=False),
    PrimaryKeyConstraint("account_id", "live", "id"),
)

events = event_table(
    "itsm_events",
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    ticket_id=Column("ticket_id", Uuid, nullable=False),
    # The members that `changes` names, so that the events of one member are found without reading them all, and the
    # ticket's `updated_at` as of this version. Null for a creation, and for events that are older than these columns.
    own=(Column("members", ARRAY(Text)), Column("updated_at", DateTime(timezone=True))),
)

webhooks = Table(
    "itsm_webhooks",
    METADATA,
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("events", ARRAY(Text), nullable=False),
    # Encrypted (vault.py). The one before is good until an instant.
    Column("secret", LargeBinary, nullable=False),
    Column("previous_secret", LargeBinary),
    Column("previous_secret_until", DateTime(timezone=True)),
    Column("is_active", Boolean, nullable=False, server_default=true()),
    # Why it was switched off; null where its account did it.
    Column("disabled_reason", Text),
    # Since when no attempt has succeeded.
    Column("failing_since", DateTime(timezone=True)),
    # Behind which event it is: those behind that are no messages yet.
    Column("transaction_id", Xid8, nullable=False),
    Column("event_id", BigInteger, nullable=False),
    created_at(),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("account_id", "live", "id"),
    all_of("events", EventType),
)


def _of_webhook() -> tuple[Column[object], ...]:
    return (
        Column("account_id", Uuid, nullable=False),
        Column("live", Boolean, nullable=False),
        Column("webhook_id", Text, nullable=False),
    )


def _message() -> tuple[Column[object], ...]:
    """What is sent, and of which change of which ticket it tells."""
    return (
        Column("ticket_id", Uuid, nullable=False),
        Column("version", Integer, nullable=False),
        Column("type", Text, nullable=False),
        # `evt_…`, the same for each attempt and each webhook.
        Column("event_id", Text, nullable=False),
        # As it is signed.
        Column("body", Text, nullable=False),
    )


# Whose message it is, and its own columns.
OF_WEBHOOK = ("account_id", "live", "webhook_id")
MESSAGE = ("ticket_id", "version", "type", "event_id", "body")


def _with_webhook() -> ForeignKeyConstraint:
    whole = ["itsm_webhooks.account_id", "itsm_webhooks.live", "itsm_webhooks.id"]
    return ForeignKeyConstraint(["account_id", "live", "webhook_id"], whole, ondelete="CASCADE")


# What a webhook has to be told yet.
messages = Table(
    "itsm_webhook_messages",
    METADATA,
    *_of_webhook(),
    *_message(),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # Nothing while its webhook is switched off.
    Column("next_attempt_at", DateTime(timezone=True), server_default=func.now()),
    # Who is at it, and until when nobody else is.
    Column("lease", Uuid),
    Column("leased_until", DateTime(timezone=True)),
    PrimaryKeyConstraint("account_id", "live", "webhook_id", "ticket_id", "version"),
    _with_webhook(),
)
Index(None, messages.c.next_attempt_at)
Index(
    "itsm_webhook_messages_leased_idx", messages.c.leased_until, postgresql_where=messages.c.leased_until.is_not(None)
)

# The log: the last attempts of each webhook.
attempts = Table(
    "itsm_webhook_attempts",
    METADATA,
    *_of_webhook(),
    # `dlv_` and a ULID, so that they sort by their time.
    Column("id", Text, nullable=False),
    *_message(),
    # Which attempt of the message it was, from 1.
    Column("attempt", Integer, nullable=False),
    Column("attempted_at", DateTime(timezone=True), nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("succeeded", Boolean, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),
    PrimaryKeyConstraint("account_id", "live", "webhook_id", "id"),
    _with_webhook(),
)
