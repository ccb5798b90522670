"""One ticket that somebody holds: its changes are told to come back, and everybody else is served."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import psycopg
import pytest
from support.system import Issuer, Service, World, run_service
from support.transports import Grpc
from support.webhook_lab import until

pytestmark = pytest.mark.processes

TICKET = {"subject": "VPN is down", "description": "Since nine."}
PATCHES = 4
# Of one account, or one while its calls are slow.
WRITES_AT_ONCE = 3


@pytest.fixture
def service(directory: Path, database_url: str, issuer: Issuer) -> Iterator[Service]:
    with run_service(directory, database_url, issuer, lock_timeout_seconds=2.0) as service:
        yield service


@pytest.fixture
async def rpc(service: Service) -> AsyncIterator[Grpc]:
    async with grpc.aio.insecure_channel(service.target) as channel:
        yield Grpc(channel)


async def test_a_locked_ticket_is_an_outage_for_nobody_else(rpc: Grpc, world: World) -> None:
    who = (await world.program()).credential
    locked = (await rpc.call("itsm.create", who, body=TICKET)).succeeded(201)
    other = (await rpc.call("itsm.create", who, body=TICKET)).succeeded(201)
    change = {"path": {"ticket_id": locked["id"]}, "body": {"subject": "Changed"}}
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%itsm_tickets%'"
    with psycopg.connect(world.database_url) as holder:
        holder.execute("SELECT 1 FROM itsm_tickets WHERE id = %s FOR UPDATE", [locked["id"]])
        patches = [asyncio.create_task(rpc.call("itsm.update", who, **change)) for _ in range(PATCHES)]
        async with asyncio.timeout(20):
            await until(lambda: 1 <= world.rows(waiting)[0][0] <= WRITES_AT_ONCE)
        reads = [rpc.call("itsm.get", who, path={"ticket_id": other["id"]}) for _ in range(20)]
        for reply in await asyncio.gather(*reads):
            assert reply.succeeded() == other
        # So the reads were not behind them.
        assert not any(patch.done() for patch in patches)
        for reply in await asyncio.gather(*patches):
            assert reply.failed("unavailable")["retry_after"] == 1
        assert "Another change holds what this one needs; retry later" in {
            patch.result().message() for patch in patches
        }
    assert (await rpc.call("itsm.update", who, **change)).succeeded()["subject"] == "Changed"
