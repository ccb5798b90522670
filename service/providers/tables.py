"""The provider that an account is linked to, and the deliveries to it."""

from typing import Literal

from sqlalchemy import (
    JSON,
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
    false,
    func,
    not_,
    text,
)

from service.directory import METADATA, NO_ACCOUNT, created_at, one_of
from service.providers.port import ProviderName
from service.storage.scope import scoped_by

DeliveryKind = Literal["create", "update"]
DeliveryState = Literal["queued", "dead"]

links = Table(
    "provider_links",
    METADATA,
    Column("account_id", Uuid, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("url", Text, nullable=False),
    # Encrypted (vault.py).
    Column("credential", LargeBinary, nullable=False),
    # What else the vendor needs (declared in its own file).
    Column("options", JSON, nullable=False),
    created_at(),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    ForeignKeyConstraint(["account_id"], ["accounts.id"], info=NO_ACCOUNT),
    one_of("provider", ProviderName),
    info=scoped_by("account_id"),
)

# What an account's provider has not confirmed yet.
deliveries = Table(
    "provider_deliveries",
    METADATA,
    Column("id", Uuid, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("ticket_id", Uuid, nullable=False),
    # The order of a ticket's deliveries: the version that each brings, 1 for the creation.
    Column("version", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    # Members with their values: all of a creation, the changed ones of an update.
    Column("members", JSON, nullable=False),
    # Whether the ticket has a row here: a creation's is written only after the first attempt.
    Column("has_ticket", Boolean, nullable=False),
    # Set for a creation whose ticket has no row yet: the key under which it was requested.
    Column("idempotency_key", Text),
    Column("request_hash", LargeBinary),
    Column("actor", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="queued"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # The lease of the process that attempts it, and when that ends.
    Column("lease", Uuid),
    Column("leased_until", DateTime(timezone=True)),
    # Whether the provider may have carried it out: then the ticket is looked for first, at the address of that attempt.
    Column("in_doubt", Boolean, nullable=False, server_default=false()),
    Column("attempted_url", Text),
    Column("last_error", Text),
    # Whether an operator has requeued it: it then brings the members as they are by then, not as they were.
    Column("is_requeued", Boolean, nullable=False, server_default=false()),
    created_at(),
    PrimaryKeyConstraint("account_id", "id"),
    one_of("kind", DeliveryKind),
    one_of("state", DeliveryState),
    # There is no column `live`: test keys have no provider. The ids of a delivery and of its ticket are unique, too.
    info=scoped_by("account_id", or_by={"id": "delivery_id", "ticket_id": "ticket_id"}),
)
# Operators name a delivery by its id alone.
Index("provider_deliveries_id_idx", deliveries.c.id)
Index("provider_deliveries_state_idx", deliveries.c.state, deliveries.c.id)
Index(
    "provider_deliveries_account_ticket_idx",
    deliveries.c.account_id,
    deliveries.c.ticket_id,
    deliveries.c.version,
    unique=True,
)
Index(
    "provider_deliveries_account_key_idx",
    deliveries.c.account_id,
    deliveries.c.idempotency_key,
    unique=True,
    postgresql_where=not_(deliveries.c.has_ticket),
)
# Finds the dead ones of an account, however many others there are.
Index(
    "provider_deliveries_dead_idx",
    deliveries.c.account_id,
    deliveries.c.id,
    postgresql_where=deliveries.c.state == text("'dead'"),
)
Index(
    "provider_deliveries_account_idx",
    deliveries.c.account_id,
    deliveries.c.next_attempt_at,
    postgresql_where=deliveries.c.state == text("'queued'"),
)
Index(
    "provider_deliveries_due_idx",
    deliveries.c.next_attempt_at,
    postgresql_where=deliveries.c.state == text("'queued'"),
)
