"""A process that is frozen: what is sent to it ends soon, and reads are answered by another."""

import asyncio
import signal
from pathlib import Path

import grpc
import httpx2
import pytest
from support.system import Issuer, Service, World, run_service
from support.transports import Grpc, Rest

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port

pytestmark = pytest.mark.processes

TICKET = {"subject": "VPN is down", "description": "Since nine."}
# Fewer than the retries that the gateway makes at once.
CALLS = 6


async def test_reads_of_a_frozen_process_are_answered_by_another_and_writes_are_unavailable(
    directory: Path, database_url: str, issuer: Issuer, service: Service, world: World
) -> None:
    program = await world.program()
    with run_service(directory, database_url, issuer) as frozen:
        config = envoy_config(port=free_port(), endpoints=[service.target, frozen.target])
        with Envoy(config, log_file=directory / "frozen-envoy.log") as envoy:
            await asyncio.to_thread(envoy.wait_until_ready, upstream=True)
            async with (
                httpx2.AsyncClient(base_url=envoy.url, timeout=60) as client,
                grpc.aio.insecure_channel(client.base_url.netloc.decode()) as channel,
            ):
                rest, rpc = Rest(client), Grpc(channel)
                called = await asyncio.gather(*(rest.call("itsm.list", program.credential) for _ in range(CALLS)))
                assert {reply.status for reply in called} == {200}
                frozen.process.send_signal(signal.SIGSTOP)
                try:
                    writing = {"body": TICKET}
                    reads, writes, typed = await asyncio.gather(
                        asyncio.gather(*(rest.call("itsm.list", program.credential) for _ in range(CALLS))),
                        asyncio.gather(
                            *(rest.call("itsm.create", program.credential, **writing) for _ in range(CALLS))
                        ),
                        asyncio.gather(*(rpc.call("itsm.create", program.credential, **writing) for _ in range(CALLS))),
                    )
                finally:
                    frozen.process.send_signal(signal.SIGCONT)
    assert {reply.status for reply in reads} == {200}
    assert {reply.status for reply in writes} <= {201, 503}
    assert {reply.status for reply in typed} <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    # One of them at least was given to the frozen process, as the balance goes.
    assert 503 in {reply.status for reply in writes} or grpc.StatusCode.UNAVAILABLE in {reply.status for reply in typed}
