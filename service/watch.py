"""Watches: events streamed as they happen.

Each process polls for all of its watchers in one statement, and then reads what is new once for those who are shown the
same. NOTIFY would be
sooner, but every commit that notifies takes one lock, and writes matter more.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar, get_args

import structlog
from pydantic import Field, TypeAdapter
from sqlalchemy import Table

from service import events, paging
from service.access.policy import Caller
from service.errors import TicketError
from service.event_lag import EventLag
from service.fields import Command
from service.operation import Call, Dependencies, View, validated, view_of
from service.shares import Shares
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Row, Statement

_POLL_SECONDS = 0.25
# The longest that a look may take.
_LOOK_SECONDS = 5.0
# A heartbeat this often; also how long a former member may go on watching.
_HEARTBEAT_SECONDS = 10.0
_ROWS = 200
# Those who are woken together ask within this time.
_GATHER_SECONDS = 0.005

_POSITION: TypeAdapter[tuple[int, int]] = TypeAdapter(
    tuple[Annotated[int, Field(ge=0, lt=2**64)], Annotated[int, Field(ge=0, lt=2**63)]]
)

_log = structlog.get_logger()

C = TypeVar("C", bound=Command)
# How the events of a dialect are shown.
E = TypeVar("E", bound=View)


class Lag(TypedDict):
    """The members of a heartbeat that say how far a watch is behind: none when all is well."""

    behind_seconds: NotRequired[int]


class Position(NamedTuple):
    """After which event a watcher is."""

    transaction_id: int
    id: int

    def parameters(self) -> dict[str, Any]:
        """The parameters of `events.after_position`."""
        return {"after_transaction": str(self.transaction_id), "after_id": self.id}


def resumed(cursor: str | None, binding: str) -> Position | None:
    """The position in a cursor; None without one: from now on. Raises TicketError `validation_error`."""
    return None if cursor is None else Position(*paging.decode(cursor, binding, _POSITION))


class Found(NamedTuple, Generic[E]):
    """What was read of the events after a position."""

    events: Sequence[tuple[E, Position]]
    # The transaction up to which they are all there.
    horizon: int
    # Who of the watchers may still see them.
    watchers: Container[Any]
    # Where the reader stopped, if before the horizon, though there may be more.
    stop: Position | None = None


def found(
    rows: Sequence[Row], show: Callable[[Row], E], watchers: Container[Any], stop: Position | None = None
) -> Found[E]:
    """What the rows of a statement are: events, or one row without any, each with the horizon."""
    seen = [(show(row), Position(int(row["transaction_id"]), row["id"])) for row in rows if row["id"] is not None]
    return Found(seen, int(rows[0]["horizon"]), watchers, stop)


@dataclass(frozen=True, slots=True)
class Reader(Generic[E]):
    """How one watcher's events are read."""

    # Watchers of the same audience are shown the same events.
    audience: Hashable
    # Reads at most so many events after a position, for these watchers of the audience.
    read: Callable[[Position, int, Sequence[Any]], Awaitable[Found[E]]]
    watcher: Any
    # The failure of a watcher who may not see them any more.
    ended: Callable[[], TicketError]


