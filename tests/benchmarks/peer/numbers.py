"""Numbers for people, without gaps: a counter's row, locked until the transaction that takes a number ends."""

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, bindparam
from sqlalchemy.dialects.postgresql import insert

_counters = Table(
    "counters",
    MetaData(),
    Column("scope", Text, primary_key=True),
    Column("last_number", BigInteger, nullable=False),
)
# Takes the next number of a scope.
NEXT = (
    insert(_counters)
    .values(scope=bindparam("scope"), last_number=1)
    .on_conflict_do_update(index_elements=["scope"], set_={"last_number": _counters.c.last_number + 1})
    .returning(_counters.c.last_number)
)
