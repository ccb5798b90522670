"""The Postgres boundary: pooled connections, transactions, driver errors translated."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

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
from service.storage.pool import Pool, PooledConnection, PoolTimeoutError
from service.storage.statement import Row, Statement

_POOL_TIMEOUT_SECONDS = 3.0
_ANSWER_SECONDS = 2.0
_PING = b"SELECT 1"
_XID8_OID = 5069


class Xid8(UserDefinedType[int]):
    """PostgreSQL's transaction id: lets a reader see which rows may still be uncommitted after one it has."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in DDL."""
        return "xid8"


# So that Alembic recognises the type when it compares a database with the tables.
ischema_names["xid8"] = Xid8


class ConstraintViolationError(Exception):
    """A constraint without a public error rejected a write; `name` is the constraint's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class RefusedValueError(Exception):
    """PostgreSQL refused a value that the bounds of the input let pass, with this SQLSTATE."""


class Connection(Protocol):
    """What an operation runs its statements on. The statement with `commit=True` commits them all."""

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


class Database:
    """The pool of one process. As a Connection it commits each statement by itself, in one round trip."""

    def __init__(self, settings: Settings, metadata: MetaData) -> None:
        deadline = int(settings.default_deadline_seconds * 1000)
        self._constraints: dict[str, tuple[str, str]] = {
            str(constraint.name): constraint.info["error"]
            for table in metadata.tables.values()
            for constraint in table.constraints
            if "error" in constraint.info
        }
        self._pool = Pool(
            settings.database_url,
            settings.pool_size,
            {
                "autocommit": True,
                # Statements prepare themselves; psycopg would drop theirs along with its own at a ROLLBACK.
                "prepare_threshold": None,
                "application_name": "tickets",
                # Second wall behind the call's own deadline: no statement outlives its caller.
                "options": f"-c TimeZone=UTC -c statement_timeout={deadline}"
                f" -c idle_in_transaction_session_timeout={deadline}",
            },
            _configure,
        )

    async def open(self) -> None:
        """Start connecting; does not wait, so that a service can start before its database."""
        self._pool.open()

    async def close(self) -> None:
        """Give back every connection."""
        await self._pool.close()

    async def answers(self) -> bool:
        """Whether the database runs a statement right now."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                connection = await self._take()
                try:
                    await connection.command(_PING)
                finally:
                    self._pool.give_back(connection)
        except (TimeoutError, psycopg.Error, TicketError):
            return False
        return True

    async def all(
        self,
        statement: Statement,
        parameters: Mapping[str, Any],
        *,
        commit: bool = False,
        lock: Statement | None = None,
    ) -> list[Row]:
        """Every row. Raises TicketError and ConstraintViolationError."""
        connection = await self._take()
        try:
            return await statement.run(connection, parameters, lock=lock)
        except psycopg.Error as error:
            # Without its cause: the driver's message may quote the row.
            raise self.translate(error, connection) from None
        finally:
            self._pool.give_back(connection)

    async def one(self, statement: Statement, parameters: Mapping[str, Any], *, commit: bool = False) -> Row | None:
        """The first row, or None. Raises TicketError and ConstraintViolationError."""
        rows = await self.all(statement, parameters)
        return rows[0] if rows else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside BEGIN … COMMIT, rolled back when the operation raises."""
        connection = await self._take()
        transaction = _Transaction(connection, self)
        try:
            yield transaction
            await transaction.commit()
        finally:
            self._pool.give_back(connection)

    def translate(self, error: psycopg.Error, connection: PooledConnection) -> Exception:
        """Translate a driver error: a TicketError where it may be reported to the caller."""
        if isinstance(error, pg.IntegrityError):
            name = error.diag.constraint_name or ""
            if name in self._constraints:
                return TicketError(*self._constraints[name])
            return ConstraintViolationError(name)
        if isinstance(error, pg.FeatureNotSupported | pg.InvalidSqlStatementName):
            # The schema changed under a prepared statement, which has not run: the pool makes a new connection.
            connection.discard()
            return TicketError("unavailable", retry_after=1, begun=False)
        if isinstance(error, pg.QueryCanceled):
            return TicketError("deadline_exceeded")
        # Away, shutting down, or read-only after a failover.
        if isinstance(error, psycopg.OperationalError | psycopg.InternalError | psycopg.InterfaceError):
            return TicketError("unavailable", retry_after=1)
        # What says that a value is wrong quotes it.
        return RefusedValueError(error.sqlstate) if isinstance(error, psycopg.DataError) else error

    async def _take(self) -> PooledConnection:
        try:
            return await self._pool.take(_POOL_TIMEOUT_SECONDS)
        except PoolTimeoutError:
            raise TicketError("unavailable", retry_after=1, begun=False) from None


class _Transaction:
    """One connection of one operation. BEGIN travels with its first statement, COMMIT with its last."""

    def __init__(self, connection: PooledConnection, database: Database) -> None:
        self._connection = connection
        self._database = database
        self._begun = self._committed = False

    async def all(
        self,
        statement: Statement,
        parameters: Mapping[str, Any],
        *,
        commit: bool = False,
        lock: Statement | None = None,
    ) -> list[Row]:
        begin, self._begun = not self._begun, True
        try:
            rows = await statement.run(self._connection, parameters, begin=begin, commit=commit, lock=lock)
        except psycopg.Error as error:
            raise self._database.translate(error, self._connection) from None
        self._committed = commit
        return rows

    async def one(self, statement: Statement, parameters: Mapping[str, Any], *, commit: bool = False) -> Row | None:
        rows = await self.all(statement, parameters, commit=commit)
        return rows[0] if rows else None

    async def commit(self) -> None:
        if self._begun and not self._committed:
            try:
                await self._connection.command(b"COMMIT")
            except psycopg.Error as error:
                # What became of the write is unknown.
                raise self._database.translate(error, self._connection) from None


def _configure(connection: PooledConnection) -> None:
    connection.adapters.register_loader("json", _JsonTextLoader)
    connection.adapters.register_loader("json", _JsonTextBinaryLoader)
    connection.adapters.register_loader(_XID8_OID, _Xid8BinaryLoader)
    connection.adapters.register_dumper(JsonText, _JsonTextDumper)


class _JsonTextLoader(Loader):
    """Leaves `json` columns as text: the service does not look inside."""

    def load(self, data: Buffer) -> JsonText:
        return JsonText(bytes(data).decode())


class _JsonTextBinaryLoader(_JsonTextLoader):
    format = Format.BINARY


class _Xid8BinaryLoader(Loader):
    """psycopg knows no xid8."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        return int.from_bytes(data)


class _JsonTextDumper(Dumper):
    """Sends `json` values as the text they are."""

    oid = psycopg.adapters.types["json"].oid

    def dump(self, obj: JsonText) -> Buffer:
        return obj.text.encode()
