"""Every SQL statement of webhooks: what callers ask within one account and mode, and what goes on in the background."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    FromClause,
    Integer,
    Interval,
    Select,
    Text,
    Uuid,
    all_,
    and_,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events
from service.database import Xid8
from service.itsm import tables
from service.itsm.commands import MAX_WEBHOOKS
from service.statement import Statement, bound, in_seconds

webhooks, messages, attempts, history, tickets = (
    tables.webhooks,
    tables.messages,
    tables.attempts,
    tables.events,
    tables.tickets,
)
KEPT_ATTEMPTS = 100
_WAITING_AT_ONCE = 500
# How many messages of a webhook are on their way at once, and while it fails.
MOST_OF_WEBHOOK, _MOST_OF_FAILING = 4, 1
# How many messages of an account a process takes up at once.
MOST_OF_ACCOUNT = 8
_PREVIOUS_SECRET = literal_column("interval '24 hours'", Interval)
# Who is at a message and does not say so for that long is taken for dead.
_LEASE_TIME = literal_column("interval '60 seconds'", Interval)


def _mine(table: FromClause, **more: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
    mine = {"account_id": bindparam("account_id", type_=Uuid), "live": bindparam("live", type_=Boolean), **more}
    return tuple(table.c[name] == value for name, value in mine.items())


_webhook_id: ColumnElement[Any] = bindparam("webhook_id", type_=Text)
_ONE = _mine(webhooks, id=_webhook_id)


# What callers ask

LIST = Statement(select(webhooks).where(*_mine(webhooks)).order_by(webhooks.c.created_at, webhooks.c.id))
GET = Statement(select(webhooks).where(*_ONE))

# Goes before CREATE, so that those who register at the same moment count each other's.
LOCK_ALL = Statement(
    select(webhooks.c.id).where(*_mine(webhooks)).order_by(webhooks.c.id).with_for_update(key_share=True)
)


def _create() -> Statement:
    there = select(func.count()).select_from(webhooks).where(*_mine(webhooks)).scalar_subquery()
    given = bound(webhooks, "account_id", "live", "id", "url", "events", "secret")
    # Behind which everything is that is written from now on; what is older is known by its time (`NEWS`).
    place = (events.ALL_ENDED_BEFORE, literal(0, BigInteger))
    row = select(*given.values(), *place).where(there < MAX_WEBHOOKS)
    return Statement(insert(webhooks).from_select([*given, "transaction_id", "event_id"], row).returning(webhooks))


CREATE = _create()


@lru_cache(maxsize=8)
def update_webhook(changed: frozenset[str]) -> Statement:
    """The statement that changes these members.

    One that is switched on or off has no reason to be off any more, and what failed at another address is no failure.
    """
    values: dict[str, Any] = {name: bindparam(f"new_{name}", type_=webhooks.c[name].type) for name in sorted(changed)}
    if "is_active" in changed:
        values["disabled_reason"] = null()
    if changed & {"is_active", "url"}:
        values["failing_since"] = null()
    values["updated_at"] = events.next_instant(webhooks.c.updated_at)
    return Statement(update(webhooks).where(*_ONE).values(values).returning(webhooks))


# What waits is tried again from the beginning, at once.
RESUME = Statement(
    update(messages)
    .where(*_mine(messages, webhook_id=_webhook_id))
    # Whoever is at one of them has no say any more.
    .values(attempts=0, next_attempt_at=func.now(), lease=null())
    .returning(messages.c.version)
)
ROTATE = Statement(
    update(webhooks)
    .where(*_ONE)
    .values(
        **bound(webhooks, "secret"),
        previous_secret=webhooks.c.secret,
        previous_secret_until=func.now() + _PREVIOUS_SECRET,
        updated_at=events.next_instant(webhooks.c.updated_at),
    )
    .returning(webhooks)
)
DELETE_QUEUE = Statement(delete(messages).where(*_mine(messages, webhook_id=_webhook_id)).returning(messages.c.version))
# Goes before what changes a webhook and its messages in one transaction, so that all lock in the same order.
LOCK = Statement(
    select((func.now() - webhooks.c.failing_since).label("failing_for")).where(*_ONE).with_for_update(key_share=True)
)
DELETE = Statement(delete(webhooks).where(*_ONE).returning(webhooks.c.id))

_log = _mine(attempts, webhook_id=_webhook_id)
# What is sent again by a replay is in no list.
_shown = tuple(column for column in attempts.c if column.name != "body")
LIST_ATTEMPTS = Statement(select(*_shown).where(*_log).order_by(attempts.c.id.desc()).limit(KEPT_ATTEMPTS))


def _replay() -> Statement:
    """The statement that queues the message of an attempt again; one that is queued still is due at once."""
    which = bindparam("delivery_id", type_=Text)
    replayed = select(attempts).where(*_log, attempts.c.id == which).cte("replayed")
    names = [*tables.OF_WEBHOOK, *tables.MESSAGE]
    again = upsert(messages).from_select(names, select(*(replayed.c[name] for name in names)))
    queued = again.on_conflict_do_update(
        constraint=messages.primary_key, set_={"attempts": 0, "next_attempt_at": func.now(), "lease": null()}
    )
    shown = select(*(replayed.c[column.name] for column in _shown))
    return Statement(shown.add_cte(queued.returning(messages.c.version).cte("queued")))


REPLAY = _replay()


# In the background: what happened becomes messages

_place = tuple_(webhooks.c.transaction_id, webhooks.c.event_id)
_has_news = exists().where(
    history.c.account_id == webhooks.c.account_id,
    history.c.live == webhooks.c.live,
    tuple_(history.c.transaction_id, history.c.id) > _place,
    history.c.transaction_id < events.ALL_ENDED_BEFORE,
)
_of_webhook = and_(
    messages.c.account_id == webhooks.c.account_id,
    messages.c.live == webhooks.c.live,
    messages.c.webhook_id == webhooks.c.id,
)


_room = bindparam("room", type_=Integer)
_queue = select(literal(1)).where(_of_webhook).correlate(webhooks).limit(_room).subquery("queue")
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
    .limit(_WAITING_AT_ONCE)
)
# One of them for a transaction, if it still waits and nobody else has it.
TAKE = Statement(
    select(webhooks, events.ALL_ENDED_BEFORE.label("fence"))
    .where(*_ONE, _waits)
    .with_for_update(skip_locked=True, key_share=True)
)


def _news() -> Statement:
    """The events behind a webhook's place, each with what was before: `names` of members, and their values."""
    # Not what was written before the webhook was there.
    mine = and_(*_mine(history), history.c.created_at >= bindparam("since", type_=history.c.created_at.type))
    new = events.news(history, mine).subquery("new")
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
        ).order_by(new.c.transaction_id, new.c.id)
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
        .where(*_mine(later), later.c.ticket_id == given.c.ticket_id, later.c.version > given.c.version)
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
    members = [c for c in tickets.c if c.name not in ("metadata_words", "transaction_id")]
    return Statement(
        select(*members, undo.c.names, undo.c.befores).select_from(
            given.join(tickets, and_(*_mine(tickets), tickets.c.id == given.c.ticket_id)).join(undo, true())
        )
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
        .where(*_ONE)
        .values(
            transaction_id=cast(bindparam("after_transaction", type_=Text), Xid8),
            event_id=bindparam("after_id", type_=BigInteger),
        )
        .returning(webhooks.c.id)
        .add_cte(queued.returning(messages.c.version).cte("queued"))
    )


