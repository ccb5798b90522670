"""Ways of a database to another server, and tickets of all three APIs with what was told of them before and after."""

import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from service.local.postgres import EmbeddedPostgres, _postgres_install
from service.local.processes import wait_for
from support.handoff import Transport
from support.handoff_watch import EventKey, Watch
from support.system import Credential
from support.transports import Reply
from support.watches import HELPDESK, ITSM, Message

TEXT = {"itsm": "subject", "helpdesk": "title", "handoff": "title"}


@dataclass
class Board:
    """The tickets of one API, and all their events in order."""

    api: str
    who: Credential
    # `project_id` of handoff.
    path: Mapping[str, str] = field(default_factory=dict)
    events: list[EventKey] = field(default_factory=list)

    async def create(self, transport: Transport, text: str) -> str:
        """A new ticket; its id."""
        more = {"request_type": "bug", "roles": ["backend"]} if self.api == "handoff" else {}
        body = {TEXT[self.api]: text, "description": text, **more}
        made = await transport.call(f"{self.api}.create", self.who, path=self.path, body=body)
        ticket = made.succeeded(201)
        ticket = ticket["ticket"] if self.api == "handoff" else ticket
        self.events.append((ticket["id"], 1))
        return str(ticket["id"])

    async def change(self, transport: Transport, text: str) -> None:
        """Another version of the first ticket."""
        first = self.events[0][0]
        path = {**self.path, "id" if self.api == "helpdesk" else "ticket_id": first}
        body = {TEXT[self.api]: text}
        (await transport.call(f"{self.api}.update", self.who, path=path, body=body)).succeeded()
        self.events.append((first, sum(ticket_id == first for ticket_id, _ in self.events) + 1))

    @asynccontextmanager
    async def watching(self, transport: Transport, cursor: str | None) -> AsyncIterator[Callable[[], Any]]:
        """A watch, by what returns its next message."""
        if self.api == "handoff":
            async with Watch(transport, self.who, self.path["project_id"], cursor) as watch:
                yield watch.first
        else:
            of_api = {"itsm": ITSM, "helpdesk": HELPDESK}[self.api]
            async with of_api.watching(transport, self.who, cursor) as stream:
                yield partial(anext, stream)

    async def cursor(self, transport: Transport) -> str:
        """Of now."""
        async with self.watching(transport, None) as next_message:
            return str((await next_message())["cursor"])

    async def told(self, transport: Transport, cursor: str, number: int) -> tuple[list[EventKey], str]:
        """So many events after a cursor, or all that come before the first heartbeat; and the cursor after them."""
        found, has_beat = list[EventKey](), False
        async with self.watching(transport, cursor) as next_message:
            while len(found) < number or not has_beat:
                message = await next_message()
                assert isinstance(message, dict), message
                cursor, event = message["cursor"], message["event"]
                has_beat |= event is None
                found += [] if event is None else [(event["ticket_id"], event["version"])]
        return found, cursor

    async def refused(self, transport: Transport, cursor: str) -> None:
        """Check that a cursor is refused as the contract says, and not taken for another."""
        async with self.watching(transport, cursor) as next_message:
            reply: Message | Reply = await next_message()
        assert isinstance(reply, Reply), reply
        reply.failed("validation_error", paths=["cursor"])


def run(server: EmbeddedPostgres, program: str, *arguments: str | Path) -> None:
    """Run one of PostgreSQL's programs."""
    binaries, _ = _postgres_install(server.data_dir)
    subprocess.run([binaries / program, *arguments], check=True, capture_output=True)


def dump(url: str, file: Path, server: EmbeddedPostgres, *options: str) -> None:
    """As the page says it."""
    run(server, "pg_dump", "--format=custom", *options, "--file", file, url)


def restore(url: str, file: Path, server: EmbeddedPostgres) -> None:
    """As the page says it."""
    run(server, "pg_restore", "--no-owner", "--no-acl", "--exit-on-error", "--dbname", url, file)


def publish(source: EmbeddedPostgres, target: EmbeddedPostgres, file: Path) -> None:
    """A second server subscribes to all that the first one has; as the page says it."""
    dump(source.url, file, source, "--schema-only")
    restore(target.url, file, target)
    at = make_conninfo(source.url)
    with (
        psycopg.connect(source.url, autocommit=True) as publisher,
        psycopg.connect(target.url, autocommit=True) as subscriber,
    ):
        publisher.execute("CREATE PUBLICATION tickets FOR ALL TABLES")
        subscriber.execute(f"CREATE SUBSCRIPTION tickets CONNECTION '{at}' PUBLICATION tickets")


def catch_up(source: EmbeddedPostgres, target: EmbeddedPostgres) -> None:
    """Wait until the subscriber has everything."""
    with (
        psycopg.connect(source.url, autocommit=True) as publisher,
        psycopg.connect(target.url, autocommit=True) as subscriber,
    ):
        copying = "SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r'"
        wait_for(lambda: subscriber.execute(copying).rowcount == 0, what="the tables to be copied", timeout=60)
        now = publisher.execute("SELECT pg_current_wal_lsn()").fetchone()
        reached = "SELECT FROM pg_stat_replication WHERE application_name = 'tickets' AND replay_lsn >= %s"
        wait_for(lambda: publisher.execute(reached, now).rowcount == 1, what="the subscriber", timeout=60)


def unsubscribe(target: EmbeddedPostgres) -> None:
    """The second server has everything, and stands alone from now on."""
    with psycopg.connect(target.url, autocommit=True) as subscriber:
        subscriber.execute("DROP SUBSCRIPTION tickets")


def transaction_of(url: str) -> int:
    """A transaction id of a server, used up."""
    with psycopg.connect(url, autocommit=True) as connection:
        [found] = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or [0]
        return int(found)


def spend_transactions(url: str, number: int) -> None:
    """Use up so many transaction ids of a server."""
    with psycopg.connect(url, autocommit=True) as connection, connection.pipeline():
        for _ in range(number):
            connection.execute("SELECT pg_current_xact_id()", prepare=False)
            connection.execute("COMMIT", prepare=False)


@asynccontextmanager
async def held(url: str) -> AsyncIterator[None]:
    """A transaction stays open: what is written from now on is told to nobody until it ends."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SELECT pg_current_xact_id()")
        yield


def forget_server(url: str) -> int:
    """Let the database remember another server than the one it is on, as if it had come from there; returns that."""
    with psycopg.connect(url, autocommit=True) as connection:
        [(server,)] = connection.execute(
            "UPDATE event_epochs SET system_identifier = system_identifier - 1"
            " WHERE epoch = (SELECT max(epoch) FROM event_epochs) RETURNING system_identifier"
        ).fetchall()
        return int(server)
