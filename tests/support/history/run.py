"""One history: clients write and watch while faults happen; when all is whole again, the database is read."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc
import httpx2
import psycopg

from service.outbound import trusted_authorities
from support.history.clients import Board, Receiver, Watcher, Writer, accepted
from support.history.faults import Cluster
from support.history.records import APIS, Event, History, Snapshot, Ticket
from support.system import Issuer, World
from support.transports import Grpc, Rest

# Both transports have so many writers for each API.
_WRITERS = 2
# The share of messages that each webhook's receiver refuses.
_WEBHOOKS = {"/steady": 0.0, "/flaky": 0.03}
_EVENTS = ["ticket.created", "ticket.updated", "ticket.closed", "ticket.reopened"]
_STATUSES = ("open", "pending", "resolved", "closed")
# Between two faults, and after the last one.
_PAUSE = (0.1, 0.6)
_TOKEN_SECONDS = 24 * 3600
# Each with a connection of its own, or all channels to one address would share one, and with it one worker.
_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


@dataclass(frozen=True)
class Plan:
    """What happens in a history."""

    # What all choices are made of.
    seed: int
    # Rounds of all faults, in another order each time, begin for so long.
    seconds: float
    # Afterwards, when webhooks and watchers are told nothing more for so long, they have been told all.
    silent_seconds: float


async def recorded(directory: Path, issuer: Issuer, plan: Plan) -> tuple[History, Snapshot]:
    """Run a plan; what was seen, and what there is afterwards."""
    random, history = seeded(plan.seed), History(webhooks=tuple(_WEBHOOKS))
    receiver = Receiver(history, _WEBHOOKS, seeded(random.random()))
    async with (
        receiver.listening(),
        Cluster(directory, issuer).running() as cluster,
        _transports(cluster) as transports,
    ):
        rest, rpcs = transports
        boards = await _boards_with_webhooks(cluster, issuer, rest, receiver)
        watchers = [Watcher(board, one, seeded(random.random())) for board in boards for one in (rest, rpcs[0])]
        history.watches = [watcher.watched for watcher in watchers]
        async with running(watchers):
            await asyncio.gather(*(watcher.has_begun.wait() for watcher in watchers))
            await _write_under_faults(cluster, plan, history, random, _writers(boards, rest, rpcs, history, random))
            await settle(cluster.database_url, plan.silent_seconds, history)
        return history, snapshot(cluster.database_url, await totals(rest, boards[0]))


def seeded(seed: float) -> Random:
    """Choices that can be repeated."""
    return Random(seed)  # noqa: S311 - makes choices that can be repeated, guards nothing


@asynccontextmanager
async def _transports(cluster: Cluster) -> AsyncIterator[tuple[Rest, Sequence[Grpc]]]:
    async with AsyncExitStack() as stack:
        client = httpx2.AsyncClient(base_url=cluster.envoy.url, timeout=30, verify=trusted_authorities())
        await stack.enter_async_context(client)
        channels = [grpc.aio.insecure_channel(cluster.target, options=_CHANNEL) for _ in range(_WRITERS)]
        yield Rest(client), [Grpc(await stack.enter_async_context(channel)) for channel in channels]


async def _boards_with_webhooks(cluster: Cluster, issuer: Issuer, rest: Rest, receiver: Receiver) -> Sequence[Board]:
    made = await boards(cluster.database_url, issuer)
    for path in _WEBHOOKS:
        body = {"url": receiver.url + path, "events": _EVENTS}
        (await rest.call("itsm.create_webhook", made[0].who, body=body)).succeeded(201)
    return made


async def boards(database_url: str, issuer: Issuer) -> Sequence[Board]:
    """An account, a tenant and a project."""
    world = World(database_url, issuer)
    try:
        program = await world.program(scopes=("tickets:read", "tickets:write", "webhooks:manage"))
        expires_at = int(time.time()) + _TOKEN_SECONDS
        agent = world.person("read", "write", "agent", exp=expires_at)
        project = await world.project()
        member = await world.member(project, exp=expires_at)
    finally:
        await world.close()
    return (
        Board("itsm", program.credential, {}, "/api/v1/events"),
        Board("helpdesk", agent, {}, "/api/v1/helpdesk/events"),
        Board("handoff", member, {"project_id": project}, f"/api/projects/{project}/events"),
    )


def _writers(
    boards: Sequence[Board], rest: Rest, rpcs: Sequence[Grpc], history: History, random: Random
) -> Sequence[Writer]:
    return [
        Writer(f"{board.api}-{transport.name}-{number}", board, transport, history, seeded(random.random()))
        for board in boards
        for number in range(_WRITERS)
        for transport in (rest, rpcs[number])
    ]


@asynccontextmanager
async def running(watchers: Sequence[Watcher]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watcher.run()) for watcher in watchers]
        yield
        for task in tasks:
            task.cancel()


async def _write_under_faults(
    cluster: Cluster, plan: Plan, history: History, random: Random, writers: Sequence[Writer]
) -> None:
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.run())
        until = time.monotonic() + plan.seconds
        while not history.faults or time.monotonic() < until:
            for fault in random.sample(cluster.faults, len(cluster.faults)):
                await asyncio.sleep(random.uniform(*_PAUSE))
                history.faults.append((fault.__name__, time.monotonic()))
                await fault(random)
        await asyncio.sleep(_PAUSE[1])
        for writer in writers:
            writer.stop()


async def settle(database_url: str, silent_seconds: float, history: History) -> None:
    """Return when watchers and webhooks have everything, or are told nothing more."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        told, until = 0, time.monotonic() + silent_seconds
        while not _is_told(history, await _events_of(connection)) and time.monotonic() < until:
            if history.told() > told:
                told, until = history.told(), time.monotonic() + silent_seconds
            await asyncio.sleep(0.1)


