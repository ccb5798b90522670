"""Watches of helpdesk and ITSM tickets at both transports."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from tickets.helpdesk.v1 import ticket_service_pb2 as helpdesk_pb2
from tickets.itsm.v1 import ticket_service_pb2 as itsm_pb2

from support.system import Credential
from support.transports import Grpc, Reply, Rest, _documented, _grpc_failure, rest_reply

TIMEOUT_SECONDS = 10.0

Transport = Rest | Grpc
Message = dict[str, Any]
WatchMessages = AsyncIterator[Message | Reply]


@dataclass(frozen=True)
class Watches:
    """The watches of one API."""

    api: str
    url: str
    messages: Any

    @asynccontextmanager
    async def watching(
        self, transport: Transport, who: Credential, cursor: str | None = None
    ) -> AsyncIterator[WatchMessages]:
        """The messages of a watch as they come, or the reply that refuses or ends it."""
        query = {} if cursor is None else {"cursor": cursor}
        messages = (
            self._lines(transport, who, query) if isinstance(transport, Rest) else self._messages(transport, who, query)
        )
        async with aclosing(messages) as stream, asyncio.timeout(TIMEOUT_SECONDS):
            yield stream

    async def _lines(
        self, transport: Rest, who: Credential, query: dict[str, str]
    ) -> AsyncGenerator[Message | Reply, None]:
        async with transport.client.stream("GET", self.url, params=query, headers=dict(who)) as response:
            if response.status_code != 200:
                await response.aread()
                yield rest_reply(self.api, response)
                return
            assert response.headers["content-type"] == "application/x-ndjson"
            async for line in response.aiter_lines():
                message = json.loads(line)
                if "event" in message:
                    assert set(message) - {"behind_seconds"} == {"event", "cursor"}
                    yield message
                else:
                    yield Reply("rest", self.api, 200, message, response.headers)

    async def _messages(
        self, transport: Grpc, who: Credential, query: dict[str, str]
    ) -> AsyncGenerator[Message | Reply, None]:
        stream = transport.channel.unary_stream(
            f"/tickets.{self.api}.v1.TicketService/WatchTickets",
            request_serializer=self.messages.WatchTicketsRequest.SerializeToString,
            response_deserializer=self.messages.WatchTicketsResponse.FromString,
        )
        call: Any = stream(self.messages.WatchTicketsRequest(**query), metadata=tuple(who.items()))
        try:
            async for message in call:
                yield _documented(message)
        except grpc.aio.AioRpcError as error:
            yield _grpc_failure(self.api, error)
        finally:
            call.cancel()

    async def start_cursor(self, transport: Transport, who: Credential) -> str:
        """The cursor of a watch that begins now."""
        async with self.watching(transport, who) as stream:
            first = await next_of(stream)
        assert first["event"] is None
        return str(first["cursor"])

    async def refused(self, transport: Transport, who: Credential, reason: str, cursor: str | None = None) -> None:
        """Check that a watch is refused for a reason."""
        async with self.watching(transport, who, cursor) as stream:
            reply = await anext(stream)
        assert isinstance(reply, Reply)
        reply.failed(reason, paths=["cursor"] if reason == "validation_error" else None)

    async def emitted(self, transport: Transport, who: Credential, cursor: str, last: Any) -> list[Any]:
        """The events behind a cursor, up to the creation of the ticket `last`, which ends it."""
        found = list[Any]()
        async with self.watching(transport, who, cursor) as stream:
            while (event := await next_event(stream))["ticket_id"] != last["id"]:
                found.append(event)
        return found


HELPDESK = Watches("helpdesk", "/api/v1/helpdesk/events", helpdesk_pb2)
ITSM = Watches("itsm", "/api/v1/events", itsm_pb2)


async def next_of(stream: WatchMessages) -> Message:
    message = await anext(stream)
    assert isinstance(message, dict), f"{message.status}: {message.body}"
    return message


async def next_event(stream: WatchMessages) -> Any:
    while (message := await next_of(stream))["event"] is None:
        pass
    return message["event"]
