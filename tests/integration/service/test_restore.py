"""A database that moves to another server (deploy/README.md, Backup and restore): readers go on where they were."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from support import moves
from support.handoff import Transport, new_project
from support.handoff_watch import transports_of
from support.moves import Board
from support.provider_lab import empty_database
from support.system import Issuer, Program, World, health, run_service
from support.webhook_lab import Receiver, until

from service import migrations
from service.local.postgres import EmbeddedPostgres
from service.local.processes import wait_for

pytestmark = pytest.mark.processes

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
Transports = Sequence[Transport]
# Cursors of events that are no more.
Lost = Sequence[tuple[Board, str]]


@asynccontextmanager
async def serving(directory: Path, url: str, issuer: Issuer) -> AsyncIterator[Transports]:
    with run_service(directory, url, issuer) as service:
        async with transports_of(service.target, directory) as transports:
            yield transports


@pytest.fixture
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    settings = {"fsync": "off", "wal_level": "logical"}
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "data", settings=settings) as server:
        migrations.upgrade(server.url)
        yield server


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "data", settings={"fsync": "off"}) as server:
        yield server


class Desk:
    """Boards of all APIs, a webhook, and what each reader may expect."""

    def __init__(self, receiver: Receiver, boards: Sequence[Board], hook: str = "") -> None:
        self.receiver, self.boards, self.hook = receiver, boards, hook
        # What the webhook is told: subjects, in order for each ticket.
        self.subjects: list[tuple[str, str]] = []
        # Cursors of before, each with how many events came before it.
        self.cursors: list[list[tuple[str, int]]] = [[] for _ in boards]

    @classmethod
    async def new(cls, url: str, issuer: Issuer, receiver: Receiver) -> "Desk":
        world = World(url, issuer)
        program: Program = await world.program(scopes=("tickets:read", "tickets:write", "webhooks:manage"))
        project_id, member = await new_project(world)
        person = world.person("read", "write", "agent")
        await world.close()
        boards = [
            Board("itsm", program.credential),
            Board("helpdesk", person),
            Board("handoff", member, {"project_id": project_id}),
        ]
        return cls(receiver, boards)

    async def begin(self, transports: Transports) -> None:
        """A webhook, and cursors before all events."""
        body = {"url": f"{self.receiver.url}/hook", "events": ["ticket.created", "ticket.updated"]}
        made = await transports[1].call("itsm.create_webhook", self.boards[0].who, body=body)
        self.hook = made.succeeded(201)["id"]
        await self.keep_cursors(transports)

    async def keep_cursors(self, transports: Transports) -> None:
        for board, kept in zip(self.boards, self.cursors, strict=True):
            # That of one transport is good at the other.
            kept.append((await board.cursor(transports[len(kept) % 2]), len(board.events)))

    async def write(self, transports: Transports, text: str) -> None:
        """A ticket of each API, and a change of its first ticket."""
        for board in self.boards:
            await board.create(transports[1], text)
            await board.change(transports[0], f"{text}, changed")
        itsm = self.boards[0].events
        self.subjects += [(itsm[-2][0], text), (itsm[0][0], f"{text}, changed")]

    async def read_everywhere(self, transports: Transports) -> None:
        """From every cursor there was, at both transports: each event once, in order."""
        for board, kept in zip(self.boards, self.cursors, strict=True):
            for transport in transports:
                for cursor, number in kept:
                    told, _ = await board.told(transport, cursor, len(board.events) - number)
                    assert told == board.events[number:], (board.api, transport.name, number)

    async def sent(self) -> None:
        """The webhook has been told everything, once, and each ticket's changes in order."""
        async with asyncio.timeout(30):
            await until(lambda: len(self.receiver.requests_to("/hook")) >= len(self.subjects))
        told, expected = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
        for request in self.receiver.requests_to("/hook"):
            told[request.body["data"]["id"]].append(request.body["data"]["subject"])
        for ticket_id, subject in self.subjects:
            expected[ticket_id].append(subject)
        assert told == expected

    async def unhook(self, transports: Transports) -> None:
        """The old server tells nobody anything any more."""
        path = {"webhook_id": self.hook}
        (await transports[1].call("itsm.delete_webhook", self.boards[0].who, path=path)).succeeded(204)

    async def lose(self, transports: Transports) -> Lost:
        """Cursors after what is written on the old server when the copy is made."""
        lost = []
        for board, kept in zip(self.boards, self.cursors, strict=True):
            events = [*board.events]
            await board.create(transports[1], "Lost")
            cursor, number = kept[-1]
            told, behind = await board.told(transports[1], cursor, len(board.events) - number)
            assert told == board.events[number:]
            board.events = events
            lost.append((board, behind))
        return lost


