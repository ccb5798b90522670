"""contracts/itsm.md, Webhooks: what is sent, in which order and how often, and what follows when it is not accepted."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import psycopg
import pytest
from support.emulators.http import Request, Response, Server
from support.webhook_lab import EVENTS, Account, Machine, Process, Receiver, body_signature, signatures, until

from service import jsontext
from service.itsm import webhooks
from service.webhooks import attempts, fan_out, sender

CREATED, UPDATED = "ticket.created", "ticket.updated"
# With numbers that no double can hold.
METADATA = b'{"n": 1000000000000000000000000000001, "a": [1.50]}'


async def test_each_change_is_sent_with_the_ticket_as_it_was(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    before = await process.create(account)
    webhook = await process.register(account, receiver.url + "/hook?a=b")
    first = await process.create(account, priority="low", metadata=jsontext.parse(METADATA))
    changed = await process.update(account, first, subject="VPN again", metadata={"n": 1})
    closed = await process.update(account, first, status="closed", priority=None)
    opened = await process.update(account, first, status="open", subject="Still VPN")
    await process.update(account, before, priority="high")
    await machine.send(process)

    of_first = [request for request in receiver.requests if request.body["data"]["id"] == str(first["id"])]
    for request, kind, ticket in zip(
        of_first,
        # "`ticket.updated` is told of every change after the creation, closing and reopening too"
        [CREATED, UPDATED, "ticket.closed", UPDATED, "ticket.reopened", UPDATED],
        [first, changed, closed, closed, opened, opened],
        strict=True,
    ):
        assert (request.method, request.path, request.query) == ("POST", "/hook", {"a": "b"})
        assert request.headers["content-type"] == "application/json"
        assert request.headers["webhook-id"] == request.body["id"]
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
        assert request.headers["webhook-signature"] == signatures(request, webhook["secret"])
        assert request.headers["x-aurion-signature"] == body_signature(request, webhook["secret"])
        assert list(request.body) == ["id", "type", "timestamp", "data"]
        assert request.body["type"] == kind
        assert jsontext.dump(jsontext.parse(request.raw)["data"]) == jsontext.dump(ticket)
    bodies = [request.body for request in of_first]
    assert bodies[0]["data"]["updated_at"] == bodies[0]["data"]["created_at"]
    assert jsontext.dump(bodies[-1]["data"]["updated_at"]) == jsontext.dump(opened["updated_at"])
    assert len({body["id"] for body in bodies}) == 6
    # Of a ticket that is older than the webhook, only what happened since.
    assert [r.body["type"] for r in receiver.requests if r not in of_first] == ["ticket.updated"]
    log = await process.log(account, webhook)
    assert [(entry["succeeded"], entry["status_code"], entry["attempt"]) for entry in log] == [(True, 200, 1)] * 7


async def test_only_events_that_a_webhook_subscribes_to_are_sent(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account, other = Account(), Account()
    test = Account(account.id, live=False)
    for owner, path, events in (
        (account, "/closed", ["ticket.closed"]),
        (account, "/updated", ["ticket.updated", "call.completed"]),
        (account, "/all", EVENTS),
        # Nothing here sends it.
        (account, "/none", ["call.completed", "ticket.note_added"]),
        (test, "/test", EVENTS),
        (other, "/other", EVENTS),
    ):
        await process.register(owner, receiver.url + path, events)
    ticket = await process.create(account, subject="Live")
    await process.update(account, ticket, status="closed")
    await process.create(test, subject="Test")
    await machine.send(process)
    assert receiver.events("/closed") == [("ticket.closed", "Live")]
    assert receiver.events("/updated") == [("ticket.updated", "Live")]
    assert receiver.events("/none") == []
    assert receiver.events("/all") == [(CREATED, "Live"), ("ticket.closed", "Live"), (UPDATED, "Live")]
    assert receiver.events("/test") == [("ticket.created", "Test")]
    assert receiver.events("/other") == []
    # The same event has the same id for every webhook.
    for n, path in enumerate(("/closed", "/updated"), start=1):
        assert receiver.requests_to(path)[0].body["id"] == receiver.requests_to("/all")[n].body["id"]


async def test_messages_wait_for_earlier_ones_of_their_ticket_alone(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    receiver.planned["/hook"] = [Response(500)]
    stuck = await process.create(account, subject="Stuck")
    await process.update(account, stuck, status="closed")
    await machine.send(process)
    await process.create(account, subject="Free")
    await machine.send(process)
    assert receiver.events("/hook") == [("ticket.created", "Stuck"), ("ticket.created", "Free")]
    await machine.retry(process)
    assert receiver.events("/hook")[2:] == [(CREATED, "Stuck"), ("ticket.closed", "Stuck"), (UPDATED, "Stuck")]
    first, _, again, _, _ = receiver.requests_to("/hook")
    assert (first.raw, first.headers["webhook-id"]) == (again.raw, again.headers["webhook-id"])
    assert [entry["attempt"] for entry in await process.log(account, webhook)] == [1, 1, 2, 1, 1]
    assert (await process.webhook(account, webhook))["failing_since"] is None


async def test_processes_share_the_work_and_send_nothing_twice(machine: Machine, receiver: Receiver) -> None:
    account = Account()
    async with machine.process() as one, machine.process() as two, machine.process() as three:
        for path in ("/a", "/b"):
            await one.register(account, receiver.url + path)
        for n in range(12):
            ticket = await one.create(account, subject=str(n))
            await one.update(account, ticket, status="closed")
        await machine.fan_out(one)
        await asyncio.gather(*(process.fan_out.queue_messages(process.database) for process in (two, three)))
        await asyncio.gather(*(process.sender.send_due(process.database) for process in (one, two, three)))
        machine.rows("DELETE FROM itsm_webhooks")
    for path in ("/a", "/b"):
        events = receiver.events(path)
        assert sorted(events) == sorted(
            (kind, str(n)) for n in range(12) for kind in ("ticket.closed", CREATED, UPDATED)
        )
        for n in range(12):
            assert [kind for kind, subject in events if subject == str(n)] == [CREATED, "ticket.closed", UPDATED]


async def test_a_message_sent_and_not_recorded_is_sent_again(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account)

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(process.sender._attempts, "record", die)
        await machine.send(process)
    # Nobody else takes it while the lease lasts.
    await machine.retry(process)
    assert len(receiver.requests) == 1
    machine.rows("UPDATE itsm_webhook_messages SET leased_until = now() - interval '1 second'")
    await machine.retry(process)
    first, second = receiver.requests
    assert (first.raw, first.headers["webhook-id"]) == (second.raw, second.headers["webhook-id"])
    # The first attempt does not count: it says nothing of the receiver.
    assert [entry["attempt"] for entry in await process.log(account, webhook)] == [1]


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (Response(500), 500, None),
        (Response(404), 404, None),
        (Response(304), 304, None),
        ("hang", None, "no answer within 0.2 seconds"),
        ("reset", None, "no complete HTTP answer came"),
        ("redirect", 302, None),
    ],
    ids=["500", "404", "304", "silence", "no answer", "redirect"],
)
async def test_everything_but_2xx_is_a_failure(
    machine: Machine,
    process: Process,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    status: int | None,
    error: str | None,
) -> None:
    if fault == "hang":
        monkeypatch.setattr(sender, "_ANSWER_SECONDS", 0.2)
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    if fault == "redirect":
        fault = Response(302, headers={"location": receiver.url + "/elsewhere"})
    if isinstance(fault, Response):
        receiver.planned["/hook"] = [fault]
    else:
        receiver.faults = [fault]
    await process.create(account)
    await machine.send(process)
    (entry,) = await process.log(account, webhook)
    assert (entry["succeeded"], entry["status_code"], entry["error"]) == (False, status, error)
    now = await process.webhook(account, webhook)
    assert now["is_active"]
    assert now["failing_since"] is not None
    await machine.retry(process)
    assert [request.path for request in receiver.requests] == ["/hook", "/hook"]
    assert (await process.log(account, webhook))[0]["succeeded"]


@pytest.mark.parametrize(("failures", "max_in_flight"), [(0, 4), (1, 1)], ids=["good so far", "failing"])
async def test_a_slow_webhook_delays_no_other(
    machine: Machine, process: Process, receiver: Receiver, failures: int, max_in_flight: int
) -> None:
    account, dead = Account(), Receiver()
    async with dead.listening():
        dead.planned["/hook"] = [Response(500)] * failures
        slow = await process.register(account, dead.url + "/hook")
        await process.register(account, receiver.url + "/hook")
        for n in range(failures):
            await process.create(account, subject=f"Fails {n}")
        await machine.send(process)
        dead.faults = ["hang"] * 100
        for n in range(9):
            await process.create(account, subject=str(n))
        await machine.fan_out(process)
        work = asyncio.create_task(process.sender.send_due(process.database))
        await until(lambda: len(receiver.requests) == failures + 9)
        # No more than a few are in flight to a receiver that does not answer.
        assert len(dead.requests) == failures + max_in_flight
        assert not work.done()
        # Nor does another process send more.
        async with machine.process() as other:
            await other.sender.send_due(other.database)
        assert len(dead.requests) == failures + max_in_flight
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert [entry["status_code"] for entry in await process.log(account, slow)] == [500] * failures


async def test_410_disables_at_once(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    receiver.planned["/hook"] = [Response(410)]
    ticket = await process.create(account)
    await machine.send(process)
    await process.update(account, ticket, status="closed")
    await machine.send(process)
    await machine.retry(process)
    now = await process.webhook(account, webhook)
    assert (now["is_active"], now["disabled_reason"]) == (False, "The receiver answered 410 Gone")
    assert len(receiver.requests) == 1
    # Enabled again, it goes on where it stopped.
    on = await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
    assert (on["is_active"], on["disabled_reason"], on["failing_since"]) == (True, None, None)
    await machine.send(process)
    assert [kind for kind, _ in receiver.events("/hook")] == [CREATED, CREATED, "ticket.closed", UPDATED]


async def test_a_webhook_that_its_account_disabled_waits(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account, subject="Queued")
    await machine.fan_out(process)
    off = await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=False)
    assert (off["is_active"], off["disabled_reason"]) == (False, None)
    await process.create(account, subject="Not even that")
    await machine.send(process)
    assert receiver.requests == []
    await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
    await machine.send(process)
    assert sorted(subject for _, subject in receiver.events("/hook")) == ["Not even that", "Queued"]


async def test_a_webhook_that_is_deleted_while_a_message_is_sent_leaves_nothing(
    machine: Machine, process: Process
) -> None:
    account = Account()

    async def gone(request: Request) -> Response:
        await process.do(account, webhooks.delete_webhook, webhook_id=request.path[1:])
        return Response(200)

    async with Server(gone).listening() as server:
        webhook = await process.register(account, server.url)
        await process.do(
            account, webhooks.update_webhook, webhook_id=webhook["id"], url=f"{server.url}/{webhook['id']}"
        )
        await process.create(account)
        await machine.send(process)
        assert len(server.requests) == 1
    left = "SELECT (SELECT count(*) FROM itsm_webhook_messages) + (SELECT count(*) FROM itsm_webhook_attempts)"
    assert machine.rows(left) == [(0,)]


async def test_three_days_of_failure_disable(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    receiver.planned["/hook"] = [Response(503)] * 10
    await process.create(account)
    await machine.fan_out(process)
    pauses = []
    for attempt in range(10):
        assert (await process.webhook(account, webhook))["is_active"]
        if attempt == 9:
            machine.rows("UPDATE itsm_webhooks SET failing_since = now() - interval '400 days'")
        await machine.retry(process)
        pauses += machine.rows("SELECT extract(epoch FROM next_attempt_at - now())::float FROM itsm_webhook_messages")
    now = await process.webhook(account, webhook)
    reason = "No message was accepted for three days; the last attempt failed: the receiver answered 503"
    assert (now["is_active"], now["disabled_reason"]) == (False, reason)
    assert [entry["attempt"] for entry in await process.log(account, webhook)] == list(range(10, 0, -1))
    # With this machine's settings all pauses are a hundred times as long.
    for (pause,), usual in zip(pauses[:9], attempts.PAUSES, strict=True):
        assert 0.85 * usual < pause / 100 < 1.15 * usual
    assert pauses[9] == (None,)
    assert 3 * 86400 < sum(attempts.PAUSES) < 4 * 86400


async def test_a_retry_comes_no_sooner_than_the_receiver_asks(machine: Machine, receiver: Receiver) -> None:
    account = Account()
    async with machine.process(delivery_pause_seconds=10) as process:
        await process.register(account, receiver.url + "/hook")
        date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        for retry_after, least, most in (
            *(("3600", 3500, 3700), (date, 3500, 3700), ("999999999", 86000, 87000)),
            ("soon", -60, 6),
        ):
            receiver.planned["/hook"] = [Response(429, headers={"retry-after": retry_after})]
            await process.create(account)
            await machine.send(process)
            [(pause,)] = machine.rows(
                "SELECT extract(epoch FROM next_attempt_at - now())::float FROM itsm_webhook_messages"
            )
            assert least < pause < most
            await machine.retry(process)
        machine.rows("DELETE FROM itsm_webhooks")


async def test_a_queue_that_does_not_move_stops_growing(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not queued waits in the events, and is sent later."""
    account = Account()
    await process.register(account, receiver.url + "/hook")
    monkeypatch.setattr(fan_out, "_EVENTS_AT_ONCE", 3)
    for n in range(5):
        await process.create(account, subject=str(n))
    monkeypatch.setattr(fan_out, "MAX_QUEUE", 1)
    await machine.fan_out(process)
    assert machine.rows("SELECT count(*) FROM itsm_webhook_messages") == [(3,)]
    await machine.send(process)
    await machine.send(process)
    assert sorted(subject for _, subject in receiver.events("/hook")) == ["0", "1", "2", "3", "4"]


