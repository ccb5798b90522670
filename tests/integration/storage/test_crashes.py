"""PostgreSQL crashes under load and is back a moment later: no call hangs, and the pool is whole again.

Under uvloop, as in the service: it stops watching a socket on which an error has been reported.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from sqlalchemy import Float, bindparam, func, select
from support.webhook_lab import until

from service.directory import METADATA
from service.errors import TicketError
from service.local.postgres import EmbeddedPostgres
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

CRASHES = 12
POOL_SIZE = 8
CALLERS = 40
# Far beyond what a crash and its recovery take: a call that takes as long has hung.
HUNG_SECONDS = 10.0
# Every so many calls, one leaves as its statement is under way, so that a crash meets it while it is being cancelled.
LEAVES = 7

PID = Statement(
    select(func.pg_backend_pid().label("pid"), func.pg_sleep(bindparam("seconds", type_=Float)).label("slept")),
    scope=EVERYONE("reads no table"),
)


@pytest.fixture(scope="module")
def fickle(directory: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of the module's own, which may crash."""
    with EmbeddedPostgres(directory / "crashing", settings={"fsync": "off"}) as server:
        yield server


class Load:
    """Callers who call again and again, and what became of their calls."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.outcomes = Counter[str]()
        # The server's processes that have answered since this was last cleared.
        self.pids = set[int]()
        self._calls = 0

    async def call(self) -> None:
        self._calls += 1
        leaves = self._calls % LEAVES == 0
        try:
            async with asyncio.timeout(0.002 if leaves else HUNG_SECONDS):
                row = await self.database.one(PID, {"seconds": 0.1 if leaves else 0.001})
        except TicketError as error:
            self.outcomes[error.reason] += 1
            await asyncio.sleep(0.01)
        except TimeoutError:
            self.outcomes["left" if leaves else "hung"] += 1
        else:
            assert row is not None
            self.outcomes["ok"] += 1
            self.pids.add(int(row["pid"]))

    async def run(self) -> None:
        while True:
            await self.call()

    async def answered(self, backends: int) -> None:
        """Wait for answers from so many of the server's processes, all of them from now on."""
        self.pids.clear()
        await until(lambda: len(self.pids) >= backends)


async def outcomes_of(url: str) -> Counter[str]:
    """What became of calls while the server crashed so many times; in between all connections were there again."""
    database = Database(Settings(database_url=url, pool_size=POOL_SIZE), METADATA)
    await database.open()
    load = Load(database)
    callers = [asyncio.create_task(load.run()) for _ in range(CALLERS)]
    try:
        for _ in range(CRASHES):
            async with asyncio.timeout(30):
                await load.answered(POOL_SIZE)
            # The postmaster ends all the others then, and recovers.
            with suppress(ProcessLookupError):
                os.kill(max(load.pids), signal.SIGKILL)
        async with asyncio.timeout(30):
            await load.answered(POOL_SIZE)
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await database.close()
    return load.outcomes


async def test_no_call_hangs_and_every_connection_is_back(fickle: EmbeddedPostgres) -> None:
    outcomes = await asyncio.to_thread(uvloop.run, outcomes_of(fickle.url))
    assert outcomes["hung"] == 0
    assert outcomes["unavailable"] > 0
