"""The Postgres boundary: pooled connections, transactions, driver errors translated."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import psycopg
from psycopg import errors as pg
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format
from sqlalchemy import MetaData
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from service.errors import TicketError
from service.jsontext import JsonText
from service.settings import Settings
from service.storage.connection import PooledConnection
from service.storage.lanes import Lane, Lanes
from service.storage.pool import NoConnectionError, Pool, Usage
from service.storage.statement import Row, Statement

if TYPE_CHECKING:
    from service.storage.standby import Standby

_POOL_TIMEOUT_SECONDS = 3.0
# One lane is for reads and one for writes; a pool of fewer connections than the other number has none.
_LANES = 2
_MIN_SIZE_WITH_LANES = 4
# After this time the server ends an idle transaction: it would hold locks, and hold back the events of all watches. No
# operation waits that long between two statements.
_IDLE_MILLISECONDS = 5000
# The server's side of the keepalives that the pool sets for libpq.
_SERVER_KEEPALIVES = (
    "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3 -c tcp_user_timeout=5000"
)
# How much later than the server's own limit a statement is given up.
_MARGIN_SECONDS = 2.0
_LOCKED = "Another change holds what this one needs; retry later"
_XID8_OID, _PG_LSN_OID = 5069, 3220
_BEGIN = (b"BEGIN",)
_BEGIN_WITHOUT_LOCK_TIMEOUT = (b"BEGIN", b"SET LOCAL lock_timeout = 0")


class Xid8(UserDefinedType[int]):
    """PostgreSQL's transaction id of 64 bits, by which readers of events order them (events.py)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in DDL."""
        return "xid8"


# Alembic recognises the type by this when it compares a database with the tables.
ischema_names["xid8"] = Xid8


class ConstraintViolationError(Exception):
    """A constraint without a public error rejected a write; `name` is the constraint's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class RefusedValueError(Exception):
    """PostgreSQL rejected, with this SQLSTATE, a value that the bounds of the commands let pass."""


class UnsupportedStatementError(Exception):
    """The server cannot run a statement, whatever its values; says which, and why in the server's words."""

    def __init__(self, statement: Statement, error: psycopg.Error) -> None:
        where = f"{statement.timing.module}.{statement.timing.function}".removeprefix("service.").strip(".")
        super().__init__(f"A statement of {where} is not supported: {error.diag.message_primary}")


class Connection(Protocol):
    """What an operation runs its statements on. The statement with `commit=True` commits them all."""

    # Whether what a statement locks stays locked until the operation ends.
    holds_locks: ClassVar[bool]

    async def all(
        self,
        statement: Statement,
        parameters: Mapping[str, Any],
        *,
        commit: bool = False,
        lock: Statement | None = None,
    ) -> list[Row]:
        """Every row. `lock` is a statement that runs just before, only to lock rows. Raises as `one`."""

    async def one(self, statement: Statement, parameters: Mapping[str, Any], *, commit: bool = False) -> Row | None:
        """The first row, or None. Raises TicketError and ConstraintViolationError."""
        rows = await self.all(statement, parameters, commit=commit)
        return rows[0] if rows else None


