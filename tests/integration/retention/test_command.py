"""deploy/README.md, The command: `tickets purge` deletes what is old now, `--dry-run` counts it."""

import asyncio
import json
import os
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.retention import KEEP, SEEDS, Seed, write
from support.webhook_lab import Machine, Process
from typer.testing import CliRunner

from service import backlog
from service.__main__ import app
from service.counters import REGISTRY
from service.itsm import operations
from service.retention import look

DEPLOYMENTS = SEEDS["deployments"]
# The tables of idempotency keys, with somebody whose a key is.
KEYS = {
    "itsm_keys": f"'{uuid4()}', true",
    "helpdesk_keys": "'t', '', 'ann'",
    "helpdesk_sla_keys": "'t', 'ann'",
    "handoff_keys": f"'{uuid4()}', '{uuid4()}'",
    "admin_keys": "'root'",
}


async def run(url: str, *arguments: str, **settings: str) -> Any:
    """What `tickets purge` prints, as data; and what it says."""
    cleared = {name: None for name in os.environ if name.startswith("TICKETS_")}
    runner = CliRunner(env={**cleared, "TICKETS_DATABASE_URL": url, **settings})
    result = await asyncio.to_thread(runner.invoke, app, ["purge", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


async def test_it_counts_and_then_deletes(machine: Machine, process: Process) -> None:
    owner = uuid4()
    for sql in DEPLOYMENTS.before:
        machine.rows(sql.format(owner=owner))
    for days in (KEEP + 3, KEEP - 1):
        write(machine.rows, DEPLOYMENTS, owner, days, 4)
    keep = {"TICKETS_KEEP_DEPLOYMENTS_DAYS": str(KEEP)}
    counted, _ = await run(machine.url, "--dry-run", **keep)
    [kind] = counted["kinds"]
    assert counted["dry_run"] is True
    assert (kind["kind"], kind["keep_days"], kind["rows"]) == ("deployments", KEEP, 4)
    [(oldest,)] = machine.rows("SELECT min(created_at) FROM handoff_deployments")
    assert kind["oldest"] == oldest.isoformat().replace("+00:00", "Z")
    for table, whose in KEYS.items():
        machine.rows(
            f"INSERT INTO {table} VALUES ({whose}, 'expired', '', '{{}}', now() - interval '1 second'),"
            f" ({whose}, 'kept', '', '{{}}', now() + interval '1 hour')"
        )
    assert await run(machine.url, **keep) == (
        {"dry_run": False, "kinds": [{"kind": "deployments", "keep_days": KEEP, "rows": 4}]},
        "",
    )
    assert machine.rows(DEPLOYMENTS.ages.format(owner=owner)) == [(KEEP - 1,)] * 4
    assert [machine.rows(f"SELECT key FROM {table}") for table in KEYS] == [[("kept",)]] * len(KEYS)
    assert (await run(machine.url, "--dry-run", **keep))[0]["kinds"] == [{**kind, "rows": 0, "oldest": None}]


async def test_without_a_setting_it_says_so(machine: Machine) -> None:
    assert await run(machine.url) == (
        {"dry_run": False, "kinds": []},
        "nothing is deleted for its age: no TICKETS_KEEP_… is set\n",
    )


def gauge(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, name
    return value


DAY = 86_400


def seed_alone(machine: Machine, seed: Seed) -> None:
    """Rows of one kind, and none of another in the same table."""
    machine.rows("TRUNCATE accounts, itsm_webhooks, itsm_events, helpdesk_tickets, provider_deliveries CASCADE")
    machine.rows("TRUNCATE helpdesk_events, handoff_events")
    owner = uuid4()
    for sql in seed.before:
        machine.rows(sql.format(owner=owner))
    write(machine.rows, seed, owner, 5, 60)
    write(machine.rows, seed, owner, 3, 60)
    machine.rows("ANALYZE")


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
async def test_how_much_is_kept_and_since_when_is_estimated(machine: Machine, process: Process, seed: Seed) -> None:
    # In a thread: the process makes its connections meanwhile.
    await asyncio.to_thread(seed_alone, machine, seed)
    await look.look(process.database)
    assert gauge("tickets_kept_rows", kind=seed.kind) == pytest.approx(120, abs=1)
    assert gauge("tickets_kept_oldest_seconds", kind=seed.kind) == pytest.approx(5 * DAY, abs=100)
    machine.rows("TRUNCATE accounts, itsm_webhooks, itsm_events, helpdesk_tickets, provider_deliveries CASCADE")
    machine.rows("TRUNCATE helpdesk_events, handoff_events")


async def test_what_is_not_told_and_what_holds_the_horizon_is_shown(machine: Machine, process: Process) -> None:
    account_id = uuid4()
    machine.rows(SEEDS["webhook_messages"].before[0].format(owner=account_id))
    machine.rows("UPDATE itsm_webhooks SET is_active = true, created_at = now() - interval '10 days'")
    for days in (2, 1, 20):
        write(machine.rows, SEEDS["itsm_events"], account_id, days, 1)
    await backlog.look(process.database)
    assert gauge("tickets_webhook_events_unqueued_seconds") == pytest.approx(2 * DAY, abs=100)
    machine.rows("UPDATE itsm_webhooks SET is_active = false")
    await backlog.look(process.database)
    assert gauge("tickets_webhook_events_unqueued_seconds") == 0
    assert gauge("tickets_oldest_prepared_transaction_seconds") == 0
    with psycopg.connect(machine.url) as held:
        [(since,)] = held.execute("SELECT extract(epoch FROM now())::float FROM pg_current_xact_id()").fetchall()
        await backlog.look(process.database)
        [(now,)] = held.execute("SELECT extract(epoch FROM clock_timestamp())::float").fetchall()
        # Others may have been open for longer.
        assert gauge("tickets_oldest_transaction_seconds") > 0
        assert now - since < gauge("tickets_oldest_transaction_seconds") + 5


async def test_totals_are_merged_until_there_are_none(machine: Machine, process: Process) -> None:
    machine.rows(
        "INSERT INTO itsm_total_changes (account_id, live, status, change)"
        " SELECT '00000000-0000-0000-0000-000000000001', true, 'open', 1 FROM generate_series(1, 20500)"
    )
    await operations.merge_totals(process.database)
    assert machine.rows("SELECT count(*) FROM itsm_total_changes") == [(0,)]
    assert machine.rows("SELECT total FROM itsm_totals WHERE account_id = '00000000-0000-0000-0000-000000000001'") == [
        (20500,)
    ]
