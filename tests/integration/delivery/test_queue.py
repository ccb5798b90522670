"""The queue for a provider: the order of its deliveries, how often each is attempted, and how it ends."""

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.emulators.http import Fault, Request, Response
from support.emulators.zendesk import CREDENTIAL, Zendesk
from support.provider_lab import (
    BAD,
    MESSAGE,
    NO_REFERENCE,
    TICKET,
    Process,
    deliveries,
    external,
    link,
    linked,
)
from support.system import World

from service.admin import lists
from service.admin import operations as admin
from service.errors import TicketError
from service.itsm.delivery import attempt, provider_calls, queue
from service.itsm.delivery.breaker import FAILURES_TO_OPEN, OPEN_SECONDS

DOWN: Fault = "503"


async def test_changes_follow_a_queued_creation_in_order(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        desk.faults += [DOWN, "500", DOWN]
        ticket = await process.create(program)
        steps: list[dict[str, Any]] = [
            {"subject": "First"},
            {"subject": "Second", "status": "pending"},
            {"priority": "high"},
        ]
        for changes in steps:
            await process.update(program, ticket, **changes)
        assert desk.writes == [("POST", TICKET["subject"])]
        await process.work_until_empty()
        assert desk.writes[-4:] == [
            ("POST", TICKET["subject"]),
            ("PUT", {"subject": "First"}),
            ("PUT", {"subject": "Second", "status": 3}),
            ("PUT", {"priority": 3}),
        ]
        assert [method for method, _ in desk.writes].count("PUT") == 3
        found = await process.get(program, ticket)
        assert {name: found[name] for name in NO_REFERENCE} == external(desk)
        assert (found["subject"], found["status"], found["priority"]) == ("Second", "pending", "high")


async def test_a_failed_change_blocks_the_later_ones_of_its_ticket(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        ticket, other = await process.create(program), await process.create(program)
        desk.faults += [DOWN]
        await process.update(program, ticket, subject="First")
        await process.update(program, ticket, subject="Second")
        # Of this ticket only.
        await process.update(program, other, subject="Other")
        assert desk.writes[2:] == [("PUT", {"subject": "First"}), ("PUT", {"subject": "Other"})]
        await process.work_until_empty()
        assert desk.writes[4:] == [("PUT", {"subject": "First"}), ("PUT", {"subject": "Second"})]


async def test_a_rejected_change_is_dead_and_brings_the_current_members_when_requeued(
    apart: World, process: Process
) -> None:
    async with linked(apart) as (program, desk):
        ticket = await process.create(program)
        await process.update(program, ticket, **BAD, priority="low")
        await process.update(program, ticket, subject="Later")
        assert deliveries(apart, program.account_id) == [("update", "dead", MESSAGE)]
        assert desk.tickets[0]["subject"] == "Later"
        desk.faults.append(DOWN)
        await process.update(program, ticket, description="Since ten.")
        await process.work()
        assert desk.tickets[0]["description"] == "Since ten."
        [dead] = (await apart.operate(lists.list_deliveries, account_id=program.account_id))["deliveries"]
        again = (await apart.operate(admin.requeue_delivery, delivery_id=dead["id"]))["delivery"]
        assert (again["id"], again["state"], again["attempts"]) == (dead["id"], "queued", 0)
        await process.work_until_empty()
        assert desk.writes[-1] == ("PUT", {"description": "Since ten.", "priority": 1})
        assert deliveries(apart, program.account_id) == []


async def test_a_delivery_that_fails_too_often_is_dead(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "MAX_ATTEMPTS", 2)
    async with linked(apart) as (program, desk):
        desk.faults += [DOWN, DOWN]
        ticket = await process.create(program)
        await process.update(program, ticket, subject="Changed")
        await process.work()
        # The changes after it, and those to come, are brought by it when it is requeued.
        assert [one[:2] for one in deliveries(apart, program.account_id)] == [("create", "dead")]
        await process.update(program, ticket, priority="high")
        assert [one[:2] for one in deliveries(apart, program.account_id)] == [("create", "dead")]
        [dead] = (await apart.operate(lists.list_deliveries, account_id=program.account_id, state="dead"))["deliveries"]
        assert dead["attempts"] == 2
        await apart.operate(admin.requeue_delivery, delivery_id=dead["id"])
        await process.work_until_empty()
        assert [(one["subject"], one["priority"]) for one in desk.tickets] == [("Changed", 3)]
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])


async def test_a_rejected_queued_creation_brings_the_current_members_when_requeued(
    apart: World, process: Process
) -> None:
    async with linked(apart) as (program, desk):
        desk.faults.append(DOWN)
        ticket = await process.create(program, **BAD)
        await process.work()
        await process.update(program, ticket, description="Since ten.")
        [dead] = (await apart.operate(lists.list_deliveries, account_id=program.account_id, state="dead"))["deliveries"]
        await apart.operate(admin.requeue_delivery, delivery_id=dead["id"])
        await process.work_until_empty()
        assert [one["description"] for one in desk.tickets] == ["Since ten."]
        assert deliveries(apart, program.account_id) == []


