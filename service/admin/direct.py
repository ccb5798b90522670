"""Operators' operations, run straight on the database: what the command and the demo data do."""

from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import uuid4

from service.access.policy import Caller
from service.directory import METADATA
from service.operation import Call, Errand, Operation, View
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault


@dataclass(frozen=True)
class Operator:
    """What operators' operations need beside a call."""

    database: Database
    vault: Vault
    settings: Settings


AnyOperation: TypeAlias = Operation[Any] | Errand[Any, Any]


async def run_as_operator(settings: Settings, operation: AnyOperation, body: View) -> View:
    """Run an operator's operation straight on the database. Raises TicketError."""
    database = Database(settings, METADATA)
    await database.open()
    try:
        return await as_operator(Operator(database, Vault(settings), settings), operation, body)
    finally:
        await database.close()


async def as_operator(operator: Operator, operation: AnyOperation, body: View) -> View:
    """The same on a database that is open."""
    call = Call(("tickets.admin.v1", "command"), str(uuid4()), None, Caller("tickets admin", frozenset()))
    return await operation(operator, call, {"path": body, "query": body, "body": body})
