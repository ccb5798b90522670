"""Deliveries to each of the vendors: once, with every mirrored member, and to the ticket's status."""

import asyncio
from typing import Any

import pytest
from support.emulators.http import Fault, Response, Server
from support.emulators.vendors import FRESHSERVICE, JIRA, SERVICENOW, VENDORS, ZENDESK, Vendor
from support.provider_lab import (
    NO_REFERENCE,
    TICKET,
    Process,
    deliveries,
    events,
    linked_to,
    tables_with_rows,
    until,
)
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


def reference_of(ticket: Any) -> dict[str, Any]:
    return {name: ticket[name] for name in NO_REFERENCE}


def subjects(vendor: Vendor, desk: Server) -> list[Any]:
    return [one[vendor.mirrored["subject"].name] for one in vendor.has(desk)]


@each_vendor
@pytest.mark.parametrize("fault", [DOWN, "reset", "reset after", "html after"])
async def test_a_creation_that_fails_is_queued_and_delivered_once(
    apart: World, process: Process, vendor: Vendor, fault: Fault
) -> None:
    async with linked_to(apart, vendor) as (program, desk):
        desk.faults.append(fault)
        ticket = await process.create(program, "key")
        assert reference_of(ticket) == NO_REFERENCE
        assert [one[:2] for one in deliveries(apart, program.account_id)] == [("create", "queued")]
        await process.work_until_empty()
        # Nothing is left to be repeated.
        requests = len(desk.requests)
        await process.work_until_empty()
        assert len(desk.requests) == requests
        assert subjects(vendor, desk) == [TICKET["subject"]]
        found = await process.get(program, ticket)
        assert reference_of(found) == vendor.external(desk)
        assert [one[0] for one in events(apart, ticket)] == ["ticket.created", "ticket.updated"]
        assert await process.create(program, "key") == ticket


def test_every_vendor_has_every_mirrored_member() -> None:
    assert [vendor.mirrored.keys() for vendor in VENDORS] == [MIRRORED] * len(VENDORS)


@each_vendor
@pytest.mark.parametrize("queued", [False, True], ids=["at once", "queued"])
@pytest.mark.parametrize("member", sorted(MIRRORED))
async def test_a_change_of_a_mirrored_member_arrives(
    apart: World, process: Process, vendor: Vendor, member: str, queued: bool
) -> None:
    value, name, there = vendor.mirrored[member]
    async with linked_to(apart, vendor) as (program, desk):
        ticket = await process.create(program)
        assert reference_of(ticket) == vendor.external(desk)
        [before] = vendor.has(desk)
        assert before.get(name) != there
        desk.faults += [DOWN] * queued
        changes: dict[str, Any] = {member: value}
        await process.update(program, ticket, **changes)
        assert [one[:2] for one in deliveries(apart, program.account_id)] == [("update", "queued")] * queued
        await process.work_until_empty()
        expected = there.format(key=ticket["id"]) if isinstance(there, str) else there
        assert [one[name] for one in vendor.has(desk)] == [expected]
        assert deliveries(apart, program.account_id) == []


# Members that a vendor rejects and this service does not, with which options of the link, and its message.
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
async def test_a_rejected_creation_stores_nothing(
    apart: World, process: Process, vendor: Vendor, members: dict[str, Any], options: dict[str, str], message: str
) -> None:
    async with linked_to(apart, vendor, **options) as (program, desk):
        for key in ("key", None):
            with pytest.raises(TicketError) as rejection:
                await process.create(program, key, **members)
            assert rejection.value.args == ("provider_rejected", message)
        assert (tables_with_rows(apart, program.account_id), vendor.has(desk)) == ([], [])
        # Its key is free again.
        ticket = await process.create(program, "key")
        assert reference_of(ticket) == vendor.external(desk)


@each_vendor
async def test_a_ticket_created_as_closed_is_closed_when_it_is_found_again(
    apart: World, process: Process, vendor: Vendor
) -> None:
    name, there = CLOSED_THERE[vendor.name]
    async with linked_to(apart, vendor) as (program, desk):
        desk.faults.append("reset after")
        ticket = await process.create(program, status="closed")
        await process.work_until_empty()
        assert [one[name] for one in vendor.has(desk)] == [there]
        assert reference_of(await process.get(program, ticket)) == vendor.external(desk)


