"""Events that an open transaction holds back: heartbeats and the log say so."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
import structlog
from support.handoff_watch import Watch
from support.system import World
from support.transports import Grpc, Rest
from support.watches import HELPDESK, ITSM, Watches, next_of

from service import event_lag
from service.directory import METADATA
from service.event_lag import EventLag
from service.settings import Settings
from service.storage.database import Database


@contextmanager
def open_transaction(database_url: str) -> Iterator[None]:
    """A transaction that stays open, and one after it that has ended."""
    with psycopg.connect(database_url) as connection, psycopg.connect(database_url) as later:
        for one in (connection, later):
            one.execute("SELECT pg_current_xact_id()")
        later.commit()
        yield


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await check():  # noqa: ASYNC110 - what happens in PostgreSQL sets no event here
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("api", ["itsm", "helpdesk", "handoff"])
async def test_a_heartbeat_says_for_how_long_events_are_held_back(
    transport: Rest | Grpc, world: World, database_url: str, api: str
) -> None:
    program, person = await world.program(), world.person("read")
    project_id = await world.project()
    member = await world.member(project_id)

    async def behind() -> int:
        """What the first heartbeat of a watch says, which comes at once."""
        if api == "handoff":
            async with Watch(transport, member, project_id) as watch:
                return (await watch.message()).get("behind_seconds") or 0
        watches: Watches = ITSM if api == "itsm" else HELPDESK
        async with watches.watching(transport, program.credential if api == "itsm" else person) as stream:
            return (await next_of(stream)).get("behind_seconds") or 0

    async def is_behind() -> bool:
        return await behind() >= 1

    async def is_well() -> bool:
        return await behind() == 0

    with open_transaction(database_url):
        await until(is_behind)
    await until(is_well)


async def test_the_log_says_once_that_events_are_held_back_and_once_that_they_are_not(
    database_url: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_lag, "_LOG_SECONDS", 1e-9)
    await world.settled()
    database = Database(Settings(database_url=database_url, pool_size=1), METADATA)
    await database.open()
    lag = EventLag(database)
    try:
        with structlog.testing.capture_logs() as logged:
            await lag.look()
            with open_transaction(database_url):
                for _ in range(5):
                    await lag.look()
                assert lag.seconds() > 0
            await lag.look()
            assert lag.seconds() == 0
    finally:
        await database.close()
    assert [line["outcome"] for line in logged if line["event"] == "events"] == ["held back", "ok"]
