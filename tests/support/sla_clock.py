"""A database whose clock the test sets, from minute to minute."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from service import migrations
from service.directory import METADATA
from service.local.postgres import EmbeddedPostgres
from service.settings import Settings
from service.storage.database import Database
from support.sla_model import instant

# Replaces `now()` in every statement: what is before pg_catalog in the search path is found first. So every stamp is a
# whole minute, and no event becomes due unless the test moves the clock.
CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.setting (at timestamptz NOT NULL);
INSERT INTO clock.setting VALUES (now());
CREATE FUNCTION clock.now() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT at FROM clock.setting';
ALTER DATABASE {name} SET search_path = clock, pg_catalog, public;
"""


class ClockDatabase:
    """A database with such a clock, and a loop to use it from tests that are not coroutines."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.connection = psycopg.connect(url, autocommit=True)
        self.database = Database(Settings(database_url=url, pool_size=1), METADATA)
        self.run(self.database.open())

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.database.close())
        self.connection.close()
        self.loop.close()

    def forget_tickets(self) -> None:
        """Keep the notifier away from the tickets of earlier examples."""
        self.connection.execute("UPDATE helpdesk_tickets SET sla_look_at = NULL WHERE sla_look_at IS NOT NULL")
        self.connection.execute("DELETE FROM helpdesk_reclocks")

    def set_clock(self, minute: int) -> None:
        self.connection.execute("UPDATE clock.setting SET at = %s", [instant(minute)])

    def pauses(self, ticket_id: str) -> list[tuple[Any, ...]]:
        sql = "SELECT started_at, ended_at FROM helpdesk_pauses WHERE ticket_id = %s ORDER BY 1"
        return self.connection.execute(sql, [ticket_id]).fetchall()

    def was_emitted(self, ticket_id: str, event: str) -> bool:
        sql = "SELECT 1 FROM helpdesk_tickets WHERE id = %s AND %s = ANY(sla_emitted)"
        return self.connection.execute(sql, [ticket_id, event]).fetchone() is not None

    def events(self, ticket_id: str) -> list[tuple[str, str | None]]:
        """Their types, each with the target of an SLA event or an actor `system`. Versions count up without gaps."""
        sql = (
            "SELECT version, type, coalesce(changes->'sla'->'to'->>'target', nullif(actor, 'per_agent')), actor"
            " FROM helpdesk_events WHERE ticket_id = %s ORDER BY id"
        )
        rows = self.connection.execute(sql, [ticket_id]).fetchall()
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        return [(row[1], None if row[2] == "per_other" else row[2]) for row in rows]


@contextmanager
def database_with_clock(postgres: EmbeddedPostgres, name: str) -> Iterator[ClockDatabase]:
    """A new database of this name with such a clock."""
    with psycopg.connect(postgres.url_for("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = postgres.url_for(name)
    migrations.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CLOCK.format(name=name))
    database = ClockDatabase(url)
    yield database
    database.close()
