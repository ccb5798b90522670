"""contracts/helpdesk.md, SLA at both doors: which policy, when it is due, what pauses do, what is shown and told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from desk import Door, create, get, update
from harness import Rest
from system import Credential, World

from service.database import Database
from service.directory import METADATA
from service.helpdesk import levels
from service.settings import Settings

# What each tenant here promises, by names of ours. None is for priority `medium`.
POLICIES: Mapping[str, Mapping[str, Any]] = {
    "urgent": {"priority": "urgent", "first_response_minutes": 20, "resolution_minutes": 240},
    "high": {"priority": "high", "applies_to": ["incident", "problem"], "resolution_minutes": 60},
    "change": {"priority": "high", "applies_to": ["change"], "resolution_minutes": 90},
    "office": {"priority": "low", "resolution_minutes": 60, "business_hours_only": True, "applies_to": ["change"]},
    "old": {"priority": "low", "resolution_minutes": 60, "status": "inactive"},
}
# Time passes when every stamp of a ticket moves back.
STAMPS = "created_at updated_at paused_at due_at first_response_due_at resolved_at first_response_at sla_look_at"

# Minutes pass (`unseen`: before anybody may tell); or a word for what happens; or a change by PATCH, with names of
# policies, and a `due_at` in minutes since the ticket's creation.
Step = int | dict[str, Any] | str
Rows = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Settings(database_url=database_url, pool_size=1), METADATA)
    await database.open()
    yield database
    await database.close()


@pytest.fixture(scope="module")
def rows(database_url: str) -> Iterator[Rows]:
    """Runs SQL on the database itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:

        def rows(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

        yield rows


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


@dataclass
class Desk:
    """A tenant with the policies above."""

    door: Door
    world: World
    database: Database
    rows: Rows
    tenant_id: str
    policies: Mapping[str, Any]

    @property
    def agent(self) -> Credential:
        return self.world.person("read", "write", "agent", tenant_id=self.tenant_id, sub="per_agent")

    @property
    def person(self) -> Credential:
        return self.world.person("read", "write", tenant_id=self.tenant_id)

    async def create(self, **members: Any) -> Any:
        [(now,)] = self.rows("SELECT now()")
        return await create(self.door, self.person, **self._written(members, now))

    async def change(self, ticket: Any, **changes: Any) -> Any:
        written = self._written(changes, self.stamp(ticket, "created_at"))
        return (await update(self.door, self.agent, ticket, **written)).succeeded()

    def stamp(self, ticket: Any, name: str) -> Any:
        [(stamp,)] = self.rows(f"SELECT {name} FROM helpdesk_tickets WHERE id = %s", ticket["id"])
        return stamp

    def passes(self, ticket: Any, *, stamps: str = STAMPS, **time: float) -> None:
        by = f"interval '{timedelta(**time).total_seconds()} seconds'"
        pauses, moves = (
            ", ".join(f"{name} = {name} - {by}" for name in names.split()) for names in ("started_at ended_at", stamps)
        )
        first = f"WITH pauses AS (UPDATE helpdesk_pauses SET {pauses} WHERE ticket_id = %s)"
        self.rows(f"{first} UPDATE helpdesk_tickets SET {moves} WHERE id = %s", ticket["id"], ticket["id"])

    async def tell(self, ticket: Any) -> None:
        """What the service does every few seconds. If it is at that right now, it is waited for."""
        await levels.tell(self.database)
        self.rows("SELECT 1 FROM helpdesk_tickets WHERE id = %s FOR UPDATE", ticket["id"])

    async def play(self, ticket: Any, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, int):
                self.passes(ticket, minutes=step)
            elif isinstance(step, dict):
                await self.change(ticket, **step)
            elif step.startswith("unseen "):
                stamps = STAMPS.removesuffix(" sla_look_at")
                self.passes(ticket, stamps=stamps, minutes=int(step.removeprefix("unseen ")))
            elif step == "tell":
                await self.tell(ticket)
            else:
                operation, body = ("comment", {"body": "Hello"}) if step == "respond" else (step, None)
                call = self.door.call(f"helpdesk.{operation}", self.agent, path={"id": ticket["id"]}, body=body)
                (await call).succeeded(201 if step == "respond" else 200)

    async def promise(self, policy: str, **changes: Any) -> None:
        path = {"id": self.policies[policy]["id"]}
        (await self.door.call("helpdesk.update_policy", self.agent, path=path, body=changes)).succeeded()

    async def sla(self, ticket: Any) -> Any:
        return (await self.door.call("helpdesk.sla", self.person, path={"id": ticket["id"]})).succeeded()

    async def told(self, ticket: Any) -> list[Any]:
        """The SLA's part of the history."""
        reply = await self.door.call("helpdesk.events", self.person, path={"id": ticket["id"]}, query={"limit": 100})
        events = reply.succeeded()["events"]
        assert [event["version"] for event in events] == list(range(1, len(events) + 1))
        return [event for event in events if event["actor"] == "system"]

    def _written(self, members: Mapping[str, Any], created_at: datetime) -> dict[str, Any]:
        written = dict(members)
        if written.get("sla_policy") in self.policies:
            written["sla_policy"] = self.policies[written["sla_policy"]]["id"]
        if isinstance(written.get("due_at"), int):
            written["due_at"] = (created_at + timedelta(minutes=written["due_at"])).isoformat()
        return written

    def minutes(self, ticket: Any, text: str | None) -> int | None:
        """From its creation, to the nearest minute: calls take a moment, too."""
        if text is None:
            return None
        since: timedelta = instant(text) - self.stamp(ticket, "created_at")
        return round(since.total_seconds() / 60)

    def name(self, policy_id: str | None) -> str | None:
        return None if policy_id is None else next(n for n, made in self.policies.items() if made["id"] == policy_id)


async def founded(door: Door, world: World) -> tuple[str, Mapping[str, Any]]:
    """A tenant with the policies."""
    tenant_id = f"ten_{uuid4().hex}"
    agent = world.person("agent", tenant_id=tenant_id)
    bodies = {name: {"name": name, **members} for name, members in POLICIES.items()}
    calls = {name: await door.call("helpdesk.create_policy", agent, body=body) for name, body in bodies.items()}
    return tenant_id, {name: reply.succeeded(201) for name, reply in calls.items()}


@pytest.fixture(scope="module")
async def tenant(client: httpx.AsyncClient, world: World) -> tuple[str, Mapping[str, Any]]:
    return await founded(Rest(client), world)


@pytest.fixture
def desk(door: Door, world: World, database: Database, rows: Rows, tenant: tuple[str, Mapping[str, Any]]) -> Desk:
    """For tests that leave policies and calendar as they are."""
    return Desk(door, world, database, rows, *tenant)


@pytest.fixture
async def own_desk(door: Door, world: World, database: Database, rows: Rows) -> Desk:
    """With a tenant of its own."""
    return Desk(door, world, database, rows, *await founded(door, world))


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
    desk: Desk, members: dict[str, Any], expected: str | None
) -> None:
    made = await desk.create(**members)
    assert desk.name(made["sla_policy"]) == expected
    due_at = None
    if expected is not None:
        due_at = instant(made["created_at"]) + timedelta(minutes=POLICIES[expected]["resolution_minutes"])
    assert (made["due_at"] and instant(made["due_at"])) == due_at


