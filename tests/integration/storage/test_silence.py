"""Connections that fall silent: nothing waits for them for good, and the pool is whole again."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import func, insert, select
from structlog.testing import capture_logs
from support.tcp_proxy import TcpProxy
from support.webhook_lab import until

from service.directory import METADATA, accounts
from service.errors import TicketError
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

# Without the two that are the lanes'.
POOL_SIZE = 4

PID = Statement(select(func.pg_backend_pid().label("pid")), scope=EVERYONE("reads no table"))
# Several times as long as what makes a connection doubtful there.
SLEEP = Statement(select(func.pg_sleep(1).label("slept")), scope=EVERYONE("reads no table"))
WRITE = Statement(insert(accounts).values(name="A").returning(accounts.c.id), scope=EVERYONE("makes an account"))


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(database_url).listening() as proxy:
        yield proxy


@pytest.fixture
async def database(proxy: TcpProxy) -> AsyncIterator[Database]:
    database = Database(
        Settings(database_url=proxy.url, pool_size=POOL_SIZE + 2, default_deadline_seconds=0.5), METADATA
    )
    await database.open()
    async with asyncio.timeout(10):
        await until(lambda: len(database._pool._idle) == POOL_SIZE)
    yield database
    await database.close()


async def test_a_statement_that_nobody_answers_is_given_up_though_nobody_asks_for_health(
    database: Database, proxy: TcpProxy
) -> None:
    proxy.lose()
    async with asyncio.timeout(20):
        calls = [database.one(statement, {}) for statement in (PID, WRITE) * POOL_SIZE]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {getattr(outcome, "reason", "ok") for outcome in outcomes} <= {"unavailable", "ok"}
        while not isinstance(await database.one(PID, {}), dict):
            pass
        await until(lambda: len(database._pool._idle) == POOL_SIZE)


async def test_a_transaction_that_a_lost_path_leaves_open_is_ended(
    proxy: TcpProxy, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then its rows are locked, and no watch goes on."""
    monkeypatch.setattr("service.storage.database._IDLE_MILLISECONDS", 300)
    database = Database(Settings(database_url=proxy.url), METADATA)
    await database.open()
    with psycopg.connect(database_url, autocommit=True) as other, suppress(ZeroDivisionError):
        async with asyncio.timeout(15), database.transaction() as connection:
            row = await connection.one(PID, {})
            proxy.lose()
            there = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
            await until(lambda: other.execute(there, [row and row["pid"]]).fetchone() is None)
            raise ZeroDivisionError
    await database.close()


async def test_when_one_connection_is_found_silent_the_others_are_given_up_too(
    database: Database, proxy: TcpProxy
) -> None:
    proxy.lose()
    busy = asyncio.create_task(database.one(PID, {}))
    async with asyncio.timeout(20):
        assert not await database.answers()
        with pytest.raises(TicketError, match="currently unavailable"):
            await busy
        assert await database.answers()
        await until(lambda: len(database._pool._idle) == POOL_SIZE)


async def test_a_statement_on_one_that_was_in_use_meanwhile_does_not_wait_for_its_deadline(proxy: TcpProxy) -> None:
    database = Database(Settings(database_url=proxy.url, pool_size=POOL_SIZE + 2), METADATA)
    await database.open()

    async def lose_the_path_between_two_statements() -> None:
        async with database.transaction() as connection:
            await connection.one(PID, {})
            proxy.lose()
            assert not await database.answers()
            await connection.one(PID, {})

    async with asyncio.timeout(20):
        await until(lambda: len(database._pool._idle) == POOL_SIZE)
        with pytest.raises(TicketError, match="currently unavailable"):
            await lose_the_path_between_two_statements()
    await database.close()


async def test_of_statements_on_all_connections_those_are_given_up_that_the_server_does_not_run(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then no connection is idle that a ping could find silent, and new ones work."""
    monkeypatch.setattr("service.storage.pool._SILENT_SECONDS", 0.2)
    monkeypatch.setattr("service.storage.pool._LOOK_SECONDS", 0.1)
    database = Database(Settings(database_url=proxy.url, pool_size=POOL_SIZE + 2), METADATA)
    await database.open()
    async with asyncio.timeout(20):
        await until(lambda: len(database._pool._idle) == POOL_SIZE)
        proxy.lose()
        background = database.without_lock_timeout()
        lost = asyncio.gather(*(background.one(PID, {}) for _ in range(POOL_SIZE)), return_exceptions=True)
        await asyncio.sleep(0)
        while not lost.done():
            assert await database.answers()
        assert {getattr(outcome, "reason", "ok") for outcome in await lost} == {"unavailable"}
        await until(lambda: len(database._pool._idle) == POOL_SIZE)
        running = asyncio.gather(*(background.one(SLEEP, {}) for _ in range(POOL_SIZE)))
        while not running.done():
            assert await database.answers()
        assert len(await running) == POOL_SIZE
    await database.close()


async def test_a_server_that_answers_is_healthy_though_all_connections_are_in_use(
    database: Database, proxy: TcpProxy
) -> None:
    pool = database._pool
    taken = [await pool.take(5) for _ in range(POOL_SIZE)]
    assert await database.answers()
    proxy.silence()
    assert not await database.answers()
    for connection in taken:
        pool.give_back(connection)


async def test_without_a_database_calls_fail_at_once(database: Database, proxy: TcpProxy) -> None:
    proxy.cut()
    async with asyncio.timeout(20):
        await until(lambda: database._pool._is_away)
        # One that waits for a connection takes three seconds.
        for _ in range(100):
            with pytest.raises(TicketError) as failure:
                await database.one(PID, {})
            assert (failure.value.reason, failure.value.retry_after) == ("unavailable", 1)
        proxy.resume()
        await until(lambda: len(database._pool._idle) == POOL_SIZE)


async def test_the_log_says_in_the_servers_words_why_it_cannot_connect(database_url: str) -> None:
    password = secrets.token_hex()
    url = database_url.replace("postgres@", f"nobody:{password}@")
    database = Database(Settings(database_url=url), METADATA)
    with capture_logs() as lines:
        await database.open()
        async with asyncio.timeout(10):
            await until(lambda: len(lines) > 0)
        await database.close()
    assert 'FATAL: role "nobody" does not exist' in lines[0]["error"]
    assert password not in str(lines)
