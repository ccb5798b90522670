"""Shares one process among its callers: who asks for much waits behind himself.

An account, a tenant, or a user has few places: so many of its calls run at once, and the rest wait, in turns among its
own callers. Reads and writes have places of their own, and together they leave some database connections to the others.
While others call too, one whose calls are slow has a single place, so that what runs for it leaves a processor free.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from typing import Literal, TypeAlias

from service.access.policy import Caller
from service.counters import TURN_WAIT
from service.settings import Settings
from service.shares import Shares

# How long the calls of one owner that run at once may take together, while others call too.
_SECONDS_AT_ONCE = 0.02
# A slow call counts for a third after so long.
_MEMORY_SECONDS = 1.0
# An owner counts as calling for so long after its last call.
_PRESENT_SECONDS = 1.0
# Places of one owner, for its reads and for its writes.
_MAX_PLACES = 32
_MAX_QUEUES = 10_000

Kind: TypeAlias = Literal["read", "write"]
Waiter: TypeAlias = "asyncio.Future[None]"


class OwnerQueue:
    """The reads, or the writes, of one owner."""

    __slots__ = ("_callers", "_places", "_slow_at", "_slow_seconds", "running")

    def __init__(self, places: int) -> None:
        self.running = 0
        self._places = places
        # The calls that wait, by caller: the first caller is next.
        self._callers: OrderedDict[str, deque[Waiter]] = OrderedDict()
        # What the slowest call of late took, and when it ended.
        self._slow_seconds = 0.0
        self._slow_at = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no call runs or waits."""
        return not self.running and not self._callers

    def has_room(self, now: float, *, alone: bool) -> bool:
        """Whether one more may run now; `alone` when nobody else calls."""
        if self.running == 0:
            return True
        if self.running >= self._places:
            return False
        return alone or (self.running + 1) * self._slow(now) <= _SECONDS_AT_ONCE

    def begin_at_once(self, now: float, *, alone: bool) -> bool:
        """Run a call if there is room and none waits."""
        if self._callers or not self.has_room(now, alone=alone):
            return False
        self.running += 1
        return True

    async def wait(self, caller: str) -> None:
        """Wait for a place in the queue of a caller."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._callers.setdefault(caller, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._forget(caller, waiter)
            else:  # a place came at the same moment: it is the next one's
                self.running -= 1
                self._admit(time.monotonic(), alone=False)
            raise

    def end(self, seconds: float, now: float, *, alone: bool) -> None:
        """A call that ran for so long has ended: others may begin."""
        self.running -= 1
        if seconds > self._slow(now):
            self._slow_seconds, self._slow_at = seconds, now
        self._admit(now, alone=alone)

    def _admit(self, now: float, *, alone: bool) -> None:
        while self._callers and self.has_room(now, alone=alone):
            caller, queue = self._callers.popitem(last=False)
            waiter = queue.popleft()
            if queue:
                self._callers[caller] = queue
            if not waiter.done():
                self.running += 1
                waiter.set_result(None)

    def _forget(self, caller: str, waiter: Waiter) -> None:
        queue = self._callers.get(caller)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._callers[caller]

    def _slow(self, now: float) -> float:
        return self._slow_seconds * math.exp((self._slow_at - now) / _MEMORY_SECONDS)


class Fairness:
    """The queues of one process."""

    def __init__(self, settings: Settings) -> None:
        most = settings.max_concurrent_calls
        # One owner's, and one caller's, part of all calls, and of all complete lists that are being read.
        self.calls = Shares("calls", most, most // 4, most * 3 // 16, retry_after=1)
        self.streams = Shares("lists", most // 4, most // 16, most // 16, retry_after=5)
        self._places = min(_MAX_PLACES, max(1, most // 8))
        self._queues: dict[tuple[Kind, object], OwnerQueue] = {}
        self._last: object = None
        self._alone_from = 0.0

    def queue(self, kind: Kind, caller: Caller) -> OwnerQueue:
        """The queue that a caller's calls run in."""
        key = kind, caller.owner
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= _MAX_QUEUES:
                self._queues = {key: queue for key, queue in self._queues.items() if not queue.is_idle}
            queue = self._queues[key] = OwnerQueue(self._places)
        return queue

    def note(self, caller: Caller, now: float) -> None:
        """A caller calls."""
        owner = caller.owner
        if owner != self._last:
            self._last, self._alone_from = owner, now + _PRESENT_SECONDS

    def is_alone(self, now: float) -> bool:
        """Whether all calls of late were of one owner."""
        return now >= self._alone_from


class CallPlace:
    """One call's place. It may be given back and taken again, around what the call waits for elsewhere."""

    __slots__ = ("_began", "_counted", "_fairness", "_held", "_queue", "caller")

    def __init__(self, fairness: Fairness, kind: Kind, caller: Caller) -> None:
        self._fairness, self.caller = fairness, caller
        self._queue = fairness.queue(kind, caller)
        self._counted: Shares | None = None
        self._held = False
        self._began = 0.0

    def count_call(self) -> None:
        """Count it among the calls in flight until `end`. Raises TicketError as Shares.take."""
        self._fairness.calls.take(self.caller)
        self._counted = self._fairness.calls

    def count_stream(self) -> None:
        """Count it among the lists that are being read until `end`. Raises TicketError as Shares.take."""
        self._fairness.streams.take(self.caller)
        self._counted = self._fairness.streams

    async def take(self) -> None:
        """Wait for a place."""
        fairness, now = self._fairness, time.monotonic()
        fairness.note(self.caller, now)
        if not self._queue.begin_at_once(now, alone=fairness.is_alone(now)):
            await self._queue.wait(self.caller.subject)
            since, now = now, time.monotonic()
            TURN_WAIT.observe(now - since)
        self._held, self._began = True, now

    def give_back(self) -> None:
        """Let the next call begin; does nothing without a place."""
        if self._held:
            self._held = False
            now = time.monotonic()
            self._queue.end(now - self._began, now, alone=self._fairness.is_alone(now))

    def end(self) -> None:
        """The call has ended."""
        self.give_back()
        if self._counted is not None:
            self._counted.give_back(self.caller)
            self._counted = None
