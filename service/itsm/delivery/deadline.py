"""Until when an attempt may call its provider."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Deadline:
    """An instant of the loop's clock: the last one at all, or an earlier one that moves as a lease is renewed."""

    def __init__(self, last: float, until: float | None = None) -> None:
        """`until` is that of the lease; None where the lease lasts long enough."""
        self.last = last
        self._timer: asyncio.Timeout | None = None
        self.at = last if until is None else min(last, until)

    def extend(self, until: float) -> None:
        """Move it as far as the lease allows now."""
        self.at = min(self.last, until)
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(self.at)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """What is done in it ends by then, with TimeoutError."""
        async with asyncio.timeout_at(self.at) as timer:
            self._timer = timer
            try:
                yield
            finally:
                self._timer = None
