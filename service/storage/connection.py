"""One PostgreSQL connection, on libpq itself (`psycopg.pq`).

psycopg makes the connection, and cancels on it; the rest is done here, because a statement takes 0.1 ms in all, which
leaves no time for psycopg's locks, tasks and pollers. The event loop watches the socket as long as the connection
lives, so that a connection that the server ends while it is idle is replaced before a call needs it.
"""

import asyncio
import select
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

# How long the server may take to end the statement of a connection that is given back busy.
_SETTLE_SECONDS = 2.0
_CANCEL_AGAIN_SECONDS = 0.1
_PING = b"SELECT 1"
# Which of these processes of the server run a statement. Where the server does not track that, all that there are.
_AT_WORK = b"SELECT pid FROM pg_stat_activity WHERE pid = ANY($1::int[]) AND state NOT LIKE 'idle%'"


class Reader:
    """Reads the rows of one statement on one connection, and looks the loaders of its columns up once."""

    __slots__ = ("_is_set", "_keeps", "_transformer")

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, keeps: bool = True) -> None:
        """With `keeps=False` the loaders are looked up each time, for any statement."""
        self._transformer = Transformer(connection)
        self._keeps = keeps
        self._is_set = False

    def rows(self, result: PGresult) -> list[tuple[Any, ...]]:
        """The rows of a result."""
        transformer = self._transformer
        transformer.set_pgresult(result, set_loaders=not self._is_set)
        self._is_set = self._keeps
        rows = transformer.load_rows(0, result.ntuples, tuple)
        transformer.set_pgresult(None, set_loaders=False)  # it is not kept
        return rows


