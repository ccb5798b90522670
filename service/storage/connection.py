"""One PostgreSQL connection, on libpq itself (`psycopg.pq`).

psycopg makes the connection, and cancels on it; the rest is done here, because a call that takes 0.1 ms in all has no
time for locks, tasks and pollers. The event loop watches the socket as long as the connection lives, so that one which
the server ended while idle is replaced before anyone needs it.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

# For a connection that is given back busy: until then the server must have ended what it runs.
_SETTLE_SECONDS = 2.0
_CANCEL_AGAIN_SECONDS = 0.1


class Reader:
    """Reads the rows of one statement on one connection: how each column is read is looked up but once."""

    __slots__ = ("_is_set", "_keeps", "_transformer")

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, keeps: bool = True) -> None:
        """One that `keeps` nothing is for any statement."""
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
        # The statements that are prepared on the server, each with what reads its rows; and the one being prepared.
        self.prepared: dict[bytes, Reader] = {}
        self.preparing: bytes | None = None
        # The pool's notes: whether someone has taken it, for a write, and who.
        self.in_use = self.writes = False
        self.owner: object = None
        # What writes values; one for all statements, as it looks up how for each type but once.
        self.transformer = Transformer(self)
        # What reads the rows of statements that are not prepared.
        self.reader = Reader(self, keeps=False)
        # Why it was lost, in the words of the server or of libpq.
        self.failure = ""
        self._loop = asyncio.get_running_loop()
        self._socket = -1
        self._poll = select.poll()
        self._waiter: asyncio.Future[None] | None = None
        # By the loop's clock: since when an answer is waited for, if one is.
        self._since: float | None = None
        # Whether the server was found silent on another one, and this one has heard nothing since.
        self.is_doubtful = False
        # Of a lane: called whenever something has arrived, and when the connection is lost; how long it may be silent.
        self._follower: Callable[[], None] | None = None
        self.patience: float | None = None
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

    def follow(self, follower: Callable[[], None], patience: float) -> None:
        """Call `follower` whenever something has arrived, and when the connection is lost: it reads the results.

        An answer that does not come for `patience` seconds is one that never will.
        """
        self._follower, self.patience = follower, patience

    def expect(self, *, answer: bool) -> None:
        """Note whether an answer is waited for, from now on."""
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
        """Whether an answer has been waited for so long, and nothing has arrived."""
        if self._since is None or self.is_lost:
            return False
        # When this process stood still, the answer is there, though the clock says that it is late.
        return self._loop.time() - self._since >= seconds and not self.has_input

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

    async def forget(self) -> None:
        """Have each statement prepared anew: the schema has changed under one. Raises psycopg.Error."""
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
            # The loop may never call again: libuv stops watching a socket once it has an error. What has arrived is
            # read before the error is, a piece at a time.
            while self._poll.poll(0):
                self.pgconn.consume_input()
        except psycopg.OperationalError as error:
            self.failure = str(error)
            self.discard()
            if self._follower is not None:
                return  # it was told
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
