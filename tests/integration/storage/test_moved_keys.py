"""Revision 0025 moves keys and numbers, and none is lost or given twice: what an older version writes is refused."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from alembic import command
from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, Text, create_engine, func
from sqlalchemy import literal_column as sql
from sqlalchemy.dialects.postgresql import insert
from support.provider_lab import own_database

from service import migrations, schema
from service.directory import METADATA
from service.errors import TicketError
from service.local.processes import wait_for
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

BEFORE = "0024"
# When a key expires that is not of the last minutes: it is moved before both tables are locked.
KEPT = datetime(2100, 1, 1, tzinfo=UTC)
SOON = datetime.now(UTC) + timedelta(minutes=30)
ACCOUNT, PROJECT, USER = (str(UUID(int=number)) for number in (1, 2, 3))
# The scopes of keys in the version before, with where those are afterwards; and its scopes of numbers.
KEYS: Mapping[str, tuple[str, tuple[object, ...]]] = {
    f"itsm:{ACCOUNT}:live": ("itsm_keys", (UUID(ACCOUNT), True)),
    f"itsm:{ACCOUNT}:test": ("itsm_keys", (UUID(ACCOUNT), False)),
    'helpdesk:["t:\\"é",null,"ann"]': ("helpdesk_keys", ('t:"é', "", "ann")),
    'helpdesk:["t","app","a,b"]': ("helpdesk_keys", ("t", "app", "a,b")),
    'helpdesk SLA policies:["t","ann"]': ("helpdesk_sla_keys", ("t", "ann")),
    f"handoff:{PROJECT}:{USER}": ("handoff_keys", (UUID(PROJECT), UUID(USER))),
    "admin:root:1": ("admin_keys", ("root:1",)),
}
NUMBERS: Mapping[str, tuple[str, object]] = {
    "helpdesk:t:1": ("helpdesk_counters", "t:1"),
    f"handoff:{PROJECT}": ("handoff_counters", UUID(PROJECT)),
}

# What the version before wrote with: a key, a number, and the creation of a ticket at a provider.
_OLD, _A_TEST = MetaData(), EVERYONE("a test")
_keys = Table(
    "idempotency_keys",
    _OLD,
    *(Column(name, Text) for name in ("scope", "key", "response", "expires_at")),
    Column("request_hash", LargeBinary),
)
_counters = Table("counters", _OLD, Column("scope", Text), Column("last_number", BigInteger))
_DELIVERY = {
    **dict.fromkeys(("id", "ticket_id"), "gen_random_uuid()"),
    "account_id": f"'{ACCOUNT}'",
    "version": "1",
    "kind": "'create'",
    "members": "'{}'",
    "has_ticket": "false",
    **dict.fromkeys(("actor", "request_id"), "''"),
    "idempotency_scope": f"'itsm:{ACCOUNT}:live'",
    "idempotency_key": "'new'",
}
_deliveries = Table("provider_deliveries", _OLD, *(Column(name, Text) for name in _DELIVERY))
_key = insert(_keys).values(
    scope=sql(f"'itsm:{ACCOUNT}:live'"), key=sql("'new'"), request_hash=sql("''"), response=sql("'{}'")
)
_number = insert(_counters).values(scope=sql("'helpdesk:t:1'"), last_number=sql("1"))
WRITES = {
    "a key": _key.on_conflict_do_update(
        constraint="idempotency_keys_pkey",
        set_={"response": _key.excluded.response},
        where=_keys.c.expires_at <= func.now(),
    ).returning(_keys.c.key),
    "a number": _number.on_conflict_do_update(
        index_elements=["scope"], set_={"last_number": _counters.c.last_number + sql("1")}
    ).returning(_counters.c.last_number),
    "a creation at a provider": insert(_deliveries)
    .values({name: sql(value) for name, value in _DELIVERY.items()})
    .on_conflict_do_nothing()
    .returning(_deliveries.c.kind),
}


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    """A database as the version before left it, with keys and numbers."""
    with own_database(database_url) as url:
        go_back(url)
        with psycopg.connect(url) as connection:
            for scope in KEYS:
                for key, until in (("kept", KEPT), ("older", SOON), ("expired", "2000-01-01")):
                    connection.execute(
                        "INSERT INTO idempotency_keys VALUES (%s, %s, %s, '{}', %s)",
                        [scope, key, scope.encode(), until],
                    )
            for number, scope in enumerate(NUMBERS, 7):
                connection.execute("INSERT INTO counters VALUES (%s, %s)", [scope, number])
        yield url


def go_back(url: str) -> None:
    """To the version before."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with engine.connect() as connection:
        command.downgrade(migrations.config(connection), BEFORE)
    engine.dispose()


