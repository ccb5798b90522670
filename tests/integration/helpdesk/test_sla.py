"""contracts/helpdesk.md, SLA at both transports: which policy a ticket has, and when it is due."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from support.helpdesk import create, get, update
from support.helpdesk_sla import FRIDAY, HIGH, POLICIES, URGENT, WEEKDAYS, SlaTenant, Step, instant

# Which policy


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"priority": "urgent"}, "urgent"),
        ({"priority": "urgent", "type": "service_request"}, "urgent"),
        ({"priority": "high"}, "high"),
        ({"priority": "high", "type": "change"}, "change"),
        ({"priority": "high", "type": "service_request"}, None),
        ({"priority": "low", "type": "incident"}, None),
        ({}, None),
        ({"sla_policy": None, "priority": "urgent"}, "urgent"),
        ({"sla_policy": "urgent"}, "urgent"),
        ({"sla_policy": "high", "priority": "urgent", "type": "change"}, "high"),
    ],
    ids=str,
)
async def test_the_policy_is_the_given_one_or_the_active_one_for_priority_and_type(
    tenant: SlaTenant, members: dict[str, Any], expected: str | None
) -> None:
    made = await tenant.create(**members)
    assert tenant.policy_name(made["sla_policy"]) == expected
    due_at = None
    if expected is not None:
        due_at = instant(made["created_at"]) + timedelta(minutes=POLICIES[expected]["resolution_minutes"])
    assert (made["due_at"] and instant(made["due_at"])) == due_at


async def test_a_policy_that_is_given_must_be_an_active_one_of_the_tenant(tenant: SlaTenant) -> None:
    stranger = tenant.world.person("write", "agent")
    made = await tenant.create()
    theirs = await create(tenant.transport, stranger, priority="urgent")
    assert theirs["sla_policy"] is None
    for sla_policy in (tenant.policies["old"]["id"], "sla_1"):
        body = {"title": "VPN", "sla_policy": sla_policy}
        (await tenant.transport.call("helpdesk.create", tenant.person, body=body)).failed(
            "validation_error", paths=["sla_policy"]
        )
        (await update(tenant.transport, tenant.agent, made, sla_policy=sla_policy)).failed(
            "validation_error", paths=["sla_policy"]
        )
    reply = await update(tenant.transport, stranger, theirs, sla_policy=tenant.policies["urgent"]["id"])
    reply.failed("validation_error", paths=["sla_policy"])


# When it is due: the ticket created, what happens to it, then its policy, and the minutes since its creation.
PAUSED: Sequence[Step] = [30, {"status": "pending"}, 20]
DUE: Mapping[str, tuple[dict[str, Any], Sequence[Step], str | None, int | None]] = {
    "pending: it stands still": (URGENT, PAUSED, "urgent", 240),
    "open again: moved by the pause": (URGENT, [*PAUSED, {"status": "open"}], "urgent", 260),
    "or in progress": (URGENT, [*PAUSED, {"status": "in_progress"}, 10], "urgent", 260),
    "but not by then resolved": (URGENT, [*PAUSED, {"status": "resolved"}], "urgent", 240),
    "or closed": (URGENT, [*PAUSED, {"status": "closed"}], "urgent", 240),
    "or closed by its operation": (URGENT, [*PAUSED, "close"], "urgent", 240),
    "until it goes on": (URGENT, [*PAUSED, "close", 5, {"status": "open"}], "urgent", 265),
    "created as pending": ({**URGENT, "status": "pending"}, [20, {"status": "open"}], "urgent", 260),
    "pending twice": (
        URGENT,
        [*PAUSED, {"status": "open"}, 5, {"status": "pending"}, 31, {"status": "in_progress"}],
        "urgent",
        291,
    ),
    "pending is repeated": (URGENT, [*PAUSED, {"status": "pending"}, 5, {"status": "open"}], "urgent", 265),
    "deleted while pending": (URGENT, [*PAUSED, "delete", 5, "restore", {"status": "open"}], "urgent", 265),
    "no other status pauses": (URGENT, [{"status": "in_progress"}, 20, {"status": "open"}], "urgent", 240),
    "resolved: it stands still": (URGENT, [30, {"status": "resolved"}, 20], "urgent", 240),
    "reopened: moved by the time it was resolved": (
        URGENT,
        [30, {"status": "resolved"}, 20, {"status": "open"}, 10],
        "urgent",
        260,
    ),
    "reopened after years": (URGENT, ["close", 1_000_000, {"status": "in_progress"}], "urgent", 1_000_240),
    "resolved, then closed": (
        URGENT,
        [{"status": "resolved"}, 7, "close", 20, {"status": "resolved"}, 3, {"status": "open"}],
        "urgent",
        270,
    ),
    "created as resolved": ({**URGENT, "status": "resolved"}, [20, {"status": "open"}], "urgent", 260),
    "reopened as pending": (URGENT, ["close", 20, {"status": "pending"}], "urgent", 240),
    "then open": (URGENT, ["close", 20, {"status": "pending"}, 7, {"status": "open"}], "urgent", 267),
    "reopened twice": (
        URGENT,
        ["close", 20, {"status": "open"}, 5, {"status": "resolved"}, 9, {"status": "open"}],
        "urgent",
        269,
    ),
    "another priority keeps the pause": (URGENT, [*PAUSED, {"status": "open"}, {"priority": "high"}], "high", 80),
    "in one change": (URGENT, [*PAUSED, {"status": "open", "priority": "high"}], "high", 80),
    "another type, too": (
        HIGH,
        [*PAUSED, {"status": "open"}, {"type": "change"}, 1, {"status": "pending"}, 5, {"status": "open"}],
        "change",
        115,
    ),
    "another policy, too": (URGENT, [*PAUSED, {"status": "open"}, {"sla_policy": "change"}], "change", 110),
    "while pending": (URGENT, [*PAUSED, {"priority": "high"}], "high", 60),
    "while pending, then open": (URGENT, [*PAUSED, {"priority": "high"}, 5, {"status": "open"}], "high", 85),
    "of a ticket that had none": ({}, [*PAUSED, {"status": "open"}, URGENT], "urgent", 260),
    "to a priority without a policy": (URGENT, [{"priority": "medium"}], None, None),
    "to a type without a policy": (HIGH, [{"type": "service_request"}], None, None),
    "resolved tickets, too": (URGENT, ["close", 20, {"priority": "high"}], "high", 60),
    "and reopened": (URGENT, ["close", 20, {"priority": "high"}, 5, {"status": "open"}], "high", 85),
    "a first policy while it is resolved": ({}, [5, "close", 20, URGENT, {"status": "open"}], "urgent", 260),
    "a given policy stays": ({**URGENT, "sla_policy": "change"}, [{"priority": "high"}], "change", 90),
    "one given later, too": (URGENT, [{"sla_policy": "change"}, {"priority": "high"}], "change", 90),
    "null clears both": (URGENT, [{"sla_policy": None}], None, None),
    "null stays": (URGENT, [{"sla_policy": None}, {"priority": "high"}], None, None),
    "explicit": ({**URGENT, "due_at": 500}, [], "urgent", 500),
    "explicit later": (URGENT, [{"due_at": 500}], "urgent", 500),
    "explicit with another priority": (URGENT, [{"priority": "high", "due_at": 500}], "high", 500),
    "explicit, not moved by a pause": (URGENT, [{"due_at": 500}, *PAUSED, {"status": "open"}], "urgent", 500),
    "explicit, not moved by a resolution": (URGENT, [{"due_at": 500}, "close", 20, {"status": "open"}], "urgent", 500),
    "explicit while pending": (URGENT, [*PAUSED, {"due_at": 500}, 20, {"status": "open"}], "urgent", 500),
    "explicitly none": (URGENT, [{"due_at": None}, *PAUSED, "close", {"status": "open"}], "urgent", None),
    "until the priority changes": ({**URGENT, "due_at": 500}, [{"priority": "high"}], "high", 60),
    "until the type changes": (URGENT, [{"due_at": 500}, {"type": "problem"}], "urgent", 240),
    "until the policy changes": (URGENT, [{"due_at": None}, {"sla_policy": "high"}], "high", 60),
    "until there is no policy": (URGENT, [{"due_at": 500}, {"sla_policy": None}], None, None),
    "until there is one": ({"due_at": 500}, [URGENT], "urgent", 240),
    "explicit without a policy": ({"due_at": 500}, [{"priority": "low"}, {"type": "problem"}], None, 500),
    "the same once more": ({**URGENT, "due_at": 500}, [{**URGENT, "type": "incident"}], "urgent", 500),
    "the same policy once more": (URGENT, [{"due_at": 500}, {"sla_policy": "urgent"}], "urgent", 500),
}


@pytest.mark.parametrize("case", DUE)
async def test_when_it_is_due(tenant: SlaTenant, case: str) -> None:
    members, steps, policy, due = DUE[case]
    made = await tenant.create(**members)
    await tenant.play(made, steps)
    found = await get(tenant.transport, tenant.person, made)
    assert (tenant.policy_name(found["sla_policy"]), tenant.minutes(found, found["due_at"])) == (policy, due)


@pytest.mark.parametrize("members", [{}, {"priority": "high"}], ids=["no policy", "policy"])
async def test_members_that_a_patch_repeats_do_not_count_as_given(tenant: SlaTenant, members: dict[str, Any]) -> None:
    """A form that is sent whole repeats the members that it does not change."""
    made = await tenant.create(**members)
    whole = {name: made[name] for name in ("sla_policy", "due_at")} | URGENT
    changed = (await update(tenant.transport, tenant.agent, made, **whole)).succeeded()
    assert (tenant.policy_name(changed["sla_policy"]), tenant.minutes(changed, changed["due_at"])) == (
        "urgent",
        240,
    )


# When in business hours. From 2026-03-29 on Berlin is two hours ahead of UTC.
NINE_TO_FIVE = [{"weekday": weekday, "start": "09:00", "end": "17:00"} for weekday in WEEKDAYS]
CALENDARS: Mapping[str, tuple[dict[str, Any], str, str | None]] = {
    "the default": ({}, FRIDAY, "2026-03-09T09:30:00Z"),
    "with a holiday": ({"holidays": ["2026-03-09"]}, FRIDAY, "2026-03-10T09:30:00Z"),
    "elsewhere": (
        {"time_zone": "Europe/Berlin", "hours": NINE_TO_FIVE},
        "2026-03-27T15:30:00Z",
        "2026-03-30T07:30:00Z",
    ),
    "never": ({"hours": []}, FRIDAY, None),
}


@pytest.mark.parametrize("case", CALENDARS)
async def test_business_hours_are_those_of_the_calendar(own_tenant: SlaTenant, case: str) -> None:
    calendar, created_at, due_at = CALENDARS[case]
    if calendar:
        (await own_tenant.transport.call("helpdesk.update_calendar", own_tenant.agent, body=calendar)).succeeded()
    made = await own_tenant.create(type="change")
    own_tenant.pass_time(made, seconds=(instant(made["created_at"]) - instant(created_at)).total_seconds())
    assert (await own_tenant.change(made, priority="low"))["due_at"] == due_at


# When the terms change


async def test_other_minutes_of_a_policy_move_due_at_of_unresolved_tickets(own_tenant: SlaTenant) -> None:
    moved = [await own_tenant.create(**URGENT), await own_tenant.create(**URGENT, status="pending")]
    deleted = await own_tenant.create(**URGENT)
    others: list[tuple[dict[str, Any], Sequence[Step]]] = [
        (URGENT, [{"status": "resolved"}]),
        (URGENT, ["close"]),
        ({**URGENT, "due_at": 500}, []),
        (URGENT, [{"due_at": None}]),
        (HIGH, []),
    ]
    kept = [await own_tenant.create(**members) for members, _ in others]
    for ticket, (_, steps) in zip(kept, others, strict=True):
        await own_tenant.play(ticket, steps)
    await own_tenant.play(deleted, ["delete"])
    before = [await get(own_tenant.transport, own_tenant.person, ticket) for ticket in kept]
    for changes in ({"name": "Now", "description": "More"}, {"resolution_minutes": 300}):
        await own_tenant.change_policy("urgent", **changes)
        for ticket in (*moved, deleted):
            await own_tenant.emit(ticket)
    assert [await get(own_tenant.transport, own_tenant.person, ticket) for ticket in kept] == before
    # A deleted ticket emits nothing until it is restored.
    assert own_tenant.stamp(deleted, "due_at") == instant(deleted["due_at"])
    await own_tenant.play(deleted, ["restore", "emit"])
    for ticket in (*moved, deleted):
        found = await get(own_tenant.transport, own_tenant.person, ticket)
        assert instant(found["due_at"]) == instant(ticket["due_at"]) + timedelta(minutes=60)
        assert found["updated_at"] > ticket["updated_at"]
        [event] = await own_tenant.emitted(ticket)
        assert event["type"] == "ticket.updated"
        assert event["changes"].keys() == {"due_at"}
        was_and_is = [instant(event["changes"]["due_at"][side]) for side in ("from", "to")]
        assert was_and_is == [instant(ticket["due_at"]), instant(found["due_at"])]


async def test_another_calendar_moves_due_at_of_tickets_that_count_business_hours(own_tenant: SlaTenant) -> None:
    by_hours, by_all = await own_tenant.create(type="change", priority="low"), await own_tenant.create(**URGENT)
    resolved = await own_tenant.create(type="change", priority="low", status="resolved")
    every_day = [{"weekday": day, "start": "00:00", "end": "24:00"} for day in (*WEEKDAYS, "saturday", "sunday")]
    for hours in ([], every_day):
        (
            await own_tenant.transport.call("helpdesk.update_calendar", own_tenant.agent, body={"hours": hours})
        ).succeeded()
        await own_tenant.emit(by_hours)
        found = await get(own_tenant.transport, own_tenant.person, by_hours)
        assert own_tenant.minutes(found, found["due_at"]) == (60 if hours else None)
    assert [event["type"] for event in await own_tenant.emitted(by_hours)] == ["ticket.updated"] * 2
    for ticket in (by_all, resolved):
        assert await get(own_tenant.transport, own_tenant.person, ticket) == ticket


# What the previous version has left

# The status of a ticket at its creation, its moves by the minute, what was kept of its pauses, and when it is due.
LEFT: Sequence[tuple[str, Mapping[int, str], Sequence[tuple[int, int]], int]] = (
    ("open", {10: "closed", 70: "open"}, [], 300),
    ("resolved", {30: "in_progress", 35: "closed", 45: "open"}, [], 280),
    ("open", {10: "resolved", 20: "closed", 40: "pending", 50: "open"}, [(40, 50)], 280),
    ("open", {10: "pending", 20: "open"}, [(10, 20)], 250),
)


@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
async def test_a_migration_finds_in_the_history_when_reopened_tickets_were_resolved(own_tenant: SlaTenant) -> None:
    made = [await own_tenant.create(**URGENT, status=status) for status, _, _, _ in LEFT]
    key = "WHERE tenant_id = %s AND ticket_id = %s"
    for ticket, (_, moves, pauses, _) in zip(made, LEFT, strict=True):
        await own_tenant.play(ticket, [{"status": status} for status in moves.values()])
        own_tenant.pass_time(ticket, minutes=100)
        created_at, tenant_id, id_ = own_tenant.stamp(ticket, "created_at"), ticket["tenant_id"], ticket["id"]
        for version, minute in enumerate(moves, 2):
            at = created_at + timedelta(minutes=minute)
            own_tenant.rows(
                f"UPDATE helpdesk_events SET created_at = %s {key} AND version = %s", at, tenant_id, id_, version
            )
        own_tenant.rows(f"DELETE FROM helpdesk_pauses {key}", tenant_id, id_)
        for pause in pauses:
            bounds = [created_at + timedelta(minutes=minute) for minute in pause]
            own_tenant.rows("INSERT INTO helpdesk_pauses VALUES (%s, %s, %s, %s)", tenant_id, id_, *bounds)
    statement = import_module("service.migrations.versions.0015_pauses_while_resolved").PAUSES
    for bound, id_ in ((":first", ""), (":last", "~")):
        statement = statement.replace(bound, f"('{made[0]['tenant_id']}', '{id_}')")
    # Once more changes nothing.
    for _ in range(2):
        own_tenant.rows(statement)
    for ticket, (*_, due) in zip(made, LEFT, strict=True):
        await own_tenant.emit(ticket)
        found = await get(own_tenant.transport, own_tenant.person, ticket)
        assert own_tenant.minutes(ticket, found["due_at"]) == due


# It stamps `paused_at` of pending tickets alone. Of one that this version resolved it ends the pause when it closes it.
PREVIOUS = {
    "resolved it": ("UPDATE helpdesk_tickets SET paused_at = NULL WHERE id = %s",),
    "closed it": (
        "INSERT INTO helpdesk_pauses SELECT tenant_id, id, paused_at, now() FROM helpdesk_tickets WHERE id = %s",
        "UPDATE helpdesk_tickets SET paused_at = NULL WHERE id = %s",
    ),
}


@pytest.mark.parametrize("transport", ["grpc"], indirect=True)
@pytest.mark.parametrize("case", PREVIOUS)
async def test_a_ticket_that_the_previous_version_resolved_stands_still_since_then(
    tenant: SlaTenant, case: str
) -> None:
    made = await tenant.create(**URGENT)
    await tenant.play(made, [10, {"status": "resolved"}, 5])
    for statement in PREVIOUS[case]:
        tenant.rows(statement, made["id"])
    assert (await tenant.sla(made))["is_paused"] is True
    # Once more, so that what was written of the first time counts.
    await tenant.play(made, [15, {"status": "open"}, 5, {"status": "pending"}, 1, {"status": "open"}])
    found = await get(tenant.transport, tenant.person, made)
    assert tenant.minutes(made, found["due_at"]) == 261
