"""The tables of helpdesk tickets and their SLA."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Date,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    and_,
    false,
    func,
    literal_column,
    not_,
    null,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR, array

from service.directory import METADATA, all_of, created_at, one_of
from service.events import event_table, last_transaction
from service.helpdesk.commands import PolicyStatus, Priority, SourceType, Status, Type
from service.idempotency import key_table
from service.numbering import counter_table
from service.purged import purged_table
from service.reindex import index_search_terms, search_terms
from service.storage.scope import scoped_by

tickets = Table(
    "helpdesk_tickets",
    METADATA,
    # The scope. No foreign key: a token signed for a tenant shows that the tenant exists.
    Column("tenant_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    # The application that created it; null when a person did.
    Column("app_id", Text),
    # The 1 of `TKT-0001`.
    Column("number", BigInteger, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("category", Text),
    # People, groups, assets and vulnerabilities are ids of other systems.
    Column("submitted_by_id", Text, nullable=False),
    Column("assigned_to_id", Text),
    Column("team_id", Text),
    Column("sla_policy", Text),
    # Whether a caller set it, to a policy or to null: then no policy is matched by priority and type.
    Column("sla_policy_given", Boolean, nullable=False, server_default=false()),
    Column("related_asset_id", Text),
    Column("related_vulnerability_id", Text),
    Column("first_response_at", DateTime(timezone=True)),
    Column("resolved_at", DateTime(timezone=True)),
    Column("due_at", DateTime(timezone=True)),
    # Whether a caller set it, to an instant or to null.
    Column("due_at_given", Boolean, nullable=False, server_default=false()),
    Column("first_response_due_at", DateTime(timezone=True)),
    # Since when its clocks stand still, while it is pending, resolved or closed; earlier pauses are in `pauses`.
    Column("paused_at", DateTime(timezone=True)),
    # Which events of its SLA were emitted (targets.py, Schedule), and when the notifier looks at it next.
    Column("sla_emitted", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("sla_look_at", DateTime(timezone=True)),
    # json and not jsonb: stored as it was sent.
    Column("tags", JSON, nullable=False),
    # For the filter: `#` and each tag (index_terms.py, tag_terms).
    Column("tag_terms", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("source", Text, nullable=False),
    Column("source_type", Text, nullable=False),
    created_at(),
    Column("created_by", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_by", Text, nullable=False),
    Column("is_deleted", Boolean, nullable=False, server_default=false()),
    Column("deleted_at", DateTime(timezone=True)),
    Column("deleted_by", Text),
    # Counts changes from 1; the version of the newest event.
    Column("version", Integer, nullable=False, server_default="1"),
    # How many of them only agents see: others do not count them.
    Column("internal_changes", Integer, nullable=False, server_default="0"),
    last_transaction(),
    search_terms(),
    PrimaryKeyConstraint("tenant_id", "id"),
    UniqueConstraint("tenant_id", "number"),
    one_of("type", Type),
    one_of("status", Status),
    one_of("priority", Priority),
    one_of("source_type", SourceType),
    info=scoped_by(
        "tenant_id",
        narrower={"app_id": ["app_id"], "person_id": ["submitted_by_id", "created_by"]},
        gives={"id": "ticket_id"},
    ),
)
# Those of a person's own tickets that somebody else has submitted. Each is in the lists of two people.
FOR_ANOTHER = tickets.c.created_by != tickets.c.submitted_by_id
# Callers who see a ticket see the rows that belong to it.
_OF_TICKET = {name: {"ticket_id": "ticket_id"} for name in ("app_id", "person_id")}

# Index terms are only searched by, never read.
SHOWN = tuple(column for column in tickets.c if column.name != "search_terms")

# The orders of lists, each with the id as the tie-break.
NEVER = text("'9999-12-31 23:59:59.999999+00'::timestamptz")
DUE = func.coalesce(tickets.c.due_at, NEVER, type_=DateTime(timezone=True))
# Constants and not parameters: otherwise PostgreSQL would not see that an index has the expression.
_PRIORITIES = array([text(f"'{word}'::text") for word in get_args(Priority)])


def rank(priority: ColumnElement[str]) -> ColumnElement[int]:
    """The place of a priority among all of them, from 1, the lowest."""
    return func.array_position(_PRIORITIES, priority, type_=Integer)


RANK = rank(tickets.c.priority)
IS_UNRESOLVED = and_(tickets.c.status != "resolved", tickets.c.status != "closed")
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
    # A person has so few tickets that they are sorted (decision 0072).
    if _name in ("newest", "changed"):
        Index(f"helpdesk_tickets_submitted_by_id_{_name}_idx", tickets.c.tenant_id, tickets.c.submitted_by_id, *_order)
        Index(
            f"helpdesk_tickets_created_by_{_name}_idx",
            tickets.c.tenant_id,
            tickets.c.created_by,
            *_order,
            postgresql_where=FOR_ANOTHER,
        )
    # Small, as most tickets are resolved. None by change: those that changed last are mostly unresolved, so a walk of
    # the plain index finds them soon.
    if _name != "changed":
        Index(
            f"helpdesk_tickets_unresolved_{_name}_idx",
            tickets.c.tenant_id,
            *_order,
            postgresql_where=IS_UNRESOLVED,
        )
for _name in ("assigned_to_id", "team_id"):
    Index(f"helpdesk_tickets_{_name}_newest_idx", tickets.c.tenant_id, tickets.c[_name], *_newest_first)
for _name in ("related_asset_id", "related_vulnerability_id"):
    Index(
        f"helpdesk_tickets_{_name}_newest_idx",
        tickets.c.tenant_id,
        tickets.c[_name],
        *_newest_first,
        postgresql_where=tickets.c[_name].is_not(None),
    )

Index(
    "helpdesk_tickets_sla_idx",
    tickets.c.sla_look_at,
    postgresql_where=and_(tickets.c.sla_look_at.is_not(None), not_(tickets.c.is_deleted)),
)

# Those whose clocks move with their policy, for the walk of a re-clock.
Index(
    "helpdesk_tickets_clocks_idx",
    tickets.c.tenant_id,
    tickets.c.sla_policy,
    tickets.c.id,
    postgresql_where=and_(tickets.c.sla_policy.is_not(None), tickets.c.resolved_at.is_(None)),
)

index_search_terms(tickets)
# Finds the few tickets that a filter matches, by terms of their tags and some members. Each term list has the tenant's
# term, as the index would otherwise be read for all tenants.
_FACETS = ("status", "type", "category", "sla_policy", "source")
FACETS: Mapping[str, ColumnElement[str]] = {
    name: literal_column(f"'{name}='", Text) + tickets.c[name] for name in _FACETS
}
FACET_TERMS = func.array_to_tsvector(
    func.array_cat(
        tickets.c.tag_terms,
        func.array_remove(array([literal_column("'@'", Text) + tickets.c.tenant_id, *FACETS.values()]), null()),
    ),
    type_=TSVECTOR,
)
Index(
    "helpdesk_tickets_facets_idx",
    FACET_TERMS,
    postgresql_using="gin",
    # As of the search's index.
    postgresql_with={"gin_pending_list_limit": 512},
)

comments = Table(
    "helpdesk_comments",
    METADATA,
    Column("tenant_id", Text, nullable=False),
    Column("ticket_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("body", Text, nullable=False),
    # Visible to agents only.
    Column("internal", Boolean, nullable=False),
    Column("author_id", Text, nullable=False),
    created_at(),
    # Null until it is edited.
    Column("updated_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "ticket_id", "id"),
    ForeignKeyConstraint(["tenant_id", "ticket_id"], ["helpdesk_tickets.tenant_id", "helpdesk_tickets.id"]),
    info=scoped_by("tenant_id", narrower=_OF_TICKET),
)
Index("helpdesk_comments_oldest_idx", comments.c.tenant_id, comments.c.ticket_id, comments.c.created_at, comments.c.id)

# The times that a ticket was not worked on (pending, resolved or closed), once they have ended.
pauses = Table(
    "helpdesk_pauses",
    METADATA,
    Column("tenant_id", Text, nullable=False),
    Column("ticket_id", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant_id", "ticket_id", "started_at"),
    ForeignKeyConstraint(["tenant_id", "ticket_id"], ["helpdesk_tickets.tenant_id", "helpdesk_tickets.id"]),
    info=scoped_by("tenant_id", narrower=_OF_TICKET),
)

policies = Table(
    "helpdesk_sla_policies",
    METADATA,
    Column("tenant_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    # Types of tickets; empty: all.
    Column("applies_to", ARRAY(Text), nullable=False),
    Column("priority", Text, nullable=False),
    Column("first_response_minutes", Integer),
    Column("resolution_minutes", Integer, nullable=False),
    Column("business_hours_only", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    created_at(),
    Column("created_by", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_by", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "id"),
    all_of("applies_to", Type),
    one_of("priority", Priority),
    one_of("status", PolicyStatus),
    info=scoped_by("tenant_id"),
)

# The active policy of a priority and a type: at most one.
ANOTHER_IS_ACTIVE = ("already_exists", "An active SLA policy for this priority and type already exists")
active_policies = Table(
    "helpdesk_active_sla_policies",
    METADATA,
    Column("tenant_id", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("policy_id", Text, nullable=False),
    PrimaryKeyConstraint(
        "tenant_id",
        "priority",
        "type",
        info={"error": ANOTHER_IS_ACTIVE},
    ),
    ForeignKeyConstraint(["tenant_id", "policy_id"], ["helpdesk_sla_policies.tenant_id", "helpdesk_sla_policies.id"]),
    info=scoped_by("tenant_id"),
)

# The business hours of tenants; a tenant without a row has the default calendar of commands.py.
calendars = Table(
    "helpdesk_calendars",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("time_zone", Text, nullable=False),
    # [{"weekday": "monday", "start": "09:00", "end": "17:00"}, …]
    Column("hours", JSON, nullable=False),
    Column("holidays", ARRAY(Date), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_by", Text, nullable=False),
    info=scoped_by("tenant_id"),
)

# What is left to re-clock after changes of policies or of the calendar: one row for each tenant with any.
reclocks = Table(
    "helpdesk_reclocks",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    # The policies whose unresolved tickets are to be re-clocked, in order; each is there once more if it changes while
    # it is the first.
    Column("policy_ids", ARRAY(Text), nullable=False),
    # The last ticket of the first policy that was re-clocked; "" before its first.
    Column("after_id", Text, nullable=False, server_default=text("''")),
    # Tenants take turns: it is the turn of the one that has waited for the longest.
    Column("turn_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    info=scoped_by("tenant_id"),
)
Index("helpdesk_reclocks_turn_idx", reclocks.c.turn_at)

events = event_table(
    "helpdesk_events",
    Column("tenant_id", Text, nullable=False),
    ticket_id=Column("ticket_id", Text, nullable=False),
    own=(
        # The ticket's application.
        Column("app_id", Text),
        # Whether it is about an internal comment: only agents see it. And how many of those before it are.
        Column("internal", Boolean, nullable=False, server_default=false()),
        Column("internal_changes", Integer, nullable=False, server_default="0"),
    ),
    narrower={**_OF_TICKET, "app_id": {"app_id": "app_id", "ticket_id": "ticket_id"}},
)
events_purged = purged_table(events)

keys = key_table(
    "helpdesk_keys",
    Column("tenant_id", Text, nullable=False),
    # The application that the caller uses; empty where there is none.
    Column("app_id", Text, nullable=False),
    Column("sub", Text, nullable=False),
    # (Of a ticket an `app_id` may be null.)
    info=scoped_by("tenant_id", "sub", app_id="key_app_id"),
)
# Those of SLA policies and calendars, which no application may change, are apart.
sla_keys = key_table(
    "helpdesk_sla_keys",
    Column("tenant_id", Text, nullable=False),
    Column("sub", Text, nullable=False),
    info=scoped_by("tenant_id", "sub"),
)
counters = counter_table("helpdesk_counters", Column("tenant_id", Text, nullable=False))
