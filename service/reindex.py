"""Fills in, in the background, the index terms of tickets that have none.

Since migration 0012 a write sets the terms with the texts. Tickets without terms were written before it, or by a
process of an earlier version: where that changes the texts, a trigger of the table clears the terms. A partial index
holds the tickets without terms, and is empty once all are indexed. This may go when no upgrade starts before that
migration.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sqlalchemy import JSON, Column, Index, Integer, Table, bindparam, column, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import TSVECTOR

from service import jsontext
from service.background import paced
from service.search import MAX_CHARACTERS
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Row, Statement

# How many tickets a step indexes; they are locked for some milliseconds, unless their texts are very long.
ROWS = 25
_PAUSE = 0.5
_SCOPE = EVERYONE("the background indexes everybody's tickets")
_NEWEST = datetime(9999, 12, 31, tzinfo=UTC)


def search_terms() -> Column[str]:
    """A ticket's column: the index terms of its texts (search.py); null until they are made."""
    return Column("search_terms", TSVECTOR)


def index_search_terms(tickets: Table) -> None:
    """The indexes of that column: one to search by, and one of the tickets whose terms are not made yet."""
    terms = tickets.c.search_terms
    Index(
        f"{tickets.name}_search_idx",
        terms,
        postgresql_using="gin",
        # In KiB: each search scans the whole pending list of new entries, and the write that fills it must merge it.
        postgresql_with={"gin_pending_list_limit": 512},
        postgresql_where=terms.is_not(None),
    )
    Index(f"{tickets.name}_unindexed_idx", tickets.c.created_at, postgresql_where=terms.is_(None))


class Reindex:
    """The index of one table of tickets. Processes that work on it at once take different tickets."""

    def __init__(self, tickets: Table, texts: Sequence[str], terms: Callable[[Row], str]) -> None:
        """`terms` makes those of a row, which has its key, its `texts` and its number if it has one."""
        self._terms = terms
        keys = [*tickets.primary_key.columns]
        also = [tickets.c.number] if "number" in tickets.c else []
        cut = [func.left(tickets.c[name], literal_column(str(MAX_CHARACTERS))).label(name) for name in texts]
        self._keys = [str(key.name) for key in keys]
        self._next = Statement(
            select(*keys, *also, *cut, tickets.c.created_at)
            .where(
                tickets.c.search_terms.is_(None),
                tickets.c.created_at <= bindparam("until", type_=tickets.c.created_at.type),
            )
            # People search for the newest tickets most.
            .order_by(tickets.c.created_at.desc())
            .limit(bindparam("rows", type_=Integer))
            .with_for_update(skip_locked=True, key_share=True),
            scope=_SCOPE,
        )
        columns = [*(column(key.name, key.type) for key in keys), column("search_terms", TSVECTOR)]
        made = func.json_to_recordset(bindparam("made", type_=JSON)).table_valued(*columns)
        given = made.render_derived(name="given", with_types=True)
        self._set = Statement(
            update(tickets)
            .where(*(key == given.c[key.name] for key in keys))
            .values(search_terms=given.c.search_terms)
            .returning(literal_column("1").label("one")),
            scope=_SCOPE,
        )

    async def work(self, database: Database) -> None:
        """Index what there is to index; run in the background, in every process."""
        until: datetime | None = _NEWEST
        while until is not None:
            async with paced(_PAUSE):
                until = await self.step(database, until)

    async def step(self, database: Database, until: datetime = _NEWEST) -> datetime | None:
        """Index some tickets that are no newer; when the last of them was created, or None when there were no more."""
        async with database.transaction() as connection:
            rows = await connection.all(self._next, {"until": until, "rows": ROWS})
            made = []
            for row in rows:
                made.append({**{name: row[name] for name in self._keys}, "search_terms": self._terms(row)})
                await asyncio.sleep(0)
            if made:
                await connection.all(self._set, {"made": jsontext.text(made)}, commit=True)
        return rows[-1]["created_at"] if len(rows) == ROWS else None
