"""Watches of helpdesk tickets at both doors."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from desk import Door
from harness import Grpc, Reply, Rest, _documented, _grpc_failure, rest_reply
from system import Credential
from tickets.helpdesk.v1 import service_pb2

PATIENCE = 10.0

Message = dict[str, Any]


@asynccontextmanager
async def watching(
    door: Door, who: Credential, cursor: str | None = None
) -> AsyncIterator[AsyncIterator[Message | Reply]]:
    """What somebody who watches is told, as it comes; or a reply that refuses it."""
    query = {} if cursor is None else {"cursor": cursor}
    told = _lines(door, who, query) if isinstance(door, Rest) else _messages(door, who, query)
    async with aclosing(told) as stream, asyncio.timeout(PATIENCE):
        yield stream


async def _lines(door: Rest, who: Credential, query: dict[str, str]) -> AsyncGenerator[Message | Reply, None]:
    url = "/api/v1/helpdesk/events"
    async with door.client.stream("GET", url, params=query, headers=dict(who)) as response:
        if response.status_code != 200:
            await response.aread()
            yield rest_reply("helpdesk", response)
            return
        assert response.headers["content-type"] == "application/x-ndjson"
        async for line in response.aiter_lines():
            message = json.loads(line)
            assert set(message) == {"event", "cursor"}
            yield message


async def _messages(door: Grpc, who: Credential, query: dict[str, str]) -> AsyncGenerator[Message | Reply, None]:
    stream = door.channel.unary_stream(
        "/tickets.helpdesk.v1.TicketService/WatchTickets",
        request_serializer=service_pb2.WatchTicketsRequest.SerializeToString,
        response_deserializer=service_pb2.WatchTicketsResponse.FromString,
    )
    call: Any = stream(service_pb2.WatchTicketsRequest(**query), metadata=tuple(who.items()))
    try:
        async for message in call:
            yield _documented(message)
    except grpc.aio.AioRpcError as error:
        yield _grpc_failure("helpdesk", error)
    finally:
        call.cancel()


async def next_of(stream: AsyncIterator[Message | Reply]) -> Message:
    message = await anext(stream)
    assert isinstance(message, dict), f"{message.status}: {message.body}"
    return message


async def next_event(stream: AsyncIterator[Message | Reply]) -> Any:
    while (message := await next_of(stream))["event"] is None:
        pass
    return message["event"]


async def begun(door: Door, who: Credential) -> str:
    """The cursor of a watch that begins now."""
    async with watching(door, who) as stream:
        first = await next_of(stream)
    assert first["event"] is None
    return str(first["cursor"])


async def refused(door: Door, who: Credential, reason: str, cursor: str | None = None) -> None:
    async with watching(door, who, cursor) as stream:
        reply = await anext(stream)
    assert isinstance(reply, Reply)
    reply.failed(reason, paths=["cursor"] if reason == "validation_error" else None)


async def told(door: Door, who: Credential, cursor: str, last: Any) -> list[Any]:
    """The events behind a cursor, up to the creation of the ticket `last`, which ends it."""
    found = list[Any]()
    async with watching(door, who, cursor) as stream:
        while (event := await next_event(stream))["ticket_id"] != last["id"]:
            found.append(event)
    return found
