"""What is promised of a rollout (deploy/README.md): a process that its database cannot serve says so, and waits."""

import asyncio
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import prepared
from support.provider_lab import empty_database
from support.system import Issuer, World, run_service
from support.transports import Grpc

from service import migrations, schema

pytestmark = pytest.mark.processes

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def status(channel: grpc.aio.Channel, name: str) -> int:
    answer: Message = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
    found: int = getattr(answer, "status")  # noqa: B009 - generated without types
    return found


async def until(channel: grpc.aio.Channel, expected: int) -> None:
    async with asyncio.timeout(20):
        while await status(channel, "") != expected:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_a_process_serves_as_soon_as_the_migration_has_run_and_says_until_then_what_is_missing(
    directory: Path, database_url: str, issuer: Issuer
) -> None:
    person = issuer.bearer("per_1", tenant_id="ten_a", scope="helpdesk:read")
    with empty_database(database_url) as url, run_service(directory, url, issuer) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            rpc = Grpc(channel)
            for name in ("", "tickets.itsm.v1.TicketService"):
                assert await status(channel, name) == NOT_SERVING
            assert await status(channel, "live") == SERVING
            for _ in range(3):
                refused = await rpc.call("helpdesk.list", person)
                assert refused.failed("unavailable")["retry_after"] == 1

            await asyncio.to_thread(migrations.upgrade, url)
            await until(channel, SERVING)
            (await rpc.call("helpdesk.list", person)).succeeded()

            # Another version goes on to what this one does not know.
            world = World(url, issuer)
            world.run("INSERT INTO breaking_revisions VALUES ('9999')")
            world.run("UPDATE alembic_version SET version_num = '9999'")
            await until(channel, NOT_SERVING)
            (await rpc.call("helpdesk.list", person)).failed("unavailable")
            await world.close()
        said = [line for line in service.lines() if line["event"] == "schema"]
    newest = schema.known_revisions()[-1]
    reasons = [line.get("reason") for line in said]
    # While it ran, it said how far it was.
    assert [reason for reason in reasons if reason is None or "at revision 00" not in reason] == [
        f"the database has no tables yet, and this version needs revision {newest}: run `tickets migrate`",
        None,
        "the database is at revision 9999, and since 9999 only newer versions can serve it:"
        f" this one knows {newest} and those before",
    ]
    # Neither calls nor background work have met a table that is not there.
    assert [line for line in service.lines() if line.get("outcome") == "internal" or "exception" in line] == []


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("GRPC_LISTEN", "unix:/nowhere/at/all", "cannot listen on unix:/nowhere/at/all"),
        ("GRPC_LISTEN", "192.0.2.1:50051", "cannot listen on 192.0.2.1:50051: Cannot assign requested address"),
        ("METRICS_LISTEN", "192.0.2.1:9464", "cannot listen on 192.0.2.1:9464: Cannot assign requested address"),
        ("ENCRYPTION_KEYS", "s3cret", "not a comma-separated list of Fernet keys"),
        ("RATE_LIMIT_FILE", "/proc/nothing/limits", "[Errno 2] No such file or directory: '/proc/nothing'"),
    ],
)
def test_a_setting_that_a_process_cannot_use_is_its_last_line(
    directory: Path, database_url: str, name: str, value: str, line: str
) -> None:
    log = directory / f"service-{uuid4()}.log"
    given = {"DATABASE_URL": database_url, "RATE_LIMIT_FILE": str(directory / f"limits-{uuid4()}"), name: value}
    process = prepared.serve({f"TICKETS_{key}": text for key, text in given.items()}, log)
    assert process.wait(timeout=30) == 2
    text = log.read_text()
    assert text.splitlines()[-1] == f"TICKETS_{name}: {line}"
    assert "Traceback" not in text
    # Only of a unix socket's path gRPC has something to say too.
    assert ("Failed to add port" in text) == value.startswith("unix:")
