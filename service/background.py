"""Work that nobody waits for: repeated in every process, safe when many do it at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from service.errors import TicketError
from service.storage.database import Database

_log = structlog.get_logger()


class Periodic(NamedTuple):
    """Work that is done again and again, with a pause of so many seconds in between."""

    seconds: float
    work: Callable[[Database], Awaitable[None]]


async def repeat(periodic: Periodic, database: Database) -> None:
    """Pause, do the work, and again, until cancelled. What fails is logged, and tried again in its turn."""
    seconds, work = periodic
    while True:
        await asyncio.sleep(seconds)
        try:
            await work(database)
        except TicketError as error:
            _log.warning("background", work=work.__name__, outcome=error.reason)
        except Exception:
            # One bad turn must not end all that follow.
            _log.exception("background", work=work.__name__, outcome="internal")
