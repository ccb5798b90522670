"""Epochs: a database that finds itself on another server is not served before `tickets migrate`, which loses no order.

That the server is another one is simulated: the database remembers another number. With servers of their own:
tests/integration/service/test_restore.py.
"""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from support.moves import forget_server
from support.provider_lab import own_database
from support.webhook_lab import Account, Machine

from service import migrations, schema
from service.directory import METADATA
from service.epochs import SERVER_BITS, epoch_of
from service.errors import TicketError
from service.local.processes import wait_for
from service.migrations import epochs
from service.positions import BEFORE_ALL, Position, Start
from service.settings import Settings
from service.storage.database import Database, Xid8

ACCOUNT = uuid4()
INSERT = (
    "INSERT INTO itsm_events (account_id, live, ticket_id, version, type, changes, actor, request_id)"
    f" VALUES ('{ACCOUNT}', true, gen_random_uuid(), 1, 'ticket.created', '{{}}', 'me', 'r')"
    " RETURNING transaction_id::text::bigint, id"
)
Sql = psycopg.Connection[tuple[Any, ...]]
# As the contract says it of a cursor.
REFUSED = "validation_error"


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    with own_database(database_url) as url:
        yield url


@pytest.fixture
def sql(url: str) -> Iterator[Sql]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def insert(sql: Sql) -> Position:
    [row] = sql.execute(INSERT).fetchall()
    return Position(*row)


def remembered(sql: Sql) -> list[tuple[int, int]]:
    return sql.execute("SELECT epoch, system_identifier FROM event_epochs ORDER BY epoch").fetchall()


def here(sql: Sql) -> int:
    [(server,)] = sql.execute("SELECT system_identifier FROM pg_control_system()").fetchall()
    return int(server)


async def looked_at(url: str) -> str | None:
    database = Database(Settings(database_url=url, pool_size=1), METADATA)
    await database.open()
    try:
        return await schema.look(database)
    finally:
        await database.close()


async def test_a_database_on_another_server_is_served_once_it_is_migrated(url: str, sql: Sql) -> None:
    server = here(sql)
    assert remembered(sql) == [(0, server)]
    assert await looked_at(url) is None
    other = forget_server(url)
    assert await looked_at(url) == (
        f"the database is on another server ({server}) than the one it remembers ({other}), and the order of events"
        " must go on here: run `tickets migrate`"
    )
    for _ in range(2):  # the second time there is nothing to do
        await asyncio.to_thread(migrations.upgrade, url)
        assert remembered(sql) == [(0, other), (1, server)]
        assert await looked_at(url) is None
    # Code that does not know epochs would write in the order of the first.
    marked = [revision for (revision,) in sql.execute("SELECT revision FROM breaking_revisions")]
    known = schema.known_revisions()
    before = known[: known.index("0023")]
    assert schema.misfit(known, known[-1], marked) is None
    assert "since 0023 only newer versions can serve it" in str(schema.misfit(before, known[-1], marked))


def test_ids_go_on_after_those_of_the_server_before_and_none_is_rewritten(url: str, sql: Sql) -> None:
    # As of a server with more transactions than this one will ever have.
    high = 2**SERVER_BITS - 1
    sql.execute(f"ALTER TABLE itsm_events ALTER transaction_id SET DEFAULT '{high}'::xid8")
    old = [insert(sql) for _ in range(3)]
    sql.execute("ALTER TABLE itsm_events ALTER transaction_id SET DEFAULT in_epoch(pg_current_xact_id())")
    rows = sql.execute("SELECT ctid, xmin, * FROM itsm_events ORDER BY id").fetchall()
    sql.execute(f"PREPARE again AS {INSERT}")
    sql.execute("SET plan_cache_mode = force_generic_plan")
    sql.execute("EXECUTE again")
    sql.execute("DELETE FROM itsm_events WHERE transaction_id < '1000000000'")
    for epoch in (1, 2):
        forget_server(url)
        migrations.upgrade(url)
        new = insert(sql)
        assert epoch_of(new.transaction_id) == epoch
        assert new > max(old)
        # A statement that was planned before, too.
        [row] = sql.execute("EXECUTE again").fetchall()
        assert Position(*row) > new
        old.append(Position(*row))
    assert sql.execute("SELECT ctid, xmin, * FROM itsm_events ORDER BY id LIMIT 3").fetchall() == rows
    horizon, next_one = "pg_snapshot_xmin(pg_current_snapshot())", "pg_current_xact_id()"
    found = sql.execute(f"SELECT in_epoch({horizon})::text::bigint, in_epoch({next_one})::text::bigint").fetchall()
    assert [epoch_of(number) for number in found[0]] == [2, 2]


def test_a_plan_has_the_text_of_the_function_and_reads_the_index(url: str, sql: Sql) -> None:
    forget_server(url)
    migrations.upgrade(url)
    sql.execute("SET enable_seqscan = off")
    look = (
        f"SELECT id FROM itsm_events WHERE account_id = '{ACCOUNT}' AND live"
        " AND transaction_id < in_epoch(pg_snapshot_xmin(pg_current_snapshot())) ORDER BY transaction_id, id LIMIT 10"
    )
    for statement in (INSERT, look):
        plan = " ".join(line for (line,) in sql.execute(f"EXPLAIN (VERBOSE) {statement}"))
        assert "in_epoch" not in plan
        assert str(1 << SERVER_BITS) in plan
    assert "Index Cond" in plan
    assert "Filter" not in plan


