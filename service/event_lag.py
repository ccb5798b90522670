"""How far readers of events are behind: a transaction that stays open, in any database, holds back the horizon."""

import asyncio
import time
from typing import Any

import structlog
from sqlalchemy import Select, Text, cast, func, select

from service.errors import TicketError
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

_LOOK_SECONDS = 1.0
# A lag of at least this is logged.
_LOG_SECONDS = 10.0

# The transaction ids here have no epoch, as in PostgreSQL's views.
_SNAPSHOT = func.pg_current_snapshot()
_HORIZON_AND_NEXT: Select[Any] = select(cast(func.pg_snapshot_xmin(_SNAPSHOT), Text).label("horizon")).add_columns(
    cast(func.pg_snapshot_xmax(_SNAPSHOT), Text).label("next")
)
_LOOK = Statement(_HORIZON_AND_NEXT, scope=EVERYONE("the horizon is one for all"))

_log = structlog.get_logger()


class EventLag:
    """One look a second in each process, for all watches, webhooks and metrics."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held_at: str | None = None
        self._held_since = 0.0
        self._is_logged = False

    def seconds(self) -> float:
        """For how long the horizon has been held back, as far as this process has seen; 0.0 while it moves."""
        return 0.0 if self._held_at is None else time.monotonic() - self._held_since

    async def look(self) -> None:
        """See whether the horizon has moved. Raises TicketError."""
        found = await self._database.one(_LOOK, {})
        if found is None or found["horizon"] == found["next"]:  # no transaction that has ended is held back
            self._held_at = None
        elif found["horizon"] != self._held_at:
            self._held_at, self._held_since = found["horizon"], time.monotonic()
        seconds = self.seconds()
        if (seconds >= _LOG_SECONDS) != self._is_logged:
            self._is_logged = not self._is_logged
            _log.warning("events", outcome="held back" if self._is_logged else "ok", transaction=self._held_at)

    async def follow(self) -> None:
        """Look again and again, as long as the process serves."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except TicketError as error:
                _log.info("events", outcome=error.reason)
