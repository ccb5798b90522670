"""The database of a process that traces: a span for each statement of a sampled call. Off, it is the plain one."""

import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from service import tracing
from service.storage.database import Connection, Database
from service.storage.statement import Row, Statement

_WRITTEN = re.compile(r"\b(INSERT) INTO (\w+)|\b(UPDATE) (\w+) SET\b|\b(DELETE) FROM (\w+)")
_READ = re.compile(r"\bFROM (\w+)")
_COMMON = re.compile(r"\b(\w+) AS (?:MATERIALIZED )?\(")
# The conventions of OpenTelemetry bound a summary to this.
_MAX_LENGTH = 255

# The names of statements that were traced.
_names: WeakKeyDictionary[Statement, str] = WeakKeyDictionary()


class TracedDatabase(Database):
    """A Database whose statements are spans."""

    def all(
        self,
        statement: Statement,
        parameters: Mapping[str, Any],
        *,
        commit: bool = False,
        lock: Statement | None = None,
    ) -> Coroutine[Any, Any, list[Row]]:
        """As a Database does."""
        found = super().all(statement, parameters, commit=commit, lock=lock)
        # Most calls are not sampled: their coroutine is returned without a wrapper.
        return _in_span(statement, found) if tracing.is_sampled() else found

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """As a Database does."""
        async with super().transaction() as connection:
            yield _Traced(connection) if tracing.is_sampled() else connection


class _Traced(Connection):
    """A transaction whose statements are spans."""

    holds_locks: ClassVar[bool] = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def all(
        self,
        statement: Statement,
        parameters: Mapping[str, Any],
        *,
        commit: bool = False,
        lock: Statement | None = None,
    ) -> list[Row]:
        return await _in_span(statement, self._connection.all(statement, parameters, commit=commit, lock=lock))


async def _in_span(statement: Statement, found: Coroutine[Any, Any, list[Row]]) -> list[Row]:
    name = name_of(statement)
    with tracing.step(name, {"db.system.name": "postgresql", "db.query.summary": name}):
        return await found


def name_of(statement: Statement) -> str:
    """A statement's commands and tables, such as `INSERT itsm_tickets INSERT itsm_events`, without any values."""
    name = _names.get(statement)
    if name is None:
        name = _names[statement] = _summary(statement.sql.decode())
    return name


def _summary(sql: str) -> str:
    done = [" ".join(filter(None, found)) for found in _WRITTEN.findall(sql)]
    common = set(_COMMON.findall(sql))
    read = [table for table in _READ.findall(sql) if table not in common]
    words = done or [" ".join(("SELECT", *dict.fromkeys(read)))]
    return " ".join(dict.fromkeys(words))[:_MAX_LENGTH]
