"""protos/README.md, Webhooks: a webhook whose next events or messages were deleted says so, and goes on behind them."""

import asyncio
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs
from support.retention import KEEP, purge
from support.webhook_lab import Account, Machine, Process, Receiver, until

from service.counters import REGISTRY
from service.itsm import webhooks

_OLD = f"interval '{KEEP + 1} days'"


def missed() -> float:
    return REGISTRY.get_sample_value("tickets_webhooks_missed_events_total") or 0.0


async def settled(machine: Machine) -> None:
    """Every transaction so far has ended: those of other databases on this server hold the horizon back too."""
    [(now,)] = machine.rows("SELECT pg_current_xact_id()::text::bigint")
    is_settled = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > %s"
    async with asyncio.timeout(20):
        await until(lambda: machine.rows(is_settled, now) == [(True,)])


async def purge_old(machine: Machine, process: Process, *kinds: str) -> Any:
    """What was logged of webhooks as all that is there was deleted for its age."""
    machine.rows(f"UPDATE itsm_events SET created_at = created_at - {_OLD}")
    await settled(machine)
    with capture_logs() as logs:
        await purge(*kinds).delete(process.database)
    return [line for line in logs if line["event"] == "webhooks"]


async def test_one_that_is_disabled_says_that_it_missed_events(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    off, on = [await process.register(account, f"{receiver.url}/{path}") for path in ("off", "on")]
    await process.do(account, webhooks.update_webhook, webhook_id=off["id"], is_active=False)
    assert (off["missed_events_at"], on["missed_events_at"]) == (None, None)
    await process.create(account, subject="Old")
    await machine.send(process)
    assert receiver.events("/on") == [("ticket.created", "Old")]
    before = missed()
    [line] = await purge_old(machine, process, "itsm_events")
    assert (line["webhook"], line["outcome"], line["log_level"]) == (off["id"], "missed events", "warning")
    assert missed() == before + 1
    assert (await process.webhook(account, off))["missed_events_at"] is not None
    assert (await process.webhook(account, on))["missed_events_at"] is None
    await process.do(account, webhooks.update_webhook, webhook_id=off["id"], is_active=True)
    await process.create(account, subject="New")
    await machine.send(process)
    assert receiver.events("/off") == [("ticket.created", "New")]
    assert (await process.webhook(account, off))["missed_events_at"] is not None, "it stays said"


async def test_what_fan_out_has_read_meanwhile_is_not_missed(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, f"{receiver.url}/hook")
    await process.create(account)
    machine.rows(f"UPDATE itsm_events SET created_at = created_at - {_OLD}")
    await settled(machine)
    with psycopg.connect(machine.url) as fan_out:
        lock = "SELECT transaction_id FROM itsm_webhooks WHERE id = %s FOR NO KEY UPDATE"
        fan_out.execute(lock, (webhook["id"],))
        purging = asyncio.create_task(purge("itsm_events").delete(process.database))
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%itsm_webhooks%%'"
        )
        async with asyncio.timeout(10):
            await until(lambda: machine.rows(waits + " AND datname = current_database()") == [(1,)])
        assert fan_out.execute("SELECT count(*) FROM itsm_events WHERE account_id = %s", (account.id,)).fetchall() == [
            (1,)
        ], "they are deleted together with the move of the webhook"
        fan_out.execute(
            "UPDATE itsm_webhooks SET (transaction_id, event_id) = (SELECT transaction_id, id FROM itsm_events"
            " WHERE account_id = %s) WHERE id = %s",
            (account.id, webhook["id"]),
        )
    await purging
    assert machine.rows("SELECT count(*) FROM itsm_events WHERE account_id = %s", account.id) == [(0,)]
    assert (await process.webhook(account, webhook))["missed_events_at"] is None


async def test_one_whose_held_messages_are_deleted_says_so(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, f"{receiver.url}/hook")
    await process.create(account, subject="Old")
    await machine.fan_out(process)
    await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=False)
    machine.rows("UPDATE itsm_webhook_messages SET event_id = 'evt_01AAAAAAAAAAAAAAAAAAAAAAAA'")
    [line] = await purge_old(machine, process, "webhook_messages")
    assert (line["webhook"], line["outcome"]) == (webhook["id"], "missed events")
    assert (await process.webhook(account, webhook))["missed_events_at"] is not None
    await process.do(account, webhooks.update_webhook, webhook_id=webhook["id"], is_active=True)
    await machine.send(process)
    assert receiver.requests == []


@pytest.mark.parametrize("kind", ["itsm_events", "webhook_messages"])
async def test_one_that_has_all_is_told_nothing(
    machine: Machine, process: Process, receiver: Receiver, kind: str
) -> None:
    account = Account()
    webhook = await process.register(account, f"{receiver.url}/hook")
    await process.create(account)
    await machine.send(process)
    assert await purge_old(machine, process, kind) == []
    assert (await process.webhook(account, webhook))["missed_events_at"] is None
