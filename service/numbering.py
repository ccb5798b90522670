"""Ids and numbers: UUIDs that sort by time, and numbers for people, without gaps and in commit order per scope."""

import secrets
import time
from datetime import datetime
from uuid import UUID

from sqlalchemy import CTE, BigInteger, Column, FromClause, Table, Text, literal, select
from sqlalchemy.dialects.postgresql import insert

from service.directory import METADATA
from service.storage.scope import shared

# One row per scope, such as `helpdesk:{tenant}`. Its lock, held to the commit, is what puts numbers in commit order.
counters = Table(
    "counters",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("last_number", BigInteger, nullable=False),
    info=shared("the next number is taken of a row, and nothing else is read of it"),
)


def next_number(scope: FromClause) -> CTE:
    """The part of a statement that takes the next number, as `number`.

    `scope` is a relation with the column `scope`: one row, or none, and then no number is taken.
    """
    first = insert(counters).from_select(["scope", "last_number"], select(scope.c.scope, literal(1, BigInteger)))
    return (
        first.on_conflict_do_update(index_elements=["scope"], set_={"last_number": counters.c.last_number + 1})
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
