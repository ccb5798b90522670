"""Lanes: connections on which the short statements of many calls travel together, in libpq's pipeline mode.

Statements that are submitted while a lane is busy wait for its next batch: the statements one after the other, then a
Sync. So a batch costs one round trip, and is one transaction. Reads are answered as their rows arrive; writes when all
of them are committed, by one flush of PostgreSQL's log.

No statement may delay the others for long. One that fails, waits for a lock or takes long rolls its batch back: then it
runs alone, on a connection of the pool, and the others once more in the next batch. A statement that is rolled back
twice runs alone too. So does a large statement; and, for a while, one that would lock a row that was found locked, and
one that took long.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.errors import (
    FeatureNotSupported,
    InvalidSqlStatementName,
    LockNotAvailable,
    QueryCanceled,
    ReadOnlySqlTransaction,
)
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from service.storage.connection import PooledConnection
from service.storage.pool import NoConnectionError, Pool
from service.storage.statement import Row, Statement

# How long a statement may wait for a row, and may take, in milliseconds. Lanes plan a statement once, without bitmap
# scans: those read what is dead in an index again and again, where an index scan marks it.
_SETTINGS = (
    b"SET lock_timeout = 50; SET statement_timeout = 200;"
    b" SET plan_cache_mode = force_generic_plan; SET enable_bitmapscan = off"
)
_MAX_BATCH = 64
# A batch is sent when this many turns of the event loop have added nothing, or when it has this many statements.
_TURNS = 4
_ENOUGH = 32
# Up to this mean length of a batch, the lane has one caller at a time; the mean is over about `_REMEMBERED` batches.
_LONE = 1.05
_REMEMBERED = 32
_MAX_BYTES = 16_384
# A row or a statement that delayed a batch is kept off the lane for this long, and this many are remembered.
_ASIDE_SECONDS = 10.0
_MAX_ASIDE = 1000
# A lane whose server has not answered for this long is lost: no statement takes nearly as long.
_SILENT_SECONDS = 5.0
# How long to wait for a connection at a time, and between two attempts.
_TAKE_SECONDS = 5.0
_PAUSE_SECONDS = 0.2

# Errors for which the connection is replaced: the schema changed under a prepared statement, or this is a standby.
_USELESS = (FeatureNotSupported, InvalidSqlStatementName, ReadOnlySqlTransaction)


class _Job:
    """One statement of one call, and the future of its answer: its rows, or None when it must run alone."""

    __slots__ = ("answer", "lock", "lock_texts", "locked", "locked_before", "result", "statement", "texts", "undone")

    def __init__(
        self, statement: Statement, lock: Statement | None, connection: PooledConnection, parameters: Mapping[str, Any]
    ) -> None:
        self.statement, self.lock = statement, lock
        self.texts = statement.texts(connection, parameters)
        self.lock_texts = () if lock is None else lock.texts(connection, parameters)
        # Which row it locks, and what `lock` locks before that.
        self.locked = statement.locked(self.texts)
        self.locked_before = b"" if lock is None else lock.locked(self.lock_texts)
        self.answer: asyncio.Future[list[Row] | None] = asyncio.get_running_loop().create_future()
        # The result of a write that is not committed yet.
        self.result: PGresult | None = None
        # Whether a batch that it was in was rolled back.
        self.undone = False

    @property
    def size(self) -> int:
        """How many bytes its parameters have."""
        return sum([len(text) for text in self.texts if text is not None])

    def leave_out(self) -> None:
        """Answer that it must run alone."""
        if not self.answer.done():
            self.answer.set_result(None)

    def fail(self, error: psycopg.Error) -> None:
        """Answer that it is unknown whether it ran."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def reply(self, connection: PooledConnection, result: PGresult) -> None:
        """Answer with the rows of a result, unless the caller has left."""
        if self.answer.done():
            return
        try:
            self.answer.set_result(self.statement.rows(connection, result))
        except psycopg.Error as error:
            self.answer.set_exception(error)


