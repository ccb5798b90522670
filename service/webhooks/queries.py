"""The SQL statements of webhooks: what callers ask, of one account and mode, and how messages are sent, of all."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    Interval,
    Select,
    Text,
    Uuid,
    all_,
    and_,
    bindparam,
    case,
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
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events
from service.directory import ACCOUNT
from service.itsm import tables
from service.itsm.commands import MAX_WEBHOOKS
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, bound, in_seconds, mine

webhooks, messages, attempts = tables.webhooks, tables.messages, tables.attempts
KEPT_ATTEMPTS = 100
# How many messages of a webhook are on their way at once, and while it fails.
MOST_OF_WEBHOOK, _MOST_OF_FAILING = 4, 1
# How many messages of an account a process takes up at once.
MOST_OF_ACCOUNT = 8
_PREVIOUS_SECRET = literal_column("interval '24 hours'", Interval)
# Who is at a message and does not say so for that long is taken for dead.
_LEASE_TIME = literal_column("interval '60 seconds'", Interval)


WEBHOOK_ID: ColumnElement[Any] = bindparam("webhook_id", type_=Text)
ONE = mine(webhooks, id=WEBHOOK_ID)


# What callers ask

LIST = Statement(select(webhooks).where(*mine(webhooks)).order_by(webhooks.c.created_at, webhooks.c.id), scope=ACCOUNT)
GET = Statement(select(webhooks).where(*ONE), scope=ACCOUNT)

# Goes before CREATE, so that those who register at the same moment count each other's.
LOCK_ALL = Statement(
    select(webhooks.c.id).where(*mine(webhooks)).order_by(webhooks.c.id).with_for_update(key_share=True), scope=ACCOUNT
)


def _create() -> Statement:
    there = select(func.count()).select_from(webhooks).where(*mine(webhooks)).scalar_subquery()
    given = bound(webhooks, "account_id", "live", "id", "url", "events", "secret")
    # Behind which everything is that is written from now on; what is older is known by its time (`NEWS`).
    place = (events.HORIZON, literal(0, BigInteger))
    row = select(*given.values(), *place).where(there < MAX_WEBHOOKS)
    return Statement(
        insert(webhooks).from_select([*given, "transaction_id", "event_id"], row).returning(webhooks), scope=ACCOUNT
    )


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
    return Statement(update(webhooks).where(*ONE).values(values).returning(webhooks), scope=ACCOUNT)


# What waits is tried again from the beginning, at once.
RESUME = Statement(
    update(messages)
    .where(*mine(messages, webhook_id=WEBHOOK_ID))
    # Whoever is at one of them has no say any more.
    .values(attempts=0, next_attempt_at=func.now(), lease=null())
    .returning(messages.c.version),
    scope=ACCOUNT,
)
ROTATE = Statement(
    update(webhooks)
    .where(*ONE)
    .values(
        **bound(webhooks, "secret"),
        previous_secret=webhooks.c.secret,
        previous_secret_until=func.now() + _PREVIOUS_SECRET,
        updated_at=events.next_instant(webhooks.c.updated_at),
    )
    .returning(webhooks),
    scope=ACCOUNT,
)
DELETE_QUEUE = Statement(
    delete(messages).where(*mine(messages, webhook_id=WEBHOOK_ID)).returning(messages.c.version), scope=ACCOUNT
)
# Goes before what changes a webhook and its messages in one transaction, so that all lock in the same order.
LOCK = Statement(
    select((func.now() - webhooks.c.failing_since).label("failing_for")).where(*ONE).with_for_update(key_share=True),
    scope=ACCOUNT,
)
DELETE = Statement(delete(webhooks).where(*ONE).returning(webhooks.c.id), scope=ACCOUNT)

_log = mine(attempts, webhook_id=WEBHOOK_ID)
# What is sent again by a replay is in no list.
_shown = tuple(column for column in attempts.c if column.name != "body")
LIST_ATTEMPTS = Statement(
    select(*_shown).where(*_log).order_by(attempts.c.id.desc()).limit(KEPT_ATTEMPTS), scope=ACCOUNT
)


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
    return Statement(shown.add_cte(queued.returning(messages.c.version).cte("queued")), scope=ACCOUNT)


REPLAY = _replay()


# In the background: messages are sent

ITS_MESSAGES = and_(
    messages.c.account_id == webhooks.c.account_id,
    messages.c.live == webhooks.c.live,
    messages.c.webhook_id == webhooks.c.id,
)
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
            messages.join(webhooks, and_(ITS_MESSAGES, webhooks.c.is_active)).outerjoin(
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
        ).select_from(leased.join(webhooks, whose)),
        scope=EVERYONE("the background sends the messages of all accounts"),
    )


LEASE_DUE = _lease_due()

_ours = (
    *mine(messages, webhook_id=WEBHOOK_ID, ticket_id=bindparam("ticket_id", type_=Uuid)),
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
    return Statement(
        select(exists(select(ended.c.version)).label("was_ours")).add_cte(written, old.cte("old")), scope=ACCOUNT
    )


# It was taken, or is given up.
OVER = _recorded(delete(messages).where(*_ours))
TO_TRY_AGAIN = _recorded(
    update(messages)
    .where(*_ours)
    .values(
        # Those that broke off here are not counted: they say nothing of the receiver.
        attempts=bindparam("attempt", type_=Integer),
        # Nothing where it was switched off meanwhile.
        next_attempt_at=case((exists().where(*ONE, webhooks.c.is_active), in_seconds("pause")), else_=null()),
        lease=null(),
        leased_until=null(),
    )
)

RECOVERED = Statement(
    update(webhooks)
    .where(*ONE, webhooks.c.failing_since.is_not(None))
    .values(failing_since=null())
    .returning(webhooks.c.id),
    scope=ACCOUNT,
)
FAILING = Statement(
    update(webhooks)
    .where(*ONE, webhooks.c.is_active, webhooks.c.failing_since.is_(None))
    .values(failing_since=func.now())
    .returning(webhooks.c.id),
    scope=ACCOUNT,
)
DISABLE = Statement(
    update(webhooks)
    .where(*ONE, webhooks.c.is_active)
    .values(
        is_active=false(),
        disabled_reason=bindparam("reason", type_=Text),
        failing_since=func.coalesce(webhooks.c.failing_since, func.now()),
        updated_at=events.next_instant(webhooks.c.updated_at),
    )
    .returning(webhooks.c.id),
    scope=ACCOUNT,
)
# What waits is not looked at again until its webhook is switched on.
HOLD = Statement(
    update(messages)
    .where(*mine(messages, webhook_id=WEBHOOK_ID), not_(exists().where(*ONE, webhooks.c.is_active)))
    .values(next_attempt_at=null())
    .returning(messages.c.version),
    scope=ACCOUNT,
)
