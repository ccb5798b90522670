"""Watches of handoff tickets, writers that bypass the service, and services to watch."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import grpc
import httpx2
import psycopg
from grpc import StatusCode
from tickets.handoff.v1 import ticket_service_pb2

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port, wait_for
from service.outbound import trusted_authorities
from service.server import Running, start
from service.settings import Settings
from support.handoff import Transport
from support.system import AUDIENCE, ISSUER, Credential, Issuer, World
from support.transports import Grpc, Reply, Rest, _documented, _grpc_failure, rest_reply

# Seconds that a test waits for a message.
TIMEOUT = 10.0
# The most rows of one read of a watch (service.watch._ROWS).
BATCH = 200

# An event written directly; the second with a transaction id of its own choice.
INSERT = "INSERT INTO handoff_events (project_id, ticket_id, version, type, changes, actor, request_id)"
INSERT_WITH_ID = INSERT.replace(")", ", transaction_id)")

Message = dict[str, Any]
# An event's ticket and version.
EventKey = tuple[str, int]


class Watch:
    """A watch of a project, which reads messages as they come until the block ends."""

    def __init__(self, transport: Transport, who: Credential, project_id: str, cursor: str | None = None) -> None:
        self._transport, self._who, self._project_id = transport, who, project_id
        self._query = {} if cursor is None else {"cursor": cursor}
        self._received = asyncio.Queue[Message | Reply | Exception]()

    async def __aenter__(self) -> Self:
        read = self._read_lines if isinstance(self._transport, Rest) else self._read_messages
        self._reader = asyncio.create_task(self._read(read(self._transport)))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, at: TracebackType | None) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def message(self) -> Message:
        """The next message."""
        received = await self._next()
        assert isinstance(received, dict), f"{received.status}: {received.body}"
        return received

    async def event(self) -> Message:
        """The next message that has an event."""
        while (message := await self.message())["event"] is None:
            pass
        return message

    async def until_quiet(self) -> list[Message]:
        """Every message up to the next one without an event."""
        messages = [await self.message()]
        while messages[-1]["event"] is not None:
            messages.append(await self.message())
        return messages

    async def refused(self, reason: str, **details: Any) -> Reply:
        """Check that the watch is refused for this reason before its first message."""
        received = await self._next()
        assert isinstance(received, Reply), received
        received.failed(reason, **details)
        return received

    async def ended(self, reason: str) -> tuple[list[Message], Reply]:
        """Check that the watch ends for this reason after it began; returns the messages before the end too."""
        received, messages = await self._next(), list[Message]()
        while isinstance(received, dict):
            messages.append(received)
            received = await self._next()
        if received.transport == "grpc":
            received.failed(reason)
        else:
            assert (received.status, received.body["code"]) == (200, reason)
            assert received.body["error"]
        return messages, received

    async def first(self) -> Message | Reply:
        """The first message, or the reply of a watch that was refused."""
        return await self._next()

    async def _next(self) -> Message | Reply:
        async with asyncio.timeout(TIMEOUT):
            received = await self._received.get()
        if isinstance(received, Exception):
            raise received
        return received

    async def _read(self, messages: AsyncIterator[Message | Reply]) -> None:
        try:
            async for message in messages:
                self._received.put_nowait(message)
        except Exception as error:
            self._received.put_nowait(error)

    async def _read_messages(self, transport: Any) -> AsyncIterator[Message | Reply]:
        call = watch_call(transport.channel, self._who, project_id=self._project_id, **self._query)
        try:
            async for message in call:
                yield _documented(message)
            yield Reply("grpc", "handoff", StatusCode.OK, None, {})
        except grpc.aio.AioRpcError as error:
            yield _grpc_failure("handoff", error)
        finally:
            call.cancel()

    async def _read_lines(self, transport: Any) -> AsyncIterator[Message | Reply]:
        path, headers = f"/api/projects/{self._project_id}/events", dict(self._who)
        async with transport.client.stream("GET", path, params=self._query, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                yield rest_reply("handoff", response)
                return
            assert response.headers["content-type"] == "application/x-ndjson"
            last: Any = None
            async for line in response.aiter_lines():
                assert last is None, "the last line is the failure"
                message = json.loads(line)
                if "error" in message:
                    last = message
                else:
                    assert set(message) - {"behind_seconds"} == {"event", "cursor"}
                    yield message
            yield Reply("rest", "handoff", 200, last, response.headers)


def watch_call(channel: grpc.aio.Channel, who: Credential, **request: Any) -> Any:
    """The stream of the typed service."""
    stream = channel.unary_stream(
        "/tickets.handoff.v1.TicketService/WatchTickets",
        request_serializer=ticket_service_pb2.WatchTicketsRequest.SerializeToString,
        response_deserializer=ticket_service_pb2.WatchTicketsResponse.FromString,
    )
    return stream(ticket_service_pb2.WatchTicketsRequest(**request), metadata=tuple(who.items()))


class Writer:
    """Writes directly to the database, in a transaction that stays open until `commit`."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def run(self, sql: str, *parameters: Any) -> Any:
        """The first column of the first row, or None."""
        cursor = await self._connection.execute(sql, parameters)
        row = await cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    async def take_id(self) -> int:
        """The transaction's id, assigned now if it had none."""
        number: int = await self.run("SELECT pg_current_xact_id()::text::bigint")
        return number

    async def create(self, project_id: str) -> EventKey:
        """Write the event of a new ticket."""
        ticket_id = str(uuid4())
        await self.run(f"{INSERT} VALUES (%s, %s, 1, 'ticket.created', '{{}}', 'me', 'r')", project_id, ticket_id)
        return ticket_id, 1

    async def change(self, ticket_id: str) -> EventKey:
        """Write the next version of a ticket, and its event."""
        version = await self.run(
            f"""WITH ticket AS (
              UPDATE handoff_tickets
              SET version = version + 1, transaction_id = greatest(transaction_id, pg_current_xact_id())
              WHERE id = %s RETURNING *
            ), event AS (
              {INSERT_WITH_ID}
              SELECT project_id, id, version, 'ticket.updated', '{{}}', 'me', 'r', transaction_id FROM ticket
            )
            SELECT version FROM ticket""",
            ticket_id,
        )
        return ticket_id, version

    async def commit(self) -> None:
        await self._connection.commit()