class _Batch:
    """Some jobs under one Sync."""

    def __init__(self, jobs: Sequence[_Job], *, writes: bool) -> None:
        self.jobs = jobs
        self._writes = writes
        # What each result belongs to, in order: the name of a statement being prepared, a lock statement, or a job.
        self._parts: list[bytes | Statement | _Job] = []
        self._arrived = 0
        self._has_failed = False
        # The job that failed, if it was one.
        self.failed: _Job | None = None

    def send(self, connection: PooledConnection) -> None:
        """Send all of it."""
        parts, pgconn = self._parts, connection.pgconn
        for job in self._by_lock():
            if job.lock is not None:
                self._prepare(connection, job.lock)
                job.lock.send(pgconn, job.lock_texts)
                parts.append(job.lock)
        for job in self.jobs:
            self._prepare(connection, job.statement)
            job.statement.send(pgconn, job.texts)
            parts.append(job)
        pgconn.pipeline_sync()
        connection.expect(answer=True)
        connection.flush()

    def note(self, connection: PooledConnection, result: PGresult) -> _Job | None:
        """Take the next result; returns the job that failed, if one did."""
        part = self._parts[self._arrived] if self._arrived < len(self._parts) else None  # the commit itself
        self._arrived += 1
        if result.status == ExecStatus.FATAL_ERROR:
            self._has_failed = True
            self.failed = part if isinstance(part, _Job) else None
            return self.failed
        if result.status == ExecStatus.PIPELINE_ABORTED:
            return None
        if isinstance(part, bytes):
            connection.note_prepared(part)
        elif isinstance(part, _Job):
            if self._writes:
                part.result = result
            else:
                part.reply(connection, result)
        return None

    def end(self, connection: PooledConnection) -> Sequence[_Job]:
        """The transaction has ended: answer the jobs. Returns those without an answer, as it was rolled back."""
        if not self._has_failed:
            for job in self.jobs:
                if job.result is not None:
                    job.reply(connection, job.result)
        return [job for job in self.jobs if not job.answer.done()]

    def prepares(self, statement: Statement) -> bool:
        """Whether the connection had not prepared a statement before."""
        return statement.name in self._parts

    def lose(self, error: psycopg.Error) -> None:
        """The connection was lost. Reads run again alone; whether writes ran is unknown."""
        for job in self.jobs:
            if self._writes:
                job.fail(error)
            else:
                job.leave_out()

    def _by_lock(self) -> Sequence[_Job]:
        if not self._writes:
            return ()
        return sorted(self.jobs, key=lambda job: job.locked_before)

    def _prepare(self, connection: PooledConnection, statement: Statement) -> None:
        if statement.name not in connection.prepared and statement.name not in self._parts:
            connection.pgconn.send_prepare(statement.name, statement.sql)
            self._parts.append(statement.name)


