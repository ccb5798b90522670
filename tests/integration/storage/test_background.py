"""Periodic work turns again whatever becomes of one turn, and says when it last succeeded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import pytest
from sqlalchemy import func, select, text
from structlog.testing import capture_logs
from support.webhook_lab import until

from service import background
from service.background import Background, Periodic, keep
from service.directory import METADATA
from service.errors import TicketError
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

PID = Statement(select(func.pg_backend_pid().label("pid")), scope=EVERYONE("reads no table"))
LOCK_TIMEOUT = Statement(
    select(func.current_setting(text("'lock_timeout'")).label("given")), scope=EVERYONE("reads no table")
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Settings(database_url=database_url, pool_size=1), METADATA)
    await database.open()
    yield database
    await database.close()


async def hang() -> None:
    await asyncio.Event().wait()


async def hang_whoever_cancels() -> None:
    while True:
        try:
            await hang()
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling() > 1:  # type: ignore[union-attr]  # there is one
                raise


async def fail() -> None:
    raise TicketError("unavailable")


async def break_down() -> None:
    raise ZeroDivisionError


def _of_background(lines: Iterable[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    """The lines of background work: a pool of another test may log beside it."""
    return [line for line in lines if line["event"] == "background"]


@pytest.mark.parametrize(
    ("first", "outcome"),
    [(hang, "stalled"), (hang_whoever_cancels, "stalled"), (fail, "unavailable"), (break_down, "internal")],
)
async def test_work_turns_again_whatever_becomes_of_one_turn(
    database: Database, monkeypatch: pytest.MonkeyPatch, first: Callable[[], Awaitable[None]], outcome: str
) -> None:
    if outcome == "stalled":
        # Longer than a statement takes on a busy machine: the second turn does not stall.
        monkeypatch.setattr(background, "_STALLED_SECONDS", 1.0)
        monkeypatch.setattr(background, "_CANCEL_SECONDS", 0.1)
    turns = 0

    async def work(database: Database) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            await first()
        await database.one(PID, {})

    running = Background(database)
    with capture_logs() as lines:
        task = asyncio.create_task(running.repeat(Periodic("a_work", 0.01, work)))
        async with asyncio.timeout(20):
            await until(lambda: turns >= 1)
            assert running.last_success == {"a_work": 0.0}
            await until(lambda: running.last_success["a_work"] > 0)
        task.cancel()
    assert [(line["work"], line["outcome"]) for line in _of_background(lines)] == [("a_work", outcome)]


async def test_a_turn_in_which_nothing_was_answered_is_no_success(database: Database) -> None:
    turns = 0

    async def work(_: Database) -> None:
        nonlocal turns
        turns += 1

    running = Background(database)
    task = asyncio.create_task(running.repeat(Periodic("a_work", 0.0, work)))
    async with asyncio.timeout(20):
        await until(lambda: turns > 2)
    task.cancel()
    assert running.last_success == {"a_work": 0.0}


async def test_a_long_turn_that_gets_on_is_left_alone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_STALLED_SECONDS", 0.5)
    begun, ended = 0, False

    async def work(database: Database) -> None:
        nonlocal begun
        begun += 1
        while not ended:
            await database.one(PID, {})
            await asyncio.sleep(0.01)

    running = Background(database)
    with capture_logs() as lines:
        task = asyncio.create_task(running.repeat(Periodic("a_work", 0.0, work)))
        async with asyncio.timeout(20):
            # It succeeds before it ends.
            await until(lambda: running.last_success.get("a_work", 0) > 0)
            assert begun == 1
            ended = True
            await until(lambda: begun > 1)
        task.cancel()
    assert _of_background(lines) == []


async def test_work_that_goes_on_for_good_begins_again_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_PAUSE_SECONDS", 0.0)
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        raise ZeroDivisionError

    with capture_logs() as lines:
        task = asyncio.create_task(keep(work))
        async with asyncio.timeout(20):
            await until(lambda: begun > 2)
        task.cancel()
    assert {line["outcome"] for line in _of_background(lines)} == {"internal"}


async def test_only_calls_have_a_time_limit_for_locks(database: Database) -> None:
    assert await database.one(LOCK_TIMEOUT, {}) == {"given": "2s"}
    background: Any = database.without_lock_timeout()
    assert await background.one(LOCK_TIMEOUT, {}) == {"given": "0"}
    async with background.transaction() as connection:
        assert await connection.one(LOCK_TIMEOUT, {}) == {"given": "0"}
    assert await database.one(LOCK_TIMEOUT, {}) == {"given": "2s"}
