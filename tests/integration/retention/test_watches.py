"""contracts/errors.md: a watch whose place was deleted gets `cursor_expired`, and skips nothing silently."""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from support import handoff, helpdesk
from support.handoff_watch import Watch
from support.retention import KEEP, database_of, purge
from support.system import Credential, World
from support.transports import Grpc, Rest
from support.watches import HELPDESK, ITSM, next_event, next_of

Transport = Rest | Grpc


class Api(NamedTuple):
    """One API as a caller uses it, and where its events are."""

    name: str
    credential: Credential
    # The scope in the table, and its value.
    column: str
    scope: str
    project_id: str = ""

    async def create(self, transport: Transport) -> Any:
        """A new ticket."""
        if self.name == "itsm":
            body = {"subject": "VPN", "description": "Down"}
            return (await transport.call("itsm.create", self.credential, body=body)).succeeded(201)
        if self.name == "helpdesk":
            return await helpdesk.create(transport, self.credential)
        return await handoff.created(transport, self.credential, self.project_id)

    @asynccontextmanager
    async def watching(self, transport: Transport, cursor: str | None = None) -> Any:
        """What gives the next message of a watch, the next event, and checks that it is refused."""
        if self.name == "handoff":
            async with Watch(transport, self.credential, self.project_id, cursor) as watch:
                yield watch.message, lambda: _event_of(watch), watch.refused
            return
        watches = ITSM if self.name == "itsm" else HELPDESK
        async with watches.watching(transport, self.credential, cursor) as stream:

            async def refused(reason: str) -> None:
                reply: Any = await anext(stream)
                reply.failed(reason)

            yield lambda: next_of(stream), lambda: next_event(stream), refused

    async def cursor(self, transport: Transport) -> str:
        """Where a watch begins now."""
        async with self.watching(transport) as (message, _, _):
            return str((await message())["cursor"])


async def _event_of(watch: Watch) -> Any:
    return (await watch.event())["event"]


async def _itsm(world: World) -> Api:
    program = await world.program()
    return Api("itsm", program.credential, "account_id", program.account_id)


async def _helpdesk(world: World) -> Api:
    tenant_id = helpdesk.new_tenant_id()
    return Api("helpdesk", world.person("agent", "read_all", tenant_id=tenant_id), "tenant_id", tenant_id)


async def _handoff(world: World) -> Api:
    project_id, who = await handoff.new_project(world, "owner")
    return Api("handoff", who, "project_id", project_id, project_id)


@pytest.fixture(params=[_itsm, _helpdesk, _handoff], ids=["itsm", "helpdesk", "handoff"])
async def make(request: pytest.FixtureRequest) -> Callable[[World], Awaitable[Api]]:
    made: Callable[[World], Awaitable[Api]] = request.param
    return made


def age(world: World, api: Api, ticket: Any) -> None:
    """The ticket's events are older than they are kept."""
    sql = f"UPDATE {api.name}_events SET created_at = now() - interval '1 day' * %s WHERE {api.column} = %s"
    world.run(sql + " AND ticket_id = %s", KEEP + 1, api.scope, ticket["id"])


async def purge_events(world: World, api: Api) -> None:
    await world.settled()
    async with database_of(world.database_url) as database:
        await purge(f"{api.name}_events").delete(database)


async def test_a_cursor_before_what_was_deleted_is_refused_and_every_other_goes_on(
    transport: Transport, world: World, make: Callable[[World], Awaitable[Api]]
) -> None:
    api, other = await make(world), await make(world)
    too_old, of_other = await api.cursor(transport), await other.cursor(transport)
    old = await api.create(transport)
    await other.create(transport)
    await world.settled()
    at_the_mark = await api.cursor(transport)
    kept = await api.create(transport)
    age(world, api, old)
    await purge_events(world, api)
    async with api.watching(transport, too_old) as (_, _, refused):
        await refused("cursor_expired")
    # What the mark is at was the last that was deleted: nothing after it is missing.
    async with api.watching(transport, at_the_mark) as (_, event, _):
        assert (await event())["ticket_id"] == kept["id"]
    async with other.watching(transport, of_other) as (_, event, _):
        assert (await event())["type"] == "ticket.created"
    again = await api.cursor(transport)
    async with api.watching(transport, again) as (message, _, _):
        assert (await message())["event"] is None


