"""Watches: events told as they happen, to callers who stay for them.

Each process asks for all of its watchers at once whether there is anything new, and each watcher then reads its own. A
notification by PostgreSQL would be sooner, but every commit that notifies locks its queue, and writes matter more.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import structlog
from pydantic import Field, TypeAdapter
from sqlalchemy import Table

from service import events, paging
from service.errors import TicketError
from service.fields import Command
from service.operation import Call, View, validated
from service.storage.database import Database
from service.storage.statement import Row, Statement

_ASK_SECONDS = 0.25
# A sign of life this often; also how long one who is no member any more may go on watching.
_SIGN_SECONDS = 10.0
_ROWS = 200

_PLACE: TypeAdapter[tuple[int, int]] = TypeAdapter(
    tuple[Annotated[int, Field(ge=0, lt=2**64)], Annotated[int, Field(ge=0, lt=2**63)]]
)

_log = structlog.get_logger()

C = TypeVar("C", bound=Command)


class Place(NamedTuple):
    """Behind which event a watcher is."""

    transaction_id: int
    id: int


def resumed(cursor: str | None, binding: str) -> Place | None:
    """The place that a cursor says; None without one: from now on. Raises TicketError `validation_error`."""
    return None if cursor is None else Place(*paging.place(cursor, binding, _PLACE))


def behind(place: Place) -> dict[str, Any]:
    """The parameters of `events.news` for a place."""
    return {"after_transaction": str(place.transaction_id), "after_id": place.id}


# Reads the events behind a place, with the transaction up to which they are all there.
Read = Callable[[Place, int], Awaitable[tuple[Sequence[Row], int]]]


class News:
    """Tells the watchers of one kind of tickets, in one process, when there may be something new for them."""

    def __init__(self, database: Database, table: Table, most: int) -> None:
        """`most` is how many may watch at once."""
        self.database = database
        self._ask = Statement(events.any_news(table))
        self._most = most
        self._bells: dict[Any, set[asyncio.Event]] = {}
        self._fence: int | None = None
        self._closed = False

    @contextmanager
    def bell(self, scope: Any) -> Iterator[asyncio.Event]:
        """What rings when there may be news of a scope. Raises TicketError `unavailable` when too many watch."""
        if sum(map(len, self._bells.values())) >= self._most:
            raise TicketError("unavailable", "Too many watch at once", retry_after=5)
        bell = asyncio.Event()
        self._bells.setdefault(scope, set()).add(bell)
        try:
            yield bell
        finally:
            self._bells[scope].remove(bell)
            if not self._bells[scope]:
                del self._bells[scope]

    def close(self) -> None:
        """End every watch: its caller goes on elsewhere."""
        self._closed = True
        self._ring(self._bells)

    def refuse_if_closed(self) -> None:
        """Raise TicketError `unavailable` once the process is about to stop."""
        if self._closed:
            raise TicketError("unavailable", "The server is shutting down", retry_after=1)

    async def watch(self) -> None:
        """Look for news as long as anyone waits for them; runs for good."""
        while True:
            await asyncio.sleep(_ASK_SECONDS)
            if not self._bells:
                self._fence = None
                continue
            try:
                await self._look()
            except TicketError as error:
                _log.warning("watch", outcome=error.reason)
                # They find out for themselves, and tell their callers.
                self._ring(self._bells)

    async def _look(self) -> None:
        since, asked = self._fence, list(self._bells)
        found = await self.database.one(self._ask, {"scopes": asked, "since": str(since or 0)})
        if found is not None:
            self._fence = int(found["fence"])
            # At the first look nobody knows what came before it; and nobody asked for those who came meanwhile.
            self._ring(self._bells if since is None else {*(found["scopes"] or ()), *self._bells.keys() - asked})

    def _ring(self, scopes: Any) -> None:
        for scope in scopes:
            for bell in self._bells.get(scope, ()):
                bell.set()


@dataclass(frozen=True, slots=True)
class Watch(Generic[C]):
    """One use case whose answer goes on: a validated command and a call in, views out as they come."""

    command: type[C]
    run: Callable[[News, Call, C], AsyncIterator[View]]

    def __call__(self, news: News, call: Call, sections: Mapping[str, Any]) -> AsyncIterator[View]:
        """Validate the request's sections and begin. Raises TicketError, also later."""
        return self.run(news, call, validated(self.command, sections))


def watch(command: type[C]) -> Callable[[Callable[[News, Call, C], AsyncIterator[View]]], Watch[C]]:
    """Make an asynchronous generator a watch."""
    return lambda run: Watch(command, run)


async def follow(
    news: News, scope: Any, call: Call, read: Read, place: Place | None, *, look_seconds: float = math.inf
) -> AsyncIterator[tuple[Row | None, Place]]:
    """Every event of a scope from a place on, or from now, each with the place behind it; None is a sign of life.

    Reads at least every `look_seconds`, also when there is no news. Ends by raising TicketError: what `read` raises,
    `token_expired`, or `unavailable` when the process stops.
    """
    with news.bell(scope) as bell:
        sign_at = time.monotonic()
        while True:
            bell.clear()
            news.refuse_if_closed()
            _refuse_if_expired(call)
            rows, fence = await read(place or Place(*events.BEHIND_ALL), _ROWS)
            for row in rows:
                place = Place(int(row["transaction_id"]), row["id"])
                yield row, place
            if len(rows) == _ROWS:
                continue
            # There is nothing more before the fence, and there never will be.
            place = Place(fence, 0)
            if time.monotonic() >= sign_at:
                yield None, place
                sign_at = time.monotonic() + _SIGN_SECONDS
            await _rung(bell, min(sign_at - time.monotonic(), look_seconds), call)


async def _rung(bell: asyncio.Event, seconds: float, call: Call) -> None:
    until = call.caller.expires_at
    left = seconds if until is None else min(seconds, until - time.time())
    with suppress(TimeoutError):
        async with asyncio.timeout(max(left, 0)):
            await bell.wait()


def _refuse_if_expired(call: Call) -> None:
    until = call.caller.expires_at
    if until is not None and time.time() >= until:
        raise TicketError("token_expired")
