"""Numbers for people, without gaps: a counter's row, locked until the transaction that takes a number ends."""

from typing import Any

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, Uuid, bindparam
from sqlalchemy.dialects.postgresql import Insert, insert


def _next(name: str, scope: Column[Any]) -> Insert:
    """Takes the next number of a scope."""
    counters = Table(name, MetaData(), scope, Column("last_number", BigInteger, nullable=False))
    return (
        insert(counters)
        .values({scope.name: bindparam("scope"), "last_number": 1})
        .on_conflict_do_update(index_elements=[scope.name], set_={"last_number": counters.c.last_number + 1})
        .returning(counters.c.last_number)
    )


NEXT_OF_PROJECT = _next("handoff_counters", Column("project_id", Uuid, primary_key=True))
NEXT_OF_TENANT = _next("helpdesk_counters", Column("tenant_id", Text, primary_key=True))
