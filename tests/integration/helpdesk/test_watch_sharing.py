"""contracts/helpdesk.md: who watch at once are shown what each of them sees, however many events are in between."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest
from support.helpdesk import create, new_tenant_id, update
from support.helpdesk_calls import write_comment
from support.system import World
from support.transports import Grpc
from support.watches import HELPDESK

from service import watch as watches
from service.access.policy import Caller
from service.directory import METADATA
from service.helpdesk import operations, tables
from service.operation import Call
from service.settings import Settings
from service.storage.database import Database
from service.watch import EventFeed


@pytest.fixture
async def feed(world: World) -> AsyncIterator[EventFeed]:
    """A feed of this process, which never polls: what is read of it is read again and again."""
    database = Database(Settings(database_url=world.database_url, pool_size=1), METADATA)
    await database.open()
    yield EventFeed(database, tables.events, 100)
    await database.close()


def watch(feed: EventFeed, caller: Caller, cursor: str | None) -> AsyncIterator[Mapping[str, Any]]:
    call = Call(("tickets.helpdesk.v1", "WatchTickets"), "r", None, caller)
    return operations.watch_tickets(feed, call, {"query": {} if cursor is None else {"cursor": cursor}})


def caller(tenant_id: str, sub: str, *scopes: str, **claims: Any) -> Caller:
    named = frozenset(f"helpdesk:{name}" for name in scopes)
    return Caller(sub, named, tenant_id=tenant_id, expires_at=time.time() + 60, **claims)


@pytest.mark.parametrize("looked_at", [1, 2, 3, 7, 2000])
async def test_a_watch_finds_its_few_events_among_many(
    rpc: Grpc, world: World, feed: EventFeed, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(operations, "_LOOKED_AT", looked_at)
    tenant_id = new_tenant_id()
    ann = world.person("read", "write", tenant_id=tenant_id, sub="ann")
    agent = world.person("agent", tenant_id=tenant_id, sub="bob")
    application = world.person("read", "write", tenant_id=tenant_id, app_id="ann")
    cursors = [await HELPDESK.start_cursor(rpc, person) for person in (ann, application)]
    expected: dict[str, list[tuple[str, int]]] = {"ann": [], "application": []}
    for n in range(4):
        made = await create(rpc, ann)
        other = await create(rpc, agent)
        for _ in range(n):
            (await update(rpc, agent, other, title="Busy")).succeeded()
        await write_comment(rpc, agent, made, internal=True)
        (await update(rpc, ann, made, title="Mine")).succeeded()
        expected["ann"] += [(made["id"], 1), (made["id"], 2)]
        expected["application"].append(((await create(rpc, application))["id"], 1))
    await world.settled()
    callers = (caller(tenant_id, "ann", "read"), caller(tenant_id, "app", "read", app_id="ann"))
    for who, cursor, wanted in zip(callers, cursors, expected.values(), strict=True):
        found = []
        async with aclosing(watch(feed, who, cursor)) as messages:  # type: ignore[type-var]
            async for message in messages:
                # Each message has where to go on, and one without an event ends what there is.
                assert message["cursor"]
                if message["event"] is not None:
                    found.append((message["event"]["ticket_id"], message["event"]["version"]))
                if len(found) == len(wanted):
                    break
        assert found == wanted


async def test_who_sees_other_tickets_is_of_another_audience(
    world: World, feed: EventFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one audience share what is read: an application's id may be that of a person."""
    audiences = []

    async def follow(_feed: Any, _scope: Any, _call: Any, reader: Any, _position: Any) -> AsyncIterator[Any]:
        audiences.append(reader.audience)
        return
        yield

    monkeypatch.setattr(watches, "follow", follow)
    tenant_id = new_tenant_id()
    alike = [caller(tenant_id, sub, "agent") for sub in ("one", "two")]
    different = [
        alike[0],
        caller(tenant_id, "one", "read"),
        caller(tenant_id, "two", "read"),
        caller(tenant_id, "x", "read_all"),
        caller(tenant_id, "x", "read", app_id="one"),
        caller(tenant_id, "x", "agent", app_id="one"),
        caller(tenant_id, "x", "read", app_id="two"),
        caller(new_tenant_id(), "one", "read"),
    ]
    for who in (*alike, *different):
        assert [message async for message in watch(feed, who, None)] == []
    assert audiences[0] == audiences[1]
    assert len({*audiences}) == len(different)
