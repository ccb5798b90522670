"""WatchTickets at both doors: every event once and in order, whatever else is being written; and how a watch ends."""

import asyncio
import json
import random
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import grpc
import httpx
import psycopg
import pytest
import structlog
from board import Door, change, changed, create, created, history, member_of, place
from grpc import StatusCode
from harness import Grpc, Reply, Rest, _documented, _grpc_failure, rest_reply
from prometheus_client.parser import text_string_to_metric_families
from system import AUDIENCE, ISSUER, Credential, Issuer, World, run_service
from tickets.handoff.v1 import service_pb2

from service import migrations
from service.admin import operations as admin
from service.local import EmbeddedPostgres, Envoy, envoy_config
from service.processes import free_port, wait_for
from service.server import start
from service.settings import Settings
from service.watch import News

PATIENCE = 10.0
# What one read of a watcher takes at most (service.watch._ROWS).
BATCH = 200

# An event by hand; the second with a transaction id that is not simply the transaction's own.
INSERT = "INSERT INTO handoff_events (project_id, ticket_id, version, type, changes, actor, request_id)"
INSERT_WITH_ID = INSERT.replace(")", ", transaction_id)")

Message = dict[str, Any]
# A ticket's id and a version of it.
Told = tuple[str, int]


class Watch:
    """Somebody who watches a project: reads what is told as it comes, until the block ends."""

    def __init__(self, door: Door, who: Credential, project_id: str, cursor: str | None = None) -> None:
        self._door, self._who, self._project_id = door, who, project_id
        self._query = {} if cursor is None else {"cursor": cursor}
        self._came = asyncio.Queue[Message | Reply | Exception]()

    async def __aenter__(self) -> Self:
        read = self._read_lines if isinstance(self._door, Rest) else self._read_messages
        self._reader = asyncio.create_task(self._read(read(self._door)))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, at: TracebackType | None) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def message(self) -> Message:
        """The next message."""
        came = await self._next()
        assert isinstance(came, dict), f"{came.status}: {came.body}"
        return came

    async def event(self) -> Message:
        """The next message that has an event."""
        while (message := await self.message())["event"] is None:
            pass
        return message

    async def until_quiet(self) -> list[Message]:
        """Every message up to the next one without an event: what there was to tell."""
        messages = [await self.message()]
        while messages[-1]["event"] is not None:
            messages.append(await self.message())
        return messages

    async def refused(self, reason: str, **details: Any) -> Reply:
        """Check that it was refused at once for this reason."""
        came = await self._next()
        assert isinstance(came, Reply), came
        came.failed(reason, **details)
        return came

    async def broken_off(self, reason: str) -> tuple[list[Message], Reply]:
        """Check that it ends for this reason after it had begun; returns what came before that too."""
        came, messages = await self._next(), list[Message]()
        while isinstance(came, dict):
            messages.append(came)
            came = await self._next()
        if came.door == "grpc":
            came.failed(reason)
        else:
            assert (came.status, came.body["code"]) == (200, reason)
            assert came.body["error"]
        return messages, came

    async def first(self) -> Message | Reply:
        """The first message, or that it was refused."""
        return await self._next()

    async def _next(self) -> Message | Reply:
        async with asyncio.timeout(PATIENCE):
            came = await self._came.get()
        if isinstance(came, Exception):
            raise came
        return came

    async def _read(self, messages: AsyncIterator[Message | Reply]) -> None:
        try:
            async for message in messages:
                self._came.put_nowait(message)
        except Exception as error:
            self._came.put_nowait(error)

    async def _read_messages(self, door: Any) -> AsyncIterator[Message | Reply]:
        call = watch_call(door.channel, self._who, project_id=self._project_id, **self._query)
        try:
            async for message in call:
                yield _documented(message)
            yield Reply("grpc", "handoff", StatusCode.OK, None, {})
        except grpc.aio.AioRpcError as error:
            yield _grpc_failure("handoff", error)
        finally:
            call.cancel()

    async def _read_lines(self, door: Any) -> AsyncIterator[Message | Reply]:
        path, headers = f"/api/projects/{self._project_id}/events", dict(self._who)
        async with door.client.stream("GET", path, params=self._query, headers=headers) as response:
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
                    assert set(message) == {"event", "cursor"}
                    yield message
            yield Reply("rest", "handoff", 200, last, response.headers)


