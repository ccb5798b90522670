"""Statements that say where they ran, and the database of a process that has a standby."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from sqlalchemy import Text, bindparam, func, insert, literal_column, select

from service.directory import METADATA, accounts
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.standby import Standby
from service.storage.statement import Statement
from support.webhook_lab import until

TESTS = EVERYONE("a test has accounts of its own")
_NAME = bindparam("name", type_=Text)
_AT_STANDBY = func.pg_is_in_recovery().label("at_standby")

WRITE = Statement(insert(accounts).values(name=_NAME).returning(accounts.c.id), scope=TESTS, short=True)
# How many accounts of this name there are, and where that was counted.
COUNT = Statement(
    select(func.count().label("number"), _AT_STANDBY).where(accounts.c.name == _NAME), scope=TESTS, standby=True
)
ELSEWHERE = Statement(select(_AT_STANDBY), scope=TESTS, short=True)
# Takes its time, but only at the standby.
SLOW = Statement(
    select(
        _AT_STANDBY, func.pg_sleep(literal_column("CASE WHEN pg_is_in_recovery() THEN 60 ELSE 0 END")).label("slept")
    )
    .select_from(accounts)
    .limit(literal_column("1")),
    scope=TESTS,
    standby=True,
)
_PLANS = select(func.current_setting(literal_column("'plan_cache_mode'")).label("plans"), _AT_STANDBY)
SHORT_PLANS = Statement(_PLANS, scope=TESTS, short=True, standby=True)
PLANS = Statement(_PLANS.limit(literal_column("1")), scope=TESTS, standby=True)
# Refused by both.
WRONG = Statement(
    select((literal_column("1") / func.length(_NAME)).label("inverse")), scope=EVERYONE("reads no table"), standby=True
)


@asynccontextmanager
async def opened(url: str, read_url: str, **settings: Any) -> AsyncIterator[tuple[Database, Standby]]:
    """The database of a process that serves, and its standby."""
    given = Settings(database_url=url, database_read_url=read_url, **settings)
    database = Database(given, METADATA)
    database.standby = standby = Standby(given, database)
    await database.open()
    try:
        async with asyncio.timeout(20):
            await until(lambda: all(lane.is_open for lane in database.lanes or ()))
            await until(lambda: standby._pool.usage().idle > 0)
        yield database, standby
    finally:
        await database.close()


def at(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


async def count(database: Database, name: str) -> dict[str, Any]:
    row = await database.one(COUNT, {"name": name})
    assert row is not None
    return row


async def back_at_the_standby(database: Database, name: str, number: int) -> None:
    """Return when a read runs there; until then the primary answers, and no less."""
    async with asyncio.timeout(20):
        while (row := await count(database, name)) != {"number": number, "at_standby": True}:
            assert row == {"number": number, "at_standby": False}
            await asyncio.sleep(0.01)
