"""Gauges of the queues in the database: how much waits, and since when. Set now and then, and not as metrics are read.

At most `MOST` rows of a queue are counted, the next ones in order, so that the look stays cheap when a queue is long.
"""

import time
from typing import Any, Final

from prometheus_client import Gauge
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    DateTime,
    Float,
    FromClause,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    any_,
    cast,
    distinct,
    exists,
    extract,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
)
from ulid import ULID

from service.admin import tables as admin
from service.background import Periodic
from service.counters import REGISTRY
from service.handoff import tables as handoff
from service.helpdesk import tables as helpdesk
from service.itsm import tables as itsm
from service.itsm.webhooks import SOURCE
from service.providers.tables import deliveries
from service.purged import POSITION
from service.storage.database import Database
from service.storage.scope import EVERYONE, shared
from service.storage.statement import Statement
from service.webhooks.fan_out import MAX_QUEUE
from service.webhooks.message_queries import key_of_message

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

_KEYS = [table.name for table in (admin.keys, handoff.keys, helpdesk.keys, helpdesk.sla_keys, itsm.keys)]
_OF_SERVER = shared("transactions of the whole server, of which only their age is shown")
_sessions = Table(
    "pg_stat_activity",
    MetaData(),
    *(Column(name, Text) for name in ("pid", "backend_type", "backend_xid", "backend_xmin")),
    Column("xact_start", DateTime(timezone=True)),
    info=_OF_SERVER,
)
_prepared = Table("pg_prepared_xacts", MetaData(), Column("prepared", DateTime(timezone=True)), info=_OF_SERVER)


def _gauge(name: str, meaning: str) -> Gauge:
    return Gauge(f"tickets_{name}", meaning, registry=REGISTRY)


# Keyed by the names that the statement below gives them.
_GAUGES: Final = {
    "deliveries": _gauge("deliveries_queued", f"Deliveries to providers that are queued; {MOST} for more."),
    "delivery_seconds": _gauge("deliveries_oldest_seconds", "How long ago the oldest of them was asked for."),
    "messages": _gauge("webhook_messages_queued", f"Messages to webhooks that are queued; {MOST} for more."),
    "message_seconds": _gauge("webhook_messages_oldest_seconds", "How long ago the event of the oldest was."),
    "overdue_seconds": _gauge(
        "webhook_messages_overdue_seconds", "For how long a message has been due that nothing keeps from being sent."
    ),
    "failing": _gauge("webhooks_failing", "Webhooks that have not accepted a message of them at its last attempt."),
    "sla_seconds": _gauge("sla_behind_seconds", "For how long the SLA clock of a ticket has been due."),
    "changes": _gauge("totals_unmerged", f"Changes of ITSM totals that were not merged yet; {MOST} for more."),
    "keys": _gauge("idempotency_keys", "Idempotency keys, by PostgreSQL's estimate."),
    "unqueued_seconds": _gauge(
        "webhook_events_unqueued_seconds",
        "How long ago the oldest event was that is no message yet of a webhook whose queue has room.",
    ),
    "transaction_seconds": _gauge(
        "oldest_transaction_seconds",
        "For how long a transaction of this PostgreSQL has been open, of those that this user may see.",
    ),
    "prepared_seconds": _gauge(
        "oldest_prepared_transaction_seconds", "For how long a prepared transaction has waited to be ended."
    ),
}


