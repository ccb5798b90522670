"""WatchTickets at both transports: how a watch ends, and how many there may be."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.handoff import Door, changed, created, place
from support.handoff_watch import (
    BATCH,
    PATIENCE,
    Watch,
    admitted,
    doors_of,
    lively,
    service_here,
    told,
    watch_call,
    write_events,
)
from support.system import Issuer, World, run_service
from support.transports import Grpc, _grpc_failure

from service import migrations
from service.admin import operations as admin
from service.local.postgres import EmbeddedPostgres
from service.local.processes import free_port


@pytest.fixture
async def lively_doors(
    directory: Path, database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sequence[Door]]:
    """The transports of a service within this process that gives a sign of life twice a second."""
    async with lively(directory, database_url, issuer, monkeypatch) as transports:
        yield transports


# How it ends


async def remove(world: World, project_id: str, user_id: str) -> None:
    await world.operate(admin.remove_member, project_id=project_id, user_id=user_id)


async def test_who_is_removed_is_told_no_event_more(transport: Door, world: World) -> None:
    project_id, user_id = await world.project(), str(uuid4())
    who, author = await world.member(project_id, "viewer", user_id), await world.member(project_id)
    async with Watch(transport, who, project_id) as watch, Watch(transport, author, project_id) as stays:
        for one in (watch, stays):
            await one.message()
        await remove(world, project_id, user_id)
        ticket = await created(transport, author, project_id)
        assert told((await watch.broken_off("forbidden"))[0]) == []
        assert told([await stays.event()]) == [(ticket["id"], 1)]
    async with Watch(transport, who, project_id) as again:
        await again.refused("forbidden")


async def test_who_is_removed_is_told_so_with_the_next_sign_of_life(lively_doors: Sequence[Door], world: World) -> None:
    project_id, user_id = await world.project(), str(uuid4())
    for transport in lively_doors:
        who = await world.member(project_id, "owner", user_id)
        async with Watch(transport, who, project_id) as watch:
            await watch.message()
            await remove(world, project_id, user_id)
            removed = time.monotonic()
            await watch.broken_off("forbidden")
            assert time.monotonic() - removed < 5


async def test_a_watch_ends_when_its_token_does(lively_doors: Sequence[Door], world: World) -> None:
    project_id, user_id = await world.project(), str(uuid4())
    await world.member(project_id, user_id=user_id)
    expires_at = int(time.time()) + 3
    who = world.issuer.bearer(user_id, exp=expires_at)

    async def watch_to_the_end(transport: Door) -> None:
        async with Watch(transport, who, project_id) as watch:
            await watch.message()
            await watch.broken_off("token_expired")
            assert expires_at <= time.time() < expires_at + 2

    await asyncio.gather(*map(watch_to_the_end, lively_doors))


async def test_an_expired_token_is_not_told_a_backlog_to_its_end(lively_doors: Sequence[Door], world: World) -> None:
    """Who reads slowly reads what has been sent, and what is being told; nothing is read anew for them."""
    project_id, user_id = await world.project(), str(uuid4())
    transport, who = lively_doors[1], await world.member(project_id, user_id=user_id)
    assert isinstance(transport, Grpc)
    async with Watch(transport, who, project_id) as watch:
        cursor = (await watch.message())["cursor"]
    events = write_events(world, project_id, 20 * BATCH, bytes_each=8192)
    expires_at = int(time.time()) + 3
    who = world.issuer.bearer(user_id, exp=expires_at)
    call, number = watch_call(transport.channel, who, project_id=project_id, cursor=cursor), 0

    async def read_to_the_end() -> None:
        nonlocal number
        async for message in call:
            number += message.HasField("event")

    async with asyncio.timeout(PATIENCE):
        await call.wait_for_connection()
        await asyncio.sleep(expires_at - time.time())
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await read_to_the_end()
    _grpc_failure("handoff", failure.value).failed("token_expired")
    assert 0 < number < len(events) // 2


async def test_a_service_that_stops_ends_its_watches_and_others_go_on(
    directory: Path, database_url: str, issuer: Issuer, world: World, rpc: Grpc
) -> None:
    project_id, who = await place(world)
    with run_service(directory, database_url, issuer, drain_seconds=60) as service:
        async with doors_of(service.target, directory) as transports, AsyncExitStack() as stack:
            watches = [
                await stack.enter_async_context(Watch(transport, who, project_id))
                for transport in (*transports, *transports)
            ]
            for watch in watches:
                await watch.message()
            ticket = await created(rpc, who, project_id)
            cursors = [(await watch.event())["cursor"] for watch in watches]
            service.process.send_signal(signal.SIGTERM)
            for watch in watches:
                _, end = await watch.broken_off("unavailable")
                if end.transport == "rest":
                    assert end.body["retryAfter"] >= 1
                else:
                    retry: Any = end.details["google.rpc.RetryInfo"]
                    assert retry.retry_delay.seconds == end.body["retry_after"] >= 1
        assert await asyncio.to_thread(service.process.wait, PATIENCE) == 0
    ended = [line for line in service.lines() if str(line.get("method", "")).endswith("WatchTickets")]
    assert [line["outcome"] for line in ended] == ["unavailable"] * 4
    await changed(rpc, who, ticket, stage="up_next")
    for cursor in cursors:
        async with Watch(rpc, who, project_id, cursor) as again:
            assert told(await again.until_quiet()) == [(ticket["id"], 2)]


async def test_without_a_database_a_watch_ends_and_is_resumed_when_it_is_back(
    directory: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.watch._HEARTBEAT_SECONDS", 0.5)
    postgres = EmbeddedPostgres(directory / "fickle-watched", settings={"fsync": "off"})
    await asyncio.to_thread(postgres.start)
    try:
        migrations.upgrade(postgres.url)
        world = World(postgres.url, issuer)
        project_id, who = await place(world)
        await world.close()
        async with (
            service_here(directory, postgres.url, issuer) as (target, _),
            grpc.aio.insecure_channel(target) as channel,
        ):
            rpc = Grpc(channel)
            async with Watch(rpc, who, project_id) as watch:
                await watch.message()
                ticket = await created(rpc, who, project_id)
                cursor = (await watch.event())["cursor"]
                await asyncio.to_thread(postgres.stop)
                _, end = await watch.broken_off("unavailable")
                assert end.body["retry_after"] >= 1
            await asyncio.to_thread(postgres.start)
            async with admitted(rpc, who, project_id):
                pass
            await changed(rpc, who, ticket, stage="up_next")
            async with Watch(rpc, who, project_id, cursor) as watch:
                assert told(await watch.until_quiet()) == [(ticket["id"], 2)]
    finally:
        await asyncio.to_thread(postgres.stop)


async def test_a_watch_that_fails_within_says_so(
    lively_doors: Sequence[Door], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even then does it look as if it had ended well."""
    project_id, who = await place(world)

    def fail(_row: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("service.handoff.views.event", fail)
    for transport in lively_doors:
        async with Watch(transport, who, project_id) as watch:
            await watch.message()
            await created(transport, who, project_id)
            _, end = await watch.broken_off("internal")
            assert "secret" not in str(end.body)


# How many there may be


async def test_who_leaves_makes_room(directory: Path, database_url: str, issuer: Issuer, world: World) -> None:
    project_id, who = await place(world)
    with run_service(directory, database_url, issuer, max_watches=1) as service:
        async with doors_of(service.target, directory) as transports:
            for transport in (*transports, *transports):
                async with admitted(transport, who, project_id) as watch:
                    for other in transports:
                        async with Watch(other, who, project_id) as too_many:
                            reply = await too_many.refused(
                                "unavailable", message="Too many watches are open; try again later"
                            )
                        if other.name == "rest":
                            assert reply.headers["retry-after"] == "5"
                        else:
                            retry: Any = reply.details["google.rpc.RetryInfo"]
                            assert retry.retry_delay.seconds == 5
                    ticket = await created(transport, who, project_id)
                    assert told([await watch.event()]) == [(ticket["id"], 1)]


async def test_who_does_not_read_and_leaves_makes_room(
    directory: Path, database_url: str, issuer: Issuer, world: World
) -> None:
    project_id, who = await place(world)
    with run_service(directory, database_url, issuer, max_watches=1) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            async with Watch(Grpc(channel), who, project_id) as watch:
                cursor = (await watch.message())["cursor"]
            write_events(world, project_id, 10 * BATCH, bytes_each=8192)
            async with admitted(Grpc(channel), who, project_id):
                pass
            async with asyncio.timeout(PATIENCE):
                # Told is more than the connection holds, so the service waits to be read.
                while True:
                    call = watch_call(channel, who, project_id=project_id, cursor=cursor)
                    with suppress(grpc.aio.AioRpcError):
                        await call.read()
                        break
            call.cancel()
            async with admitted(Grpc(channel), who, project_id):
                pass


async def test_watches_are_not_among_the_calls_in_hand(
    directory: Path, database_url: str, issuer: Issuer, world: World
) -> None:
    project_id, who = await place(world)
    address = f"127.0.0.1:{free_port()}"
    with run_service(directory, database_url, issuer, max_concurrent_calls=1, metrics_listen=address) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            rpc = Grpc(channel)
            async with Watch(rpc, who, project_id) as one, Watch(rpc, who, project_id) as other:
                for watch in (one, other):
                    await watch.message()
                ticket = await created(rpc, who, project_id)
                for watch in (one, other):
                    assert told([await watch.event()]) == [(ticket["id"], 1)]
                async with httpx.AsyncClient() as client:
                    text = (await client.get(f"http://{address}/metrics")).text
    gauges = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    assert gauges["tickets_requests_in_flight"] == 0
