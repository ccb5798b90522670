"""contracts/helpdesk.md, SLA at both transports: what is told, once, when a target is near or missed."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx2
import pytest
from support.helpdesk import Door, get
from support.helpdesk_sla import HIGH, URGENT, Desk, Founded, Step, Tools, founded, instant, tools_of
from support.system import World
from support.transports import Rest

from service.directory import METADATA
from service.helpdesk.sla import notifier
from service.settings import Settings
from service.storage.database import Database


@pytest.fixture(scope="module")
async def tools(world: World) -> AsyncIterator[Tools]:
    async with tools_of(world) as tools:
        yield tools


@pytest.fixture(scope="module")
async def tenant(client: httpx2.AsyncClient, world: World) -> Founded:
    return await founded(Rest(client), world)


@pytest.fixture
def desk(transport: Door, tools: Tools, tenant: Founded) -> Desk:
    """For tests that leave policies and calendar as they are."""
    return tools.desk(transport, tenant)


@pytest.fixture
async def own_desk(transport: Door, tools: Tools, world: World) -> Desk:
    """With a tenant of its own."""
    return tools.desk(transport, await founded(transport, world))


# Of `high`: due soon at 45, due at 60. Of `urgent`: a response soon at 15, due at 20, soon at 180, due at 240.
SOON, LATE = "resolution due_soon", "resolution breached"
RESPONSE_SOON, RESPONSE_LATE = "first_response due_soon", "first_response breached"
TOLD: Mapping[str, tuple[dict[str, Any], Sequence[Step], Sequence[str]]] = {
    "too early": (HIGH, [44, "tell"], []),
    "soon, once": (HIGH, [46, "tell", 5, "tell"], [SOON]),
    "and then late, once": (HIGH, [46, "tell", 15, "tell", 5, "tell"], [SOON, LATE]),
    "soon and late at once": (HIGH, [61, "tell"], [SOON, LATE]),
    "each target": (URGENT, [241, "tell"], [RESPONSE_SOON, RESPONSE_LATE, SOON, LATE]),
    "a response stops its own": (URGENT, [10, "respond", 180, "tell"], [SOON]),
    "a response after its warning": (URGENT, [16, "tell", "respond", 20, "tell"], [RESPONSE_SOON]),
    "a response that came late": (URGENT, ["unseen 21", "respond", 20, "tell"], [RESPONSE_LATE]),
    "answered, or there would be a warning": (URGENT, ["unseen 16", "respond", 20, "tell"], []),
    "resolved in time": (HIGH, [44, "close", 100, "tell"], []),
    "resolved late, before anybody looked": (HIGH, ["unseen 61", {"status": "resolved"}, 50, "tell"], [LATE]),
    "resolved, or there would be a warning": (HIGH, ["unseen 46", "close", 50, "tell"], []),
    "resolved after its warning": (HIGH, [46, "tell", "close", 50, "tell"], [SOON]),
    "resolved in time, reopened": (HIGH, [40, "close", 60, {"status": "open"}, "tell"], [SOON, LATE]),
    "pending": (URGENT, [10, {"status": "pending"}, 900, "tell"], []),
    "pending, and on": (HIGH, [40, {"status": "pending"}, 900, {"status": "open"}, 6, "tell"], [SOON]),
    "pending, and soon before": (HIGH, [46, {"status": "pending"}, 900, "tell"], [SOON]),
    "pending, and on, and late": (
        HIGH,
        [46, "tell", {"status": "pending"}, 900, "tell", {"status": "open"}, "tell", 15, "tell"],
        [SOON, LATE],
    ),
    "deleted": (HIGH, ["delete", 900, "tell"], []),
    "restored": (HIGH, ["delete", 900, "tell", "restore", "tell"], [SOON, LATE]),
    "moved ahead": (HIGH, [61, "tell", {"due_at": 200}, "tell", 80, "tell", 60, "tell"], [SOON, LATE, SOON, LATE]),
    "moved ahead by half": (HIGH, [46, "tell", {"type": "change"}, "tell", 23, "tell", 22, "tell"], [SOON, SOON, LATE]),
    "moved, and not ahead": (HIGH, [61, "tell", {"due_at": 59}, "tell"], [SOON, LATE]),
    "given, without a policy": ({"due_at": 100}, [39, "tell", 2, "tell", 60, "tell"], [SOON, LATE]),
    "given, and pending": ({**HIGH, "due_at": 100}, [{"status": "pending"}, 101, "tell"], [SOON, LATE]),
    "given, long ago": ({"due_at": "0001-01-01T00:00:00Z"}, ["tell"], [SOON, LATE]),
    "given, and far ahead": ({"due_at": "9999-12-31T23:59:59.999999Z"}, ["tell"], []),
    "given that there is none": (HIGH, [{"due_at": None}, 900, "tell"], []),
    "no policy any more": (HIGH, [{"sla_policy": None}, 900, "tell"], []),
}


# What is told is no matter of transports.
@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
@pytest.mark.parametrize("case", TOLD)
async def test_what_is_told(desk: Desk, case: str) -> None:
    members, steps, expected = TOLD[case]
    made = await desk.create(**members)
    await desk.play(made, steps)
    events = await desk.told(made)
    assert [
        f"{event['changes']['sla']['to']['target']} {event['type'].removeprefix('sla.')}" for event in events
    ] == expected


async def test_shorter_minutes_tell_nothing_of_what_was_met_in_time(own_desk: Desk) -> None:
    answered, resolved = await own_desk.create(**URGENT), await own_desk.create(**HIGH)
    await own_desk.play(answered, [10, "respond"])
    await own_desk.play(resolved, [40, "close"])
    await own_desk.promise("urgent", first_response_minutes=8)
    await own_desk.promise("high", resolution_minutes=30)
    for ticket in (answered, resolved):
        await own_desk.play(ticket, [6, "tell"])
        assert await own_desk.told(ticket) == []


async def test_what_is_shown_as_late_was_told(desk: Desk) -> None:
    made = await desk.create(**HIGH)
    await desk.play(made, [40, "close", 30, "tell", {"status": "resolved"}, 5, "tell"])
    is_told = any(event["type"] == "sla.breached" for event in await desk.told(made))
    assert (await desk.sla(made))["resolution"]["is_breached"] == is_told


async def test_who_watches_is_told_what_the_history_has(own_desk: Desk, rest: Rest) -> None:
    url = "/api/v1/helpdesk/events"
    async with asyncio.timeout(10), rest.client.stream("GET", url, headers=dict(own_desk.person)) as response:
        lines = response.aiter_lines()
        await anext(lines)
        made = await own_desk.create(**HIGH)
        await own_desk.play(made, [46, "tell"])
        seen = await get(own_desk.transport, own_desk.person, made)
        watched: list[Any] = []
        while len(watched) < 2:
            event = json.loads(await anext(lines))["event"]
            watched += [] if event is None else [event]
    [event] = await own_desk.told(made)
    assert watched[1] == event
    changes = {"sla": {"from": None, "to": {"target": "resolution", "due_at": event["changes"]["sla"]["to"]["due_at"]}}}
    assert (event["type"], event["changes"], event["version"]) == ("sla.due_soon", changes, 2)
    assert instant(event["changes"]["sla"]["to"]["due_at"]) == instant(seen["due_at"])
    # The ticket itself has not changed.
    assert instant(seen["updated_at"]) == instant(seen["created_at"])


async def test_many_who_tell_at_the_same_moment_tell_once(own_desk: Desk, database_url: str) -> None:
    # More than one of them takes at once.
    made = [await own_desk.create(**HIGH) for _ in range(60)]
    for ticket in made:
        own_desk.passes(ticket, minutes=61)
    others = [Database(Settings(database_url=database_url, pool_size=1), METADATA) for _ in range(4)]
    for other in others:
        await other.open()
    await asyncio.gather(*(notifier.emit_due_events(other) for other in others))
    for other in others:
        await other.close()
    own_desk.rows("SELECT 1 FROM helpdesk_tickets WHERE tenant_id = %s FOR UPDATE", made[0]["tenant_id"])
    sql = "SELECT array_agg(type ORDER BY version) FROM helpdesk_events WHERE tenant_id = %s GROUP BY ticket_id"
    told = own_desk.rows(sql, made[0]["tenant_id"])
    assert told == [(["ticket.created", "sla.due_soon", "sla.breached"],)] * 60
