"""contracts/helpdesk.md, SLA at both transports: how the targets of a ticket stand, and who sees it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from support.helpdesk import get
from support.helpdesk_sla import FRIDAY, HIGH, URGENT, SlaTenant, Step, instant


def target(
    minutes: int | None, due: int, elapsed: int, left: int, met: int | None = None, **spans: Any
) -> dict[str, Any]:
    """A target as shown, in minutes since the ticket's creation; it is breached if `breached` is given."""
    breached = spans.pop("breached", None)
    shown = {"target_minutes": minutes, "due_at": due, "met_at": met}
    shown |= {"is_breached": breached is not None, "breached_at": breached}
    shown |= {"elapsed_seconds": elapsed, "remaining_seconds": left}
    return {**shown, "counted": [(0, elapsed)], "paused": [], **spans}


TWO_PAUSES: Sequence[Step] = [10, {"status": "pending"}, 30, {"status": "open"}, 5, {"status": "pending"}, 2]
TWO: dict[str, Any] = {"counted": [(0, 10), (40, 45)], "paused": [(10, 40), (45, None)]}
# The ticket created, what happens to it, and its two targets then.
SHOWN: Mapping[str, tuple[dict[str, Any], Sequence[Step], Any, Any]] = {
    "no policy": ({}, [30], None, None),
    "open": (URGENT, [10], target(20, 20, 10, 10), target(240, 240, 10, 230)),
    "no target for the first response": (HIGH, [10], None, target(60, 60, 10, 50)),
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
        target(None, 40, 10, 30, paused=[(10, None)]),
    ),
    "explicit, and late": ({**URGENT, "due_at": 10}, [15], target(20, 20, 15, 5), target(None, 10, 15, 0, breached=10)),
    "explicit, before the ticket": ({"due_at": -5}, [15], None, target(None, -5, 15, 0, breached=0)),
    "explicit, passed while pending": (
        {"due_at": 40},
        [10, {"status": "pending"}, 35, {"status": "open"}, 5],
        None,
        target(None, 40, 15, 0, counted=[(0, 10), (45, 50)], paused=[(10, 45)]),
    ),
    "reopened": (
        URGENT,
        [10, {"status": "resolved"}, 300, "close", 600, {"status": "open"}, 5],
        target(20, 920, 15, 5, counted=[(0, 10), (910, 915)], paused=[(10, 910)]),
        target(240, 1140, 15, 225, counted=[(0, 10), (910, 915)], paused=[(10, 910)]),
    ),
    "late, and reopened": (
        URGENT,
        [245, "close", 300, {"status": "open"}, 5],
        target(20, 20, 250, 0, breached=20, counted=[(0, 245), (545, 550)], paused=[(245, 545)]),
        target(240, 240, 250, 0, breached=240, counted=[(0, 245), (545, 550)], paused=[(245, 545)]),
    ),
    "pending, then resolved": (
        URGENT,
        [10, {"status": "pending"}, 30, "close", 7],
        target(20, 20, 10, 10, 40, paused=[(10, 40)]),
        target(240, 240, 10, 230, 40, paused=[(10, 40)]),
    ),
    "explicitly none": (URGENT, [{"due_at": None}, 10], target(20, 20, 10, 10), None),
    "explicit without a policy": ({"due_at": 40}, [10], None, target(None, 40, 10, 30)),
}


@pytest.mark.parametrize("case", SHOWN)
async def test_how_its_sla_stands(tenant: SlaTenant, case: str) -> None:
    members, steps, *expected = SHOWN[case]
    made = await tenant.create(**members)
    await tenant.play(made, steps)
    found, shown = await get(tenant.transport, tenant.person, made), await tenant.sla(made)
    policy = tenant.policy_name(found["sla_policy"])
    assert shown.pop("policy") == (None if policy is None else tenant.policies[policy])
    assert instant(shown.pop("as_of")) > instant(found["created_at"])
    for name in ("first_response", "resolution"):
        for member, value in (shown[name] or {}).items():
            if member.endswith("_at"):
                shown[name][member] = tenant.minutes(made, value)
            elif member.endswith("_seconds"):
                shown[name][member] = round(value / 60)
            elif member in ("counted", "paused"):
                shown[name][member] = [
                    tuple(tenant.minutes(made, span[end]) for end in ("start", "end")) for span in value
                ]
    first_response, resolution = expected
    assert shown == {
        "ticket_id": made["id"],
        "time_zone": None,
        "is_paused": found["status"] in ("pending", "resolved", "closed"),
        "first_response": first_response,
        "resolution": resolution,
    }


