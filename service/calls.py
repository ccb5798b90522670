"""The calls in hand of one process: how many there may be at once, and how long each may take."""

import asyncio
from typing import Any, TypeAlias

from service.errors import TicketError

# A look at every call this often costs a fraction of a timer for each.
_LOOK_SECONDS = 0.02

Task: TypeAlias = "asyncio.Task[Any]"


class CallsInHand:
    """A call beyond the most that there may be is refused at once: those in hand are answered in time that way."""

    def __init__(self, most: int) -> None:
        self._most = most
        # By the loop's clock.
        self._until: dict[Task, float] = {}
        self._overdue: set[Task] = set()

    def __len__(self) -> int:
        return len(self._until)

    def begin(self, seconds: float) -> Task:
        """Take up the call of the current task, which is cancelled after so many seconds.

        Raises TicketError `unavailable` when there are as many as there may be.
        """
        if len(self._until) >= self._most:
            raise TicketError("unavailable", "Too many calls at once", retry_after=1, begun=False)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - gRPC runs each call in a task
        self._until[task] = asyncio.get_running_loop().time() + seconds
        return task

    def end(self, task: Task) -> None:
        """The call has ended."""
        del self._until[task]
        self._overdue.discard(task)

    def is_overdue(self, task: Task) -> bool:
        """Whether a call was cancelled for its time being over, and not by its caller."""
        return task in self._overdue

    async def watch(self) -> None:
        """Cancel calls whose time is over; runs as long as the process serves."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            for task in [task for task, until in self._until.items() if until <= now and task not in self._overdue]:
                self._overdue.add(task)
                task.cancel()
