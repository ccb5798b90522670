"""Watches: events streamed as they happen.

Each process polls for all of its watchers in one statement, and then reads new events once for all watchers of one
audience. NOTIFY would be sooner, but every commit that notifies takes one lock, and writes matter more.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar, get_args

import structlog
from sqlalchemy import Table

from service import epochs, events, positions, purged
from service.access.policy import Caller
from service.access.suspensions import Suspensions
from service.errors import TicketError, invalid
from service.event_lag import EventLag
from service.fields import Command
from service.operation import Call, Dependencies, View, validated, view_of
from service.positions import BEFORE_ALL, Position, Start
from service.shares import Shares
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Row, Statement

_POLL_SECONDS = 0.25
# The longest that a poll may take.
_LOOK_SECONDS = 5.0
# A heartbeat this often; each reads, so it is also how long a former member may go on watching.
_HEARTBEAT_SECONDS = 10.0
_ROWS = 200
# Watchers that are woken together ask within this time, and share one read.
_GATHER_SECONDS = 0.005

_log = structlog.get_logger()

C = TypeVar("C", bound=Command)
# How the events of a dialect are shown.
E = TypeVar("E", bound=View)


class Lag(TypedDict):
    """The members of a heartbeat that say how far a watch is behind: none when all is well."""

    behind_seconds: NotRequired[int]


class Found(NamedTuple, Generic[E]):
    """What was read of the events after a position."""

    events: Sequence[tuple[E, Position]]
    # Those of the watchers who may still see them.
    watchers: Container[Any]
    # Where the reader stopped, if that was before the horizon: there may be more events after it.
    stop: Position | None = None


def found(
    rows: Sequence[Row], show: Callable[[Row], E], watchers: Container[Any], stop: Position | None = None
) -> Found[E]:
    """The events of a statement's rows, which are one row without an event when there is none."""
    seen = [(show(row), Position(int(row["transaction_id"]), row["id"])) for row in rows if row["id"] is not None]
    return Found(seen, watchers, stop)


@dataclass(frozen=True, slots=True)
class Reader(Generic[E]):
    """How one watcher's events are read."""

    # Watchers of the same audience are shown the same events.
    audience: Hashable
    # Reads at most this many events after a position, for these watchers of the audience.
    read: Callable[[Position, int, Sequence[Any]], Awaitable[Found[E]]]
    watcher: Any
    # The failure of a watcher who may not see them any more.
    ended: Callable[[], TicketError]