def watch_call(channel: grpc.aio.Channel, who: Credential, **request: Any) -> Any:
    """The typed stream itself."""
    stream = channel.unary_stream(
        "/tickets.handoff.v1.TicketService/WatchTickets",
        request_serializer=service_pb2.WatchTicketsRequest.SerializeToString,
        response_deserializer=service_pb2.WatchTicketsResponse.FromString,
    )
    return stream(service_pb2.WatchTicketsRequest(**request), metadata=tuple(who.items()))


class Writer:
    """Somebody who writes past the service, in a transaction that stays open as long as they like."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def run(self, sql: str, *parameters: Any) -> Any:
        """The first column of the first row, or None."""
        cursor = await self._connection.execute(sql, parameters)
        row = await cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    async def take_id(self) -> int:
        """The transaction's id, taken now if it had none."""
        number: int = await self.run("SELECT pg_current_xact_id()::text::bigint")
        return number

    async def create(self, project_id: str) -> Told:
        """The event of a new ticket."""
        ticket_id = str(uuid4())
        await self.run(f"{INSERT} VALUES (%s, %s, 1, 'ticket.created', '{{}}', 'me', 'r')", project_id, ticket_id)
        return ticket_id, 1

    async def change(self, ticket_id: str) -> Told:
        """The next version of a ticket, and its event."""
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
    """Return when a statement waits for its turn with a table."""
    sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    await until(lambda: world.rows(sql, table)[0][0] == 1, what="a statement to wait")


async def until(check: Any, *, what: str) -> None:
    await asyncio.to_thread(wait_for, check, what=what, timeout=PATIENCE)


def write_events(world: World, project_id: str, number: int, *, bytes_each: int = 0) -> list[Told]:
    """So many events of a new ticket, in one transaction."""
    ticket_id, changes = str(uuid4()), json.dumps({"x": "x" * bytes_each})
    world.run(
        f"{INSERT} SELECT %s, %s, n, 'ticket.updated', %s, 'me', 'r' FROM generate_series(1, %s) n ORDER BY n",
        *(project_id, ticket_id, changes, number),
    )
    return [(ticket_id, version + 1) for version in range(number)]


def written(world: World, project_id: str) -> list[Told]:
    """Every event that there is."""
    sql = "SELECT ticket_id::text, version FROM handoff_events WHERE project_id = %s ORDER BY ticket_id, version"
    return world.rows(sql, project_id)


def told(messages: Iterable[Message]) -> list[Told]:
    events = (message["event"] for message in messages)
    return [(event["ticket_id"], event["version"]) for event in events if event is not None]


def by_ticket(events: Iterable[Told]) -> dict[str, list[int]]:
    """The versions of each ticket, in the order in which they were told."""
    versions = defaultdict[str, list[int]](list)
    for ticket_id, version in events:
        versions[ticket_id].append(version)
    return versions


@asynccontextmanager
async def doors_of(target: str, directory: Path) -> AsyncIterator[Sequence[Door]]:
    """Both doors of a service: an Envoy in front of it, and itself."""
    envoy = Envoy(envoy_config(port=free_port(), endpoints=[target]), log_file=directory / f"envoy-{uuid4()}.log")
    async with grpc.aio.insecure_channel(target) as channel, httpx.AsyncClient(timeout=30) as client:
        envoy.start()
        try:
            await asyncio.to_thread(envoy.wait_until_ready, upstream=True)
            client.base_url = httpx.URL(envoy.url)
            yield Rest(client), Grpc(channel)
        finally:
            envoy.stop()


@asynccontextmanager
async def service_here(directory: Path, database_url: str, issuer: Issuer) -> AsyncIterator[tuple[str, News]]:
    """A service within this process, which gives tokens no leeway: its address and its watches."""
    target = f"127.0.0.1:{free_port()}"
    settings = Settings(
        database_url=database_url,
        grpc_listen=target,
        jwks=str(issuer.jwks),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_leeway_seconds=0,
        patience_seconds=10,
        rate_limit_file=str(directory / f"rate-limits-{uuid4()}"),
        log_level="error",
    )
    async with AsyncExitStack() as stack:
        server, _, news = await start(settings, stack)
        yield target, news[0]
        for one in news:
            one.close()
        await server.stop(5)


