"""SQL statements: built with SQLAlchemy Core, compiled once, prepared once a connection, run on libpq itself.

psycopg's cursors can do more than is needed here, and cost twice as much: our statements have `$1` placeholders
already, cast their parameters themselves (so the server knows the types, and all are sent as text), and most are
prepared. Of psycopg only connections and the adaptation of values are used (`psycopg.pq`, `psycopg.adapt`).
"""

import re
import sys
from collections.abc import Mapping, Sequence
from copy import copy
from hashlib import sha256
from time import perf_counter
from typing import Any
from weakref import WeakSet

from psycopg.abc import Buffer
from psycopg.adapt import PyFormat
from psycopg.pq import Format
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import (
    ColumnElement,
    Delete,
    Float,
    FromClause,
    Insert,
    Select,
    Table,
    Update,
    any_,
    bindparam,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from service.storage import scope_check
from service.storage.connection import PooledConnection
from service.storage.scope import Scope, UnscopedError, separation, source_of
from service.storage.timings import timing_of

Row = dict[str, Any]
# Parameters as they are sent.
Texts = Sequence[Buffer | None]

_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy has no types there
_WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM|FOR (KEY )?SHARE)\b")


class Statement:
    """One SQL statement. Its parameters have the names of its bindparams, its rows those of its columns."""

    def __init__(
        self,
        clause: Select[Any] | Insert | Update | Delete,
        *,
        scope: Scope,
        prepared: bool = True,
        short: bool = False,
        locks: Sequence[str] = (),
        standby: bool = False,
    ) -> None:
        """With `prepared=False` it is planned each time for its values: for lists whose filters decide the plan.

        A `short` one, quick whatever its values are, may share a round trip with others (lanes.py); `locks` are the
        parameters that identify the row it locks. A `standby` one may run at the standby, if there is one (standby.py).
        Raises UnscopedError when it can touch rows outside the scope. The clause is not kept: it takes 100 times the
        memory of its SQL.
        """
        compiled = clause.compile(dialect=_DIALECT)
        scope_check.check(clause, scope, compiled.string)
        constants = {str(name): value for name, value in compiled.params.items() if value is not None}
        if not scope.parameters.isdisjoint(constants):
            raise UnscopedError("A parameter of the scope has a value where the caller gives none")
        if "POSTCOMPILE" in compiled.string:
            raise ValueError("SQLAlchemy would fill in a part of the statement only as it runs it")
        self.scope = scope
        # Whether it may wait for rows that others change.
        self.writes = _WRITES.search(compiled.string) is not None
        self.columns = tuple(map(sys.intern, map(str, clause.exported_columns.keys())))
        if standby and self.writes:
            raise ValueError("A statement that writes or locks has nothing to do on a standby")
        self.is_for_standby = standby
        names = tuple(map(str, compiled.positiontup or ()))
        self._set_text(compiled.string, names, constants, prepared=prepared, short=short)
        self._locks = tuple(self.names.index(name) for name in locks)
        self.timing = timing_of(self, sys._getframe(1))
        BUILT.add(self)

    def _set_text(
        self, sql: str, names: Sequence[str], constants: Mapping[str, Any], *, prepared: bool, short: bool
    ) -> None:
        if short and not prepared:
            raise ValueError("A statement that is planned each time is not short")
        self.sql, self.is_short = sql.encode(), short
        # Of lists there is a statement for each set of filters, so what they have in common is there once.
        self.names = tuple(map(sys.intern, names))
        self.constants = {sys.intern(name): value for name, value in constants.items()}
        self._formats = [PyFormat.TEXT] * len(self.names)
        # A hash of its text, so that no other statement has the same name on any connection.
        self.name = b"tickets_" + sha256(self.sql).hexdigest()[:16].encode() if prepared else b""

    def with_text(
        self, sql: str, names: Sequence[str], constants: Mapping[str, Any], *, prepared: bool, short: bool
    ) -> "Statement":
        """The same statement with another text, which was checked, and whose parameters are these in this order."""
        other = copy(self)
        other._set_text(sql, names, constants, prepared=prepared, short=short)
        return other

    async def run(
        self,
        connection: PooledConnection,
        parameters: Mapping[str, Any],
        *,
        begin: Sequence[bytes] = (),
        commit: bool = False,
        lock: "Statement | None" = None,
    ) -> list[Row]:
        """Every row. Raises KeyError for a parameter that is missing, and psycopg.Error.

        `begin`, `lock` (a statement of the same parameters, which only locks rows and runs before this one) and COMMIT
        are sent in the same round trip. When it is cancelled, it returns at once and leaves the connection busy:
        `settle` it before anything else.
        """
        begun = perf_counter()
        texts = self.texts(connection, parameters)
        pgconn = connection.pgconn
        await self._prepare(connection)
        if begin or commit or lock is not None:
            if lock is not None:
                await lock._prepare(connection)
            pgconn.enter_pipeline_mode()
            for command in begin:
                pgconn.send_query_params(command, None)
            if lock is not None:
                lock.send(pgconn, lock.texts(connection, parameters))
            self.send(pgconn, texts)
            if commit:
                pgconn.send_query_params(b"COMMIT", None)
            pgconn.pipeline_sync()
            result = (await connection.results())[len(begin) + (lock is not None)]
        else:
            self.send(pgconn, texts)
            result = await connection.result()
        self.timing.add(perf_counter() - begun)
        return self.rows(connection, result)

    async def run_after(
        self, first: "Statement", connection: PooledConnection, parameters: Mapping[str, Any]
    ) -> tuple[list[Row], list[Row]]:
        """Every row of another statement, and of this one, which runs just after it, in one round trip.

        Raises, and is cancelled, as `run`.
        """
        begun = perf_counter()
        both = [(each, each.texts(connection, parameters)) for each in (first, self)]
        for each, _ in both:
            await each._prepare(connection)
        connection.pgconn.enter_pipeline_mode()
        for each, texts in both:
            each.send(connection.pgconn, texts)
        connection.pgconn.pipeline_sync()
        results = await connection.results()
        self.timing.add(perf_counter() - begun)
        return first.rows(connection, results[0]), self.rows(connection, results[1])

    async def _prepare(self, connection: PooledConnection) -> None:
        if self.name and self.name not in connection.prepared:
            connection.preparing = self.name
            connection.pgconn.send_prepare(self.name, self.sql)
            await connection.result()

    def texts(self, connection: PooledConnection, parameters: Mapping[str, Any]) -> Texts:
        """The parameters as they are sent. Raises KeyError for one that is missing."""
        constants = self.constants
        values = [parameters[name] if name in parameters else constants[name] for name in self.names]
        return connection.transformer.dump_sequence(values, self._formats)

    def send(self, pgconn: PGconn, texts: Texts) -> None:
        """Send it with its parameters; if it is one to prepare, that was done before."""
        if self.name:
            pgconn.send_query_prepared(self.name, texts, result_format=Format.BINARY)
        else:
            pgconn.send_query_params(self.sql, texts, result_format=Format.BINARY)

    def rows(self, connection: PooledConnection, result: PGresult) -> list[Row]:
        """The rows of its result on this connection."""
        reader, columns = connection.prepared[self.name] if self.name else connection.reader, self.columns
        return [dict(zip(columns, row, strict=True)) for row in reader.rows(result)]

    def locked(self, texts: Texts) -> bytes:
        """The key of the row that it locks."""
        return b"\0".join([bytes(texts[position] or b"") for position in self._locks])


