"""Statements that walk through a table, some blocks at a time: they find what is old without an index on its age.

Such an index would slow down every write, and be used a few times a day. A walk reads each block once, however many old
rows it finds; its statements are short, and lock few rows.
"""

from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Delete,
    Integer,
    Select,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.types import UserDefinedType

from service import events
from service.storage.database import Xid8
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

SCOPE: Final = EVERYONE("what is kept no longer is deleted for all owners, and nothing of it is shown")


class Tid(UserDefinedType[str]):
    """Where a row is on disk: its block, and its place there."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name."""
        return "tid"


def _place(table: Table) -> ColumnElement[Any]:
    return literal_column(f"{table.name}.ctid", Tid())


def is_older(instant: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether an instant is more than `days` ago."""
    days = bindparam("days", type_=Integer)
    return instant < func.now() - func.make_interval(0, 0, 0, days)


def is_settled(table: Table) -> ColumnElement[bool]:
    """Whether readers have had the time to read the last event of a ticket's row, or the event of a row."""
    return table.c.transaction_id < cast(bindparam("settled", type_=Text), Xid8)


# The horizon of now, for `settled` later on.
READ_HORIZON: Final = Statement(select(cast(events.HORIZON, Text).label("settled")), scope=SCOPE)


def number_of_blocks(table: Table) -> Statement:
    """How many blocks a table has."""
    size = func.pg_relation_size(literal_column(f"'{table.name}'::regclass"), type_=BigInteger)
    block = cast(func.current_setting(literal_column("'block_size'")), BigInteger)
    return Statement(select((size // block).label("blocks")), scope=SCOPE)


def _in_blocks(table: Table) -> ColumnElement[bool]:
    """The condition of rows in the blocks from `first` on, before `end`: both are places on disk, as texts."""
    first, end = (cast(bindparam(name, type_=Text), Tid()) for name in ("first", "end"))
    return and_(_place(table) >= first, _place(table) < end)


def bounds(block: int, blocks: int) -> dict[str, str]:
    """The parameters of `blocks` blocks, from the one with the number `block` on."""
    return {"first": f"({block},0)", "end": f"({block + blocks},0)"}


def count(table: Table, instant: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Statement:
    """How many rows of some blocks are old, and the `oldest` of them."""
    found: Select[Any] = select(func.count().label("rows")).add_columns(func.min(instant).label("oldest"))
    return Statement(found.select_from(table).where(_in_blocks(table), is_older(instant), *conditions), scope=SCOPE)


def take(table: Table, instant: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Select[Any]:
    """The places of old rows in some blocks, locked; not of those that another transaction has locked."""
    found = select(_place(table)).select_from(table).correlate(None)
    found = found.where(_in_blocks(table), is_older(instant), *conditions)
    return found.with_for_update(skip_locked=True)


def delete_old(table: Table, instant: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Delete:
    """The deletion of rows of some blocks that are old."""
    places = func.array(take(table, instant, *conditions).scalar_subquery(), type_=ARRAY(Tid()))
    return table.delete().where(_place(table) == any_(places))


def plain(table: Table, instant: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Statement:
    """The statement that deletes rows on which nothing depends; how many."""
    gone = delete_old(table, instant, *conditions).returning(literal_column("1").label("one")).cte("gone")
    return Statement(select(func.count().label("rows")).select_from(gone), scope=SCOPE)
