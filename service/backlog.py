"""What waits in the database for the background, and since when: looked up now and then, never as metrics are read.

Of a queue no more rows than a bound are counted, so that a look is cheap when it matters, and they are those whose turn
is next.
"""

import time
from typing import Any, Final

from prometheus_client import Gauge
from sqlalchemy import (
    Column,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    cast,
    distinct,
    extract,
    func,
    literal_column,
    not_,
    select,
)
from ulid import ULID

from service.background import Periodic
from service.counters import REGISTRY
from service.helpdesk import tables as helpdesk
from service.itsm import tables as itsm
from service.itsm.webhooks import SOURCE
from service.providers.tables import deliveries
from service.storage.database import Database
from service.storage.scope import EVERYONE, shared
from service.storage.statement import Statement

_LOOK_SECONDS = 15.0
# The most rows of a queue that are counted.
MOST: Final = 10_000

_relations = Table(
    "pg_class",
    MetaData(),
    Column("relname", Text),
    Column("relkind", Text),
    Column("reltuples", Float),
    info=shared("what PostgreSQL knows of tables, which are everybody's"),
)


def _gauge(name: str, meaning: str) -> Gauge:
    return Gauge(f"tickets_{name}", meaning, registry=REGISTRY)


# By what the statement below calls them.
_GAUGES: Final = {
    "deliveries": _gauge("deliveries_queued", f"Deliveries to providers that are queued; {MOST} for more."),
    "delivery_seconds": _gauge("deliveries_oldest_seconds", "How long ago the oldest of them was asked for."),
    "messages": _gauge("webhook_messages_queued", f"Messages to webhooks that are queued; {MOST} for more."),
    "message_seconds": _gauge("webhook_messages_oldest_seconds", "How long ago the event of the oldest was."),
    "overdue_seconds": _gauge("webhook_messages_overdue_seconds", "For how long the first of them has been due."),
    "failing": _gauge("webhooks_failing", "Webhooks that have not accepted a message of them at its last attempt."),
    "sla_seconds": _gauge("sla_behind_seconds", "For how long the SLA clock of a ticket has been due."),
    "changes": _gauge("totals_unmerged", f"Changes of ITSM totals that were not merged yet; {MOST} for more."),
    "keys": _gauge("idempotency_keys", "Idempotency keys, by PostgreSQL's estimate."),
}


def _seconds_since(instant: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(cast(extract("epoch", func.now() - instant), Float), 0.0)


def _first(table: Table, *wanted: ColumnElement[Any], of: ColumnElement[bool], order: ColumnElement[Any]) -> FromClause:
    """The rows of a queue whose turn is next."""
    return select(*wanted).where(of).order_by(order).limit(literal_column(str(MOST), Integer)).subquery()


def _look() -> Statement:
    # With the words of the indexes, as a value that is given has none.
    messages = SOURCE.tables.messages
    due = _first(
        deliveries,
        deliveries.c.created_at,
        of=deliveries.c.state == literal_column("'queued'"),
        order=deliveries.c.next_attempt_at,
    )
    sent = _first(
        messages,
        *(messages.c[name] for name in ("event_id", "webhook_id", "attempts", "next_attempt_at")),
        of=messages.c.next_attempt_at.is_not(None),
        order=messages.c.next_attempt_at,
    )
    changes = select(itsm.total_changes.c.id).limit(literal_column(str(MOST), Integer)).subquery()
    tickets = helpdesk.tickets
    parts: tuple[Select[Any], ...] = (
        select(func.count().label("deliveries"), _seconds_since(func.min(due.c.created_at)).label("delivery_seconds")),
        select(
            func.count().label("messages"),
            func.min(sent.c.event_id).label("oldest_message"),
            _seconds_since(func.min(sent.c.next_attempt_at)).label("overdue_seconds"),
            func.count(distinct(sent.c.webhook_id)).filter(sent.c.attempts > 0).label("failing"),
        ),
        select(func.count().label("changes")).select_from(changes),
        select(_seconds_since(func.min(tickets.c.sla_look_at)).label("sla_seconds")).where(
            tickets.c.sla_look_at.is_not(None), not_(tickets.c.is_deleted)
        ),
        # Every one with that name, of which there is one; none has rows before PostgreSQL has looked.
        select(func.coalesce(func.sum(func.greatest(_relations.c.reltuples, 0)), 0.0).label("keys")).where(
            _relations.c.relname == literal_column("'idempotency_keys'"), _relations.c.relkind == literal_column("'r'")
        ),
    )
    whole: Select[Any] = select(*(column for part in parts for column in part.subquery().c))
    return Statement(whole, scope=EVERYONE("queues are watched whole, and nothing of a row is shown"))


_LOOK = _look()


async def look(database: Database) -> None:
    """Set the gauges."""
    row = await database.one(_LOOK, {}) or {}
    oldest = row["oldest_message"]
    # An event's id begins with its instant.
    age = 0.0 if oldest is None else time.time() - ULID.from_str(oldest.removeprefix("evt_")).timestamp
    for name, value in {**row, "message_seconds": age}.items():
        if name in _GAUGES:
            # What is due later is behind by nothing; nor are two clocks quite the same.
            _GAUGES[name].set(max(0.0, value))


PERIODIC: Final = Periodic("backlog", _LOOK_SECONDS, look)
