"""What is queued goes to each of the vendors alike: once, with all that is mirrored, and to its status."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.emulators.http import Fault, Response, Server
from support.emulators.vendors import FRESHSERVICE, JIRA, SERVICENOW, VENDORS, ZENDESK, Vendor
from support.provider_lab import NOWHERE, TICKET, Process, alone, deliveries, events, kept, linked_to, until
from support.system import Program, World

from service.errors import TicketError
from service.itsm.delivery.queue import MIRRORED

DOWN: Fault = "503"
CLOSED_THERE = {
    FRESHSERVICE.name: ("status", 5),
    ZENDESK.name: ("status", "closed"),
    SERVICENOW.name: ("state", "7"),
    JIRA.name: ("status", "Closed"),
}

each_vendor = pytest.mark.parametrize("vendor", VENDORS, ids=[one.name for one in VENDORS])


@pytest.fixture
async def process(apart: World) -> AsyncIterator[Process]:
    async with alone(apart) as process:
        yield process


def whereabouts(ticket: Any) -> dict[str, Any]:
    return {name: ticket[name] for name in NOWHERE}


def subjects(vendor: Vendor, desk: Server) -> list[Any]:
    return [one[vendor.told["subject"].name] for one in vendor.has(desk)]


@each_vendor
@pytest.mark.parametrize("fault", [DOWN, "reset", "reset after", "html after"])
async def test_a_creation_that_fails_is_queued_and_delivered_once(
    apart: World, process: Process, vendor: Vendor, fault: Fault
) -> None:
    async with linked_to(apart, vendor) as (program, desk):
        desk.faults.append(fault)
        ticket = await process.create(program, "key")
        assert whereabouts(ticket) == NOWHERE
        assert [one[:2] for one in deliveries(apart, program.account_id)] == [("create", "queued")]
        await process.work_off()
        # Nothing is left that would be done again.
        asked = len(desk.requests)
        await process.work_off()
        assert len(desk.requests) == asked
        assert subjects(vendor, desk) == [TICKET["subject"]]
        found = await process.get(program, ticket)
        assert whereabouts(found) == vendor.external(desk)
        assert [one[0] for one in events(apart, ticket)] == ["ticket.created", "ticket.updated"]
        assert await process.create(program, "key") == ticket


def test_every_mirrored_member_is_told_of() -> None:
    assert [vendor.told.keys() for vendor in VENDORS] == [MIRRORED] * len(VENDORS)


@each_vendor
@pytest.mark.parametrize("queued", [False, True], ids=["at once", "queued"])
@pytest.mark.parametrize("member", sorted(MIRRORED))
async def test_a_change_of_a_mirrored_member_arrives(
    apart: World, process: Process, vendor: Vendor, member: str, queued: bool
) -> None:
    value, name, there = vendor.told[member]
    async with linked_to(apart, vendor) as (program, desk):
        ticket = await process.create(program)
        assert whereabouts(ticket) == vendor.external(desk)
        [before] = vendor.has(desk)
        assert before.get(name) != there
        desk.faults += [DOWN] * queued
        changes: dict[str, Any] = {member: value}
        await process.update(program, ticket, **changes)
        assert [one[:2] for one in deliveries(apart, program.account_id)] == [("update", "queued")] * queued
        await process.work_off()
        expected = there.format(key=ticket["id"]) if isinstance(there, str) else there
        assert [one[name] for one in vendor.has(desk)] == [expected]
        assert deliveries(apart, program.account_id) == []


# Members that a vendor rejects and this service does not, the options of a link that it takes, and what is said then.
REJECTED: list[tuple[Vendor, dict[str, Any], dict[str, str], str]] = [
    (
        FRESHSERVICE,
        {"description": " "},
        {},
        "Validation failed. description: It should not be blank as this is a mandatory field",
    ),
    (ZENDESK, {"description": " "}, {}, "Record validation errors. Description: cannot be blank"),
    (
        SERVICENOW,
        {"status": "closed"},
        {"close_code": "Nobody knows"},
        "Invalid choice: close_code: Nobody knows",
    ),
    (
        JIRA,
        {"requester_email": "eve@example.com"},
        {},
        "Customer eve@example.com does not exist or may not raise requests here.",
    ),
]


@pytest.mark.parametrize(("vendor", "members", "options", "message"), REJECTED, ids=[one[0].name for one in REJECTED])
async def test_a_rejected_creation_keeps_nothing(
    apart: World, process: Process, vendor: Vendor, members: dict[str, Any], options: dict[str, str], message: str
) -> None:
    async with linked_to(apart, vendor, **options) as (program, desk):
        for key in ("key", None):
            with pytest.raises(TicketError) as rejection:
                await process.create(program, key, **members)
            assert rejection.value.args == ("provider_rejected", message)
        assert (kept(apart, program.account_id), vendor.has(desk)) == ([], [])
        # Its key is free again.
        ticket = await process.create(program, "key")
        assert whereabouts(ticket) == vendor.external(desk)


@each_vendor
async def test_what_was_made_closed_is_closed_when_it_is_found_again(
    apart: World, process: Process, vendor: Vendor
) -> None:
    name, there = CLOSED_THERE[vendor.name]
    async with linked_to(apart, vendor) as (program, desk):
        desk.faults.append("reset after")
        ticket = await process.create(program, status="closed")
        await process.work_off()
        assert [one[name] for one in vendor.has(desk)] == [there]
        assert whereabouts(await process.get(program, ticket)) == vendor.external(desk)


# Jira's creations have a second step: what is made is open, and is brought to its status then.


async def lose_the_answer(apart: World, process: Process, program: Program, site: Any) -> Any:
    """Have a closed ticket made that is not brought to its status, and answer without it."""
    site.faults_after_creation = [DOWN]
    ticket = await process.create(program, "key", status="closed")
    assert whereabouts(ticket) == NOWHERE
    [(kind, state, why)] = deliveries(apart, program.account_id)
    assert (kind, state, why) == ("create", "queued", "made, but not brought to its status: it answered 503")
    return ticket


async def lose_the_process(apart: World, process: Process, program: Program, site: Any) -> None:
    """Have a closed ticket made, and be gone before it is brought to its status."""
    site.faults_after_creation = ["hang"]
    asked = asyncio.ensure_future(process.create(program, "key", status="closed"))
    await until(lambda: len(site.requests) == 2, what="the second step")
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    apart.run("UPDATE provider_deliveries SET leased_until = now() - interval '1 second'")


@pytest.mark.parametrize(
    ("options", "status"),
    # A workflow that refuses, as one that knows no such transition: the ticket was made, so it is not rejected.
    [({}, "Closed"), ({"transitions": {"closed": "99"}}, "Waiting for support")],
    ids=["brought to it", "refused"],
)
@pytest.mark.parametrize("lose", [lose_the_answer, lose_the_process], ids=["answer lost", "process lost"])
async def test_what_was_made_and_not_brought_to_its_status_is_when_it_is_found(
    apart: World, process: Process, lose: Any, options: dict[str, Any], status: str
) -> None:
    async with linked_to(apart, JIRA, **options) as (program, site):
        ticket = await lose(apart, process, program, site)
        assert [one["status"] for one in site.issues] == ["Waiting for support"]
        site.faults_after_creation = []
        again = await process.create(program, "key", status="closed")
        if ticket is None:
            # Nobody had an answer yet: this is it.
            assert whereabouts(again) == JIRA.external(site)
            ticket = again
        await process.work_off()
        assert [one["status"] for one in site.issues] == [status]
        assert [one.method for one in site.requests].count("POST") == (2 if status == "Closed" else 1)
        found = await process.get(program, ticket)
        assert (whereabouts(found), found["status"]) == (JIRA.external(site), "closed")
        assert deliveries(apart, program.account_id) == []
        count = "SELECT count(*) FROM itsm_tickets WHERE account_id = %s"
        assert apart.rows(count, program.account_id) == [(1,)]


async def test_what_was_made_open_is_not_moved_when_it_is_found(apart: World, process: Process) -> None:
    async with linked_to(apart, JIRA) as (program, site):
        site.faults.append("reset after")
        await process.create(program)
        await process.work_off()
        assert [one.method for one in site.requests] == ["POST", "GET"]
        assert len(site.issues) == 1


@pytest.mark.parametrize("vendor", [SERVICENOW, JIRA], ids=["servicenow", "jira"])
@pytest.mark.parametrize("wrong", ["\0", "ITH\n1", "ITH-1\u2028", "ITH\x7f1", "ITH\u200b1"], ids=ascii)
async def test_an_id_that_nobody_can_read_is_no_answer(
    apart: World, process: Process, vendor: Vendor, wrong: str
) -> None:
    async with linked_to(apart, vendor) as (program, desk):
        body = {"issueKey": wrong} if vendor is JIRA else {"result": {"sys_id": wrong}}
        desk.says = [Response(201, body)]
        ticket = await process.create(program)
        assert whereabouts(ticket) == NOWHERE
        message = "it named the ticket by what is no id"
        assert deliveries(apart, program.account_id) == [("create", "queued", message)]
        # It may be there, so it is looked for.
        await process.work_off()
        assert len(vendor.has(desk)) == 1
        assert whereabouts(await process.get(program, ticket)) == vendor.external(desk)
