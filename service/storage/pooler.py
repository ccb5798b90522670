"""Detects a pooler between this process and PostgreSQL, such as PgBouncer, and rejects one that keeps no sessions.

Prepared statements, lanes and timeouts belong to a session of PostgreSQL. A pooler in transaction mode gives the
session to another client after each transaction, so it is rejected. One in session mode drops the settings of the
connection string, so they are set once more.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import psycopg

from service.storage.connection import PooledConnection

_PID = b"SELECT pg_backend_pid()"
# A pooler that others use too may assign the same session again by chance: other clients, and the connections that this
# process makes at the same moment, each of which asks once.
_ROUNDS = 12
# How long, and how often, a second connection is waited for: a pooler in session mode may have no further session.
_SECONDS = 1.0
_ATTEMPTS = 3
_SETTING = re.compile(r"-c (\S+?)=(\S+)")
_REFUSED = (
    "a pooler in transaction mode is between this process and PostgreSQL: set pool_mode = session there,"
    " or name PostgreSQL itself in TICKETS_DATABASE_URL"
)


class Pooler:
    """What a pool knows of the pooler, if there is one."""

    def __init__(self) -> None:
        self._keeps_sessions = False
        self._asking = asyncio.Lock()

    async def begin(self, connection: PooledConnection, options: Mapping[str, Any]) -> None:
        """Make a new connection ready. Raises psycopg.Error, and closes it, where a pooler keeps no sessions."""
        try:
            connection.pid = await _pid(connection)
            # PostgreSQL itself names the process that serves a connection; a pooler invents a number.
            if connection.pid == connection.pgconn.backend_pid:
                return
            await self._refuse(connection, options)
            for name, value in _SETTING.findall(str(options.get("options", ""))):
                await connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        except BaseException:
            connection.pgconn.finish()
            raise

    async def _refuse(self, connection: PooledConnection, options: Mapping[str, Any]) -> None:
        async with self._asking:
            self._keeps_sessions = self._keeps_sessions or await _keeps_sessions(connection, options)
        if not self._keeps_sessions:
            raise psycopg.OperationalError(_REFUSED)


async def require_sessions(database_url: str) -> None:
    """Raise RuntimeError where a pooler keeps no sessions, before work that needs one, such as a migration.

    Raises psycopg.Error where there is no database.
    """
    options: dict[str, Any] = {"conninfo": database_url, "autocommit": True, "client_encoding": "UTF8"}
    connection = await PooledConnection.connect(**options)
    try:
        await Pooler().begin(connection, options)
    except psycopg.OperationalError as error:
        raise RuntimeError(str(error)) from None
    connection.pgconn.finish()


async def _keeps_sessions(connection: PooledConnection, options: Mapping[str, Any]) -> bool:
    """Whether a connection has its session to itself, also while another one is at work."""
    own = await _pid(connection)
    for _ in range(_ATTEMPTS):
        try:
            async with asyncio.timeout(_SECONDS):
                return await _keeps(connection, own, options)
        except (TimeoutError, psycopg.Error):
            # There may be no other session to be had. Or the pooler is slow, so one failure says nothing.
            if await _pid(connection) != own or await _pid(connection) != own:
                return False
    return True


async def _keeps(connection: PooledConnection, own: int, options: Mapping[str, Any]) -> bool:
    """The same, as compared with one other connection. Raises TimeoutError, psycopg.Error."""
    other = await psycopg.AsyncConnection.connect(**{**options, "autocommit": False})
    try:
        for _ in range(_ROUNDS):
            # Twice in a row, as two sessions in turn would fall alike; then within a transaction of the other, which
            # has a session of its own until the rollback.
            before, again = await _pid(connection), await _pid(connection)
            others, within = await _pid(other), await _pid(connection)
            if others == own or {before, again, within} != {own}:
                return False
            await other.rollback()
    finally:
        other.pgconn.finish()
    return True


async def _pid(connection: psycopg.AsyncConnection[Any]) -> int:
    row = await (await connection.execute(_PID)).fetchone()
    return int(row[0]) if row else 0