async def test_a_new_watch_of_a_scope_whose_events_are_all_gone_can_be_resumed(
    transport: Transport, world: World, make: Callable[[World], Awaitable[Api]]
) -> None:
    api = await make(world)
    age(world, api, await api.create(transport))
    await purge_events(world, api)
    cursor = await api.cursor(transport)
    new = await api.create(transport)
    async with api.watching(transport, cursor) as (_, event, _):
        assert (await event())["ticket_id"] == new["id"]


async def test_a_history_begins_with_the_oldest_event_that_is_kept(
    transport: Transport, world: World, quiet_postgres: None
) -> None:
    api = await _itsm(world)
    key = {"idempotency-key": uuid4().hex}
    body = {"subject": "VPN", "description": "Down"}
    ticket = (await transport.call("itsm.create", api.credential, body=body, headers=key)).succeeded(201)
    age(world, api, ticket)
    path = {"ticket_id": ticket["id"]}
    (await transport.call("itsm.update", api.credential, path=path, body={"status": "pending"})).succeeded()
    await purge_events(world, api)
    (await transport.call("itsm.update", api.credential, path=path, body={"status": "closed"})).succeeded()
    shown = (await transport.call("itsm.events", api.credential, path=path)).succeeded()["events"]
    assert [(event["version"], event["type"]) for event in shown] == [(2, "ticket.updated"), (3, "ticket.closed")]
    again = await transport.call("itsm.create", api.credential, body=body, headers=key)
    assert again.succeeded(201) == ticket, "the first answer is given within its hour, whatever was deleted"
    assert (await transport.call("itsm.list", api.credential)).succeeded()["total"] == 1


async def test_a_deleted_ticket_goes_with_all_that_is_its_and_its_number_never_comes_again(
    transport: Transport, world: World
) -> None:
    api = await _helpdesk(world)
    too_old = await api.cursor(transport)
    gone, kept = await api.create(transport), await api.create(transport)
    path = {"id": gone["id"]}
    (
        await transport.call("helpdesk.comment", api.credential, path=path, body={"body": "Soon.", "internal": False})
    ).succeeded(201)
    for ticket in (gone, kept):
        (await transport.call("helpdesk.delete", api.credential, path={"id": ticket["id"]})).succeeded()
    old = "UPDATE helpdesk_tickets SET deleted_at = now() - interval '1 day' * %s WHERE tenant_id = %s AND id = %s"
    world.run(old, KEEP + 1, api.scope, gone["id"])
    world.run(
        "INSERT INTO helpdesk_pauses VALUES (%s, %s, now() - interval '2 hours', now() - interval '1 hour')",
        *(api.scope, gone["id"]),
    )
    await world.settled()
    async with database_of(world.database_url) as database:
        [deleted] = await purge("deleted_tickets").delete(database)
    assert deleted.rows == 1
    (await transport.call("helpdesk.get", api.credential, path=path)).failed("not_found")
    (await transport.call("helpdesk.restore", api.credential, path=path)).failed("not_found")
    (await transport.call("helpdesk.restore", api.credential, path={"id": kept["id"]})).succeeded()
    for table in ("comments", "pauses", "events"):
        sql = f"SELECT count(*) FROM helpdesk_{table} WHERE tenant_id = %s AND ticket_id = %s"
        assert world.rows(sql, api.scope, gone["id"]) == [(0,)], table
    assert (await api.create(transport))["number"] == "TKT-0003"
    async with api.watching(transport, too_old) as (_, _, refused):
        await refused("cursor_expired")
