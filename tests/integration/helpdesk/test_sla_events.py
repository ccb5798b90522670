"""contracts/helpdesk.md, SLA at both transports: the events of targets that are due soon or breached, once each."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from support.helpdesk import get
from support.helpdesk_sla import HIGH, URGENT, SlaTenant, Step, instant
from support.transports import Rest

from service.directory import METADATA
from service.helpdesk.sla import notifier
from service.settings import Settings
from service.storage.database import Database

# Of `high`: due soon at 45, due at 60. Of `urgent`: a response soon at 15, due at 20, soon at 180, due at 240.
SOON, LATE = "resolution due_soon", "resolution breached"
RESPONSE_SOON, RESPONSE_LATE = "first_response due_soon", "first_response breached"
EVENTS: Mapping[str, tuple[dict[str, Any], Sequence[Step], Sequence[str]]] = {
    "too early": (HIGH, [44, "emit"], []),
    "soon, once": (HIGH, [46, "emit", 5, "emit"], [SOON]),
    "and then late, once": (HIGH, [46, "emit", 15, "emit", 5, "emit"], [SOON, LATE]),
    "late before anybody looked: no warning": (HIGH, [61, "emit"], [LATE]),
    "each target": (
        URGENT,
        [16, "emit", 5, "emit", 160, "emit", 60, "emit"],
        [RESPONSE_SOON, RESPONSE_LATE, SOON, LATE],
    ),
    "both late": (URGENT, [241, "emit"], [RESPONSE_LATE, LATE]),
    "late by the policy that it gets": ({}, [241, URGENT, "emit"], [RESPONSE_LATE, LATE]),
    "a response ends its own target": (URGENT, [10, "respond", 180, "emit"], [SOON]),
    "a response after its warning": (URGENT, [16, "emit", "respond", 20, "emit"], [RESPONSE_SOON]),
    "a response that came late": (URGENT, ["unseen 21", "respond", 20, "emit"], [RESPONSE_LATE]),
    "answered before its warning": (URGENT, ["unseen 16", "respond", 20, "emit"], []),
    "resolved in time": (HIGH, [44, "close", 100, "emit"], []),
    "resolved late, before the notifier looked": (HIGH, ["unseen 61", {"status": "resolved"}, 50, "emit"], [LATE]),
    "resolved before its warning": (HIGH, ["unseen 46", "close", 50, "emit"], []),
    "resolved after its warning": (HIGH, [46, "emit", "close", 50, "emit"], [SOON]),
    "resolved in time, reopened": (URGENT, [10, "close", 900, {"status": "open"}, "emit", 1, "emit"], []),
    "then late": (HIGH, [40, "close", 60, {"status": "open"}, "emit", 6, "emit", 15, "emit"], [SOON, LATE]),
    "reopened and closed again": (HIGH, [40, "close", 60, {"status": "open"}, 10, "close", 60, "emit"], []),
    "reopened as pending": (HIGH, [40, "close", 60, {"status": "pending"}, "emit", 60, "emit"], []),
    "late, resolved, reopened": (HIGH, [61, "emit", "close", 60, {"status": "open"}, "emit"], [LATE]),
    "that was late is told once it is reopened": (HIGH, ["unseen 61", "close", 60, {"status": "open"}, "emit"], [LATE]),
    "a policy while it is resolved": ({}, [10, "close", 300, URGENT, "emit", {"status": "open"}, "emit"], []),
    "answered while it is resolved": (URGENT, [10, "close", 15, "respond", 5, {"status": "open"}, "emit"], []),
    "answered while pending": (
        URGENT,
        [10, {"status": "pending"}, 15, "respond", 5, {"status": "open"}, "emit"],
        [],
    ),
    "pending": (URGENT, [10, {"status": "pending"}, 900, "emit"], []),
    "pending, then open": (HIGH, [40, {"status": "pending"}, 900, {"status": "open"}, 6, "emit"], [SOON]),
    "pending, and due soon before": (HIGH, [46, {"status": "pending"}, 10, "emit"], [SOON]),
    "or once it goes on": (HIGH, [46, {"status": "pending"}, 900, "emit", {"status": "open"}, "emit"], [SOON]),
    "pending, past its instant": (HIGH, ["unseen 46", {"status": "pending"}, 900, "emit"], []),
    "pending, then open, then late": (
        HIGH,
        [46, "emit", {"status": "pending"}, 900, "emit", {"status": "open"}, "emit", 15, "emit"],
        [SOON, LATE],
    ),
    "deleted": (HIGH, ["delete", 900, "emit"], []),
    "restored: its clock ran on": (HIGH, ["delete", 900, "emit", "restore", "emit"], [LATE]),
    "moved later": (
        HIGH,
        [61, "emit", {"due_at": 200}, "emit", 80, "emit", 60, "emit"],
        [LATE, SOON, LATE],
    ),
    "half of it moved later": (
        HIGH,
        [46, "emit", {"type": "change"}, "emit", 23, "emit", 22, "emit"],
        [SOON, SOON, LATE],
    ),
    "moved, but still past": (HIGH, [61, "emit", {"due_at": 59}, "emit"], [LATE]),
    "given, without a policy": ({"due_at": 100}, [39, "emit", 2, "emit", 60, "emit"], [SOON, LATE]),
    "given, and late": ({**HIGH, "due_at": 100}, [101, "emit", {"status": "pending"}, 5, "emit"], [LATE]),
    "given, and pending": (
        {**HIGH, "due_at": 100},
        [{"status": "pending"}, 101, "emit", {"status": "open"}, "emit"],
        [],
    ),
    "given, and resolved in time": (
        {**HIGH, "due_at": 100},
        [30, "close", 101, "emit", {"status": "open"}, "emit"],
        [],
    ),
    "given, in half an hour": ({"due_at": 30}, ["emit"], [SOON]),
    "given, before the ticket": ({"due_at": -1}, ["emit"], []),
    "given, long ago": ({"due_at": "0001-01-01T00:00:00Z"}, ["emit"], []),
    "given when it was over": (HIGH, [30, {"due_at": 20}, "emit", 60, "emit"], []),
    "then given ahead": (HIGH, [30, {"due_at": 20}, {"due_at": 100}, "emit", 11, "emit", 60, "emit"], [SOON, LATE]),
    "then another policy": (HIGH, [30, {"due_at": 20}, 40, {"type": "change"}, "emit", 21, "emit"], [SOON, LATE]),
    "given, in the far future": ({"due_at": "9999-12-31T23:59:59.999999Z"}, ["emit"], []),
    "given as null": (HIGH, [{"due_at": None}, 900, "emit"], []),
    "without a policy since": (HIGH, [{"sla_policy": None}, 900, "emit"], []),
}


# Which events are emitted does not depend on the transport.
@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
@pytest.mark.parametrize("case", EVENTS)
async def test_which_events_are_emitted(tenant: SlaTenant, case: str) -> None:
    members, steps, expected = EVENTS[case]
    made = await tenant.create(**members)
    await tenant.play(made, steps)
    events = await tenant.emitted(made)
    assert [
        f"{event['changes']['sla']['to']['target']} {event['type'].removeprefix('sla.')}" for event in events
    ] == expected


async def test_shorter_targets_emit_nothing_for_what_was_met_in_time(own_tenant: SlaTenant) -> None:
    answered, resolved = await own_tenant.create(**URGENT), await own_tenant.create(**HIGH)
    await own_tenant.play(answered, [10, "respond"])
    await own_tenant.play(resolved, [40, "close"])
    await own_tenant.change_policy("urgent", first_response_minutes=8)
    await own_tenant.change_policy("high", resolution_minutes=30)
    for ticket in (answered, resolved):
        await own_tenant.play(ticket, [6, "emit"])
        assert await own_tenant.emitted(ticket) == []


async def test_a_target_shown_as_breached_has_emitted_its_event(tenant: SlaTenant) -> None:
    made = await tenant.create(**HIGH)
    await tenant.play(made, [40, "close", 30, "emit", {"status": "resolved"}, 5, "emit"])
    is_emitted = any(event["type"] == "sla.breached" for event in await tenant.emitted(made))
    assert (await tenant.sla(made))["resolution"]["is_breached"] == is_emitted


async def test_a_watch_streams_the_events_of_the_history(own_tenant: SlaTenant, rest: Rest) -> None:
    url = "/api/v1/helpdesk/events"
    async with asyncio.timeout(10), rest.client.stream("GET", url, headers=dict(own_tenant.person)) as response:
        lines = response.aiter_lines()
        await anext(lines)
        made = await own_tenant.create(**HIGH)
        await own_tenant.play(made, [46, "emit"])
        seen = await get(own_tenant.transport, own_tenant.person, made)
        watched: list[Any] = []
        while len(watched) < 2:
            event = json.loads(await anext(lines))["event"]
            watched += [] if event is None else [event]
    [event] = await own_tenant.emitted(made)
    assert watched[1] == event
    changes = {"sla": {"from": None, "to": {"target": "resolution", "due_at": event["changes"]["sla"]["to"]["due_at"]}}}
    assert (event["type"], event["changes"], event["version"]) == ("sla.due_soon", changes, 2)
    assert instant(event["changes"]["sla"]["to"]["due_at"]) == instant(seen["due_at"])
    # The ticket itself has not changed.
    assert instant(seen["updated_at"]) == instant(seen["created_at"])


async def test_concurrent_notifiers_emit_each_event_once(own_tenant: SlaTenant, database_url: str) -> None:
    # More than one batch.
    made = [await own_tenant.create(**HIGH) for _ in range(60)]
    for ticket in made:
        own_tenant.pass_time(ticket, minutes=61)
    others = [Database(Settings(database_url=database_url, pool_size=1), METADATA) for _ in range(4)]
    for other in others:
        await other.open()
    await asyncio.gather(*(notifier.emit_due_events(other) for other in others))
    for other in others:
        await other.close()
    own_tenant.rows("SELECT 1 FROM helpdesk_tickets WHERE tenant_id = %s FOR UPDATE", made[0]["tenant_id"])
    sql = "SELECT array_agg(type ORDER BY version) FROM helpdesk_events WHERE tenant_id = %s GROUP BY ticket_id"
    types = own_tenant.rows(sql, made[0]["tenant_id"])
    assert types == [(["ticket.created", "sla.breached"],)] * 60
