"""The tables that the peer shares with the service (made by the service's migrations)."""

from sqlalchemy import (
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
    func,
)

metadata = MetaData()


def _instant(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True))


tickets = Table(
    "helpdesk_tickets",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("app_id", Text),
    Column("number", BigInteger, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("category", Text),
    Column("submitted_by_id", Text, nullable=False),
    Column("assigned_to_id", Text),
    Column("team_id", Text),
    Column("sla_policy", Text),
    Column("related_asset_id", Text),
    Column("related_vulnerability_id", Text),
    _instant("first_response_at"),
    _instant("resolved_at"),
    _instant("due_at"),
    _instant("paused_at"),
    Column("tags", JSON, nullable=False),
    Column("source", Text, nullable=False),
    Column("source_type", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("created_by", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_by", Text, nullable=False),
    Column("is_deleted", Boolean, nullable=False, server_default="false"),
    _instant("deleted_at"),
    Column("deleted_by", Text),
    Column("version", Integer, nullable=False, server_default="1"),
)

pauses = Table(
    "helpdesk_pauses",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("ticket_id", Text, primary_key=True),
    Column("started_at", DateTime(timezone=True), primary_key=True),
    Column("ended_at", DateTime(timezone=True), nullable=False),
)

policies = Table(
    "helpdesk_sla_policies",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("resolution_minutes", Integer, nullable=False),
)

active_policies = Table(
    "helpdesk_active_sla_policies",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("priority", Text, primary_key=True),
    Column("type", Text, primary_key=True),
    Column("policy_id", Text, nullable=False),
)

events = Table(
    "helpdesk_events",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("ticket_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("changes", JSON, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text, nullable=False),
)
