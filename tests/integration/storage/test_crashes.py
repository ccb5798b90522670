"""PostgreSQL crashes under load and is back a moment later: no call hangs, and the pool is whole again.

Under uvloop, as in the service: it stops watching a socket on which an error has been reported.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from sqlalchemy import Float, bindparam, func, select

from service.directory import METADATA
from service.errors import TicketError
from service.local.postgres import EmbeddedPostgres
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

POOL_SIZE = 8
CALLERS = 40
# Far beyond what a crash and its recovery take: a call that takes as long has hung.
HUNG_SECONDS = 10.0

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
        self.pids = set[int]()

    async def call(self) -> None:
        try:
            async with asyncio.timeout(HUNG_SECONDS):
                row = await self.database.one(PID, {"seconds": 0.001})
        except TicketError as error:
            self.outcomes[error.reason] += 1
            await asyncio.sleep(0.01)
        except TimeoutError:
            self.outcomes["hung"] += 1
        else:
            assert row is not None
            self.outcomes["ok"] += 1
            self.pids.add(int(row["pid"]))

    async def run(self) -> None:
        while True:
            await self.call()


async def crashed(url: str, times: int) -> tuple[Counter[str], int]:
    """What became of calls while backends were killed so many times, and how many connections there are then."""
    database = Database(Settings(database_url=url, pool_size=POOL_SIZE), METADATA)
    await database.open()
    load = Load(database)
    callers = [asyncio.create_task(load.run()) for _ in range(CALLERS)]
    try:
        for _ in range(times):
            load.pids.clear()
            before = load.outcomes["ok"]
            async with asyncio.timeout(60):
                while load.outcomes["ok"] < before + CALLERS:
                    await asyncio.sleep(0.01)
            # The postmaster ends all others when one is killed, and recovers.
            os.kill(max(load.pids), signal.SIGKILL)
            await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            load.pids.clear()
            while len(load.pids) < POOL_SIZE:
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    whole = len(load.pids)
    await database.close()
    return load.outcomes, whole


async def test_no_call_hangs_and_every_connection_is_back_when_backends_are_killed(fickle: EmbeddedPostgres) -> None:
    outcomes, connections = await asyncio.to_thread(uvloop.run, crashed(fickle.url, int(os.environ.get("TIMES", "10"))))
    print(outcomes, connections)
    assert outcomes["hung"] == 0
    assert outcomes["unavailable"] > 0
    assert connections == POOL_SIZE
