"""The engine with a source that is not ITSM's: a scope of one column, text ids, another view, other member names."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Literal

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    create_engine,
    func,
    text,
)
from support.emulators.http import Response
from support.webhook_lab import Machine, Process, Receiver, signatures, until

from service import jsontext
from service.directory import METADATA
from service.storage.database import Xid8
from service.storage.scope import scoped_by
from service.storage.statement import Row
from service.webhooks import queries
from service.webhooks.fan_out import FanOut
from service.webhooks.sender import Sender
from service.webhooks.signatures import new_secret
from service.webhooks.source import Source
from service.webhooks.tables import webhook_tables

# Apart from the service's own, which migrations make.
TABLES = MetaData(naming_convention=METADATA.naming_convention)
TICKETS = Table(
    "toy_tickets",
    TABLES,
    Column("tenant_id", Text),
    Column("id", Text),
    Column("title", Text),
    Column("version", Integer),
    PrimaryKeyConstraint("tenant_id", "id"),
    info=scoped_by("tenant_id"),
)
EVENTS = Table(
    "toy_events",
    TABLES,
    Column("tenant_id", Text),
    Column("id", BigInteger, Identity(always=True)),
    Column("transaction_id", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("ticket_id", Text),
    Column("version", Integer),
    Column("type", Text),
    Column("changes", JSON),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    PrimaryKeyConstraint("tenant_id", "transaction_id", "id"),
    info=scoped_by("tenant_id"),
)


def show(row: Row, event: Row) -> dict[str, Any]:
    return {"number": row["id"], "title": row["title"], "as_of": event["version"]}


def undo(ticket: Row, before: Mapping[str, Any]) -> Row:
    return {**ticket, "title": before.get("name", ticket["title"])}


SOURCE = Source(
    events=EVENTS,
    tickets=TICKETS,
    ticket_columns=["id", "title", "version"],
    tables=webhook_tables("toy", EVENTS, Literal["toy.made", "toy.named"]),
    event_types=("toy.made", "toy.named"),
    max_webhooks=2,
    show=show,
    undo=undo,
)
QUERIES = queries.for_source(SOURCE)


class Toys:
    """What a dialect would have: its writers, and its use cases on the engine's statements."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self.machine, self.process = machine, process
        self.fan_out = FanOut(SOURCE)
        self.sender = Sender(SOURCE, process.dependencies.settings, process.vault, process.outbound)

    async def register(self, tenant_id: str, webhook_id: str, url: str, events: list[str]) -> str:
        """A new webhook's secret; none where the tenant has too many."""
        secret = new_secret()
        values = {"tenant_id": tenant_id, "id": webhook_id, "url": url, "events": events}
        sealed = {"secret": self.process.vault.seal(secret)}
        created = await self.process.database.all(QUERIES.create_webhook, values | sealed, lock=QUERIES.lock_webhooks)
        return secret if created else ""

    def make(self, tenant_id: str, ticket_id: str, title: str) -> None:
        """A new ticket."""
        self.machine.rows("INSERT INTO toy_tickets VALUES (%s, %s, %s, 1)", tenant_id, ticket_id, title)
        self._append(tenant_id, ticket_id, 1, "toy.made", {})

    def name(self, tenant_id: str, ticket_id: str, title: str) -> None:
        """Another title."""
        key = (tenant_id, ticket_id)
        [(before, version)] = self.machine.rows(
            "SELECT title, version + 1 FROM toy_tickets WHERE tenant_id = %s AND id = %s", *key
        )
        self.machine.rows(
            "UPDATE toy_tickets SET title = %s, version = %s WHERE tenant_id = %s AND id = %s", title, version, *key
        )
        self._append(tenant_id, ticket_id, version, "toy.named", {"name": {"from": before, "to": title}})

    def _append(self, tenant_id: str, ticket_id: str, version: int, kind: str, changes: Any) -> None:
        self.machine.rows(
            "INSERT INTO toy_events (tenant_id, ticket_id, version, type, changes) VALUES (%s, %s, %s, %s, %s)",
            *(tenant_id, ticket_id, version, kind, jsontext.dump(changes).decode()),
        )

    async def send(self) -> None:
        """Queue messages of all that happened so far, and send those that are due."""
        is_readable = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > max(transaction_id) FROM toy_events"
        await until(lambda: self.machine.rows(is_readable) != [(False,)])
        await self.fan_out.queue_messages(self.process.database)
        await self.sender.send_due(self.process.database)