class Lane:
    """One connection of the pool, and the statements that wait for it: those that read, or those that write."""

    def __init__(self, pool: Pool, *, writes: bool) -> None:
        self._pool = pool
        self._writes = writes
        self._connection: PooledConnection | None = None
        self._waiting: deque[_Job] = deque()
        # Whether the next batch is about to be sent; and the batch that was sent and is not answered yet.
        self._is_due = False
        self._batch: _Batch | None = None
        # How many statements the last batches had, on average.
        self._mean = 1.0
        # The keys of rows and the names of statements that are kept off the lane, each with the loop's time of its end.
        self._aside: dict[bytes, float] = {}
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Counted for metrics: batches, statements in them, and statements that had to run alone.
        self.batches = self.statements = self.alone = 0

    def open(self) -> None:
        """Start taking a connection; until it is there, statements run alone."""
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Give the connection back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def __len__(self) -> int:
        """How many statements wait."""
        return len(self._waiting)

    @property
    def is_open(self) -> bool:
        """Whether it has a connection."""
        return self._connection is not None

    async def run(
        self, statement: Statement, parameters: Mapping[str, Any], lock: Statement | None
    ) -> list[Row] | None:
        """Every row of a statement, and of one that runs before, only to lock; None when it is to run alone.

        Raises KeyError for a parameter that is missing, and psycopg.Error when it is unknown whether it has run.
        """
        if self._connection is None:
            return None
        job = _Job(statement, lock, self._connection, parameters)
        if job.size > _MAX_BYTES or (self._aside and self._is_aside(job)):
            self.alone += 1
            return None
        self._waiting.append(job)
        if self._batch is None and not self._is_due:
            # Statements that the next turns of the loop submit join the batch.
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._send_soon, 0, 0)
        return await job.answer

    async def _keep(self) -> None:
        """Hold a connection as long as the process serves, and take another one when it is lost."""
        while True:
            try:
                connection = await self._pool.take(_TAKE_SECONDS)
            except NoConnectionError:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            try:
                await connection.command(_SETTINGS)
                self._begin(connection)
                await self._lost.wait()
            except psycopg.Error as error:
                connection.failure = connection.failure or str(error)
            finally:
                connection.discard()
                self._lose()
                self._pool.give_back(connection)

    def _begin(self, connection: PooledConnection) -> None:
        self._lost.clear()
        connection.pgconn.enter_pipeline_mode()
        connection.follow(self._arrive, _SILENT_SECONDS)
        self._connection = connection

    def _lose(self) -> None:
        """The connection was lost: the pool makes another one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._batch is not None:
            self._batch.lose(psycopg.OperationalError(connection.failure))
            self._batch = None
        while self._waiting:
            self._waiting.popleft().leave_out()
        self._lost.set()

    def _send_soon(self, seen: int, turns: int) -> None:
        """Send what waits when `turns` more turns of the loop have brought nothing, or when there is enough."""
        waiting = len(self._waiting)
        if seen < waiting:
            # A lone caller gains nothing by waiting.
            turns = _TURNS if self._mean > _LONE else 0
        if turns > 0 and waiting < _ENOUGH:
            asyncio.get_running_loop().call_soon(self._send_soon, waiting, turns - 1)
        else:
            self._is_due = False
            self._send()

    def _send(self) -> None:
        """Send what waits."""
        connection, waiting, jobs = self._connection, self._waiting, list[_Job]()
        if connection is None:
            return
        while waiting and len(jobs) < _MAX_BATCH:
            job = waiting.popleft()
            if self._aside and self._is_aside(job):  # it is kept off since it came
                self._leave_out(job)
            elif not job.answer.done():  # its caller is still there
                jobs.append(job)
        if not jobs:
            return
        if self._writes:
            # All batches, of all processes, lock in one order, or two of them would wait for each other.
            jobs.sort(key=lambda job: job.locked)
        self._mean += (len(jobs) - self._mean) / _REMEMBERED
        self._batch = _Batch(jobs, writes=self._writes)
        self.batches += 1
        self.statements += len(jobs)
        try:
            self._batch.send(connection)
        except psycopg.Error as error:
            connection.failure = str(error)
            connection.discard()

    def _arrive(self) -> None:
        """Read the results that have arrived; or the connection is lost."""
        connection = self._connection
        if connection is None:
            return
        if connection.is_lost:
            self._lose()
            return
        connection.expect(answer=self._batch is not None)
        pgconn, nones = connection.pgconn, 0
        # Between two results there is one None.
        while self._batch is not None and nones < 2 and not pgconn.is_busy():
            result = pgconn.get_result()
            nones = nones + 1 if result is None else 0
            if result is None:
                continue
            if result.status == ExecStatus.PIPELINE_SYNC:
                self._end(connection, self._batch)
            elif (failed := self._batch.note(connection, result)) is not None:
                self._note_failed(connection, self._batch, failed, result)

    def _end(self, connection: PooledConnection, batch: _Batch) -> None:
        self._batch = None
        connection.expect(answer=False)
        for job in reversed(batch.end(connection)):
            if batch.failed in (None, job) or job.undone:
                self._leave_out(job)
            else:
                job.undone, job.result = True, None
                self._waiting.appendleft(job)
        if connection.failure:
            connection.discard()
        else:
            self._send()

    def _leave_out(self, job: _Job) -> None:
        job.leave_out()
        self.alone += 1

    def _note_failed(self, connection: PooledConnection, batch: _Batch, job: _Job, result: PGresult) -> None:
        error = psycopg.errors.error_from_result(result)
        # A statement that was prepared in this batch has not gone stale: the server cannot run it.
        is_unsupported = isinstance(error, FeatureNotSupported) and batch.prepares(job.statement)
        if isinstance(error, _USELESS) and not is_unsupported:
            connection.failure = str(error)
        elif is_unsupported or isinstance(error, LockNotAvailable | QueryCanceled):
            key = job.locked if isinstance(error, LockNotAvailable) else job.statement.name
            if len(self._aside) >= _MAX_ASIDE:
                self._aside.clear()
            if key:
                self._aside[key] = asyncio.get_running_loop().time() + _ASIDE_SECONDS

    def _is_aside(self, job: _Job) -> bool:
        for key in (job.locked, job.statement.name):
            until = self._aside.get(key)
            if until is not None and until > asyncio.get_running_loop().time():
                return True
            if until is not None:
                del self._aside[key]
        return False


class Lanes(NamedTuple):
    """The lanes of one process."""

    reads: Lane
    writes: Lane
