"""Gauges of how many rows of each kind there are, and how old the oldest is, from PostgreSQL's statistics.

The statistics have the number of rows, the part of them without an instant, and the earliest instant of a sample. Rows
are read only of queues, and only some.
"""

import time
from datetime import datetime
from typing import Any, Final

from prometheus_client import Gauge
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Float,
    FromClause,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    func,
    literal_column,
    select,
    values,
)

from service.counters import PURGED_ROWS, REGISTRY
from service.itsm.webhooks import SOURCE
from service.providers.tables import deliveries
from service.retention import messages
from service.retention.kinds import KINDS, Walked
from service.retention.walk import SCOPE
from service.storage.database import Database
from service.storage.scope import shared
from service.storage.statement import Statement

# The most rows of a queue that are looked at.
MOST: Final = 10_000

ROWS: Final = Gauge(
    "tickets_kept_rows",
    "Rows that are kept for as long as a setting says, by PostgreSQL's estimate.",
    ["kind"],
    registry=REGISTRY,
)
OLDEST: Final = Gauge(
    "tickets_kept_oldest_seconds", "How long ago the oldest of them was, by the same.", ["kind"], registry=REGISTRY
)

# Every series is there from the start: one that appears with its first count has no rate yet.
for _kind in KINDS:
    for _family in (ROWS, OLDEST, PURGED_ROWS):
        _family.labels(_kind.name)

_CATALOG: Final = shared("what PostgreSQL knows of tables, which are everybody's")
_relations = Table(
    "pg_class",
    MetaData(),
    Column("oid", Text),
    Column("relname", Text),
    Column("relkind", Text),
    Column("reltuples", Float),
    info=_CATALOG,
)
_statistics = Table(
    "pg_stats",
    MetaData(),
    Column("tablename", Text),
    Column("attname", Text),
    Column("null_frac", Float),
    info=_CATALOG,
)
# A column with few instants has no histogram of them.
_EARLIEST: Final = (
    "(SELECT min(one) FROM unnest(coalesce(pg_stats.histogram_bounds::text::timestamptz[], '{}')"
    " || coalesce(pg_stats.most_common_vals::text::timestamptz[], '{}')) AS one)"
)
# Kinds whose table holds rows of other kinds too, which their instant does not tell apart.
_QUEUED: Final = "dead_deliveries"


def _estimates() -> Statement:
    walked = [(kind.name, kind.rows) for kind in KINDS if isinstance(kind.rows, Walked) and kind.name != _QUEUED]
    known = values(
        Column("kind", Text), Column("relname", Text), Column("attname", Text), name="known", literal_binds=True
    )
    known = known.data([(name, rows.table.name, str(rows.instant.key)) for name, rows in walked])
    is_it = and_(
        _relations.c.relname == known.c.relname,
        _relations.c.relkind == literal_column("'r'"),
        func.pg_table_is_visible(_relations.c.oid, type_=Boolean),
    )
    of_column = and_(_statistics.c.tablename == known.c.relname, _statistics.c.attname == known.c.attname)
    rows = func.greatest(_relations.c.reltuples, 0) * (1 - func.coalesce(_statistics.c.null_frac, 0))
    return Statement(
        select(
            known.c.kind, rows.label("rows"), literal_column(_EARLIEST, DateTime(timezone=True)).label("oldest")
        ).select_from(known.join(_relations, is_it).outerjoin(_statistics, of_column)),
        scope=SCOPE,
    )


def _dead() -> Statement:
    first: Select[Any] = select(deliveries.c.created_at).where(deliveries.c.state == literal_column("'dead'"))
    some = first.order_by(deliveries.c.id).limit(literal_column(str(MOST))).subquery("some")
    return _counted(some, some.c.created_at)


def _held() -> Statement:
    queue = SOURCE.tables.messages
    first: Select[Any] = select(queue.c.event_id).where(queue.c.next_attempt_at.is_(None))
    some = first.limit(literal_column(str(MOST))).subquery("some")
    return _counted(some, some.c.event_id)


def _counted(some: FromClause, instant: ColumnElement[Any]) -> Statement:
    number: Select[Any] = select(func.count().label("rows"))
    return Statement(number.add_columns(func.min(instant).label("oldest")).select_from(some), scope=SCOPE)


_ESTIMATES, _DEAD, _HELD = _estimates(), _dead(), _held()


async def look(database: Database) -> None:
    """Set the gauges."""
    for row in await database.all(_ESTIMATES, {}):
        _set(row["kind"], row["rows"], row["oldest"])
    dead = await database.one(_DEAD, {}) or {"rows": 0, "oldest": None}
    _set(_QUEUED, dead["rows"], dead["oldest"])
    held = await database.one(_HELD, {}) or {"rows": 0, "oldest": None}
    _set("webhook_messages", held["rows"], None if held["oldest"] is None else messages.instant(held["oldest"]))


def _set(kind: str, rows: float, oldest: datetime | None) -> None:
    ROWS.labels(kind).set(rows)
    OLDEST.labels(kind).set(0.0 if oldest is None else max(0.0, time.time() - oldest.timestamp()))
