"""contracts/itsm.md, Provider and Idempotency: a ticket is at the account's provider exactly once, whatever happens."""

import asyncio
from typing import Any, get_args

import grpc
import pytest
from support.emulators.http import Fault, Response
from support.provider_lab import (
    BAD,
    MESSAGE,
    NO_REFERENCE,
    TICKET,
    Process,
    Transport,
    create,
    deliveries,
    events,
    external,
    get,
    linked,
    tables_with_rows,
    until,
    update,
)
from support.system import World
from support.transports import Grpc, Reply, Rest
from tickets.itsm.v1 import ticket_service_pb2, ticket_service_pb2_grpc

from service.admin import operations as admin

MISMATCH = "Idempotency key reused with a different payload"
DOWN: Fault = "503"


def check_rejected(reply: Reply, message: str = MESSAGE) -> None:
    if reply.transport == "rest":
        assert (reply.status, reply.body) == (400, {"detail": message})
        return
    assert (reply.status, reply.message()) == (grpc.StatusCode.FAILED_PRECONDITION, message)
    info: Any = reply.details["google.rpc.ErrorInfo"]
    assert info.reason == "provider_rejected"


async def test_a_change_that_changes_nothing_does_not_call_the_provider(apart: World, process: Process) -> None:
    async with linked(apart) as (program, desk):
        ticket = await process.create(program, metadata={"n": 1})
        again = await process.update(program, ticket, subject=TICKET["subject"], status="open", metadata={"n": 1.0})
        assert again == ticket
        assert [method for method, _ in desk.writes] == ["POST"]
        assert deliveries(apart, program.account_id) == []
        await process.update(program, ticket, subject="VPN again")
        assert [method for method, _ in desk.writes] == ["POST", "PUT"]


# At both transports


async def test_a_ticket_is_at_the_provider_before_it_is_here(transport: Transport, world: World) -> None:
    async with linked(world) as (program, desk):
        ticket = (await create(transport, program, metadata={"a": 1})).succeeded(201)
        assert {name: ticket[name] for name in NO_REFERENCE} == external(desk)
        assert (ticket["subject"], ticket["metadata"]) == (TICKET["subject"], {"a": 1})
        assert await get(transport, program, ticket) == ticket
        assert len(desk.tickets) == 1
        assert events(world, ticket) == [("ticket.created", {}, program.key_id)]
        assert (await transport.call("itsm.list", program.credential)).succeeded()["total"] == 1
        assert deliveries(world, program.account_id) == []


async def test_a_ticket_that_the_provider_rejects_is_not_stored(transport: Transport, world: World) -> None:
    async with linked(world) as (program, desk):
        check_rejected(await create(transport, program, "key", **BAD))
        check_rejected(await create(transport, program, **BAD))
        assert (tables_with_rows(world, program.account_id), desk.tickets) == ([], [])
        # Its key is free again, for any body.
        reply = await create(transport, program, "key")
        assert "idempotent-replayed" not in reply.headers
        assert reply.succeeded(201)["external_ticket_id"] == str(desk.tickets[0]["id"])


async def test_after_every_fault_there_is_one_ticket_there_and_here(rest: Rest, rpc: Grpc, world: World) -> None:
    async def outlast(fault: Fault, transport: Transport) -> None:
        async with linked(world) as (program, desk):
            desk.faults.append(fault)
            # It ends by itself: the test does not limit how long a provider may hang.
            ticket = (await create(transport, program, "key")).succeeded(201)
            assert {name: ticket[name] for name in NO_REFERENCE} == NO_REFERENCE
            await until(lambda: deliveries(world, program.account_id) == [], what=f"delivery after {fault}")
            found = await get(transport, program, ticket)
            assert found == {**ticket, **external(desk), "updated_at": found["updated_at"]}, fault
            assert len(desk.tickets) == 1, fault
            changes = {name: {"from": None, "to": value} for name, value in external(desk).items()}
            assert events(world, ticket) == [
                ("ticket.created", {}, program.key_id),
                ("ticket.updated", changes, "system"),
            ]
            # The first answer stays the answer of its key.
            assert (await create(transport, program, "key")).succeeded(201) == ticket

    await asyncio.gather(*(outlast(fault, transport) for fault in get_args(Fault) for transport in (rest, rpc)))


# It looks like an address, but no name server knows it.
BROKEN = "https://xn--a"


