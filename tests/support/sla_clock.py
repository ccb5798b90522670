"""A database whose clock is a hand that the test moves, from minute to minute."""

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

# `now()` as the database says it wherever a statement asks: what stands before pg_catalog is found first.
# So every stamp is a whole minute, and nothing is told behind the test's back.
CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.hand (at timestamptz NOT NULL);
INSERT INTO clock.hand VALUES (now());
CREATE FUNCTION clock.now() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT at FROM clock.hand';
ALTER DATABASE {name} SET search_path = clock, pg_catalog, public;
"""


class Desk:
    """A database whose clock is ours, and a loop to use it from tests that are no coroutines."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.connection = psycopg.connect(url, autocommit=True)
        self.database = Database(Settings(database_url=url, pool_size=1), METADATA)
        self.wait(self.database.open())

    def wait(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.wait(self.database.close())
        self.connection.close()
        self.loop.close()

    def begin(self) -> None:
        """What other examples left is not looked at."""
        self.connection.execute("UPDATE helpdesk_tickets SET sla_look_at = NULL WHERE sla_look_at IS NOT NULL")

    def set_clock(self, minute: int) -> None:
        self.connection.execute("UPDATE clock.hand SET at = %s", [instant(minute)])

    def pauses(self, ticket_id: str) -> list[tuple[Any, ...]]:
        sql = "SELECT started_at, ended_at FROM helpdesk_pauses WHERE ticket_id = %s ORDER BY 1"
        return self.connection.execute(sql, [ticket_id]).fetchall()

    def was_told(self, ticket_id: str, event: str) -> bool:
        sql = "SELECT 1 FROM helpdesk_tickets WHERE id = %s AND %s = ANY(sla_emitted)"
        return self.connection.execute(sql, [ticket_id, event]).fetchone() is not None

    def events(self, ticket_id: str) -> list[tuple[str, str | None]]:
        """Their types, and what the SLA told of: the target; or that it was the SLA. Versions count up without gaps."""
        sql = (
            "SELECT version, type, coalesce(changes->'sla'->'to'->>'target', nullif(actor, 'per_agent')), actor"
            " FROM helpdesk_events WHERE ticket_id = %s ORDER BY id"
        )
        rows = self.connection.execute(sql, [ticket_id]).fetchall()
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        return [(row[1], None if row[2] == "per_other" else row[2]) for row in rows]


@contextmanager
def desk_with_a_clock(postgres: EmbeddedPostgres, name: str) -> Iterator[Desk]:
    """A desk on a new database of this name."""
    with psycopg.connect(postgres.url_for("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = postgres.url_for(name)
    migrations.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CLOCK.format(name=name))
    desk = Desk(url)
    yield desk
    desk.close()
