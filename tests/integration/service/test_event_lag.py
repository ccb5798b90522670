"""Events that an open transaction holds back: heartbeats and the log say so."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import structlog
from support.handoff_watch import Message, Watch
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


async def until(check: Callable[[], Awaitable[bool]], said: Any) -> None:
    """Return when a check is true; `said` is what it saw last."""
    try:
        async with asyncio.timeout(30):
            while not await check():  # noqa: ASYNC110 - what happens in PostgreSQL sets no event here
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"the heartbeats say {said}")


async def behind(world: World, transports: Sequence[Rest | Grpc]) -> dict[tuple[str, str], int]:
    """What the first heartbeat of each API's watch says at each transport, which comes at once."""
    project_id = await world.project()
    member, program, person = await world.member(project_id), await world.program(), world.person("read")

    async def of_handoff(transport: Rest | Grpc) -> Message:
        async with Watch(transport, member, project_id) as watch:
            return await watch.message()

    async def of_others(transport: Rest | Grpc, watches: Watches) -> Message:
        async with watches.watching(transport, program.credential if watches is ITSM else person) as stream:
            return await next_of(stream)

    first = {}
    for transport in transports:
        first[transport.name, "handoff"] = await of_handoff(transport)
        for watches in (ITSM, HELPDESK):
            first[transport.name, watches.api] = await of_others(transport, watches)
    return {watch: message.get("behind_seconds") or 0 for watch, message in first.items()}


async def test_a_heartbeat_says_for_how_long_events_are_held_back(
    rest: Rest, rpc: Grpc, world: World, database_url: str
) -> None:
    said: dict[tuple[str, str], int] = {}

    async def is_behind() -> bool:
        said.update(await behind(world, [rest, rpc]))
        return all(seconds >= 1 for seconds in said.values())

    async def is_well() -> bool:
        said.update(await behind(world, [rest, rpc]))
        return set(said.values()) == {0}

    with open_transaction(database_url):
        await until(is_behind, said)
    await until(is_well, said)


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
