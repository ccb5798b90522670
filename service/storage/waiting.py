"""Who waits for a database connection, and who is next: in order, but no owner takes more than a share of them."""

import asyncio
from collections import Counter, deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from service.storage.connection import PooledConnection

# Whose call this is: an account, a tenant, a user. None: nobody's, as in the background, which has a share of its own.
OWNER: ContextVar[object] = ContextVar("owner", default=None)

# Places that writes leave to reads.
_FOR_READS = 2


class Waiting(NamedTuple):
    """One who waits for a connection."""

    owner: object
    writes: bool
    waiter: "asyncio.Future[PooledConnection]"


class ConnectionQueue:
    """Those who wait, and who may have a connection."""

    def __init__(self, size: int) -> None:
        """`size` is of the connections that calls share."""
        self._max_writing = max(1, size - _FOR_READS)
        self._share = max(1, (size + 1) // 2)
        self._waiting: deque[Waiting] = deque()
        self._writing = 0
        self._held: Counter[object] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def admits(self, owner: object, *, writes: bool) -> bool:
        """Whether one more connection may be the owner's. Writes wait for each other's rows, and must leave some."""
        if writes and self._writing >= self._max_writing:
            return False
        return owner is None or self._held[owner] < self._share

    def mark(self, connection: "PooledConnection", owner: object, *, writes: bool) -> None:
        """A connection is the owner's until `unmark`."""
        connection.in_use, connection.owner, connection.writes = True, owner, writes
        self._writing += writes
        if owner is not None:
            self._held[owner] += 1

    def unmark(self, connection: "PooledConnection") -> None:
        """It is nobody's any more."""
        self._writing -= connection.writes
        owner = connection.owner
        if owner is not None:
            if self._held[owner] > 1:
                self._held[owner] -= 1
            else:
                del self._held[owner]
        connection.in_use, connection.owner, connection.writes = False, None, False

    def add(self, waiting: Waiting) -> None:
        """One more waits."""
        self._waiting.append(waiting)

    def discard(self, waiting: Waiting) -> None:
        """One waits no longer, if it did."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def pop(self) -> Waiting | None:
        """The first of those who wait that may have a connection now."""
        for waiting in self._waiting:
            if self.admits(waiting.owner, writes=waiting.writes):
                self._waiting.remove(waiting)
                return waiting
        return None

    def pop_all(self) -> list[Waiting]:
        """All who wait."""
        waiting = [*self._waiting]
        self._waiting.clear()
        return waiting
