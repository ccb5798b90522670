"""Marks: up to which event each scope's events were deleted, so that a reader that has missed some learns of it.

Old events are deleted where an operator has set that (retention/). In the same transaction the mark of their scope
rises to the newest of them, so no reader can miss events without finding the mark. A reader that may have been away
looks at the mark after each read: if its position is before the mark, it has missed events, and its watch fails.
"""

from typing import Any, Final

from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Select, Table, bindparam, desc, select

from service.errors import TicketError
from service.storage.database import Database, Xid8
from service.storage.scope import EVERYONE, scoped_by
from service.storage.statement import Statement

# Events can be read for at least this long before they are deleted: a reader that has read more recently than that has
# missed nothing. Longer than a poll may take.
SETTLE_SECONDS: Final = 5.0
# The columns of a position, in its order.
POSITION: Final = ("transaction_id", "event_id")


def purged_table(events: Table) -> Table:
    """The marks of an event table (events.py), with its scope."""
    scope = [column for column in events.primary_key.columns if column.name not in ("transaction_id", "id")]
    names = [column.name for column in scope]
    return Table(
        _name(events),
        events.metadata,
        *(Column(column.name, column.type, nullable=False) for column in scope),
        # The newest event that was deleted.
        Column("transaction_id", Xid8, nullable=False),
        Column("event_id", BigInteger, nullable=False),
        PrimaryKeyConstraint(*names),
        info=scoped_by(*names),
    )


def marks_of(events: Table) -> Table:
    """The table of its marks."""
    return events.metadata.tables[_name(events)]


def _name(events: Table) -> str:
    return f"{events.name}_purged"


class Marks:
    """The marks of one event table, for watches: by the first column of the scope, like the event feed."""

    def __init__(self, database: Database, events: Table) -> None:
        self._database = database
        self._newest = Statement(
            _newest_of_scope(marks_of(events)),
            scope=EVERYONE("a watch asks for the scope that it is fed from, and a mark shows nothing of an event"),
            short=True,
        )

    async def up_to(self, scope: Any) -> tuple[int, ...]:
        """The position up to which events may be missing; before all others where none are."""
        row = await self._database.one(self._newest, {"scope": scope})
        return (0,) * len(POSITION) if row is None else tuple(int(row[name]) for name in POSITION)

    async def refuse_if_before(self, scope: Any, position: tuple[int, ...]) -> None:
        """Raise TicketError `cursor_expired` for a position after which events may be missing."""
        if await self.up_to(scope) > position:
            raise TicketError("cursor_expired")


def _newest_of_scope(marks: Table) -> Select[Any]:
    first = next(iter(marks.primary_key.columns))
    return (
        select(*(marks.c[name] for name in POSITION))
        .where(first == bindparam("scope", type_=first.type))
        .order_by(*(desc(marks.c[name]) for name in POSITION))
        .limit(1)
    )
