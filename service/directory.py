"""Accounts with their API keys, projects with their members, and tenants: the tables that every dialect shares."""

from typing import Literal, get_args

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    and_,
    func,
    or_,
    text,
)

from service.storage.scope import Scope, scoped_by

# What the caller's own values are: of an API key, of a user in the projects they are a member of, of a tenant's token.
ACCOUNT = Scope("account_id", "live", "key_id")
MEMBER = Scope("user_id")
TENANT = Scope("tenant_id")
TENANT_AND_APP = Scope("tenant_id", "app_id")
TENANT_AND_PERSON = Scope("tenant_id", "person_id")

MemberRole = Literal["viewer", "member", "triager", "owner"]
RoleName = Literal["frontend", "backend", "design", "devops", "qa", "test", "other"]
KeyScope = Literal["tickets:read", "tickets:write", "webhooks:manage"]

METADATA = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def one_of(column: str, vocabulary: object) -> CheckConstraint:
    """The constraint that a column holds a value of a vocabulary, given as its Literal."""
    values = ", ".join(f"'{value}'" for value in get_args(vocabulary))
    return CheckConstraint(f"{column} IN ({values})", name=column)


def all_of(column: str, vocabulary: object) -> CheckConstraint:
    """The constraint that an array column holds only values of a vocabulary, given as its Literal."""
    values = ", ".join(f"'{value}'::text" for value in get_args(vocabulary))
    return CheckConstraint(f"{column} <@ ARRAY[{values}]", name=column)


def created_at() -> Column[object]:
    """When the row was written, by the database's clock, in microseconds."""
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def suspended_at() -> Column[object]:
    """Since when an operator has suspended it; null while it is not: see access/suspensions.py."""
    return Column("suspended_at", DateTime(timezone=True))


accounts = Table(
    "accounts",
    METADATA,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    Column("name", Text, nullable=False),
    created_at(),
    suspended_at(),
    info=scoped_by(id="account_id"),
)
Index("accounts_suspended_idx", accounts.c.id, postgresql_where=accounts.c.suspended_at.is_not(None))

SLUG_IS_TAKEN = ("already_exists", "A project with this slug already exists")
TENANT_EXISTS = ("already_exists", "A tenant with this id already exists")
NO_ACCOUNT = {"error": ("not_found", "Account not found")}

api_keys = Table(
    "api_keys",
    METADATA,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    Column("account_id", Uuid, nullable=False),
    # SHA-256 of the key, which itself is not stored.
    Column("key_hash", LargeBinary, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    created_at(),
    suspended_at(),
    # The first characters of the key; null for keys that are older than this column.
    Column("prefix", Text),
    # Within a minute or so (access/key_uses.py).
    Column("last_used_at", DateTime(timezone=True)),
    UniqueConstraint("key_hash"),
    ForeignKeyConstraint(["account_id"], ["accounts.id"], info=NO_ACCOUNT),
    all_of("scopes", KeyScope),
    info=scoped_by(id="key_id", gives={"account_id": "account_id", "live": "live"}),
)
Index("api_keys_suspended_idx", api_keys.c.id, postgresql_where=api_keys.c.suspended_at.is_not(None))
# Whether a key is valid: neither revoked nor expired.
KEY_HOLDS = and_(
    api_keys.c.revoked_at.is_(None), or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now())
)

projects = Table(
    "projects",
    METADATA,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    Column("account_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("slug", Text, nullable=False),
    Column("backend_repo", Text),
    Column("frontend_repo", Text),
    # `owner/name`, the repository whose issues mirror tickets.
    Column("github_repo", Text),
    Column("default_roles", ARRAY(Text), nullable=False, server_default=text("ARRAY['backend']")),
    created_at(),
    UniqueConstraint("slug", info={"error": SLUG_IS_TAKEN}),
    ForeignKeyConstraint(["account_id"], ["accounts.id"], info=NO_ACCOUNT),
    all_of("default_roles", RoleName),
    info=scoped_by(id="project_id"),
)

project_members = Table(
    "project_members",
    METADATA,
    Column("project_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("role", Text, nullable=False),
    created_at(),
    PrimaryKeyConstraint("user_id", "project_id"),
    ForeignKeyConstraint(["project_id"], ["projects.id"], info={"error": ("not_found", "Project not found")}),
    one_of("role", MemberRole),
    info=scoped_by("user_id", gives={"project_id": "project_id"}),
)

tenants = Table(
    "tenants",
    METADATA,
    Column("id", Text),
    Column("name", Text, nullable=False),
    created_at(),
    suspended_at(),
    PrimaryKeyConstraint("id", info={"error": TENANT_EXISTS}),
    info=scoped_by(id="tenant_id"),
)
Index("tenants_suspended_idx", tenants.c.id, postgresql_where=tenants.c.suspended_at.is_not(None))
