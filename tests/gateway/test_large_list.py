"""contracts/handoff.md: a complete list of 100,000 tickets, which no process on the way holds whole."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import orjson
import psutil
import pytest
from support.system import Issuer, World, run_service

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port

pytestmark = pytest.mark.processes

TICKETS = 100_000
MIB = 2**20


@pytest.mark.long
@pytest.mark.parametrize("pause", [0.0, 0.002], ids=["fast reader", "slow reader"])
async def test_a_list_of_100_000_is_complete_and_never_whole_in_memory(
    directory: Path, database_url: str, issuer: Issuer, world: World, pause: float
) -> None:
    project_id = await world.project()
    who = await world.member(project_id, "viewer")
    world.run(
        "INSERT INTO handoff_tickets (project_id, number, source, title, description, request_type, priority, blocking,"
        " actor_role, actor_id, created_at) SELECT %s, n, 'portal', 'Title', repeat('word ', 200), 'bug', 'low', false,"
        " 'user', 'x', timestamptz '2026-01-01Z' + n * interval '1 second' FROM generate_series(1, %s) AS n",
        project_id,
        TICKETS,
    )
    with run_service(directory, database_url, issuer) as service:
        config = envoy_config(port=free_port(), endpoints=[service.target])
        with Envoy(config, log_file=directory / "large.log") as envoy:
            envoy.wait_until_ready(upstream=True)
            assert envoy._child is not None
            processes = [psutil.Process(service.process.pid), psutil.Process(envoy._child.pid)]
            async with httpx2.AsyncClient(base_url=envoy.url, timeout=300) as client:
                (await client.get("/api/tickets?limit=1000", headers=who)).raise_for_status()  # warm
                before = [process.memory_info().rss for process in processes]
                peak, body = list(before), bytearray()
                async with client.stream("GET", "/api/tickets", headers=who) as response:
                    async for piece in _pieces(response, pause):
                        body += piece
                        peak = [max(most, one.memory_info().rss) for most, one in zip(peak, processes, strict=True)]
    numbers = [ticket["number"] for ticket in orjson.loads(body)["tickets"]]
    assert numbers == list(range(TICKETS, 0, -1))
    grown = [(most - least) / MIB for most, least in zip(peak, before, strict=True)]
    print(f"{len(body) / MIB:.0f} MiB; peaks {[round(most / MIB) for most in peak]}, grown by {grown} MiB")
    assert max(grown) < 30


async def _pieces(response: httpx2.Response, pause: float) -> AsyncIterator[bytes]:
    async for piece in response.aiter_raw(65536):
        yield piece
        if pause:
            await asyncio.sleep(pause)