@pytest.fixture
async def lively_doors(
    directory: Path, database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sequence[Door]]:
    """The doors of a service within this process that gives a sign of life twice a second."""
    monkeypatch.setattr("service.watch._SIGN_SECONDS", 0.5)
    # A test before may have left its logger a file that is closed by now.
    structlog.reset_defaults()
    monkeypatch.setattr("service.interceptors._log", structlog.get_logger())
    async with service_here(directory, database_url, issuer) as (target, _), doors_of(target, directory) as doors:
        yield doors


# What is told


async def test_the_first_message_comes_at_once_and_then_each_change(door: Door, world: World) -> None:
    project_id, who = await place(world, "owner")
    await created(door, who, project_id)
    async with Watch(door, who, project_id) as watch:
        first = await watch.message()
        assert first["event"] is None
        assert first["cursor"]
        ticket = await created(door, who, project_id)
        event = (await watch.event())["event"]
        assert (event["type"], event["ticket_id"], event["version"]) == ("ticket.created", ticket["id"], 1)
        assert [event] == await history(door, who, ticket)
        await changed(door, who, ticket, title="New", actor_role="lead", actor_id="Ada")
        await changed(door, who, ticket, role_status={"role": "backend", "status": "skipped"})
        events = [event, (await watch.event())["event"], (await watch.event())["event"]]
    assert [event["type"] for event in events] == ["ticket.created", "ticket.updated", "ticket.closed"]
    assert events == await history(door, who, ticket)


async def test_a_bulk_change_and_a_deployment_are_told_like_any_other(door: Door, world: World) -> None:
    project_id, who = await place(world, "owner")
    one, two = [await created(door, who, project_id) for _ in range(2)]
    async with Watch(door, who, project_id) as watch:
        await watch.message()
        body = {"action": "move", "stage": "up_next", "ticket_ids": [one["id"], two["id"]]}
        (await door.call("handoff.bulk", who, path={"project_id": project_id}, body=body)).succeeded()
        path = {"project_id": project_id, "ticket_id": one["id"]}
        body = {"merge_sha": "9fceb02", "outcome": "merged"}
        (await door.call("handoff.deploy", who, path=path, body=body)).succeeded()
        events = [(await watch.event())["event"] for _ in range(3)]
    for ticket in (one, two):
        assert [event for event in events if event["ticket_id"] == ticket["id"]] == (await history(door, who, ticket))[
            1:
        ]


async def test_only_the_watched_project_is_told(door: Door, world: World) -> None:
    projects = [await world.project() for _ in range(2)]
    who = await member_of(world, *projects)
    async with Watch(door, who, projects[0]) as one, Watch(door, who, projects[1]) as other:
        for watch in (one, other):
            await watch.message()
        for project_id in (*projects, *projects):
            await created(door, who, project_id)
        for watch, project_id in zip((one, other), projects, strict=True):
            messages = [await watch.event() for _ in range(2)]
            assert {message["event"]["project_id"] for message in messages} == {project_id}
            assert sorted(told(messages)) == written(world, project_id)


async def test_everyone_who_watches_is_told_at_every_door(
    rest: Rest, rpc: Grpc, gateway_url: str, world: World
) -> None:
    project_id, who = await place(world)
    async with (
        grpc.aio.insecure_channel(gateway_url.removeprefix("http://")) as through_the_gateway,
        Watch(rest, who, project_id) as first,
        Watch(rpc, who, project_id) as second,
        Watch(Grpc(through_the_gateway), who, project_id) as third,
    ):
        watches = (first, second, third)
        cursors = [(await watch.message())["cursor"] for watch in watches]
        for door in (rest, rpc):
            ticket = await created(door, who, project_id)
            for watch in watches:
                assert told([await watch.event()]) == [(ticket["id"], 1)]
    # A cursor is good at every door.
    for cursor in cursors:
        for door in (rest, rpc):
            async with Watch(door, who, project_id, cursor) as again:
                assert sorted(told(await again.until_quiet())) == written(world, project_id)


