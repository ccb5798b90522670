"""The tables of handoff tickets, their roles, deployments and events."""

from collections.abc import Mapping, Sequence
from typing import get_args

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)

from service.directory import METADATA, RoleName, created_at, one_of
from service.events import event_table, last_transaction
from service.handoff.commands import Outcome, Priority, RequestType, ResolutionType, RoleStatus, Stage, Status
from service.idempotency import key_table
from service.numbering import counter_table
from service.purged import purged_table
from service.reindex import index_search_terms, search_terms
from service.storage.scope import scoped_by

tickets = Table(
    "handoff_tickets",
    METADATA,
    # The scope: callers see the tickets of the projects that they are members of.
    Column("project_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    Column("number", BigInteger, nullable=False),
    Column("milestone_id", Uuid),
    Column("source", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("request_type", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="open"),
    Column("stage", Text, nullable=False, server_default="backlog"),
    Column("priority", Text, nullable=False),
    Column("blocking", Boolean, nullable=False),
    # json and not jsonb, which would not store the text as it came.
    Column("evidence", JSON),
    Column("suggested_resolution", Text),
    Column("implementation_notes", Text),
    Column("resolution_type", Text),
    Column("resolution_note", Text),
    Column("resolved_at", DateTime(timezone=True)),
    Column("merge_sha", Text),
    Column("deployed_at", DateTime(timezone=True)),
    Column("deploy_failed_at", DateTime(timezone=True)),
    Column("github_issue_number", BigInteger),
    # The authenticated user, and the provenance that the caller declared.
    Column("reported_by_user_id", Uuid),
    Column("actor_role", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    created_at(),
    # Null until the first change.
    Column("updated_at", DateTime(timezone=True)),
    # The version of the newest event: 1 for the creation, and one more with each change.
    Column("version", Integer, nullable=False, server_default="1"),
    last_transaction(),
    search_terms(),
    PrimaryKeyConstraint("project_id", "id"),
    UniqueConstraint("project_id", "number"),
    ForeignKeyConstraint(["project_id"], ["projects.id"]),
    one_of("request_type", RequestType),
    one_of("status", Status),
    one_of("stage", Stage),
    one_of("priority", Priority),
    one_of("resolution_type", ResolutionType),
    CheckConstraint("(status = 'closed') = (stage = 'live')", name="closed_is_live"),
    info=scoped_by("project_id"),
)

# Index terms are only searched by, never read.
SHOWN = tuple(column for column in tickets.c if column.name != "search_terms")

_newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
Index("handoff_tickets_newest_idx", tickets.c.project_id, *_newest_first)
# A small index: most of a project's tickets are closed.
Index("handoff_tickets_open_idx", tickets.c.project_id, *_newest_first, postgresql_where=tickets.c.status == "open")
Index(
    "handoff_tickets_milestone_idx",
    tickets.c.project_id,
    tickets.c.milestone_id,
    *_newest_first,
    postgresql_where=tickets.c.milestone_id.is_not(None),
)
# For what is rare among them; each combination is one entry with many rows. What a stage may be is in none: it changes
# often, and a change of a column of no index is cheap.
FACETS: Mapping[str, Sequence[str]] = {
    "priority": get_args(Priority),
    "request_type": get_args(RequestType),
    "status": get_args(Status),
    "no_milestone": (),
}
Index(
    "handoff_tickets_facets_idx",
    tickets.c.project_id,
    tickets.c.priority,
    tickets.c.request_type,
    tickets.c.status,
    tickets.c.milestone_id.is_(None),
)
# By how far their work has come: whatever is so has a commit.
IS_UNFAILED, IS_UNDEPLOYED = tickets.c.deploy_failed_at.is_(None), tickets.c.deployed_at.is_(None)
Index(
    "handoff_tickets_shipped_idx",
    tickets.c.project_id,
    IS_UNFAILED,
    IS_UNDEPLOYED,
    postgresql_where=tickets.c.merge_sha.is_not(None),
)
CHANGED_AT = func.coalesce(tickets.c.updated_at, tickets.c.created_at)
Index("handoff_tickets_changed_idx", tickets.c.project_id, CHANGED_AT)

index_search_terms(tickets)

roles = Table(
    "handoff_roles",
    METADATA,
    Column("project_id", Uuid, nullable=False),
    Column("ticket_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    # The order in which the roles were named.
    Column("position", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("assignee_user_id", Uuid),
    Column("assignee_note", Text),
    Column("blocking_reason", Text),
    Column("work_started_note", Text),
    Column("agent_origin", Text),
    Column("started_at", DateTime(timezone=True)),
    Column("completed_at", DateTime(timezone=True)),
    created_at(),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("project_id", "ticket_id", "role"),
    UniqueConstraint("project_id", "id"),
    ForeignKeyConstraint(["project_id", "ticket_id"], ["handoff_tickets.project_id", "handoff_tickets.id"]),
    one_of("role", RoleName),
    one_of("status", RoleStatus),
    info=scoped_by("project_id"),
)

Index(
    "handoff_roles_assignee_idx",
    roles.c.project_id,
    roles.c.assignee_user_id,
    postgresql_where=roles.c.assignee_user_id.is_not(None),
)

Index("handoff_roles_role_idx", roles.c.project_id, roles.c.role)

# The reports received: the same commit and outcome again changes nothing.
deployments = Table(
    "handoff_deployments",
    METADATA,
    Column("project_id", Uuid, nullable=False),
    Column("ticket_id", Uuid, nullable=False),
    Column("merge_sha", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("happened_at", DateTime(timezone=True), nullable=False),
    created_at(),
    PrimaryKeyConstraint("project_id", "ticket_id", "merge_sha", "outcome"),
    ForeignKeyConstraint(["project_id", "ticket_id"], ["handoff_tickets.project_id", "handoff_tickets.id"]),
    one_of("outcome", Outcome),
    info=scoped_by("project_id"),
)

events = event_table(
    "handoff_events",
    Column("project_id", Uuid, nullable=False),
    ticket_id=Column("ticket_id", Uuid, nullable=False),
    # The provenance that the caller declared, and the agent that started work on a role.
    own=(Column("actor_role", Text), Column("actor_id", Text), Column("agent_origin", Text)),
)
events_purged = purged_table(events)

keys = key_table(
    "handoff_keys",
    Column("project_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    info=scoped_by("project_id", "user_id"),
)
counters = counter_table("handoff_counters", Column("project_id", Uuid, nullable=False))
