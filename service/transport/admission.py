"""Admission control of one process: how many calls may be in flight at once, and how long each may take."""

import asyncio
import random
from typing import Any, TypeAlias

from service.errors import TicketError
from service.transport.queue_probe import QueueProbe

# A look at every call this often costs a fraction of a timer for each.
_LOOK_SECONDS = 0.02
_TOO_MANY = "Too many calls at once"
_COME_BACK_SECONDS = (1, 5)

Task: TypeAlias = "asyncio.Task[Any]"


class AdmissionControl:
    """Refuses a call beyond the most that may be in flight, so that those in flight are answered in time."""

    def __init__(self, max_calls: int, probe: QueueProbe) -> None:
        self._max_calls = max_calls
        self._probe = probe
        # By the loop's clock.
        self._until: dict[Task, float] = {}
        self._overdue: set[Task] = set()

    def __len__(self) -> int:
        return len(self._until)

    def refuse_if_too_many(self) -> None:
        """Raise TicketError `unavailable` if there are as many as may be, or calls already wait for too long."""
        # Not for the gateway to try elsewhere, though nothing was begun: it spreads calls, so all are as busy.
        if len(self._until) >= self._max_calls:
            raise TicketError("unavailable", _TOO_MANY, retry_after=1)
        if self._probe.is_too_high():
            # Not all at the same moment.
            seconds = random.randint(*_COME_BACK_SECONDS)  # noqa: S311 - spreads them, guards nothing
            raise TicketError("unavailable", _TOO_MANY, retry_after=seconds)

    def begin(self, seconds: float) -> Task:
        """Take up the call of the current task, which is cancelled after so many seconds.

        Raises TicketError as `refuse_if_too_many`.
        """
        self.refuse_if_too_many()
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
        """Whether a call was cancelled for its time being over, and not by its caller."""
        return task in self._overdue

    async def cancel_overdue(self) -> None:
        """Cancel calls whose time is over; runs as long as the process serves."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            for task in [task for task, until in self._until.items() if until <= now and task not in self._overdue]:
                self._overdue.add(task)
                task.cancel()
