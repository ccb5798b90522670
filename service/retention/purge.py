"""Deletes rows that are older than a setting keeps them: in the background, and for `tickets purge`.

Each step is a short transaction. A run may be interrupted, and several processes may run at once: rows that are left
are found by the next run.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import Column, DateTime, Interval, Table, Text, bindparam, func, literal_column
from sqlalchemy.dialects.postgresql import insert as upsert

from service.background import Periodic, paced
from service.counters import PURGED_ROWS, WEBHOOKS_MISSED
from service.directory import METADATA
from service.purged import SETTLE_SECONDS
from service.retention import keys, look, walk
from service.retention.kinds import KINDS, Kind, Walked
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import shared
from service.storage.statement import Statement

# Blocks of one step: half a megabyte, some thousands of rows at most.
BLOCKS: Final = 64
_PAUSE: Final = 0.5
_LOOK_SECONDS: Final = 60.0

_log = structlog.get_logger()

# When each kind was last looked through: one process does so for all, once an hour.
purges = Table(
    "purges",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("begun_at", DateTime(timezone=True), nullable=False),
    info=shared("when a kind of rows was last looked through, which holds nothing of a caller's"),
)


def _claim() -> Statement:
    first = upsert(purges).values(kind=bindparam("kind", type_=Text), begun_at=func.now())
    return Statement(
        first.on_conflict_do_update(
            index_elements=["kind"],
            set_={"begun_at": func.now()},
            where=purges.c.begun_at <= func.now() - literal_column("interval '1 hour'", Interval),
        ).returning(purges.c.kind),
        scope=walk.SCOPE,
    )


_CLAIM: Final = _claim()


class Purged(NamedTuple):
    """What was found of one kind, or deleted."""

    kind: str
    keep_days: int
    rows: int
    # The instant from which the age of the oldest counts; None where it was not looked for.
    oldest: datetime | None = None


class Purge:
    """The deletion of all that has a setting."""

    def __init__(
        self,
        settings: Settings,
        kinds: Sequence[Kind] = KINDS,
        *,
        blocks: int = BLOCKS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """`blocks` are those of a step; `settle_seconds` is how long readers have had to read what is deleted."""
        self._kinds = [(kind, days) for kind in kinds if (days := kind.days(settings))]
        self._blocks = blocks
        self._settle_seconds = settle_seconds

    async def work(self, database: Database) -> None:
        """Delete the kinds that nobody has looked through within the hour; run in the background, in every process."""
        for kind, days in self._kinds:
            if await database.one(_CLAIM, {"kind": kind.name}) is not None:
                settled = await self._settled(database) if _needs_settled(kind) else ""
                await self._delete(database, kind, days, settled)

    async def count(self, database: Database) -> Sequence[Purged]:
        """What would be deleted now. Changes nothing."""
        settled = await self._settled(database, wait=False)
        return [await self._count(database, kind, days, settled) for kind, days in self._kinds]

    async def delete(self, database: Database) -> Sequence[Purged]:
        """Delete all that is old, now; and idempotency keys that have expired."""
        is_of_events = any(_needs_settled(kind) for kind, _ in self._kinds)
        settled = await self._settled(database) if is_of_events else ""
        deleted = [
            Purged(kind.name, days, await self._delete(database, kind, days, settled)) for kind, days in self._kinds
        ]
        await keys.purge(database)
        return deleted

    async def _settled(self, database: Database, *, wait: bool = True) -> str:
        """A horizon up to which readers have had the time to read."""
        row = await database.one(walk.READ_HORIZON, {}) or {"settled": "0"}
        if wait:
            await asyncio.sleep(self._settle_seconds)
        return str(row["settled"])

    async def _steps(self, database: Database, rows: Walked) -> list[dict[str, str]]:
        row = await database.one(rows.blocks, {}) or {"blocks": 0}
        return [walk.bounds(first, self._blocks) for first in range(0, row["blocks"], self._blocks)]

    async def _count(self, database: Database, kind: Kind, days: int, settled: str) -> Purged:
        if not isinstance(kind.rows, Walked):
            return Purged(kind.name, days, *await kind.rows.count(database, days))
        number, oldest = 0, list[datetime]()
        for step in await self._steps(database, kind.rows):
            row = await database.one(kind.rows.count, {**step, "days": days, "settled": settled}) or {}
            number += row["rows"]
            oldest += [row["oldest"]] if row["rows"] else []
        return Purged(kind.name, days, number, min(oldest, default=None))

    async def _delete(self, database: Database, kind: Kind, days: int, settled: str) -> int:
        if isinstance(kind.rows, Walked):
            number = 0
            for step in await self._steps(database, kind.rows):
                async with paced(_PAUSE):
                    number += await self._step(database, kind, kind.rows, {**step, "days": days, "settled": settled})
        else:
            number, missed = await kind.rows.delete(database, days)
            _note_missed(missed, kind)
            PURGED_ROWS.labels(kind.name).inc(number)
        if number:
            _log.info("purge", kind=kind.name, rows=number)
        return number

    async def _step(self, database: Database, kind: Kind, rows: Walked, given: Mapping[str, Any]) -> int:
        async with database.transaction() as connection:
            deleted = await connection.one(rows.delete, given) or {"rows": 0}
            missed = await connection.all(rows.missed, {}) if deleted["rows"] and rows.missed is not None else []
        _note_missed([row["id"] for row in missed], kind)
        PURGED_ROWS.labels(kind.name).inc(deleted["rows"])
        return int(deleted["rows"])


def _needs_settled(kind: Kind) -> bool:
    return isinstance(kind.rows, Walked) and kind.rows.needs_settled


def _note_missed(webhooks: Sequence[str], kind: Kind) -> None:
    for webhook in webhooks:
        _log.warning("webhooks", webhook=webhook, outcome="missed events", kind=kind.name)
    WEBHOOKS_MISSED.inc(len(webhooks))


def periodic(settings: Settings) -> Sequence[Periodic]:
    """What every process does of it: looks at how much there is, and deletes where a setting says so."""
    return (
        Periodic("kept", _LOOK_SECONDS, look.look),
        Periodic("purge", _LOOK_SECONDS, Purge(settings).work),
    )
