"""A dump that is restored into another cluster (deploy/README.md, Backup): the service goes on with it."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import psycopg
import pytest
from support.history.run import snapshot
from support.system import Issuer, Program, World, run_service
from support.transports import Grpc
from support.watches import ITSM, next_of
from support.webhook_lab import Receiver, until

from service.directory import METADATA
from service.local.postgres import EmbeddedPostgres, _postgres_install

pytestmark = pytest.mark.processes

SCRIPT = Path(__file__).parents[3] / "deploy/after-restore.sql"
# More transactions than the new cluster has had by the time that it has the dump.
TRANSACTIONS = 3000


def spend_transactions(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection, connection.pipeline():
        for _ in range(TRANSACTIONS):
            connection.execute("SELECT pg_current_xact_id()", prepare=False)
            connection.execute("COMMIT", prepare=False)


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "data", settings={"fsync": "off"}) as server:
        yield server


def restore(source: str, target: EmbeddedPostgres, file: Path) -> None:
    """As the page says it."""
    binaries, _ = _postgres_install(target.data_dir)
    subprocess.run([binaries / "pg_dump", "--format=custom", "--file", file, source], check=True)
    restoring: list[str | Path] = [
        binaries / "pg_restore",
        "--no-owner",
        "--no-acl",
        "--exit-on-error",
        "--dbname",
        target.url,
        file,
    ]
    subprocess.run(restoring, check=True)
    script: list[str | Path] = [
        binaries / "psql",
        "--quiet",
        "--single-transaction",
        "--set=ON_ERROR_STOP=1",
        "--file",
        SCRIPT,
        target.url,
    ]
    subprocess.run(script, check=True)


async def sent(receiver: Receiver, subject: str) -> None:
    """Wait for the message of a creation."""
    async with asyncio.timeout(30):
        await until(lambda: ("ticket.created", subject) in receiver.events("/hook"))


async def create(rpc: Grpc, program: Program, subject: str, key: str) -> str:
    body = {"subject": subject, "description": "Since nine."}
    headers = {"idempotency-key": key}
    return str((await rpc.call("itsm.create", program.credential, body=body, headers=headers)).succeeded(201)["id"])


async def test_the_service_goes_on_with_a_restored_dump(
    directory: Path, apart_url: str, apart: World, elsewhere: EmbeddedPostgres, issuer: Issuer, tmp_path: Path
) -> None:
    spend_transactions(apart_url)
    program = await apart.program(scopes=("tickets:read", "tickets:write", "webhooks:manage"))
    receiver = Receiver()
    async with receiver.listening():
        with run_service(directory, apart_url, issuer) as service:
            async with grpc.aio.insecure_channel(service.target) as channel:
                rpc = Grpc(channel)
                hook = {"url": f"{receiver.url}/hook", "events": ["ticket.created"]}
                (await rpc.call("itsm.create_webhook", program.credential, body=hook)).succeeded(201)
                first = await create(rpc, program, "Before", "before")
                await sent(receiver, "Before")
        restore(apart_url, elsewhere, tmp_path / "tickets.dump")
        before = snapshot(apart_url, {})
        after = snapshot(elsewhere.url, {})
        assert [*after.tickets] == [*before.tickets]
        with run_service(directory, elsewhere.url, issuer) as service:
            async with grpc.aio.insecure_channel(service.target) as channel:
                rpc = Grpc(channel)
                assert await create(rpc, program, "Before", "before") == first, "its key is there too"
                async with ITSM.watching(rpc, program.credential) as stream:
                    assert (await next_of(stream))["event"] is None
                    second = await create(rpc, program, "After", "after")
                    assert (await next_of(stream))["event"]["ticket_id"] == second
                await sent(receiver, "After")
                assert receiver.events("/hook").count(("ticket.created", "Before")) == 1


def test_the_script_names_every_table_that_has_transactions() -> None:
    tables = {table.name for table in METADATA.tables.values() if "transaction_id" in table.c}
    assert {line.split()[1] for line in SCRIPT.read_text().splitlines() if line.startswith("UPDATE ")} == tables
