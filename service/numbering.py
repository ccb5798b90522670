"""Ids and numbers: UUIDs that sort by time, and numbers for people, without gaps and in commit order per scope."""

import secrets
import time
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, BigInteger, Column, PrimaryKeyConstraint, Select, Table, literal
from sqlalchemy.dialects.postgresql import insert

from service.directory import METADATA
from service.storage.scope import scoped_by


def counter_table(name: str, scope: Column[Any]) -> Table:
    """The table of an API's numbers: a row for each value of `scope`, whose lock is what puts them in commit order."""
    return Table(
        name,
        METADATA,
        scope,
        Column("last_number", BigInteger, nullable=False),
        PrimaryKeyConstraint(scope.name),
        info=scoped_by(scope.name),
    )


def next_number(counters: Table, scope: Select[Any]) -> CTE:
    """The part of a statement that takes the next number, as `number`.

    `scope` gives whose: one row of one column, or none, and then no number is taken.
    """
    [whose] = counters.primary_key.columns
    first = insert(counters).from_select([whose.name, "last_number"], scope.add_columns(literal(1, BigInteger)))
    return (
        first.on_conflict_do_update(index_elements=[whose.name], set_={"last_number": counters.c.last_number + 1})
        .returning(counters.c.last_number.label("number"))
        .cte("counter")
    )


def uuid7() -> UUID:
    """A fresh id that sorts by its time (RFC 9562, 5.7).

    Ids at random dirty another page of the index for each row: more than twice as much WAL for a creation.
    """
    milliseconds, random = time.time_ns() // 1_000_000, secrets.randbits(74)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | random >> 62 << 64 | 0b10 << 62 | random & (1 << 62) - 1)


def uuid7_at(instant: datetime) -> UUID:
    """Where the ids of an instant begin: none that was made earlier is greater."""
    milliseconds = max(0, int(instant.timestamp() * 1000))
    return UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62)
