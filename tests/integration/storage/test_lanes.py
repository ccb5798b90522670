"""Lanes: short statements of many calls in one round trip, of which none holds up, undoes or loses another."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Float, Integer, Text, bindparam, func, insert, literal_column, select, table, update
from support.webhook_lab import until

from service.directory import METADATA, accounts
from service.errors import TicketError
from service.settings import Settings
from service.storage import lanes
from service.storage.database import ConstraintViolationError, Database, RefusedValueError
from service.storage.lanes import Lane
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, parameter

NOBODY = EVERYONE("reads no table")
TESTS = EVERYONE("a test has accounts of its own")

SLEEP = Statement(select(func.pg_sleep(bindparam("seconds", type_=Float)).label("slept")), scope=NOBODY, short=True)
ECHO = Statement(select(bindparam("text", type_=Text).label("text")), scope=NOBODY, short=True)
# Fails for 0.
INVERSE = Statement(
    select((literal_column("10") / bindparam("n", type_=Integer)).label("inverse")), scope=NOBODY, short=True
)
WHERE = Statement(select(func.pg_backend_pid().label("pid")), scope=NOBODY, short=True)
# What it writes, and which transaction did.
WRITE = Statement(
    insert(accounts)
    .values(name=bindparam("name", type_=Text))
    .returning(accounts.c.id, literal_column("xmin::text", Text).label("transaction")),
    scope=TESTS,
    short=True,
)
# Fails for an id that there is.
WRITE_ID = Statement(
    insert(accounts).values(id=parameter(accounts.c.id), name="A").returning(accounts.c.id), scope=TESTS, short=True
)
RENAME = Statement(
    update(accounts)
    .where(accounts.c.id == parameter(accounts.c.id))
    .values(name=accounts.c.name.concat("+"))
    .returning(accounts.c.name),
    scope=TESTS,
    short=True,
    locks=["id"],
)


def fresh_echo() -> Statement:
    """A statement that no connection has prepared."""
    return Statement(select(bindparam("text", type_=Text).label("text")), scope=NOBODY, short=True)


async def opened(url: str, **settings: Any) -> Database:
    """A database whose lanes have their connections."""
    database = Database(Settings(database_url=url, **settings), METADATA)
    await database.open()
    async with asyncio.timeout(10):
        await until(lambda: all(lane.is_open for lane in database.lanes or ()))
    return database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await opened(database_url)
    yield database
    await database.close()


@pytest.fixture
def reads(database: Database) -> Lane:
    assert database.lanes is not None
    return database.lanes.reads


@pytest.fixture
def writes(database: Database) -> Lane:
    assert database.lanes is not None
    return database.lanes.writes


async def outcomes(*calls: Any) -> list[Any]:
    """What each of them gives or raises."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def all_of(database: Database, statement: Statement, name: str, values: Any) -> list[Any]:
    """What a statement gives for each of these values of a parameter, all at once."""
    return await outcomes(*(database.one(statement, {name: value}) for value in values))


async def lane_pids(database: Database) -> set[int]:
    """The server's process of the lane for reads."""
    return {row["pid"] for row in await outcomes(*(database.one(WHERE, {}) for _ in range(4)))}


