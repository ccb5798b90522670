"""What servicers and use cases share: the call at hand, and operations with the transactions around them."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

from pydantic import ValidationError

from service.access.policy import Caller
from service.counters import CHANGES_REPEATED
from service.errors import validation_error
from service.fields import Command
from service.settings import Settings
from service.storage.database import Connection, Database
from service.storage.row_version import ChangedMeanwhileError
from service.vault import Vault

# A documented answer as plain data. Each operation says which: a TypedDict with the documented names, `| None` where
# JSON says null, NotRequired where it says absent.
View = Mapping[str, object]

A = TypeVar("A")
C = TypeVar("C", bound=Command)
D = TypeVar("D", bound="Dependencies")


class Place(Protocol):
    """A call's place among those that its process runs at once for one owner."""

    def count_stream(self) -> None:
        """Count it among the lists that are being read. Raises TicketError for one too many."""

    async def take(self) -> None:
        """Wait for a place."""

    def give_back(self) -> None:
        """Let another call run, before this one waits for others: a provider, a name server, a slow reader."""


class _NoPlace:
    """Of a call that nobody waits behind: an operator's command."""

    def count_stream(self) -> None:
        """Nothing."""

    async def take(self) -> None:
        """Nothing."""

    def give_back(self) -> None:
        """Nothing."""


_NO_PLACE = _NoPlace()


@dataclass(slots=True)
class Answer:
    """Facts about the answer to a call beside its view, for transports that can carry them."""

    # The caller asked for the headers alone.
    is_head: bool = False
    # The gateway reads the headers of a 200 from the message of its gRPC status. Envoy does; another one may not.
    headers_in_status: bool = True
    # What is left of the caller's rate, and what the rate is; empty before the caller is known.
    rate_limit: Mapping[str, str] = field(default_factory=dict)
    # What is sent before the message of a unary call, once no deadline can replace the answer any more.
    initial_metadata: Sequence[tuple[str, str]] = ()


@dataclass(slots=True)
class Call:
    """One call, from the moment its metadata is read to its log line."""

    # Package and method, such as ("tickets.itsm.v1", "CreateTicket").
    method: tuple[str, str]
    request_id: str
    idempotency_key: str | None
    caller: Caller
    if_match: str | None = None
    # For a read: the version that its caller has.
    if_none_match: str | None = None
    # The path that was called, with its query; None where the gateway did not send it.
    path: str | None = None
    # The body's JSON value as it came, for the comparison of repeated requests.
    body: Any = None
    # When the call is cancelled, by the loop's clock.
    until: float = math.inf
    # Set when the answer is the stored one of an earlier request with the same idempotency key.
    replayed: bool = False
    # Set when the answer itself ends with a failure: its reason.
    outcome: str | None = None
    # Set when the answer is one resource: its version, for If-Match.
    etag: str | None = None
    place: Place = _NO_PLACE
    answer: Answer = field(default_factory=Answer)

    def headers(self) -> Mapping[str, str]:
        """The `header` section of commands that have one."""
        named = {"idempotency-key": self.idempotency_key, "if-match": self.if_match}
        return {name: value for name, value in named.items() if value is not None}


CALL: ContextVar[Call] = ContextVar("call")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What operations of every dialect are run with; a dialect that needs more adds it."""

    settings: Settings
    database: Database
    vault: Vault


@dataclass(frozen=True, slots=True)
class Operation(Generic[C]):
    """One use case: a validated command and a call in, a view out."""

    command: type[C]
    # The TypedDict of its answer.
    view: type
    # Opens what transactions the use case needs.
    run: Callable[[Any, Call, C], Awaitable[View]]

    async def __call__(self, dependencies: Dependencies, call: Call, sections: Mapping[str, Any]) -> View:
        """Validate the request's sections and run. Raises TicketError; nothing is kept when it does."""
        return await self.run(dependencies, call, validated(self.command, sections))


def validated(command: type[C], sections: Mapping[str, Any]) -> C:
    """The command that a request's sections are. Raises TicketError `validation_error`."""
    try:
        return command.model_validate(sections)
    except ValidationError as error:
        raise validation_error(error) from error


def view_of(use_case: Callable[..., Any]) -> type:
    """The type of the answer that a use case is annotated with."""
    view: type = get_type_hints(use_case)["return"]
    return view


class TransactionMode(Protocol):
    """How a use case is run: in which transactions."""

    async def __call__(self, database: Database, use_case: Callable[[Connection], Awaitable[A]], /) -> A:
        """What the use case answers. Nothing is kept when it raises."""


async def in_transaction(database: Database, use_case: Callable[[Connection], Awaitable[A]]) -> A:
    """Run in a transaction, which is undone when the use case raises."""
    async with database.transaction() as connection:
        return await use_case(connection)


async def autocommit(database: Database, use_case: Callable[[Connection], Awaitable[A]]) -> A:
    """Run without BEGIN and COMMIT: each statement commits by itself.

    For a use case that writes in one statement at most, or of which nothing is lost should it end between two of them.
    """
    return await use_case(database)


async def optimistic(database: Database, use_case: Callable[[Connection], Awaitable[A]]) -> A:
    """Run what reads a row and then writes it, without a lock; only if the row has changed in between, with one.

    The use case raises ChangedMeanwhileError when its write finds the row to be another one (row_version.py).
    """
    try:
        return await use_case(database)
    except ChangedMeanwhileError:
        CHANGES_REPEATED.inc()
        return await in_transaction(database, use_case)


def operation(
    command: type[C], *, transaction: TransactionMode = in_transaction
) -> Callable[[Callable[[Connection, Call, C], Awaitable[View]]], Operation[C]]:
    """Make a function an operation; `transaction` says in which transactions it is run."""

    def decorate(use_case: Callable[[Connection, Call, C], Awaitable[View]]) -> Operation[C]:
        async def run_it(dependencies: Dependencies, call: Call, command: C) -> View:
            return await transaction(dependencies.database, lambda connection: use_case(connection, call, command))

        return Operation(command, view_of(use_case), run_it)

    return decorate


def own_transactions(command: type[C]) -> Callable[[Callable[[D, Call, C], Awaitable[View]]], Operation[C]]:
    """Make a function an operation that is given its dependencies and opens its transactions itself.

    For one that calls a provider or a receiver in between: no transaction is open during such a call.
    """

    def decorate(use_case: Callable[[D, Call, C], Awaitable[View]]) -> Operation[C]:
        return Operation(command, view_of(use_case), use_case)

    return decorate
