"""The SQL statements by which events become messages."""

from functools import cache

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    ColumnElement,
    Integer,
    Text,
    all_,
    and_,
    bindparam,
    cast,
    column,
    exists,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events
from service.storage.database import Xid8
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, bound
from service.webhooks.source import Source
from service.webhooks.tables import MESSAGE

_WAITING_AT_ONCE = 500


class FanOutQueries:
    """The statements of one source."""

    def __init__(self, source: Source) -> None:
        self.waiting_webhooks = _waiting_webhooks(source)
        self.lock_waiting_webhook = _lock_waiting_webhook(source)
        self.next_events = _next_events(source)
        self.tickets_as_of = _tickets_as_of(source)
        self.queue = _queue(source)


@cache
def for_source(source: Source) -> FanOutQueries:
    """The statements of a source, built once."""
    return FanOutQueries(source)


def _is_waiting(source: Source, *, one_scope: bool) -> ColumnElement[bool]:
    """Whether a webhook has events that are no messages yet, and space in its queue; it may be of `one_scope`."""
    webhooks, history = source.tables.webhooks, source.events
    has_events = exists().where(
        *(source.in_scope(history) if one_scope else ()),
        *(history.c[name] == webhooks.c[name] for name in source.scope),
        tuple_(history.c.transaction_id, history.c.id) > tuple_(webhooks.c.transaction_id, webhooks.c.event_id),
        history.c.transaction_id < events.HORIZON,
    )
    max_queue = bindparam("max_queue", type_=Integer)
    its_messages = and_(*source.its_messages(), *(source.in_scope(source.tables.messages) if one_scope else ()))
    queue = select(literal(1)).where(its_messages).correlate(webhooks).limit(max_queue).subquery("queue")
    return and_(
        webhooks.c.is_active,
        has_events,
        select(func.count()).select_from(queue).scalar_subquery() < max_queue,
    )


def _waiting_webhooks(source: Source) -> Statement:
    """The statement that finds webhooks that wait, of all scopes but the `failed`, those furthest behind first."""
    webhooks = source.tables.webhooks
    return Statement(
        select(*(webhooks.c[name] for name in (*source.scope, "id")))
        .where(webhooks.c.id != all_(bindparam("failed", type_=ARRAY(Text))), _is_waiting(source, one_scope=False))
        .order_by(webhooks.c.transaction_id, webhooks.c.event_id)
        .limit(_WAITING_AT_ONCE),
        scope=EVERYONE("the background makes messages for the webhooks of all owners"),
    )


def _lock_waiting_webhook(source: Source) -> Statement:
    """The statement that takes one of them for a transaction, if it still waits and no other transaction has it."""
    return Statement(
        select(source.tables.webhooks, events.HORIZON.label("horizon"))
        .where(*source.one_webhook, _is_waiting(source, one_scope=True))
        .with_for_update(skip_locked=True, key_share=True),
        scope=source.statement_scope,
    )


def _next_events(source: Source) -> Statement:
    """The events after a webhook's position, each with what was before: `names` of members, and their values."""
    history = source.events
    # Events that were written before the webhook was created are left out.
    since = history.c.created_at >= bindparam("since", type_=history.c.created_at.type)
    new = events.after_position(history, and_(*source.in_scope(history), since)).subquery("new")
    pair = func.json_each(new.c.changes).table_valued(column("key", Text), column("value", JSON))
    pair = pair.render_derived(name="pair")
    before = literal_column("pair.value -> 'from'", JSON)
    return Statement(
        select(
            new.c.transaction_id,
            new.c.id,
            new.c.ticket_id,
            new.c.version,
            new.c.type,
            new.c.created_at.label("occurred_at"),
            *(new.c[name] for name in source.event_columns),
            select(func.array_agg(pair.c.key, type_=ARRAY(Text))).scalar_subquery().label("names"),
            select(func.array_agg(before, type_=ARRAY(JSON))).select_from(pair).scalar_subquery().label("befores"),
        ).order_by(new.c.transaction_id, new.c.id),
        scope=source.statement_scope,
    )


def _tickets_as_of(source: Source) -> Statement:
    """Tickets, each with what undoes the changes after a version of it: `names` of members, and their values then.

    The first later change of a member says what it was. Only those changes are read, because they may be large.
    """
    history, tickets = source.events, source.tickets
    ticket_id = history.c.ticket_id.type
    arrays = (bindparam("ticket_ids", type_=ARRAY(ticket_id)), bindparam("versions", type_=ARRAY(Integer)))
    given = func.unnest(*arrays).table_valued(column("ticket_id", ticket_id), column("version", Integer))
    given = given.render_derived(name="given")
    later = history.alias("later")
    keys = select(func.json_object_keys(later.c.changes)).correlate(later).scalar_subquery()
    names: ColumnElement[list[str]] = func.array(keys, type_=ARRAY(Text))
    if "members" in later.c:
        # The same names, read without the changes. Null in events written before migration 0009: the `coalesce` is
        # needed as long as any database keeps such events.
        names = func.coalesce(later.c.members, names)
    name = func.unnest(names).table_valued(column("name", Text)).render_derived(name="name")
    first = (
        select(name.c.name, later.c.changes)
        .ext(distinct_on(name.c.name))
        .select_from(later.join(name, true()))
        .where(*source.in_scope(later), later.c.ticket_id == given.c.ticket_id, later.c.version > given.c.version)
        .order_by(name.c.name, later.c.version)
        .correlate(given)
        .subquery("first")
    )
    before = first.c.changes.op("->")(first.c.name).op("->")(literal_column("'from'"))
    undo = (
        select(
            func.array_agg(first.c.name, type_=ARRAY(Text)).label("names"),
            func.array_agg(before, type_=ARRAY(JSON)).label("befores"),
        )
        .select_from(first)
        .lateral("undo")
    )
    is_given = and_(*source.in_scope(tickets), tickets.c.id == given.c.ticket_id)
    return Statement(
        select(*(tickets.c[name] for name in source.ticket_columns), undo.c.names, undo.c.befores).select_from(
            given.join(tickets, is_given).join(undo, true())
        ),
        scope=source.statement_scope,
    )


def _queue(source: Source) -> Statement:
    """The statement that queues messages, given as arrays, and moves the webhook's position after their events."""
    webhooks, messages, _ = source.tables
    arrays = [bindparam(f"{name}s", type_=ARRAY(messages.c[name].type)) for name in MESSAGE]
    given = func.unnest(*arrays).table_valued(*(column(name, messages.c[name].type) for name in MESSAGE))
    given = given.render_derived(name="given")
    key = bound(messages, *source.webhook_key)
    # A message that is queued already, for a replay, is sent all the same.
    queued = upsert(messages).from_select([*key, *MESSAGE], select(*key.values(), *given.c)).on_conflict_do_nothing()
    return Statement(
        update(webhooks)
        .where(*source.one_webhook)
        .values(
            transaction_id=cast(bindparam("after_transaction", type_=Text), Xid8),
            event_id=bindparam("after_id", type_=BigInteger),
        )
        .returning(webhooks.c.id)
        .add_cte(queued.returning(messages.c.version).cte("queued")),
        scope=source.statement_scope,
    )
