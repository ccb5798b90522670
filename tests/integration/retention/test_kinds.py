"""deploy/README.md, What grows: what is older than its setting is counted, or deleted in steps; nothing else is."""

import asyncio
from collections import Counter
from uuid import UUID, uuid4

import psycopg
import pytest
from support.retention import KEEP, SEEDS, Seed, purge, write
from support.webhook_lab import Machine, Process, until

from service.retention.kinds import KINDS
from service.settings import Settings

# Of each owner: how many rows are how many days old. Enough that they fill several blocks, which a step takes one of.
OLD, NEW = {KEEP + 10: 300, KEEP + 1: 40}, {KEEP - 1: 30, 0: 20}


def ages(machine: Machine, seed: Seed, owner: UUID) -> Counter[int]:
    return Counter(age for (age,) in machine.rows(seed.ages.format(owner=owner)))


async def seeded(machine: Machine, seed: Seed) -> list[UUID]:
    """Two owners with rows that are old and rows that are not."""
    # In a thread: the process makes its connections meanwhile.
    return await asyncio.to_thread(_seeded, machine, seed)


def _seeded(machine: Machine, seed: Seed) -> list[UUID]:
    owners = [uuid4(), uuid4()]
    for owner in owners:
        for sql in seed.before:
            machine.rows(sql.format(owner=owner))
        for days, number in {**OLD, **NEW}.items():
            write(machine.rows, seed, owner, days, number)
        if seed.others:
            write(machine.rows, seed, owner, KEEP + 10, 5, seed.others)
    return owners


async def settled(machine: Machine) -> None:
    """Transactions of other databases on this server hold the horizon back too."""
    [(now,)] = machine.rows("SELECT pg_current_xact_id()::text::bigint")
    is_settled = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > %s"
    async with asyncio.timeout(20):
        await until(lambda: machine.rows(is_settled, now) == [(True,)])


def test_every_kind_is_seeded() -> None:
    assert list(SEEDS) == [kind.name for kind in KINDS]


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
async def test_what_is_old_is_counted_and_then_deleted_in_steps(machine: Machine, process: Process, seed: Seed) -> None:
    owners = await seeded(machine, seed)
    others = "SELECT count(*) FROM {}".format(
        {
            "dead_deliveries": "provider_deliveries",
            "deleted_tickets": "helpdesk_tickets",
            "revoked_keys": "api_keys",
        }.get(seed.kind, "itsm_webhook_messages")
    )
    [(all_rows,)] = machine.rows(others)
    kept, old = Counter(NEW), 2 * sum(OLD.values())
    await settled(machine)
    [counted] = await purge(seed.kind, blocks=1).count(process.database)
    assert (counted.kind, counted.keep_days, counted.rows) == (seed.kind, KEEP, old)
    assert counted.oldest is not None
    assert [ages(machine, seed, owner) for owner in owners] == [Counter({**OLD, **NEW})] * 2, "counting deletes nothing"
    [deleted] = await purge(seed.kind, blocks=1).delete(process.database)
    assert deleted.rows == old
    assert [ages(machine, seed, owner) for owner in owners] == [kept] * 2
    if seed.others:
        assert machine.rows(others) == [(all_rows - old,)], "what is as old and of another kind stays"
    assert [one.rows for one in await purge(seed.kind).delete(process.database)] == [0]
    if seed.kind == "webhook_messages":
        assert machine.rows("SELECT count(*) FROM itsm_webhooks WHERE missed_events_at IS NOT NULL") == [(2,)]


async def test_nothing_is_deleted_without_a_setting(machine: Machine, process: Process) -> None:
    seed = SEEDS["helpdesk_events"]
    owners = await seeded(machine, seed)
    assert await purge().delete(process.database) == []
    assert [kind.days(Settings(database_url="postgresql://")) for kind in KINDS] == [0] * len(KINDS)
    assert ages(machine, seed, owners[0]) == Counter({**OLD, **NEW})


async def test_a_step_is_a_transaction_of_its_own(machine: Machine, process: Process) -> None:
    seed = SEEDS["itsm_events"]
    [owner, _] = await seeded(machine, seed)
    [(last,)] = machine.rows("SELECT max(ctid)::text FROM itsm_events WHERE account_id = %s AND version = 1", owner)
    assert int(last.strip("()").partition(",")[0]) > 3, "the rows fill several blocks"
    # What others are at work on is left out, and found the next time.
    find = "SELECT id FROM itsm_events WHERE account_id = %s AND created_at < now() - interval '1 day' * %s FOR UPDATE"
    with psycopg.connect(machine.url) as held:
        locked = len(held.execute(find, (owner, KEEP + 5)).fetchall())
        assert locked == OLD[KEEP + 10]
        async with asyncio.timeout(20):
            await purge(seed.kind, blocks=1).delete(process.database)
        assert ages(machine, seed, owner) == Counter({**NEW, KEEP + 10: locked})
    await purge(seed.kind).delete(process.database)
    assert ages(machine, seed, owner) == Counter(NEW)


async def test_one_process_looks_through_a_kind_within_an_hour(machine: Machine, process: Process) -> None:
    seed = SEEDS["handoff_events"]
    [owner, _] = await seeded(machine, seed)
    machine.rows("DELETE FROM purges")
    await asyncio.gather(*(purge(seed.kind).work(process.database) for _ in range(3)))
    assert ages(machine, seed, owner) == Counter(NEW)
    write(machine.rows, seed, owner, KEEP + 1, 1)
    await purge(seed.kind).work(process.database)
    assert ages(machine, seed, owner) == Counter({**NEW, KEEP + 1: 1})
    machine.rows("UPDATE purges SET begun_at = begun_at - interval '61 minutes'")
    await purge(seed.kind).work(process.database)
    assert ages(machine, seed, owner) == Counter(NEW)
