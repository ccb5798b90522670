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
# How long a session is waited for: a pooler in session mode may have no further one.
_SECONDS = 1.0
_SETTING = re.compile(r"-c (\S+?)=(\S+)")
_SET = b"SELECT set_config($1, $2, false)"
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
        connection.watch(PooledConnection.discard)
        try:
            connection.pid = await _pid(connection)
            # PostgreSQL itself names the process that serves a connection; a pooler invents a number.
            if connection.pid == connection.pgconn.backend_pid:
                return
            await self._refuse(connection, options)
            for name, value in _SETTING.findall(str(options.get("options", ""))):
                connection.pgconn.send_query_params(_SET, [name.encode(), value.encode()])
                await connection.result()
        except BaseException:
            connection.discard()
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
    connection.discard()


async def _keeps_sessions(connection: PooledConnection, options: Mapping[str, Any]) -> bool:
    """Whether a connection has its session to itself, also while another one is at work."""
    own = await _pid(connection)
    try:
        async with asyncio.timeout(_SECONDS):
            other = await PooledConnection.connect(**options)
    except (TimeoutError, psycopg.Error):
        return True  # there is no other connection, so this one keeps its session
    other.watch(PooledConnection.discard)
    try:
        for _ in range(_ROUNDS):
            # Asked twice in a row, as a pooler that gives two sessions in turn would pass with one question.
            if await _pid(connection) != own or await _pid(connection) != own:
                return False
            try:
                async with asyncio.timeout(_SECONDS):
                    await other.command(b"BEGIN")
                    others = await _pid(other)
            except (TimeoutError, psycopg.Error):
                return True  # there is no other session either
            # The other one has a session of its own until the rollback. If this one gets none meanwhile, that was it.
            async with asyncio.timeout(_SECONDS):
                if others == own or await _pid(connection) != own:
                    return False
            await other.command(b"ROLLBACK")
    except TimeoutError:
        return False
    finally:
        other.discard()
    return True


async def _pid(connection: PooledConnection) -> int:
    """The process of the server that serves a connection just now. Raises psycopg.Error."""
    connection.pgconn.send_query_params(_PID, None)
    return int((await connection.result()).get_value(0, 0) or 0)
