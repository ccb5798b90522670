"""What servicers and use cases share: the call at hand, and operations with the transaction around them."""

import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import ValidationError

from service.access.policy import Caller
from service.errors import validation_error
from service.fields import Command
from service.storage.database import Connection, Database

# A documented answer as plain data: documented names; None where JSON says null, no key where it says absent.
View = dict[str, Any]

C = TypeVar("C", bound=Command)
H = TypeVar("H", bound="Host")


@dataclass(slots=True)
class Call:
    """One call, from the moment its metadata is read to its log line."""

    # Package and method, such as ("tickets.itsm.v1", "CreateTicket").
    method: tuple[str, str]
    request_id: str
    idempotency_key: str | None
    caller: Caller
    if_match: str | None = None
    # The path that was called, with its query; None where a transcoder did not say it.
    path: str | None = None
    # The body's JSON value as it came, for the comparison of repeated requests.
    body: Any = None
    # When its caller must have the answer, by the loop's clock.
    until: float = math.inf
    # Set when the answer is the stored one of an earlier request with the same idempotency key.
    replayed: bool = False
    # Set when the answer itself ends by telling a failure: its reason.
    outcome: str | None = None
    # Set when the answer is one resource: what says later whether it has changed.
    etag: str | None = None

    def headers(self) -> Mapping[str, str]:
        """The `header` section of commands that have one."""
        named = {"idempotency-key": self.idempotency_key, "if-match": self.if_match}
        return {name: value for name, value in named.items() if value is not None}


CALL: ContextVar[Call] = ContextVar("call")


class Host(Protocol):
    """What an operation is run with: a service of a transport, or what stands for one."""

    @property
    def database(self) -> Database:
        """Where the operation works."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[C]):
    """One use case: a validated command and a call in, a view out, one transaction around it."""

    command: type[C]
    run: Callable[[Connection, Call, C], Awaitable[View]]
    # An operation of one statement needs no BEGIN and COMMIT: the statement is the transaction.
    one_statement: bool

    async def __call__(self, host: Host, call: Call, sections: Mapping[str, Any]) -> View:
        """Validate the request's sections and run. Raises TicketError; nothing is kept when it does."""
        command = validated(self.command, sections)
        if self.one_statement:
            return await self.run(host.database, call, command)
        async with host.database.transaction() as connection:
            return await self.run(connection, call, command)


@dataclass(frozen=True, slots=True)
class Errand(Generic[C, H]):
    """One use case that needs more than the database: it is given its host, and has its own transactions."""

    command: type[C]
    run: Callable[[H, Call, C], Awaitable[View]]

    async def __call__(self, host: H, call: Call, sections: Mapping[str, Any]) -> View:
        """Validate the request's sections and run. Raises TicketError."""
        return await self.run(host, call, validated(self.command, sections))


def validated(command: type[C], sections: Mapping[str, Any]) -> C:
    """The command that a request's sections are. Raises TicketError `validation_error`."""
    try:
        return command.model_validate(sections)
    except ValidationError as error:
        raise validation_error(error) from error


def operation(
    command: type[C], *, one_statement: bool = False
) -> Callable[[Callable[[Connection, Call, C], Awaitable[View]]], Operation[C]]:
    """Make a function an operation."""

    def decorate(run: Callable[[Connection, Call, C], Awaitable[View]]) -> Operation[C]:
        return Operation(command, run, one_statement)

    return decorate


def errand(command: type[C]) -> Callable[[Callable[[H, Call, C], Awaitable[View]]], Errand[C, H]]:
    """Make a function an errand."""

    def decorate(run: Callable[[H, Call, C], Awaitable[View]]) -> Errand[C, H]:
        return Errand(command, run)

    return decorate
