"""contracts/itsm.md, Webhooks: what is sent, in which order, how often, and what becomes of who does not take it."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.emulators.http import Request, Response, Server
from support.webhook_lab import EVENTS, Account, Machine, Process, Receiver, signatures, until

from service import jsontext
from service.itsm import webhooks
from service.webhooks import fan_out
from service.webhooks import sender as sending

# Of numbers that no double is.
METADATA = b'{"n": 1000000000000000000000000000001, "a": [1.50]}'


async def test_each_change_is_told_as_the_ticket_was(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    before = await process.create(account)
    webhook = await process.register(account, receiver.url + "/hook?a=b")
    first = await process.create(account, priority="low", metadata=jsontext.parse(METADATA))
    changed = await process.update(account, first, subject="VPN again", metadata={"n": 1})
    closed = await process.update(account, first, status="closed", priority=None)
    opened = await process.update(account, first, status="open", subject="Still VPN")
    await process.update(account, before, priority="high")
    await machine.tell(process)

    of_first = [request for request in receiver.requests if request.body["data"]["id"] == str(first["id"])]
    for request, kind, ticket in zip(
        of_first,
        ["ticket.created", "ticket.updated", "ticket.closed", "ticket.reopened"],
        [first, changed, closed, opened],
        strict=True,
    ):
        assert (request.method, request.path, request.query) == ("POST", "/hook", {"a": "b"})
        assert request.headers["content-type"] == "application/json"
        assert request.headers["webhook-id"] == request.body["id"]
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
        assert request.headers["webhook-signature"] == signatures(request, webhook["secret"])
        assert list(request.body) == ["id", "type", "timestamp", "data"]
        assert request.body["type"] == kind
        assert jsontext.dump(jsontext.parse(request.raw)["data"]) == jsontext.dump(ticket)
    bodies = [request.body for request in of_first]
    assert bodies[0]["data"]["updated_at"] == bodies[0]["data"]["created_at"]
    assert jsontext.dump(bodies[-1]["data"]["updated_at"]) == jsontext.dump(opened["updated_at"])
    assert len({body["id"] for body in bodies}) == 4
    # Of a ticket that was there before, only what happened since.
    assert [r.body["type"] for r in receiver.requests if r not in of_first] == ["ticket.updated"]
    log = await process.log(account, webhook)
    assert [(entry["succeeded"], entry["status_code"], entry["attempt"]) for entry in log] == [(True, 200, 1)] * 5


async def test_only_those_events_are_told_that_were_asked_for(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account, other = Account(), Account()
    test = Account(account.id, live=False)
    for who, path, events in (
        (account, "/closed", ["ticket.closed"]),
        (account, "/all", EVENTS),
        (test, "/test", EVENTS),
        (other, "/other", EVENTS),
    ):
        await process.register(who, receiver.url + path, events)
    ticket = await process.create(account, subject="Live")
    await process.update(account, ticket, status="closed")
    await process.create(test, subject="Test")
    await machine.tell(process)
    assert receiver.told("/closed") == [("ticket.closed", "Live")]
    assert receiver.told("/all") == [("ticket.created", "Live"), ("ticket.closed", "Live")]
    assert receiver.told("/test") == [("ticket.created", "Test")]
    assert receiver.told("/other") == []
    # The same event has the same id, whoever is told.
    assert receiver.got("/closed")[0].body["id"] == receiver.got("/all")[1].body["id"]


async def test_a_ticket_waits_for_its_own_and_for_no_other(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    receiver.planned["/hook"] = [Response(500)]
    stuck = await process.create(account, subject="Stuck")
    await process.update(account, stuck, status="closed")
    await machine.tell(process)
    await process.create(account, subject="Free")
    await machine.tell(process)
    assert receiver.told("/hook") == [("ticket.created", "Stuck"), ("ticket.created", "Free")]
    await machine.try_again(process)
    assert receiver.told("/hook")[2:] == [("ticket.created", "Stuck"), ("ticket.closed", "Stuck")]
    first, _, again, _ = receiver.got("/hook")
    assert (first.raw, first.headers["webhook-id"]) == (again.raw, again.headers["webhook-id"])
    assert [entry["attempt"] for entry in await process.log(account, webhook)] == [1, 2, 1, 1]
    assert (await process.webhook(account, webhook))["failing_since"] is None


async def test_processes_share_the_work_and_double_none(machine: Machine, receiver: Receiver) -> None:
    account = Account()
    async with machine.process() as one, machine.process() as two, machine.process() as three:
        for path in ("/a", "/b"):
            await one.register(account, receiver.url + path)
        for n in range(12):
            ticket = await one.create(account, subject=str(n))
            await one.update(account, ticket, status="closed")
        await machine.fan_out(one)
        await asyncio.gather(*(fan_out.fan_out(process.database) for process in (two, three)))
        await asyncio.gather(*(process.sending.work(process.database) for process in (one, two, three)))
        machine.rows("DELETE FROM itsm_webhooks")
    for path in ("/a", "/b"):
        told = receiver.told(path)
        assert sorted(told) == sorted((kind, str(n)) for n in range(12) for kind in ("ticket.closed", "ticket.created"))
        for n in range(12):
            assert [kind for kind, subject in told if subject == str(n)] == ["ticket.created", "ticket.closed"]


async def test_what_was_sent_and_not_recorded_is_sent_again(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account)

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(process.sending, "_record", die)
        await machine.tell(process)
    # It is another's while the lease holds.
    await machine.try_again(process)
    assert len(receiver.requests) == 1
    machine.rows("UPDATE itsm_webhook_messages SET leased_until = now() - interval '1 second'")
    await machine.try_again(process)
    first, second = receiver.requests
    assert (first.raw, first.headers["webhook-id"]) == (second.raw, second.headers["webhook-id"])
    # The first one says nothing of the receiver.
    assert [entry["attempt"] for entry in await process.log(account, webhook)] == [1]


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (Response(500), 500, None),
        (Response(404), 404, None),
        (Response(304), 304, None),
        ("hang", None, "no answer within 0.2 seconds"),
        ("reset", None, "the connection broke off"),
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
    monkeypatch.setattr(sending, "_SECONDS", 0.2)
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    if fault == "redirect":
        fault = Response(302, headers={"location": receiver.url + "/elsewhere"})
    if isinstance(fault, Response):
        receiver.planned["/hook"] = [fault]
    else:
        receiver.faults = [fault]
    await process.create(account)
    await machine.tell(process)
    (entry,) = await process.log(account, webhook)
    assert (entry["succeeded"], entry["status_code"], entry["error"]) == (False, status, error)
    now = await process.webhook(account, webhook)
    assert now["is_active"]
    assert now["failing_since"] is not None
    await machine.try_again(process)
    assert [request.path for request in receiver.requests] == ["/hook", "/hook"]
    assert (await process.log(account, webhook))[0]["succeeded"]


@pytest.mark.parametrize(("failures", "most"), [(0, 4), (1, 1)], ids=["good so far", "failing"])
async def test_slow_ones_hold_up_no_other(
    machine: Machine, process: Process, receiver: Receiver, failures: int, most: int
) -> None:
    account, dead = Account(), Receiver()
    async with dead.listening():
        dead.planned["/hook"] = [Response(500)] * failures
        slow = await process.register(account, dead.url + "/hook")
        await process.register(account, receiver.url + "/hook")
        for n in range(failures):
            await process.create(account, subject=f"Fails {n}")
        await machine.tell(process)
        dead.faults = ["hang"] * 100
        for n in range(9):
            await process.create(account, subject=str(n))
        await machine.fan_out(process)
        work = asyncio.create_task(process.sending.work(process.database))
        await until(lambda: len(receiver.requests) == failures + 9)
        # No more than a few are on their way to one that is silent.
        assert len(dead.requests) == failures + most
        assert not work.done()
        # Nor does another process send more.
        async with machine.process() as other:
            await other.sending.work(other.database)
        assert len(dead.requests) == failures + most
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert [entry["status_code"] for entry in await process.log(account, slow)] == [500] * failures


async def test_410_disables_at_once(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    receiver.planned["/hook"] = [Response(410)]
    ticket = await process.create(account)
    await machine.tell(process)
    await process.update(account, ticket, status="closed")
    await machine.tell(process)
    await machine.try_again(process)
    now = await process.webhook(account, webhook)
    assert (now["is_active"], now["disabled_reason"]) == (False, "It answered 410: it is gone")
    assert len(receiver.requests) == 1
    # Switched on again it goes on where it stopped.
    on = await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
    assert (on["is_active"], on["disabled_reason"], on["failing_since"]) == (True, None, None)
    await machine.tell(process)
    assert [kind for kind, _ in receiver.told("/hook")] == ["ticket.created", "ticket.created", "ticket.closed"]


async def test_one_that_its_account_switched_off_waits(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account, subject="Queued")
    await machine.fan_out(process)
    off = await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=False)
    assert (off["is_active"], off["disabled_reason"]) == (False, None)
    await process.create(account, subject="Not even that")
    await machine.tell(process)
    assert receiver.requests == []
    await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
    await machine.tell(process)
    assert sorted(subject for _, subject in receiver.told("/hook")) == ["Not even that", "Queued"]


async def test_one_that_is_deleted_while_it_is_told_leaves_nothing(machine: Machine, process: Process) -> None:
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
        await machine.tell(process)
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
        await machine.try_again(process)
        pauses += machine.rows("SELECT extract(epoch FROM next_attempt_at - now())::float FROM itsm_webhook_messages")
    now = await process.webhook(account, webhook)
    reason = "Nothing was taken for three days; the last attempt: it answered 503"
    assert (now["is_active"], now["disabled_reason"]) == (False, reason)
    assert [entry["attempt"] for entry in await process.log(account, webhook)] == list(range(10, 0, -1))
    # Of this machine all pauses are a hundred times as long.
    for (pause,), usual in zip(pauses[:9], sending.PAUSES, strict=True):
        assert 0.85 * usual < pause / 100 < 1.15 * usual
    assert pauses[9] == (None,)
    assert 3 * 86400 < sum(sending.PAUSES) < 4 * 86400


async def test_it_is_asked_again_no_sooner_than_it_wants(machine: Machine, receiver: Receiver) -> None:
    account = Account()
    async with machine.process(delivery_pause_seconds=10) as process:
        await process.register(account, receiver.url + "/hook")
        for asked, least, most in (("3600", 3500, 3700), ("999999999", 86000, 87000), ("soon", -60, 6)):
            receiver.planned["/hook"] = [Response(429, headers={"retry-after": asked})]
            await process.create(account)
            await machine.tell(process)
            [(pause,)] = machine.rows(
                "SELECT extract(epoch FROM next_attempt_at - now())::float FROM itsm_webhook_messages"
            )
            assert least < pause < most
            await machine.try_again(process)
        machine.rows("DELETE FROM itsm_webhooks")


async def test_for_a_day_both_secrets_sign(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    first = webhook["secret"]
    second, third = [
        (await process.do(account, webhooks.rotate_secret, webhook_id=webhook["id"]))["secret"] for _ in range(2)
    ]
    assert len({first, second, third}) == 3
    # It changed last when it was rotated.
    [(good_for,)] = machine.rows("SELECT previous_secret_until - updated_at FROM itsm_webhooks")
    assert good_for == timedelta(hours=24)
    for left in ("1 minute", "-1 second"):
        machine.rows("UPDATE itsm_webhooks SET previous_secret_until = now() + %s::interval", left)
        await process.create(account)
        await machine.tell(process)
    during, after = receiver.requests
    # The one before the last is good no more.
    assert during.headers["webhook-signature"] == signatures(during, third, second)
    assert after.headers["webhook-signature"] == signatures(after, third)


async def test_the_page_of_the_apis_says_how_to_verify(machine: Machine, process: Process, receiver: Receiver) -> None:
    section = (Path(__file__).parents[3] / "protos/README.md").read_text().split("\n## Webhooks", 1)[1]
    told: dict[str, Any] = {}
    exec(section.split("```python\n")[1].split("```")[0], told)  # noqa: S102 - what it is for
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    rotated = await process.do(account, webhooks.rotate_secret, webhook_id=webhook["id"])
    await process.create(account, subject="Größe 📦")
    await machine.tell(process)
    (request,) = receiver.requests
    for secret in (webhook["secret"], rotated["secret"]):
        assert told["verify"](secret, request.headers, request.raw)
    assert not told["verify"]("whsec_AAAA", request.headers, request.raw)
    assert not told["verify"](secret, request.headers, request.raw + b" ")
    assert not told["verify"](secret, {**request.headers, "webhook-timestamp": "1"}, request.raw)


async def test_a_message_is_replayed_as_it_was(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    ticket = await process.create(account)
    await machine.tell(process)
    await process.update(account, ticket, subject="Later")
    await machine.tell(process)
    oldest = (await process.log(account, webhook))[-1]
    named = {"webhook_id": webhook["id"], "delivery_id": oldest["id"]}
    assert await process.do(account, webhooks.replay_delivery, **named) == oldest
    # Twice before it is sent is once.
    await process.do(account, webhooks.replay_delivery, **named)
    await process.sending.work(process.database)
    first, _, again = receiver.requests
    assert (first.raw, first.headers["webhook-id"]) == (again.raw, again.headers["webhook-id"])
    assert again.headers["webhook-signature"] == signatures(again, webhook["secret"])


async def test_the_log_keeps_the_last_hundred(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account)
    await machine.tell(process)
    machine.rows(
        "INSERT INTO itsm_webhook_attempts SELECT account_id, live, webhook_id, 'dlv_0' || n, ticket_id, version, type,"
        " event_id, body, attempt, attempted_at, duration_ms, succeeded, status_code, error"
        " FROM itsm_webhook_attempts, generate_series(100, 250) AS n"
    )
    await process.create(account)
    await machine.tell(process)
    [(kept,)] = machine.rows("SELECT count(*) FROM itsm_webhook_attempts")
    log = await process.log(account, webhook)
    assert kept == len(log) == 100
    assert log[-1]["id"] == "dlv_0153"


async def test_a_queue_that_does_not_move_stops_growing(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not queued waits in the events, and is told later."""
    account = Account()
    await process.register(account, receiver.url + "/hook")
    monkeypatch.setattr(webhooks, "_ROWS", 3)
    for n in range(5):
        await process.create(account, subject=str(n))
    monkeypatch.setattr(webhooks, "_QUEUE", 1)
    await machine.fan_out(process)
    assert machine.rows("SELECT count(*) FROM itsm_webhook_messages") == [(3,)]
    await machine.tell(process)
    await machine.tell(process)
    assert sorted(subject for _, subject in receiver.told("/hook")) == ["0", "1", "2", "3", "4"]


async def test_what_commits_late_is_told_too(machine: Machine, process: Process, receiver: Receiver) -> None:
    """A change whose transaction is under way while later ones are told is not stepped over."""
    account = Account()
    ticket = await process.create(account, subject="Late")
    await process.register(account, receiver.url + "/hook")
    with psycopg.connect(machine.url) as late:
        late.execute("SELECT pg_current_xact_id()")
        await process.create(account, subject="Soon")
        await fan_out.fan_out(process.database)
        late.execute(
            "INSERT INTO itsm_events (account_id, live, ticket_id, version, type, changes, actor, request_id)"
            " VALUES (%s, true, %s, 2, 'ticket.updated', '{}', '', '')",
            [account.id, ticket["id"]],
        )
        late.execute("UPDATE itsm_tickets SET version = 2 WHERE id = %s", [ticket["id"]])
    await machine.tell(process)
    assert sorted(receiver.told("/hook")) == [("ticket.created", "Soon"), ("ticket.updated", "Late")]


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
        await machine.tell(process)
        (entry,) = await process.log(account, webhook)
        assert (entry["succeeded"], entry["error"]) == (False, "its host is not on the public Internet")
        machine.rows("DELETE FROM itsm_webhooks")
    assert receiver.requests == []