class EventFeed:
    """Wakes the watchers of one dialect's tickets, in one process, when there may be new events in their scope."""

    def __init__(self, database: Database, table: Table, max_watches: int) -> None:
        """`max_watches` is how many may watch at once."""
        self.database = database
        self._scopes_with_events = Statement(
            events.scopes_with_events(table),
            scope=EVERYONE(
                "each process looks for the events of all its watchers at once, and finds only where there are some"
            ),
        )
        # An account's, a tenant's or a user's part, and that of each of its callers.
        self._shares = Shares("watches", max_watches, max_watches // 10, max_watches // 20, retry_after=5)
        self._subscriptions: dict[Any, set[asyncio.Event]] = {}
        # What is being read, and for whom.
        self._reads: dict[Hashable, tuple[asyncio.Task[Found[Any]], set[Any]]] = {}
        self._horizon: int | None = None
        self._closed = False
        # That of the process; one that has none, all is well.
        self.event_lag: EventLag | None = None

    def lag(self) -> Lag:
        """What the heartbeats of now say of it."""
        seconds = 0 if self.event_lag is None else int(self.event_lag.seconds())
        return {"behind_seconds": seconds} if seconds else {}

    @contextmanager
    def subscribe(self, scope: Any, caller: Caller) -> Iterator[asyncio.Event]:
        """An event that is set when a scope may have news. Raises TicketError as Shares.take."""
        self._shares.take(caller)
        subscription = asyncio.Event()
        self._subscriptions.setdefault(scope, set()).add(subscription)
        try:
            yield subscription
        finally:
            self._shares.give_back(caller)
            self._subscriptions[scope].remove(subscription)
            if not self._subscriptions[scope]:
                del self._subscriptions[scope]

    async def read(self, reader: Reader[E], position: Position) -> Found[E]:
        """What is new after a position: read and shown once for all of an audience who ask at about the same time."""
        key = reader.audience, position
        if key not in self._reads:
            watchers: set[Any] = set()
            self._reads[key] = asyncio.create_task(self._gather(key, reader, position, watchers)), watchers
        task, watchers = self._reads[key]
        watchers.add(reader.watcher)
        # One who leaves takes it from nobody else.
        return await asyncio.shield(task)

    async def _gather(self, key: Hashable, reader: Reader[E], position: Position, watchers: set[Any]) -> Found[E]:
        await asyncio.sleep(_GATHER_SECONDS)
        del self._reads[key]
        return await reader.read(position, _ROWS, list(watchers))

    def close(self) -> None:
        """End every watch: its caller resumes in another process."""
        self._closed = True
        self._wake(self._subscriptions)

    def refuse_if_closed(self) -> None:
        """Raise TicketError `unavailable` once the process is about to stop."""
        if self._closed:
            raise TicketError("unavailable", "The server is shutting down", retry_after=1)

    async def poll(self) -> None:
        """Look for new events as long as anyone waits for them; runs for good."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if not self._subscriptions:
                self._horizon = None
                continue
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._look()
            except (TicketError, TimeoutError) as error:
                _log.warning("watch", outcome=getattr(error, "reason", "deadline_exceeded"))
                # Each watch then reads for itself, and reports its own failure.
                self._wake(self._subscriptions)

    async def _look(self) -> None:
        since, asked = self._horizon, list(self._subscriptions)
        found = await self.database.one(self._scopes_with_events, {"scopes": asked, "since": str(since or 0)})
        if found is not None:
            self._horizon = int(found["horizon"])
            # The first look does not know what came before it, nor does any look know of scopes subscribed meanwhile.
            self._wake(
                self._subscriptions
                if since is None
                else {*(found["scopes"] or ()), *self._subscriptions.keys() - asked}
            )

    def _wake(self, scopes: Any) -> None:
        for scope in scopes:
            for subscription in self._subscriptions.get(scope, ()):
                subscription.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchDependencies(Dependencies):
    """What the operations of a dialect are run with whose tickets can be watched."""

    feed: EventFeed


@dataclass(frozen=True, slots=True)
class Watch(Generic[C]):
    """One use case whose answer goes on: a validated command and a call in, views out as they come."""

    command: type[C]
    # The TypedDict of each of its messages.
    view: type
    run: Callable[[EventFeed, Call, C], AsyncIterator[View]]

    def __call__(self, feed: EventFeed, call: Call, sections: Mapping[str, Any]) -> AsyncIterator[View]:
        """Validate the request's sections and begin. Raises TicketError, also later."""
        return self.run(feed, call, validated(self.command, sections))


def watch(command: type[C]) -> Callable[[Callable[[EventFeed, Call, C], AsyncIterator[View]]], Watch[C]]:
    """Make an asynchronous generator a watch."""
    return lambda run: Watch(command, get_args(view_of(run))[0], run)


async def follow(
    feed: EventFeed,
    scope: Any,
    call: Call,
    reader: Reader[E],
    position: Position | None,
    *,
    look_seconds: float = math.inf,
) -> AsyncIterator[tuple[E | None, Position]]:
    """Every event of a scope after a position, or from now on, each with its position; None is a heartbeat.

    Reads at least every `look_seconds`, also when the feed is silent. Ends by raising TicketError: what the reader
    raises, `token_expired`, or `unavailable` when the process stops.
    """
    with feed.subscribe(scope, call.caller) as subscription:
        heartbeat_at = time.monotonic()
        behind = position is not None
        while True:
            subscription.clear()
            feed.refuse_if_closed()
            _refuse_if_expired(call)
            found = await _read(feed, call, reader, position or Position(*events.AFTER_ALL), behind=behind)
            for view, position in found.events:
                yield view, position
            is_full = len(found.events) == _ROWS
            behind = is_full or found.stop is not None
            if is_full:
                continue
            # There is nothing more before the horizon, and there never will be.
            position = found.stop or Position(found.horizon, 0)
            if time.monotonic() >= heartbeat_at:
                yield None, position
                heartbeat_at = _next_tick(_HEARTBEAT_SECONDS)
            if behind:
                continue
            look_at = min(heartbeat_at, _next_tick(look_seconds))
            await _woken(subscription, look_at - time.monotonic(), call)


async def _read(feed: EventFeed, call: Call, reader: Reader[E], position: Position, *, behind: bool) -> Found[E]:
    """What is new for a watcher. One that is far behind reads by itself, as its caller's other calls do."""
    if not behind:
        found = await feed.read(reader, position)
    else:
        await call.place.take()
        try:
            found = await reader.read(position, _ROWS, [reader.watcher])
        finally:
            call.place.give_back()
    if reader.watcher not in found.watchers:
        raise reader.ended()
    return found


def _next_tick(seconds: float) -> float:
    """The next of the moments at which all watches look, so that those of the same events can share what is read."""
    return math.inf if seconds == math.inf else (time.monotonic() // seconds + 1) * seconds


async def _woken(subscription: asyncio.Event, seconds: float, call: Call) -> None:
    until = call.caller.expires_at
    left = seconds if until is None else min(seconds, until - time.time())
    with suppress(TimeoutError):
        async with asyncio.timeout(max(left, 0)):
            await subscription.wait()


def _refuse_if_expired(call: Call) -> None:
    until = call.caller.expires_at
    if until is not None and time.time() >= until:
        raise TicketError("token_expired")