class EventFeed:
    """Wakes the watchers of one dialect's tickets, in one process, when there may be new events in their scope."""

    def __init__(self, database: Database, table: Table, max_watches: int) -> None:
        """`max_watches` is how many may watch at once."""
        self.database = database
        self._newest_in_scopes = Statement(
            events.newest_in_scopes(table),
            scope=EVERYONE(
                "each process looks for the events of all its watchers at once, and finds only where there are some"
            ),
        )
        self.marks = purged.Marks(database, table)
        # An owner (account, tenant or user) may have a tenth of the watches, each of its callers a twentieth.
        self._shares = Shares("watches", max_watches, max_watches // 10, max_watches // 20, retry_after=5)
        self._subscriptions: dict[Any, set[asyncio.Event]] = {}
        # The read under way and its watchers, by audience and position.
        self._reads: dict[Hashable, tuple[asyncio.Task[Found[Any]], set[Any]]] = {}
        self._horizon: int | None = None
        self._event_at = Statement(
            events.event_at(table),
            scope=EVERYONE("only whether a scope has such an event is asked, by who may watch it"),
        )
        # The newest event that was found, by watched scope.
        self._newest: dict[Any, Position] = {}
        # The servers that the database was on, by epoch; none before the first poll.
        self.servers: tuple[int, ...] = ()
        # When it last polled, by the monotonic clock.
        self._looked_at = 0.0
        # The API, as metrics name it.
        self.name = table.name.removesuffix("_events")
        self._closed = False
        # Set by `attach`; without them a feed has no lag, and nobody is suspended.
        self.event_lag: EventLag | None = None
        self.suspensions: Suspensions | None = None

    def attach(self, event_lag: EventLag, suspensions: Suspensions) -> None:
        """Use what the process knows of event lag and suspensions; called once, before the first watch."""
        self.event_lag, self.suspensions = event_lag, suspensions
        suspensions.on_change.append(lambda: self._wake(self._subscriptions))

    def message(self, binding: str, event: View | None, reached: Position) -> Any:
        """The message of a watch about an event, or a heartbeat, with the cursor after it. Raises TicketError."""
        lag = self._lag() if event is None else {}
        return {"event": event, "cursor": self.cursor(binding, reached), **lag}

    def _lag(self) -> Lag:
        seconds = 0 if self.event_lag is None else int(self.event_lag.seconds())
        return {"behind_seconds": seconds} if seconds else {}

    def __len__(self) -> int:
        """How many watches are open."""
        return len(self._shares)

    def seconds_since_poll(self) -> float:
        """How long ago it last polled for the open watches; 0.0 without any."""
        return time.monotonic() - self._looked_at if self._subscriptions else 0.0

    @contextmanager
    def subscribe(self, scope: Any, caller: Caller) -> Iterator[asyncio.Event]:
        """An asyncio.Event that is set when a scope may have new events. Raises TicketError as Shares.take."""
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
                self._newest.pop(scope, None)

    async def begin(self, scope: Any, start: Start | None) -> Position:
        """Where a watch begins: after the event of its cursor, or after the newest event.

        Raises TicketError `validation_error` for a cursor whose event this database does not have (it is from a server
        that the database was never on, or was written there after the dump that this database is restored from), and
        `cursor_expired` where events after it were deleted.
        """
        await self._look([scope], since=0)
        if start is None:
            # The newest events may be deleted already; it begins after those too.
            return max(self.newest(scope), await self._purged_up_to(scope))
        position = start.position
        is_known = epochs.is_of(position.transaction_id, start.server, self.servers)
        purged_up_to = await self._purged_up_to(scope) if is_known else position
        if position < purged_up_to:
            raise TicketError("cursor_expired")
        if is_known and position > purged_up_to:
            key = {"scope": scope, "transaction_id": str(position.transaction_id), "id": position.id}
            is_known = await self.database.one(self._event_at, key) is not None
        if not is_known:
            raise invalid("query", "cursor", "The events of this cursor are not those of this database", "cursor")
        return position

    async def _purged_up_to(self, scope: Any) -> Position:
        """Up to where its events may have been deleted; `BEFORE_ALL` where none were."""
        return Position(*await self.marks.up_to(scope))

    def newest(self, scope: Any) -> Position:
        """The newest event of a scope that is watched, as of the last look."""
        return self._newest.get(scope, BEFORE_ALL)

    def cursor(self, binding: str, position: Position) -> str:
        """The cursor with which a watch is resumed after a position. Raises TicketError `unavailable`."""
        if not self.servers:
            raise _moved()
        return positions.cursor(binding, position, self.servers[position.epoch])

    async def read(self, reader: Reader[E], position: Position) -> Found[E]:
        """New events after a position: read once for all watchers of an audience that ask at about the same time."""
        key = reader.audience, position
        if key not in self._reads:
            watchers: set[Any] = set()
            read = asyncio.create_task(self._gather(key, reader, position, watchers))
            # When all watchers have left, nobody else retrieves its exception.
            read.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._reads[key] = read, watchers
        task, watchers = self._reads[key]
        watchers.add(reader.watcher)
        # A watcher that leaves does not cancel the read of the others.
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

    def refuse_if_suspended(self, caller: Caller) -> None:
        """Raise TicketError `suspended` for a watcher who was suspended since the watch began."""
        if self.suspensions is not None:
            self.suspensions.refuse(caller)

    async def poll(self) -> None:
        """Look for new events as long as anyone waits for them; runs for good."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if not self._subscriptions:
                self._horizon = None
                continue
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._look_for_all()
            except (TicketError, TimeoutError) as error:
                _log.warning("watch", outcome=getattr(error, "reason", "deadline_exceeded"))
                # A database that has crashed may give ids below this horizon to new transactions: poll from the start.
                self._horizon = None
                # Each watch then reads for itself, and reports its own failure.
                self._wake(self._subscriptions)

    async def _look_for_all(self) -> None:
        since, asked = self._horizon, list(self._subscriptions)
        self._horizon, with_events = await self._look(asked, since or 0)
        # The first poll does not know what came before it, nor does any poll know scopes subscribed meanwhile.
        self._wake(self._subscriptions if since is None else {*with_events, *self._subscriptions.keys() - asked})

    async def _look(self, scopes: Sequence[Any], since: int) -> tuple[int, set[Any]]:
        """Find the newest events of scopes. Returns the horizon, and the scopes with events from a transaction on."""
        rows = await self.database.all(self._newest_in_scopes, {"scopes": scopes, "since": str(since)})
        await self._note_server(epochs.epoch_of(int(rows[0]["horizon"])), rows[0]["server"])
        self._looked_at = time.monotonic()
        with_events = {row["scope"] for row in rows if row["id"] is not None}
        for row in rows:
            if row["scope"] in self._subscriptions and row["id"] is not None:
                seen = Position(int(row["transaction_id"]), row["id"])
                self._newest[row["scope"]] = max(seen, self.newest(row["scope"]))
        return int(rows[0]["horizon"]), with_events

    async def _note_server(self, epoch: int, server: int) -> None:
        """Read which servers the database was on, when this one may be new; then watches that are open end.

        Raises TicketError `unavailable` until `tickets migrate` has recorded this server.
        """
        if self.servers[epoch:] == (server,):
            return
        self._newest.clear()
        rows = await self.database.all(epochs.ALL, {})
        servers = tuple(row["system_identifier"] for row in rows)
        self.servers = servers if servers[epoch:] == (server,) else ()
        self._wake(self._subscriptions)
        if not self.servers:
            raise _moved()

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
    start: Start | None,
    *,
    look_seconds: float = math.inf,
) -> AsyncIterator[tuple[E | None, Position]]:
    """Every event of a scope from a start, or from now on, each with its position; None is a heartbeat.

    Reads at least every `look_seconds`, also when the feed has nothing new. Ends only by raising TicketError: what the
    reader raises, `token_expired`, `suspended`, `cursor_expired` where events after its position were deleted, or
    `unavailable` when the process stops.
    """
    with feed.subscribe(scope, call.caller) as subscription:
        heartbeat_at = last_read_at = time.monotonic()
        is_catching_up = start is not None
        feed.refuse_if_closed()
        position, servers = await feed.begin(scope, start), feed.servers
        while True:
            subscription.clear()
            _refuse_if_over(feed, call, servers)
            newest, read_at = feed.newest(scope), time.monotonic()
            found = await _read(feed, call, reader, position, alone=is_catching_up)
            if is_catching_up or time.monotonic() - last_read_at > purged.SETTLE_SECONDS:
                await feed.marks.refuse_if_before(scope, position)
            last_read_at = read_at
            for view, position in found.events:
                yield view, position
            is_full = len(found.events) == _ROWS
            is_catching_up = is_full or found.stop is not None
            if is_full:
                continue
            # Events in between are not for this watcher.
            position = found.stop or max(position, newest)
            if time.monotonic() >= heartbeat_at:
                yield None, position
                heartbeat_at = _next_tick(_HEARTBEAT_SECONDS)
            if is_catching_up:
                continue
            look_at = min(heartbeat_at, _next_tick(look_seconds))
            await _woken(subscription, look_at - time.monotonic(), call)


def _refuse_if_over(feed: EventFeed, call: Call, servers: tuple[int, ...]) -> None:
    """Raise TicketError when a watch must end: its process stops, its caller is out, or the database has moved."""
    feed.refuse_if_closed()
    feed.refuse_if_suspended(call.caller)
    _refuse_if_expired(call)
    if feed.servers != servers:
        # Resumed, its cursor is compared with the events of the new server.
        raise _moved()


async def _read(feed: EventFeed, call: Call, reader: Reader[E], position: Position, *, alone: bool) -> Found[E]:
    """New events for a watcher. One that is catching up reads `alone`, and waits for a place like any call."""
    if not alone:
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
    """The next multiple of `seconds`: all watches read at these instants, and so can share a read."""
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


def _moved() -> TicketError:
    return TicketError("unavailable", "The database has moved", retry_after=1)