class PooledConnection(psycopg.AsyncConnection[Any]):
    """A connection whose socket the event loop watches from `watch` to `discard`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # The statements that are prepared on the server, each with its Reader; and the one being prepared.
        self.prepared: dict[bytes, Reader] = {}
        self.preparing: bytes | None = None
        # Set by the pool: whether it is in use, whether for a write, and by which owner's call.
        self.in_use = self.writes = False
        self.owner: object = None
        # The process of the server that serves it; set by the pooler's check.
        self.pid = 0
        # Writes parameters; one for all statements, as it looks the dumper of each type up once.
        self.transformer = Transformer(self)
        # Reads the rows of statements that are not prepared.
        self.reader = Reader(self, keeps=False)
        # Why it was lost, in the words of the server or of libpq.
        self.failure = ""
        self._loop = asyncio.get_running_loop()
        self._socket = -1
        self._poll = select.poll()
        self._waiter: asyncio.Future[None] | None = None
        # Since when an answer is waited for, by the loop's clock; None when none is.
        self._since: float | None = None
        # Whether the server was found silent on another connection, and nothing has arrived on this one since.
        self.is_doubtful = False
        # Set on a lane's connection: called whenever something has arrived, and when the connection is lost; and how
        # many seconds an answer may take.
        self._follower: Callable[[], None] | None = None
        self.longest: float | None = None
        self._ended: Callable[[PooledConnection], None] | None = None

    def watch(self, ended: Callable[["PooledConnection"], None]) -> None:
        """Watch the socket; `ended` is called when the server ends the connection while no call uses it."""
        self._ended = ended
        self._socket = self.pgconn.socket
        self._poll.register(self._socket, 0)  # errors and hang-ups, which need not be asked for
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
        if self._follower is not None:
            self._follower()

    def follow(self, follower: Callable[[], None], longest: float) -> None:
        """Call `follower` whenever something has arrived, and when the connection is lost: it reads the results.

        An answer that does not come for `longest` seconds is one that never will.
        """
        self._follower, self.longest = follower, longest

    def expect(self, *, answer: bool) -> None:
        """Record whether an answer is expected from now on."""
        self._since = self._loop.time() if answer else None

    def flush(self) -> None:
        """Send what is not sent yet, now and as the server takes it."""
        if self.pgconn.flush():
            self._loop.add_writer(self._socket, self._writable)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._socket < 0 or self.pgconn.status != ConnStatus.OK

    @property
    def has_input(self) -> bool:
        """Whether something has arrived that is still to be read."""
        arrived = select.poll()
        arrived.register(self._socket, select.POLLIN)
        return bool(arrived.poll(0))

    @property
    def is_idle_lane(self) -> bool:
        """Whether it is a lane's, and nothing is waited for."""
        return self._follower is not None and self._since is None

    def is_silent(self, seconds: float) -> bool:
        """Whether an answer has been expected for `seconds`, and nothing has arrived."""
        if self._since is None or self.is_lost:
            return False
        # After a pause of this process the answer may have arrived in time, and not be read yet.
        return self._loop.time() - self._since >= seconds and not self.has_input

    async def result(self) -> PGresult:
        """The outcome of what was sent. Raises psycopg.Error.

        When it is cancelled, it returns at once and leaves the connection busy: `settle` it before anything else.
        """
        result = (await self._results())[-1]
        self._note_prepared(result)
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
        return result

    async def results(self) -> list[PGresult]:
        """The outcomes of everything sent in pipeline mode up to a Sync; ends that mode. Raises psycopg.Error."""
        results = await self._results()
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        return results

    async def command(self, sql: bytes) -> None:
        """Run SQL without parameters or rows, such as BEGIN. Raises psycopg.Error."""
        self.pgconn.send_query(sql)
        await self.result()

    async def at_work(self, pids: Sequence[int]) -> set[int]:
        """Those of some processes of the server that run a statement. Raises psycopg.Error."""
        if not pids:
            await self.command(_PING)
            return set()
        self.pgconn.send_query_params(_AT_WORK, [f"{{{','.join(map(str, pids))}}}".encode()])
        return {pid for (pid,) in self.reader.rows(await self.result())}

    async def forget(self) -> None:
        """Drop all prepared statements, because the schema has changed under one. Raises psycopg.Error."""
        await self.settle()
        self.prepared.clear()
        await self.command(b"DEALLOCATE ALL")

    async def settle(self) -> None:
        """Leave the connection idle after a call that was cancelled or failed: no statement running, nothing open.

        Raises psycopg.Error, and TimeoutError when the server does not end the statement.
        """
        async with asyncio.timeout(_SETTLE_SECONDS):
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await self._cancel()
            if self.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                await self.command(b"ROLLBACK")

    async def _cancel(self) -> None:
        while self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            await self.cancel_safe(timeout=_SETTLE_SECONDS)
            # A cancel request that arrives before the statement has no effect, and is sent again.
            try:
                async with asyncio.timeout(_CANCEL_AGAIN_SECONDS):
                    results = await self._results()
            except TimeoutError:
                if self.preparing is not None:
                    raise  # whether it was prepared is unknown
            else:
                # The statement may have ended before it was cancelled: then it is prepared.
                if results:
                    self._note_prepared(results[-1])

    def _note_prepared(self, result: PGresult) -> None:
        if self.preparing is not None and result.status != ExecStatus.FATAL_ERROR:
            self.note_prepared(self.preparing)
        self.preparing = None

    def note_prepared(self, name: bytes) -> None:
        """The server has prepared a statement."""
        self.prepared[name] = Reader(self)

    async def _results(self) -> list[PGresult]:
        self.expect(answer=True)
        try:
            return await self._read_results()
        finally:
            self.expect(answer=False)

    async def _read_results(self) -> list[PGresult]:
        pgconn = self.pgconn
        results: list[PGresult] = []
        pipelined = pgconn.pipeline_status != PipelineStatus.OFF
        if pgconn.flush():
            await self._flush()
        while True:
            while pgconn.is_busy():
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
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

    def _writable(self) -> None:
        try:
            if not self.pgconn.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.OperationalError as error:
            self.failure = str(error)
            self.discard()

    def _readable(self) -> None:
        self.is_doubtful = False
        try:
            self.pgconn.consume_input()
            # The loop may never call again, as libuv stops watching a socket with an error. libpq reads a piece at a
            # time, and meets the error only after all that has arrived.
            while self._poll.poll(0):
                self.pgconn.consume_input()
        except psycopg.OperationalError as error:
            self.failure = str(error)
            self.discard()
            if self._follower is not None:
                return  # `discard` has called it
        if self._follower is not None:
            self._follower()
        elif self._waiter is not None:
            if self.is_lost or not self.pgconn.is_busy():
                _wake(self._waiter)
        elif self.is_lost and self._ended is not None:
            self._ended(self)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
