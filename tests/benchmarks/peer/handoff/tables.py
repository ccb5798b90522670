"""The tables that the peer shares with the service (made by the service's migrations)."""

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
)

metadata = MetaData()

projects = Table(
    "projects",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("slug", Text, nullable=False),
    Column("backend_repo", Text),
    Column("frontend_repo", Text),
    Column("github_repo", Text),
    Column("default_roles", ARRAY(Text), nullable=False),
)

project_members = Table(
    "project_members",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("project_id", Uuid, primary_key=True),
    Column("role", Text, nullable=False),
)

tickets = Table(
    "handoff_tickets",
    metadata,
    Column("project_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
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
    Column("evidence", JSON(none_as_null=True)),
    Column("suggested_resolution", Text),
    Column("implementation_notes", Text),
    Column("resolution_type", Text),
    Column("resolution_note", Text),
    Column("resolved_at", DateTime(timezone=True)),
    Column("merge_sha", Text),
    Column("deployed_at", DateTime(timezone=True)),
    Column("deploy_failed_at", DateTime(timezone=True)),
    Column("github_issue_number", BigInteger),
    Column("reported_by_user_id", Uuid),
    Column("actor_role", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True)),
    Column("version", Integer, nullable=False, server_default="1"),
)

roles = Table(
    "handoff_roles",
    metadata,
    Column("project_id", Uuid, primary_key=True),
    Column("ticket_id", Uuid, primary_key=True),
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    Column("position", Integer, nullable=False),
    Column("role", Text, primary_key=True),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("assignee_user_id", Uuid),
    Column("assignee_note", Text),
    Column("blocking_reason", Text),
    Column("work_started_note", Text),
    Column("agent_origin", Text),
    Column("started_at", DateTime(timezone=True)),
    Column("completed_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

events = Table(
    "handoff_events",
    metadata,
    Column("project_id", Uuid, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("ticket_id", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("changes", JSON, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("actor_role", Text),
    Column("actor_id", Text),
)