async def moved(desk: Desk, directory: Path, url: str, issuer: Issuer, lost: Lost, name: str) -> None:
    """What is promised on the new server."""
    with run_service(directory, url, issuer) as service:
        assert health(service.target) == NOT_SERVING
        await asyncio.to_thread(migrations.upgrade, url)
        wait_for(lambda: health(service.target) != NOT_SERVING, what="the service to serve", timeout=20)
        reasons = [line["reason"] for line in service.lines() if line["event"] == "schema" and "reason" in line]
        assert len(reasons) == 1
        assert "is on another server" in reasons[0]
        assert "run `tickets migrate`" in reasons[0]
        async with transports_of(service.target, directory) as transports:
            await desk.sent()
            await desk.read_everywhere(transports)
            await desk.keep_cursors(transports)
            await desk.write(transports, name)
            await desk.keep_cursors(transports)
            await desk.write(transports, f"{name} again")
            await desk.sent()
            await desk.read_everywhere(transports)
            for board, cursor in lost:
                for transport in transports:
                    await board.refused(transport, cursor)
        assert [line for line in service.lines() if line.get("outcome") == "internal" or "exception" in line] == []


async def left(desk: Desk, directory: Path, url: str, issuer: Issuer, name: str, copy: Callable[[], None]) -> Lost:
    """A server in use, of which a copy is made while some of its events are told to nobody yet."""
    async with serving(directory, url, issuer) as transports:
        if not desk.hook:
            await desk.begin(transports)
        await desk.write(transports, name)
        await desk.sent()
        await desk.keep_cursors(transports)
        async with moves.held(url):
            await desk.write(transports, f"{name}, held")
            await asyncio.to_thread(copy)
            await desk.unhook(transports)
        return await desk.lose(transports)


async def test_readers_go_on_with_dumps_on_servers_whose_ids_are_lower_and_higher(
    directory: Path, database_url: str, apart_url: str, elsewhere: EmbeddedPostgres, issuer: Issuer, tmp_path: Path
) -> None:
    # More than the new server will have had at the end.
    moves.spend_transactions(apart_url, 3000)
    receiver, file = Receiver(), tmp_path / "tickets.dump"
    with empty_database(database_url) as back:
        async with receiver.listening():
            desk, url = await Desk.new(apart_url, issuer, receiver), apart_url
            for target, name in ((elsewhere.url, "Lower"), (back, "Higher")):
                dump = partial(moves.dump, url, file, elsewhere)
                lost = await left(desk, directory, url, issuer, f"Before {name}", dump)
                moves.restore(target, file, elsewhere)
                is_lower = moves.transaction_of(target) + 500 < moves.transaction_of(url)
                assert is_lower == (name == "Lower")
                await moved(desk, directory, target, issuer, lost, name)
                url = target


@pytest.mark.long
async def test_readers_go_on_at_a_subscriber_that_takes_over(
    directory: Path, publisher: EmbeddedPostgres, elsewhere: EmbeddedPostgres, issuer: Issuer, tmp_path: Path
) -> None:
    moves.spend_transactions(publisher.url, 3000)
    receiver = Receiver()

    def copy() -> None:
        moves.catch_up(publisher, elsewhere)
        with pytest.raises(RuntimeError, match="drop the subscription tickets"):
            migrations.upgrade(elsewhere.url)
        moves.unsubscribe(elsewhere)

    async with receiver.listening():
        desk = await Desk.new(publisher.url, issuer, receiver)
        # What there is by now is copied, and all else is sent.
        await asyncio.to_thread(moves.publish, publisher, elsewhere, tmp_path / "schema.dump")
        lost = await left(desk, directory, publisher.url, issuer, "Before", copy)
        assert moves.transaction_of(elsewhere.url) + 500 < moves.transaction_of(publisher.url)
        await moved(desk, directory, elsewhere.url, issuer, lost, "After")
