"""Reads at a standby, which miss nothing that was acknowledged before they were asked for, whoever wrote it.

The primary is asked how far its log is flushed, once for all calls that wait at that moment, and the standby how far it
has replayed the log. When it is there, a read may run. The connection that reads is asked again just before it does, in
the same round trip: another one may be to another server. Where the standby is not there in time, is lost, has taken
over or follows somebody else, the primary answers, as if there were no standby.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import datetime
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
import structlog
from psycopg.errors import (
    AdminShutdown,
    DeadlockDetected,
    FeatureNotSupported,
    InvalidSqlStatementName,
    SerializationFailure,
)
from sqlalchemy import Label, literal_column, select

from service.errors import TicketError
from service.settings import Settings
from service.storage.connection import PooledConnection
from service.storage.database import Database, pool_of
from service.storage.pool import NoConnectionError
from service.storage.scope import EVERYONE
from service.storage.statement import Row, Statement

_log = structlog.get_logger()

# How long the standby may take to replay what the primary has; a caller hardly notices, and one that follows closely
# needs a few milliseconds. And how long until it is asked again.
_PATIENCE_SECONDS = 0.02
_PAUSE_SECONDS = 0.001
# How long a read waits for a connection to it.
_TAKE_SECONDS = 0.05
# Why the primary answers instead, and for how long the standby is then left alone: what waits for it in vain is slower
# than without it.
OUT_SECONDS: Mapping[str, float] = {
    "behind": 1.0,
    "lost": 5.0,
    "promoted": 5.0,
    "foreign": 5.0,
    "conflict": 5.0,
    # It has enough to do; one statement failed; the primary could not be asked; left alone.
    "busy": 0.0,
    "failed": 0.0,
    "unasked": 0.0,
    "out": 0.0,
}
# Of these, that another server of its URL may do better.
_ELSEWHERE = ("promoted", "foreign")
# How often it is looked at, whether anything is read or not.
_LOOK_SECONDS = 1.0

# What cannot be told of a connection that goes on: the schema changed under what is prepared there.
_USELESS = (FeatureNotSupported, InvalidSqlStatementName)
_CONFLICTS = (SerializationFailure, DeadlockDetected)

_NO_TABLE = EVERYONE("reads no table")


def _asked(name: str, sql: str) -> Label[Any]:
    return literal_column(sql).label(name)


_STARTED = _asked("started", "pg_postmaster_start_time()")
# Where the primary's log is flushed to, which all commits were before they were answered; but where those are not
# flushed, how far it is written. Of which timeline it is, and since when that server runs.
_QUESTION = Statement(
    select(
        _asked(
            "lsn",
            "CASE current_setting('synchronous_commit') WHEN 'off' THEN pg_current_wal_insert_lsn()"
            " ELSE pg_current_wal_flush_lsn() END",
        ),
        _asked("timeline", "left(pg_walfile_name(pg_current_wal_flush_lsn()), 8)"),
        _STARTED,
    ),
    scope=_NO_TABLE,
    short=True,
)
_PLACE = (_asked("is_standby", "pg_is_in_recovery()"), _asked("lsn", "pg_last_wal_replay_lsn()"))
# Where a standby is.
_WHERE = Statement(select(*_PLACE), scope=_NO_TABLE)
# The same before what is short: it is planned once, as on a lane (lanes.py), up to the next Sync.
_WHERE_SHORT = Statement(
    select(
        *_PLACE,
        _asked("plans", "set_config('plan_cache_mode', 'force_generic_plan', true)"),
        _asked("scans", "set_config('enable_bitmapscan', 'off', true)"),
    ),
    scope=_NO_TABLE,
)
# Which cluster's data a server has, and which timeline's: that of its last checkpoint, which a standby has replayed, or
# the one that it is being sent, which only those who may read all statistics are told.
_IDENTITY = Statement(
    select(
        _asked("system", "(SELECT system_identifier FROM pg_control_system())"),
        _asked(
            "timeline",
            "(SELECT greatest(timeline_id, (SELECT received_tli FROM pg_stat_wal_receiver))"
            " FROM pg_control_checkpoint())",
        ),
        _STARTED,
    ),
    scope=_NO_TABLE,
    prepared=False,
)


class _Primary(NamedTuple):
    """Whose log it is: of which cluster and timeline, and since when that server runs."""

    system: int
    timeline: int
    started: datetime


class _Position(NamedTuple):
    """A position in a primary's log."""

    lsn: int
    primary: _Primary