async def test_a_cookie_of_one_provider_is_not_sent_to_another(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk), linked(apart) as (stranger, other):
        answer = desk._handle

        async def set_cookie(request: Request) -> Response:
            response = answer(request)
            made = response if isinstance(response, Response) else await response
            return replace(made, headers={**made.headers, "set-cookie": "session=of-one; Path=/"})

        desk._handle = set_cookie
        await process.create(program)
        await process.create(stranger)
        assert [request.headers.get("cookie") for request in (*desk.requests[1:], *other.requests)] == [None]


async def test_the_queue_of_an_unlinked_account_is_dropped(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        there = await process.create(program)
        desk.faults += ["429", DOWN]
        queued = await process.create(program)
        await process.update(program, queued, subject="Changed")
        await process.update(program, there, subject="Changed")
        before = len(desk.requests)
        await apart.operate(admin.unlink_provider, account_id=program.account_id)
        await process.work_until_empty()
        assert deliveries(apart, program.account_id) == []
        assert len(desk.requests) == before
        found = await process.get(program, queued)
        assert {name: found[name] for name in NO_REFERENCE} == NO_REFERENCE
        assert (await process.get(program, there))["external_ticket_id"] == there["external_ticket_id"]
        # A caller that still counts as linked for some seconds gets a ticket all the same.
        late = await process.create(program, "key")
        assert str((await process.create(program, "key"))["id"]) == str(late["id"])
        assert len(desk.requests) == before


async def test_tickets_at_one_provider_are_not_changed_at_another(apart: World, process: Process) -> None:
    async with linked(apart) as (program, _):
        ticket = await process.create(program)
        async with Zendesk().listening() as other:
            given = {"provider": "zendesk", "url": other.url, "credential": CREDENTIAL}
            await apart.operate(admin.link_provider, account_id=program.account_id, **given)
            await process.update(program, ticket, subject="Changed")
            assert other.requests == []
            message = "the account is linked to another provider now"
            assert deliveries(apart, program.account_id) == [("update", "dead", message)]


async def test_a_provider_that_keeps_failing_is_not_called_for_a_while(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(process.deliveries._breakers, "_now", lambda: now)
    async with linked(apart) as (program, desk), linked(apart) as (other, well):
        desk.faults += [DOWN] * FAILURES_TO_OPEN
        tickets = [await process.create(program) for _ in range(7)]
        assert len(desk.requests) == 5
        # Those of other accounts are.
        assert (await process.create(other))["external_ticket_id"] == str(well.tickets[0]["id"])
        before = deliveries(apart, program.account_id)
        await process.work()
        assert (len(desk.requests), len(well.tickets)) == (5, 1)
        # The deliveries are not even leased, which would count as an attempt.
        assert deliveries(apart, program.account_id) == before
        now += OPEN_SECONDS
        for _ in range(10):
            await process.work()
        assert len(desk.tickets) == len(tickets)
        assert deliveries(apart, program.account_id) == []
        assert (await process.create(program))["external_ticket_id"] is not None


async def test_a_credential_that_is_no_longer_valid_rejects_nothing(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        await link(apart, program, desk, credential="old")
        ticket = await process.create(program)
        await process.update(program, ticket, subject="Changed")
        (creation, change) = deliveries(apart, program.account_id)
        assert (creation[:2], change) == (("create", "queued"), ("update", "queued", None))
        assert "401" in creation[2]
        await link(apart, program, desk)
        await process.work_until_empty()
        assert [one["subject"] for one in desk.tickets] == ["Changed"]


async def test_tickets_at_one_desk_are_not_changed_at_another_of_its_vendor(apart: World, process: Process) -> None:
    async with linked(apart) as (program, _), linked(apart) as (stranger, other):
        ticket, _ = await process.create(program), await process.create(stranger)
        await link(apart, program, other)
        await process.update(program, ticket, subject="Changed")
        assert [one["subject"] for one in other.tickets] == [TICKET["subject"]]


async def test_a_change_is_mirrored_by_a_process_that_does_not_know_of_the_link_yet(
    apart: World, process: Process
) -> None:
    async with linked(apart) as (program, desk):
        ticket = await process.create(program)
        await process.update(program, ticket, linked=False, subject="Changed")
        assert desk.tickets[0]["subject"] == "Changed"
        # Nor is a delivery queued for an account that was unlinked.
        await apart.operate(admin.unlink_provider, account_id=program.account_id)
        await process.update(program, ticket, subject="Ours alone")
        assert deliveries(apart, program.account_id) == []


async def test_a_creation_and_its_changes_outlast_a_while_without_a_link(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        desk.faults += [DOWN]
        ticket = await process.create(program)
        await apart.operate(admin.unlink_provider, account_id=program.account_id)
        await process.update(program, ticket, linked=False, subject="Changed")
        await link(apart, program, desk)
        await process.work_until_empty()
        assert [one["subject"] for one in desk.tickets] == ["Changed"]


async def test_blocked_deliveries_are_postponed_until_the_one_before_has_ended(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        desk.faults += [DOWN]
        ticket = await process.create(program)
        for n in range(3):
            await process.update(program, ticket, subject=f"s{n}")
        apart.run("UPDATE provider_deliveries SET next_attempt_at = now() - interval '1 minute' WHERE kind = 'update'")
        apart.run("UPDATE provider_deliveries SET next_attempt_at = now() + interval '1 hour' WHERE kind = 'create'")
        await process.turn()
        waits = "SELECT round(extract(epoch FROM next_attempt_at - now()) / 60)::int FROM provider_deliveries"
        assert apart.rows(waits + " WHERE kind = 'update' ORDER BY version") == [(1,), (2,), (3,)]
        apart.run("UPDATE provider_deliveries SET next_attempt_at = now() WHERE kind = 'create'")
        for _ in range(4):
            await process.turn()
        assert desk.writes[1:] == [("POST", TICKET["subject"]), *(("PUT", {"subject": f"s{n}"}) for n in range(3))]


# Why a provider that answers does not take seven tickets: five failures would open its breaker.
@pytest.mark.parametrize("why", ["unlinked", "rejected"])
async def test_a_provider_that_answers_does_not_open_its_breaker(apart: World, process: Process, why: str) -> None:
    async with linked(apart) as (program, desk):
        if why == "unlinked":
            await link(apart, program, desk, credential="old")
        for n in range(1, 8):
            if why == "unlinked":
                await process.create(program)
            else:
                with pytest.raises(TicketError, match="provider_rejected"):
                    await process.create(program, **BAD)
            assert len(desk.requests) == n
        # Nor in the background.
        await process.work()
        await process.work()
        await link(apart, program, desk)
        assert (await process.create(program))["external_ticket_id"] is not None
        await process.work_until_empty()
        assert len(desk.tickets) == (8 if why == "unlinked" else 1)


class Broken:
    """An adapter with a mistake."""

    def __init__(self, *_: object) -> None:
        pass

    async def create(self, *_: object) -> None:
        raise KeyError("issueKey")

    find = update = create


# Where the mistake is: while the adapter is made, or during its request.
@pytest.mark.parametrize("broken", [lambda *_: 1 / 0, Broken], ids=["made", "requested"])
async def test_a_mistake_of_ours_is_recorded_and_retried(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    async with linked(apart) as (program, desk):
        ticket = await process.create(program)
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(provider_calls, "adapter", broken)
            await process.update(program, ticket, subject="Changed")
            other = await process.create(program, "key", subject="Other")
            assert {name: other[name] for name in NO_REFERENCE} == NO_REFERENCE
            queued = "SELECT kind, state, last_error, in_doubt FROM provider_deliveries ORDER BY kind"
            expected = [("create", "queued", "internal", True), ("update", "queued", "internal", True)]
            assert apart.rows(queued) == expected
            assert {line["outcome"] for line in logs} == {"internal"}
        assert len(desk.requests) == 1
        await process.work_until_empty()
        assert [one["subject"] for one in desk.tickets] == ["Changed", "Other"]
        assert await process.create(program, "key", subject="Other") == other


async def test_a_repeated_mistake_of_ours_opens_the_breaker(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(apart) as (program, _):
        monkeypatch.setattr(provider_calls, "adapter", Broken)
        with capture_logs():
            for _ in range(6):
                await process.create(program)
        reasons = "SELECT last_error, count(*) FROM provider_deliveries GROUP BY 1 ORDER BY 2"
        refused = "the provider has failed too often, and is not called for now"
        assert apart.rows(reasons) == [(refused, 1), ("internal", FAILURES_TO_OPEN)]


async def test_an_attempt_without_time_does_not_call_the_provider(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(apart) as (program, desk):
        # A connection is open, on which a request would take no time.
        await process.create(program)
        with monkeypatch.context() as patch:
            # As after a stall that outlasted the lease, when another process may hold it.
            patch.setattr(queue, "_CALLER_SECONDS", -1.0)
            ticket = await process.create(program)
        assert len(desk.requests) == 1
        assert apart.rows("SELECT in_doubt FROM provider_deliveries") == [(False,)]
        await process.work_until_empty()
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[1]["id"])
