"""The primary hangs and a standby takes over: what is promised of recovery (deploy/README.md) holds for that too."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, insert, literal_column, select
from support.pair import Pair, running_pair
from support.webhook_lab import until

from service.directory import METADATA, accounts
from service.errors import TicketError
from service.settings import Settings
from service.storage.database import _LANES, Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement
from service.transport.health import Health

pytestmark = pytest.mark.processes

WRITE = Statement(insert(accounts).values(name="A").returning(accounts.c.id), scope=EVERYONE("reads no table"))
HANGS = Statement(select(func.pg_sleep(literal_column("60")).label("slept")), scope=EVERYONE("reads no table"))
# Connections of the pool that are not the lanes'.
FREE = Settings().pool_size - _LANES


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with running_pair(tmp_path) as pair:
        yield pair


@pytest.fixture
async def database(pair: Pair) -> AsyncIterator[Database]:
    # An attempt at a server that hangs lasts, so that only one that begins at the other comes in time.
    url = f"{pair.url}&connect_timeout=30"
    database = Database(Settings(database_url=url), METADATA)
    await database.open()
    watching = asyncio.create_task(Health(database.answers, ["a"]).follow())
    yield database
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await database.close()


async def writes(database: Database) -> bool:
    """Whether a write is done now; if not, that is for the one documented reason."""
    (outcome,) = await asyncio.gather(database.one(WRITE, {}), return_exceptions=True)
    assert getattr(outcome, "reason", "unavailable") == "unavailable"
    return isinstance(outcome, dict)


@pytest.mark.long
@pytest.mark.parametrize("in_use", [0, FREE], ids=["idle", "in use"])
async def test_writes_go_on_at_the_standby_that_took_over(database: Database, pair: Pair, in_use: int) -> None:
    async with asyncio.timeout(10):
        await database.one(WRITE, {})
    hung = [asyncio.create_task(database.one(HANGS, {})) for _ in range(in_use)]
    await until(lambda: len(database._pool._idle) == FREE - in_use)
    with pair.hanging():
        await asyncio.to_thread(pair.promote)
        async with asyncio.timeout(60):
            while not await writes(database):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        outcomes = await asyncio.gather(*hung, return_exceptions=True)
        assert all(isinstance(outcome, TicketError) and outcome.reason == "unavailable" for outcome in outcomes)
