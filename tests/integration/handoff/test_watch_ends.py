"""WatchTickets at both transports: how a watch ends, and the limit of open watches."""

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.handoff import Transport, changed, created, new_project
from support.handoff_watch import (
    BATCH,
    TIMEOUT,
    Watch,
    admitted,
    emitted,
    service_in_process,
    transports_of,
    watch_call,
    write_events,
)
from support.provider_lab import own_database
from support.system import Issuer, World, run_service
from support.transports import Grpc, _grpc_failure

from service import migrations
from service.admin import operations as admin
from service.local.postgres import EmbeddedPostgres
from service.local.processes import free_port

pytestmark = pytest.mark.processes

# How a watch ends


async def remove(world: World, project_id: str, user_id: str) -> None:
    await world.operate(admin.remove_member, project_id=project_id, user_id=user_id)


async def test_a_removed_member_gets_no_further_event(transport: Transport, world: World) -> None:
    project_id, user_id = await world.project(), str(uuid4())
    who, author = await world.member(project_id, "viewer", user_id), await world.member(project_id)
    async with Watch(transport, who, project_id) as watch, Watch(transport, author, project_id) as stays:
        for one in (watch, stays):
            await one.message()
        await remove(world, project_id, user_id)
        ticket = await created(transport, author, project_id)
        assert emitted((await watch.ended("forbidden"))[0]) == []
        assert emitted([await stays.event()]) == [(ticket["id"], 1)]
    async with Watch(transport, who, project_id) as again:
        await again.refused("forbidden")


async def test_the_watch_of_a_removed_member_ends_at_the_next_heartbeat(
    frequent_heartbeats: Sequence[Transport], world: World
) -> None:
    project_id, user_id = await world.project(), str(uuid4())
    for transport in frequent_heartbeats:
        who = await world.member(project_id, "owner", user_id)
        async with Watch(transport, who, project_id) as watch:
            await watch.message()
            await remove(world, project_id, user_id)
            removed = time.monotonic()
            await watch.ended("forbidden")
            assert time.monotonic() - removed < 5


async def test_a_watch_ends_when_its_token_expires(frequent_heartbeats: Sequence[Transport], world: World) -> None:
    project_id, user_id = await world.project(), str(uuid4())
    await world.member(project_id, user_id=user_id)
    expires_at = round(time.time()) + 2
    who = world.issuer.bearer(user_id, exp=expires_at)

    async def watch_to_the_end(transport: Transport) -> None:
        async with Watch(transport, who, project_id) as watch:
            await watch.message()
            await watch.ended("token_expired")
            assert expires_at <= time.time() < expires_at + 2

    await asyncio.gather(*map(watch_to_the_end, frequent_heartbeats))


async def test_an_expired_token_does_not_get_the_rest_of_a_backlog(
    frequent_heartbeats: Sequence[Transport], world: World
) -> None:
    """A slow reader gets the messages that were sent and the batch that was read, and nothing is read after that."""
    project_id, user_id = await world.project(), str(uuid4())
    transport, who = frequent_heartbeats[1], await world.member(project_id, user_id=user_id)
    assert isinstance(transport, Grpc)
    async with Watch(transport, who, project_id) as watch:
        cursor = (await watch.message())["cursor"]
    events = write_events(world, project_id, 20 * BATCH, bytes_each=8192)
    expires_at = round(time.time()) + 2
    who = world.issuer.bearer(user_id, exp=expires_at)
    call, number = watch_call(transport.channel, who, project_id=project_id, cursor=cursor), 0

    async def read_to_the_end() -> None:
        nonlocal number
        async for message in call:
            number += message.HasField("event")

    async with asyncio.timeout(TIMEOUT):
        await call.wait_for_connection()
        await asyncio.sleep(expires_at - time.time())
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await read_to_the_end()
    _grpc_failure("handoff", failure.value).failed("token_expired")
    assert 0 < number < len(events) // 2


async def test_watches_end_when_the_service_stops_and_resume_at_another(
    directory: Path, database_url: str, issuer: Issuer, world: World, rpc: Grpc
) -> None:
    project_id, who = await new_project(world)
    with run_service(directory, database_url, issuer, drain_seconds=60) as service:
        async with transports_of(service.target, directory) as transports, AsyncExitStack() as stack:
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
                _, end = await watch.ended("unavailable")
                if end.transport == "rest":
                    assert end.body["retryAfter"] >= 1
                else:
                    retry: Any = end.details["google.rpc.RetryInfo"]
                    assert retry.retry_delay.seconds == end.body["retry_after"] >= 1
        assert await asyncio.to_thread(service.process.wait, TIMEOUT) == 0
    ended = [line for line in service.lines() if str(line.get("method", "")).endswith("WatchTickets")]
    assert [line["outcome"] for line in ended] == ["unavailable"] * 4
    await changed(rpc, who, ticket, stage="up_next")
    for cursor in cursors:
        async with Watch(rpc, who, project_id, cursor) as again:
            assert emitted(await again.until_quiet()) == [(ticket["id"], 2)]


