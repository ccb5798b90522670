"""Clients as the documents describe them: they repeat what failed under its key, and resume a watch where it ended."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

import grpc
import httpx2
from tickets.handoff.v1 import ticket_service_pb2 as handoff_pb2
from tickets.helpdesk.v1 import ticket_service_pb2 as helpdesk_pb2
from tickets.itsm.v1 import ticket_service_pb2 as itsm_pb2

from support.emulators.http import Request, Response, Server
from support.history.records import (
    ACKNOWLEDGED,
    BROKEN,
    RETRIED,
    TEXT,
    Answer,
    Attempt,
    History,
    Message,
    Watched,
    Write,
)
from support.system import Credential
from support.transports import Grpc, Reply, Rest, _documented

Transport = Rest | Grpc

# A client waits this long for an answer; the service's own deadline is shorter.
_ANSWER_SECONDS = 5.0
_RETRIED: Mapping[int | grpc.StatusCode, str] = {
    429: "rate_limited",
    503: "unavailable",
    504: "deadline_exceeded",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "rate_limited",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline_exceeded",
    # gRPC's own answer to a call that reaches a server in the moment in which it stops (decision 0039).
    grpc.StatusCode.CANCELLED: "cancelled",
}
_STATUSES = {
    "itsm": ("open", "pending", "resolved", "closed"),
    "helpdesk": ("open", "in_progress", "pending", "closed"),
}
# After these nobody knows whether the write was done.
_UNKNOWN = RETRIED - {"rate_limited"}
# Longer than any fault.
_PATIENCE_SECONDS = 60
# How often a client goes away without its answer, and how often it asks for one again that it has got.
_GIVES_UP, _ASKS_AGAIN = 0.04, 0.1
# How often it asks twice at the same moment.
_IS_IMPATIENT = 0.1
_CREATES, _CHANGES_THE_BUSY_ONE = 0.4, 0.3
# How often a change has no key: it takes no lock (decision 0074).
_HAS_NO_KEY = 0.4
# At most, between two writes.
_THINKS_SECONDS = 0.25


@dataclass
class Board:
    """The tickets of one API that clients know of, and what they need to call it."""

    api: str
    who: Credential
    # The path of its tickets (`project_id`) and of its events.
    path: Mapping[str, str]
    events_url: str
    tickets: list[str] = field(default_factory=list)


class Writer:
    """Creates and changes tickets, one after the other, until told to stop."""

    def __init__(self, name: str, board: Board, transport: Transport, history: History, random: Random) -> None:
        self._name, self._board, self._transport = name, board, transport
        self._history, self._random = history, random
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin no other write."""
        self._stopping.set()

    async def run(self) -> None:
        """Write; ends when the last write is done."""
        number = 0
        while not self._stopping.is_set():
            number += 1
            ticket_id = self._some_ticket()
            has_key = ticket_id is None or self._random.random() >= _HAS_NO_KEY
            write = Write(self._board.api, f"{self._name}-{number}", ticket_id, has_key)
            self._history.writes.append(write)
            if has_key:
                await self._complete(write)
            else:
                await self._attempt(write, self._body(write))
            await asyncio.sleep(self._random.uniform(0, _THINKS_SECONDS))

    def _some_ticket(self) -> str | None:
        tickets = self._board.tickets
        if not tickets or self._random.random() < _CREATES:
            return None
        # All writers change the first one, so that they meet.
        return tickets[0] if self._random.random() < _CHANGES_THE_BUSY_ONE else self._random.choice(tickets[-20:])

    async def _complete(self, write: Write) -> None:
        """Attempt a write until it is acknowledged, or given up."""
        body, may_give_up = self._body(write), self._random.random() < _GIVES_UP
        wanted = 2 if self._random.random() < _ASKS_AGAIN else 1
        at_once = 2 if self._random.random() < _IS_IMPATIENT else 1
        while len(write.answers) < wanted:
            pauses = await asyncio.gather(*(self._attempt(write, body) for _ in range(at_once)))
            last = write.attempts[-1]
            if last.outcome in RETRIED and time.monotonic() > write.begun + _PATIENCE_SECONDS:
                last.outcome = f"still {last.outcome} after {_PATIENCE_SECONDS} seconds"
            outcomes = {attempt.outcome for attempt in write.attempts[-at_once:]}
            if outcomes - RETRIED - {ACKNOWLEDGED} or (may_give_up and outcomes <= _UNKNOWN):
                return
            await asyncio.sleep(max(pauses))
            at_once = 1
        if write.ticket_id is None:
            self._board.tickets.append(write.answers[0].ticket_id)

    def _body(self, write: Write) -> Mapping[str, Any]:
        body: dict[str, Any] = {TEXT[write.api]: write.name}
        if write.ticket_id is None:
            body["description"] = write.name
            return body | ({"request_type": "bug", "roles": ["backend"]} if write.api == "handoff" else {})
        if write.api in _STATUSES:
            return body | {"status": self._random.choice(_STATUSES[write.api])}
        return body | {"priority": self._random.choice(("low", "medium", "high"))}

    async def _attempt(self, write: Write, body: Mapping[str, Any]) -> float:
        """One attempt; returns how long to wait before another."""
        attempt = write.begin(time.monotonic())
        reply = None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reply = await self._call(write, attempt, body)
            attempt.outcome = _outcome(reply)
            if attempt.outcome == ACKNOWLEDGED:
                attempt.answer = _answer(write.api, reply)
        except (TimeoutError, httpx2.TransportError):
            attempt.outcome = BROKEN
        except AssertionError as error:
            attempt.outcome = f"not as documented: {error}"
        attempt.ended = time.monotonic()
        return 0 if attempt.answer is not None else _pause(reply) or self._random.uniform(0.05, 0.3)

    async def _call(self, write: Write, attempt: Attempt, body: Mapping[str, Any]) -> Reply:
        path = dict(self._board.path)
        if write.ticket_id is not None:
            path["id" if write.api == "helpdesk" else "ticket_id"] = write.ticket_id
        headers = {"x-request-id": attempt.request_id} | ({"idempotency-key": write.name} if write.has_key else {})
        return await self._transport.call(write.operation, self._board.who, path=path, body=body, headers=headers)


