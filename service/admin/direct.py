"""Operators' operations run directly on the database, for the `tickets admin` command and the demo data."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from service.access.policy import Caller
from service.directory import METADATA
from service.operation import Call, Dependencies, Operation
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault


async def run_as_operator(settings: Settings, operation: Operation[Any], body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Run an operator's operation on a database of these settings. Raises TicketError."""
    database = Database(settings, METADATA)
    await database.open()
    try:
        return await as_operator(
            Dependencies(settings=settings, database=database, vault=Vault(settings)), operation, body
        )
    finally:
        await database.close()


async def as_operator(
    dependencies: Dependencies, operation: Operation[Any], body: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Run an operator's operation on a database that is open. Raises TicketError."""
    call = Call(("tickets.admin.v1", "command"), str(uuid4()), None, Caller("tickets admin", frozenset()))
    return await operation(dependencies, call, {"path": body, "query": body, "body": body})
