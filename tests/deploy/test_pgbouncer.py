"""PgBouncer between the service and PostgreSQL: what deploy/README.md says of it, tried with the real one."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import func, insert, literal_column, select
from support.system import Issuer, World, health, run_service
from support.tools import require
from support.transports import Grpc
from support.webhook_lab import until
from typer.testing import CliRunner

from service.__main__ import app
from service.directory import METADATA, accounts
from service.local.postgres import EmbeddedPostgres, _postgres_install
from service.local.processes import free_port, wait_for
from service.settings import Settings
from service.storage.connection import PooledConnection
from service.storage.database import Database
from service.storage.pooler import Pooler
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

pytestmark = pytest.mark.deploy

REFUSED = (
    "a pooler in transaction mode is between this process and PostgreSQL: set pool_mode = session there, or name"
    " PostgreSQL itself in TICKETS_DATABASE_URL"
)
SCOPE = EVERYONE("reads and writes nobody's rows")
SETTINGS = ("TimeZone", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
SET = Statement(
    select(*(func.current_setting(literal_column(f"'{name}'")).label(name) for name in SETTINGS)), scope=SCOPE
)
WRITE = Statement(insert(accounts).values(name="A").returning(accounts.c.id), scope=SCOPE, short=True)


@contextmanager
def pgbouncer(postgres: EmbeddedPostgres, directory: Path, **settings: str) -> Iterator[str]:
    """A PgBouncer in front of a server; its URL of the same database."""
    require("pgbouncer")
    sockets = conninfo_to_dict(postgres.url)["host"]
    port = free_port()
    given = {
        "listen_port": str(port),
        "unix_socket_dir": str(sockets),
        "auth_type": "any",
        "ignore_startup_parameters": "options",
        **settings,
    }
    lines = ["[databases]", f"* = host={sockets} port=5432 user=postgres", "[pgbouncer]"]
    lines += [f"{name} = {value}" for name, value in given.items()]
    file, log = directory / f"pgbouncer-{uuid4()}.ini", directory / f"pgbouncer-{uuid4()}.log"
    file.write_text("\n".join(lines))
    file.chmod(0o644)
    _, owner = _postgres_install(postgres.data_dir)
    # It refuses to run as root, and its socket lies where only the server's user may write.
    who = {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid}
    with log.open("wb") as output:
        process = subprocess.Popen(["pgbouncer", file], stdout=output, stderr=output, extra_groups=[], **who)  # type: ignore[call-overload]
    url = postgres.url.replace("port=5432", f"port={port}")
    try:
        wait_for(lambda: answers(url), what=f"PgBouncer to answer (see {log})", timeout=30)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="module")
def session_url(postgres: EmbeddedPostgres, database_url: str, directory: Path) -> Iterator[str]:
    with pgbouncer(postgres, directory, pool_mode="session") as url:
        yield url


@pytest.fixture
async def database(session_url: str) -> AsyncIterator[Database]:
    database = Database(Settings(database_url=session_url, lock_timeout_seconds=1.5), METADATA)
    await database.open()
    yield database
    await database.close()


async def test_a_session_has_all_settings_though_pgbouncer_leaves_them_out(database: Database) -> None:
    expected = {
        "TimeZone": "UTC",
        "statement_timeout": "30s",
        "lock_timeout": "1500ms",
        "idle_in_transaction_session_timeout": "5s",
    }
    assert await database.one(SET, {}) == expected


async def test_lanes_work_in_session_mode(database: Database) -> None:
    async with asyncio.timeout(10):
        await until(lambda: all(lane.is_open for lane in database.lanes or ()))
    assert await database.one(WRITE, {}) is not None
    assert database.lanes is not None
    assert database.lanes.writes.statements == 1


async def test_the_service_works_in_session_mode(
    directory: Path, session_url: str, issuer: Issuer, world: World
) -> None:
    program = await world.program()
    with run_service(directory, session_url, issuer) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            rpc = Grpc(channel)
            ticket = {"subject": "VPN is down", "description": "Since nine."}
            for _ in range(5):
                (await rpc.call("itsm.create", program.credential, body=ticket)).succeeded(201)
            assert (await rpc.call("itsm.list", program.credential)).succeeded()["total"] == 5


IN_TURN = {"server_round_robin": "1"}


@pytest.mark.parametrize("sessions", [1, 2, 3])
@pytest.mark.parametrize(
    ("mode", "settings"),
    [("session", {}), ("session", IN_TURN), ("transaction", {}), ("transaction", IN_TURN)],
    ids=["session, newest", "session, in turn", "transaction, newest", "transaction, in turn"],
)
async def test_a_pooler_is_refused_unless_it_keeps_sessions_however_few_it_has(
    postgres: EmbeddedPostgres, directory: Path, mode: str, settings: dict[str, str], sessions: int
) -> None:
    given = {"pool_mode": mode, "default_pool_size": str(sessions), **settings}
    with pgbouncer(postgres, directory, **given) as url:
        options: dict[str, Any] = {"conninfo": url, "autocommit": True}
        for _ in range(3):
            connection = await PooledConnection.connect(**options)
            # Less than the pool waits for a connection.
            async with asyncio.timeout(5):
                if mode == "session":
                    await Pooler().begin(connection, options)
                else:
                    with pytest.raises(psycopg.OperationalError, match="transaction mode"):
                        await Pooler().begin(connection, options)
            connection.discard()


@pytest.mark.parametrize("settings", [{}, {"server_round_robin": "1", "min_pool_size": "3"}], ids=["newest", "in turn"])
def test_transaction_mode_is_refused_in_one_line(
    postgres: EmbeddedPostgres,
    database_url: str,
    directory: Path,
    issuer: Issuer,
    settings: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        pgbouncer(postgres, directory, pool_mode="transaction", **settings) as url,
        run_service(directory, url, issuer) as service,
    ):
        wait_for(lambda: any("pooler" in str(line) for line in service.lines()), what="the line", timeout=30)
        assert health(service.target) == health_pb2.HealthCheckResponse.NOT_SERVING
        monkeypatch.setenv("TICKETS_DATABASE_URL", url)
        migrated = CliRunner().invoke(app, ["migrate"])
        assert (migrated.exit_code, migrated.stderr.strip()) == (1, REFUSED)
        assert f"bad pooler {REFUSED}" in re.sub(r"\s+", " ", CliRunner().invoke(app, ["doctor"]).output)
    lines = [line for line in service.lines() if line["event"] in ("database", "schema")]
    assert [line.get("error") for line in lines] == [REFUSED]


def test_a_migration_goes_through_session_mode(session_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETS_DATABASE_URL", session_url)
    assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