def _outcome(reply: Reply) -> str:
    if reply.status in (200, 201, grpc.StatusCode.OK):
        return ACKNOWLEDGED
    return _RETRIED.get(reply.status, f"{reply.status}: {reply.body}")


def _answer(api: str, reply: Reply) -> Answer:
    ticket = reply.body["ticket"] if api == "handoff" else reply.body
    number = int(str(ticket["number"]).removeprefix("TKT-")) if "number" in ticket else None
    etag = reply.headers.get("etag")
    return Answer(ticket["id"], ticket[TEXT[api]], number, None if etag is None else int(etag.strip('W/"')))


def _pause(reply: Reply | None) -> float | None:
    """What the service asks for, if it does."""
    if reply is None:
        return None
    asked = reply.headers.get("retry-after") if reply.transport == "rest" else reply.body.get("retry_after")
    return None if asked is None else float(asked)


_MESSAGES: Mapping[str, Any] = {"itsm": itsm_pb2, "helpdesk": helpdesk_pb2, "handoff": handoff_pb2}


class Watcher:
    """Watches one API's tickets.

    Whenever a watch ends, and it often leaves one itself, it resumes from its last cursor.
    """

    def __init__(self, board: Board, transport: Transport, random: Random) -> None:
        self._board, self._transport, self._random = board, transport, random
        self.watched = Watched(f"{board.api}-{transport.name}", board.api)
        self._cursor: str | None = None
        self.has_begun = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self.watched.ends[await self._watch()] += 1
            await asyncio.sleep(self._random.uniform(0.02, 0.2))

    async def _watch(self) -> str:
        """Watch for a while; returns why it ended."""
        try:
            async with asyncio.timeout(self._random.uniform(0.3, 4)), aclosing(self._messages()) as messages:
                async for message in messages:
                    self._receive(message)
        except TimeoutError:
            return "left"
        except httpx2.TransportError:
            return BROKEN
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "ended"

    def _receive(self, message: Mapping[str, Any]) -> None:
        if "cursor" not in message:
            return  # the failure that ends it
        event, self._cursor = message["event"], message["cursor"]
        self.has_begun.set()
        if event is not None:
            self.watched.events.append((event["ticket_id"], event["version"]))

    def _messages(self) -> AsyncGenerator[Mapping[str, Any], None]:
        query = {} if self._cursor is None else {"cursor": self._cursor}
        return self._lines(self._transport, query) if isinstance(self._transport, Rest) else self._typed(query)

    async def _lines(self, transport: Rest, query: Mapping[str, str]) -> AsyncGenerator[Mapping[str, Any], None]:
        url, headers = self._board.events_url, dict(self._board.who)
        async with transport.client.stream("GET", url, params=query, headers=headers) as response:
            async for line in response.aiter_lines():
                yield json.loads(line)

    async def _typed(self, query: Mapping[str, str]) -> AsyncGenerator[Mapping[str, Any], None]:
        assert isinstance(self._transport, Grpc)
        messages = _MESSAGES[self._board.api]
        stream = self._transport.channel.unary_stream(
            f"/tickets.{self._board.api}.v1.TicketService/WatchTickets",
            request_serializer=messages.WatchTicketsRequest.SerializeToString,
            response_deserializer=messages.WatchTicketsResponse.FromString,
        )
        request = messages.WatchTicketsRequest(**query, **self._board.path)
        call: Any = stream(request, metadata=tuple(self._board.who.items()))
        try:
            async for message in call:
                yield _documented(message)
        finally:
            call.cancel()


class Receiver(Server):
    """Receives the messages of webhooks, and refuses some, each once."""

    def __init__(self, history: History, refused: Mapping[str, float], random: Random) -> None:
        """`refused` is the share of each path's messages that it answers with 500 when they come first."""
        super().__init__(self._receive)
        self._history, self._refused, self._random = history, refused, random
        self._known = set[tuple[str, str]]()

    def _receive(self, request: Request) -> Response:
        message = request.path, request.headers["webhook-id"]
        accepted = message in self._known or self._random.random() >= self._refused[request.path]
        self._known.add(message)
        ticket = request.body["data"]
        updated_at = datetime.fromisoformat(ticket["updated_at"])
        self._history.messages.append(Message(request.path, ticket["id"], ticket["subject"], updated_at, accepted))
        return Response(200 if accepted else 500)


def accepted(history: History, webhook: str) -> Sequence[Message]:
    """The messages that a webhook has accepted."""
    return [message for message in history.messages if message.webhook == webhook and message.accepted]