async def _events_of(connection: psycopg.AsyncConnection[Any]) -> dict[str, int]:
    counts = ", ".join(f"(SELECT count(*) FROM {api}_events)" for api in APIS)
    row = await (await connection.execute(f"SELECT {counts}, (SELECT count(*) FROM itsm_webhook_messages)")).fetchone()
    assert row is not None
    return dict(zip((*APIS, "unsent"), row, strict=True))


def _is_told(history: History, there: dict[str, int]) -> bool:
    watched = all(len(set(watched.events)) >= there[watched.api] for watched in history.watches)
    sent = [{(one.ticket_id, one.updated_at) for one in accepted(history, name)} for name in history.webhooks]
    return watched and not there["unsent"] and all(len(messages) >= there["itsm"] for messages in sent)


async def totals(transport: Rest | Grpc, board: Board) -> dict[str, int]:
    """What the lists of ITSM tickets say."""
    pages = [await transport.call("itsm.list", board.who, query={"status": status, "limit": 1}) for status in _STATUSES]
    return {status: page.succeeded()["total"] for status, page in zip(_STATUSES, pages, strict=True)}


_TICKETS = """
    SELECT 'itsm', id::text, description, NULL, subject, status, version FROM itsm_tickets UNION ALL
    SELECT 'helpdesk', id, description, number, title, status, version FROM helpdesk_tickets UNION ALL
    SELECT 'handoff', id::text, description, number, title, status, version FROM handoff_tickets"""
_EVENT = "SELECT %s, ticket_id::text, e.version, type, request_id, changes, {} FROM {} ORDER BY e.transaction_id, e.id"
_EVENT_ROWS = {
    "itsm": _EVENT.format(
        "coalesce(e.updated_at, created.created_at)",
        "itsm_events e JOIN itsm_tickets created ON created.id = e.ticket_id",
    ),
    "helpdesk": _EVENT.format("NULL", "helpdesk_events e"),
    "handoff": _EVENT.format("NULL", "handoff_events e"),
}


def snapshot(database_url: str, totals: dict[str, int]) -> Snapshot:
    """What the database holds."""
    with psycopg.connect(database_url) as connection:
        tickets = [Ticket(*row) for row in connection.execute(_TICKETS)]
        events = [Event(*row) for api in APIS for row in connection.execute(_EVENT_ROWS[api], [api])]
        [[unsent]] = connection.execute("SELECT count(*) FROM itsm_webhook_messages")
    return Snapshot(tickets, events, totals, unsent)
