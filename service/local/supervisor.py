"""Restarts processes that exit, for as long as `tickets up` runs."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

_LOOK_SECONDS: Final = 0.1
# The first pause between an exit and the next start; it doubles each time that the next exit follows at once.
_PAUSE_SECONDS: Final = 0.1
_MAX_PAUSE_SECONDS: Final = 15.0
# An exit later than this does not follow at once.
_STEADY_SECONDS: Final = 10.0


async def supervise(exited: Callable[[], str | None], start: Callable[[], Awaitable[None]]) -> None:
    """Restart a process whenever it has exited, with one line on standard error; runs until it is cancelled.

    `exited` returns one line about how it exited, and None while it runs.
    """
    pause = _PAUSE_SECONDS
    while True:
        started = time.monotonic()
        while (how := exited()) is None:  # noqa: ASYNC110 - an exit sets no event on every system
            await asyncio.sleep(_LOOK_SECONDS)
        pause = next_pause(pause, time.monotonic() - started)
        _say(f"{how}; starting it again in {pause:g} s")
        await asyncio.sleep(pause)
        try:
            await start()
        except (OSError, RuntimeError) as error:
            _say(f"it did not start: {str(error).splitlines()[0]}")


def next_pause(pause: float, lived: float) -> float:
    """The pause before the next start, by the one before the last start and for how long the process lived since."""
    return _PAUSE_SECONDS if lived >= _STEADY_SECONDS else min(pause * 2, _MAX_PAUSE_SECONDS)


def _say(line: str) -> None:
    with suppress(OSError):  # a closed terminal must not end the supervisor
        print(line, file=sys.stderr, flush=True)
