"""Shares one process among its callers: the calls of one owner queue behind each other.

An account, a tenant, or a user has a few places: that many of its calls run at once, and the rest wait, in turns among
its own callers. Reads and writes have places of their own, and together they leave some database connections to others.

While other owners call too: an owner whose calls are slow has fewer places, at least one, so that a processor is left
to the others. And when an owner's calls arrive in a burst, none starts until the burst is over, as another owner's call
may be queued behind it.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from service.access.policy import Caller
from service.counters import TURN_WAIT
from service.settings import Settings
from service.shares import Shares

# What the running calls of one owner may take together, by its slowest recent call, while others call too. A list takes
# two to five milliseconds, so one runs at a time; of quicker calls several run at once, and share batches.
_SECONDS_AT_ONCE = 0.005
# After this time a slow call counts for a third.
_MEMORY_SECONDS = 1.0
# For how long after its last call an owner counts as one that calls.
_PRESENT_SECONDS = 1.0
# Places of one owner, for its reads and for its writes.
_MAX_PLACES = 32
_MAX_QUEUES = 10_000
# This many calls of an owner are a crowd, if each waits and came within the gap after the one before. Calls of a crowd
# are held back until no more come, for at most the last of these.
_CROWD = 4
_CROWD_GAP_SECONDS = 0.002
_CROWD_SECONDS = 0.03
# A place is kept for a message that is not there for as long as this, and twice that at most.
_MESSAGE_SECONDS = 0.01

Kind: TypeAlias = Literal["read", "write"]
Waiter: TypeAlias = "asyncio.Future[None]"


class OwnerQueue:
    """The reads, or the writes, of one owner."""

    __slots__ = (
        "_callers",
        "_crowd",
        "_crowd_from",
        "_is_alone",
        "_last_came",
        "_look_again",
        "_places",
        "_slow_at",
        "_slow_seconds",
        "running",
    )

    def __init__(self, places: int, is_alone: Callable[[float], bool]) -> None:
        """`is_alone` says whether nobody else calls."""
        self.running = 0
        self._places = places
        self._is_alone = is_alone
        # The calls that wait, by caller: the first caller is next.
        self._callers: OrderedDict[str, deque[Waiter]] = OrderedDict()
        # What the slowest call of late took, and when it ended.
        self._slow_seconds = 0.0
        self._slow_at = 0.0
        # How many of the waiting calls came one soon after the other, since when, and when the last one came.
        self._crowd = 0
        self._crowd_from = 0.0
        self._last_came = 0.0
        # While a crowd is held back.
        self._look_again: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no call runs or waits."""
        return not self.running and not self._callers

    def begin_at_once(self, now: float) -> bool:
        """Run a call if there is room and none waits."""
        if self._callers or not self._has_room(now):
            return False
        self.running += 1
        return True

    async def wait(self, caller: str, now: float) -> None:
        """Wait for a place in the queue of a caller."""
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        self._callers.setdefault(caller, deque()).append(waiter)
        self._note_waiter(now, loop)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._forget(caller, waiter)
            else:  # a place came at the same moment: it is the next one's
                self.running -= 1
                self._admit(time.monotonic())
            raise

    def end(self, seconds: float, now: float) -> None:
        """A call that ran for `seconds` has ended: others may begin."""
        self.running -= 1
        if seconds > self._slow(now):
            self._slow_seconds, self._slow_at = seconds, now
        self._admit(now)

    def _has_room(self, now: float) -> bool:
        if self.running >= self._places:
            return False
        if self._is_alone(now):
            return True
        if self._is_crowded(now):
            return False
        return self.running == 0 or (self.running + 1) * self._slow(now) <= _SECONDS_AT_ONCE

    def _admit(self, now: float) -> None:
        while self._callers and self._has_room(now):
            caller, queue = self._callers.popitem(last=False)
            waiter = queue.popleft()
            if queue:
                self._callers[caller] = queue
            if not waiter.done():
                self.running += 1
                self._crowd -= 1
                waiter.set_result(None)

    def _forget(self, caller: str, waiter: Waiter) -> None:
        queue = self._callers.get(caller)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._callers[caller]

    def _note_waiter(self, now: float, loop: asyncio.AbstractEventLoop) -> None:
        if now >= self._last_came + _CROWD_GAP_SECONDS:
            self._crowd, self._crowd_from = 0, now
        self._crowd += 1
        self._last_came = now
        if self._look_again is None and self._is_crowded(now):
            self._look_again = loop.call_later(_CROWD_GAP_SECONDS, self._look, loop)

    def _is_crowded(self, now: float) -> bool:
        return self._crowd >= _CROWD and now < min(
            self._last_came + _CROWD_GAP_SECONDS, self._crowd_from + _CROWD_SECONDS
        )

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        self._admit(now)
        is_held = self._callers and self._is_crowded(now)
        self._look_again = loop.call_later(_CROWD_GAP_SECONDS, self._look, loop) if is_held else None

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
        self.late = LateMessages()
        self._last: object = None
        self._alone_from = 0.0

    def queue(self, kind: Kind, caller: Caller) -> OwnerQueue:
        """The queue that a caller's calls run in."""
        key = kind, caller.owner
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= _MAX_QUEUES:
                self._queues = {key: queue for key, queue in self._queues.items() if not queue.is_idle}
            queue = self._queues[key] = OwnerQueue(self._places, self.is_alone)
        return queue

    def note(self, caller: Caller, now: float) -> None:
        """Record which owner calls, for `is_alone`."""
        owner = caller.owner
        if owner != self._last:
            self._last, self._alone_from = owner, now + _PRESENT_SECONDS

    def is_alone(self, now: float) -> bool:
        """Whether all calls of late were of one owner."""
        return now >= self._alone_from