def rows(url: str, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(text).fetchall()


def test_every_key_and_number_is_where_its_api_looks_and_goes_back(url: str) -> None:
    old = "SELECT * FROM idempotency_keys WHERE key = 'kept' ORDER BY scope COLLATE \"C\""
    before, numbers = [
        [tuple(map(str, row)) for row in rows(url, text)] for text in (old, "SELECT * FROM counters ORDER BY scope")
    ]
    migrations.upgrade(url)
    for scope, (table, owner) in KEYS.items():
        found = rows(url, f"SELECT * FROM {table} WHERE convert_from(request_hash, 'UTF8') = '{scope}'")
        assert {(row[:-3], row[-1]) for row in found} == {((*owner, "kept"), KEPT), ((*owner, "older"), SOON)}
    for number, (table, owner_) in enumerate(NUMBERS.values(), 7):
        assert rows(url, f"SELECT * FROM {table}") == [(owner_, number)]
    assert rows(url, "SELECT 1 FROM idempotency_keys UNION ALL SELECT 1 FROM counters") == []

    # Who is at it before it is marked notices (service/schema.py).
    known = [revision for revision in schema.known_revisions() if revision <= BEFORE]
    [found_revision] = rows(url, "SELECT version_num FROM alembic_version")
    breaking = [str(revision) for (revision,) in rows(url, "SELECT revision FROM breaking_revisions")]
    assert "since 0025 only newer versions" in (schema.misfit(known, str(found_revision[0]), breaking) or "")

    go_back(url)
    assert [tuple(map(str, row)) for row in rows(url, "SELECT * FROM counters ORDER BY scope")] == numbers
    assert {*before} <= {tuple(map(str, row)) for row in rows(url, old)}


@pytest.mark.parametrize("short", [False, True], ids=["pool", "lane"])
async def test_what_an_older_version_writes_until_it_notices_is_unavailable(url: str, short: bool) -> None:
    """With statements that it has prepared before, and those that it has not."""
    statements = {name: Statement(write, scope=_A_TEST, short=short) for name, write in WRITES.items()}
    database = Database(Settings(database_url=url, pool_size=4), METADATA)
    await database.open()
    try:
        await database.all(statements["a number"], {})
        await asyncio.to_thread(migrations.upgrade, url)
        for statement in statements.values():
            for _ in range(2):
                with pytest.raises(TicketError) as raised:
                    await database.all(statement, {})
                assert (raised.value.reason, raised.value.retry_after) == ("unavailable", 1)
    finally:
        await database.close()
    assert rows(url, "SELECT 1 FROM idempotency_keys UNION ALL SELECT 1 FROM counters") == []
    assert rows(url, "SELECT last_number FROM helpdesk_counters") == [(8,)]
    assert rows(url, "SELECT 1 FROM provider_deliveries") == []


def test_a_write_under_way_is_waited_for_and_moved(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_TABLE_SECONDS", 20)
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LOCK TABLE counters%'"
    with psycopg.connect(url) as writer, psycopg.connect(url, autocommit=True) as watcher:
        for write in ("a number", "a key"):
            writer.execute(Statement(WRITES[write], scope=_A_TEST).sql)
        migrating = threading.Thread(target=migrations.upgrade, args=(url,))
        migrating.start()
        wait_for(lambda: watcher.execute(waiting).rowcount == 1, what="the step that waits", timeout=20)
        writer.commit()
        migrating.join()
    assert rows(url, "SELECT last_number FROM helpdesk_counters") == [(8,)]
    assert rows(url, "SELECT live FROM itsm_keys WHERE key = 'new'") == [(True,)]
