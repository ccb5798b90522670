"""Admission control of one process: how many calls may be in flight at once, and how long each may take."""

import asyncio
import random
from typing import Any, TypeAlias

from service.errors import TicketError
from service.transport.queue_probe import QueueProbe

# Checking every call this often costs a fraction of a timer for each.
_CHECK_SECONDS = 0.02
_OVERLOADED = "The service is overloaded; retry later"
_RETRY_AFTER_SECONDS = (1, 5)

Task: TypeAlias = "asyncio.Task[Any]"


class AdmissionControl:
    """Rejects calls beyond a limit of calls in flight, so that those in flight are answered in time."""

    def __init__(self, max_calls: int, probe: QueueProbe) -> None:
        self._max_calls = max_calls
        self._probe = probe
        # By the loop's clock.
        self._until: dict[Task, float] = {}
        self._overdue: set[Task] = set()

    def __len__(self) -> int:
        return len(self._until)

    def reject_if_overloaded(self) -> None:
        """Raise TicketError `unavailable` at the limit, or when calls already queue for too long."""
        # Not marked as safe to retry elsewhere, though nothing was begun: the gateway balances, so all are as busy.
        if len(self._until) >= self._max_calls:
            raise TicketError("unavailable", _OVERLOADED, retry_after=1)
        if self._probe.is_too_high():
            # Spread, so that they do not all come back at the same moment.
            seconds = random.randint(*_RETRY_AFTER_SECONDS)  # noqa: S311 - spreads them, guards nothing
            raise TicketError("unavailable", _OVERLOADED, retry_after=seconds)

    def begin(self, seconds: float) -> Task:
        """Admit the call of the current task, which is cancelled after so many seconds.

        Raises TicketError as `reject_if_overloaded`.
        """
        self.reject_if_overloaded()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        self._until[task] = asyncio.get_running_loop().time() + seconds
        return task

    def until(self, task: Task) -> float:
        """When a call is cancelled, by the loop's clock."""
        return self._until[task]

    def end(self, task: Task) -> None:
        """The call has ended."""
        del self._until[task]
        self._overdue.discard(task)

    def is_overdue(self, task: Task) -> bool:
        """Whether a call was cancelled because its deadline passed, and not by its caller."""
        return task in self._overdue

    async def cancel_overdue(self) -> None:
        """Cancel calls whose deadline has passed; runs as long as the process serves."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            now = asyncio.get_running_loop().time()
            for task in [task for task, until in self._until.items() if until <= now and task not in self._overdue]:
                self._overdue.add(task)
                task.cancel()
