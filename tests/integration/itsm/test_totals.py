"""Totals that are a sum: exact whatever is at work, and as cheap after many changes as before."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from support.moves import forget_server
from support.provider_lab import own_database

from service import migrations
from service.itsm import queries, total_queries
from service.itsm.views import search_terms
from service.storage.statement import Statement

ACTOR = {"actor": "key_1", "request_id": "r"}
LIST = queries.list_tickets(frozenset(), skips=False, short=True)


class Session:
    """One connection to a database that no service works at."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(
            url, autocommit=True, row_factory=dict_row, cursor_factory=psycopg.ClientCursor
        )
        self.connection.execute("SET plan_cache_mode = force_generic_plan; SET enable_bitmapscan = off")

    def run(self, statement: Statement, **given: Any) -> list[dict[str, Any]]:
        values = [given[name] if name in given else statement._constants[name] for name in statement.names]
        self.connection.execute(b"PREPARE one AS " + statement.sql)
        try:
            places = f"({', '.join(['%s'] * len(values))})" if values else ""
            return self.connection.execute(f"EXECUTE one{places}", values).fetchall()
        finally:
            self.connection.execute("DEALLOCATE one")

    def create(self, account_id: UUID) -> None:
        ticket = {"account_id": account_id, "live": True, "subject": "A", "description": "B"}
        given = {**dict.fromkeys(queries.NEW), **ticket, "id": uuid4(), "status": "open", "metadata": "{}"}
        self.run(queries.CREATE.plain, **{**given, "search_terms": search_terms(ticket), **ACTOR})

    def change(self, account_id: UUID, times: int) -> None:
        self.connection.execute(
            "INSERT INTO itsm_total_changes (account_id, live, status, change)"
            " SELECT %s, true, 'open', 1 FROM generate_series(1, %s)",
            [account_id, times],
        )

    def merge(self) -> None:
        """As the background does."""
        self.run(total_queries.MERGE)
        [newest] = self.run(total_queries.NEWEST)
        self.run(total_queries.RAISE_FLOOR, **newest)

    def total(self, account_id: UUID) -> int:
        [row] = self.run(LIST, account_id=account_id, live=True, limit=1, offset=0)
        total: int = row["total"]
        return total

    def floor(self) -> int:
        [row] = self.connection.execute("SELECT floor FROM itsm_totals_floor").fetchall()
        floor: int = row["floor"]
        return floor


@pytest.fixture
def sessions(apart_url: str) -> Iterator[tuple[Session, Session]]:
    both = Session(apart_url), Session(apart_url)
    yield both
    for session in both:
        session.connection.close()


@pytest.fixture
def account_id(sessions: tuple[Session, Session]) -> UUID:
    [row] = sessions[0].connection.execute("INSERT INTO accounts (name) VALUES ('a') RETURNING id").fetchall()
    account_id: UUID = row["id"]
    return account_id


def test_on_a_new_server_the_floor_goes_on(database_url: str) -> None:
    """Where it is, is a transaction id too."""
    with own_database(database_url) as url:
        old, account_id = Session(url), uuid4()
        old.connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a')", [account_id])
        # As of a server with more transactions than this one.
        old.connection.execute("UPDATE itsm_totals_floor SET pending_until = '1000000000'")
        forget_server(url)
        migrations.upgrade(url)
        old.connection.close()
        both = Session(url), Session(url)
        test_the_floor_waits_for_writes_that_are_at_work(both, account_id)
        for session in both:
            session.connection.close()


def test_the_floor_waits_for_writes_that_are_at_work(sessions: tuple[Session, Session], account_id: UUID) -> None:
    slow, other = sessions
    with slow.connection.transaction():
        slow.create(account_id)
        before = other.floor()
        for _ in range(3):
            other.create(account_id)
            other.merge()
        # The change of the slow one has a lower number than those that are merged.
        assert other.floor() == before
        assert other.total(account_id) == 3
    assert other.total(account_id) == 4
    for _ in range(3):
        other.merge()
    assert other.floor() > before
    assert other.total(account_id) == 4


def test_the_floor_waits_for_what_merges_have_left(sessions: tuple[Session, Session], account_id: UUID) -> None:
    session, _ = sessions
    before = session.floor()
    session.change(account_id, 3 * total_queries.MAX_MERGED_ROWS)
    for _ in range(5):
        session.merge()
        left = session.connection.execute("SELECT 1 FROM itsm_total_changes WHERE id <= %s", [session.floor()])
        assert not left.fetchall()
        assert session.total(account_id) == 3 * total_queries.MAX_MERGED_ROWS
    assert session.floor() >= before + 3 * total_queries.MAX_MERGED_ROWS


def test_a_floor_above_all_numbers_is_forgotten(sessions: tuple[Session, Session], account_id: UUID) -> None:
    session, _ = sessions
    session.create(account_id)
    session.connection.execute("UPDATE itsm_totals_floor SET floor = 1000000000, pending = 1000000000")
    session.merge()
    session.create(account_id)
    assert session.total(account_id) == 2


def test_a_sum_reads_little_after_many_changes_though_a_snapshot_is_open(
    sessions: tuple[Session, Session], account_id: UUID
) -> None:
    reader, session = sessions
    with reader.connection.transaction():
        reader.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.connection.execute("SELECT 1 FROM accounts")
        for _ in range(20):
            session.change(account_id, 1000)
            session.merge()
        session.merge()
        given = {"account_id": account_id, "live": True, "limit": 1, "offset": 0}
        values = [given[name] if name in given else LIST._constants[name] for name in LIST.names]
        session.connection.execute(b"PREPARE one AS " + LIST.sql)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE one({', '.join(['%s'] * len(values))})"
        [row] = session.connection.execute(explain, values).fetchall()
        session.connection.execute("DEALLOCATE one")
        [plan] = row["QUERY PLAN"]
        assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 40, plan
    assert session.total(account_id) == 20_000
