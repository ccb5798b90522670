"""SQL statements: built with SQLAlchemy Core, compiled once, prepared once a connection, run on libpq itself.

psycopg's cursors can do more than is needed here, and cost twice as much: a statement of ours has its `$1` placeholders
already, casts its parameters itself (so the server knows their types, and text will do for each), and is always
prepared. What is used of psycopg are its connections and its adaptation of values (`psycopg.pq`, `psycopg.adapt`).
"""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import ColumnElement, Delete, Insert, Select, Table, Update, any_, literal_column
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

Row = dict[str, Any]

_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
_CANCEL_SECONDS = 5.0
_names = itertools.count()


class PooledConnection(psycopg.AsyncConnection[Any]):
    """A connection that knows which statements it has prepared, and which it is about to."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.prepared: set[bytes] = set()
        self.preparing: bytes | None = None


class Statement:
    """One SQL statement. Its parameters have the names of its bindparams, its rows those of its columns."""

    def __init__(self, clause: Select[Any] | Insert | Update | Delete) -> None:
        compiled = clause.compile(dialect=_DIALECT)
        self.sql = compiled.string.encode()
        self.names = tuple(str(name) for name in compiled.positiontup or ())
        self.columns = tuple(map(str, clause.exported_columns.keys()))
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        self._formats = [PyFormat.TEXT] * len(self.names)
        self._name = b"tickets_%d" % next(_names)

    async def run(self, connection: PooledConnection, parameters: Mapping[str, Any]) -> list[Row]:
        """Every row. Raises KeyError for a parameter that is missing, and psycopg.Error.

        Cancelled, it leaves at once, and the connection busy: `settle` it before anything else.
        """
        transformer = Transformer.from_context(connection)
        constants = self._constants
        values = [parameters[name] if name in parameters else constants[name] for name in self.names]
        texts = transformer.dump_sequence(values, self._formats)
        if self._name not in connection.prepared:
            connection.preparing = self._name
            connection.pgconn.send_prepare(self._name, self.sql)
            await _result(connection)
        connection.pgconn.send_query_prepared(self._name, texts, result_format=Format.BINARY)
        result = await _result(connection)
        transformer.set_pgresult(result)
        columns = self.columns
        return [dict(zip(columns, row, strict=True)) for row in transformer.load_rows(0, result.ntuples, tuple)]


def some_rows(table: Table, limit: int, where: str = "true") -> ColumnElement[bool]:
    """The condition of up to `limit` rows that nobody else is at work on, for statements that many processes repeat.

    By their place on disk: a join of the table with itself is planned for the empty table that it usually is, and takes
    seconds once it is not. The rows must never be updated, only written and deleted.
    """
    found = f"SELECT ctid FROM {table.name} WHERE {where} LIMIT {limit} FOR UPDATE SKIP LOCKED"  # noqa: S608 - our own words
    return literal_column(f"{table.name}.ctid") == any_(literal_column(f"ARRAY({found})"))


async def command(connection: PooledConnection, sql: bytes) -> None:
    """Run SQL without parameters or rows, such as BEGIN. Raises psycopg.Error."""
    connection.pgconn.send_query(sql)
    await _result(connection)


async def settle(connection: PooledConnection) -> None:
    """Leave a connection idle after a call that was cancelled or failed: no statement running, no transaction open."""
    pgconn = connection.pgconn
    if pgconn.transaction_status == TransactionStatus.ACTIVE:
        await connection.cancel_safe(timeout=_CANCEL_SECONDS)
        # The statement may have ended before it could be cancelled: then what it prepared is there.
        _note_prepared(connection, await _last_result(connection))
    if pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        await command(connection, b"ROLLBACK")


async def _result(connection: PooledConnection) -> PGresult:
    result = await _last_result(connection)
    _note_prepared(connection, result)
    if result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
    return result


def _note_prepared(connection: PooledConnection, result: PGresult) -> None:
    if connection.preparing is not None and result.status != ExecStatus.FATAL_ERROR:
        connection.prepared.add(connection.preparing)
    connection.preparing = None


async def _last_result(connection: PooledConnection) -> PGresult:
    pgconn, loop, last = connection.pgconn, asyncio.get_running_loop(), None
    while pgconn.flush():
        await _ready(loop.add_writer, loop.remove_writer, pgconn.socket)
    while True:
        while pgconn.is_busy():
            await _ready(loop.add_reader, loop.remove_reader, pgconn.socket)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None and last is not None:
            return last
        last = result


async def _ready(add: Any, remove: Any, socket: int) -> None:
    ready = asyncio.get_running_loop().create_future()
    add(socket, _wake, ready)
    try:
        await ready
    finally:
        remove(socket)


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