class Database(Connection):
    """The pool of one process. As a Connection it commits each statement by itself, in one round trip."""

    holds_locks: ClassVar[bool] = False

    def __init__(self, settings: Settings, metadata: MetaData) -> None:
        self._kept = _LANES if settings.pool_size >= _MIN_SIZE_WITH_LANES else 0
        self._constraints: dict[str, tuple[str, str]] = {
            str(constraint.name): constraint.info["error"]
            for table in metadata.tables.values()
            for constraint in table.constraints
            if "error" in constraint.info
        }
        self._pool = pool_of(settings, settings.database_url, self._kept)
        # For short statements; None for work that waits for locks, and in a small pool.
        self.lanes: Lanes | None = None
        # Where statements that say so may run, if there is one; None for background work too.
        self.standby: Standby | None = None
        # How many statements have been answered, which shows that background work makes progress.
        self.answered = 0
        # What goes before a transaction's first statement, and around a statement that is a transaction by itself.
        self._begin: Sequence[bytes] = _BEGIN
        self._single: Sequence[bytes] = ()

    async def open(self) -> None:
        """Start connecting; does not wait, so that a service can start before its database."""
        self._pool.open()
        if self._kept:
            self.lanes = Lanes(Lane(self._pool, writes=False), Lane(self._pool, writes=True))
        for lane in self.lanes or ():
            lane.open()
        if self.standby is not None:
            self.standby.open()

    async def close(self) -> None:
        """Give back every connection."""
        if self.standby is not None:
            await self.standby.close()
        await self._pool.close()
        for lane in self.lanes or ():
            await lane.close()

    def without_lock_timeout(self) -> "Database":
        """The same pool for work that nobody waits for: it may wait for locks as long as a statement may take.

        It uses no lane and no standby, and counts its own answers.
        """
        background = copy(self)
        background.answered = 0
        background.lanes = background.standby = None
        background._begin = background._single = _BEGIN_WITHOUT_LOCK_TIMEOUT
        return background

    def usage(self) -> Usage:
        """How many connections there are, and how many calls wait for one."""
        return self._pool.usage()

    async def answers(self) -> bool:
        """Whether the database answers right now. If it is silent, the pool makes new connections."""
        return await self._pool.answers()

    async def all(
        self,
        statement: Statement,
        parameters: Mapping[str, Any],
        *,
        commit: bool = False,
        lock: Statement | None = None,
    ) -> list[Row]:
        """Every row. Raises TicketError and ConstraintViolationError."""
        if self.standby is not None and statement.is_for_standby:
            found = await self.standby.run(statement, parameters)
            if found is not None:
                self.answered += 1
                return found
        if statement.is_short and self.lanes is not None:
            lane = self.lanes.writes if statement.writes else self.lanes.reads
            begun = perf_counter()
            try:
                found = await lane.run(statement, parameters, lock)
            except psycopg.Error as error:
                raise self.translate(error) from None
            if found is not None:
                self.answered += 1
                statement.timing.add(perf_counter() - begun)
                return found
        rows = await self._alone(statement, parameters, lock)
        self.answered += 1
        return rows

    async def _alone(self, statement: Statement, parameters: Mapping[str, Any], lock: Statement | None) -> list[Row]:
        """Every row, on a connection of the pool."""
        connection = await self._take(writes=statement.writes)
        single = self._single
        run = partial(statement.run, connection, parameters, begin=single, commit=bool(single), lock=lock)
        try:
            try:
                return await run()
            except pg.FeatureNotSupported:
                # The schema has changed since it was prepared, and it has not run; or the server cannot run it at all.
                await connection.forget()
                return await run()
        except pg.FeatureNotSupported as error:
            # A prepared statement of it may be left on this connection.
            _discard(connection)
            raise UnsupportedStatementError(statement, error) from None
        except psycopg.Error as error:
            # Raised without its cause: the driver's message may quote the row.
            raise self.translate(error, connection) from None
        finally:
            self._pool.give_back(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside BEGIN … COMMIT, rolled back when the operation raises."""
        connection = await self._take(writes=True)
        transaction = _Transaction(connection, self, self._begin)
        try:
            yield transaction
            await transaction.commit()
        finally:
            self._pool.give_back(connection)

    def translate(self, error: psycopg.Error, connection: PooledConnection | None = None) -> Exception:
        """Translate a driver error: a TicketError where it may be reported to the caller.

        A connection that such an error makes useless is closed.
        """
        if isinstance(error, pg.IntegrityError):
            name = error.diag.constraint_name or ""
            if name in self._constraints:
                return TicketError(*self._constraints[name])
            return ConstraintViolationError(name)
        if isinstance(error, pg.FeatureNotSupported | pg.InvalidSqlStatementName):
            # The schema changed under a prepared statement, which has not run: the pool makes a new connection.
            _discard(connection)
            return TicketError("unavailable", retry_after=1, begun=False)
        if isinstance(error, pg.ReadOnlySqlTransaction):
            # The server is a standby now: the URL may name another one, which has taken over.
            _discard(connection)
        if isinstance(error, pg.LockNotAvailable):
            return TicketError("unavailable", _LOCKED, retry_after=1)
        if isinstance(error, pg.QueryCanceled):
            return TicketError("deadline_exceeded")
        # The server is away, shutting down, or read-only.
        if isinstance(error, psycopg.OperationalError | psycopg.InternalError | psycopg.InterfaceError):
            return TicketError("unavailable", retry_after=1)
        # The driver's message would quote the value.
        return RefusedValueError(error.sqlstate) if isinstance(error, psycopg.DataError) else error

    async def _take(self, *, writes: bool) -> PooledConnection:
        try:
            return await self._pool.take(_POOL_TIMEOUT_SECONDS, writes=writes)
        except NoConnectionError:
            raise TicketError("unavailable", retry_after=1, begun=False) from None


class _Transaction(Connection):
    """One connection of one operation. BEGIN travels with its first statement, COMMIT with its last."""

    holds_locks: ClassVar[bool] = True

    def __init__(self, connection: PooledConnection, database: Database, begin: Sequence[bytes]) -> None:
        self._connection = connection
        self._database = database
        self._begin = begin
        self._begun = self._committed = False

    async def all(
        self,
        statement: Statement,
        parameters: Mapping[str, Any],
        *,
        commit: bool = False,
        lock: Statement | None = None,
    ) -> list[Row]:
        begin, self._begin = self._begin, ()
        self._begun = True
        is_new = statement.name not in self._connection.prepared
        try:
            rows = await statement.run(self._connection, parameters, begin=begin, commit=commit, lock=lock)
        except psycopg.Error as error:
            if isinstance(error, pg.FeatureNotSupported) and is_new:
                _discard(self._connection)
                raise UnsupportedStatementError(statement, error) from None
            raise self._database.translate(error, self._connection) from None
        self._committed = commit
        self._database.answered += 1
        return rows

    async def commit(self) -> None:
        if self._begun and not self._committed:
            try:
                await self._connection.command(b"COMMIT")
            except psycopg.Error as error:
                # Whether the write was committed is unknown.
                raise self._database.translate(error, self._connection) from None


def _discard(connection: PooledConnection | None) -> None:
    if connection is not None:
        connection.discard()


def pool_of(settings: Settings, url: str, kept: int = 0, name: str = "database") -> Pool:
    """The connections of one process to the servers of a URL; `name` is theirs in the log."""
    deadline = int(settings.default_deadline_seconds * 1000)
    lock_timeout = int(settings.lock_timeout_seconds * 1000)
    options = {
        "autocommit": True,
        # Statements prepare themselves; psycopg would drop theirs along with its own at a ROLLBACK.
        "prepare_threshold": None,
        "application_name": "tickets",
        "client_encoding": "UTF8",
        # No JIT: no statement runs long enough for it to pay, though the planner may estimate a costly part that never
        # runs. The timeouts are a second wall behind the call's deadline: no statement outlives its caller.
        "options": f"-c TimeZone=UTC -c jit=off -c statement_timeout={deadline} -c lock_timeout={lock_timeout}"
        f" -c idle_in_transaction_session_timeout={min(deadline, _IDLE_MILLISECONDS)} {_SERVER_KEEPALIVES}",
    }
    longest = settings.default_deadline_seconds + _MARGIN_SECONDS
    return Pool(url, settings.pool_size, options, _configure, longest, kept, name)


def _configure(connection: PooledConnection) -> None:
    connection.adapters.register_loader("json", _JsonTextLoader)
    connection.adapters.register_loader("json", _JsonTextBinaryLoader)
    for oid in (_XID8_OID, _PG_LSN_OID):
        connection.adapters.register_loader(oid, _NumberBinaryLoader)
    connection.adapters.register_dumper(JsonText, _JsonTextDumper)


class _JsonTextLoader(Loader):
    """Leaves `json` columns as text: the service does not look inside."""

    def load(self, data: Buffer) -> JsonText:
        return JsonText(bytes(data).decode())


class _JsonTextBinaryLoader(_JsonTextLoader):
    format = Format.BINARY


class _NumberBinaryLoader(Loader):
    """psycopg knows no xid8, and a position in the log (pg_lsn) as a text alone."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        return int.from_bytes(data)


class _JsonTextDumper(Dumper):
    """Sends `json` values as the text they are."""

    oid = psycopg.adapters.types["json"].oid

    def dump(self, obj: JsonText) -> Buffer:
        return obj.text.encode()