def _seconds_since(instant: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(cast(extract("epoch", func.now() - instant), Float), 0.0)


def _first(table: Table, *wanted: ColumnElement[Any], of: ColumnElement[bool], order: ColumnElement[Any]) -> FromClause:
    """The rows of a queue whose turn is next."""
    return select(*wanted).where(of).order_by(order).limit(literal_column(str(MOST), Integer)).subquery()


def _is_kept_waiting(message: FromClause) -> ColumnElement[bool]:
    """Whether a due message waits for its receiver: for an earlier one of its ticket, or for another in flight.

    The account's other messages in flight count too, as their number is limited. So a receiver that fails or hangs
    makes no message overdue.
    """
    messages = SOURCE.tables.messages
    earlier, in_flight = messages.alias("earlier"), messages.alias("in_flight")
    owner = SOURCE.owner
    of_ticket = (*SOURCE.webhook_key, "ticket_id")
    return or_(
        exists().where(
            *(earlier.c[name] == message.c[name] for name in of_ticket),
            tuple_(earlier.c.version, earlier.c.type) < tuple_(message.c.version, message.c.type),
        ),
        exists().where(in_flight.c[owner] == message.c[owner], in_flight.c.leased_until >= func.now()),
    )


def _look() -> Statement:
    # Literals as in the conditions of the partial indexes, which a parameter would not match.
    webhooks, messages = SOURCE.tables.webhooks, SOURCE.tables.messages
    due = _first(
        deliveries,
        deliveries.c.created_at,
        of=deliveries.c.state == literal_column("'queued'"),
        order=deliveries.c.next_attempt_at,
    )
    sent = _first(
        messages,
        *(messages.c[name] for name in (*key_of_message(SOURCE), "event_id", "attempts", "next_attempt_at")),
        of=messages.c.next_attempt_at.is_not(None),
        order=messages.c.next_attempt_at,
    )
    is_active = exists().where(
        *(webhooks.c[name] == sent.c[name] for name in SOURCE.scope),
        webhooks.c.id == sent.c.webhook_id,
        webhooks.c.is_active,
    )
    is_due = sent.c.next_attempt_at < func.now()
    overdue = func.min(sent.c.next_attempt_at).filter(is_due, is_active, not_(_is_kept_waiting(sent)))
    changes = select(itsm.total_changes.c.id).limit(literal_column(str(MOST), Integer)).subquery()
    tickets = helpdesk.tickets
    parts: tuple[Select[Any], ...] = (
        select(func.count().label("deliveries"), _seconds_since(func.min(due.c.created_at)).label("delivery_seconds")),
        select(
            func.count().label("messages"),
            func.min(sent.c.event_id).label("oldest_message"),
            _seconds_since(overdue).label("overdue_seconds"),
            func.count(distinct(sent.c.webhook_id)).filter(sent.c.attempts > 0).label("failing"),
        ),
        select(func.count().label("changes")).select_from(changes),
        select(_seconds_since(func.min(tickets.c.sla_look_at)).label("sla_seconds")).where(
            tickets.c.sla_look_at.is_not(None), not_(tickets.c.is_deleted)
        ),
        # (None has rows before PostgreSQL has looked.)
        select(func.coalesce(func.sum(func.greatest(_relations.c.reltuples, 0)), 0.0).label("keys")).where(
            _relations.c.relname == any_(literal(_KEYS, ARRAY(Text))), _relations.c.relkind == literal_column("'r'")
        ),
    )
    whole: Select[Any] = select(*(column for part in parts for column in part.subquery().c))
    return Statement(whole, scope=EVERYONE("queues are watched whole, and nothing of a row is shown"))


_LOOK = _look()


def _unqueued() -> Statement:
    """The oldest event after the place of a webhook that could take it; behind the horizon too."""
    webhooks, history = SOURCE.tables.webhooks, SOURCE.events
    place = tuple_(*(webhooks.c[name] for name in POSITION))
    first = (
        select(history.c.created_at)
        .where(
            *(history.c[name] == webhooks.c[name] for name in SOURCE.scope),
            tuple_(history.c.transaction_id, history.c.id) > place,
            # Events that were written before it was registered are left out.
            history.c.created_at >= webhooks.c.created_at,
        )
        .order_by(history.c.transaction_id, history.c.id)
        .limit(literal_column("1"))
        .lateral("first")
    )
    queue: Select[Any] = select(literal_column("1")).where(*SOURCE.its_messages()).correlate(webhooks)
    number = select(func.count()).select_from(queue.limit(literal_column(str(MAX_QUEUE))).subquery("queue"))
    return Statement(
        select(_seconds_since(func.min(first.c.created_at)).label("unqueued_seconds"))
        .select_from(webhooks.join(first, true()))
        .where(webhooks.c.is_active, number.scalar_subquery() < literal_column(str(MAX_QUEUE))),
        scope=EVERYONE("queues are watched whole, and nothing of a row is shown"),
    )


def _open() -> Statement:
    """The oldest transactions of all databases: those that hold back the horizon, or what vacuum may take away."""
    holds = or_(_sessions.c.backend_xid.is_not(None), _sessions.c.backend_xmin.is_not(None))
    its_own = _sessions.c.pid == func.pg_backend_pid()
    is_session = _sessions.c.backend_type == literal_column("'client backend'")
    parts: tuple[Select[Any], ...] = (
        select(_seconds_since(func.min(_sessions.c.xact_start)).label("transaction_seconds")).where(
            holds, is_session, not_(its_own)
        ),
        select(_seconds_since(func.min(_prepared.c.prepared)).label("prepared_seconds")),
    )
    whole: Select[Any] = select(*(column for part in parts for column in part.subquery().c))
    return Statement(whole, scope=EVERYONE("the horizon is one for all"))


_UNQUEUED, _OPEN = _unqueued(), _open()


async def look(database: Database) -> None:
    """Set the gauges."""
    row: dict[str, Any] = {}
    for statement in (_LOOK, _UNQUEUED, _OPEN):
        row |= await database.one(statement, {}) or {}
    oldest = row["oldest_message"]
    # An event's id begins with its instant.
    age = 0.0 if oldest is None else time.time() - ULID.from_str(oldest.removeprefix("evt_")).timestamp
    for name, value in {**row, "message_seconds": age}.items():
        if name in _GAUGES:
            # Never negative: something may be due later, and two clocks may differ.
            _GAUGES[name].set(max(0.0, value))


PERIODIC: Final = Periodic("backlog", _LOOK_SECONDS, look)