@pytest.mark.parametrize("members", [{}, {**URGENT, "sla_policy": "high"}], ids=["no policy", "no such target"])
async def test_a_response_before_its_target_existed_is_shown_with_the_due_instant(
    tenant: SlaTenant, members: dict[str, Any]
) -> None:
    made = await tenant.create(**members)
    await tenant.play(made, [5, "respond", {"sla_policy": "urgent"}])
    shown = (await tenant.sla(made))["first_response"]
    assert (shown["target_minutes"], tenant.minutes(made, shown["due_at"])) == (20, 20)


async def test_how_it_stands_in_business_hours(tenant: SlaTenant) -> None:
    made = await tenant.create(type="change")
    tenant.pass_time(made, seconds=(instant(made["created_at"]) - instant(FRIDAY)).total_seconds())
    await tenant.play(made, [{"priority": "low"}, "close"])
    tenant.rows("UPDATE helpdesk_tickets SET resolved_at = '2026-03-09T10:00:00Z' WHERE id = %s", made["id"])
    shown = await tenant.sla(made)
    assert (shown["time_zone"], shown["policy"]) == ("UTC", tenant.policies["office"])
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


async def test_readers_who_see_a_ticket_see_its_sla(own_tenant: SlaTenant) -> None:
    world, made = own_tenant.world, await own_tenant.create(**URGENT)
    tenant_id, id_ = made["tenant_id"], {"id": made["id"]}
    number = (
        await own_tenant.transport.call("helpdesk.sla", own_tenant.person, path={"id": made["number"]})
    ).succeeded()
    assert number["ticket_id"] == made["id"]
    for stranger in (world.person("read", "agent"), world.person("read", tenant_id=tenant_id, app_id="app_1")):
        (await own_tenant.transport.call("helpdesk.sla", stranger, path=id_)).failed("not_found", "Ticket not found")
    (await own_tenant.transport.call("helpdesk.sla", world.person("write", tenant_id=tenant_id), path=id_)).failed(
        "missing_scope"
    )
    for unknown in ("TKT-0002", f"tkt_{'0' * 26}", "x"):
        (await own_tenant.transport.call("helpdesk.sla", own_tenant.person, path={"id": unknown})).failed("not_found")
    await own_tenant.play(made, ["delete"])
    (await own_tenant.transport.call("helpdesk.sla", own_tenant.person, path=id_)).failed(
        "not_found", "Ticket not found"
    )
    await own_tenant.play(made, ["restore"])
    assert (await own_tenant.sla(made))["ticket_id"] == made["id"]


async def test_a_ticket_whose_clock_stands_still_does_not_become_overdue(own_tenant: SlaTenant) -> None:
    cases: Mapping[str, tuple[dict[str, Any], Sequence[Step]]] = {
        "late": (HIGH, [61]),
        "late before its pause": (HIGH, [61, {"status": "pending"}, 10]),
        "late before it was resolved": (HIGH, [61, "close", 10, {"status": "open"}]),
        "late in the time since it was reopened": (HIGH, [30, "close", 40, {"status": "open"}, 31]),
        "a given instant": (HIGH, [{"due_at": 59}, 61]),
        "a given instant before the ticket": ({"due_at": -5}, []),
        "not late: given, and pending": (HIGH, [{"due_at": 59, "status": "pending"}, 61]),
        "not late: given, and it was pending": (HIGH, [{"due_at": 59, "status": "pending"}, 61, {"status": "open"}]),
        "not late: pending": (HIGH, [30, {"status": "pending"}, 40]),
        "not late: it was pending": (HIGH, [30, {"status": "pending"}, 40, {"status": "open"}, 10]),
        "not late: it was resolved": (HIGH, [30, {"status": "resolved"}, 40, {"status": "open"}, 10]),
        "not late: in time": (HIGH, [59]),
        "not late: resolved": (HIGH, [61, {"status": "resolved"}]),
        "not late: no policy": ({}, [61]),
    }
    for title, (members, steps) in cases.items():
        await own_tenant.play(await own_tenant.create(title=title, **members), steps)
    reply = await own_tenant.transport.call(
        "helpdesk.list",
        own_tenant.person,
        query={"overdue": "true"} if own_tenant.transport.name == "rest" else {"overdue": True},
    )
    titles = {ticket["title"] for ticket in reply.succeeded()["tickets"]}
    assert titles == {title for title in cases if not title.startswith("not late")}
