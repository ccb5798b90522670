"""contracts/helpdesk.md at both transports, SLA: the calendar of a tenant."""

import asyncio
from typing import Any

import pytest
from support.helpdesk import Transport, new_tenant_id
from support.system import Credential, World
from support.transports import Grpc, Reply, Rest

WEEK = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


async def calendar(transport: Transport, agent: Credential) -> Any:
    return (await transport.call("helpdesk.calendar", agent)).succeeded()


async def set_calendar(transport: Transport, agent: Credential, **changes: Any) -> Reply:
    return await transport.call("helpdesk.update_calendar", agent, body=changes)


def hours(weekday: str = "monday", start: str = "09:00", end: str = "17:00") -> dict[str, str]:
    return {"weekday": weekday, "start": start, "end": end}


BUSY = {
    "time_zone": "Europe/Berlin",
    # In any order; they may touch or overlap, and the end of a day is 24:00.
    "hours": [hours("sunday", "22:00", "24:00"), hours(), hours(), hours("monday", "12:00", "18:30")],
    "holidays": ["2030-12-25", "2031-01-01"],
}


async def test_the_default_calendar_has_office_hours(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    assert await calendar(transport, world.person("agent", tenant_id=tenant_id)) == {
        "tenant_id": tenant_id,
        "time_zone": "UTC",
        "hours": [hours(weekday) for weekday in WEEK[:5]],
        "holidays": [],
        "updated_at": None,
        "updated_by": None,
    }


async def test_a_calendar_is_stored_and_read_at_both_transports(
    transport: Transport, rest: Rest, rpc: Grpc, world: World
) -> None:
    tenant_id = new_tenant_id()
    agent = world.person("agent", tenant_id=tenant_id, sub="per_7")
    made = (await set_calendar(transport, agent, **BUSY)).succeeded()
    stamps = {"tenant_id": tenant_id, "updated_by": "per_7"}
    assert made == {**BUSY, **stamps, "updated_at": made["updated_at"]}
    assert made["updated_at"] is not None
    for reader in (rest, rpc):
        assert await calendar(reader, world.person("agent", tenant_id=tenant_id)) == made
        # Other tenants' calendars are unaffected.
        assert (await calendar(reader, world.person("agent")))["updated_at"] is None


@pytest.mark.parametrize("is_set", [False, True], ids=["the default", "a calendar"])
@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, {}),
        *(({"time_zone": name}, {}) for name in ("America/Argentina/Ushuaia", "Etc/GMT+12")),
        ({"hours": []}, {}),
        ({"hours": [hours(weekday, "00:00", "24:00") for weekday in WEEK]}, {}),
        ({"hours": [hours("friday", "23:58", "23:59")] * 100}, {}),
        ({"holidays": []}, {}),
        # Without duplicates, in order.
        ({"holidays": ["2031-01-01", "2028-02-29", "2031-01-01"]}, {"holidays": ["2028-02-29", "2031-01-01"]}),
        ({"holidays": ["9999-12-31", "0001-01-01"]}, {"holidays": ["0001-01-01", "9999-12-31"]}),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_patch_of_a_calendar_changes_only_the_members_given(
    transport: Transport, world: World, is_set: bool, changes: Any, kept: Any
) -> None:
    tenant_id = new_tenant_id()
    agent = world.person("agent", tenant_id=tenant_id)
    made = (await set_calendar(transport, agent, **BUSY)).succeeded() if is_set else await calendar(transport, agent)
    changed = (
        await set_calendar(transport, world.person("agent", tenant_id=tenant_id, sub="per_2"), **changes)
    ).succeeded()
    assert changed == {**made, **changes, **kept, "updated_at": changed["updated_at"], "updated_by": "per_2"}
    assert changed["updated_at"] > (made["updated_at"] or "")
    assert await calendar(transport, agent) == changed


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        *(
            ({"time_zone": name}, "time_zone")
            for name in (
                "",
                "Berlin",
                "europe/berlin",
                "Mars/Olympus",
                "../UTC",
                "UTC\0",
                "+02:00",
                "localtime",
                "x" * 5_000,
                None,
            )
        ),
        ({"hours": [hours(), hours("someday")]}, "hours.1.weekday"),
        *(
            ({"hours": [hours(start=time)]}, "hours.0.start")
            for time in ("9:00", "24:00", "09:60", "09:00:00", "٠٩:٠٠")
        ),
        *(({"hours": [hours(end=time)]}, "hours.0.end") for time in ("24:01", "25:00", "17:00\n", "17")),
        *(({"hours": [hours(end=time)]}, "hours.0") for time in ("08:59", "09:00")),
        *(({"hours": [{k: v for k, v in hours().items() if k != name}]}, f"hours.0.{name}") for name in hours()),
        ({"hours": [hours()] * 101}, "hours"),
        *(
            ({"holidays": ["2030-12-25", day]}, "holidays.1")
            for day in ("2030-02-30", "20301225", "2030-W52-3", "2030-12-25T00:00:00Z", "0000-01-01", "1924905600", "")
        ),
        ({"holidays": ["2030-12-25"] * 1001}, "holidays"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_broken_bounds_of_a_calendar_are_reported_by_path(
    transport: Transport, world: World, changes: Any, path: str
) -> None:
    agent = world.person("agent")
    made = (await set_calendar(transport, agent, **BUSY)).succeeded()
    others: dict[str, Any] = {"time_zone": "Asia/Tokyo"} if "time_zone" not in changes else {"holidays": []}
    (await set_calendar(transport, agent, **others, **changes)).failed("validation_error", paths=[path])
    assert await calendar(transport, agent) == made


async def test_concurrent_changes_of_a_calendar_are_all_kept(transport: Transport, world: World) -> None:
    agent = world.person("agent")
    for reply in await asyncio.gather(*(set_calendar(transport, agent, **{name: BUSY[name]}) for name in BUSY)):
        reply.succeeded()
    made = await calendar(transport, agent)
    assert {name: made[name] for name in BUSY} == BUSY


async def test_many_problems_of_a_message_are_still_a_validation_error(rpc: Grpc, world: World) -> None:
    agent = world.person("agent")
    (await set_calendar(rpc, agent, holidays=["tomorrow"] * 1000)).failed("validation_error")
