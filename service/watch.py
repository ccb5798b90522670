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
# The longest that a look may take.
_LOOK_SECONDS = 5.0
# A heartbeat this often; also how long a former member may go on watching.
_HEARTBEAT_SECONDS = 10.0
_ROWS = 200
# Those who are woken together ask within this time.
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
    # Who of the watchers may still see them.
    watchers: Container[Any]
    # Where the reader stopped, if before the horizon, though there may be more.
    stop: Position | None = None


def found(
    rows: Sequence[Row], show: Callable[[Row], E], watchers: Container[Any], stop: Position | None = None
) -> Found[E]:
    """What the rows of a statement are: events, or one row without any."""
    seen = [(show(row), Position(int(row["transaction_id"]), row["id"])) for row in rows if row["id"] is not None]
    return Found(seen, watchers, stop)


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
        self._newest_in_scopes = Statement(
            events.newest_in_scopes(table),
            scope=EVERYONE(
                "each process looks for the events of all its watchers at once, and finds only where there are some"
            ),
        )
        self.marks = purged.Marks(database, table)
        # An account's, a tenant's or a user's part, and that of each of its callers.
        self._shares = Shares("watches", max_watches, max_watches // 10, max_watches // 20, retry_after=5)
        self._subscriptions: dict[Any, set[asyncio.Event]] = {}
        # What is being read, and for whom.
        self._reads: dict[Hashable, tuple[asyncio.Task[Found[Any]], set[Any]]] = {}
        self._horizon: int | None = None
        self._event_at = Statement(
            events.event_at(table),
            scope=EVERYONE("only whether a scope has such an event is asked, by who may watch it"),
        )
        # The newest event that was seen in a scope that is watched.
        self._newest: dict[Any, Position] = {}
        # On which servers the database was, by epoch; none before the first look.
        self.servers: tuple[int, ...] = ()
        # When it last looked for any; by whose name.
        self._looked_at = 0.0
        self.name = table.name.removesuffix("_events")
        self._closed = False
        # That of the process; one that has none, all is well.
        self.event_lag: EventLag | None = None
        self.suspensions: Suspensions | None = None

    def attach(self, event_lag: EventLag, suspensions: Suspensions) -> None:
        """Heed what the process knows: how far it is behind, and who is suspended."""
        self.event_lag, self.suspensions = event_lag, suspensions
        suspensions.on_change.append(lambda: self._wake(self._subscriptions))

    def lag(self) -> Lag:
        """What the heartbeats of now say of it."""
        seconds = 0 if self.event_lag is None else int(self.event_lag.seconds())
        return {"behind_seconds": seconds} if seconds else {}

    def __len__(self) -> int:
        """How many watches are open."""
        return len(self._shares)

    def behind_seconds(self) -> float:
        """How long ago it looked for news of the watches that are open; 0.0 without any."""
        return time.monotonic() - self._looked_at if self._subscriptions else 0.0

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
                self._newest.pop(scope, None)

    async def begin(self, scope: Any, start: Start | None) -> Position:
        """Where a watch begins: after what its cursor says, or after the newest event of now.

        Raises TicketError `validation_error` for a cursor after an event that this database does not have: of a server
        that it was not on, or written there after the dump that it was made of; `cursor_expired` where events after it
        were deleted.
        """
        await self._look([scope], since=0)
        if start is None:
            # Where the newest of all were deleted, it begins after those.
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
        """What is new after a position: read and shown once for all of an audience who ask at about the same time."""
        key = reader.audience, position
        if key not in self._reads:
            watchers: set[Any] = set()
            read = asyncio.create_task(self._gather(key, reader, position, watchers))
            # When all who asked have left, nobody else takes note of its failure.
            read.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._reads[key] = read, watchers
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
                # The database may have crashed, and transactions that it forgot have no events: look at all again.
                self._horizon = None
                # Each watch then reads for itself, and reports its own failure.
                self._wake(self._subscriptions)

    async def _look_for_all(self) -> None:
        since, asked = self._horizon, list(self._subscriptions)
        self._horizon, with_events = await self._look(asked, since or 0)
        # The first look does not know what came before it, nor does any look know of scopes subscribed meanwhile.
        self._wake(self._subscriptions if since is None else {*with_events, *self._subscriptions.keys() - asked})

    async def _look(self, scopes: Sequence[Any], since: int) -> tuple[int, set[Any]]:
        """Learn the newest events of scopes. Returns the horizon, and which have events from a transaction on."""
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
        """Learn on which servers the database was, when that may be new, which ends the watches of before.

        Raises TicketError `unavailable` before `tickets migrate` has noted this server.
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

    Reads at least every `look_seconds`, also when the feed is silent. Ends by raising TicketError: what the reader
    raises, `token_expired`, `suspended`, `cursor_expired` where events after it were deleted, or `unavailable` when the
    process stops.
    """
    with feed.subscribe(scope, call.caller) as subscription:
        heartbeat_at = read_at = time.monotonic()
        behind = start is not None
        feed.refuse_if_closed()
        position, servers = await feed.begin(scope, start), feed.servers
        while True:
            subscription.clear()
            feed.refuse_if_closed()
            feed.refuse_if_suspended(call.caller)
            _refuse_if_expired(call)
            if feed.servers != servers:
                # Resumed, its cursor is compared with the events of the new server.
                raise _moved()
            newest = feed.newest(scope)
            reads_at = time.monotonic()
            found = await _read(feed, call, reader, position, behind=behind)
            if behind or time.monotonic() - read_at > purged.SETTLE_SECONDS:
                await feed.marks.refuse_if_before(scope, position)
            read_at = reads_at
            for view, position in found.events:
                yield view, position
            is_full = len(found.events) == _ROWS
            behind = is_full or found.stop is not None
            if is_full:
                continue
            # What lies between is not for this watcher.
            position = found.stop or max(position, newest)
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


def _moved() -> TicketError:
    return TicketError("unavailable", "The database has moved", retry_after=1)