def end(url: str, pids: set[int]) -> None:
    """End connections, as an operator does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s) AS pid", [list(pids)])


# What travels together


async def test_what_is_submitted_together_travels_together(database: Database, reads: Lane) -> None:
    texts = [str(number) for number in range(20)]
    assert await all_of(database, ECHO, "text", texts) == [{"text": text} for text in texts]
    assert (reads.batches, reads.statements, reads.alone) == (1, 20, 0)
    assert len(await lane_pids(database)) == 1


async def test_writes_that_travel_together_are_one_transaction(database: Database, writes: Lane) -> None:
    rows = await all_of(database, WRITE, "name", ["A"] * 20)
    assert len({row["id"] for row in rows}) == 20
    assert len({row["transaction"] for row in rows}) == writes.batches == 1


async def test_a_write_is_answered_once_it_is_committed(database: Database, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
        for size in (1, 5, 50):
            calls = [asyncio.ensure_future(database.one(WRITE, {"name": "A"})) for _ in range(size)]
            for call in asyncio.as_completed(calls):
                row = await call
                assert row is not None
                found = await other.execute("SELECT 1 FROM accounts WHERE id = %s", [row["id"]])
                assert await found.fetchone()


async def test_a_batch_has_a_limit_and_nothing_is_forgotten(database: Database, reads: Lane) -> None:
    texts = [str(number) for number in range(1000)]
    assert await all_of(database, ECHO, "text", texts) == [{"text": text} for text in texts]
    assert reads.batches >= 1000 / lanes._MAX_BATCH


async def test_more_than_a_socket_takes_at_once_arrives(database: Database, reads: Lane) -> None:
    large = "x" * (lanes._MAX_BYTES - 100)
    texts = [large + str(number) for number in range(200)]
    async with asyncio.timeout(20):
        assert await all_of(database, ECHO, "text", texts) == [{"text": text} for text in texts]
    assert (reads.statements, reads.alone) == (200, 0)


async def test_what_is_large_goes_alone(database: Database, reads: Lane) -> None:
    large = "x" * (lanes._MAX_BYTES + 1)
    assert await database.one(ECHO, {"text": large}) == {"text": large}
    assert (reads.statements, reads.alone) == (0, 1)


async def test_a_small_pool_has_no_lanes(database_url: str) -> None:
    database = await opened(database_url, pool_size=3)
    assert database.lanes is None
    assert await database.one(ECHO, {"text": "a"}) == {"text": "a"}
    await database.close()


async def test_work_that_waits_for_locks_goes_alone(database: Database, reads: Lane) -> None:
    assert await database.without_lock_timeout().one(ECHO, {"text": "a"}) == {"text": "a"}
    assert reads.statements == 0


# Failures


@pytest.mark.parametrize("at", [0, 7, 19])
async def test_a_read_that_fails_fails_alone(database: Database, at: int) -> None:
    values = [0 if number == at else 2 for number in range(20)]
    rows = await all_of(database, INVERSE, "n", values)
    assert isinstance(rows[at], RefusedValueError)
    assert rows[:at] + rows[at + 1 :] == [{"inverse": 5}] * 19


@pytest.mark.parametrize("at", [0, 7, 19])
async def test_a_write_that_fails_fails_alone_and_the_others_are_written_once(
    database: Database, database_url: str, at: int
) -> None:
    there = await database.one(WRITE, {"name": "A"})
    assert there is not None
    name = secrets.token_hex()
    calls = [database.one(WRITE, {"name": name}) for _ in range(19)]
    calls.insert(at, database.one(WRITE_ID, {"id": there["id"]}))
    rows = await outcomes(*calls)
    assert isinstance(rows.pop(at), ConstraintViolationError)
    with psycopg.connect(database_url) as connection:
        written = connection.execute("SELECT id FROM accounts WHERE name = %s", [name]).fetchall()
    assert {row["id"] for row in rows} == {row[0] for row in written}
    assert len(written) == 19


async def test_a_statement_that_was_to_be_prepared_behind_a_failure_is_prepared_later(database: Database) -> None:
    broken, fresh = INVERSE, fresh_echo()
    rows = await outcomes(database.one(broken, {"n": 0}), database.one(fresh, {"text": "a"}))
    assert isinstance(rows[0], RefusedValueError)
    assert rows[1] == {"text": "a"}
    for _ in range(2):
        assert await all_of(database, fresh, "text", ["b", "c"]) == [{"text": "b"}, {"text": "c"}]


async def test_a_type_that_changes_under_a_prepared_statement_is_seen_at_once(
    database: Database, reads: Lane, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS moving; CREATE TABLE moving (word text)")
        connection.execute("INSERT INTO moving VALUES ('a')")
        look = Statement(
            select(literal_column("moving.*", Text).label("word")).select_from(table("moving")),
            scope=NOBODY,
            short=True,
        )
        look.sql = b"SELECT moving.* FROM moving"
        assert await database.one(look, {}) == {"word": "a"}
        connection.execute("ALTER TABLE moving ALTER COLUMN word TYPE varchar(10)")
        # The pool has not prepared it.
        assert await database.one(look, {}) == {"word": "a"}
        async with asyncio.timeout(10):
            await until(lambda: reads.is_open)
        alone = reads.alone
        assert await database.one(look, {}) == {"word": "a"}
        assert reads.alone == alone
        connection.execute("DROP TABLE moving")


# Nothing holds up the rest


async def test_writes_go_on_while_a_row_is_locked(database: Database, writes: Lane, database_url: str) -> None:
    row = await database.one(WRITE, {"name": "A"})
    assert row is not None
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [row["id"]])
        waiting = [asyncio.ensure_future(database.one(RENAME, {"id": row["id"]})) for _ in range(4)]
        rows = [row for _ in range(5) for row in await all_of(database, WRITE, "name", ["B"] * 20)]
        assert all(row["id"] for row in rows)
        assert not any(call.done() for call in waiting)
        # The lane has met the lock once. Those that lock the row no longer try it.
        alone = writes.alone
        more = asyncio.ensure_future(database.one(RENAME, {"id": row["id"]}))
        await all_of(database, WRITE, "name", ["B"] * 20)
        assert writes.alone == alone + 1
    assert sorted(row["name"] for row in await outcomes(*waiting, more)) == ["A" + "+" * n for n in range(1, 6)]


@pytest.mark.parametrize("locking", [1, 4], ids=["one of a batch", "several of a batch and of the next"])
async def test_only_what_locks_a_locked_row_leaves_the_lane(
    database: Database, writes: Lane, database_url: str, locking: int
) -> None:
    row = await database.one(WRITE, {"name": "A"})
    assert row is not None
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [row["id"]])
        alone = writes.alone
        waiting = [asyncio.ensure_future(database.one(RENAME, {"id": row["id"]})) for _ in range(locking)]
        others = [asyncio.ensure_future(database.one(WRITE, {"name": "B"})) for _ in range(100)]
        more = [asyncio.ensure_future(database.one(RENAME, {"id": row["id"]})) for _ in range(locking - 1)]
        assert None not in await asyncio.gather(*others)
        assert writes.alone == alone + len([*waiting, *more])
    assert len(await asyncio.gather(*waiting, *more)) == 2 * locking - 1


async def test_a_row_that_stays_locked_fails_what_locks_it(database_url: str) -> None:
    database = await opened(database_url, lock_timeout_seconds=0.2)
    row = await database.one(WRITE, {"name": "A"})
    assert row is not None
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [row["id"]])
        with pytest.raises(TicketError, match="Another change holds"):
            await database.one(RENAME, {"id": row["id"]})
    await database.close()


async def test_reads_go_on_while_one_is_slow(database: Database, reads: Lane) -> None:
    slow = asyncio.ensure_future(database.one(SLEEP, {"seconds": 2.0}))
    rows = await all_of(database, ECHO, "text", ["a"] * 20)
    assert rows == [{"text": "a"}] * 20
    assert not slow.done()
    # It was given up by the lane, and runs on a connection of its own. The next one is not tried there.
    assert reads.alone > 0
    batches = reads.batches
    assert await outcomes(slow, database.one(SLEEP, {"seconds": 0.0})) == [{"slept": b""}] * 2
    assert reads.batches == batches


async def test_batches_of_two_processes_never_wait_for_each_other(database_url: str) -> None:
    processes = [await opened(database_url) for _ in range(2)]
    ids = [row["id"] for row in await all_of(processes[0], WRITE, "name", ["A"] * 8)]

    def deadlocks() -> int:
        with psycopg.connect(database_url) as connection:
            query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            count: int = connection.execute(query).fetchall()[0][0]
            return count

    async def rename(number: int) -> None:
        process = processes[number % 2]
        # In the one order, and in the other.
        for key in ids if number % 4 < 2 else reversed(ids):
            assert await process.one(RENAME, {"id": key})

    before = deadlocks()
    await asyncio.gather(*(rename(number) for number in range(64)))
    for process in processes:
        await process.close()
    assert deadlocks() == before
    with psycopg.connect(database_url) as connection:
        names = connection.execute("SELECT DISTINCT name FROM accounts WHERE id = ANY(%s)", [ids]).fetchall()
    assert names == [("A" + "+" * 64,)]


# Lost, left, closed


async def test_reads_of_a_lane_that_is_lost_are_answered_and_it_is_replaced(
    database: Database, database_url: str, reads: Lane
) -> None:
    before = await lane_pids(database)
    held = asyncio.ensure_future(database.one(SLEEP, {"seconds": 0.3}))
    calls = [asyncio.ensure_future(database.one(ECHO, {"text": "a"})) for _ in range(10)]
    await asyncio.to_thread(end, database_url, before)
    assert await outcomes(held, *calls) == [{"slept": b""}, *[{"text": "a"}] * 10]
    async with asyncio.timeout(10):
        await until(lambda: reads.is_open)
    assert not before & await lane_pids(database)


async def test_a_write_of_a_lane_that_is_lost_may_have_happened(
    database: Database, database_url: str, writes: Lane
) -> None:
    row = await database.one(WRITE, {"name": "A"})
    assert row is not None
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [row["id"]])
        call = asyncio.ensure_future(database.one(RENAME, {"id": row["id"]}))
        pid = None
        while pid is None:
            await asyncio.sleep(0)
            found = holder.execute(
                "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", [holder.info.backend_pid]
            )
            pid = found.fetchone()
        end(database_url, {pid[0]})
    with pytest.raises(TicketError) as failure:
        await call
    assert failure.value.reason == "unavailable"
    assert failure.value.begun
    async with asyncio.timeout(10):
        await until(lambda: writes.is_open)
    assert await database.one(RENAME, {"id": row["id"]})


async def test_who_leaves_is_cancelled_and_the_others_are_answered(database: Database) -> None:
    for turns in range(6):
        calls = [asyncio.ensure_future(database.one(ECHO, {"text": str(number)})) for number in range(20)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        rows = await outcomes(*calls)
        assert rows[1::2] == [{"text": str(number)} for number in range(1, 20, 2)]
        assert all(isinstance(row, asyncio.CancelledError) for row in rows[::2] if not isinstance(row, dict))


async def test_what_waits_when_the_lane_is_closed_is_not_forgotten(database_url: str) -> None:
    database = await opened(database_url)
    calls = [asyncio.ensure_future(database.one(SLEEP, {"seconds": 0.5})) for _ in range(10)]
    await asyncio.sleep(0)
    await database.close()
    async with asyncio.timeout(10):
        rows = await outcomes(*calls)
    assert all(isinstance(row, TicketError) and row.reason == "unavailable" for row in rows)
