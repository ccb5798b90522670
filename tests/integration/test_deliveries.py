"""contracts/itsm.md, Provider and Idempotency: a ticket is at the account's provider exactly once, whatever happens."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args
from uuid import uuid4

import grpc
import pytest
from emulators.http import Fault, Request, Response
from emulators.zendesk import CREDENTIAL, Zendesk
from harness import Grpc, Reply, Rest
from linked import (
    BAD,
    NOWHERE,
    TICKET,
    WORDS,
    Desk,
    Door,
    Process,
    create,
    deliveries,
    events,
    external,
    get,
    kept,
    link,
    linked,
    own_database,
    processes,
    until,
    update,
)
from system import Issuer, Program, World
from tickets.itsm.v1 import service_pb2, service_pb2_grpc

from service import idempotency
from service.admin import operations as admin
from service.errors import TicketError
from service.itsm import deliveries as code

MISMATCH = "Idempotency key reused with a different payload"
DOWN: Fault = "503"


def check_rejected(reply: Reply, words: str = WORDS) -> None:
    if reply.door == "rest":
        assert (reply.status, reply.body) == (400, {"detail": words})
        return
    assert (reply.status, reply.words()) == (grpc.StatusCode.FAILED_PRECONDITION, words)
    info: Any = reply.details["google.rpc.ErrorInfo"]
    assert info.reason == "provider_rejected"


# At both doors


async def test_a_ticket_is_at_the_provider_before_it_is_here(door: Door, world: World) -> None:
    async with linked(world) as (program, desk):
        ticket = (await create(door, program, metadata={"a": 1})).succeeded(201)
        assert {name: ticket[name] for name in NOWHERE} == external(desk)
        assert (ticket["subject"], ticket["metadata"]) == (TICKET["subject"], {"a": 1})
        assert await get(door, program, ticket) == ticket
        assert len(desk.tickets) == 1
        assert events(world, ticket) == [("ticket.created", {}, program.key_id)]
        assert (await door.call("itsm.list", program.credential)).succeeded()["total"] == 1
        assert deliveries(world, program.account_id) == []


async def test_what_the_provider_rejects_is_nowhere(door: Door, world: World) -> None:
    async with linked(world) as (program, desk):
        check_rejected(await create(door, program, "key", **BAD))
        check_rejected(await create(door, program, **BAD))
        assert (kept(world, program.account_id), desk.tickets) == ([], [])
        # Its key is free again, for any body.
        reply = await create(door, program, "key")
        assert "idempotent-replayed" not in reply.headers
        assert reply.succeeded(201)["external_ticket_id"] == str(desk.tickets[0]["id"])


async def test_whatever_fails_there_is_one_ticket_there_and_here(rest: Rest, rpc: Grpc, world: World) -> None:
    async def outlast(fault: Fault, door: Door) -> None:
        async with linked(world) as (program, desk):
            desk.faults.append(fault)
            # It ends by itself: nothing here says how long a hanging provider may take.
            ticket = (await create(door, program, "key")).succeeded(201)
            assert {name: ticket[name] for name in NOWHERE} == NOWHERE
            await until(lambda: deliveries(world, program.account_id) == [], what=f"delivery after {fault}")
            found = await get(door, program, ticket)
            assert found == {**ticket, **external(desk), "updated_at": found["updated_at"]}, fault
            assert len(desk.tickets) == 1, fault
            told = {name: {"from": None, "to": value} for name, value in external(desk).items()}
            assert events(world, ticket) == [
                ("ticket.created", {}, program.key_id),
                ("ticket.updated", told, "system"),
            ]
            # The first answer stays the answer of its key.
            assert (await create(door, program, "key")).succeeded(201) == ticket

    await asyncio.gather(*(outlast(fault, door) for fault in get_args(Fault) for door in (rest, rpc)))


async def test_test_keys_and_other_accounts_have_no_provider(door: Door, world: World) -> None:
    async with linked(world) as (program, desk):
        for other in (await world.program(account_id=program.account_id, test=True), await world.program()):
            ticket = (await create(door, other, "key")).succeeded(201)
            await update(door, other, ticket, subject="Changed")
            assert {name: ticket[name] for name in NOWHERE} == NOWHERE
        assert desk.requests == []


async def test_changes_are_mirrored(door: Door, world: World) -> None:
    async with linked(world) as (program, desk):
        ticket = (await create(door, program, requester_email="ada@example.com")).succeeded(201)
        changed = await update(door, program, ticket, status="closed", priority="urgent", requester_email=None)
        there = desk.tickets[0]
        assert (there["status"], there["priority"], there["email"]) == (5, 4, "desk@example.com")
        assert {name: changed[name] for name in NOWHERE} == external(desk)
        before = len(desk.requests)
        await update(door, program, ticket, metadata={"note": "ours alone"})
        await update(door, program, ticket)
        assert len(desk.requests) == before
        assert deliveries(world, program.account_id) == []
        # What the provider does not take is changed here all the same.
        assert (await update(door, program, ticket, **BAD))["description"] == " "
        assert deliveries(world, program.account_id) == [("update", "dead", WORDS)]


async def test_five_at_the_same_moment_make_one_ticket(door: Door, world: World) -> None:
    async with linked(world) as (program, desk):
        desk.does.clear()
        replies = [asyncio.ensure_future(create(door, program, "race")) for _ in range(5)]
        await until(lambda: len(desk.requests) > 0, what="the first one")
        desk.does.set()
        answers = [reply.succeeded(201) for reply in await asyncio.gather(*replies)]
        assert answers == [answers[0]] * 5
        assert len(desk.requests) == len(desk.tickets) == 1
        assert (await door.call("itsm.list", program.credential)).succeeded()["total"] == 1
        assert sum("idempotent-replayed" not in reply.result().headers for reply in replies) == 1


async def test_a_retry_waits_for_the_first_and_another_body_does_not(rest: Rest, rpc: Grpc, world: World) -> None:
    async with linked(world) as (program, desk):
        desk.does.clear()
        first = asyncio.ensure_future(create(rest, program, "key"))
        await until(lambda: len(desk.requests) == 1, what="the first one")
        retry = asyncio.ensure_future(create(rpc, program, "key"))
        for door in (rest, rpc):
            (await create(door, program, "key", subject="Another")).failed("idempotency_mismatch", MISMATCH)
        # One that cannot wait so long is told, and spoils nothing.
        call = service_pb2_grpc.TicketServiceStub(rpc.channel).CreateTicket(
            service_pb2.CreateTicketRequest(subject=TICKET["subject"], description=TICKET["description"]),
            metadata=[*program.credential.items(), ("idempotency-key", "key")],
            timeout=0.5,
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not first.done()
        assert not retry.done()
        desk.does.set()
        ticket = (await first).succeeded(201)
        assert (await retry).succeeded(201) == ticket
        assert retry.result().headers["idempotent-replayed"] == "true"
        assert len(desk.tickets) == 1


async def test_who_waits_for_one_that_is_rejected_tries_too(door: Door, world: World) -> None:
    async with linked(world) as (program, desk):
        desk.refusals.append(Response(400, {"description": "Not today", "errors": []}))
        desk.does.clear()
        calls = [asyncio.ensure_future(create(door, program, "key")) for _ in range(2)]
        await until(lambda: len(desk.requests) == 1, what="the first one")
        desk.does.set()
        replies = await asyncio.gather(*calls)
        assert len(desk.tickets) == 1
        [made] = [reply for reply in replies if "external_provider" in reply.body]
        assert made.succeeded(201)["external_ticket_id"] == str(desk.tickets[0]["id"])
        replies.remove(made)
        check_rejected(replies[0], "Not today")


# In the background: processes that no door leads to, on a database of their own, deliver when they are told to


@pytest.fixture(scope="module")
def apart_url(database_url: str) -> Iterator[str]:
    with own_database(database_url) as url:
        yield url


@pytest.fixture(scope="module")
async def apart(apart_url: str, issuer: Issuer) -> AsyncIterator[World]:
    world = World(apart_url, issuer)
    yield world
    await world.close()


@pytest.fixture
async def process(apart: World) -> AsyncIterator[Process]:
    apart.run("DELETE FROM provider_deliveries")
    async with processes(apart, 1) as [process]:
        yield process


async def test_changes_go_in_order_behind_a_creation_that_is_queued(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        desk.faults += [DOWN, "500", DOWN]
        ticket = await process.create(program)
        for changes in ({"subject": "First"}, {"subject": "Second", "status": "pending"}, {"priority": "high"}):
            await process.update(program, ticket, **changes)
        assert desk.asked == [("POST", TICKET["subject"])]
        await process.work_off()
        assert desk.asked[-4:] == [
            ("POST", TICKET["subject"]),
            ("PUT", {"subject": "First"}),
            ("PUT", {"subject": "Second", "status": 3}),
            ("PUT", {"priority": 3}),
        ]
        assert [method for method, _ in desk.asked].count("PUT") == 3
        found = await process.get(program, ticket)
        assert {name: found[name] for name in NOWHERE} == external(desk)
        assert (found["subject"], found["status"], found["priority"]) == ("Second", "pending", "high")


async def test_a_change_that_fails_holds_up_those_behind_it(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        ticket, other = await process.create(program), await process.create(program)
        desk.faults += [DOWN]
        await process.update(program, ticket, subject="First")
        await process.update(program, ticket, subject="Second")
        # Of this ticket alone.
        await process.update(program, other, subject="Other")
        assert desk.asked[2:] == [("PUT", {"subject": "First"}), ("PUT", {"subject": "Other"})]
        await process.work_off()
        assert desk.asked[4:] == [("PUT", {"subject": "First"}), ("PUT", {"subject": "Second"})]


async def test_a_rejected_change_is_dead_until_an_operator_sends_what_is_there_by_now(
    apart: World, process: Process
) -> None:
    async with linked(apart) as (program, desk):
        ticket = await process.create(program)
        await process.update(program, ticket, **BAD, priority="low")
        await process.update(program, ticket, subject="Later")
        assert deliveries(apart, program.account_id) == [("update", "dead", WORDS)]
        assert desk.tickets[0]["subject"] == "Later"
        desk.faults.append(DOWN)
        await process.update(program, ticket, description="Since ten.")
        await process.work()
        assert desk.tickets[0]["description"] == "Since ten."
        [dead] = (await apart.operate(admin.list_deliveries, account_id=program.account_id))["deliveries"]
        again = (await apart.operate(admin.requeue_delivery, delivery_id=dead["id"]))["delivery"]
        assert (again["id"], again["state"], again["attempts"]) == (dead["id"], "queued", 0)
        await process.work_off()
        assert desk.asked[-1] == ("PUT", {"description": "Since ten.", "priority": 1})
        assert deliveries(apart, program.account_id) == []


async def test_what_fails_too_often_is_dead(apart: World, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_MOST_ATTEMPTS", 2)
    async with linked(apart) as (program, desk):
        desk.faults += [DOWN, DOWN]
        ticket = await process.create(program)
        await process.update(program, ticket, subject="Changed")
        await process.work()
        # Nothing can be changed of what is not there.
        waiting = deliveries(apart, program.account_id)
        assert [one[:2] for one in waiting] == [("create", "dead"), ("update", "queued")]
        await process.work()
        assert deliveries(apart, program.account_id) == waiting
        [dead] = (await apart.operate(admin.list_deliveries, account_id=program.account_id, state="dead"))["deliveries"]
        assert dead["attempts"] == 2
        await apart.operate(admin.requeue_delivery, delivery_id=dead["id"])
        await process.work_off()
        assert [one["subject"] for one in desk.tickets] == ["Changed"]
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])


async def test_a_creation_that_was_rejected_later_goes_with_what_is_there_by_now(
    apart: World, process: Process
) -> None:
    async with linked(apart) as (program, desk):
        desk.faults.append(DOWN)
        bad: dict[str, Any] = {**BAD}
        ticket = await process.create(program, **bad)
        await process.work()
        await process.update(program, ticket, description="Since ten.")
        [dead] = (await apart.operate(admin.list_deliveries, account_id=program.account_id, state="dead"))["deliveries"]
        await apart.operate(admin.requeue_delivery, delivery_id=dead["id"])
        await process.work_off()
        assert [one["description"] for one in desk.tickets] == ["Since ten."]
        assert deliveries(apart, program.account_id) == []


async def test_what_one_provider_sets_as_a_cookie_goes_to_no_other(apart: World, process: Process) -> None:
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


async def test_an_account_that_is_unlinked_has_nothing_more_to_tell(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        there = await process.create(program)
        desk.faults += [DOWN, DOWN]
        queued = await process.create(program)
        await process.update(program, queued, subject="Changed")
        await process.update(program, there, subject="Changed")
        before = len(desk.requests)
        await apart.operate(admin.unlink_provider, account_id=program.account_id)
        await process.work_off()
        assert deliveries(apart, program.account_id) == []
        assert len(desk.requests) == before
        found = await process.get(program, queued)
        assert {name: found[name] for name in NOWHERE} == NOWHERE
        assert (await process.get(program, there))["external_ticket_id"] == there["external_ticket_id"]
        # One who is known as linked for some seconds more gets a ticket all the same.
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
            words = "the account has another provider by now"
            assert deliveries(apart, program.account_id) == [("update", "dead", words)]


async def test_a_provider_that_fails_again_and_again_is_left_alone(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(code, "time", SimpleNamespace(monotonic=lambda: now))
    async with linked(apart) as (program, desk), linked(apart) as (other, well):
        desk.faults += [DOWN] * 5
        tickets = [await process.create(program) for _ in range(7)]
        assert len(desk.requests) == 5
        # Nobody else's is.
        assert (await process.create(other))["external_ticket_id"] == str(well.tickets[0]["id"])
        await process.work()
        assert (len(desk.requests), len(well.tickets)) == (5, 1)
        now += 31
        for _ in range(10):
            await process.work()
        assert len(desk.tickets) == len(tickets)
        assert deliveries(apart, program.account_id) == []
        assert (await process.create(program))["external_ticket_id"] is not None


@pytest.mark.parametrize("keyed", [True, False], ids=["under a key", "without"])
async def test_several_processes_deliver_each_once(apart: World, process: Process, keyed: bool) -> None:
    async with AsyncExitStack() as stack:
        accounts = [await stack.enter_async_context(linked(apart)) for _ in range(3)]
        for (program, desk), n in itertools.product(accounts, range(4)):
            desk.faults.append(DOWN)
            ticket = await process.create(program, str(n) if keyed else None, subject=f"s{n}")
            await process.update(program, ticket, status="pending")
        workers = await stack.enter_async_context(processes(apart, 4))
        for _ in range(8):
            await asyncio.gather(*(worker.work() for worker in workers))
        for program, desk in accounts:
            assert deliveries(apart, program.account_id) == []
            assert sorted(one["subject"] for one in desk.tickets) == ["s0", "s1", "s2", "s3"]
            assert sum(one.method == "PUT" for one in desk.requests) == 4


@pytest.mark.parametrize("keyed", [True, False], ids=["under a key", "without"])
async def test_a_lease_that_was_lost_makes_no_second_ticket(apart: World, process: Process, keyed: bool) -> None:
    async with linked(apart) as (program, desk), processes(apart, 1) as [other]:
        desk.tells.clear()
        first = asyncio.ensure_future(process.create(program, "key" if keyed else None))
        await until(lambda: len(desk.tickets) == 1, what="the ticket there")
        apart.run("UPDATE provider_deliveries SET leased_until = now() - interval '1 second'")
        taken = asyncio.ensure_future(other.work())
        await until(lambda: len(desk.requests) == 2, what="the other process to look")
        desk.tells.set()
        await taken
        if keyed:
            ticket = await first
            assert (ticket["external_provider"], await process.create(program, "key")) == ("freshservice", ticket)
        else:
            # There is no telling the caller which one it is.
            with pytest.raises(TicketError, match="unavailable"):
                await first
        assert len(desk.tickets) == 1
        count = "SELECT count(*) FROM itsm_tickets WHERE account_id = %s"
        assert apart.rows(count, program.account_id) == [(1,)]
        assert deliveries(apart, program.account_id) == []


async def test_a_key_that_is_answered_between_two_looks_makes_no_second_ticket(
    apart: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = idempotency.replay
    async with linked(apart) as (program, desk), processes(apart, 1) as [other]:
        first: list[Any] = []

        async def then_another_answers(*arguments: Any) -> Any:
            stored = await look(*arguments)
            if not first:
                first.append("on its way")
                first[0] = await other.create(program, "key")
            return stored

        monkeypatch.setattr(idempotency, "replay", then_another_answers)
        ticket = await process.create(program, "key")
        assert str(ticket["id"]) == str(first[0]["id"])
        assert len(desk.tickets) == 1
        assert deliveries(apart, program.account_id) == []


async def die(world: World, process: Process, program: Program, desk: Desk) -> None:
    """Be asked under the key `key` as far as the provider has it, and be gone."""
    desk.tells.clear()
    asked = asyncio.ensure_future(process.create(program, "key"))
    await until(lambda: len(desk.requests) == 1, what="the provider to be asked")
    asked.cancel()
    desk.tells.set()
    world.run("UPDATE provider_deliveries SET leased_until = now() - interval '1 second'")


async def test_what_is_rejected_when_its_caller_is_gone_is_nowhere(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        desk.refusals.append(Response(400, {"description": "No", "errors": []}))
        await die(apart, process, program, desk)
        desk.refusals.append(Response(400, {"description": "No", "errors": []}))
        desk.refusals.insert(0, Response(200, {"tickets": []}))
        desk.refusals.insert(1, Response(200, {"tickets": []}))
        await process.work_off()
        assert [one.method for one in desk.requests] == ["POST", "GET", "GET", "POST"]
        assert (kept(apart, program.account_id), desk.tickets) == ([], [])


async def test_a_search_that_is_rejected_does_not_say_that_nothing_is_there(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        await die(apart, process, program, desk)
        desk.refusals.append(Response(400, {"description": "Bad query", "errors": []}))
        ticket = await process.create(program, "key")
        assert len(desk.requests) == 2
        await process.work_off()
        assert len(desk.tickets) == 1
        assert (await process.get(program, ticket))["external_ticket_id"] == str(desk.tickets[0]["id"])


async def test_a_credential_that_no_longer_holds_holds_up_and_rejects_nothing(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        await link(apart, program, desk, credential="old")
        ticket = await process.create(program)
        await process.update(program, ticket, subject="Changed")
        (creation, change) = deliveries(apart, program.account_id)
        assert (creation[:2], change) == (("create", "queued"), ("update", "queued", None))
        assert "401" in creation[2]
        await link(apart, program, desk)
        await process.work_off()
        assert [one["subject"] for one in desk.tickets] == ["Changed"]


async def test_tickets_at_one_desk_are_not_changed_at_another_of_its_vendor(apart: World, process: Process) -> None:
    async with linked(apart) as (program, _), linked(apart) as (stranger, other):
        ticket, _ = await process.create(program), await process.create(stranger)
        await link(apart, program, other)
        await process.update(program, ticket, subject="Changed")
        assert [one["subject"] for one in other.tickets] == [TICKET["subject"]]


async def test_a_key_that_was_answered_without_the_provider_stays_so(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        await die(apart, process, program, desk)
        await apart.operate(admin.unlink_provider, account_id=program.account_id)
        ticket = await process.create(program, "key", linked=False)
        await process.work_off()
        count = "SELECT count(*) FROM itsm_tickets WHERE account_id = %s"
        assert apart.rows(count, program.account_id) == [(1,)]
        assert await process.create(program, "key") == ticket


async def test_an_account_whose_provider_hangs_holds_up_no_other(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk), linked(apart) as (other, well):
        members = '{"subject": "s", "description": "d", "status": "open", "priority": null, "requester_email": null}'
        queue = (
            "INSERT INTO itsm_tickets (id, account_id, live, subject, description, status, metadata)"
            " VALUES (%s, %s, true, 's', 'd', 'open', '{}')",
            "INSERT INTO provider_deliveries (id, account_id, ticket_id, version, kind, members, is_kept, actor,"
            " request_id) VALUES (%s, %s, %s, 1, 'create', %s, true, 'a', 'r')",
        )
        desk.does.clear()
        for program_ in [program] * 40 + [other]:
            ticket_id = str(uuid4())
            apart.run(queue[0], ticket_id, program_.account_id)
            apart.run(queue[1], str(uuid4()), program_.account_id, ticket_id, members)
        for _ in range(3):
            await process.deliveries.work(process.database)
        await until(lambda: len(well.tickets) == 1, what="the ticket of the other account")
        assert len(desk.requests) < 40
        desk.does.set()
