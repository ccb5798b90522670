"""PostgreSQL crashes under load and is back a moment later: no call hangs, and the pool is whole again.

Under uvloop, as in the service: it stops watching a socket on which an error has been reported.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
import uvloop
from sqlalchemy import Float, bindparam, func, select
from support.webhook_lab import until

from service import migrations
from service.access.policy import Caller
from service.directory import METADATA
from service.errors import TicketError
from service.itsm import queries, tables
from service.local.postgres import EmbeddedPostgres
from service.local.processes import wait_for
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement
from service.watch import EventFeed

pytestmark = pytest.mark.processes

CRASHES = 12
POOL_SIZE = 8
CALLERS = 40
# Far beyond what a crash and its recovery take: a call that takes as long has hung.
HUNG_SECONDS = 10.0
# Every so many calls, one leaves as its statement is under way, so that a crash meets it while it is being cancelled.
LEAVES = 7
ACCOUNT, KEY = uuid4(), uuid4()
CALLER = Caller(str(KEY), frozenset(), account_id=ACCOUNT)

# On a connection of its own, and on a lane.
PIDS = [
    Statement(
        select(func.pg_backend_pid().label("pid"), func.pg_sleep(bindparam("seconds", type_=Float)).label("slept")),
        scope=EVERYONE("reads no table"),
        short=short,
    )
    for short in (False, True)
]


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
                row = await self.database.one(PIDS[self._calls % 2], {"seconds": 0.1 if leaves else 0.001})
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
    # Of the two lanes, these calls have that of reads.
    database = Database(Settings(database_url=url, pool_size=POOL_SIZE + 2), METADATA)
    await database.open()
    load = Load(database)
    callers = [asyncio.create_task(load.run()) for _ in range(CALLERS)]
    try:
        for _ in range(CRASHES):
            async with asyncio.timeout(30):
                await load.answered(POOL_SIZE + 1)
            # The postmaster ends all the others then, and recovers.
            with suppress(ProcessLookupError):
                os.kill(max(load.pids), signal.SIGKILL)
        async with asyncio.timeout(30):
            await load.answered(POOL_SIZE + 1)
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


def insert_events(url: str, number: int, *, commit: bool) -> list[UUID]:
    """Insert events of an account, each in a transaction of its own; returns the tickets that they are about."""
    ticket_ids = [uuid4() for _ in range(number)]
    with psycopg.connect(url) as connection:
        for ticket_id in ticket_ids:
            connection.execute(
                "INSERT INTO itsm_events (account_id, live, ticket_id, version, type, changes, actor, request_id)"
                " VALUES (%s, true, %s, 1, 'ticket.created', '{}', 'me', 'r')",
                (ACCOUNT, ticket_id),
            )
            (connection.commit if commit else connection.rollback)()
    return ticket_ids


def crash(url: str) -> None:
    """Crash the server; it has recovered when this returns."""

    def is_back() -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return True
        return False

    # Another one ends once the postmaster has seen it: until then new connections would be let in.
    with suppress(psycopg.OperationalError), psycopg.connect(url) as killed, psycopg.connect(url) as another:
        os.kill(killed.info.backend_pid, signal.SIGKILL)
        another.execute("SELECT pg_sleep(10)")
    wait_for(is_back, what="the server to recover", timeout=30)


@asynccontextmanager
async def feed_of(url: str) -> AsyncIterator[EventFeed]:
    feed = EventFeed(Database(Settings(database_url=url), METADATA), tables.events, max_watches=10)
    await feed.database.open()
    try:
        with feed.subscribe(ACCOUNT, CALLER):
            yield feed
    finally:
        await feed.database.close()


async def test_a_watch_that_is_resumed_after_a_crash_has_every_event(fickle: EmbeddedPostgres) -> None:
    """PostgreSQL may give the ids of transactions that were aborted before a crash to those after it."""
    migrations.upgrade(fickle.url)
    with psycopg.connect(fickle.url) as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'An account')", (ACCOUNT,))
        connection.execute(
            "INSERT INTO api_keys (id, account_id, key_hash, live, scopes) VALUES (%s, %s, 'hash', true, '{}')",
            (KEY, ACCOUNT),
        )
    insert_events(fickle.url, 1, commit=True)
    insert_events(fickle.url, 20, commit=False)
    async with feed_of(fickle.url) as feed:
        position = await feed.begin(ACCOUNT, None)
    crash(fickle.url)
    inserted = insert_events(fickle.url, 5, commit=True)
    async with feed_of(fickle.url) as feed:
        mine = {"account_id": ACCOUNT, "live": True, "key_ids": [KEY], "rows": 200}
        rows = await feed.database.all(queries.EVENTS_AFTER, mine | position.parameters())
    assert [row["ticket_id"] for row in rows] == inserted
