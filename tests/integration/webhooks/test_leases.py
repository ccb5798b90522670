"""contracts/itsm.md, Webhooks: a message is sent by one process at a time, and soon by another when that one dies."""

import asyncio
import math
import time

import pytest
from support.emulators.http import Request, Response, Server
from support.webhook_lab import Account, Machine, Process, Receiver, until

from service.errors import TicketError
from service.itsm import webhooks
from service.webhooks import message_queries, sender

LAPSE = "UPDATE itsm_webhook_messages SET leased_until = now() - interval '1 second'"
HELD = "SELECT leased_until > now() FROM itsm_webhook_messages"


def test_the_messages_of_a_process_that_died_are_found_within_ten_seconds() -> None:
    # Its lease, and the pauses of the work that looks for it.
    assert message_queries.LEASE_SECONDS + 2 * sender._LOOK_SECONDS < 10
    # One renewal may fail, and the next one be late.
    assert message_queries.LEASE_SECONDS >= 3 * sender._RENEW_SECONDS


async def test_a_lease_lasts_for_seconds(machine: Machine, process: Process) -> None:
    lease = "SELECT extract(epoch FROM leased_until - now())::float FROM itsm_webhook_messages"
    seen = []

    async def look(_: Request) -> Response:
        seen.extend(machine.rows(lease))
        return Response(200)

    account = Account()
    async with Server(look).listening() as server:
        await process.register(account, server.url)
        await process.create(account)
        await machine.send(process)
    [(seconds,)] = seen
    assert 0 < seconds <= message_queries.LEASE_SECONDS


@pytest.mark.parametrize("begins_anew", [False, True], ids=["as it was", "enabled again meanwhile"])
async def test_a_message_in_flight_is_not_sent_by_another(
    machine: Machine, process: Process, monkeypatch: pytest.MonkeyPatch, begins_anew: bool
) -> None:
    """However long its receiver takes: the lease is renewed."""
    account, called, may_answer = Account(), asyncio.Event(), asyncio.Event()

    async def answer(_: Request) -> Response:
        called.set()
        await may_answer.wait()
        return Response(200)

    monkeypatch.setattr(sender, "_RENEW_SECONDS", 0.0)
    monkeypatch.setattr(sender, "_LOOK_SECONDS", 0.01)
    async with Server(answer).listening() as server, machine.process() as other:
        webhook = await process.register(account, server.url)
        await process.create(account)
        await machine.fan_out(process)
        work = asyncio.create_task(process.sender.send_due(process.database))
        await called.wait()
        if begins_anew:
            await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
        machine.rows("UPDATE itsm_webhook_messages SET leased_until = now() + interval '3 seconds'")
        renewed = "SELECT leased_until > now() + interval '4 seconds' FROM itsm_webhook_messages"
        await until(lambda: machine.rows(renewed) == [(True,)])
        await other.sender.send_due(other.database)
        assert len(server.requests) == 1
        may_answer.set()
        await work


async def test_the_lease_of_another_is_not_renewed(machine: Machine, process: Process) -> None:
    """A process that was held up for longer than its lease has lost the message."""
    account = Account()
    await process.register(account, "http://127.0.0.1:9/hook")
    await process.create(account)
    await machine.fan_out(process)
    [message] = await process.sender._lease(process.database, {})
    machine.rows(LAPSE)
    async with machine.process() as other:
        [taken] = await other.sender._lease(other.database, {})
        assert taken["lease"] != message["lease"]
        machine.rows(LAPSE)
        await process.sender._renew(process.database, {asyncio.create_task(asyncio.sleep(0)): message})
        assert machine.rows(HELD) == [(False,)]
        await other.sender._renew(other.database, {asyncio.create_task(asyncio.sleep(0)): taken})
        assert machine.rows(HELD) == [(True,)]
    # What it begins after that it does not send.
    await process.sender._send(process.database, message, -math.inf)
    assert machine.rows("SELECT 1 FROM itsm_webhook_attempts") == []


async def test_after_a_database_was_away_the_holders_of_leases_renew_them_first(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    await process.register(account, receiver.url)
    await process.create(account)
    await machine.fan_out(process)
    async with machine.process() as other:
        await process.sender._lease(process.database, {})
        machine.rows(LAPSE)

        async def away(*_: object, **__: object) -> None:
            raise TicketError("unavailable")

        with monkeypatch.context() as patch:
            patch.setattr(other.database, "all", away)
            await other.sender.send_due(other.database)
        await other.sender.send_due(other.database)
        assert receiver.requests == []
        monkeypatch.setattr(other.sender, "_away_at", time.monotonic() - message_queries.LEASE_SECONDS)
        await other.sender.send_due(other.database)
        assert len(receiver.requests) == 1