WRITE = _write()


# In the background: messages are sent

_KEY = (*tables.OF_WEBHOOK, "ticket_id", "version")
_earlier = messages.alias("earlier")
_is_next = not_(
    exists().where(
        *(_earlier.c[name] == messages.c[name] for name in _KEY[:-1]), _earlier.c.version < messages.c.version
    )
)
_free = or_(messages.c.leased_until.is_(None), messages.c.leased_until < func.now())
_due = and_(messages.c.next_attempt_at <= func.now(), _free)


def _lease_due() -> Statement:
    """Of all accounts but the `busy`: the messages whose turn it is, leased.

    They are few of each webhook and of each account, so that who is slow stops nobody else.
    """
    of_webhook = [messages.c[name] for name in _KEY[:3]]
    on_their_way = (
        select(*of_webhook, func.count().label("number"))
        .where(messages.c.leased_until >= func.now())
        .group_by(*of_webhook)
        .subquery("on_their_way")
    )
    oldest_first = func.row_number().over(
        partition_by=of_webhook, order_by=[messages.c.next_attempt_at, messages.c.version]
    )
    at_once = case((webhooks.c.failing_since.is_(None), MOST_OF_WEBHOOK), else_=_MOST_OF_FAILING)
    due = (
        select(
            *(messages.c[name] for name in _KEY),
            messages.c.next_attempt_at,
            webhooks.c.failing_since.is_not(None).label("is_failing"),
            oldest_first.label("place"),
            (oldest_first + func.coalesce(on_their_way.c.number, 0) <= at_once).label("is_let"),
        )
        .select_from(
            messages.join(webhooks, and_(_of_webhook, webhooks.c.is_active)).outerjoin(
                on_their_way, and_(*(on_their_way.c[name] == messages.c[name] for name in _KEY[:3]))
            )
        )
        .where(_due, _is_next, messages.c.account_id != all_(bindparam("busy", type_=ARRAY(Uuid))))
        .subquery("due")
    )
    # Who fails comes behind who does not, and a webhook's second message behind the first of another.
    turn = [due.c.is_failing, due.c.place, due.c.next_attempt_at]
    let = (
        select(
            due,
            func.row_number()
            .over(partition_by=[due.c.account_id, due.c.is_failing], order_by=turn)
            .label("of_account"),
            func.row_number().over(partition_by=due.c.is_failing, order_by=turn).label("of_kind"),
        )
        .where(due.c.is_let)
        .cte("let")
        # Statistics of a moment when little was due would have it worked out for each message anew.
        .prefix_with("MATERIALIZED")
    )
    locked = (
        select(*(messages.c[name] for name in _KEY))
        .select_from(messages.join(let, and_(*(let.c[name] == messages.c[name] for name in _KEY))))
        # Once more for those that another process took in between.
        .where(_due, let.c.of_account <= case((let.c.is_failing, MOST_OF_ACCOUNT // 2), else_=MOST_OF_ACCOUNT))
        .where(or_(not_(let.c.is_failing), let.c.of_kind <= bindparam("failing_rows", type_=Integer)))
        .order_by(let.c.is_failing, let.c.place, let.c.next_attempt_at)
        .limit(bindparam("rows", type_=Integer))
        .with_for_update(of=messages, skip_locked=True)
        .cte("locked")
    )
    leased = (
        update(messages)
        .where(*(messages.c[name] == locked.c[name] for name in _KEY))
        .values(
            lease=bindparam("lease", type_=Uuid),
            leased_until=func.now() + _LEASE_TIME,
        )
        .returning(messages)
        .cte("leased")
    )
    previous = case((webhooks.c.previous_secret_until > func.now(), webhooks.c.previous_secret), else_=null())
    whose = and_(*(webhooks.c[name] == leased.c[name] for name in _KEY[:2]), webhooks.c.id == leased.c.webhook_id)
    return Statement(
        select(
            leased,
            webhooks.c.url,
            webhooks.c.secret,
            previous.label("previous_secret"),
            webhooks.c.failing_since,
            func.now().label("attempted_at"),
        ).select_from(leased.join(webhooks, whose))
    )


LEASE_DUE = _lease_due()

_ours = (
    *_mine(messages, webhook_id=_webhook_id, ticket_id=bindparam("ticket_id", type_=Uuid)),
    messages.c.version == bindparam("version", type_=Integer),
    messages.c.lease == bindparam("lease", type_=Uuid),
)


def _recorded(end: Any) -> Statement:
    """The statement that writes an attempt into the log, of which the oldest go, and what becomes of its message.

    `was_ours`: whether the lease was still that of the attempt. If not, somebody else has the say.
    """
    given = bound(attempts, *(c.name for c in attempts.c))
    written = insert(attempts).values(given).returning(attempts.c.id).cte("written")
    ended = end.returning(messages.c.version).cte("ended")
    # It does not see the new one.
    oldest: Select[Any] = (
        select(attempts.c.id).where(*_log).order_by(attempts.c.id.desc()).offset(KEPT_ATTEMPTS - 1).limit(1)
    )
    # What another removes at this moment need not be waited for, with a message in hand that it may wait for.
    too_old = select(attempts.c.id).where(*_log, attempts.c.id <= oldest.scalar_subquery())
    old = (
        delete(attempts)
        .where(*_log, attempts.c.id.in_(too_old.with_for_update(skip_locked=True)))
        .returning(attempts.c.id)
    )
    return Statement(select(exists(select(ended.c.version)).label("was_ours")).add_cte(written, old.cte("old")))


# It was taken, or is given up.
OVER = _recorded(delete(messages).where(*_ours))
TO_TRY_AGAIN = _recorded(
    update(messages)
    .where(*_ours)
    .values(
        # Those that broke off here are not counted: they say nothing of the receiver.
        attempts=bindparam("attempt", type_=Integer),
        # Nothing where it was switched off meanwhile.
        next_attempt_at=case((exists().where(*_ONE, webhooks.c.is_active), in_seconds("pause")), else_=null()),
        lease=null(),
        leased_until=null(),
    )
)

RECOVERED = Statement(
    update(webhooks)
    .where(*_ONE, webhooks.c.failing_since.is_not(None))
    .values(failing_since=null())
    .returning(webhooks.c.id)
)
FAILING = Statement(
    update(webhooks)
    .where(*_ONE, webhooks.c.is_active, webhooks.c.failing_since.is_(None))
    .values(failing_since=func.now())
    .returning(webhooks.c.id)
)
DISABLE = Statement(
    update(webhooks)
    .where(*_ONE, webhooks.c.is_active)
    .values(
        is_active=false(),
        disabled_reason=bindparam("reason", type_=Text),
        failing_since=func.coalesce(webhooks.c.failing_since, func.now()),
        updated_at=events.next_instant(webhooks.c.updated_at),
    )
    .returning(webhooks.c.id)
)
# What waits is not looked at again until its webhook is switched on.
HOLD = Statement(
    update(messages)
    .where(*_mine(messages, webhook_id=_webhook_id), not_(exists().where(*_ONE, webhooks.c.is_active)))
    .values(next_attempt_at=null())
    .returning(messages.c.version)
)
