"""Where helpdesk tickets are kept."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    not_,
)

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

_newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
_listed = not_(tickets.c.is_deleted)
Index("helpdesk_tickets_newest_idx", tickets.c.tenant_id, *_newest_first, postgresql_where=_listed)
Index(
    "helpdesk_tickets_app_newest_idx",
    tickets.c.tenant_id,
    tickets.c.app_id,
    *_newest_first,
    postgresql_where=_listed & tickets.c.app_id.is_not(None),
)

events = event_table(
    "helpdesk_events",
    Column("tenant_id", Text, nullable=False),
    ticket_id=Column("ticket_id", Text, nullable=False),
)
