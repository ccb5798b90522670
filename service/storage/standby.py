"""Reads at a standby that see every write acknowledged before they began, also the writes of other processes.

The primary is asked how far its log is flushed, once for all reads that wait at that moment, and the standby how far it
has replayed that log. Once the standby has reached that position, the reads may run. Each read asks for the position
again on its own connection, in the same round trip, as that connection may lead to another server. Where the standby is
late, is lost, was promoted or follows another primary, the primary answers, as if there were no standby.
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

# How long the standby may take to reach the primary's position (one that follows closely takes a few milliseconds), and
# how long to wait before it is asked again.
_REPLAY_SECONDS = 0.02
_PAUSE_SECONDS = 0.001
# How long a read waits for a connection to it.
_TAKE_SECONDS = 0.05
# Why the primary answers instead, and for how long the standby then gets no reads: waiting for it in vain would make
# every read slower than without a standby.
OUT_SECONDS: Mapping[str, float] = {
    "behind": 1.0,
    "lost": 5.0,
    "promoted": 5.0,
    "foreign": 5.0,
    "conflict": 5.0,
    # In order: all its connections are in use; one statement failed; the primary could not be asked; it gets no reads
    # for now.
    "busy": 0.0,
    "failed": 0.0,
    "unasked": 0.0,
    "out": 0.0,
}
# The reasons for which another server of its URL may do better.
_ELSEWHERE = ("promoted", "foreign")
# How often it is checked, whether there are reads or not.
_LOOK_SECONDS = 1.0

# Errors for which the connection is replaced: the schema changed under a prepared statement.
_USELESS = (FeatureNotSupported, InvalidSqlStatementName)
_CONFLICTS = (SerializationFailure, DeadlockDetected)

_NO_TABLE = EVERYONE("reads no table")


def _asked(name: str, sql: str) -> Label[Any]:
    return literal_column(sql).label(name)


_STARTED = _asked("started", "pg_postmaster_start_time()")
# Asks the primary up to where its log is flushed, which includes every acknowledged commit (up to where it is inserted,
# with synchronous_commit off); its timeline; and since when that server runs.
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
# Asks a standby how far it has replayed the log.
_WHERE = Statement(select(*_PLACE), scope=_NO_TABLE)
# The same before a short statement, which is planned once, as on a lane (lanes.py); the settings last until the Sync.
_WHERE_SHORT = Statement(
    select(
        *_PLACE,
        _asked("plans", "set_config('plan_cache_mode', 'force_generic_plan', true)"),
        _asked("scans", "set_config('enable_bitmapscan', 'off', true)"),
    ),
    scope=_NO_TABLE,
)
# Asks for the cluster and the timeline of a server. The timeline is that of its last checkpoint, or the one that it
# receives, which only users who may read all statistics see.
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
    """The identity of a primary: its cluster and timeline, and since when that server runs."""

    system: int
    timeline: int
    started: datetime


class _Position(NamedTuple):
    """A position in a primary's log."""

    lsn: int
    primary: _Primary


