"""Migrations that change many rows do it in steps: the version before serves in the meantime."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from psycopg.types.json import Json
from sqlalchemy import create_engine
from support.provider_lab import empty_database

from service import migrations
from service.local.processes import wait_for
from service.migrations import online
from service.schema import known_revisions

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
TICKETS = [f"tick_{number}" for number in range(5)]
# Of each ticket but the first: a comment, one that only agents see, resolved and open again.
HISTORY: list[tuple[str, bool, dict[str, Any]]] = [
    ("ticket.created", False, {}),
    ("comment.created", False, {}),
    ("comment.created", True, {}),
    ("ticket.updated", False, {"status": {"from": "open", "to": "resolved"}}),
    ("ticket.reopened", False, {"status": {"from": "resolved", "to": "open"}}),
]


@pytest.fixture
def url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database as version 0012 left it, with tickets; a step takes two of them."""
    monkeypatch.setattr(online, "ROWS", 2)
    with empty_database(database_url) as url:
        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
        with engine.connect() as connection:
            command.upgrade(migrations.config(connection), "0012")
        engine.dispose()
        with psycopg.connect(url) as inserting:
            for number, ticket_id in enumerate(TICKETS):
                _insert(inserting, ticket_id, number)
        yield url


def _insert(connection: psycopg.Connection, ticket_id: str, number: int) -> None:
    history = HISTORY if number else []
    connection.execute(
        "INSERT INTO helpdesk_tickets (tenant_id, id, number, title, type, status, priority, submitted_by_id,"
        " sla_policy, tags, source, source_type, created_at, created_by, updated_by, version)"
        " VALUES ('t', %s, %s, '', 'incident', 'open', 'low', 'ann', 'sla', %s, '', 'api', %s, 'ann', 'ann', %s)",
        [ticket_id, number + 1, Json({"site": "Bern"}), CREATED, len(history)],
    )
    for version, (type_, internal, changes) in enumerate(history, 1):
        connection.execute(
            "INSERT INTO helpdesk_events (tenant_id, ticket_id, version, type, internal, changes, actor, request_id,"
            " created_at) VALUES ('t', %s, %s, %s, %s, %s, 'ann', '', %s)",
            [ticket_id, version, type_, internal, Json(changes), CREATED + timedelta(hours=version)],
        )


def test_it_fills_in_what_tickets_had_before(url: str) -> None:
    migrations.upgrade(url)
    with psycopg.connect(url) as connection:
        terms = connection.execute("SELECT DISTINCT array_to_string(tag_terms, ' ') FROM helpdesk_tickets").fetchall()
        assert [sorted(found.split()) for (found,) in terms] == [["#Bern", "#site"]]
        counted = connection.execute("SELECT id, internal_changes FROM helpdesk_tickets ORDER BY id").fetchall()
        assert counted == [(ticket_id, int(ticket_id != TICKETS[0])) for ticket_id in TICKETS]
        before = connection.execute(
            "SELECT DISTINCT version, internal_changes FROM helpdesk_events ORDER BY version"
        ).fetchall()
        assert before == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1)]
        paused = connection.execute("SELECT ticket_id, started_at, ended_at FROM helpdesk_pauses ORDER BY 1").fetchall()
        assert paused == [(id_, CREATED + timedelta(hours=4), CREATED + timedelta(hours=5)) for id_ in TICKETS[1:]]


def test_a_step_that_waits_for_a_table_lets_others_pass(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_TABLE_SECONDS", 0.05)
    monkeypatch.setattr(migrations, "_TABLE_PAUSE_SECONDS", 0.01)
    waiting = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND query LIKE 'ALTER TABLE helpdesk_events%'"
    )
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as caller:
        holder.execute("SELECT FROM helpdesk_events")
        migrating = threading.Thread(target=migrations.upgrade, args=(url,))
        migrating.start()
        caller.execute("SET lock_timeout = '5s'")
        for _ in range(2):
            wait_for(lambda: caller.execute(waiting).rowcount == 1, what="the step that waits", timeout=20)
            caller.execute("SELECT FROM helpdesk_events")
        holder.commit()
        migrating.join()
        assert caller.execute("SELECT version_num FROM alembic_version").fetchall() == [(known_revisions()[-1],)]


def test_while_a_step_waits_for_a_row_all_others_are_free(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "ROWS", 2)
    with empty_database(database_url) as url, psycopg.connect(url, autocommit=True) as caller:
        caller.execute("CREATE TABLE things AS SELECT id, '' AS text FROM generate_series(1, 5) AS id")
        filling = threading.Thread(target=_fill, args=(url,))
        with psycopg.connect(url) as holder:
            holder.execute("SELECT FROM things WHERE id = 5 FOR UPDATE")
            filling.start()
            waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            wait_for(lambda: caller.execute(waiting).rowcount == 1, what="the step that waits", timeout=20)
            caller.execute("SET lock_timeout = '1s'")
            # Steps that are done are committed.
            caller.execute("UPDATE things SET text = text || ' and changed' WHERE id < 5")
            caller.execute("INSERT INTO things VALUES (6, 'new')")
        filling.join()
        texts = [text for (text,) in caller.execute("SELECT text FROM things ORDER BY id")]
    assert texts == [*["filled and changed"] * 4, "filled", "filled"]


def _fill(url: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with context.begin_transaction(), Operations.context(context):
            online.fill("things", ["id"], "UPDATE things SET text = 'filled' WHERE (id) BETWEEN :first AND :last")
    engine.dispose()
