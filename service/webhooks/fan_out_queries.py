"""The SQL statements by which what happened becomes messages for webhooks."""

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Integer,
    Text,
    Uuid,
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
from service.directory import ACCOUNT
from service.itsm import tables
from service.storage.database import Xid8
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, bound, mine
from service.webhooks.queries import ITS_MESSAGES, ONE, messages, webhooks

history, tickets = tables.events, tables.tickets
_WAITING_AT_ONCE = 500

_place = tuple_(webhooks.c.transaction_id, webhooks.c.event_id)
_has_news = exists().where(
    history.c.account_id == webhooks.c.account_id,
    history.c.live == webhooks.c.live,
    tuple_(history.c.transaction_id, history.c.id) > _place,
    history.c.transaction_id < events.HORIZON,
)


_room = bindparam("room", type_=Integer)
_queue = select(literal(1)).where(ITS_MESSAGES).correlate(webhooks).limit(_room).subquery("queue")
# It has not been told of everything, and has room in its queue.
_waits = and_(
    webhooks.c.is_active,
    _has_news,
    select(func.count()).select_from(_queue).scalar_subquery() < _room,
)
# Of all accounts: webhooks that wait, those first that are furthest behind.
WAITING = Statement(
    select(*(webhooks.c[name] for name in ("account_id", "live", "id")))
    .where(webhooks.c.id != all_(bindparam("failed", type_=ARRAY(Text))), _waits)
    .order_by(webhooks.c.transaction_id, webhooks.c.event_id)
    .limit(_WAITING_AT_ONCE),
    scope=EVERYONE("the background fans out the events of all accounts"),
)
# One of them for a transaction, if it still waits and nobody else has it.
TAKE = Statement(
    select(webhooks, events.HORIZON.label("horizon"))
    .where(*ONE, _waits)
    .with_for_update(skip_locked=True, key_share=True),
    scope=ACCOUNT,
)


def _news() -> Statement:
    """The events behind a webhook's place, each with what was before: `names` of members, and their values."""
    # Not what was written before the webhook was there.
    since = and_(*mine(history), history.c.created_at >= bindparam("since", type_=history.c.created_at.type))
    new = events.after_position(history, since).subquery("new")
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
            new.c.created_at.label("told_at"),
            new.c.updated_at,
            select(func.array_agg(pair.c.key, type_=ARRAY(Text))).scalar_subquery().label("names"),
            select(func.array_agg(before, type_=ARRAY(JSON))).select_from(pair).scalar_subquery().label("befores"),
        ).order_by(new.c.transaction_id, new.c.id),
        scope=ACCOUNT,
    )


def _tickets_as_of() -> Statement:
    """Tickets, each with what undoes the changes behind a version of it: `names` of members, and their values then.

    Of each member the first later change tells what it was. Only those changes are read, which may be large.
    """
    arrays = (bindparam("ticket_ids", type_=ARRAY(Uuid)), bindparam("versions", type_=ARRAY(Integer)))
    given = func.unnest(*arrays).table_valued(column("ticket_id", Uuid), column("version", Integer))
    given = given.render_derived(name="given")
    later = history.alias("later")
    # A process of an older version wrote no names.
    names = select(func.json_object_keys(later.c.changes)).correlate(later).scalar_subquery()
    old = func.array(names, type_=ARRAY(Text))
    name = func.unnest(func.coalesce(later.c.members, old)).table_valued(column("name", Text))
    name = name.render_derived(name="name")
    first = (
        select(name.c.name, later.c.changes)
        .ext(distinct_on(name.c.name))
        .select_from(later.join(name, true()))
        .where(*mine(later), later.c.ticket_id == given.c.ticket_id, later.c.version > given.c.version)
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
    members = [c for c in tickets.c if c.name not in ("metadata_terms", "transaction_id")]
    return Statement(
        select(*members, undo.c.names, undo.c.befores).select_from(
            given.join(tickets, and_(*mine(tickets), tickets.c.id == given.c.ticket_id)).join(undo, true())
        ),
        scope=ACCOUNT,
    )


NEWS = _news()
TICKETS_AS_OF = _tickets_as_of()


def _write() -> Statement:
    """The statement that queues messages, given as arrays, and moves the webhook's place behind their events."""
    names = tables.MESSAGE
    arrays = [bindparam(f"{name}s", type_=ARRAY(messages.c[name].type)) for name in names]
    given = func.unnest(*arrays).table_valued(*(column(name, messages.c[name].type) for name in names))
    given = given.render_derived(name="given")
    of = bound(messages, "account_id", "live", "webhook_id")
    # Whoever has it already (a replay of it is under way) is told of it all the same.
    queued = upsert(messages).from_select([*of, *names], select(*of.values(), *given.c)).on_conflict_do_nothing()
    return Statement(
        update(webhooks)
        .where(*ONE)
        .values(
            transaction_id=cast(bindparam("after_transaction", type_=Text), Xid8),
            event_id=bindparam("after_id", type_=BigInteger),
        )
        .returning(webhooks.c.id)
        .add_cte(queued.returning(messages.c.version).cte("queued")),
        scope=ACCOUNT,
    )


WRITE = _write()