class UsePrimaryError(Exception):
    """The primary must answer: one of the reasons above, and a message for operators."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(reason)
        self.reason, self.message = reason, message


class Standby:
    """The standby of one process: its connections, and what is known of it."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """`database` is the primary's."""
        self._database = database
        self._pool = pool_of(settings, settings.database_read_url, name="standby")
        # The primary when it was last asked, and how far a standby has replayed its log.
        self._primary: _Primary | None = None
        self._replayed = 0
        # Connections to servers that were found to follow a primary.
        self._known: WeakKeyDictionary[PooledConnection, _Primary] = WeakKeyDictionary()
        self._waiting: list[asyncio.Future[_Position | UsePrimaryError]] = []
        self._asking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        # It gets no reads before this instant, by the loop's clock.
        self._out_until = 0.0
        # Counted for metrics: reads that it answered, and those left to the primary, by the reason.
        self.reads = 0
        self.by_reason: Counter[str] = Counter(dict.fromkeys(OUT_SECONDS, 0))
        # How many bytes of the log it has not replayed; None while that is unknown.
        self.behind: int | None = None

    def open(self) -> None:
        """Start connecting; does not wait, as the primary answers until then."""
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
        """How many bytes it is behind. Raises UsePrimaryError when it cannot serve reads."""
        if not await self._pool.answers():
            raise UsePrimaryError("lost")
        position = await self._ask_primary()
        await self._ask_standby(position)
        return max(0, position.lsn - self._replayed)

    async def run(self, statement: Statement, parameters: Mapping[str, Any]) -> list[Row] | None:
        """Every row, or None when the primary must answer. Raises KeyError for a parameter that is missing."""
        try:
            self._require_in()
            rows = await self._read(await self._reached(), statement, parameters)
        except UsePrimaryError as error:
            self.by_reason[error.reason] += 1
            self._suspend(error)
            return None
        self.reads += 1
        return rows

    def _require_in(self) -> None:
        if asyncio.get_running_loop().time() < self._out_until:
            raise UsePrimaryError("out")

    async def _read(self, position: _Position, statement: Statement, parameters: Mapping[str, Any]) -> list[Row]:
        async with self._connected(position) as connection:
            first = _WHERE_SHORT if statement.is_short else _WHERE
            where, rows = await statement.run_after(first, connection, parameters)
            if self._note(where[0]) < position.lsn:
                raise UsePrimaryError("behind", "a server of its URL has not replayed what another one has")
            return rows

    async def _reached(self) -> _Position:
        """A position that the primary was at after this was called, and that the standby has reached."""
        waiting: asyncio.Future[_Position | UsePrimaryError] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        if self._asking is None:
            # The task gets an empty context: it is for all reads that wait, not for this call.
            self._asking = asyncio.get_running_loop().create_task(self._ask(), context=Context())
        outcome = await waiting
        if isinstance(outcome, UsePrimaryError):
            # An exception of its own for each read; `_ask` has logged the message.
            raise UsePrimaryError(outcome.reason)
        return outcome

    async def _ask(self) -> None:
        """Answer all reads that wait; for those that have come meanwhile, ask once more."""
        asked: list[asyncio.Future[_Position | UsePrimaryError]] = []
        outcome: _Position | UsePrimaryError
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                try:
                    outcome = await self._confirm()
                except UsePrimaryError as error:
                    self._suspend(error)
                    outcome = error
                _answer(asked, outcome)
        finally:
            self._asking = None
            _answer([*asked, *self._waiting], UsePrimaryError("failed"))
            self._waiting = []

    async def _confirm(self) -> _Position:
        self._require_in()
        position = await self._ask_primary()
        until = asyncio.get_running_loop().time() + _REPLAY_SECONDS
        while self._replayed < position.lsn:
            await self._ask_standby(position)
            if self._replayed >= position.lsn:
                break
            if asyncio.get_running_loop().time() >= until:
                raise UsePrimaryError("behind", "it has not replayed in time what the primary has")
            await asyncio.sleep(_PAUSE_SECONDS)
        return position

    async def _ask_primary(self) -> _Position:
        row = await self._primary_says(_QUESTION)
        timeline, started = int(row["timeline"], 16), row["started"]
        if self._primary is None or self._primary[1:] != (timeline, started):
            identity = await self._primary_says(_IDENTITY)
            if identity["started"] != started:
                raise UsePrimaryError("unasked")  # it is changing just now
            self._primary, self._replayed = _Primary(identity["system"], timeline, started), 0
        return _Position(row["lsn"], self._primary)

    async def _primary_says(self, statement: Statement) -> Row:
        try:
            row = await self._database.one(statement, {})
        except (TicketError, psycopg.Error):
            raise UsePrimaryError("unasked") from None  # the read itself will report what is wrong
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
                raise UsePrimaryError("busy", "none of its connections became free in time") from None
            raise UsePrimaryError("lost") from None
        try:
            if self._known.get(connection) != position.primary:
                await self._recognise(connection, position.primary)
            yield connection
        except psycopg.Error as error:
            raise _reason_of(error, connection) from None
        finally:
            self._pool.give_back(connection)

    async def _recognise(self, connection: PooledConnection, primary: _Primary) -> None:
        identity = (await _IDENTITY.run(connection, {}))[0]
        if identity["system"] != primary.system:
            raise UsePrimaryError("foreign", "it has another cluster's data")
        if identity["timeline"] != primary.timeline:
            message = f"it is at the timeline {identity['timeline']}, the primary at {primary.timeline}"
            raise UsePrimaryError("foreign", message)
        self._known[connection] = primary

    def _note(self, where: Row) -> int:
        """Up to where the server that gave this answer has replayed the log."""
        if not where["is_standby"]:
            raise UsePrimaryError("promoted", "the server is no standby, or not any more")
        lsn = int(where["lsn"] or 0)
        self._replayed = max(self._replayed, lsn)
        return lsn

    def _suspend(self, error: UsePrimaryError) -> None:
        """Give it no reads for as long as the reason asks for."""
        now = asyncio.get_running_loop().time()
        if error.reason in _ELSEWHERE and now >= self._out_until:
            self._pool.renew()
        if seconds := OUT_SECONDS[error.reason]:
            self._out_until = max(self._out_until, now + seconds)
        if error.message:  # one line a minute for each (transport/logs.py); the pool logs why it is lost
            _log.warning("standby", outcome="unavailable", error=error.message)

    async def _look(self) -> None:
        """Again and again, measure how far the standby is behind; the pool closes connections to a silent one."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                self.behind = await self.look()
            except UsePrimaryError as error:
                self.behind = None
                self._suspend(error)


def _answer(waiting: "list[asyncio.Future[_Position | UsePrimaryError]]", outcome: _Position | UsePrimaryError) -> None:
    for each in waiting:
        if not each.done():  # its caller is still there
            each.set_result(outcome)


def _reason_of(error: psycopg.Error, connection: PooledConnection) -> UsePrimaryError:
    """Why a read failed at the standby. If the read itself is at fault, the primary will report that."""
    if isinstance(error, _CONFLICTS):
        return UsePrimaryError("conflict", "a read conflicted with what it replays")
    if connection.is_lost or isinstance(error, AdminShutdown):
        return UsePrimaryError("lost")
    if isinstance(error, _USELESS):
        connection.discard()
    return UsePrimaryError("failed")