async def test_what_commits_late_is_sent_too(machine: Machine, process: Process, receiver: Receiver) -> None:
    """A change whose transaction is open while later ones are sent is not skipped."""
    account = Account()
    ticket = await process.create(account, subject="Late")
    await process.register(account, receiver.url + "/hook")
    with psycopg.connect(machine.url) as late:
        late.execute("SELECT pg_current_xact_id()")
        await process.create(account, subject="Soon")
        await process.fan_out.queue_messages(process.database)
        late.execute(
            "INSERT INTO itsm_events (account_id, live, ticket_id, version, type, changes, actor, request_id)"
            " VALUES (%s, true, %s, 2, 'ticket.updated', '{}', '', '')",
            [account.id, ticket["id"]],
        )
        late.execute("UPDATE itsm_tickets SET version = 2 WHERE id = %s", [ticket["id"]])
    await machine.send(process)
    assert sorted(receiver.events("/hook")) == [("ticket.created", "Soon"), ("ticket.updated", "Late")]


async def test_a_name_that_moves_to_a_private_address_is_not_followed(
    machine: Machine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, answers = Account(), [["93.184.216.34"]]

    async def resolve(*_: Any) -> list[str]:
        return answers.pop(0) if answers else ["127.0.0.1"]

    monkeypatch.setattr("service.outbound._resolve", resolve)
    port = receiver.url.rpartition(":")[2]
    async with machine.process(allow_private_targets=False) as process:
        webhook = await process.register(account, f"https://moves.example:{port}/hook")
        await process.create(account)
        await machine.send(process)
        (entry,) = await process.log(account, webhook)
        assert (entry["succeeded"], entry["error"]) == (False, "its host is not on the public Internet")
        machine.rows("DELETE FROM itsm_webhooks")
    assert receiver.requests == []