def test_every_transaction_id_that_is_written_is_of_an_epoch(sql: Sql) -> None:
    written = sql.execute(
        "SELECT table_name, column_default FROM information_schema.columns WHERE udt_name = 'xid8'"
    ).fetchall()
    declared = {table.name for table in METADATA.tables.values() if any(isinstance(c.type, Xid8) for c in table.c)}
    assert {name for name, _ in written} == declared
    # (Those without a default are given the horizon, or another's id.)
    assert {default for _, default in written if default} == {"in_epoch(pg_current_xact_id())"}
    assert sum(1 for _, default in written if default) == 6


def test_it_begins_no_epoch_while_another_session_writes(url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "LOCK_SECONDS", 0.05)
    other = forget_server(url)
    with psycopg.connect(url) as writer:
        writer.execute(INSERT)
        with pytest.raises(RuntimeError, match="another session has an open transaction"):
            migrations.upgrade(url)
        assert remembered(sql) == [(0, other)]
        writer.commit()
    migrations.upgrade(url)
    assert remembered(sql) == [(0, other), (1, here(sql))]


def test_a_write_that_waits_for_the_new_epoch_is_of_it(url: str, sql: Sql) -> None:
    forget_server(url)
    found = list[Position]()
    waiting = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE %s"
    )

    def write() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            found.append(insert(connection))

    migrating, writing = threading.Thread(target=migrations.upgrade, args=(url,)), threading.Thread(target=write)
    with psycopg.connect(url) as holder:
        holder.execute(INSERT)
        migrating.start()
        wait_for(lambda: sql.execute(waiting, ["LOCK TABLE%"]).rowcount == 1, what="the migration to wait", timeout=20)
        writing.start()
        wait_for(lambda: sql.execute(waiting, ["INSERT INTO%"]).rowcount == 1, what="the writer to wait", timeout=20)
        holder.commit()
    migrating.join()
    writing.join()
    assert [position.epoch for position in found] == [1]


def test_it_begins_no_epoch_while_a_subscription_may_still_write(url: str, sql: Sql) -> None:
    sql.execute("CREATE SUBSCRIPTION early CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false)")
    try:
        forget_server(url)
        # (Not by ALTER SUBSCRIPTION, whose worker would write of its failures into the log.)
        sql.execute("SET allow_system_table_mods = on; UPDATE pg_subscription SET subenabled = true")
        with pytest.raises(RuntimeError, match="drop the subscription early, once it has everything"):
            migrations.upgrade(url)
    finally:
        sql.execute("ALTER SUBSCRIPTION early DISABLE")
        sql.execute("ALTER SUBSCRIPTION early SET (slot_name = NONE)")
        sql.execute("DROP SUBSCRIPTION early")
    migrations.upgrade(url)
    assert len(remembered(sql)) == 2


def test_sequences_go_on_after_what_was_replicated(url: str, sql: Sql) -> None:
    for _ in range(5):
        last = insert(sql)
    sql.execute("SELECT setval('itsm_events_id_seq', 1, false)")
    forget_server(url)
    migrations.upgrade(url)
    assert insert(sql).id > last.id


@pytest.mark.parametrize("is_ahead", [True, False])
def test_a_dump_of_an_older_version_has_an_epoch_of_its_own_where_its_ids_are_ahead(
    url: str, sql: Sql, is_ahead: bool
) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with engine.connect() as connection:
        config = migrations.config(connection)
        before = ScriptDirectory.from_config(config).get_revision("0023").down_revision
        command.downgrade(config, str(before))
    engine.dispose()
    old = insert(sql)
    if is_ahead:
        sql.execute("UPDATE itsm_events SET transaction_id = '1000000000'")
    migrations.upgrade(url)
    assert remembered(sql) == ([(0, 0), (1, here(sql))] if is_ahead else [(0, here(sql))])
    assert insert(sql) > (Position(1_000_000_000, 0) if is_ahead else old)


async def test_a_cursor_is_good_where_its_event_is(url: str, sql: Sql) -> None:
    """Whichever server told it: the database was on that one, and has the event."""
    account, other_account = Account(), Account()
    async with Machine(url).process() as process:
        feed = process.dependencies.feed

        async def events_of(account: Account) -> list[Position]:
            await process.create(account)
            rows = sql.execute(
                "SELECT transaction_id::text::bigint, id FROM itsm_events WHERE account_id = %s ORDER BY 1, 2",
                [account.id],
            )
            return [Position(*row) for row in rows]

        for one in (account, other_account):
            sql.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a')", [one.id])
        [first], [of_another] = await events_of(account), await events_of(other_account)
        server = here(sql)

        async def answer(position: Position, of_server: int) -> Position | str:
            try:
                return await feed.begin(account.id, Start(position, of_server))
            except TicketError as error:
                return error.reason

        async def only_good(of_server: int) -> bool:
            answers = {position: await answer(position, of_server) for position in good | bad}
            return answers == {**{position: position for position in good}, **dict.fromkeys(bad, REFUSED)}

        async def none(of_server: int) -> bool:
            return {await answer(position, of_server) for position in good | bad} == {REFUSED}

        lost = Position(first.transaction_id + 1, first.id)
        in_next = Position(first.transaction_id + (1 << SERVER_BITS), first.id)
        nowhere = Position(2**64 - 1, first.id)
        good, bad = {first, BEFORE_ALL}, {lost, of_another, in_next, nowhere}
        assert await only_good(server)
        assert await none(server + 1)

        old_server = forget_server(url)
        feed.servers = ()  # as in a process that starts there
        assert await answer(first, old_server) == "unavailable"
        await asyncio.to_thread(migrations.upgrade, url)
        [_, second] = await events_of(account)
        assert second.epoch == 1
        assert await only_good(old_server)
        assert await none(server), "that is the one of the next epoch"
        assert await answer(second, server) == second
        assert await answer(second, old_server) == REFUSED
