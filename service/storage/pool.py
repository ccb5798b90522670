"""PostgreSQL connections of one process: a fixed number, each used by one call at a time, handed out in order.

Writes leave some of them to reads, and one owner leaves some to others (waiting.py). A ping tells a server that is
silent from one that is busy: the connections to a silent one are closed, and new ones are made, to another server where
the URL names more than one. Where the network has lost a statement, the server says that it does not run it.
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from service.storage.connection import PooledConnection
from service.storage.pooler import Pooler
from service.storage.waiting import OWNER, ConnectionQueue, Waiting

# Options of libpq where the URL has no others: a network that drops every packet is noticed within five seconds.
_DEFAULTS = {
    "connect_timeout": 2,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
# A limit beyond `connect_timeout`, which is for each address and excludes name resolution.
_CONNECT_SECONDS = 10.0
# How long to wait for an attempt to connect before the next one begins.
_ATTEMPT_SECONDS = 1.0
# Pauses between attempts to connect grow from the first to the second.
_RECONNECT_SECONDS = (0.1, 1.0)
# A ping that takes longer means that the server is silent.
_PING_SECONDS = 1.5
# How long a ping waits for an idle connection, before the server is asked on a new one.
_IDLE_SECONDS = 0.5
# When the server is silent, statements that have waited for this long are given up.
_SILENT_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_MAX_REASON_LENGTH = 300
_SILENT = "the server does not answer"

_log = structlog.get_logger()


class NoConnectionError(Exception):
    """There is no connection, or none became free in time."""


class Usage(NamedTuple):
    """How many connections are idle and in use, and how many wait for one."""

    idle: int
    in_use: int
    waiting: int


class Pool:
    """The pool of one process."""

    def __init__(
        self,
        url: str,
        size: int,
        options: Mapping[str, Any],
        configure: Callable[[PooledConnection], None],
        longest: float,
        kept: int = 0,
        name: str = "database",
    ) -> None:
        """A statement that takes longer than `longest` seconds has lost its connection.

        `kept` of the connections are taken for good, by the lanes. `name` is for the log.
        """
        self._name = name
        self._options = {**_DEFAULTS, **conninfo_to_dict(url), **options}  # Settings has checked the URL
        self._size = size
        self._queue = ConnectionQueue(size - kept)
        self._pooler = Pooler()
        self._configure = configure
        self._longest = longest
        # All connections: idle, in use, or being settled after they were given back busy.
        self._connections: set[PooledConnection] = set()
        # They are taken from the end, so that the one used last, which is warm, is used next.
        self._idle: deque[PooledConnection] = deque()
        # Which of the servers that the URL names is tried first, and which is tried next while none can be reached.
        self._first = 0
        self._is_away = False
        self._turns = itertools.count(1)
        self._filling: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def open(self) -> None:
        """Start connecting; does not wait, so that a service can start before its database."""
        self._refill()
        self._start(self._look())

    async def close(self) -> None:
        """Close every connection: the idle ones now, the others when they are given back."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Connections that are being settled are closed too, as their tasks are cancelled.
        for connection in [one for one in self._connections if not one.in_use]:
            self._drop(connection)
        self._idle.clear()

    async def take(self, seconds: float, *, writes: bool = False) -> PooledConnection:
        """A connection, the caller's until it is given back. Raises NoConnectionError after `seconds`.

        That is raised at once when there is no connection and the last attempt to make one failed.
        """
        owner = OWNER.get()
        if self._idle and self._queue.admits(owner, writes=writes):
            connection = self._idle.pop()
            self._queue.mark(connection, owner, writes=writes)
            return connection
        if self._is_away and not self._connections:
            raise NoConnectionError
        waiter: asyncio.Future[PooledConnection] = asyncio.get_running_loop().create_future()
        waiting = Waiting(owner, writes, waiter)
        self._queue.add(waiting)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiter.cancelled():
                self._queue.discard(waiting)
            elif waiter.exception() is None:  # a connection arrived at the same moment
                self.give_back(waiter.result())
            if isinstance(error, TimeoutError):
                raise NoConnectionError from None
            raise

    def give_back(self, connection: PooledConnection) -> None:
        """Take a connection back, in whatever state a call left it."""
        self._queue.unmark(connection)
        if connection.pgconn.transaction_status == TransactionStatus.IDLE and not self._closed:
            self._idle.append(connection)
        elif connection.is_lost:
            self._lose(connection)
        else:
            # It is settled in a task of its own: a call may be cancelled more than once.
            self._start(self._settle(connection))
        if self._queue:
            self._serve()

    def renew(self) -> None:
        """Replace the idle connections, whose server may not be the one to use: another one is tried first."""
        self._first += 1
        while self._idle:
            self._drop(self._idle.pop())
        self._refill()

    def usage(self) -> Usage:
        """How many connections there are, and how many calls wait for one."""
        idle = len(self._idle)
        return Usage(idle, len(self._connections) - idle, len(self._queue))

    async def answers(self) -> bool:
        """Whether the server answers right now. If it is silent, its connections are given up."""
        # Asked on the connection that has been idle for longest, so that each has its turn.
        if not self._idle:
            try:
                return await self._ping(await self.take(_IDLE_SECONDS if self._connections else _PING_SECONDS))
            except NoConnectionError:
                return await self._answers_anew()
        connection = self._idle.popleft()
        self._queue.mark(connection, None, writes=False)
        return await self._ping(connection)

    def _serve(self) -> None:
        """Hand idle connections to the calls that wait."""
        while self._idle and (waiting := self._queue.pop()) is not None:
            if not waiting.waiter.done():
                connection = self._idle.pop()
                self._queue.mark(connection, waiting.owner, writes=waiting.writes)
                waiting.waiter.set_result(connection)

    async def _ping(self, connection: PooledConnection) -> bool:
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._ask(connection)
        except TimeoutError:
            if not connection.is_lost and not connection.has_input:
                connection.failure = _SILENT
                connection.discard()
                self._distrust()
            return False
        except psycopg.Error:
            return False
        else:
            return True
        finally:
            self.give_back(connection)

    async def _answers_anew(self) -> bool:
        """Ask the server on a new connection, because all there are have been in use for a while."""
        in_use = next((one for one in self._connections if not one.is_lost), None)
        if in_use is None:
            return False
        # It must be the same server, where the URL names several.
        named = {name: value.decode() or None for name, value in _server(in_use).items()}
        try:
            async with asyncio.timeout(_PING_SECONDS):
                connection = await PooledConnection.connect(**{**self._options, **named, "target_session_attrs": "any"})
                connection.watch(PooledConnection.discard)
                try:
                    await self._ask(connection)
                finally:
                    connection.discard()
        except (TimeoutError, psycopg.errors.ConnectionTimeout):
            self._distrust()
            return False
        except psycopg.Error:
            return True  # it refused, so it answers
        return True

    async def _ask(self, connection: PooledConnection) -> None:
        """Ask the server for anything, and whether it runs what it has not answered. Raises psycopg.Error.

        A statement that it does not run never reached it, or its answer is lost: then nothing more comes on that
        connection, though the server answers on others.
        """
        server = _server(connection)
        silent = [one for one in self._connections if one.is_silent(_SILENT_SECONDS) and _server(one) == server]
        at_work = await connection.at_work([one.pid for one in silent])
        for one in silent:
            # Its answer may be on the way: `_look` closes it if none has arrived by then.
            one.is_doubtful = one.is_doubtful or one.pid not in at_work

    def _distrust(self) -> None:
        """Close the connections to a server that is silent.

        Those on which a statement has just begun are given another second: the server may have come back.
        """
        self._warn(_SILENT)
        self._first += 1
        for connection in [*self._connections]:
            if connection.is_silent(_SILENT_SECONDS) or connection.is_idle_lane:
                connection.failure = _SILENT
                connection.discard()
            else:
                connection.is_doubtful = True
        while self._idle:
            self._drop(self._idle.pop())
        self._refill()

    async def _look(self) -> None:
        """Again and again, close connections whose server has not answered a statement in time."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for connection in [*self._connections]:
                longest = self._longest if connection.longest is None else connection.longest
                if connection.is_doubtful:
                    longest = min(longest, _SILENT_SECONDS)
                if connection.is_silent(longest):
                    connection.failure = f"no answer within {longest:g} seconds"
                    connection.discard()
            self._refill()

    async def _settle(self, connection: PooledConnection) -> None:
        try:
            await connection.settle()
        except (psycopg.Error, TimeoutError) as error:
            connection.failure = connection.failure or str(error) or "the server does not end a statement"
            connection.discard()
        if self._closed or connection.is_lost:
            self._lose(connection)
        else:
            self._idle.append(connection)
            self._serve()

    def _ended(self, connection: PooledConnection) -> None:
        """A connection was ended by its server. One that is in use is given back first."""
        if not connection.in_use:
            self._lose(connection)

    def _lose(self, connection: PooledConnection) -> None:
        if connection in self._connections and not self._closed:
            self._warn(connection.failure or "a connection was lost")
        with suppress(ValueError):
            self._idle.remove(connection)
        self._drop(connection)
        self._refill()

    def _drop(self, connection: PooledConnection) -> None:
        self._connections.discard(connection)
        connection.discard()

    def _refill(self) -> None:
        is_whole = len(self._connections) == self._size
        if not (self._closed or is_whole or (self._filling is not None and not self._filling.done())):
            self._filling = self._start(self._fill())

    async def _fill(self) -> None:
        shortest, longest = _RECONNECT_SECONDS
        pause = shortest
        while missing := self._size - len(self._connections):
            # While the database is unavailable, one connection is tried at a time, each with another server first.
            servers = [next(self._turns)] if self._is_away else [self._first] * missing
            attempts = [self._start(self._connect(server)) for server in servers]
            _, hanging = await asyncio.wait(attempts, timeout=_ATTEMPT_SECONDS)
            if hanging and not self._connections:
                # These attempts go on, while the next one may reach a server that is back.
                self._is_away = True
                self._refuse_all()
            elif self._is_away:
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads attempts, guards nothing
                pause = min(2 * pause, longest)
            else:
                pause = shortest

    async def _connect(self, server: int) -> None:
        """Add a connection to a server of those that the URL names, counted from 0, or to the next that accepts it."""
        options = _from_server(self._options, server)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await PooledConnection.connect(**options)
                await self._pooler.begin(connection, options)
        except (psycopg.Error, OSError) as error:
            self._is_away = True
            self._warn(str(error) or type(error).__name__)
            if not self._connections:
                self._refuse_all()
            return
        if self._closed or len(self._connections) >= self._size:
            connection.discard()
            return
        if self._is_away:
            self._is_away = False
            _log.info(self._name, outcome="available")
        if connection.pgconn.host.decode() == str(options.get("host") or "").partition(",")[0]:
            # This server accepted: it is tried first from now on, as another one may hang.
            self._first = server
        self._configure(connection)
        connection.watch(self._ended)
        self._connections.add(connection)
        self._idle.append(connection)
        self._serve()

    def _refuse_all(self) -> None:
        for waiting in self._queue.pop_all():
            if not waiting.waiter.done():
                waiting.waiter.set_exception(NoConnectionError())

    def _warn(self, why: str) -> None:
        password = self._options.get("password")
        # libpq does not quote the password, and no other library's message may either.
        if password and str(password) in why:
            why = "unknown"
        _log.warning(self._name, outcome="unavailable", error=" ".join(why.split())[:_MAX_REASON_LENGTH])

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _server(connection: PooledConnection) -> dict[str, bytes]:
    """The server that a connection reaches, as options of libpq."""
    pgconn = connection.pgconn
    return {"host": pgconn.host, "hostaddr": pgconn.hostaddr, "port": pgconn.port}


def _from_server(options: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The options with another order of the servers that they name."""
    rotated = dict(options)
    for name in ("host", "hostaddr", "port"):
        one_each = str(options.get(name) or "").split(",")
        start = number % len(one_each)
        if start:
            rotated[name] = ",".join(one_each[start:] + one_each[:start])
    return rotated
