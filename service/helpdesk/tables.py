"""Where helpdesk tickets are kept."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR, array

from service.directory import METADATA, created_at, one_of
from service.events import event_table, last_transaction
from service.helpdesk.commands import Priority, SourceType, Status, Type

tickets = Table(
    "helpdesk_tickets",
    METADATA,
    # The scope. No foreign key: a token that is signed for a tenant says that there is one.
    Column("tenant_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    # The application that created it; null when a person did.
    Column("app_id", Text),
    # Of `TKT-0001` the 1.
    Column("number", BigInteger, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("category", Text),
    # Persons, groups, SLA policies, assets, vulnerabilities: ids of other systems.
    Column("submitted_by_id", Text, nullable=False),
    Column("assigned_to_id", Text),
    Column("team_id", Text),
    Column("sla_policy", Text),
    Column("related_asset_id", Text),
    Column("related_vulnerability_id", Text),
    Column("first_response_at", DateTime(timezone=True)),
    Column("resolved_at", DateTime(timezone=True)),
    Column("due_at", DateTime(timezone=True)),
    # json and not jsonb: kept as it came.
    Column("tags", JSON, nullable=False),
    # For searches: `#` and each string of the array, or each name of the object (views.py).
    Column("tag_words", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("source", Text, nullable=False),
    Column("source_type", Text, nullable=False),
    created_at(),
    Column("created_by", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_by", Text, nullable=False),
    Column("is_deleted", Boolean, nullable=False, server_default=false()),
    Column("deleted_at", DateTime(timezone=True)),
    Column("deleted_by", Text),
    # Counts changes from 1; the version of its newest event.
    Column("version", Integer, nullable=False, server_default="1"),
    last_transaction(),
    PrimaryKeyConstraint("tenant_id", "id"),
    UniqueConstraint("tenant_id", "number"),
    one_of("type", Type),
    one_of("status", Status),
    one_of("priority", Priority),
    one_of("source_type", SourceType),
)

# What lists are sorted by, each with the id behind it.
NEVER = text("'9999-12-31 23:59:59.999999+00'::timestamptz")
DUE = func.coalesce(tickets.c.due_at, NEVER, type_=DateTime(timezone=True))
# Constants and not parameters, or no index would be known to have it.
_PRIORITIES = array([text(f"'{word}'::text") for word in get_args(Priority)])
RANK: ColumnElement[int] = func.array_position(_PRIORITIES, tickets.c.priority, type_=Integer)
_newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
_ORDERS: Mapping[str, Sequence[ColumnElement[Any]]] = {
    "newest": _newest_first,
    "changed": (tickets.c.updated_at.desc(), tickets.c.id.desc()),
    "due": (DUE, tickets.c.id),
    "priority": (RANK.desc(), tickets.c.id.desc()),
}
for _name, _order in _ORDERS.items():
    Index(f"helpdesk_tickets_{_name}_idx", tickets.c.tenant_id, *_order)
    Index(
        f"helpdesk_tickets_app_{_name}_idx",
        tickets.c.tenant_id,
        tickets.c.app_id,
        *_order,
        postgresql_where=tickets.c.app_id.is_not(None),
    )
for _name in ("status", "assigned_to_id", "team_id", "submitted_by_id"):
    Index(f"helpdesk_tickets_{_name}_newest_idx", tickets.c.tenant_id, tickets.c[_name], *_newest_first)

SEARCH = text("'simple'::regconfig")
# The words of a ticket, its tags, and its tenant as if it were one: else a search would go through every tenant's.
WORDS = (
    func.to_tsvector(
        SEARCH,
        tickets.c.title.op("||")(text("' '")).op("||")(func.coalesce(tickets.c.description, text("''"))),
        type_=TSVECTOR,
    )
    .op("||")(func.array_to_tsvector(tickets.c.tag_words, type_=TSVECTOR))
    .op("||")(func.array_to_tsvector(array([literal_column("'@'") + tickets.c.tenant_id]), type_=TSVECTOR))
)
Index("helpdesk_tickets_words_idx", WORDS, postgresql_using="gin")

comments = Table(
    "helpdesk_comments",
    METADATA,
    Column("tenant_id", Text, nullable=False),
    Column("ticket_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("body", Text, nullable=False),
    # For agents alone.
    Column("internal", Boolean, nullable=False),
    Column("author_id", Text, nullable=False),
    created_at(),
    # Null until it is edited.
    Column("updated_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "ticket_id", "id"),
    ForeignKeyConstraint(["tenant_id", "ticket_id"], ["helpdesk_tickets.tenant_id", "helpdesk_tickets.id"]),
)
Index("helpdesk_comments_oldest_idx", comments.c.tenant_id, comments.c.ticket_id, comments.c.created_at, comments.c.id)

events = event_table(
    "helpdesk_events",
    Column("tenant_id", Text, nullable=False),
    ticket_id=Column("ticket_id", Text, nullable=False),
    # The ticket's application, and whether it is about what agents alone may see.
    declared=(Column("app_id", Text), Column("internal", Boolean, nullable=False, server_default=false())),
)
