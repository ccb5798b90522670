"""PostgreSQL connections of one process: a fixed number, each used by one call at a time, handed over in order.

psycopg makes the connections, and cancels on them; the rest is done here on libpq (`psycopg.pq`), because a call that
takes 0.1 ms in all has no time for locks, tasks and pollers. The event loop watches each socket as long as the
connection lives, so that one which the server ended while idle is replaced before anyone needs it.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

_CANCEL_SECONDS = 5.0
_CANCEL_AGAIN_SECONDS = 0.1
_CONNECT_SECONDS = 5
# Pauses between attempts to connect grow from the first to the second.
_RECONNECT_SECONDS = (0.1, 5.0)

_log = structlog.get_logger()


class PoolTimeoutError(Exception):
    """No connection became free in time."""


class PooledConnection(psycopg.AsyncConnection[Any]):
    """A connection whose socket the event loop watches from `watch` to `discard`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Names of the statements that are prepared on the server, and of the one that is being prepared.
        self.prepared: set[bytes] = set()
        self.preparing: bytes | None = None
        self._loop = asyncio.get_running_loop()
        self._socket = -1
        self._waiter: asyncio.Future[None] | None = None
        self._ended: Callable[[PooledConnection], None] | None = None

    def watch(self, ended: Callable[["PooledConnection"], None]) -> None:
        """Watch the socket; `ended` is called when the server ends the connection while no call uses it."""
        self._ended = ended
        self._socket = self.pgconn.socket
        self._loop.add_reader(self._socket, self._readable)

    def discard(self) -> None:
        """Close it at once, whatever it is doing."""
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = -1
        self.pgconn.finish()
        if self._waiter is not None:
            _wake(self._waiter)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._socket < 0 or self.pgconn.status != ConnStatus.OK

    async def result(self) -> PGresult:
        """The outcome of what was sent. Raises psycopg.Error.

        Cancelled, it leaves at once, and the connection busy: `settle` it before anything else.
        """
        result = (await self._results())[-1]
        self._note_prepared(result)
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
        return result

    async def results(self) -> list[PGresult]:
        """The outcomes of all that was sent in pipeline mode up to a sync; ends the mode. Raises psycopg.Error."""
        results = await self._results()
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        return results

    async def command(self, sql: bytes) -> None:
        """Run SQL without parameters or rows, such as BEGIN. Raises psycopg.Error."""
        self.pgconn.send_query(sql)
        await self.result()

    async def settle(self) -> None:
        """Leave the connection idle after a call that was cancelled or failed: no statement running, nothing open.

        Raises psycopg.Error, and TimeoutError when the server does not end the statement.
        """
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._cancel()
        if self.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            await self.command(b"ROLLBACK")

    async def _cancel(self) -> None:
        while self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            await self.cancel_safe(timeout=_CANCEL_SECONDS)
            # A cancel that arrives before the statement does nothing: then once more.
            try:
                async with asyncio.timeout(_CANCEL_AGAIN_SECONDS):
                    results = await self._results()
            except TimeoutError:
                if self.preparing is not None:
                    raise  # half a result may be lost: was it prepared or not?
            else:
                # The statement may have ended before it could be cancelled: then what it prepared is there.
                if results:
                    self._note_prepared(results[-1])

    def _note_prepared(self, result: PGresult) -> None:
        if self.preparing is not None and result.status != ExecStatus.FATAL_ERROR:
            self.prepared.add(self.preparing)
        self.preparing = None

    async def _results(self) -> list[PGresult]:
        pgconn = self.pgconn
        results: list[PGresult] = []
        pipelined = pgconn.pipeline_status != PipelineStatus.OFF
        if pgconn.flush():
            await self._flush()
        while True:
            while pgconn.is_busy():
                self._waiter = self._loop.create_future()
                await self._waiter
            if self.is_lost:
                raise psycopg.OperationalError("the connection was lost")
            result = pgconn.get_result()
            if result is None:
                # In pipeline mode None separates the results of statements.
                if not pipelined:
                    return results
            elif result.status == ExecStatus.PIPELINE_SYNC:
                pgconn.exit_pipeline_mode()
                return results
            else:
                results.append(result)

    async def _flush(self) -> None:
        while self.pgconn.flush():
            self._waiter = writable = self._loop.create_future()
            self._loop.add_writer(self._socket, _wake, writable)
            try:
                await writable
            finally:
                self._waiter = None
                if not self.is_lost:
                    self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            self.pgconn.consume_input()
        except psycopg.OperationalError:
            self.discard()
        if self._waiter is not None:
            if self.is_lost or not self.pgconn.is_busy():
                _wake(self._waiter)
                self._waiter = None
        elif self.is_lost and self._ended is not None:
            self._ended(self)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class Pool:
    """The pool of one process."""

    def __init__(
        self, url: str, size: int, options: Mapping[str, Any], configure: Callable[[PooledConnection], None]
    ) -> None:
        try:
            self._options = {"connect_timeout": _CONNECT_SECONDS, **conninfo_to_dict(url), **options}
        except psycopg.ProgrammingError:
            # libpq quotes the whole of it, and the password with it.
            raise psycopg.ProgrammingError("TICKETS_DATABASE_URL is not a libpq connection string") from None
        self._size = size
        self._configure = configure
        # Taken from the end, so that the one used last, which is warm, is used next.
        self._idle: list[PooledConnection] = []
        # Given back in another state than idle, and on the way to it.
        self._settling: set[PooledConnection] = set()
        self._waiting: deque[asyncio.Future[PooledConnection]] = deque()
        # Connecting, or settling a connection that was given back busy.
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def open(self) -> None:
        """Start connecting; does not wait, so that a service can start before its database."""
        for _ in range(self._size):
            self._start(self._connect())

    async def close(self) -> None:
        """Close every connection: the idle ones now, the others when they are given back."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Those that settle too: a task that was cancelled before it began has done nothing.
        for connection in (*self._idle, *self._settling):
            connection.discard()
        self._idle.clear()
        self._settling.clear()

    async def take(self, seconds: float) -> PooledConnection:
        """A connection, the caller's until it is given back. Raises PoolTimeoutError after so many seconds."""
        if self._idle:
            return self._idle.pop()
        waiter: asyncio.Future[PooledConnection] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiter.cancelled():
                self._waiting.remove(waiter)
            else:  # a connection arrived at the same moment
                self.give_back(waiter.result())
            if isinstance(error, TimeoutError):
                raise PoolTimeoutError from None
            raise

    def give_back(self, connection: PooledConnection) -> None:
        """Take a connection back, in whatever state a call left it."""
        if connection.pgconn.transaction_status == TransactionStatus.IDLE and not self._closed:
            self._hand_over(connection)
        else:
            # In a task of its own: a call may be cancelled more than once.
            self._settling.add(connection)
            self._start(self._settle(connection))

    def _hand_over(self, connection: PooledConnection) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                self._waiting.remove(waiter)
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    async def _settle(self, connection: PooledConnection) -> None:
        try:
            await connection.settle()
        except (psycopg.Error, TimeoutError):
            connection.discard()
        self._settling.discard(connection)
        if not self._closed and not connection.is_lost:
            self._hand_over(connection)
            return
        connection.discard()
        if not self._closed:
            await self._connect()

    async def _connect(self) -> None:
        pause, longest = _RECONNECT_SECONDS
        while True:
            try:
                connection = await PooledConnection.connect(**self._options)
            except psycopg.Error as error:
                _log.warning("database", outcome="unavailable", error=type(error).__name__)
            else:
                self._configure(connection)
                connection.watch(self._replace)
                self._hand_over(connection)
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads attempts, guards nothing
            pause = min(2 * pause, longest)

    def _replace(self, connection: PooledConnection) -> None:
        """Replace an idle connection that the server ended."""
        with suppress(ValueError):
            self._idle.remove(connection)
            self._start(self._connect())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
