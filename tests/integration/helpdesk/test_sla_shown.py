"""contracts/helpdesk.md, SLA at both transports: how the targets of a ticket stand, and who is shown it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx2
import pytest
from support.helpdesk import Door, get
from support.helpdesk_sla import FRIDAY, HIGH, URGENT, Desk, Founded, Step, Tools, founded, instant, tools_of
from support.system import World
from support.transports import Rest


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


def target(
    minutes: int | None, due: int, elapsed: int, left: int, met: int | None = None, **spans: Any
) -> dict[str, Any]:
    """A target as shown, in minutes since the ticket's creation; it is breached where it says since when."""
    breached = spans.pop("breached", None)
    shown = {"target_minutes": minutes, "due_at": due, "met_at": met}
    shown |= {"is_breached": breached is not None, "breached_at": breached}
    shown |= {"elapsed_seconds": elapsed, "remaining_seconds": left}
    return {**shown, "counted": [(0, elapsed)], "paused": [], **spans}


TWO_PAUSES: Sequence[Step] = [10, {"status": "pending"}, 30, {"status": "open"}, 5, {"status": "pending"}, 2]
TWO: dict[str, Any] = {"counted": [(0, 10), (40, 45)], "paused": [(10, 40), (45, None)]}
# What becomes of a ticket with the policy `urgent`, and its two targets then.
SHOWN: Mapping[str, tuple[dict[str, Any], Sequence[Step], Any, Any]] = {
    "no policy": ({}, [30], None, None),
    "open": (URGENT, [10], target(20, 20, 10, 10), target(240, 240, 10, 230)),
    "no response is promised": (HIGH, [10], None, target(60, 60, 10, 50)),
    "pending": (URGENT, TWO_PAUSES, target(20, 50, 15, 5, **TWO), target(240, 270, 15, 225, **TWO)),
    "breached": (URGENT, [245], target(20, 20, 245, 0, breached=20), target(240, 240, 245, 0, breached=240)),
    "pending, and breached before": (
        URGENT,
        [25, {"status": "pending"}, 30],
        target(20, 20, 25, 0, breached=20, paused=[(25, None)]),
        target(240, 240, 25, 215, paused=[(25, None)]),
    ),
    "met in time": (
        URGENT,
        [10, "respond", 20, "close", 900],
        target(20, 20, 10, 10, 10),
        target(240, 240, 30, 210, 30),
    ),
    "met late": (
        URGENT,
        [25, "respond", 300, {"status": "resolved"}, 5],
        target(20, 20, 25, 0, 25, breached=20),
        target(240, 240, 325, 0, 325, breached=240),
    ),
    "answered while pending": (
        URGENT,
        [10, {"status": "pending"}, 15, "respond", 5],
        target(20, 20, 10, 10, 25, paused=[(10, 25)]),
        target(240, 240, 10, 230, paused=[(10, None)]),
    ),
    "resolved before a first response": (
        URGENT,
        [10, "close", 900],
        target(20, 20, 10, 10, 10),
        target(240, 240, 10, 230, 10),
    ),
    "explicit": (
        {**URGENT, "due_at": 40},
        [10, {"status": "pending"}, 35],
        target(20, 20, 10, 10, paused=[(10, None)]),
        target(None, 40, 45, 0, breached=40),
    ),
    "explicitly none": (URGENT, [{"due_at": None}, 10], target(20, 20, 10, 10), None),
    "explicit without a policy": ({"due_at": 40}, [10], None, target(None, 40, 10, 30)),
}


@pytest.mark.parametrize("case", SHOWN)
async def test_how_its_sla_stands(desk: Desk, case: str) -> None:
    members, steps, *expected = SHOWN[case]
    made = await desk.create(**members)
    await desk.play(made, steps)
    found, shown = await get(desk.transport, desk.person, made), await desk.sla(made)
    policy = desk.name(found["sla_policy"])
    assert shown.pop("policy") == (None if policy is None else desk.policies[policy])
    assert instant(shown.pop("as_of")) > instant(found["created_at"])
    for name in ("first_response", "resolution"):
        for member, value in (shown[name] or {}).items():
            if member.endswith("_at"):
                shown[name][member] = desk.minutes(made, value)
            elif member.endswith("_seconds"):
                shown[name][member] = round(value / 60)
            elif member in ("counted", "paused"):
                shown[name][member] = [
                    tuple(desk.minutes(made, span[end]) for end in ("start", "end")) for span in value
                ]
    first_response, resolution = expected
    assert shown == {
        "ticket_id": made["id"],
        "time_zone": None,
        "is_paused": found["status"] == "pending",
        "first_response": first_response,
        "resolution": resolution,
    }


