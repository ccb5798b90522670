"""Changes without a lock: a row is read, and written where it is still as it was read.

A lock costs a transaction of two turns, each alone on a connection; a read and a write by themselves travel with those
of other calls (lanes.py). A call that finds the row changed in between begins again, with a lock
(`operation.optimistic`).
"""

from typing import Any

from sqlalchemy import ColumnElement, Label, Table, Text, bindparam, cast, literal_column
from sqlalchemy.types import UserDefinedType

from service.storage.statement import Row


class ChangedMeanwhileError(Exception):
    """A row was changed after it was read without a lock; nothing was written."""


class Xid(UserDefinedType[int]):
    """What the system column `xmin` is."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in DDL."""
        return "xid"


def xmin(table: Table) -> ColumnElement[int]:
    """The transaction that wrote a row last: any change makes it another one, also one that no version counts."""
    return literal_column(f"{table.name}.xmin", Xid())


def row_version(table: Table) -> Label[str]:
    """What a row is compared by later, as the column `row_version`."""
    return cast(xmin(table), Text).label("row_version")


def is_as_read(table: Table) -> ColumnElement[bool]:
    """Whether a row is still the one that was read: the parameter is its `row_version`."""
    return xmin(table) == cast(bindparam("row_version", type_=Text), Xid)


def written(row: Row | None) -> Row:
    """The row that a conditional write returned. Raises ChangedMeanwhileError when there is none."""
    if row is None:
        raise ChangedMeanwhileError
    return row
