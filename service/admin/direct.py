"""Operators' operations run directly on the database, for the `tickets admin` command and the demo data."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg

from service import schema
from service.access.policy import Caller
from service.directory import METADATA
from service.errors import TicketError
from service.operation import Call, Dependencies, Operation
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault


async def run_as_operator(settings: Settings, operation: Operation[Any], body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Run an operator's operation on a database of these settings. Raises as `opened`."""
    async with opened(settings) as database:
        return await as_operator(
            Dependencies(settings=settings, database=database, vault=Vault(settings)), operation, body
        )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    """The database of these settings, for a command.

    Raises TicketError; psycopg.Error for a database that cannot be had; RuntimeError for one of another schema.
    """
    database = Database(settings, METADATA)
    await database.open()
    try:
        misfit = await schema.look(database)
        if misfit is not None:
            raise RuntimeError(misfit)
        yield database
    except TicketError as error:
        if error.reason == "unavailable" and not error.begun:
            # An operator may read why, in the server's own message.
            await (await psycopg.AsyncConnection.connect(settings.database_url, connect_timeout=5)).close()
        raise
    finally:
        await database.close()


async def as_operator(
    dependencies: Dependencies, operation: Operation[Any], body: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Run an operator's operation on a database that is open. Raises TicketError."""
    call = Call(("tickets.admin.v1", "command"), str(uuid4()), None, Caller("tickets admin", frozenset()))
    return await operation(dependencies, call, {"path": body, "query": body, "body": body})