class LeftError(Exception):
    """The primary is to answer, for one of the reasons above, and in words that an operator reads."""

    def __init__(self, reason: str, words: str = "") -> None:
        super().__init__(reason)
        self.reason, self.words = reason, words


class Standby:
    """The standby of one process: its connections, and what is known of it."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """`database` is the primary's."""
        self._database = database
        self._pool = pool_of(settings, settings.database_read_url, name="standby")
        # The last primary that was met, and how far a standby was found to have replayed its log.
        self._primary: _Primary | None = None
        self._replayed = 0
        # Connections to servers that were found to follow a primary.
        self._known: WeakKeyDictionary[PooledConnection, _Primary] = WeakKeyDictionary()
        self._waiting: list[asyncio.Future[_Position | LeftError]] = []
        self._asking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        # Until when it is left alone, by the loop's clock.
        self._out_until = 0.0
        # Reads that it answered, and by reason those that the primary did.
        self.reads = 0
        self.left: Counter[str] = Counter(dict.fromkeys(OUT_SECONDS, 0))
        # How many bytes of the log it has not replayed; None while nobody knows.
        self.behind: int | None = None

    def open(self) -> None:
        """Start connecting; nobody waits for it."""
        self._pool.open()
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Give back every connection."""
        tasks = [task for task in (self._looking, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close()

    async def look(self) -> int:
        """How many bytes it is behind. Raises LeftError where it is of no use."""
        if not await self._pool.answers():
            raise LeftError("lost")
        position = await self._ask_primary()
        await self._ask_standby(position)
        return max(0, position.lsn - self._replayed)

    async def run(self, statement: Statement, parameters: Mapping[str, Any]) -> list[Row] | None:
        """Every row, or None when the primary is to answer. Raises KeyError for a parameter that is missing."""
        try:
            self._require_in()
            rows = await self._read(await self._reached(), statement, parameters)
        except LeftError as left:
            self.left[left.reason] += 1
            self._leave_alone(left)
            return None
        self.reads += 1
        return rows

    def _require_in(self) -> None:
        if asyncio.get_running_loop().time() < self._out_until:
            raise LeftError("out")

    async def _read(self, position: _Position, statement: Statement, parameters: Mapping[str, Any]) -> list[Row]:
        async with self._connected(position) as connection:
            first = _WHERE_SHORT if statement.is_short else _WHERE
            where, rows = await statement.run_after(first, connection, parameters)
            if self._note(where[0]) < position.lsn:
                raise LeftError("behind", "a server of its URL has not replayed what another one has")
            return rows

    async def _reached(self) -> _Position:
        """A position that the primary was at after this was called, and that the standby has reached."""
        waiting: asyncio.Future[_Position | LeftError] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        if self._asking is None:
            # In nobody's name, as it is for all who wait.
            self._asking = asyncio.get_running_loop().create_task(self._ask(), context=Context())
        outcome = await waiting
        if isinstance(outcome, LeftError):
            raise LeftError(outcome.reason)  # each its own, and what there is to say was said
        return outcome

    async def _ask(self) -> None:
        """Answer all who wait, and those who have come meanwhile by another question."""
        asked: list[asyncio.Future[_Position | LeftError]] = []
        outcome: _Position | LeftError
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                try:
                    outcome = await self._confirm()
                except LeftError as left:
                    self._leave_alone(left)
                    outcome = left
                _answer(asked, outcome)
        finally:
            self._asking = None
            _answer([*asked, *self._waiting], LeftError("failed"))
            self._waiting = []

    async def _confirm(self) -> _Position:
        self._require_in()
        position = await self._ask_primary()
        until = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while self._replayed < position.lsn:
            await self._ask_standby(position)
            if self._replayed >= position.lsn:
                break
            if asyncio.get_running_loop().time() >= until:
                raise LeftError("behind", "it has not replayed in time what the primary has")
            await asyncio.sleep(_PAUSE_SECONDS)
        return position

    async def _ask_primary(self) -> _Position:
        row = await self._primary_says(_QUESTION)
        timeline, started = int(row["timeline"], 16), row["started"]
        if self._primary is None or self._primary[1:] != (timeline, started):
            identity = await self._primary_says(_IDENTITY)
            if identity["started"] != started:
                raise LeftError("unasked")  # it is changing just now
            self._primary, self._replayed = _Primary(identity["system"], timeline, started), 0
        return _Position(row["lsn"], self._primary)

    async def _primary_says(self, statement: Statement) -> Row:
        try:
            row = await self._database.one(statement, {})
        except (TicketError, psycopg.Error):
            raise LeftError("unasked") from None  # what is wrong the read itself will say
        return row or {}

    async def _ask_standby(self, position: _Position) -> None:
        async with self._connected(position) as connection:
            self._note((await _WHERE.run(connection, {}))[0])

    @asynccontextmanager
    async def _connected(self, position: _Position) -> AsyncIterator[PooledConnection]:
        """A connection to a server that follows the primary."""
        try:
            connection = await self._pool.take(_TAKE_SECONDS)
        except NoConnectionError:
            usage = self._pool.usage()
            if usage.idle + usage.in_use:
                raise LeftError("busy", "none of its connections became free in time") from None
            raise LeftError("lost") from None
        try:
            if self._known.get(connection) != position.primary:
                await self._recognise(connection, position.primary)
            yield connection
        except psycopg.Error as error:
            raise _left(error, connection) from None
        finally:
            self._pool.give_back(connection)

    async def _recognise(self, connection: PooledConnection, primary: _Primary) -> None:
        identity = (await _IDENTITY.run(connection, {}))[0]
        if identity["system"] != primary.system:
            raise LeftError("foreign", "it has another cluster's data")
        if identity["timeline"] != primary.timeline:
            words = f"it is at the timeline {identity['timeline']}, the primary at {primary.timeline}"
            raise LeftError("foreign", words)
        self._known[connection] = primary

    def _note(self, where: Row) -> int:
        """How far the server is that says this."""
        if not where["is_standby"]:
            raise LeftError("promoted", "the server is no standby, or not any more")
        lsn = int(where["lsn"] or 0)
        self._replayed = max(self._replayed, lsn)
        return lsn

    def _leave_alone(self, left: LeftError) -> None:
        now = asyncio.get_running_loop().time()
        if left.reason in _ELSEWHERE and now >= self._out_until:
            self._pool.renew()
        if seconds := OUT_SECONDS[left.reason]:
            self._out_until = max(self._out_until, now + seconds)
        if left.words:  # one line a minute for each (transport/logs.py); why one is lost the pool says
            _log.warning("standby", outcome="unavailable", error=left.words)

    async def _look(self) -> None:
        """Have a server that is silent given up, and note how far it is behind, again and again."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                self.behind = await self.look()
            except LeftError as left:
                self.behind = None
                self._leave_alone(left)


def _answer(waiting: "list[asyncio.Future[_Position | LeftError]]", outcome: _Position | LeftError) -> None:
    for each in waiting:
        if not each.done():  # its caller is still there
            each.set_result(outcome)


def _left(error: psycopg.Error, connection: PooledConnection) -> LeftError:
    """Why a read failed at the standby. What is wrong with the read itself the primary will say."""
    if isinstance(error, _CONFLICTS):
        return LeftError("conflict", "a read was in the way of what it replays")
    if connection.is_lost or isinstance(error, AdminShutdown):
        return LeftError("lost")
    if isinstance(error, _USELESS):
        connection.discard()
    return LeftError("failed")
