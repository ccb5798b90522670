"""Background work: repeated in every process, and safe when many processes do it at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import structlog

from service.errors import TicketError
from service.storage.database import Database

# A turn in which no statement was answered for this long is cancelled. Longer than a statement, or a call to a provider
# or a receiver, may take.
_STALLED_SECONDS = 60.0
_CANCEL_SECONDS = 5.0
_PAUSE_SECONDS = 1.0

_log = structlog.get_logger()


class Periodic(NamedTuple):
    """Work that is done again and again, with a pause of `seconds` in between."""

    name: str
    seconds: float
    work: Callable[[Database], Awaitable[None]]


class StalledError(Exception):
    """A turn of periodic work makes no progress."""


class Background:
    """The periodic work of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # When the work last succeeded, by its name, in seconds since 1970; 0 for never.
        self.last_success: dict[str, float] = {}

    async def repeat(self, periodic: Periodic) -> None:
        """Pause, do the work, and again, until cancelled. What fails is logged, and tried again in its turn."""
        name, seconds, _ = periodic
        self.last_success[name] = 0.0
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._turn(periodic)
            except TicketError as error:
                _log.warning("background", work=name, outcome=error.reason)
            except StalledError:
                _log.error("background", work=name, outcome="stalled")
            except Exception:
                # One bad turn must not end all that follow.
                _log.exception("background", work=name, outcome="internal")

    async def _turn(self, periodic: Periodic) -> None:
        """Do the work once. Raises StalledError."""
        database = self._database.without_lock_timeout()
        turn = asyncio.ensure_future(periodic.work(database))
        answered = 0
        try:
            # Some work goes on as long as there is something to do: each answered statement is progress.
            while not (await asyncio.wait([turn], timeout=_STALLED_SECONDS))[0]:
                if database.answered == answered:
                    raise StalledError
                answered = database.answered
                self.last_success[periodic.name] = time.time()
            await turn
            # Some work returns without an error when the database is unavailable: that is no success.
            if database.answered:
                self.last_success[periodic.name] = time.time()
        finally:
            if not turn.done():
                turn.cancel()
                await asyncio.wait([turn], timeout=_CANCEL_SECONDS)


async def keep(work: Callable[[], Awaitable[None]]) -> None:
    """Run work that never ends; should it fail, the failure is logged, and it is started again."""
    while True:
        try:
            await work()
        except Exception:
            # Nobody else would notice that it has ended.
            _log.exception("background", work=work.__qualname__, outcome="internal")
        await asyncio.sleep(_PAUSE_SECONDS)


@asynccontextmanager
async def paced(share: float) -> AsyncIterator[None]:
    """Run a step of long work, and pause after it for a share of the time that it took.

    So the busier a machine is, the longer the pauses, and the more of it is left to callers.
    """
    begun = time.perf_counter()
    yield
    await asyncio.sleep(share * (time.perf_counter() - begun))


async def cancel(task: "asyncio.Task[None]") -> None:
    """Cancel work that never ends."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
