"""Whether the database has the schema that this code needs: which revision is there, and which ones this code knows.

A database that is ahead still fits, unless one of the revisions that this code does not know is marked as breaking: an
older version can serve what was only added, but not what was taken away (`service/migrations/breaking.py`).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import structlog
from sqlalchemy import Column, MetaData, Select, Table, Text, func, literal_column, select

from service import epochs
from service.counters import SCHEMA, SCHEMA_SERVED
from service.directory import METADATA
from service.errors import TicketError
from service.storage.database import Database
from service.storage.scope import EVERYONE, shared
from service.storage.statement import Statement

# Between looks while it fits; while it does not, each health check looks.
_LOOK_SECONDS = 5.0
# A look that waits for a free connection must not delay the health check.
_LOOK_TIMEOUT_SECONDS = 1.0
_ENCODING = "UTF8"

_log = structlog.get_logger()

breaking_revisions = Table(
    "breaking_revisions",
    METADATA,
    Column("revision", Text, primary_key=True),
    info=shared("revisions of the schema, which is everybody's"),
)
# Alembic's own.
_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", Text),
    info=shared("the revision of the schema, which is everybody's"),
)


def _is_there(table: Table) -> Any:
    return func.to_regclass(literal_column(f"'{table.name}'")).is_not(None).label(table.name)


_scope = EVERYONE("the schema is one for all")
# A statement about a table that is not there would be an error in PostgreSQL's log, once a second.
_facts: Select[Any] = select(
    func.current_setting(literal_column("'server_encoding'")).label("encoding"),
    _is_there(_version),
    _is_there(breaking_revisions),
    _is_there(epochs.event_epochs),
)
_FACTS = Statement(_facts, scope=_scope)
_REVISION = Statement(select(_version.c.version_num), scope=_scope)
_BREAKING = Statement(select(breaking_revisions.c.revision), scope=_scope)


def known_revisions() -> Sequence[str]:
    """The revisions that this code knows, oldest first; by their files, as Alembic takes a while to import."""
    versions = Path(__file__).parent / "migrations" / "versions"
    return sorted(path.name.partition("_")[0] for path in versions.glob("[0-9]*.py"))


def misfit(known: Sequence[str], found: str | None, breaking: Sequence[str] = ()) -> str | None:
    """Why code that knows these revisions cannot serve a database; None when it can."""
    newest = known[-1]
    if found is None:
        return f"the database has no tables yet, and this version needs revision {newest}: run `tickets migrate`"
    if found in known:
        if found == newest:
            return None
        return f"the database is at revision {found}, and this version needs {newest}: run `tickets migrate`"
    unknown = sorted(set(breaking).difference(known))
    if not unknown:
        return None
    return (
        f"the database is at revision {found}, and since {unknown[0]} only newer versions can serve it:"
        f" this one knows {newest} and those before"
    )


def wrong_encoding(encoding: str) -> str | None:
    """Why a database with this encoding cannot be used; None when it can."""
    if encoding == _ENCODING:
        return None
    return f"the database's encoding is {encoding}, and it must be {_ENCODING}: make one with ENCODING '{_ENCODING}'"


class Seen(NamedTuple):
    """Why a database cannot be served (None when it can), and its revision, where it has one."""

    misfit: str | None
    revision: str | None = None


async def look(database: Database) -> str | None:
    """Why the database cannot be served; None when it can. Raises TicketError when it is unavailable."""
    return (await _look(database)).misfit


async def _look(database: Database) -> Seen:
    facts = await database.one(_FACTS, {}) or {}
    wrong = wrong_encoding(facts["encoding"])
    if wrong is not None:
        return Seen(wrong)
    try:
        row = await database.one(_REVISION, {}) if facts[_version.name] else None
        rows = await database.all(_BREAKING, {}) if facts[breaking_revisions.name] else []
        server = await database.one(epochs.LOOK, {}) if facts[epochs.event_epochs.name] else None
    except psycopg.Error as error:
        why = error.diag.message_primary or type(error).__name__
        return Seen(f"the database's revision cannot be read: {why}")
    found = None if row is None else row["version_num"]
    reason = misfit(known_revisions(), found, [row["revision"] for row in rows])
    if reason is None and server is not None:
        reason = epochs.moved(server["found"], server["remembered"])
    return Seen(reason, found)


class Schema:
    """Tracks whether this process can serve the schema, and calls `on_change` with that whenever it changes."""

    def __init__(self, database: Database, on_change: Callable[[bool], None]) -> None:
        self._database = database
        self._on_change = on_change
        # Work without an end, done while the schema fits.
        self.works: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._reason: str | None = ""
        self._needed = known_revisions()[-1]
        self._looked = float("-inf")
        self._fit, self._unfit = asyncio.Event(), asyncio.Event()
        self._unfit.set()
        on_change(False)

    async def is_ready(self) -> bool:
        """Whether calls can be served right now: the database answers, and its schema fits."""
        return await self._database.answers() and await self._fits()

    async def _fits(self) -> bool:
        """Whether it fits, as far as this process could see; looks again where that is due."""
        if not self._fit.is_set() or time.monotonic() - self._looked > _LOOK_SECONDS:
            try:
                async with asyncio.timeout(_LOOK_TIMEOUT_SECONDS):
                    self._note(*await _look(self._database))
            except (TicketError, TimeoutError):
                pass  # the last look holds: `is_ready` itself reports a database that is unavailable
        return self._fit.is_set()

    async def work_while_it_fits(self) -> None:
        """Do all works while the schema fits, and begin them again when it fits again."""
        while True:
            await self._fit.wait()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work()) for work in self.works]
                await self._unfit.wait()
                for task in tasks:
                    task.cancel()

    def _note(self, reason: str | None, revision: str | None) -> None:
        self._looked = time.monotonic()
        SCHEMA.info({"revision": revision or "", "needed": self._needed})
        SCHEMA_SERVED.set(reason is None)
        if reason == self._reason:
            return
        self._reason = reason
        if reason is None:
            _log.info("schema", outcome="ready")
        else:
            _log.error("schema", outcome="not served", reason=reason)
        (self._fit if reason is None else self._unfit).set()
        (self._unfit if reason is None else self._fit).clear()
        self._on_change(reason is None)