@pytest.mark.parametrize("members", [{}, {**URGENT, "sla_policy": "high"}], ids=["no policy", "no such promise"])
async def test_a_response_before_it_was_promised_is_shown_with_what_it_is_due_by(
    desk: Desk, members: dict[str, Any]
) -> None:
    made = await desk.create(**members)
    await desk.play(made, [5, "respond", {"sla_policy": "urgent"}])
    shown = (await desk.sla(made))["first_response"]
    assert (shown["target_minutes"], desk.minutes(made, shown["due_at"])) == (20, 20)


async def test_how_it_stands_in_business_hours(desk: Desk) -> None:
    made = await desk.create(type="change")
    desk.passes(made, seconds=(instant(made["created_at"]) - instant(FRIDAY)).total_seconds())
    await desk.play(made, [{"priority": "low"}, "close"])
    desk.rows("UPDATE helpdesk_tickets SET resolved_at = '2026-03-09T10:00:00Z' WHERE id = %s", made["id"])
    shown = await desk.sla(made)
    assert (shown["time_zone"], shown["policy"]) == ("UTC", desk.policies["office"])
    assert shown["resolution"] == {
        "target_minutes": 60,
        "due_at": "2026-03-09T09:30:00Z",
        "met_at": "2026-03-09T10:00:00Z",
        "is_breached": True,
        "breached_at": "2026-03-09T09:30:00Z",
        "elapsed_seconds": 5400,
        "remaining_seconds": 0,
        "counted": [
            {"start": FRIDAY, "end": "2026-03-06T17:00:00Z"},
            {"start": "2026-03-09T09:00:00Z", "end": "2026-03-09T10:00:00Z"},
        ],
        "paused": [],
    }


async def test_who_sees_a_ticket_and_may_read_sees_its_sla(own_desk: Desk) -> None:
    world, made = own_desk.world, await own_desk.create(**URGENT)
    tenant_id, id_ = made["tenant_id"], {"id": made["id"]}
    number = (await own_desk.transport.call("helpdesk.sla", own_desk.person, path={"id": made["number"]})).succeeded()
    assert number["ticket_id"] == made["id"]
    for stranger in (world.person("read", "agent"), world.person("read", tenant_id=tenant_id, app_id="app_1")):
        (await own_desk.transport.call("helpdesk.sla", stranger, path=id_)).failed("not_found", "Ticket not found")
    (await own_desk.transport.call("helpdesk.sla", world.person("write", tenant_id=tenant_id), path=id_)).failed(
        "missing_scope"
    )
    for unknown in ("TKT-0002", f"tkt_{'0' * 26}", "x"):
        (await own_desk.transport.call("helpdesk.sla", own_desk.person, path={"id": unknown})).failed("not_found")
    await own_desk.play(made, ["delete"])
    (await own_desk.transport.call("helpdesk.sla", own_desk.person, path=id_)).failed("not_found", "Ticket not found")
    await own_desk.play(made, ["restore"])
    assert (await own_desk.sla(made))["ticket_id"] == made["id"]


async def test_a_ticket_whose_clock_stands_still_does_not_become_overdue(own_desk: Desk) -> None:
    cases: Mapping[str, tuple[dict[str, Any], Sequence[Step]]] = {
        "late": (HIGH, [61]),
        "late before its pause": (HIGH, [61, {"status": "pending"}, 10]),
        "a given instant": (HIGH, [{"due_at": 59, "status": "pending"}, 61]),
        "not late: pending": (HIGH, [30, {"status": "pending"}, 40]),
        "not late: it was pending": (HIGH, [30, {"status": "pending"}, 40, {"status": "open"}, 10]),
        "not late: in time": (HIGH, [59]),
        "not late: resolved": (HIGH, [61, {"status": "resolved"}]),
        "not late: no policy": ({}, [61]),
    }
    for title, (members, steps) in cases.items():
        await own_desk.play(await own_desk.create(title=title, **members), steps)
    reply = await own_desk.transport.call(
        "helpdesk.list",
        own_desk.person,
        query={"overdue": "true"} if own_desk.transport.name == "rest" else {"overdue": True},
    )
    titles = {ticket["title"] for ticket in reply.succeeded()["tickets"]}
    assert titles == {title for title in cases if not title.startswith("not late")}
