"""Webhooks that hang, fall behind or are changed meanwhile: others are not delayed, and no message is wrong."""

import asyncio
from typing import Any

import psycopg
import pytest
from support.emulators.http import Request, Response, Server
from support.webhook_lab import Account, Machine, Process, Receiver, signatures, until

from service import jsontext
from service.errors import TicketError
from service.itsm import webhooks
from service.webhooks import attempts, fan_out, message_queries, queries, sender
from service.webhooks.attempts import MAX_ATTEMPTS, Attempts
from service.webhooks.fan_out import FanOut


async def test_a_webhook_far_behind_receives_each_change_as_it_was(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    await process.register(account, receiver.url + "/hook")
    versions = [await process.create(account, metadata={"n": 0})]
    changes: list[dict[str, Any]] = [
        {},
        {"subject": "Still", "priority": "low"},
        {"priority": None},
        {"status": "closed"},
        {"status": "closed", "description": "Once more"},
        {"status": "open", "requester_email": "ada@example.com"},
        {"description": "ü" * 1000},
    ]
    # More than two transactions' worth; a member changes last in the first, in the middle or at the end.
    for n in range(2 * fan_out._EVENTS_AT_ONCE + 10):
        change = changes[n % len(changes)] or {"metadata": {"n": n + 0.5}}
        change = {**change, "subject": f"VPN {n // 9}"}
        versions.append(await process.update(account, versions[0], **change))
    # Half of it by a process that wrote no names.
    machine.rows("UPDATE itsm_events SET members = NULL WHERE mod(version, 2) = 0")
    await machine.fan_out(process)
    bodies = machine.rows(
        "SELECT version, body FROM itsm_webhook_messages WHERE version = 1 OR type = 'ticket.updated' ORDER BY version"
    )
    assert [version for version, _ in bodies] == list(range(1, len(versions) + 1))
    for (_, body), ticket in zip(bodies, versions, strict=True):
        assert jsontext.dump(jsontext.parse(body.encode())["data"]) == jsontext.dump(ticket)


async def test_an_account_whose_webhooks_hang_delays_no_other(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    slow, other = Account(), Account()
    async with Receiver().listening() as dead:
        dead.faults = ["hang"] * 100
        for n in range(5):
            await process.register(slow, f"{dead.url}/{n}")
        for _ in range(5):
            await process.create(slow)
        await machine.fan_out(process)
        work = asyncio.create_task(process.sender.send_due(process.database))
        await until(lambda: len(dead.requests) >= 8)
        await process.register(other, receiver.url + "/hook")
        await process.create(other)
        await machine.fan_out(process)
        await until(lambda: len(receiver.requests) == 1)
        assert len(dead.requests) == 8
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_webhook_whose_fan_out_fails_delays_no_other(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    bad = await process.register(account, receiver.url + "/bad")
    await process.register(account, receiver.url + "/good")
    await process.create(account)
    queue_next = FanOut._queue_next

    async def queue_others(self: FanOut, connection: Any, webhook: Any) -> None:
        if webhook["id"] == bad["id"]:
            raise KeyError
        await queue_next(self, connection, webhook)

    monkeypatch.setattr(FanOut, "_queue_next", queue_others)
    await machine.send(process)
    assert [request.path for request in receiver.requests] == ["/good"]


async def test_a_message_that_is_never_accepted_stops_no_others(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    receiver.planned["/hook"] = [Response(422)] * MAX_ATTEMPTS
    ticket = await process.create(account, subject="Too much for it")
    await process.update(account, ticket, subject="Less")
    await machine.fan_out(process)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        await machine.retry(process)
        if attempt < MAX_ATTEMPTS:
            assert receiver.events("/hook") == [("ticket.created", "Too much for it")] * attempt
    # It alone is given up, because others were accepted in between.
    assert receiver.events("/hook")[MAX_ATTEMPTS:] == [("ticket.updated", "Less")]
    now = await process.webhook(account, webhook)
    assert (now["is_active"], now["failing_since"]) == (True, None)
    log = await process.log(account, webhook)
    assert [entry["attempt"] for entry in log] == [1, *range(MAX_ATTEMPTS, 0, -1)]
    assert machine.rows("SELECT 1 FROM itsm_webhook_messages") == []
    # Its account may still replay it.
    await process.do(account, webhooks.replay_delivery, webhook_id=webhook["id"], delivery_id=log[1]["id"])
    await process.sender.send_due(process.database)
    assert receiver.events("/hook")[-1] == ("ticket.created", "Too much for it")


async def test_an_attempt_from_before_it_was_enabled_again_does_not_count(machine: Machine, process: Process) -> None:
    account, called, may_answer = Account(), asyncio.Event(), asyncio.Event()

    async def gone_at_first(_: Request) -> Response:
        called.set()
        await may_answer.wait()
        return Response(410 if len(server.requests) == 1 else 200)

    async with Server(gone_at_first).listening() as server:
        webhook = await process.register(account, server.url + "/hook")
        await process.create(account)
        await machine.fan_out(process)
        work = asyncio.create_task(process.sender.send_due(process.database))
        await called.wait()
        await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
        may_answer.set()
        await work
        now = await process.webhook(account, webhook)
        assert (now["is_active"], now["failing_since"], now["disabled_reason"]) == (True, None, None)
        assert [entry["status_code"] for entry in await process.log(account, webhook)] == [410]
        # It is not sent twice at once, so it waits for the end of the first lease.
        machine.rows("UPDATE itsm_webhook_messages SET leased_until = now() - interval '1 second'")
        await process.sender.send_due(process.database)
    assert [entry["status_code"] for entry in await process.log(account, webhook)] == [200, 410]


async def test_a_change_and_a_deletion_at_once_do_not_deadlock(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account)
    await machine.fan_out(process)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(machine.url) as sender:
        sender.execute("SELECT 1 FROM itsm_webhook_messages FOR UPDATE")
        gone = asyncio.create_task(process.do(account, webhooks.delete_webhook, webhook_id=webhook["id"]))
        await until(lambda: machine.rows(waiting) == [(1,)])
        named = {"webhook_id": webhook["id"], "is_active": True}
        changed = asyncio.create_task(process.do(account, webhooks.update_webhook, **named))
        await until(lambda: machine.rows(waiting) == [(2,)])
    assert await gone == {}
    with pytest.raises(TicketError, match="Webhook not found"):
        await changed


async def test_a_database_that_is_unavailable_for_a_moment_cancels_no_attempt(
    machine: Machine, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, is_unavailable = Account(), asyncio.Event()
    lease_due, all_rows = message_queries.for_source(webhooks.SOURCE).lease_due, process.database.all

    async def fail_to_lease(statement: Any, *given: Any, **more: Any) -> Any:
        if statement is lease_due and server.requests:
            is_unavailable.set()
            raise TicketError("unavailable")
        return await all_rows(statement, *given, **more)

    async def wait(_: Request) -> Response:
        await is_unavailable.wait()
        return Response(200)

    async with Server(wait).listening() as server:
        webhook = await process.register(account, server.url + "/hook")
        await process.create(account)
        await machine.fan_out(process)
        monkeypatch.setattr(process.database, "all", fail_to_lease)
        monkeypatch.setattr(sender, "_LOOK_SECONDS", 0.01)
        await process.sender.send_due(process.database)
    assert [entry["succeeded"] for entry in await process.log(account, webhook)] == [True]


async def test_an_attempt_that_could_not_be_recorded_is_recorded_later_and_not_made_again(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, failures = Account(), iter([TicketError("unavailable")] * 2)
    last, one = message_queries.for_source(webhooks.SOURCE).record_last_attempt, process.database.one

    async def fail_to_record(statement: Any, *given: Any, **more: Any) -> Any:
        if statement is last and (failure := next(failures, None)):
            raise failure
        return await one(statement, *given, **more)

    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account)
    monkeypatch.setattr(process.database, "one", fail_to_record)
    monkeypatch.setattr(attempts, "_AGAIN_SECONDS", 0.01)
    await machine.send(process)
    assert next(failures, None) is None
    assert machine.rows("SELECT 1 FROM itsm_webhook_messages") == []
    assert [entry["succeeded"] for entry in await process.log(account, webhook)] == [True]
    assert len(receiver.requests) == 1


async def test_a_previous_secret_whose_key_is_lost_is_left_out(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    rotated = await process.do(account, webhooks.rotate_secret, webhook_id=webhook["id"])
    machine.rows("UPDATE itsm_webhooks SET previous_secret = 'of another key'")
    await process.create(account)
    await machine.send(process)
    (request,) = receiver.requests
    assert request.headers["webhook-signature"] == signatures(request, rotated["secret"])


def test_the_log_is_read_without_what_was_sent() -> None:
    assert "body" not in queries.for_source(webhooks.SOURCE).list_attempts.columns


CHANGE = (
    "INSERT INTO itsm_events (account_id, live, ticket_id, version, type, changes, actor, request_id)"
    " SELECT account_id, live, id, version + %s, 'ticket.updated', '{}', '', '' FROM itsm_tickets WHERE id = %s"
)


@pytest.mark.parametrize(
    ("before", "after"), [([1], []), ([], [1]), ([1, 2], [3, 4])], ids=["before", "after", "before and after"]
)
async def test_it_receives_what_happens_from_then_on_also_within_one_transaction(
    machine: Machine, process: Process, receiver: Receiver, before: list[int], after: list[int]
) -> None:
    """A transaction that is open while a webhook is created is after its position, with its earlier changes too."""
    account = Account()
    ticket = await process.create(account)
    with psycopg.connect(machine.url) as late:
        late.execute("SELECT pg_current_xact_id()")
        for n in before:
            late.execute(CHANGE, [n, ticket["id"]])
        # The later transaction ends first.
        await process.create(account, subject="Over")
        await process.register(account, receiver.url + "/hook")
        for n in after:
            late.execute(CHANGE, [n, ticket["id"]])
        late.execute("UPDATE itsm_tickets SET version = %s WHERE id = %s", [1 + len(before + after), ticket["id"]])
    await machine.send(process)
    sent = machine.rows("SELECT version - 1 FROM itsm_webhook_attempts ORDER BY version")
    assert [n for (n,) in sent] == after
    assert receiver.events("/hook") == [("ticket.updated", "VPN")] * len(after)
    # And what follows.
    await process.update(account, ticket, subject="Later")
    await machine.send(process)
    assert receiver.events("/hook")[len(after) :] == [("ticket.updated", "Later")]


async def test_it_fails_since_its_first_failure_until_its_next_success(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account)
    await machine.fan_out(process)
    seen = []
    # None: its account enables it again.
    for status in (500, 503, 404, 204, 500, 410, None, 302, 410):
        if status is None:
            await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
        else:
            receiver.planned["/hook"] = [Response(status)]
            await machine.retry(process)
        if status == 204:
            await process.create(account)
            await machine.fan_out(process)
        now = await process.webhook(account, webhook)
        seen.append((now["is_active"], now["failing_since"]))
    assert len(receiver.requests) == 8
    (_, first), (_, second), (_, third) = seen[0], seen[4], seen[7]
    assert None not in (first, second, third)
    assert first < second < third
    assert seen == [
        *[(True, first)] * 3,
        (True, None),
        (True, second),
        (False, second),
        (True, None),
        (True, third),
        (False, third),
    ]


async def test_one_that_is_gone_at_once_fails_since_then(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    receiver.planned["/hook"] = [Response(410)]
    await process.create(account)
    await machine.send(process)
    now = await process.webhook(account, webhook)
    (entry,) = await process.log(account, webhook)
    assert now["failing_since"] >= entry["attempted_at"]


async def test_pauses_differ_by_a_tenth_either_way(process: Process) -> None:
    # With this machine's settings all are a hundred times as long.
    recorder = Attempts(webhooks.SOURCE, process.dependencies.settings)
    for number, usual in enumerate(attempts.PAUSES, start=1):
        drawn = [recorder.pause(number, None) / 100 / usual for _ in range(1000)]
        # A thousand evenly spread numbers all miss a tenth of their range once in 10^46 times.
        assert 0.9 <= min(drawn) < 0.92
        assert 1.08 < max(drawn) <= 1.1


async def test_a_queue_ends_at_about_two_hundred(machine: Machine, process: Process) -> None:
    """The rest waits in the events, and follows as soon as the queue is shorter."""
    account = Account()
    await process.register(account, "http://127.0.0.1:9/hook")
    ticket = await process.create(account)
    with psycopg.connect(machine.url) as history:
        history.cursor().executemany(CHANGE, [(n, ticket["id"]) for n in range(1, 300)])
        history.execute("UPDATE itsm_tickets SET version = 300 WHERE id = %s", [ticket["id"]])
    queued = "SELECT count(*), min(version), max(version) FROM itsm_webhook_messages"
    await machine.fan_out(process)
    [(number, first, last)] = machine.rows(queued)
    assert 200 <= number <= 225
    assert (first, last) == (1, number)
    machine.rows("DELETE FROM itsm_webhook_messages")
    await machine.fan_out(process)
    assert machine.rows(queued) == [(300 - number, number + 1, 300)]