async def test_a_link_with_an_unusable_address_fails_no_call(transport: Transport, world: World) -> None:
    async with linked(world) as (program, desk):
        there = (await create(transport, program)).succeeded(201)
        # No operator could link it so now.
        world.run("UPDATE provider_links SET url = %s WHERE account_id = %s", BROKEN, program.account_id)
        for key in ("key", None):
            ticket = (await create(transport, program, key)).succeeded(201)
            assert {name: ticket[name] for name in NO_REFERENCE} == NO_REFERENCE
            assert await get(transport, program, ticket) == ticket
            changed = await update(transport, program, ticket, subject="Changed")
            assert (changed["subject"], changed["external_ticket_id"]) == ("Changed", None)
            if key:
                assert (await create(transport, program, key)).succeeded(201) == ticket
        queued = deliveries(world, program.account_id)
        assert [one[:2] for one in queued] == [("create", "queued"), ("update", "queued")] * 2
        # The background attempts them too, and may have opened the breaker before the second one.
        errors = [error for kind, _, error in queued if kind == "create"]
        no_connection, not_called = "no connection: ", "the provider has failed too often, and is not called for now"
        assert all(error.startswith(no_connection) or error == not_called for error in errors)
        assert len(desk.requests) == 1
        assert await get(transport, program, there) == there
        await world.operate(admin.unlink_provider, account_id=program.account_id)


async def test_test_keys_and_other_accounts_have_no_provider(transport: Transport, world: World) -> None:
    async with linked(world) as (program, desk):
        for other in (await world.program(account_id=program.account_id, test=True), await world.program()):
            ticket = (await create(transport, other, "key")).succeeded(201)
            await update(transport, other, ticket, subject="Changed")
            assert {name: ticket[name] for name in NO_REFERENCE} == NO_REFERENCE
        assert desk.requests == []


async def test_changes_are_mirrored(transport: Transport, world: World) -> None:
    async with linked(world) as (program, desk):
        ticket = (await create(transport, program, requester_email="ada@example.com")).succeeded(201)
        changed = await update(transport, program, ticket, status="closed", priority="urgent", requester_email=None)
        # The background may have leased it first; then the caller does not wait.
        await until(lambda: deliveries(world, program.account_id) == [], what="the change at the provider")
        there = desk.tickets[0]
        assert (there["status"], there["priority"], there["email"]) == (5, 4, "desk@example.com")
        assert {name: changed[name] for name in NO_REFERENCE} == external(desk)
        before = len(desk.requests)
        await update(transport, program, ticket, metadata={"note": "ours alone"})
        await update(transport, program, ticket)
        assert len(desk.requests) == before
        assert deliveries(world, program.account_id) == []
        # A change that the provider rejects is made here all the same.
        assert (await update(transport, program, ticket, **BAD))["description"] == " "
        assert deliveries(world, program.account_id) == [("update", "dead", MESSAGE)]


async def test_five_at_the_same_moment_make_one_ticket(transport: Transport, world: World) -> None:
    async with linked(world) as (program, desk):
        desk.may_process.clear()
        replies = [asyncio.ensure_future(create(transport, program, "race")) for _ in range(5)]
        await until(lambda: len(desk.requests) > 0, what="the first one")
        desk.may_process.set()
        answers = [reply.succeeded(201) for reply in await asyncio.gather(*replies)]
        assert answers == [answers[0]] * 5
        assert len(desk.requests) == len(desk.tickets) == 1
        assert (await transport.call("itsm.list", program.credential)).succeeded()["total"] == 1
        assert sum("idempotent-replayed" not in reply.result().headers for reply in replies) == 1


