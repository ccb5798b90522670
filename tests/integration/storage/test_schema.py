"""The store: migrations that make what the tables declare, and a database that refuses what the contracts forbid."""

from collections.abc import Mapping
from typing import Any, get_args
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text
from support.system import World

from service import directory, migrations
from service.directory import METADATA
from service.handoff import commands as handoff
from service.helpdesk import commands as helpdesk
from service.itsm import commands as itsm
from service.local.postgres import EmbeddedPostgres
from service.migrations import leftovers


def test_the_migrations_make_what_the_tables_declare(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.connect() as connection:
        options = {"compare_type": True, "include_name": leftovers.is_declared}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
        declared = {
            (table.name, constraint.name) for table in METADATA.tables.values() for constraint in table.constraints
        }
        made = connection.execute(
            text("SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype IN ('c', 'f', 'p', 'u')")
        )
        assert declared <= {(row[0], row[1]) for row in made}
    engine.dispose()


def test_the_migrations_go_down_and_up_again(postgres: EmbeddedPostgres) -> None:

    with psycopg.connect(postgres.url_for("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrations")
    url = postgres.url_for("migrations")
    first = migrations.upgrade(url)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection_:
        command.downgrade(migrations.config(connection_), "base")
        tables = connection_.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
        assert set(tables) == {"alembic_version"}
    engine.dispose()
    assert migrations.upgrade(url) == first
    assert migrations.upgrade(url) == first


VOCABULARIES: Mapping[str, Mapping[str, Any]] = {
    "itsm_tickets": {"status": itsm.Status, "priority": itsm.Priority},
    "helpdesk_tickets": {
        "status": helpdesk.Status,
        "priority": helpdesk.Priority,
        "type": helpdesk.Type,
        "source_type": helpdesk.SourceType,
    },
    "handoff_tickets": {
        "status": handoff.Status,
        "stage": handoff.Stage,
        "priority": handoff.Priority,
        "request_type": handoff.RequestType,
        "resolution_type": handoff.ResolutionType,
    },
    "handoff_roles": {"role": directory.RoleName, "status": handoff.RoleStatus},
    "project_members": {"role": directory.MemberRole},
    "itsm_webhooks": {"events": itsm.WebhookEvent},
}


@pytest.mark.parametrize(
    ("table", "column", "vocabulary"),
    [(table, column, words) for table, columns in VOCABULARIES.items() for column, words in columns.items()],
    ids=str,
)
def test_the_database_knows_every_vocabulary(world: World, table: str, column: str, vocabulary: Any) -> None:
    check = f"{table}_{column}_check"
    [(definition,)] = world.rows("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", check)
    words = {part.split("'")[0] for part in definition.split("'")[1::2]}
    assert words == set(get_args(vocabulary))


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("handoff_tickets", "project_id, number"),
        ("helpdesk_tickets", "tenant_id, number"),
        ("handoff_roles", "project_id, ticket_id, role"),
        ("projects", "slug"),
        ("api_keys", "key_hash"),
        ("itsm_keys", "account_id, live, key"),
        ("helpdesk_keys", "tenant_id, app_id, sub, key"),
        ("helpdesk_sla_keys", "tenant_id, sub, key"),
        ("handoff_keys", "project_id, user_id, key"),
        ("admin_keys", "sub, key"),
        ("project_members", "user_id, project_id"),
        ("itsm_events", "account_id, live, ticket_id, version"),
        ("itsm_webhook_messages", "account_id, live, webhook_id, ticket_id, version, type"),
        ("helpdesk_events", "tenant_id, ticket_id, version"),
        ("handoff_events", "project_id, ticket_id, version"),
    ],
)
def test_the_database_keeps_unique_what_must_be(world: World, table: str, columns: str) -> None:
    unique = world.rows(
        "SELECT indexdef FROM pg_indexes WHERE tablename = %s AND indexdef LIKE 'CREATE UNIQUE%%'", table
    )
    assert any(f"({columns})" in definition for (definition,) in unique)


def test_a_closed_handoff_ticket_is_live_and_no_other(world: World) -> None:
    project_id = uuid4()
    world.run(
        "WITH a AS (INSERT INTO accounts (name) VALUES ('a') RETURNING id)"
        "INSERT INTO projects (id, account_id, name, slug) SELECT %s, id, 'p', %s FROM a",
        project_id,
        str(project_id),
    )
    insert = (
        "INSERT INTO handoff_tickets (project_id, number, source, title, description, request_type, priority, blocking,"
        " actor_role, actor_id, status, stage) VALUES (%s, 1, '', '', '', 'bug', 'low', false, '', '', %s, %s)"
    )
    for status, stage in (("closed", "backlog"), ("open", "live")):
        with pytest.raises(psycopg.errors.CheckViolation):
            world.run(insert, project_id, status, stage)
    world.run(insert, project_id, "closed", "live")
