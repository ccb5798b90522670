"""The primary hangs and a standby takes over: what is promised of recovery (deploy/README.md) holds for that too."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import func, insert, literal_column, select
from support.webhook_lab import until

from service.directory import METADATA, accounts
from service.errors import TicketError
from service.local.postgres import EmbeddedPostgres, _postgres_install
from service.migrations import upgrade
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement
from service.transport.health import Health

pytestmark = pytest.mark.processes

SETTINGS = {"fsync": "off"}
WRITE = Statement(insert(accounts).values(name="A").returning(accounts.c.id), scope=EVERYONE("reads no table"))
HANGS = Statement(select(func.pg_sleep(literal_column("60")).label("slept")), scope=EVERYONE("reads no table"))


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "primary", settings=SETTINGS) as server:
        upgrade(server.url)
        yield server


@pytest.fixture
def standby(tmp_path: Path, primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    copy = tmp_path / "standby"
    binaries, owner = _postgres_install(copy)
    subprocess.run(
        [binaries / "pg_basebackup", "-D", copy, "-R", "-X", "stream", "-c", "fast", "-d", primary.url_for("postgres")],
        check=True,
    )
    copy.chmod(0o700)
    if owner is not None:
        for path in (copy, *copy.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    with EmbeddedPostgres(copy, settings=SETTINGS) as server:
        yield server


@contextmanager
def hanging(server: EmbeddedPostgres) -> Iterator[None]:
    """All processes of a server stand still: it accepts connections, and says nothing."""
    postmaster = int((server.data_dir / "postmaster.pid").read_text().split()[0])
    processes = [psutil.Process(postmaster), *psutil.Process(postmaster).children()]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


@pytest.fixture
async def database(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> AsyncIterator[Database]:
    sockets = (conninfo_to_dict(server.url)["host"] for server in (primary, standby))
    hosts = ",".join(quote(str(socket), safe="") for socket in sockets)
    # An attempt at a server that hangs lasts, so that only one that begins at the other comes in time.
    url = (
        f"postgresql://postgres@/tickets?host={hosts}&port=5432,5432&target_session_attrs=read-write&connect_timeout=30"
    )
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
@pytest.mark.parametrize("in_use", [0, Settings().pool_size], ids=["idle", "in use"])
async def test_writes_go_on_at_the_standby_that_took_over(
    database: Database, primary: EmbeddedPostgres, standby: EmbeddedPostgres, in_use: int
) -> None:
    async with asyncio.timeout(10):
        await database.one(WRITE, {})
    hung = [asyncio.create_task(database.one(HANGS, {})) for _ in range(in_use)]
    await until(lambda: len(database._pool._idle) == Settings().pool_size - in_use)
    with hanging(primary):
        with psycopg.connect(standby.url, autocommit=True) as connection:
            await asyncio.to_thread(connection.execute, "SELECT pg_promote()")
        async with asyncio.timeout(60):
            while not await writes(database):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        outcomes = await asyncio.gather(*hung, return_exceptions=True)
        assert all(isinstance(outcome, TicketError) and outcome.reason == "unavailable" for outcome in outcomes)