async def test_a_policy_that_is_given_must_be_an_active_one_of_the_tenant(desk: Desk) -> None:
    stranger = desk.world.person("read", "write")
    made = await desk.create()
    theirs = await create(desk.door, stranger, priority="urgent")
    assert theirs["sla_policy"] is None
    for sla_policy in (desk.policies["old"]["id"], "sla_1"):
        body = {"title": "VPN", "sla_policy": sla_policy}
        (await desk.door.call("helpdesk.create", desk.person, body=body)).failed(
            "validation_error", paths=["sla_policy"]
        )
        (await update(desk.door, desk.agent, made, sla_policy=sla_policy)).failed(
            "validation_error", paths=["sla_policy"]
        )
    reply = await update(desk.door, stranger, theirs, sla_policy=desk.policies["urgent"]["id"])
    reply.failed("validation_error", paths=["sla_policy"])


# When it is due: what is created, what becomes of it, and then its policy, and minutes from its creation.
URGENT, HIGH = {"priority": "urgent"}, {"priority": "high"}
PAUSED: Sequence[Step] = [30, {"status": "pending"}, 20]
DUE: Mapping[str, tuple[dict[str, Any], Sequence[Step], str | None, int | None]] = {
    "pending stands still": (URGENT, PAUSED, "urgent", 240),
    "a pause moves it when it is open again": (URGENT, [*PAUSED, {"status": "open"}], "urgent", 260),
    "or in progress": (URGENT, [*PAUSED, {"status": "in_progress"}, 10], "urgent", 260),
    "or resolved": (URGENT, [*PAUSED, {"status": "resolved"}], "urgent", 260),
    "or closed": (URGENT, [*PAUSED, {"status": "closed"}], "urgent", 260),
    "or closed by its operation": (URGENT, [*PAUSED, "close"], "urgent", 260),
    "created as pending": ({**URGENT, "status": "pending"}, [20, {"status": "open"}], "urgent", 260),
    "pending twice": (URGENT, [*PAUSED, {"status": "open"}, 5, {"status": "pending"}, 31, "close"], "urgent", 291),
    "pending is said again": (URGENT, [*PAUSED, {"status": "pending"}, 5, {"status": "open"}], "urgent", 265),
    "deleted while pending": (URGENT, [*PAUSED, "delete", 5, "restore", {"status": "open"}], "urgent", 265),
    "no other status pauses": (URGENT, [{"status": "in_progress"}, 20, {"status": "open"}], "urgent", 240),
    "reopened, it was not paused": (URGENT, ["close", 20, {"status": "open"}], "urgent", 240),
    "reopened as pending": (URGENT, ["close", 20, {"status": "pending"}, 7, {"status": "open"}], "urgent", 247),
    "another priority keeps the pause": (URGENT, [*PAUSED, {"status": "open"}, {"priority": "high"}], "high", 80),
    "in one change": (URGENT, [*PAUSED, {"status": "open", "priority": "high"}], "high", 80),
    "another type, too": (
        HIGH,
        [*PAUSED, {"status": "open"}, {"type": "change"}, 1, {"status": "pending"}, 5, "close"],
        "change",
        115,
    ),
    "another policy, too": (URGENT, [*PAUSED, {"status": "open"}, {"sla_policy": "change"}], "change", 110),
    "while pending": (URGENT, [*PAUSED, {"priority": "high"}], "high", 60),
    "while pending, and on": (URGENT, [*PAUSED, {"priority": "high"}, 5, {"status": "open"}], "high", 85),
    "of a ticket that had none": ({}, [*PAUSED, {"status": "open"}, URGENT], "urgent", 260),
    "to a priority that has none": (URGENT, [{"priority": "medium"}], None, None),
    "to a type that has none": (HIGH, [{"type": "service_request"}], None, None),
    "resolved tickets, too": (URGENT, ["close", {"priority": "high"}], "high", 60),
    "a given policy stays": ({**URGENT, "sla_policy": "change"}, [{"priority": "high"}], "change", 90),
    "one given later, too": (URGENT, [{"sla_policy": "change"}, {"priority": "high"}], "change", 90),
    "null clears both": (URGENT, [{"sla_policy": None}], None, None),
    "null stays": (URGENT, [{"sla_policy": None}, {"priority": "high"}], None, None),
    "explicit": ({**URGENT, "due_at": 500}, [], "urgent", 500),
    "explicit later": (URGENT, [{"due_at": 500}], "urgent", 500),
    "explicit with another priority": (URGENT, [{"priority": "high", "due_at": 500}], "high", 500),
    "explicit, not moved by a pause": (URGENT, [{"due_at": 500}, *PAUSED, {"status": "open"}], "urgent", 500),
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
async def test_when_it_is_due(desk: Desk, case: str) -> None:
    members, steps, policy, due = DUE[case]
    made = await desk.create(**members)
    await desk.play(made, steps)
    found = await get(desk.door, desk.person, made)
    assert (desk.name(found["sla_policy"]), desk.minutes(found, found["due_at"])) == (policy, due)


@pytest.mark.parametrize("members", [{}, {"priority": "high"}], ids=["no policy", "policy"])
async def test_what_a_patch_repeats_is_not_said_anew(desk: Desk, members: dict[str, Any]) -> None:
    """A form that is sent whole has what it does not change in it."""
    made = await desk.create(**members)
    whole = {name: made[name] for name in ("sla_policy", "due_at")} | URGENT
    changed = (await update(desk.door, desk.agent, made, **whole)).succeeded()
    assert (desk.name(changed["sla_policy"]), desk.minutes(changed, changed["due_at"])) == ("urgent", 240)


# When in business hours. 2026-03-06 is a Friday; from 2026-03-29 on Berlin is two hours ahead of UTC.
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
FRIDAY = "2026-03-06T16:30:00Z"
NINE_TO_FIVE = [{"weekday": weekday, "start": "09:00", "end": "17:00"} for weekday in WEEKDAYS]
CALENDARS: Mapping[str, tuple[dict[str, Any], str, str | None]] = {
    "that of every tenant": ({}, FRIDAY, "2026-03-09T09:30:00Z"),
    "with a holiday": ({"holidays": ["2026-03-09"]}, FRIDAY, "2026-03-10T09:30:00Z"),
    "elsewhere": (
        {"time_zone": "Europe/Berlin", "hours": NINE_TO_FIVE},
        "2026-03-27T15:30:00Z",
        "2026-03-30T07:30:00Z",
    ),
    "never": ({"hours": []}, FRIDAY, None),
}


@pytest.mark.parametrize("case", CALENDARS)
async def test_business_hours_are_those_of_the_calendar(own_desk: Desk, case: str) -> None:
    calendar, created_at, due_at = CALENDARS[case]
    if calendar:
        (await own_desk.door.call("helpdesk.update_calendar", own_desk.agent, body=calendar)).succeeded()
    made = await own_desk.create(type="change")
    own_desk.passes(made, seconds=(instant(made["created_at"]) - instant(created_at)).total_seconds())
    assert (await own_desk.change(made, priority="low"))["due_at"] == due_at


# When the terms change


async def test_other_minutes_of_a_policy_move_the_unresolved_tickets(own_desk: Desk) -> None:
    moved = [await own_desk.create(**URGENT), await own_desk.create(**URGENT, status="pending")]
    deleted = await own_desk.create(**URGENT)
    others: list[tuple[dict[str, Any], Sequence[Step]]] = [
        (URGENT, [{"status": "resolved"}]),
        (URGENT, ["close"]),
        ({**URGENT, "due_at": 500}, []),
        (URGENT, [{"due_at": None}]),
        (HIGH, []),
    ]
    kept = [await own_desk.create(**members) for members, _ in others]
    for ticket, (_, steps) in zip(kept, others, strict=True):
        await own_desk.play(ticket, steps)
    await own_desk.play(deleted, ["delete"])
    before = [await get(own_desk.door, own_desk.person, ticket) for ticket in kept]
    for changes in ({"name": "Now", "description": "More"}, {"resolution_minutes": 300}):
        await own_desk.promise("urgent", **changes)
        for ticket in (*moved, deleted):
            await own_desk.tell(ticket)
    assert [await get(own_desk.door, own_desk.person, ticket) for ticket in kept] == before
    # Nobody tells of what is deleted, until it is restored.
    assert own_desk.stamp(deleted, "due_at") == instant(deleted["due_at"])
    await own_desk.play(deleted, ["restore", "tell"])
    for ticket in (*moved, deleted):
        found = await get(own_desk.door, own_desk.person, ticket)
        assert instant(found["due_at"]) == instant(ticket["due_at"]) + timedelta(minutes=60)
        assert found["updated_at"] > ticket["updated_at"]
        [event] = await own_desk.told(ticket)
        assert event["type"] == "ticket.updated"
        assert event["changes"].keys() == {"due_at"}
        was_and_is = [instant(event["changes"]["due_at"][side]) for side in ("from", "to")]
        assert was_and_is == [instant(ticket["due_at"]), instant(found["due_at"])]


async def test_another_calendar_moves_the_tickets_that_go_by_business_hours(own_desk: Desk) -> None:
    by_hours, by_all = await own_desk.create(type="change", priority="low"), await own_desk.create(**URGENT)
    resolved = await own_desk.create(type="change", priority="low", status="resolved")
    every_day = [{"weekday": day, "start": "00:00", "end": "24:00"} for day in (*WEEKDAYS, "saturday", "sunday")]
    for hours in ([], every_day):
        (await own_desk.door.call("helpdesk.update_calendar", own_desk.agent, body={"hours": hours})).succeeded()
        await own_desk.tell(by_hours)
        found = await get(own_desk.door, own_desk.person, by_hours)
        assert own_desk.minutes(found, found["due_at"]) == (60 if hours else None)
    assert [event["type"] for event in await own_desk.told(by_hours)] == ["ticket.updated"] * 2
    for ticket in (by_all, resolved):
        assert await get(own_desk.door, own_desk.person, ticket) == ticket


# What is shown


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
    found, shown = await get(desk.door, desk.person, made), await desk.sla(made)
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
    number = (await own_desk.door.call("helpdesk.sla", own_desk.person, path={"id": made["number"]})).succeeded()
    assert number["ticket_id"] == made["id"]
    for stranger in (world.person("read", "agent"), world.person("read", tenant_id=tenant_id, app_id="app_1")):
        (await own_desk.door.call("helpdesk.sla", stranger, path=id_)).failed("not_found", "Ticket not found")
    (await own_desk.door.call("helpdesk.sla", world.person("write", tenant_id=tenant_id), path=id_)).failed(
        "missing_scope"
    )
    for unknown in ("TKT-0002", f"tkt_{'0' * 26}", "x"):
        (await own_desk.door.call("helpdesk.sla", own_desk.person, path={"id": unknown})).failed("not_found")
    await own_desk.play(made, ["delete"])
    (await own_desk.door.call("helpdesk.sla", own_desk.person, path=id_)).failed("not_found", "Ticket not found")
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
    reply = await own_desk.door.call(
        "helpdesk.list",
        own_desk.person,
        query={"overdue": "true"} if own_desk.door.name == "rest" else {"overdue": True},
    )
    titles = {ticket["title"] for ticket in reply.succeeded()["tickets"]}
    assert titles == {title for title in cases if not title.startswith("not late")}


# What is told

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


# What is told is no matter of doors.
@pytest.mark.parametrize("door", ["grpc"], indirect=True)
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
        seen = await get(own_desk.door, own_desk.person, made)
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
    await asyncio.gather(*(levels.tell(other) for other in others))
    for other in others:
        await other.close()
    own_desk.rows("SELECT 1 FROM helpdesk_tickets WHERE tenant_id = %s FOR UPDATE", made[0]["tenant_id"])
    sql = "SELECT array_agg(type ORDER BY version) FROM helpdesk_events WHERE tenant_id = %s GROUP BY ticket_id"
    told = own_desk.rows(sql, made[0]["tenant_id"])
    assert told == [(["ticket.created", "sla.due_soon", "sla.breached"],)] * 60