async def test_a_watch_ends_when_the_database_is_down_and_resumes_afterwards(
    directory: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.watch._HEARTBEAT_SECONDS", 0.5)
    postgres = EmbeddedPostgres(directory / "restarted-watched", settings={"fsync": "off"})
    await asyncio.to_thread(postgres.start)
    try:
        migrations.upgrade(postgres.url)
        world = World(postgres.url, issuer)
        project_id, who = await new_project(world)
        await world.close()
        async with (
            service_in_process(directory, postgres.url, issuer) as (target, _),
            grpc.aio.insecure_channel(target) as channel,
        ):
            rpc = Grpc(channel)
            async with Watch(rpc, who, project_id) as watch:
                await watch.message()
                ticket = await created(rpc, who, project_id)
                cursor = (await watch.event())["cursor"]
                await asyncio.to_thread(postgres.stop)
                _, end = await watch.ended("unavailable")
                assert end.body["retry_after"] >= 1
            await asyncio.to_thread(postgres.start)
            async with admitted(rpc, who, project_id):
                pass
            await changed(rpc, who, ticket, stage="up_next")
            async with Watch(rpc, who, project_id, cursor) as watch:
                assert emitted(await watch.until_quiet()) == [(ticket["id"], 2)]
    finally:
        await asyncio.to_thread(postgres.stop)


async def test_a_watch_ends_when_the_database_moves_and_is_resumed_there(
    directory: Path, database_url: str, issuer: Issuer
) -> None:
    with own_database(database_url) as url:
        world = World(url, issuer)
        project_id, who = await new_project(world)
        async with (
            service_in_process(directory, url, issuer) as (target, _),
            grpc.aio.insecure_channel(target) as channel,
        ):
            rpc = Grpc(channel)
            async with Watch(rpc, who, project_id) as watch:
                await watch.message()
                ticket = await created(rpc, who, project_id)
                cursor = (await watch.event())["cursor"]
                # It was on another server, and comes back.
                world.run("INSERT INTO event_epochs (epoch, system_identifier) VALUES (1, 1)")
                await asyncio.to_thread(migrations.upgrade, url)
                _, end = await watch.ended("unavailable")
                assert end.body["retry_after"] == 1
            await changed(rpc, who, ticket, stage="up_next")
            async with Watch(rpc, who, project_id, cursor) as watch:
                assert emitted([await watch.event()]) == [(ticket["id"], 2)]
        await world.close()


async def test_a_watch_that_fails_ends_with_the_failure(
    frequent_heartbeats: Sequence[Transport], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not look like a normal end."""
    project_id, who = await new_project(world)

    def fail(_row: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("service.handoff.views.event", fail)
    for transport in frequent_heartbeats:
        async with Watch(transport, who, project_id) as watch:
            await watch.message()
            await created(transport, who, project_id)
            _, end = await watch.ended("internal")
            assert "secret" not in str(end.body)


# The limit of open watches


@pytest.fixture(scope="module")
def one_watch(directory: Path, database_url: str, issuer: Issuer) -> Iterator[str]:
    """The address of a service that has room for one watch."""
    with run_service(directory, database_url, issuer, max_watches=1) as service:
        yield service.target


async def test_a_watch_that_ends_makes_room(one_watch: str, directory: Path, world: World) -> None:
    project_id, who = await new_project(world)
    async with transports_of(one_watch, directory) as transports:
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
                assert emitted([await watch.event()]) == [(ticket["id"], 1)]


async def test_a_watch_that_ends_unread_makes_room(one_watch: str, world: World) -> None:
    project_id, who = await new_project(world)
    async with grpc.aio.insecure_channel(one_watch) as channel:
        async with admitted(Grpc(channel), who, project_id) as watch:
            await created(Grpc(channel), who, project_id)
            cursor = (await watch.event())["cursor"]
        write_events(world, project_id, 10 * BATCH, bytes_each=8192)
        async with admitted(Grpc(channel), who, project_id):
            pass
        async with asyncio.timeout(TIMEOUT):
            # The events exceed the connection's window, so that the service waits for the reader.
            while True:
                call = watch_call(channel, who, project_id=project_id, cursor=cursor)
                with suppress(grpc.aio.AioRpcError):
                    await call.read()
                    break
        call.cancel()
        async with admitted(Grpc(channel), who, project_id):
            pass


async def test_watches_do_not_count_as_requests_in_flight(
    directory: Path, database_url: str, issuer: Issuer, world: World
) -> None:
    project_id, who = await new_project(world)
    address = f"127.0.0.1:{free_port()}"
    with run_service(directory, database_url, issuer, max_concurrent_calls=1, metrics_listen=address) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            rpc = Grpc(channel)
            async with Watch(rpc, who, project_id) as one, Watch(rpc, who, project_id) as other:
                for watch in (one, other):
                    await watch.message()
                ticket = await created(rpc, who, project_id)
                for watch in (one, other):
                    assert emitted([await watch.event()]) == [(ticket["id"], 1)]
                async with httpx2.AsyncClient() as client:
                    text = (await client.get(f"http://{address}/metrics")).text
    gauges = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    assert gauges["tickets_requests_in_flight"] == 0
