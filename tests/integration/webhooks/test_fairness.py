"""Webhooks that are far behind or fail delay no others; and what the statement costs that looks for all that is due."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.emulators.http import Request, Response, Server
from support.webhook_lab import Account, Machine, Process, Receiver, until

from service.itsm import webhooks
from service.webhooks import fan_out, message_queries, sender
from service.webhooks.fan_out import FanOut


async def test_a_webhook_far_behind_delays_no_other(
    machine: Machine, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, other = Account(), Account()
    monkeypatch.setattr(fan_out, "_EVENTS_AT_ONCE", 2)
    far = await process.register(behind, "https://example.com/far", ["ticket.closed"])
    for _ in range(6):
        await process.create(behind)
    near = await process.register(other, "https://example.com/near")
    await process.create(other)
    order: list[str] = []
    queue_next = FanOut._queue_next

    async def note(self: FanOut, connection: Any, webhook: Any) -> None:
        order.append(webhook["id"])
        await queue_next(self, connection, webhook)

    monkeypatch.setattr(FanOut, "_queue_next", note)
    await machine.fan_out(process)
    assert order.count(far["id"]) == 3
    assert order.index(near["id"]) < 2


@pytest.mark.parametrize("of", ["one account", "many accounts"])
async def test_webhooks_that_fail_delay_none_that_do_not(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    monkeypatch.setattr(sender, "_MAX_IN_FLIGHT", 32 if of == "one account" else 8)
    account, accounts = Account(), [Account() for _ in range(12)]
    async with Receiver().listening() as dead:
        dead.faults = ["hang"] * 200
        for failing in [account] * 12 if of == "one account" else accounts:
            await process.register(failing, dead.url + "/hook")
        for failing in {account, *accounts}:
            await process.create(failing)
        await machine.fan_out(process)
        machine.rows("UPDATE itsm_webhooks SET failing_since = now()")
        healthy = await process.register(account, receiver.url + "/hook")
        await process.create(account)
        await machine.fan_out(process)
        work = asyncio.create_task(process.sender.send_due(process.database))
        # The older messages of those that fail have half of the places.
        await until(lambda: len(receiver.requests) == 1 and len(dead.requests) >= 4)
        assert len(dead.requests) == 4
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert (await process.webhook(account, healthy))["failing_since"] is None


async def test_a_success_ends_a_failure_that_began_meanwhile(machine: Machine, process: Process) -> None:
    account = Account()
    failed = "SELECT count(*) FROM itsm_webhook_attempts WHERE NOT succeeded"

    async def first_fails(request: Request) -> Response:
        if request.body["data"]["subject"] == "Bad":
            return Response(422)
        while machine.rows(failed) == [(0,)]:  # noqa: ASYNC110 - what happens in PostgreSQL sets no event here
            await asyncio.sleep(0.01)
        return Response(200)

    async with Server(first_fails).listening() as server:
        webhook = await process.register(account, server.url + "/hook")
        for subject in ("Bad", "Good"):
            await process.create(account, subject=subject)
        await machine.send(process)
    assert sorted(entry["status_code"] for entry in await process.log(account, webhook)) == [200, 422]
    assert (await process.webhook(account, webhook))["failing_since"] is None


async def test_what_an_address_answers_does_not_count_for_the_next(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account, called, may_answer = Account(), asyncio.Event(), asyncio.Event()

    async def gone(_: Request) -> Response:
        called.set()
        await may_answer.wait()
        return Response(410)

    async with Server(gone).listening() as server:
        webhook = await process.register(account, server.url + "/hook")
        await process.create(account)
        await machine.fan_out(process)
        work = asyncio.create_task(process.sender.send_due(process.database))
        await called.wait()
        named = {"webhook_id": webhook["id"], "url": receiver.url + "/hook"}
        await process.do(account, webhooks.update_webhook, **named)
        may_answer.set()
        await work
    now = await process.webhook(account, webhook)
    assert (now["is_active"], now["failing_since"]) == (True, None)
    machine.rows("UPDATE itsm_webhook_messages SET leased_until = now() - interval '1 second'")
    await process.sender.send_due(process.database)
    assert receiver.events("/hook") == [("ticket.created", "VPN")]


async def test_a_receiver_that_has_answered_has_accepted_the_message_whatever_becomes_of_the_body(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("service.outbound._DRAIN_SECONDS", 0.6)
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    receiver.faults = ["slow"]
    await process.create(account)
    await machine.send(process)
    assert [entry["succeeded"] for entry in await process.log(account, webhook)] == [True]


async def test_an_attempt_waits_for_no_other_to_clear_the_log(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account)
    await machine.send(process)
    machine.rows(
        "INSERT INTO itsm_webhook_attempts SELECT account_id, live, webhook_id, 'dlv_0' || n, ticket_id, version, type,"
        " event_id, body, attempt, attempted_at, duration_ms, succeeded, status_code, error"
        " FROM itsm_webhook_attempts, generate_series(100, 250) AS n"
    )
    await process.create(account)
    await machine.fan_out(process)
    with psycopg.connect(machine.url) as other:
        other.execute("SELECT 1 FROM itsm_webhook_attempts FOR UPDATE")
        await process.sender.send_due(process.database)
    assert machine.rows("SELECT 1 FROM itsm_webhook_messages") == []
    assert (await process.log(account, webhook))[0]["succeeded"]


async def test_due_messages_are_read_once_however_old_the_statistics(machine: Machine, process: Process) -> None:
    account = Account()
    webhook = await process.register(account, "https://example.com/hook")
    with psycopg.connect(machine.url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("TRUNCATE itsm_webhook_messages")
        new = (
            "INSERT INTO itsm_webhook_messages (account_id, live, webhook_id, ticket_id, version, type, event_id, body,"
            " next_attempt_at) SELECT %s, true, %s, gen_random_uuid(), 1, 'ticket.created', 'evt', '{}', now() + %s"
            " FROM generate_series(1, %s)"
        )
        connection.execute(new, (account.id, webhook["id"], "1 hour", 100))
        connection.execute("ANALYZE itsm_webhook_messages")
        connection.execute(new, (account.id, webhook["id"], "-1 hour", 300))
        statement = message_queries.for_source(webhooks.SOURCE).lease_due
        given: dict[str, Any] = {
            "busy": [uuid4()],
            "rows": 128,
            "failing_rows": 64,
            "lease": uuid4(),
            "lapsed_too": True,
        }
        values = [given[name] if name in given else statement.constants[name] for name in statement.names]
        connection.execute(b"PREPARE look AS " + statement.sql)
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE look({', '.join(['%s'] * len(values))})"
        [[plan]] = connection.execute(explain, values).fetchall()
        connection.rollback()
    windows = [node for node in _nodes(plan[0]["Plan"]) if node["Node Type"] == "WindowAgg"]
    assert windows
    assert {node["Actual Loops"] for node in windows} == {1}, json.dumps(plan)


def _nodes(plan: Any) -> list[Any]:
    return [plan, *(node for inner in plan.get("Plans", ()) for node in _nodes(inner))]