# Every statement, for tests that check all of them.
BUILT: WeakSet[Statement] = WeakSet()


def parameter(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The parameter for a column, by its name."""
    return bindparam(column.key, type_=column.type)


def bound(table: FromClause, *names: str) -> dict[str, ColumnElement[Any]]:
    """The parameters for columns of a table, by their names."""
    return {name: parameter(table.c[name]) for name in names}


def mine(table: FromClause, **more: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
    """The conditions of rows that are the caller's, by what the table declares, and that have `more` values."""
    scope = {
        name: bindparam(kind, type_=table.c[name].type) for name, kind in separation(source_of(table)).scope.items()
    }
    return tuple(table.c[name] == value for name, value in {**scope, **more}.items())


def in_seconds(name: str) -> ColumnElement[Any]:
    """The instant that is `name` seconds from now; `name` is a parameter."""
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, bindparam(name, type_=Float))


def some_rows(table: Table, limit: int, where: str = "true") -> ColumnElement[bool]:
    """The condition of up to `limit` rows that no other process has locked, for statements that many processes repeat.

    By their place on disk (ctid): a join of the table with itself would be planned for the empty table that it usually
    is, and take seconds once it is not. The rows must never be updated, only inserted and deleted.
    """
    found = f"SELECT ctid FROM {table.name} WHERE {where} LIMIT {limit} FOR UPDATE SKIP LOCKED"  # noqa: S608 - our own words
    return literal_column(f"{table.name}.ctid") == any_(literal_column(f"ARRAY({found})"))
