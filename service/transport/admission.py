"""Admission control of one process: how many calls may be in flight at once, and how long each may take."""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from service.counters import SHED
from service.errors import TicketError
from service.transport.queue_probe import QueueProbe

# Checking every call this often costs a fraction of a timer for each.
_CHECK_SECONDS = 0.02
_OVERLOADED = "The service is overloaded; retry later"
_STOPPING = "The server is shutting down"
_RETRY_AFTER_SECONDS = (1, 5)
_NOT_SERVING, _IN_FLIGHT, _QUEUE = (SHED.labels(reason) for reason in ("not_serving", "in_flight", "queue"))

Task: TypeAlias = "asyncio.Task[Any]"


class AdmissionControl:
    """Rejects calls beyond a limit of calls in flight, so that those in flight are answered in time."""

    def __init__(self, max_calls: int, probe: QueueProbe) -> None:
        self._max_calls = max_calls
        self._probe = probe
        # By the loop's clock.
        self._until: dict[Task, float] = {}
        self._cancelled: dict[Task, TicketError] = {}
        # They last as long as their callers read, so they are not counted.
        self._streams: set[Task] = set()
        # Whether the process can serve any call.
        self._is_serving = True
        # While calls and answers are held back.
        self._gate: asyncio.Event | None = None
        self._held = 0

    def __len__(self) -> int:
        return len(self._until)

    @property
    def queue_seconds(self) -> float:
        """How long calls queue before they are started."""
        return self._probe.seconds

    def set_serving(self, is_serving: bool) -> None:
        """Admit calls from now on, or none: the process has nothing to answer them from."""
        self._is_serving = is_serving

    def reject_if_overloaded(self) -> None:
        """Raise TicketError `unavailable` at the limit, or when no call is served."""
        if not self._is_serving:
            _NOT_SERVING.inc()
            # A process of another version may serve it.
            raise TicketError("unavailable", retry_after=1, begun=False)
        # Not marked as safe to retry elsewhere, though nothing was begun: the gateway balances, so all are as busy.
        if len(self._until) >= self._max_calls:
            _IN_FLIGHT.inc()
            raise TicketError("unavailable", _OVERLOADED, retry_after=1)

    def reject_if_queued(self, has_average_share: Callable[[], bool]) -> None:
        """Raise TicketError `unavailable` for some calls when calls queue for too long.

        Not for one whose owner has fewer calls in flight than others have on average.
        """
        if self._probe.is_long and has_average_share() and self._probe.should_reject():
            _QUEUE.inc()
            # Spread, so that they do not all come back at the same moment.
            seconds = random.randint(*_RETRY_AFTER_SECONDS)  # noqa: S311 - spreads them, guards nothing
            raise TicketError("unavailable", _OVERLOADED, retry_after=seconds)

    def begin(self, seconds: float) -> Task:
        """Admit the call of the current task, which is cancelled after `seconds`.

        Raises TicketError as `reject_if_overloaded`.
        """
        self.reject_if_overloaded()
        task = _current_task()
        self._until[task] = asyncio.get_running_loop().time() + seconds
        return task

    def begin_stream(self) -> Task:
        """Admit the stream of the current task. Raises TicketError as `reject_if_overloaded`."""
        self.reject_if_overloaded()
        task = _current_task()
        self._streams.add(task)
        return task

    def until(self, task: Task) -> float:
        """When a call is cancelled, by the loop's clock."""
        return self._until[task]

    def end(self, task: Task) -> None:
        """The call or stream has ended."""
        self._until.pop(task, None)
        self._streams.discard(task)
        self._cancelled.pop(task, None)

    async def finish(self, task: Task) -> None:
        """The call has its answer, which no deadline replaces from now on: the first part of it may be on its way.

        Waits while answers are held back.
        """
        self._until.pop(task, None)
        if task in self._cancelled and task.cancelling():
            # Its cancellation has not arrived yet.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            task.uncancel()
        if self._gate is not None:
            await self.wait_while_held()

    def failure_of(self, task: Task) -> TicketError | None:
        """Why a call was cancelled: its deadline passed, or the process stops. None: its caller left."""
        return self._cancelled.get(task)

    async def cancel_overdue(self) -> None:
        """Cancel calls whose deadline has passed; runs as long as the process serves."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            now = asyncio.get_running_loop().time()
            self._cancel([task for task, until in self._until.items() if until <= now], "deadline_exceeded")

    async def wait_while_held(self) -> None:
        """Return at once, but while calls and answers are held back."""
        if self._gate is not None:
            self._held += 1
            await self._gate.wait()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold back the calls that arrive, and the answers, until the block ends."""
        self._gate = asyncio.Event()
        try:
            yield
        finally:
            self._gate.set()
            self._gate = None

    async def wait_until_quiet(self, seconds: float) -> None:
        """Return when all callers wait, as far as can be seen: nothing more was held back for `seconds`."""
        before = -1
        while before != self._held:
            before = self._held
            await asyncio.sleep(seconds)

    def cancel_all(self) -> None:
        """Cancel every call and stream, because the process stops."""
        self._cancel([*self._until, *self._streams], "unavailable", _STOPPING, retry_after=1)

    def _cancel(self, tasks: Iterable[Task], *failure: Any, **more: Any) -> None:
        for task in tasks:
            if task not in self._cancelled:
                self._cancelled[task] = TicketError(*failure, **more)
                task.cancel()


def _current_task() -> Task:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a call runs in a task")
    return task