async def test_lines_come_as_they_happen(rest: Rest, world: World) -> None:
    project_id, who = await place(world)
    url = f"/api/projects/{project_id}/events"
    async with rest.client.stream("GET", url, headers=dict(who)) as response, asyncio.timeout(PATIENCE):
        assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
        assert len(response.headers.get_list("x-request-id")) == 1
        assert not [name for name in response.headers if name.startswith(("grpc-", "x-http-", "x-retry-"))]
        pieces = response.aiter_raw()
        piece = await anext(pieces)
        for _ in range(3):
            message = json.loads(piece)
            # Each is a whole line, told while the stream is open.
            assert piece == json.dumps(message, separators=(",", ":")).encode() + b"\n"
            await created(rest, who, project_id)
            piece = await anext(pieces)
            assert json.loads(piece)["event"]["type"] == "ticket.created"


# Resumed


async def test_a_resumed_watch_tells_what_stands_behind_its_cursor(door: Door, world: World) -> None:
    project_id, who = await place(world)
    async with Watch(door, who, project_id) as watch:
        messages = [await watch.message()]
        for _ in range(2):
            ticket = await created(door, who, project_id)
            await changed(door, who, ticket, stage="up_next")
        messages += [await watch.event() for _ in range(4)]
    # Nobody watches.
    await changed(door, who, ticket, stage="backlog")
    await created(door, who, project_id)
    async with Watch(door, who, project_id, messages[0]["cursor"]) as watch:
        whole = await watch.until_quiet()
    assert sorted(told(whole)) == written(world, project_id)
    assert whole[:4] == messages[1:]
    for number, message in enumerate(whole):
        async with Watch(door, who, project_id, message["cursor"]) as watch:
            assert told(await watch.until_quiet()) == told(whole[number + 1 :])
    async with Watch(door, who, project_id, whole[2]["cursor"]) as watch:
        assert (await watch.until_quiet())[:-1] == whole[3:-1]
        ticket = await created(door, who, project_id)
        assert told([await watch.event()]) == [(ticket["id"], 1)]


