"""Webhooks that hang, fall behind or are changed meanwhile: they hold up no others, and nothing is told wrongly."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from support.emulators.http import Request, Response, Server
from support.webhook_lab import Account, Machine, Process, Receiver, signatures, until

from service import jsontext
from service.errors import TicketError
from service.itsm import webhooks
from service.outbound import Answer
from service.settings import Settings
from service.webhooks import fan_out
from service.webhooks import queries as webhook_queries
from service.webhooks import sender as sending


async def test_one_far_behind_is_told_of_each_change_as_it_was(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    await process.register(account, receiver.url + "/hook")
    told = [await process.create(account, metadata={"n": 0})]
    changes: list[dict[str, Any]] = [
        {"metadata": {"n": 1.5}},
        {"subject": "Still", "priority": "low"},
        {"priority": None},
        {"status": "closed"},
        # Nothing that changes is told all the same.
        {"status": "closed"},
        {"status": "open", "requester_email": "ada@example.com"},
        {"description": "ü" * 1000},
    ]
    # More than one turn's worth, and so that a member changes last in the first, in the middle or at the end.
    for n in range(2 * fan_out._ROWS + 10):
        told.append(await process.update(account, told[0], **{**changes[n % len(changes)], "subject": f"VPN {n // 9}"}))
    # Half of it by a process that wrote no names.
    machine.rows("UPDATE itsm_events SET members = NULL WHERE mod(version, 2) = 0")
    await machine.fan_out(process)
    bodies = machine.rows("SELECT version, body FROM itsm_webhook_messages ORDER BY version")
    assert [version for version, _ in bodies] == list(range(1, len(told) + 1))
    for (_, body), ticket in zip(bodies, told, strict=True):
        assert jsontext.dump(jsontext.parse(body.encode())["data"]) == jsontext.dump(ticket)


async def test_an_account_whose_webhooks_hang_holds_up_no_other(
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
        work = asyncio.create_task(process.sending.work(process.database))
        await until(lambda: len(dead.requests) >= 8)
        await process.register(other, receiver.url + "/hook")
        await process.create(other)
        await machine.fan_out(process)
        await until(lambda: len(receiver.requests) == 1)
        assert len(dead.requests) == 8
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_one_that_cannot_be_told_holds_up_no_other(
    machine: Machine, process: Process, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    bad = await process.register(account, receiver.url + "/bad")
    await process.register(account, receiver.url + "/good")
    await process.create(account)
    tell = fan_out._tell

    async def tell_others(connection: Any, webhook: Any) -> None:
        if webhook["id"] == bad["id"]:
            raise KeyError
        await tell(connection, webhook)

    monkeypatch.setattr(webhooks, "_tell", tell_others)
    await machine.tell(process)
    assert [request.path for request in receiver.requests] == ["/good"]


async def test_a_message_that_is_never_taken_stops_no_others(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    receiver.planned["/hook"] = [Response(422)] * sending._ATTEMPTS
    ticket = await process.create(account, subject="Too much for it")
    await process.update(account, ticket, subject="Less")
    await machine.fan_out(process)
    for attempt in range(1, sending._ATTEMPTS + 1):
        await machine.try_again(process)
        if attempt < sending._ATTEMPTS:
            assert receiver.told("/hook") == [("ticket.created", "Too much for it")] * attempt
    # What was taken in between is why it is given up alone.
    assert receiver.told("/hook")[sending._ATTEMPTS :] == [("ticket.updated", "Less")]
    now = await process.webhook(account, webhook)
    assert (now["is_active"], now["failing_since"]) == (True, None)
    log = await process.log(account, webhook)
    assert [entry["attempt"] for entry in log] == [1, *range(sending._ATTEMPTS, 0, -1)]
    assert machine.rows("SELECT 1 FROM itsm_webhook_messages") == []
    # Its account has the last word.
    await process.do(account, webhooks.replay_delivery, webhook_id=webhook["id"], delivery_id=log[1]["id"])
    await process.sending.work(process.database)
    assert receiver.told("/hook")[-1] == ("ticket.created", "Too much for it")


async def test_an_attempt_of_before_it_was_switched_on_again_has_no_say(machine: Machine, process: Process) -> None:
    account, asked, may_answer = Account(), asyncio.Event(), asyncio.Event()

    async def gone_at_first(_: Request) -> Response:
        asked.set()
        await may_answer.wait()
        return Response(410 if len(server.requests) == 1 else 200)

    async with Server(gone_at_first).listening() as server:
        webhook = await process.register(account, server.url + "/hook")
        await process.create(account)
        await machine.fan_out(process)
        work = asyncio.create_task(process.sending.work(process.database))
        await asked.wait()
        await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
        may_answer.set()
        await work
        now = await process.webhook(account, webhook)
        assert (now["is_active"], now["failing_since"], now["disabled_reason"]) == (True, None, None)
        assert [entry["status_code"] for entry in await process.log(account, webhook)] == [410]
        # It is not sent twice at once, so it waits until the one under way would be taken for dead.
        machine.rows("UPDATE itsm_webhook_messages SET leased_until = now() - interval '1 second'")
        await process.sending.work(process.database)
    assert [entry["status_code"] for entry in await process.log(account, webhook)] == [200, 410]


async def test_a_change_and_a_deletion_at_once_do_not_stop_each_other(
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


async def test_a_database_that_is_away_for_a_moment_breaks_off_no_attempt(
    machine: Machine, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, is_away = Account(), asyncio.Event()
    all_rows = process.database.all

    async def not_when_away(statement: Any, *given: Any, **more: Any) -> Any:
        if statement is webhook_queries.LEASE_DUE and server.requests:
            is_away.set()
            raise TicketError("unavailable")
        return await all_rows(statement, *given, **more)

    async def wait(_: Request) -> Response:
        await is_away.wait()
        return Response(200)

    async with Server(wait).listening() as server:
        webhook = await process.register(account, server.url + "/hook")
        await process.create(account)
        await machine.fan_out(process)
        monkeypatch.setattr(process.database, "all", not_when_away)
        monkeypatch.setattr(sending, "_LOOK_SECONDS", 0.01)
        await process.sending.work(process.database)
    assert [entry["succeeded"] for entry in await process.log(account, webhook)] == [True]


async def test_a_previous_secret_whose_key_is_lost_is_left_out(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    rotated = await process.do(account, webhooks.rotate_secret, webhook_id=webhook["id"])
    machine.rows("UPDATE itsm_webhooks SET previous_secret = 'of another key'")
    await process.create(account)
    await machine.tell(process)
    (request,) = receiver.requests
    assert request.headers["webhook-signature"] == signatures(request, rotated["secret"])


def test_the_log_is_read_without_what_was_sent() -> None:
    assert "body" not in webhook_queries.LIST_ATTEMPTS.columns


CHANGE = (
    "INSERT INTO itsm_events (account_id, live, ticket_id, version, type, changes, actor, request_id)"
    " SELECT account_id, live, id, version + %s, 'ticket.updated', '{}', '', '' FROM itsm_tickets WHERE id = %s"
)


@pytest.mark.parametrize(
    ("before", "after"), [([1], []), ([], [1]), ([1, 2], [3, 4])], ids=["before", "after", "before and after"]
)
async def test_it_is_told_of_what_happens_from_then_on_also_within_one_transaction(
    machine: Machine, process: Process, receiver: Receiver, before: list[int], after: list[int]
) -> None:
    """What is open while a webhook is registered lies behind its place with all of its changes, whenever they were."""
    account = Account()
    ticket = await process.create(account)
    with psycopg.connect(machine.url) as late:
        late.execute("SELECT pg_current_xact_id()")
        for n in before:
            late.execute(CHANGE, [n, ticket["id"]])
        # Later by its number, over sooner.
        await process.create(account, subject="Over")
        await process.register(account, receiver.url + "/hook")
        for n in after:
            late.execute(CHANGE, [n, ticket["id"]])
        late.execute("UPDATE itsm_tickets SET version = %s WHERE id = %s", [1 + len(before + after), ticket["id"]])
    await machine.tell(process)
    told = machine.rows("SELECT version - 1 FROM itsm_webhook_attempts ORDER BY version")
    assert [n for (n,) in told] == after
    assert receiver.told("/hook") == [("ticket.updated", "VPN")] * len(after)
    # And of the rest.
    await process.update(account, ticket, subject="Later")
    await machine.tell(process)
    assert receiver.told("/hook")[len(after) :] == [("ticket.updated", "Later")]


async def test_it_fails_since_its_first_failure_until_its_next_success(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account)
    await machine.fan_out(process)
    seen = []
    # None: it is switched on again by its account.
    for status in (500, 503, 404, 204, 500, 410, None, 302, 410):
        if status is None:
            await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
        else:
            receiver.planned["/hook"] = [Response(status)]
            await machine.try_again(process)
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
    await machine.tell(process)
    now = await process.webhook(account, webhook)
    (entry,) = await process.log(account, webhook)
    assert now["failing_since"] >= entry["attempted_at"]


async def test_an_answer_is_waited_for_15_seconds_and_the_lease_is_longer_than_that(
    machine: Machine, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    given, leased_until = [], []

    async def post(_url: str, _headers: Any, _body: bytes, seconds: float) -> Answer:
        given.append(seconds)
        leased_until.extend(machine.rows("SELECT leased_until FROM itsm_webhook_messages"))
        return Answer(500, None)

    monkeypatch.setattr(process.outbound, "post", post)
    webhook = await process.register(account, "http://127.0.0.1:9/hook")
    await process.create(account)
    await machine.tell(process)
    (entry,) = await process.log(account, webhook)
    ((until_then,),) = leased_until
    assert given == [15]
    lease = until_then - entry["attempted_at"]
    assert lease == timedelta(seconds=60)
    # Behind the answer it is written down, which takes a statement's time at most.
    assert lease.total_seconds() > given[0] + Settings().default_deadline_seconds


async def test_pauses_differ_by_a_tenth_either_way(process: Process) -> None:
    # Of this machine all are a hundred times as long.
    for attempts, usual in enumerate(sending.PAUSES, start=1):
        drawn = [process.sending._pause(attempts, None) / 100 / usual for _ in range(1000)]
        # All of a thousand that are spread evenly miss a tenth of their range once in 10^46 times.
        assert 0.9 <= min(drawn) < 0.92
        assert 1.08 < max(drawn) <= 1.1


async def test_a_queue_ends_at_about_two_hundred(machine: Machine, process: Process) -> None:
    """The rest waits where it is, and follows as soon as there is room."""
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