# Jira's creations have two steps: a request is created as open, and then moved to its status.


async def lose_the_answer(apart: World, process: Process, program: Program, site: Any) -> Any:
    """Create a closed ticket that is not moved to its status; its caller gets no external reference."""
    site.faults_after_creation = [DOWN]
    ticket = await process.create(program, "key", status="closed")
    assert reference_of(ticket) == NO_REFERENCE
    message = "created, but not moved to its status: the provider answered 503"
    assert deliveries(apart, program.account_id) == [("create", "queued", message)]
    return ticket


async def lose_the_process(apart: World, process: Process, program: Program, site: Any) -> None:
    """Create a closed ticket, and die before it is moved to its status."""
    site.faults_after_creation = ["hang"]
    creation = asyncio.ensure_future(process.create(program, "key", status="closed"))
    await until(lambda: len(site.requests) == 2, what="the second step")
    creation.cancel()
    await asyncio.gather(creation, return_exceptions=True)
    apart.run("UPDATE provider_deliveries SET leased_until = now() - interval '1 second'")


@pytest.mark.parametrize(
    ("options", "status"),
    # A workflow without the transition: the ticket was created, so it is not rejected.
    [({}, "Closed"), ({"transitions": {"closed": "99"}}, "Waiting for support")],
    ids=["moved", "refused"],
)
@pytest.mark.parametrize("lose", [lose_the_answer, lose_the_process], ids=["answer lost", "process lost"])
async def test_a_ticket_that_was_not_moved_to_its_status_is_moved_when_it_is_found(
    apart: World, process: Process, lose: Any, options: dict[str, Any], status: str
) -> None:
    async with linked_to(apart, JIRA, **options) as (program, site):
        ticket = await lose(apart, process, program, site)
        assert [one["status"] for one in site.issues] == ["Waiting for support"]
        site.faults_after_creation = []
        again = await process.create(program, "key", status="closed")
        if ticket is None:
            # The first caller had no answer: this is it.
            assert reference_of(again) == JIRA.external(site)
            ticket = again
        await process.work_until_empty()
        assert [one["status"] for one in site.issues] == [status]
        assert [one.method for one in site.requests].count("POST") == (2 if status == "Closed" else 1)
        found = await process.get(program, ticket)
        assert (reference_of(found), found["status"]) == (JIRA.external(site), "closed")
        assert deliveries(apart, program.account_id) == []
        count = "SELECT count(*) FROM itsm_tickets WHERE account_id = %s"
        assert apart.rows(count, program.account_id) == [(1,)]


async def test_a_ticket_created_as_open_is_not_moved_when_it_is_found(apart: World, process: Process) -> None:
    async with linked_to(apart, JIRA) as (program, site):
        site.faults.append("reset after")
        await process.create(program)
        await process.work_until_empty()
        assert [one.method for one in site.requests] == ["POST", "GET"]
        assert len(site.issues) == 1


@pytest.mark.parametrize("vendor", [SERVICENOW, JIRA], ids=["servicenow", "jira"])
@pytest.mark.parametrize("wrong", ["\0", "ITH\n1", "ITH-1\u2028", "ITH\x7f1", "ITH\u200b1"], ids=ascii)
async def test_an_unprintable_id_is_not_an_answer(apart: World, process: Process, vendor: Vendor, wrong: str) -> None:
    async with linked_to(apart, vendor) as (program, desk):
        body = {"issueKey": wrong} if vendor is JIRA else {"result": {"sys_id": wrong}}
        desk.overrides = [Response(201, body)]
        ticket = await process.create(program)
        assert reference_of(ticket) == NO_REFERENCE
        message = "the provider's id of the ticket has unprintable characters"
        assert deliveries(apart, program.account_id) == [("create", "queued", message)]
        # The ticket may exist, so it is looked for.
        await process.work_until_empty()
        assert len(vendor.has(desk)) == 1
        assert reference_of(await process.get(program, ticket)) == vendor.external(desk)
