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
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)

metadata = MetaData()

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("live", Boolean, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
)

tickets = Table(
    "itsm_tickets",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("live", Boolean, primary_key=True),
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    Column("subject", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Text),
    Column("requester_email", Text),
    Column("external_provider", Text),
    Column("external_ticket_id", Text),
    Column("external_ticket_url", Text),
    Column("metadata", JSON, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("version", Integer, nullable=False, server_default="1"),
)

events = Table(
    "itsm_events",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("live", Boolean, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("ticket_id", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("changes", JSON, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text, nullable=False),
)

idempotency_keys = Table(
    "itsm_keys",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("live", Boolean, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),
    Column("response", JSON, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False, server_default=text("now() + interval '1 hour'")),
)