@pytest.mark.parametrize("transactions", [1, 3])
async def test_a_resumed_watch_tells_more_than_it_reads_at_once(door: Door, world: World, transactions: int) -> None:
    project_id, who = await place(world)
    async with Watch(door, who, project_id) as watch:
        start = (await watch.message())["cursor"]
    events = [
        event for _ in range(transactions) for event in write_events(world, project_id, 2 * BATCH // transactions + 7)
    ]
    async with Watch(door, who, project_id, start) as watch:
        messages = await watch.until_quiet()
    assert told(messages) == events
    for number in (0, 1, 6, 7, BATCH - 1, BATCH, BATCH + 1, len(events) - BATCH, len(events) - 1):
        async with Watch(door, who, project_id, messages[number]["cursor"]) as watch:
            assert told(await watch.until_quiet()) == events[number + 1 :]


async def test_a_watcher_is_told_more_than_it_reads_at_once(door: Door, world: World) -> None:
    project_id, who = await place(world)
    async with Watch(door, who, project_id) as watch:
        await watch.message()
        events = [*write_events(world, project_id, 2 * BATCH), *write_events(world, project_id, 1)]
        assert told([await watch.event() for _ in events]) == events


# Nothing lost and nothing out of order


async def test_what_is_committed_late_is_told(door: Door, world: World) -> None:
    project_id, who = await place(world)

    async def resumed(message: Message) -> list[Message]:
        async with Watch(door, who, project_id, message["cursor"]) as watch:
            return await watch.until_quiet()

    async with Watch(door, who, project_id) as watch, writer(world) as early, writer(world) as earlier:
        begin = await watch.message()
        before = await created(door, who, project_id)
        first = await watch.event()
        await earlier.take_id()
        await early.take_id()
        held = [await early.create(project_id)]
        # These have higher transaction ids, and are there first.
        for _ in range(3):
            await created(door, who, project_id)
        await changed(door, who, before, stage="up_next")
        held.append(await earlier.create(project_id))
        async with Watch(door, who, project_id) as begun_meanwhile:
            told_meanwhile = [[first, *await resumed(first)], await resumed(begin)]
            seen = [await begun_meanwhile.message()]
            await early.commit()
            told_meanwhile.append([first, *await resumed(first)])
            await created(door, who, project_id)
            await earlier.commit()
            last = await created(door, who, project_id)
            messages = [first, *[await watch.event() for _ in range(8)]]
            while told(seen)[-1:] != [(last["id"], 1)]:
                seen.append(await begun_meanwhile.event())
    everything = told(messages)
    assert sorted(everything) == written(world, project_id)
    assert by_ticket(everything)[before["id"]] == [1, 2]
    assert len(everything) == 9
    assert told(await resumed(begin)) == everything
    # Whoever began while they were open is told both, and nothing twice.
    assert set(held) <= set(told(seen))
    assert told(seen) == everything[-len(told(seen)) :]
    # No cursor, whenever it was told, steps over anything.
    for so_far in (messages, *told_meanwhile):
        for number, message in enumerate(so_far):
            assert told([*so_far[: number + 1], *await resumed(message)]) == everything


async def test_a_transaction_that_is_undone_is_not_told(door: Door, world: World) -> None:
    project_id, who = await place(world)
    async with Watch(door, who, project_id) as watch:
        await watch.message()
        async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
            await Writer(connection).create(project_id)
            ticket = await created(door, who, project_id)
            await connection.rollback()
        assert told([await watch.event()]) == [(ticket["id"], 1)]
    assert written(world, project_id) == [(ticket["id"], 1)]


async def test_who_began_first_and_wrote_last_is_told_last(door: Door, world: World) -> None:
    """The later version of a ticket comes from the transaction with the lower id."""
    project_id, who = await place(world)
    ticket = await created(door, who, project_id)
    async with Watch(door, who, project_id) as watch, writer(world) as holder, writer(world) as stopper:
        first = (await watch.message())["cursor"]
        # A lock of the table, because a lock of the row would give the holder its transaction id too early.
        await holder.run("LOCK TABLE handoff_tickets IN EXCLUSIVE MODE")
        assert await holder.run("SELECT pg_current_xact_id_if_assigned()::text") is None
        headers = {"idempotency-key": str(uuid4())}
        patch = asyncio.create_task(change(door, who, ticket, headers, title="New"))
        await waits_for_a_lock(world, "handoff_tickets")
        held_id = await holder.take_id()
        assert await holder.change(ticket["id"]) == (ticket["id"], 2)
        # So that the PATCH stops once more, between what the holder wrote and its own event.
        stop = asyncio.create_task(stopper.run("LOCK TABLE handoff_events IN SHARE MODE"))
        await waits_for_a_lock(world, "handoff_events")
        await holder.commit()
        await stop
        await waits_for_a_lock(world, "handoff_events")
        async with Watch(door, who, project_id) as begun_between, Watch(door, who, project_id, first) as resumed:
            between = (await begun_between.message())["cursor"]
            assert told(await resumed.until_quiet()) in ([], [(ticket["id"], 2)])
            await stopper.commit()
            (await patch).succeeded()
            messages = [await watch.event() for _ in range(2)]
            assert told(messages) == [(ticket["id"], 2), (ticket["id"], 3)]
            last = await created(door, who, project_id)
            assert told([await watch.event()]) == [(last["id"], 1)]
            seen = told([await begun_between.event() for _ in range(2)])
            while seen[-1] != (last["id"], 1):
                seen += told([await begun_between.event()])
            assert seen[-2] == (ticket["id"], 3)
            assert len(seen) == len(set(seen))
            assert told([await resumed.event() for _ in range(3)])[-2:] == [(ticket["id"], 3), (last["id"], 1)]
    for cursor, versions in ((first, [2, 3]), (messages[0]["cursor"], [3]), (messages[1]["cursor"], [])):
        async with Watch(door, who, project_id, cursor) as watch:
            assert by_ticket(told(await watch.until_quiet())).get(ticket["id"], []) == versions
    async with Watch(door, who, project_id, between) as watch:
        assert told(await watch.until_quiet()) == seen
    # It was as meant: the PATCH had the lower id of its own.
    sql = "SELECT xmin::text::bigint FROM handoff_events WHERE ticket_id = %s ORDER BY version"
    xmins = [xmin for (xmin,) in world.rows(sql, ticket["id"])]
    assert xmins[2] < xmins[1] == held_id % 2**32
    assert [event["version"] for event in await history(door, who, ticket)] == [1, 2, 3]


class Load:
    """Many who write at once, at both doors and past them, on few tickets."""

    def __init__(self, world: World, doors: Sequence[Door], who: Credential, project_id: str, seed: int) -> None:
        self._world, self._doors, self._who, self._project_id = world, doors, who, project_id
        self.dice = random.Random(seed)  # noqa: S311 - guards nothing
        self.tickets = list[dict[str, Any]]()

    async def write(self, number: int, times: int) -> None:
        if number % 5 == 0:
            await self._write_by_hand(times)
            return
        for turn in range(times):
            door = self._doors[(number + turn) % 2]
            await self.dice.choice((self._patch, self._patch, self._patch, self._move, self._create))(door)

    async def _patch(self, door: Door) -> None:
        headers = {"idempotency-key": str(uuid4())} if self.dice.random() < 0.5 else None
        ticket = self.dice.choice(self.tickets)
        (await change(door, self._who, ticket, headers, title=str(uuid4()))).succeeded()

    async def _move(self, door: Door) -> None:
        names = [ticket["id"] for ticket in self.tickets]
        self.dice.shuffle(names)
        body = {"action": "move", "stage": self.dice.choice(("backlog", "up_next")), "ticket_ids": names}
        (await door.call("handoff.bulk", self._who, path={"project_id": self._project_id}, body=body)).succeeded()

    async def _create(self, door: Door) -> None:
        (await create(door, self._who, self._project_id)).succeeded(201)

    async def _write_by_hand(self, times: int) -> None:
        async with writer(self._world) as hand:
            for _ in range(times):
                await hand.take_id()
                await asyncio.sleep(self.dice.random() / 20)
                await hand.change(self.dice.choice(self.tickets)["id"])
                await asyncio.sleep(self.dice.random() / 50)
                await hand.commit()


async def test_under_load_every_watcher_is_told_everything_once_and_in_order(
    rest: Rest, rpc: Grpc, world: World
) -> None:
    project_id, who = await place(world, "owner")
    load = Load(world, (rest, rpc), who, project_id, seed=7)
    load.tickets = [await created(rpc, who, project_id) for _ in range(3)]
    last = asyncio.get_running_loop().create_future()

    async def watch_to_the_end(door: Door, cursor: str, patience: int) -> list[Told]:
        """Watch, break off after some messages and resume, until the last event is told."""
        events = list[Told]()
        while not (last.done() and events and events[-1] == last.result()):
            async with Watch(door, who, project_id, cursor) as watch:
                for _ in range(load.dice.randint(1, patience)):
                    message = await watch.message()
                    cursor = message["cursor"]
                    events += told([message])
                    if last.done() and events and events[-1] == last.result():
                        break
        return events

    async with Watch(rpc, who, project_id) as watch:
        begin = (await watch.message())["cursor"]
    watchers = [
        asyncio.create_task(watch_to_the_end(door, begin, patience))
        for door in (rest, rpc)
        for patience in (2, 20, 100)
    ]
    async with asyncio.timeout(30):
        await asyncio.gather(*(load.write(number, 12) for number in range(20)))
        last.set_result(((await created(rpc, who, project_id))["id"], 1))
        lists = await asyncio.gather(*watchers)
    begun = {(ticket["id"], 1) for ticket in load.tickets}
    everything = [event for event in written(world, project_id) if event not in begun]
    assert len(everything) > 150
    for events in lists:
        assert by_ticket(events) == by_ticket(everything)
    # The order is one and the same for all.
    assert all(events == lists[0] for events in lists)


# Soon


async def test_who_begins_while_the_service_looks_for_news_hears_of_them_too(
    directory: Path, database_url: str, issuer: Issuer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And soon: not only with the next sign of life."""
    (project_id, who), (other_project, other) = await place(world), await place(world)
    asked, go_on = asyncio.Event(), asyncio.Event()
    async with (
        service_here(directory, database_url, issuer) as (target, news),
        grpc.aio.insecure_channel(target) as channel,
    ):
        rpc, look = Grpc(channel), news.database.one

        async def look_late(statement: Any, *arguments: Any, **options: Any) -> Any:
            if statement is news._ask:
                asked.set()
                await go_on.wait()
            return await look(statement, *arguments, **options)

        async with Watch(rpc, other, other_project) as earlier:
            await earlier.message()
            await created(rpc, other, other_project)
            await earlier.event()
            monkeypatch.setattr(news.database, "one", look_late)
            await asked.wait()
            async with Watch(rpc, who, project_id) as watch:
                await watch.message()
                monkeypatch.undo()
                ticket = await created(rpc, who, project_id)
                go_on.set()
                async with asyncio.timeout(5):
                    assert told([await watch.event()]) == [(ticket["id"], 1)]


# Signs of life


async def test_a_sign_of_life_comes_whenever_it_was_quiet_for_long(lively_doors: Sequence[Door], world: World) -> None:
    project_id, who = await place(world)
    for door in lively_doors:
        async with Watch(door, who, project_id) as watch:
            begun = time.monotonic()
            signs = [await watch.message() for _ in range(4)]
            assert time.monotonic() - begun > 1.0
            assert [sign["event"] for sign in signs] == [None] * 4
            ticket = await created(door, who, project_id)
            assert told([await watch.event()]) == [(ticket["id"], 1)]
            signs.append(await watch.message())
            assert signs[-1]["event"] is None
        for sign, events in zip(signs, [[(ticket["id"], 1)]] * 4 + [[]], strict=True):
            async with Watch(door, who, project_id, sign["cursor"]) as watch:
                assert told(await watch.until_quiet()) == events


# Who may watch


@pytest.mark.parametrize("role", ["viewer", "member", "triager", "owner"])
async def test_members_may_watch_whatever_their_role(door: Door, world: World, role: str) -> None:
    project_id, who = await place(world, role)
    author = await world.member(project_id)
    async with Watch(door, who, project_id) as watch:
        await watch.message()
        ticket = await created(door, author, project_id)
        assert told([await watch.event()]) == [(ticket["id"], 1)]


async def test_others_may_not(door: Door, world: World) -> None:
    (project_id, who), (_, stranger) = await place(world), await place(world)
    async with Watch(door, stranger, project_id) as watch:
        await watch.refused("forbidden", words="You are no member of this project")
    async with Watch(door, who, str(uuid4())) as watch:
        await watch.refused("forbidden", words="You are no member of this project")
    async with Watch(door, {}, project_id) as watch:
        await watch.refused("unauthenticated")
    async with Watch(door, world.issuer.bearer(str(uuid4()), exp=1), project_id) as watch:
        await watch.refused("token_expired")
    async with Watch(door, who, project_id) as watch:
        cursor = (await watch.message())["cursor"]
    async with Watch(door, stranger, project_id, cursor) as watch:
        await watch.refused("forbidden")


async def test_a_cursor_is_one_of_a_watch_of_this_project(door: Door, world: World) -> None:
    projects = [await world.project() for _ in range(2)]
    who = await member_of(world, *projects)
    ticket = await created(door, who, projects[0])
    await created(door, who, projects[0])
    await changed(door, who, ticket, title="New")
    async with Watch(door, who, projects[1]) as watch:
        of_another_project = (await watch.message())["cursor"]
    path = {"project_id": projects[0], "ticket_id": ticket["id"]}
    page = (await door.call("handoff.project", who, path={"project_id": projects[0]}, query={"limit": 1})).succeeded()
    events = (await door.call("handoff.events", who, path=path, query={"limit": 1})).succeeded()
    async with Watch(door, who, projects[0]) as watch:
        good = (await watch.message())["cursor"]
    for cursor in (of_another_project, page["next_cursor"], events["next_cursor"], "x", "", "é", good + "A", good[:-1]):
        async with Watch(door, who, projects[0], cursor) as watch:
            await watch.refused("validation_error", paths=["cursor"])
    for project_id in ("x", projects[0] + "0"):
        async with Watch(door, who, project_id) as watch:
            await watch.refused("validation_error", paths=["project_id"])


# How it ends


async def remove(world: World, project_id: str, user_id: str) -> None:
    await world.operate(admin.remove_member, project_id=project_id, user_id=user_id)


async def test_who_is_removed_is_told_no_event_more(door: Door, world: World) -> None:
    project_id, user_id = await world.project(), str(uuid4())
    who, author = await world.member(project_id, "viewer", user_id), await world.member(project_id)
    async with Watch(door, who, project_id) as watch, Watch(door, author, project_id) as stays:
        for one in (watch, stays):
            await one.message()
        await remove(world, project_id, user_id)
        ticket = await created(door, author, project_id)
        assert told((await watch.broken_off("forbidden"))[0]) == []
        assert told([await stays.event()]) == [(ticket["id"], 1)]
    async with Watch(door, who, project_id) as again:
        await again.refused("forbidden")


async def test_who_is_removed_is_told_so_with_the_next_sign_of_life(lively_doors: Sequence[Door], world: World) -> None:
    project_id, user_id = await world.project(), str(uuid4())
    for door in lively_doors:
        who = await world.member(project_id, "owner", user_id)
        async with Watch(door, who, project_id) as watch:
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

    async def watch_to_the_end(door: Door) -> None:
        async with Watch(door, who, project_id) as watch:
            await watch.message()
            await watch.broken_off("token_expired")
            assert expires_at <= time.time() < expires_at + 2

    await asyncio.gather(*map(watch_to_the_end, lively_doors))


async def test_an_expired_token_is_not_told_a_backlog_to_its_end(lively_doors: Sequence[Door], world: World) -> None:
    """Who reads slowly reads what has been sent, and what is being told; nothing is read anew for them."""
    project_id, user_id = await world.project(), str(uuid4())
    door, who = lively_doors[1], await world.member(project_id, user_id=user_id)
    assert isinstance(door, Grpc)
    async with Watch(door, who, project_id) as watch:
        cursor = (await watch.message())["cursor"]
    events = write_events(world, project_id, 20 * BATCH, bytes_each=8192)
    expires_at = int(time.time()) + 3
    who = world.issuer.bearer(user_id, exp=expires_at)
    call, number = watch_call(door.channel, who, project_id=project_id, cursor=cursor), 0

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
        async with doors_of(service.target, directory) as doors, AsyncExitStack() as stack:
            watches = [await stack.enter_async_context(Watch(door, who, project_id)) for door in (*doors, *doors)]
            for watch in watches:
                await watch.message()
            ticket = await created(rpc, who, project_id)
            cursors = [(await watch.event())["cursor"] for watch in watches]
            service.process.send_signal(signal.SIGTERM)
            for watch in watches:
                _, end = await watch.broken_off("unavailable")
                if end.door == "rest":
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
    monkeypatch.setattr("service.watch._SIGN_SECONDS", 0.5)
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
    for door in lively_doors:
        async with Watch(door, who, project_id) as watch:
            await watch.message()
            await created(door, who, project_id)
            _, end = await watch.broken_off("internal")
            assert "secret" not in str(end.body)


# How many there may be


@asynccontextmanager
async def admitted(door: Door, who: Credential, project_id: str) -> AsyncIterator[Watch]:
    """A watch that is let in, as soon as there is room."""
    async with asyncio.timeout(2 * PATIENCE):
        while True:
            async with Watch(door, who, project_id) as watch:
                came = await watch.first()
                if isinstance(came, dict):
                    yield watch
                    return
                came.failed("unavailable")


async def test_who_leaves_makes_room(directory: Path, database_url: str, issuer: Issuer, world: World) -> None:
    project_id, who = await place(world)
    with run_service(directory, database_url, issuer, max_watches=1) as service:
        async with doors_of(service.target, directory) as doors:
            for door in (*doors, *doors):
                async with admitted(door, who, project_id) as watch:
                    for other in doors:
                        async with Watch(other, who, project_id) as too_many:
                            reply = await too_many.refused("unavailable", words="Too many watch at once")
                        if other.name == "rest":
                            assert reply.headers["retry-after"] == "5"
                        else:
                            retry: Any = reply.details["google.rpc.RetryInfo"]
                            assert retry.retry_delay.seconds == 5
                    ticket = await created(door, who, project_id)
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
    with run_service(directory, database_url, issuer, max_calls=1, metrics_listen=address) as service:
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
    assert gauges["tickets_calls_in_hand"] == 0