@asynccontextmanager
async def writer(world: World) -> AsyncIterator[Writer]:
    async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
        yield Writer(connection)


async def waits_for_a_lock(world: World, table: str) -> None:
    """Return when a statement waits for a lock of a table."""
    sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    await until(lambda: world.rows(sql, table)[0][0] == 1, what="a statement to wait")


async def waits_for_a_transaction(world: World) -> None:
    """Return when a statement waits for another transaction to end: that has a row which it locks."""
    sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    await until(lambda: world.rows(sql)[0][0] == 1, what="a statement to wait")


async def until(check: Any, *, what: str) -> None:
    await asyncio.to_thread(wait_for, check, what=what, timeout=TIMEOUT)


def write_events(world: World, project_id: str, number: int, *, bytes_each: int = 0) -> list[EventKey]:
    """Write so many events of a new ticket in one transaction."""
    ticket_id, changes = str(uuid4()), json.dumps({"x": "x" * bytes_each})
    world.run(
        f"{INSERT} SELECT %s, %s, n, 'ticket.updated', %s, 'me', 'r' FROM generate_series(1, %s) n ORDER BY n",
        *(project_id, ticket_id, changes, number),
    )
    return [(ticket_id, version + 1) for version in range(number)]


def written(world: World, project_id: str) -> list[EventKey]:
    """Every event of a project."""
    sql = "SELECT ticket_id::text, version FROM handoff_events WHERE project_id = %s ORDER BY ticket_id, version"
    return world.rows(sql, project_id)


def emitted(messages: Iterable[Message]) -> list[EventKey]:
    """The events of these messages, in order."""
    events = (message["event"] for message in messages)
    return [(event["ticket_id"], event["version"]) for event in events if event is not None]


def by_ticket(events: Iterable[EventKey]) -> dict[str, list[int]]:
    """The versions of each ticket, in the order of the events."""
    versions = defaultdict[str, list[int]](list)
    for ticket_id, version in events:
        versions[ticket_id].append(version)
    return versions


@asynccontextmanager
async def admitted(transport: Transport, who: Credential, project_id: str) -> AsyncIterator[Watch]:
    """A watch that is retried until the service has room for it."""
    async with asyncio.timeout(2 * TIMEOUT):
        while True:
            async with Watch(transport, who, project_id) as watch:
                received = await watch.first()
                if isinstance(received, dict):
                    yield watch
                    return
                received.failed("unavailable")


# Services


@asynccontextmanager
async def transports_of(target: str, directory: Path) -> AsyncIterator[Sequence[Transport]]:
    """Both transports of a service: an Envoy in front of it, and the service itself."""
    envoy = Envoy(envoy_config(port=free_port(), endpoints=[target]), log_file=directory / f"envoy-{uuid4()}.log")
    async with (
        grpc.aio.insecure_channel(target) as channel,
        httpx2.AsyncClient(timeout=30, verify=trusted_authorities()) as client,
    ):
        envoy.start()
        try:
            await asyncio.to_thread(envoy.wait_until_ready, upstream=True)
            client.base_url = httpx2.URL(envoy.url)
            yield Rest(client), Grpc(channel)
        finally:
            envoy.stop()


@asynccontextmanager
async def service_in_process(
    directory: Path, database_url: str, issuer: Issuer, **more: Any
) -> AsyncIterator[tuple[str, Running]]:
    """A service in this process that gives tokens no leeway: its address, and what it is made of."""
    target = f"127.0.0.1:{free_port()}"
    settings = Settings(
        database_url=database_url,
        grpc_listen=target,
        jwks=str(issuer.jwks),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_leeway_seconds=0,
        max_queue_seconds=10,
        rate_limit_file=str(directory / f"rate-limits-{uuid4()}"),
        log_level="error",
        **more,
    )
    async with AsyncExitStack() as stack:
        running = await start(settings, stack)
        yield target, running
        for feed in running.feeds:
            feed.close()
        await running.server.stop(5)
