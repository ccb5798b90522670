"""contracts/itsm.md, Webhooks: secrets while they are rotated, how receivers verify, the log and its replay."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from support.webhook_lab import Account, Machine, Process, Receiver, signatures

from service.itsm import webhooks


async def test_for_a_day_both_secrets_sign(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    first = webhook["secret"]
    second, third = [
        (await process.do(account, webhooks.rotate_secret, webhook_id=webhook["id"]))["secret"] for _ in range(2)
    ]
    assert len({first, second, third}) == 3
    # `updated_at` is the instant of the rotation.
    [(good_for,)] = machine.rows("SELECT previous_secret_until - updated_at FROM itsm_webhooks")
    assert good_for == timedelta(hours=24)
    for left in ("1 minute", "-1 second"):
        machine.rows("UPDATE itsm_webhooks SET previous_secret_until = now() + %s::interval", left)
        await process.create(account)
        await machine.send(process)
    during, after = receiver.requests
    # The first secret is no longer valid.
    assert during.headers["webhook-signature"] == signatures(during, third, second)
    assert after.headers["webhook-signature"] == signatures(after, third)


async def test_the_page_says_how_to_verify(machine: Machine, process: Process, receiver: Receiver) -> None:
    section = (Path(__file__).parents[3] / "protos/README.md").read_text().split("\n## Webhooks", 1)[1]
    example: dict[str, Any] = {}
    exec(section.split("```python\n")[1].split("```")[0], example)  # noqa: S102 - what it is for
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    rotated = await process.do(account, webhooks.rotate_secret, webhook_id=webhook["id"])
    await process.create(account, subject="Größe 📦")
    await machine.send(process)
    (request,) = receiver.requests
    for secret in (webhook["secret"], rotated["secret"]):
        assert example["verify"](secret, request.headers, request.raw)
    assert not example["verify"]("whsec_AAAA", request.headers, request.raw)
    assert not example["verify"](secret, request.headers, request.raw + b" ")
    assert not example["verify"](secret, {**request.headers, "webhook-timestamp": "1"}, request.raw)


async def test_a_message_is_replayed_as_it_was(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    ticket = await process.create(account)
    await machine.send(process)
    await process.update(account, ticket, subject="Later")
    await machine.send(process)
    oldest = (await process.log(account, webhook))[-1]
    named = {"webhook_id": webhook["id"], "delivery_id": oldest["id"]}
    assert await process.do(account, webhooks.replay_delivery, **named) == oldest
    # Twice before it is sent is once.
    await process.do(account, webhooks.replay_delivery, **named)
    await process.sender.send_due(process.database)
    first, _, again = receiver.requests
    assert (first.raw, first.headers["webhook-id"]) == (again.raw, again.headers["webhook-id"])
    assert again.headers["webhook-signature"] == signatures(again, webhook["secret"])


async def test_a_replay_waits_while_the_webhook_is_disabled(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    await process.create(account)
    await machine.send(process)
    [sent] = await process.log(account, webhook)
    await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=False)
    for _ in ("queued", "queued already"):
        await process.do(account, webhooks.replay_delivery, webhook_id=webhook["id"], delivery_id=sent["id"])
        # Held as all that waits is: not due, and deleted with what is held for too long.
        assert machine.rows("SELECT next_attempt_at FROM itsm_webhook_messages") == [(None,)]
    await machine.send(process)
    assert len(receiver.requests) == 1
    await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
    await machine.send(process)
    first, again = receiver.requests
    assert first.raw == again.raw


async def test_the_log_keeps_the_last_hundred(machine: Machine, process: Process, receiver: Receiver) -> None:
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
    await machine.send(process)
    [(kept,)] = machine.rows("SELECT count(*) FROM itsm_webhook_attempts")
    log = await process.log(account, webhook)
    assert kept == len(log) == 100
    assert log[-1]["id"] == "dlv_0153"
