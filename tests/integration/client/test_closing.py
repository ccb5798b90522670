"""tickets.client, both clients: what calls raise when their client, or its channel, is closed."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

import grpc
import pytest
from support.clients import TIMEOUT_SECONDS, Client, P
from support.scripted_server import CALLS, Server, make
from tickets.client import AsyncTicketsClient, TicketsClient, TicketsError
from tickets.handoff.v1 import ticket_service_pb2 as handoff_pb2

from service.local.processes import wait_for


async def close(closes: Any) -> None:
    """Close a client or a channel of either kind."""
    closing = closes.close()
    if isawaitable(closing):
        await closing


async def get(client: Client, server: Server) -> Awaitable[Any]:
    """A call that the server never answers, and has."""
    server.scripts += [[None]]
    call = asyncio.create_task(client.call("itsm.get", P))
    await asyncio.to_thread(wait_for, lambda: bool(server.seen), what="the call", timeout=TIMEOUT_SECONDS)
    return call


async def watch(client: Client, server: Server) -> Awaitable[Any]:
    """A watch that has begun, and waits for its second response."""
    server.scripts += [[handoff_pb2.WatchTicketsResponse(cursor="a"), None]]
    responses = client.client.handoff.tickets.watch(P)
    await client.next(responses)
    waiting = asyncio.create_task(client.next(responses))
    await asyncio.sleep(0)  # until it waits
    return waiting


async def raises(call: Awaitable[Any]) -> None:
    with pytest.raises(TicketsError, match=r"^cancelled: The client or its channel is closed$") as failure:
        await call
    assert (failure.value.status, failure.value.reason) == (grpc.StatusCode.CANCELLED, "cancelled")


@pytest.mark.parametrize("begin", [get, watch])
async def test_calls_in_flight_raise(
    client: Client, server: Server, begin: Callable[[Client, Server], Awaitable[Awaitable[Any]]]
) -> None:
    call = await begin(client, server)
    await close(client.client)
    await raises(call)
    assert len(server.seen) == 1


@pytest.mark.parametrize("is_used", [True, False])
async def test_no_call_is_made_by_a_closed_client(client: Client, server: Server, is_used: bool) -> None:
    if is_used:
        server.scripts += [[CALLS["itsm.get"][2]]]
        await make(client, "itsm.get")
    for _ in range(2):
        await close(client.client)
    for name, (args, members, _, safe) in CALLS.items():
        if safe == "watch":
            await raises(client.next(client.method(name)(*args, **members)))
        else:
            await raises(make(client, name))
    assert len(server.seen) == is_used


async def test_calls_in_flight_raise_when_their_channel_is_closed(server: Server) -> None:
    blocking, asynchronous = grpc.insecure_channel(server.target), grpc.aio.insecure_channel(server.target)
    for channel, client in (
        (blocking, Client(TicketsClient(blocking))),
        (asynchronous, Client(AsyncTicketsClient(asynchronous))),
    ):
        call = await get(client, server)
        await close(channel)
        with pytest.raises(TicketsError, match=r"^cancelled: "):
            await call
        await raises(client.call("itsm.get", P))
        server.seen.clear()


async def test_a_client_over_a_channel_of_the_callers_can_be_closed_too(server: Server) -> None:
    with grpc.insecure_channel(server.target) as channel:
        client = Client(TicketsClient(channel))
        await close(client.client)
        await raises(client.call("itsm.get", P))


@pytest.mark.parametrize("begin", [get, watch])
async def test_the_cancellation_of_a_task_stays_one(
    server: Server, begin: Callable[[Client, Server], Awaitable[asyncio.Task[Any]]]
) -> None:
    async with AsyncTicketsClient(server.target) as client:
        call = await begin(Client(client), server)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()
        # And one that has come before the client is closed.
        server.seen.clear()
        call = await begin(Client(client), server)
        call.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await call
