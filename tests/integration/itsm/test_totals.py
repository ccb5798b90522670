"""Totals that are a sum: exact whatever is at work, and as cheap after many changes as before."""

from uuid import UUID, uuid4

from support.moves import forget_server
from support.provider_lab import own_database
from support.totals import LIST, Session

from service import migrations
from service.itsm import total_queries


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
        values = [given[name] if name in given else LIST.constants[name] for name in LIST.names]
        session.connection.execute(b"PREPARE one AS " + LIST.sql)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE one({', '.join(['%s'] * len(values))})"
        [row] = session.connection.execute(explain, values).fetchall()
        session.connection.execute("DEALLOCATE one")
        [plan] = row["QUERY PLAN"]
        assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 40, plan
    assert session.total(account_id) == 20_000
