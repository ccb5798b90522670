"""Connections and statements where calls are cancelled, schemas change, and the database misbehaves."""

import asyncio
import secrets
import traceback
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError
from sqlalchemy import Float, Integer, Text, bindparam, func, insert, literal_column, select, table

from service.directory import METADATA, accounts
from service.errors import TicketError
from service.settings import Settings
from service.storage.database import Database, RefusedValueError, UnsupportedStatementError
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

# Without the two that are the lanes'.
POOL_SIZE = 4

SLEEP = Statement(
    select(func.pg_sleep(bindparam("seconds", type_=Float)).label("slept")), scope=EVERYONE("reads no table")
)


def fresh_statement() -> Statement:
    """A statement that no connection has prepared."""
    return Statement(select((bindparam("n", type_=Integer) + 1).label("more")), scope=EVERYONE("reads no table"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Settings(database_url=database_url, pool_size=POOL_SIZE + 2), METADATA)
    await database.open()
    yield database
    await database.close()


PID = Statement(select(func.pg_backend_pid().label("pid")), scope=EVERYONE("reads no table"))


async def backends(database: Database) -> set[int]:
    """The server's processes of all connections."""
    pool = database._pool
    async with asyncio.timeout(20):
        connections = [await pool.take(20) for _ in range(POOL_SIZE)]
    for connection in connections:
        pool.give_back(connection)
    return {connection.pgconn.backend_pid for connection in connections}


async def all_connections_work(database: Database) -> bool:
    """Whether as many calls as there are connections can each hold one at the same time."""
    return len(await backends(database)) == POOL_SIZE


async def cancelled(work: Any, *, times: int, after: float, gap: float = 0.0) -> None:
    """Run work and cancel it so many times, as a deadline and a caller who leaves would."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(after)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(gap)
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancelled_call_gives_its_connection_back(database: Database, times: int) -> None:
    for gap in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008):
        calls = [database.one(SLEEP, {"seconds": 30.0}) for _ in range(POOL_SIZE * 10)]
        waits = (cancelled(call, times=times, after=0.02 + n * gap / 40, gap=gap) for n, call in enumerate(calls))
        await asyncio.gather(*waits)
    async with asyncio.timeout(20):
        assert await all_connections_work(database)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_transaction_is_undone_and_gives_its_connection_back(database: Database, times: int) -> None:
    lock = Statement(
        select(func.pg_advisory_xact_lock(literal_column("4711")).label("locked")), scope=EVERYONE("reads no table")
    )

    async def transaction() -> None:
        async with database.transaction() as connection:
            await connection.one(lock, {})
            await connection.one(SLEEP, {"seconds": 30.0})

    await asyncio.gather(*(cancelled(transaction(), times=times, after=0.05) for _ in range(POOL_SIZE)))
    assert await all_connections_work(database)
    async with asyncio.timeout(10), database.transaction() as connection:
        await connection.one(lock, {})


async def test_a_cancelled_prepare_leaves_every_connection_usable(database: Database) -> None:
    for after in (0.0, 0.0002, 0.0005, 0.001, 0.002) * 8:
        statement = fresh_statement()
        calls = [database.one(statement, {"n": 1}) for _ in range(POOL_SIZE * 2)]
        await asyncio.gather(*(cancelled(call, times=1, after=after) for call in calls))
        again = await asyncio.gather(*(database.one(statement, {"n": n}) for n in range(POOL_SIZE * 2)))
        assert [row and row["more"] for row in again] == list(range(1, POOL_SIZE * 2 + 1))


async def test_a_failed_transaction_is_undone(database: Database) -> None:
    broken = Statement(
        select((literal_column("1") / bindparam("n", type_=Integer)).label("x")), scope=EVERYONE("reads no table")
    )
    for _ in range(POOL_SIZE * 2):
        with pytest.raises(RefusedValueError):
            async with database.transaction() as connection:
                await connection.one(broken, {"n": 0})
    assert await all_connections_work(database)


async def test_a_type_that_changes_under_a_prepared_statement_is_no_failure(
    database: Database, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS shifting; CREATE TABLE shifting (word text)")
        connection.execute("INSERT INTO shifting VALUES ('a')")
        look = Statement(
            select(literal_column("shifting.*", Text).label("word")).select_from(table("shifting")),
            scope=EVERYONE("reads no table"),
        )
        look.sql = b"SELECT shifting.* FROM shifting"
        await asyncio.gather(*(database.one(look, {}) for _ in range(POOL_SIZE * 4)))
        connection.execute("ALTER TABLE shifting ALTER COLUMN word TYPE varchar(10)")
        outcomes = await asyncio.gather(*(database.one(look, {}) for _ in range(POOL_SIZE * 4)))
        assert outcomes == [{"word": "a"}] * POOL_SIZE * 4
        connection.execute("ALTER TABLE shifting ALTER COLUMN word TYPE text")
        background = database.without_lock_timeout()
        assert [await background.one(look, {}) for _ in range(POOL_SIZE)] == [{"word": "a"}] * POOL_SIZE
        connection.execute("ALTER TABLE shifting ALTER COLUMN word TYPE varchar(10)")
        # In a transaction something may have been done before: then whoever calls repeats all of it.

        async def look_within() -> Any:
            async with database.transaction() as transaction:
                return await transaction.one(look, {})

        found = await asyncio.gather(*(look_within() for _ in range(POOL_SIZE * 4)), return_exceptions=True)
        failures = [failure for failure in found if isinstance(failure, BaseException)]
        assert failures
        for failure in failures:
            assert isinstance(failure, TicketError)
            assert (failure.reason, failure.begun) == ("unavailable", False)
        assert await look_within() == {"word": "a"}
        connection.execute("DROP TABLE shifting")


async def test_what_the_server_cannot_run_is_said_each_time(database: Database, database_url: str) -> None:
    unsupported = Statement(select(literal_column("1").label("one")), scope=EVERYONE("reads no table"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION unsupported() RETURNS int LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'not on several machines' USING ERRCODE = '0A000'; END $$"
        )
    unsupported.sql = b"SELECT unsupported() AS one"
    for _ in range(POOL_SIZE + 1):
        with pytest.raises(UnsupportedStatementError, match="not on several machines"):
            await database.one(unsupported, {})
    with pytest.raises(UnsupportedStatementError, match="not on several machines"):
        async with database.transaction() as transaction:
            await transaction.one(unsupported, {})
    assert await all_connections_work(database)


async def test_a_database_that_only_reads_is_unavailable_for_writes_and_left(database_url: str) -> None:
    database = Database(Settings(database_url=database_url, pool_size=1), METADATA)
    await database.open()
    demote = select(func.set_config("default_transaction_read_only", "on", literal_column("false")).label("x"))
    await database.one(Statement(demote, scope=EVERYONE("reads no table")), {})
    write = Statement(insert(accounts).values(name="A").returning(accounts.c.id), scope=EVERYONE("reads no table"))
    with pytest.raises(TicketError) as failure:
        await database.one(write, {})
    assert failure.value.reason == "unavailable"
    # The next connection may be to the server that has taken over.
    assert await database.one(write, {})
    await database.close()


async def test_connections_that_were_ended_are_replaced(database: Database, database_url: str) -> None:
    assert await all_connections_work(database)
    pids = Statement(
        select(func.pg_backend_pid().label("pid"), func.pg_sleep(0.05).label("slept")), scope=EVERYONE("reads no table")
    )
    rows = await asyncio.gather(*(database.one(pids, {}) for _ in range(POOL_SIZE)))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [[row["pid"] for row in rows if row]]
        )
    outcomes = await asyncio.gather(*(database.one(pids, {}) for _ in range(POOL_SIZE)), return_exceptions=True)
    assert all(isinstance(outcome, TicketError) and outcome.reason == "unavailable" for outcome in outcomes)
    async with asyncio.timeout(20):
        assert await all_connections_work(database)


async def test_a_connection_that_ended_while_idle_is_replaced_before_a_call_has_it(
    database: Database, database_url: str
) -> None:
    before = await backends(database)

    def end_all() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s) AS pid", [list(before)])
            # They are gone, and the loop, which runs meanwhile, has seen it by now.
            connection.execute("SELECT 1")

    await asyncio.to_thread(end_all)
    assert not before & await backends(database)


async def test_a_connection_lost_amid_a_large_statement_is_reported(database: Database, database_url: str) -> None:
    echo = Statement(select(bindparam("text", type_=Text).label("text")), scope=EVERYONE("reads no table"))

    async def ends() -> None:
        async with database.transaction() as connection:
            row = await connection.one(PID, {})
            assert row is not None
            with psycopg.connect(database_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [row["pid"]])
            await connection.one(echo, {"text": "x" * 30_000_000})

    async with asyncio.timeout(20):
        with pytest.raises(TicketError, match="currently unavailable"):
            await ends()
        assert await all_connections_work(database)


async def test_whoever_waits_for_a_connection_and_leaves_is_cancelled_and_forgotten(database: Database) -> None:
    held = [asyncio.ensure_future(database.one(SLEEP, {"seconds": 30.0})) for _ in range(POOL_SIZE)]
    await asyncio.sleep(0.2)
    waiting = [asyncio.ensure_future(database.one(PID, {})) for _ in range(50)]
    await asyncio.sleep(0)
    for call in waiting:
        call.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert not len(database._pool._queue)
    for call in held:
        call.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert await all_connections_work(database)


async def test_a_connection_string_that_is_malformed_is_reported_without_its_password() -> None:
    password = secrets.token_hex()
    with pytest.raises(ValidationError) as failure:
        Settings(database_url=f"postgresq://user:{password}@host/database")
    assert password not in "".join(traceback.format_exception(failure.value))


async def test_large_values_pass_both_ways(database: Database) -> None:
    echo = Statement(select(bindparam("text", type_=Text).label("text")), scope=EVERYONE("reads no table"))
    large = "ä" * 8_000_000
    rows = await asyncio.gather(*(database.one(echo, {"text": large + str(n)}) for n in range(POOL_SIZE)))
    assert [row and row["text"] for row in rows] == [large + str(n) for n in range(POOL_SIZE)]


async def test_a_database_that_does_not_answer_is_not_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await database.answers()
    monkeypatch.setattr("service.storage.pool._PING_SECONDS", 0.2)
    monkeypatch.setattr("service.storage.connection._PING", b"SELECT pg_sleep(30)")
    assert not await database.answers()
