"""What is promised of recovery (deploy/README.md): when the database or the path to it is back, so is everything.

Each fault is brought about while calls, a watch, a webhook and periodic work depend on the path that it strikes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2
from prometheus_client.parser import text_string_to_metric_families
from support.system import Credential, Issuer, Service, World, health, run_service
from support.tcp_proxy import TcpProxy
from support.transports import Grpc, Reply
from support.watches import ITSM
from support.webhook_lab import Receiver, until

from service.local.processes import free_port

pytestmark = pytest.mark.processes

TICKET = {"subject": "VPN is down", "description": "Since nine."}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
# Well beyond the objective, so that only what never comes back fails.
BACK_SECONDS = 30
# Periodic work that has its turn within seconds.
OFTEN = {"itsm_totals", "itsm_deliveries", "itsm_webhook_fan_out", "itsm_webhook_messages"}


@dataclass
class Stack:
    """A service whose only way to its database is a proxy."""

    proxy: TcpProxy
    service: Service
    rpc: Grpc
    world: World
    metrics: str

    async def last_success(self) -> dict[str, float]:
        """When each periodic work last succeeded."""
        async with httpx2.AsyncClient() as client:
            text = (await client.get(f"http://{self.metrics}/metrics")).text
        return {
            sample.labels["work"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "tickets_background_last_success_timestamp_seconds"
        }

    async def calls(self, who: Credential, number: int) -> list[Reply]:
        """So many reads and as many creations at once."""
        reads = [self.rpc.call("itsm.list", who) for _ in range(number)]
        return await asyncio.gather(*reads, *(self.rpc.call("itsm.create", who, body=TICKET) for _ in range(number)))


@pytest.fixture(scope="module")
async def stack(directory: Path, apart_url: str, apart: World, issuer: Issuer) -> AsyncIterator[Stack]:
    metrics = f"127.0.0.1:{free_port()}"
    async with TcpProxy(apart_url).listening() as proxy:
        # In a thread: the proxy runs on this loop.
        running = run_service(directory, proxy.url, issuer, metrics_listen=metrics)
        service = await asyncio.to_thread(running.__enter__)
        try:
            async with grpc.aio.insecure_channel(service.target) as channel:
                yield Stack(proxy, service, Grpc(channel), apart, metrics)
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


async def told(stack: Stack, status: int) -> None:
    """Wait until health tells so."""
    while await asyncio.to_thread(health, stack.service.target) != status:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.05)


async def watched(stack: Stack, who: Credential, cursor: str, ticket: Any) -> None:
    """A watch that is resumed wherever it ends emits the ticket's creation."""
    while True:
        async with ITSM.watching(stack.rpc, who, cursor) as stream:
            async for message in stream:
                if isinstance(message, Reply):
                    message.failed("unavailable")
                    break
                cursor = message["cursor"]
                if message["event"] and message["event"]["ticket_id"] == ticket["id"]:
                    return


async def worked(stack: Stack, since: float) -> None:
    """Wait until all periodic work has succeeded since an instant."""
    names = OFTEN
    while names:  # what another process has done, it says in its metrics alone
        succeeded = await stack.last_success()
        names = {name for name in names if succeeded[name] < since}
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", [TcpProxy.silence, TcpProxy.lose, TcpProxy.cut], ids=lambda fault: fault.__name__)
async def test_everything_is_back_when_the_path_to_the_database_is(
    stack: Stack, receiver: Receiver, fault: Callable[[TcpProxy], None]
) -> None:
    scopes = ("tickets:read", "tickets:write", "webhooks:manage")
    who = (await stack.world.program(scopes=scopes)).credential
    hook = {"url": f"{receiver.url}/hook", "events": ["ticket.created"]}
    (await stack.rpc.call("itsm.create_webhook", who, body=hook)).succeeded(201)
    cursor = await ITSM.start_cursor(stack.rpc, who)
    for reply in await stack.calls(who, 20):
        assert reply.status == grpc.StatusCode.OK

    fault(stack.proxy)
    if fault is not TcpProxy.lose:
        for reply in await stack.calls(who, 20):
            reply.failed("unavailable")
        await told(stack, NOT_SERVING)
        refused = await stack.rpc.call("itsm.list", who)
        assert refused.failed("unavailable")["retry_after"] == 1
    stack.proxy.resume()
    resumed_at = time.time()

    async with asyncio.timeout(BACK_SECONDS):
        while (made := await stack.rpc.call("itsm.create", who, body=TICKET)).status != grpc.StatusCode.OK:
            made.failed("unavailable")
            await asyncio.sleep(0.05)
        await told(stack, SERVING)
        await watched(stack, who, cursor, made.body)
        await until(lambda: made.body["id"] in [sent.body["data"]["id"] for sent in receiver.requests_to("/hook")])
        await worked(stack, since=resumed_at)
        assert {reply.status for reply in await stack.calls(who, 20)} == {grpc.StatusCode.OK}
