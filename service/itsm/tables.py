"""The tables of ITSM tickets, their events and totals, and of webhooks."""

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    collate,
    func,
    true,
)

from service.directory import METADATA, created_at, one_of
from service.events import event_table, last_transaction
from service.idempotency import key_table
from service.itsm.commands import Priority, Status, WebhookEvent
from service.purged import purged_table
from service.reindex import index_search_terms, search_terms
from service.storage.database import Xid8
from service.storage.scope import scoped_by, shared
from service.webhooks.tables import webhook_tables

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
    search_terms(),
    PrimaryKeyConstraint("account_id", "live", "id"),
    one_of("status", Status),
    one_of("priority", Priority),
    info=scoped_by("account_id", "live", gives={"id": "ticket_id"}),
)

_newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
Index("itsm_tickets_newest_idx", tickets.c.account_id, tickets.c.live, *_newest_first)
Index("itsm_tickets_status_newest_idx", tickets.c.account_id, tickets.c.live, tickets.c.status, *_newest_first)
# Partial, as most tickets have neither: those without need no entry. Totals by these two are counted, by index-only
# scans where the pages are all visible, so the address itself is in the index too.
Index(
    "itsm_tickets_priority_newest_idx",
    tickets.c.account_id,
    tickets.c.live,
    tickets.c.priority,
    *_newest_first,
    postgresql_where=tickets.c.priority.is_not(None),
)
# Without regard to the case of ASCII letters, as mail is delivered; by the collation that is the same everywhere.
REQUESTER = func.lower(collate(tickets.c.requester_email, "C"))
Index(
    "itsm_tickets_requester_newest_idx",
    tickets.c.account_id,
    tickets.c.live,
    REQUESTER,
    *_newest_first,
    postgresql_include=["requester_email"],
    postgresql_where=tickets.c.requester_email.is_not(None),
)

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

index_search_terms(tickets)

# The number of tickets by status, so that a list need not count them: the totals as of the last merge, and the changes
# since. Each write appends its own rows, so no row is hot; a background task merges them.
totals = Table(
    "itsm_totals",
    METADATA,
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("total", BigInteger, nullable=False),
    # The transaction that merged last, while each merge has merged the days too (day_queries.py).
    Column("days_as_of", Xid8),
    PrimaryKeyConstraint("account_id", "live", "status"),
    one_of("status", Status),
    info=scoped_by("account_id", "live"),
)

total_changes = Table(
    "itsm_total_changes",
    METADATA,
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("id", BigInteger, Identity(always=True)),
    Column("status", Text, nullable=False),
    Column("change", SmallInteger, nullable=False),
    # When the ticket was created, in UTC. Null from a process from before migration 0021.
    Column("day", Date),
    PrimaryKeyConstraint("account_id", "live", "id"),
    info=scoped_by("account_id", "live"),
)

# The same totals by the day of the tickets' creation, merged of the same changes.
day_totals = Table(
    "itsm_day_totals",
    METADATA,
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("day", Date, nullable=False),
    Column("status", Text, nullable=False),
    Column("total", BigInteger, nullable=False),
    PrimaryKeyConstraint("account_id", "live", "day", "status"),
    one_of("status", Status),
    info=scoped_by("account_id", "live"),
)

# Accounts whose days are being recounted, and the day before which they still are: the background goes back in time.
day_recounts = Table(
    "itsm_day_recounts",
    METADATA,
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("before", Date, nullable=False),
    PrimaryKeyConstraint("account_id", "live"),
    info=scoped_by("account_id", "live"),
)

# One row: the floor, after which sums of changes begin, and what it may rise to once the horizon is `pending_until`
# (total_queries.py).
totals_floor = Table(
    "itsm_totals_floor",
    METADATA,
    Column("one", Boolean, primary_key=True, server_default=true()),
    Column("floor", BigInteger, nullable=False),
    Column("pending", BigInteger, nullable=False),
    Column("pending_until", Xid8, nullable=False),
    CheckConstraint("one", name="one"),
    info=shared("one row for the whole database, that holds nothing of a caller's"),
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

events_purged = purged_table(events)

WEBHOOKS = webhook_tables("itsm", events, WebhookEvent)

keys = key_table(
    "itsm_keys",
    Column("account_id", Uuid, nullable=False),
    Column("live", Boolean, nullable=False),
    info=scoped_by("account_id", "live"),
)