@pytest.fixture(scope="module")
def toy_tables(apart_url: str) -> Iterator[None]:
    engine = create_engine(apart_url.replace("postgresql:", "postgresql+psycopg:", 1))
    TABLES.create_all(engine)
    yield
    TABLES.drop_all(engine)
    engine.dispose()


@pytest.fixture
async def toys(machine: Machine, process: Process, toy_tables: None) -> AsyncIterator[Toys]:
    yield Toys(machine, process)
    machine.rows("DELETE FROM toy_webhooks; DELETE FROM toy_events; DELETE FROM toy_tickets")


def received(receiver: Receiver, path: str) -> list[tuple[str, Any]]:
    return [(request.body["type"], request.body["data"]) for request in receiver.requests_to(path)]


async def test_each_change_is_sent_with_the_ticket_as_it_was(toys: Toys, receiver: Receiver) -> None:
    secret = await toys.register("t1", "wh_1", receiver.url + "/all", ["toy.made", "toy.named"])
    await toys.register("t1", "wh_2", receiver.url + "/named", ["toy.named"])
    await toys.register("t2", "wh_3", receiver.url + "/other", ["toy.made", "toy.named"])
    toys.make("t1", "1", "Door")
    toys.name("t1", "1", "Window")
    toys.name("t1", "1", "Roof")
    # The same id in another tenant is another ticket.
    toys.make("t2", "1", "Cellar")
    await toys.send()
    assert received(receiver, "/all") == [
        ("toy.made", {"number": "1", "title": "Door", "as_of": 1}),
        ("toy.named", {"number": "1", "title": "Window", "as_of": 2}),
        ("toy.named", {"number": "1", "title": "Roof", "as_of": 3}),
    ]
    assert received(receiver, "/named") == received(receiver, "/all")[1:]
    assert received(receiver, "/other") == [("toy.made", {"number": "1", "title": "Cellar", "as_of": 1})]
    for request in receiver.requests_to("/all"):
        assert request.headers["webhook-signature"] == signatures(request, secret)


async def test_what_fails_is_retried_and_logged_and_replayed(toys: Toys, receiver: Receiver) -> None:
    await toys.register("t1", "wh_1", receiver.url + "/hook", ["toy.made"])
    receiver.planned["/hook"] = [Response(500)]
    toys.make("t1", "1", "Door")
    await toys.send()
    key = {"tenant_id": "t1", "webhook_id": "wh_1"}
    database = toys.process.database
    webhook = await database.one(QUERIES.get_webhook, key)
    assert webhook is not None
    assert webhook["failing_since"] is not None
    toys.machine.rows("UPDATE toy_webhook_messages SET next_attempt_at = now()")
    await toys.send()
    log = await database.all(QUERIES.list_attempts, key)
    assert [(entry["attempt"], entry["status_code"]) for entry in log] == [(2, 200), (1, 500)]
    assert await database.one(QUERIES.replay, {**key, "delivery_id": log[1]["id"]}) == log[1]
    await toys.send()
    first, *others = receiver.requests_to("/hook")
    assert [request.raw for request in others] == [first.raw] * 2
    # Nothing of it is another tenant's.
    stranger = {**key, "tenant_id": "t2", "delivery_id": log[0]["id"]}
    assert await database.one(QUERIES.get_webhook, stranger) is None
    assert await database.all(QUERIES.list_attempts, stranger) == []
    assert await database.one(QUERIES.replay, stranger) is None


async def test_a_receiver_that_is_gone_disables_its_webhook(toys: Toys, receiver: Receiver) -> None:
    await toys.register("t1", "wh_1", receiver.url + "/hook", ["toy.made"])
    receiver.planned["/hook"] = [Response(410)]
    toys.make("t1", "1", "Door")
    toys.make("t2", "1", "Cellar")
    await toys.send()
    rows = toys.machine.rows("SELECT is_active, disabled_reason FROM toy_webhooks")
    assert rows == [(False, "The receiver answered 410 Gone")]


async def test_a_scope_has_at_most_as_many_as_its_source_says(toys: Toys) -> None:
    made = [await toys.register("t1", f"wh_{n}", "http://127.0.0.1:9/", ["toy.made"]) for n in range(3)]
    assert [bool(secret) for secret in made] == [True, True, False]
    assert await toys.register("t2", "wh_0", "http://127.0.0.1:9/", ["toy.made"])
