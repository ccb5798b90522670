"""The Postgres boundary: statements compiled once, pooled connections, transactions, driver errors in our words."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import psycopg
from psycopg import errors as pg
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests
from sqlalchemy import Delete, Insert, MetaData, Select, Update
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.types import UserDefinedType

from service.errors import TicketError
from service.jsontext import JsonText
from service.settings import Settings

Row = dict[str, Any]

# `$1` placeholders go to the server as they are: nothing is parsed or rewritten at a call.
_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

_POOL_TIMEOUT_SECONDS = 3.0
# After an outage the pool tries again at least this often; left alone, its pauses would grow to minutes.
_RECONNECT_SECONDS = 5.0
_PREPARED_MAX = 500


class Statement:
    """One SQL statement, built with SQLAlchemy Core and compiled once.

    Its parameters are the names of its bindparams; its rows have the names of its columns.
    """

    __slots__ = ("columns", "constants", "names", "sql")

    def __init__(self, clause: Select[Any] | Insert | Update | Delete) -> None:
        compiled = clause.compile(dialect=_DIALECT)
        self.sql = compiled.string.encode()
        self.names = tuple(str(name) for name in compiled.positiontup or ())
        self.columns: tuple[str, ...] = tuple(map(str, clause.exported_columns.keys()))
        self.constants = {name: value for name, value in compiled.params.items() if value is not None}

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The parameters in the order of their placeholders. Raises KeyError for one that is missing."""
        constants = self.constants
        return [parameters[name] if name in parameters else constants[name] for name in self.names]


class Xid8(UserDefinedType[int]):
    """PostgreSQL's transaction id: lets a reader see which rows may still be uncommitted behind one it has."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in DDL."""
        return "xid8"


# So that Alembic knows the type again when it compares a database with the tables.
ischema_names["xid8"] = Xid8


class ConstraintViolationError(Exception):
    """A constraint that has no words for callers refused a write; `name` is the constraint's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Connection(Protocol):
    """What an operation runs its statements on."""

    async def one(self, statement: Statement, parameters: Mapping[str, Any]) -> Row | None:
        """The first row, or None. Raises TicketError and ConstraintViolationError."""

    async def all(self, statement: Statement, parameters: Mapping[str, Any]) -> list[Row]:
        """Every row. Raises TicketError and ConstraintViolationError."""


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
        self._pool = AsyncConnectionPool(
            settings.database_url,
            min_size=settings.pool_size,
            max_size=settings.pool_size,
            timeout=_POOL_TIMEOUT_SECONDS,
            reconnect_timeout=_RECONNECT_SECONDS,
            kwargs={
                "autocommit": True,
                "application_name": "tickets",
                # Second wall behind the call's own deadline: no statement outlives its caller.
                "options": f"-c TimeZone=UTC -c statement_timeout={deadline}"
                f" -c idle_in_transaction_session_timeout={deadline}",
            },
            configure=_configure,
            open=False,
        )

    async def open(self) -> None:
        """Start connecting; does not wait, so that a service can start before its database."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Give back every connection."""
        await self._pool.close()

    async def answers(self) -> bool:
        """Whether the database runs a statement right now."""
        try:
            async with self._pool.connection() as connection:
                await connection.execute("SELECT 1")
        except (psycopg.Error, PoolTimeout, TooManyRequests):
            return False
        return True

    async def one(self, statement: Statement, parameters: Mapping[str, Any]) -> Row | None:
        """The first row, or None. Raises TicketError and ConstraintViolationError."""
        connection = await self._take()
        try:
            return await _Transaction(connection, self._constraints).one(statement, parameters)
        finally:
            await self._pool.putconn(connection)

    async def all(self, statement: Statement, parameters: Mapping[str, Any]) -> list[Row]:
        """Every row. Raises TicketError and ConstraintViolationError."""
        connection = await self._take()
        try:
            return await _Transaction(connection, self._constraints).all(statement, parameters)
        finally:
            await self._pool.putconn(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside BEGIN … COMMIT, rolled back when the operation raises."""
        connection = await self._take()
        try:
            async with connection.transaction():
                yield _Transaction(connection, self._constraints)
        except psycopg.OperationalError as error:
            # BEGIN or COMMIT itself was lost: what became of the write is unknown.
            raise _unavailable_or(error) from error
        finally:
            await self._pool.putconn(connection)

    async def _take(self) -> psycopg.AsyncConnection[Any]:
        try:
            return await self._pool.getconn()
        except (PoolTimeout, TooManyRequests) as error:
            raise TicketError("unavailable", retry_after=1, begun=False) from error


class _Transaction:
    """One connection in the hands of one operation."""

    __slots__ = ("_connection", "_constraints")

    def __init__(self, connection: psycopg.AsyncConnection[Any], constraints: Mapping[str, tuple[str, str]]) -> None:
        self._connection = connection
        self._constraints = constraints

    async def one(self, statement: Statement, parameters: Mapping[str, Any]) -> Row | None:
        cursor = await self._execute(statement, parameters)
        values = await cursor.fetchone()
        return None if values is None else dict(zip(statement.columns, values, strict=True))

    async def all(self, statement: Statement, parameters: Mapping[str, Any]) -> list[Row]:
        cursor = await self._execute(statement, parameters)
        columns = statement.columns
        return [dict(zip(columns, values, strict=True)) for values in await cursor.fetchall()]

    async def _execute(
        self, statement: Statement, parameters: Mapping[str, Any]
    ) -> psycopg.AsyncRawCursor[tuple[Any, ...]]:
        cursor: psycopg.AsyncRawCursor[tuple[Any, ...]] = psycopg.AsyncRawCursor(self._connection)
        try:
            await cursor.execute(statement.sql, statement.values(parameters), prepare=True, binary=True)
        except psycopg.Error as error:
            # Without its cause: the driver's message may quote the row.
            raise self._translate(error) from None
        return cursor

    def _translate(self, error: psycopg.Error) -> Exception:
        if isinstance(error, pg.IntegrityError):
            name = error.diag.constraint_name or ""
            if name in self._constraints:
                return TicketError(*self._constraints[name])
            return ConstraintViolationError(name)
        return _unavailable_or(error)


def _unavailable_or(error: psycopg.Error) -> Exception:
    if isinstance(error, pg.QueryCanceled):
        return TicketError("deadline_exceeded")
    if isinstance(error, psycopg.OperationalError | pg.InternalError_ | psycopg.InterfaceError):
        return TicketError("unavailable", retry_after=1)
    return error


async def _configure(connection: psycopg.AsyncConnection[Any]) -> None:
    connection.prepared_max = _PREPARED_MAX
    connection.adapters.register_loader("json", _JsonTextLoader)
    connection.adapters.register_loader("json", _JsonTextBinaryLoader)
    connection.adapters.register_dumper(JsonText, _JsonTextDumper)


class _JsonTextLoader(Loader):
    """Leaves `json` columns as text: nobody here looks inside."""

    def load(self, data: Buffer) -> JsonText:
        return JsonText(bytes(data).decode())


class _JsonTextBinaryLoader(_JsonTextLoader):
    format = Format.BINARY


class _JsonTextDumper(Dumper):
    """Sends `json` values as the text they are."""

    oid = psycopg.adapters.types["json"].oid

    def dump(self, obj: JsonText) -> Buffer:
        return obj.text.encode()