class LateMessages:
    """Takes the places of calls whose messages do not come, so that those behind them need not wait for a slow sender.

    One timer looks at all calls, and none runs while all messages are there at once.
    """

    def __init__(self) -> None:
        # Those that wait for their messages since the last look, and since before it.
        self._new: set[CallPlace] = set()
        self._old: set[CallPlace] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, place: "CallPlace") -> None:
        """A call waits for its message."""
        self._new.add(place)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MESSAGE_SECONDS, self._look)

    def forget(self, place: "CallPlace") -> None:
        """The message has come, or the call has ended."""
        self._new.discard(place)
        self._old.discard(place)

    def _look(self) -> None:
        for place in self._old:
            place.give_back_unused()
        self._old, self._new = self._new, set()
        is_needed = bool(self._old)
        self._timer = asyncio.get_running_loop().call_later(_MESSAGE_SECONDS, self._look) if is_needed else None


class CallPlace:
    """One call's place. It may be given back and taken again, around what the call waits for elsewhere."""

    __slots__ = ("_began", "_counted", "_fairness", "_held", "_queue", "caller", "kind")

    def __init__(self, fairness: Fairness, kind: Kind, caller: Caller) -> None:
        self._fairness, self.kind, self.caller = fairness, kind, caller
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

    def has_average_share(self) -> bool:
        """Whether its owner has as many calls in flight as others have, or more."""
        return self._fairness.calls.has_average_share(self.caller)

    async def take(self) -> None:
        """Wait for a place."""
        fairness, now = self._fairness, time.monotonic()
        fairness.note(self.caller, now)
        if not self._queue.begin_at_once(now):
            await self._queue.wait(self.caller.subject, now)
            since, now = now, time.monotonic()
            TURN_WAIT.observe(now - since)
        self._held, self._began = True, now

    async def read(self, message: Awaitable[bytes]) -> bytes:
        """The call's message, for which it has a place. A late one comes without, and then waits for a place anew."""
        late = self._fairness.late
        late.watch(self)
        try:
            data = await message
        finally:
            late.forget(self)
        if self._held:
            self._began = time.monotonic()
        else:
            await self.take()
        return data

    def give_back(self) -> None:
        """Let the next call begin; does nothing without a place."""
        if self._held:
            self._held = False
            now = time.monotonic()
            self._queue.end(now - self._began, now)

    def give_back_unused(self) -> None:
        """Let the next call begin before this one has: it was not slow."""
        self._began = time.monotonic()
        self.give_back()

    def end(self) -> None:
        """The call has ended."""
        self.give_back()
        if self._counted is not None:
            self._counted.give_back(self.caller)
            self._counted = None
