"""Changes that take no lock: one that meets another begins again with a lock, and both are kept whole.

The other change comes between the read and the write of the first, by another process.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import handoff, helpdesk
from support.handoff_watch import Writer, service_in_process, transports_of, waits_for_a_transaction, writer
from support.system import Credential, Issuer, World
from support.transports import Grpc, Reply, Rest

from service.counters import REGISTRY
from service.storage.database import Database
from service.storage.statement import Row, Statement

Transport = Rest | Grpc
Change = Callable[[], Awaitable[Any]]


class Meddler:
    """Makes another change just before the next write of a ticket that was read without a lock."""

    def __init__(self) -> None:
        self.change: Change | None = None
        self.writes = 0

    async def meet(self, statement: Statement) -> None:
        if statement.writes and b".xmin = " in statement.sql:
            self.writes += 1
            change, self.change = self.change, None
            if change is not None:
                await change()


@pytest.fixture
def meddler(monkeypatch: pytest.MonkeyPatch) -> Meddler:
    meddler, run = Meddler(), Database.all

    async def run_after(
        database: Database, statement: Statement, parameters: Mapping[str, Any], **how: Any
    ) -> list[Row]:
        await meddler.meet(statement)
        return await run(database, statement, parameters, **how)

    monkeypatch.setattr(Database, "all", run_after)
    return meddler


@pytest.fixture
async def transports(
    meddler: Meddler, directory: Path, database_url: str, issuer: Issuer
) -> AsyncIterator[Sequence[Transport]]:
    async with (
        service_in_process(directory, database_url, issuer) as (target, _),
        transports_of(target, directory) as both,
    ):
        yield both


class Ticket(NamedTuple):
    """A ticket, and how it is read and called."""

    api: str
    who: Credential
    path: Mapping[str, str]
    row_id: str
    # What it calls its title.
    title: str = "title"

    async def call(self, transport: Transport, method: str, body: Any = None) -> Reply:
        return await transport.call(f"{self.api}.{method}", self.who, path=dict(self.path), body=body)

    async def read(self, transport: Transport) -> Any:
        found = (await self.call(transport, "get")).succeeded()
        return found.get("ticket", found)

    async def versions(self, transport: Transport) -> list[tuple[int, set[str]]]:
        """Each version of it, with the members that changed."""
        events = (await self.call(transport, "events")).succeeded()["events"]
        return [(event["version"], set(event["changes"])) for event in events]


async def of_helpdesk(transport: Transport, world: World) -> Ticket:
    who = world.person("read", "write", "agent", tenant_id=helpdesk.new_tenant_id())
    made = await helpdesk.create(transport, who)
    return Ticket("helpdesk", who, {"id": made["id"]}, made["id"])


async def of_handoff(transport: Transport, world: World) -> Ticket:
    who, made = await handoff.filed(transport, world)
    path = {"project_id": made["project_id"], "ticket_id": made["id"]}
    return Ticket("handoff", who, path, made["id"])


async def of_itsm(transport: Transport, world: World) -> Ticket:
    who = (await world.program()).credential
    made = (await transport.call("itsm.create", who, body={"subject": "VPN", "description": "Down"})).succeeded(201)
    return Ticket("itsm", who, {"ticket_id": made["id"]}, made["id"], "subject")


MAKERS = {"helpdesk": of_helpdesk, "handoff": of_handoff, "itsm": of_itsm}


def of(ticket: Ticket, transport: Transport, *methods: str) -> Change:
    """Another change, or more: a PATCH changes the priority."""

    async def change() -> None:
        for method in methods:
            (await ticket.call(transport, method, {"priority": "high"} if method == "update" else None)).succeeded()

    return change


def changes_repeated() -> float:
    """How many changes of this process began again."""
    return REGISTRY.get_sample_value("tickets_changes_repeated_total") or 0.0


@pytest.mark.parametrize("api", MAKERS)
async def test_two_changes_that_meet_are_both_made(
    transports: Sequence[Transport], rpc: Grpc, meddler: Meddler, world: World, api: str
) -> None:
    for transport in transports:
        ticket = await MAKERS[api](transport, world)
        meddler.change, repeated = of(ticket, rpc, "update"), changes_repeated()
        (await ticket.call(transport, "update", {ticket.title: "New"})).succeeded()
        assert changes_repeated() == repeated + 1
        after = await ticket.read(transport)
        assert (after[ticket.title], after["priority"]) == ("New", "high")
        assert await ticket.versions(transport) == [(1, set()), (2, {"priority"}), (3, {ticket.title})]


@pytest.mark.parametrize("api", MAKERS)
async def test_a_condition_holds_of_the_ticket_that_is_changed(
    transports: Sequence[Transport], rpc: Grpc, meddler: Meddler, world: World, api: str
) -> None:
    for transport in transports:
        ticket = await MAKERS[api](transport, world)
        read = await ticket.call(transport, "get")
        is_handoff = api == "handoff"
        condition = {"updated_at": read.body["ticket"]["updated_at"]} if is_handoff else {"etag": read.headers["etag"]}
        meddler.change = of(ticket, rpc, "update")
        (await ticket.call(transport, "update", {ticket.title: "New", **condition})).failed("stale")
        assert await ticket.versions(transport) == [(1, set()), (2, {"priority"})]


@pytest.mark.parametrize(
    ("method", "others", "changes"),
    [
        ("close", ["update"], [{"priority"}, {"status"}]),
        ("delete", ["update"], [{"priority"}, {"is_deleted"}]),
        ("restore", ["restore", "delete"], [{"is_deleted"}] * 3),
    ],
)
async def test_a_ticket_that_changes_as_it_is_closed_deleted_or_restored_has_every_change(
    transports: Sequence[Transport],
    rpc: Grpc,
    meddler: Meddler,
    world: World,
    method: str,
    others: Sequence[str],
    changes: Sequence[set[str]],
) -> None:
    for transport in transports:
        ticket = await of_helpdesk(transport, world)
        if method == "restore":
            (await ticket.call(transport, "delete")).succeeded()
        before = await ticket.versions(transport)
        meddler.change = of(ticket, rpc, *others)
        (await ticket.call(transport, method)).succeeded()
        assert await ticket.versions(transport) == [*before, *enumerate(changes, len(before) + 1)]


@pytest.mark.parametrize("waits", [False, True], ids=["committed before the write", "committed as the write waits"])
async def test_what_the_clock_wrote_meanwhile_is_kept(
    transports: Sequence[Transport], meddler: Meddler, world: World, waits: bool
) -> None:
    """A ticket's clock is written without a version of its own."""
    for transport in transports:
        ticket = await of_helpdesk(transport, world)
        async with writer(world) as clock, asyncio.TaskGroup() as group:

            async def commit(clock: Writer = clock) -> None:
                await waits_for_a_transaction(world)
                await clock.commit()

            async def emit(ticket: Ticket = ticket, clock: Writer = clock, group: asyncio.TaskGroup = group) -> None:
                sql = "UPDATE helpdesk_tickets SET sla_emitted = '{due_at.breached}' WHERE id = %s"
                await clock.run(sql, ticket.row_id)
                if waits:
                    group.create_task(commit())
                else:
                    await clock.commit()

            meddler.change = emit
            (await ticket.call(transport, "update", {"title": "New"})).succeeded()
        [row] = world.rows("SELECT sla_emitted, version FROM helpdesk_tickets WHERE id = %s", ticket.row_id)
        assert row == (["due_at.breached"], 2)


@pytest.mark.parametrize("api", MAKERS)
async def test_a_change_that_meets_none_is_written_at_once(
    transports: Sequence[Transport], meddler: Meddler, world: World, api: str
) -> None:
    for transport in transports:
        ticket = await MAKERS[api](transport, world)
        meddler.writes = 0
        (await ticket.call(transport, "update", {ticket.title: "New"})).succeeded()
        assert meddler.writes == 1