async def test_a_retry_waits_for_the_first_and_another_body_does_not(rest: Rest, rpc: Grpc, world: World) -> None:
    async with linked(world) as (program, desk):
        desk.may_process.clear()
        first = asyncio.ensure_future(create(rest, program, "key"))
        await until(lambda: len(desk.requests) == 1, what="the first one")
        retry = asyncio.ensure_future(create(rpc, program, "key"))
        for transport in (rest, rpc):
            (await create(transport, program, "key", subject="Another")).failed("idempotency_mismatch", MISMATCH)
        # One that cannot wait so long fails with its deadline, and changes nothing.
        call = ticket_service_pb2_grpc.TicketServiceStub(rpc.channel).CreateTicket(
            ticket_service_pb2.CreateTicketRequest(subject=TICKET["subject"], description=TICKET["description"]),
            metadata=[*program.credential.items(), ("idempotency-key", "key")],
            timeout=0.5,
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not first.done()
        assert not retry.done()
        desk.may_process.set()
        ticket = (await first).succeeded(201)
        assert (await retry).succeeded(201) == ticket
        assert retry.result().headers["idempotent-replayed"] == "true"
        assert len(desk.tickets) == 1


async def test_a_request_that_waited_for_a_rejected_one_is_attempted_too(transport: Transport, world: World) -> None:
    async with linked(world) as (program, desk):
        desk.refusals.append(Response(400, {"description": "Not today", "errors": []}))
        desk.may_process.clear()
        calls = [asyncio.ensure_future(create(transport, program, "key")) for _ in range(2)]
        await until(lambda: len(desk.requests) == 1, what="the first one")
        desk.may_process.set()
        replies = await asyncio.gather(*calls)
        assert len(desk.tickets) == 1
        [made] = [reply for reply in replies if "external_provider" in reply.body]
        assert made.succeeded(201)["external_ticket_id"] == str(desk.tickets[0]["id"])
        replies.remove(made)
        check_rejected(replies[0], "Not today")


async def test_a_caller_with_little_time_gets_an_answer_while_the_provider_hangs(
    channel: grpc.aio.Channel, rpc: Grpc, world: World
) -> None:
    tickets = ticket_service_pb2_grpc.TicketServiceStub(channel)
    async with linked(world) as (program, desk):
        there = (await create(rpc, program)).succeeded(201)
        desk.may_process.clear()
        ticket: Any = TICKET
        given: Any = {"timeout": 1.5, "metadata": tuple(program.credential.items())}
        new, changed = await asyncio.gather(
            tickets.CreateTicket(ticket_service_pb2.CreateTicketRequest(**ticket), **given),
            tickets.UpdateTicket(
                ticket_service_pb2.UpdateTicketRequest(ticket_id=there["id"], subject="Changed"), **given
            ),
        )
        assert not new.ticket.HasField("external_ticket_id")
        assert changed.ticket.subject == "Changed"
        desk.may_process.set()
        await until(lambda: deliveries(world, program.account_id) == [], what="both at the provider")
        assert [one["subject"] for one in desk.tickets] == ["Changed", TICKET["subject"]]


async def test_a_caller_who_leaves_does_not_cancel_the_delivery(
    channel: grpc.aio.Channel, rpc: Grpc, world: World
) -> None:
    tickets = ticket_service_pb2_grpc.TicketServiceStub(channel)
    async with linked(world) as (program, desk):
        there = (await create(rpc, program)).succeeded(201)
        desk.may_process.clear()
        before = len(desk.requests)
        call = tickets.UpdateTicket(
            ticket_service_pb2.UpdateTicketRequest(ticket_id=there["id"], subject="Changed"),
            metadata=tuple(program.credential.items()),
        )
        await until(lambda: len(desk.requests) > before, what="the attempt at the change")
        call.cancel()
        # The next request is handled after the cancellation.
        await get(rpc, program, there)
        desk.may_process.set()
        await until(lambda: deliveries(world, program.account_id) == [], what="the change at the provider")
        assert desk.writes[1:] == [("PUT", {"subject": "Changed"})]


@pytest.mark.parametrize("key", ["key", None], ids=["with a key", "without"])
async def test_a_caller_who_leaves_does_not_cancel_a_creation(
    channel: grpc.aio.Channel, rpc: Grpc, world: World, key: str | None
) -> None:
    """A retry under its key is answered as soon as the provider has answered, not when a lease ends."""
    async with linked(world) as (program, desk):
        desk.may_process.clear()
        ticket: Any = TICKET
        keyed = () if key is None else (("idempotency-key", key),)
        call = ticket_service_pb2_grpc.TicketServiceStub(channel).CreateTicket(
            ticket_service_pb2.CreateTicketRequest(**ticket), metadata=(*program.credential.items(), *keyed)
        )
        await until(lambda: len(desk.requests) == 1, what="the attempt")
        call.cancel()
        # The next request is handled after the cancellation.
        assert (await rpc.call("itsm.list", program.credential)).succeeded()["total"] == 0
        if key is None:
            desk.may_process.set()
            await until(lambda: deliveries(world, program.account_id) == [], what="the ticket here")
            [made] = (await rpc.call("itsm.list", program.credential)).succeeded()["tickets"]
        else:
            retry = asyncio.ensure_future(create(rpc, program, key))
            desk.may_process.set()
            made = (await retry).succeeded(201)
            assert retry.result().headers["idempotent-replayed"] == "true"
        # (A lease that outlasts its attempt would be followed by a search for the ticket.)
        assert [one.method for one in desk.requests] == ["POST"]
        assert made["external_ticket_id"] == str(desk.tickets[0]["id"])
