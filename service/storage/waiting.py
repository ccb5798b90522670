"""The queue for database connections: first come, first served, but no owner has more than a share of them."""

import asyncio
from collections import Counter, deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from service.storage.connection import PooledConnection

# The owner of this call: an account, a tenant or a user. None for background work, to which no share applies.
OWNER: ContextVar[object] = ContextVar("owner", default=None)

# Connections that writes leave to reads.
_FOR_READS = 2


class Waiting(NamedTuple):
    """A call that waits for a connection."""

    owner: object
    writes: bool
    waiter: "asyncio.Future[PooledConnection]"


class ConnectionQueue:
    """The waiting calls, and the shares of those that hold a connection."""

    def __init__(self, size: int) -> None:
        """`size` is the number of connections that calls share."""
        self._max_writing = max(1, size - _FOR_READS)
        self._share = max(1, (size + 1) // 2)
        self._waiting: deque[Waiting] = deque()
        self._writing = 0
        self._held: Counter[object] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def admits(self, owner: object, *, writes: bool) -> bool:
        """Whether the owner may have one more. Writes, which wait for each other's locks, leave some to reads."""
        if writes and self._writing >= self._max_writing:
            return False
        return owner is None or self._held[owner] < self._share

    def mark(self, connection: "PooledConnection", owner: object, *, writes: bool) -> None:
        """Count a connection as the owner's until `unmark`."""
        connection.in_use, connection.owner, connection.writes = True, owner, writes
        self._writing += writes
        if owner is not None:
            self._held[owner] += 1

    def unmark(self, connection: "PooledConnection") -> None:
        """Count it no more."""
        self._writing -= connection.writes
        owner = connection.owner
        if owner is not None:
            if self._held[owner] > 1:
                self._held[owner] -= 1
            else:
                del self._held[owner]
        connection.in_use, connection.owner, connection.writes = False, None, False

    def add(self, waiting: Waiting) -> None:
        """Append a waiting call."""
        self._waiting.append(waiting)

    def discard(self, waiting: Waiting) -> None:
        """Remove a call, if it still waits."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def pop(self) -> Waiting | None:
        """Remove and return the first call that may have a connection now."""
        for waiting in self._waiting:
            if self.admits(waiting.owner, writes=waiting.writes):
                self._waiting.remove(waiting)
                return waiting
        return None

    def pop_all(self) -> list[Waiting]:
        """Remove and return all waiting calls."""
        waiting = [*self._waiting]
        self._waiting.clear()
        return waiting
