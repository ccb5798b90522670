"""The SQL statements of deliveries to providers: of one account, but for those that look for what is due.

Their tickets are written here too, where what is known of the delivery decides over that.
"""

import json
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    JSON,
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
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    update,
)

from service import events, idempotency
from service.directory import ACCOUNT
from service.itsm import tables
from service.itsm.queries import MINE, NEW, ONE, SHOWN, creation, of_change, tickets
from service.providers.port import MEMBERS
from service.providers.tables import deliveries, links
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, bound, in_seconds

# Since when what waits for another is no longer looked at each time.
_IN_VAIN = literal_column("interval '30 seconds'", Interval)
_LONGEST_WAIT_MINUTES = 60
_PUT_OFF_AT_ONCE = 10_000

_OURS = (
    deliveries.c.account_id == bindparam("account_id", type_=Uuid),
    deliveries.c.id == bindparam("delivery_id", type_=Uuid),
    deliveries.c.lease == bindparam("lease", type_=Uuid),
)
_free = or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < func.now())
# Whoever had it before and did not say how it ended may have done it.
_maybe_done = or_(deliveries.c.in_doubt, deliveries.c.leased_until.is_not(None))


def _url_of(account_id: ColumnElement[Any]) -> ColumnElement[Any]:
    return select(links.c.url).where(links.c.account_id == account_id).scalar_subquery()


_leased = {
    "lease": bindparam("lease", type_=Uuid),
    "leased_until": in_seconds("lease_seconds"),
    "attempts": deliveries.c.attempts + 1,
    "in_doubt": _maybe_done,
    "asked_url": case((_maybe_done, deliveries.c.asked_url), else_=_url_of(deliveries.c.account_id)),
}


BEGIN_DELIVERY = Statement(
    insert(deliveries)
    .values(
        {
            **bound(deliveries, "account_id", "ticket_id", "members", "actor", "request_id", "lease"),
            **bound(deliveries, "idempotency_scope", "idempotency_key", "request_hash"),
            "id": bindparam("delivery_id", type_=Uuid),
            "version": 1,
            "kind": "create",
            "is_kept": False,
            "leased_until": in_seconds("lease_seconds"),
            "attempts": 1,
            "asked_url": _url_of(bindparam("account_id", type_=Uuid)),
        }
    )
    .returning(deliveries),
    scope=ACCOUNT,
)
_OF_KEY = (
    deliveries.c.idempotency_scope == bindparam("idempotency_scope", type_=Text),
    deliveries.c.idempotency_key == bindparam("idempotency_key", type_=Text),
    not_(deliveries.c.is_kept),
)
# Who has a key, while the provider is being asked.
KEY_HOLDER = Statement(select(deliveries.c.request_hash).where(*_OF_KEY), scope=ACCOUNT)
TAKE_OVER = Statement(update(deliveries).where(*_OF_KEY, _free).values(_leased).returning(deliveries), scope=ACCOUNT)

_earlier = deliveries.alias("earlier")
_is_next = not_(
    exists().where(
        _earlier.c.ticket_id == deliveries.c.ticket_id,
        _earlier.c.version < deliveries.c.version,
        # What is dead holds nothing up, but nothing can be changed of what is not there.
        or_(_earlier.c.state == "queued", _earlier.c.kind == "create"),
    )
)
_due = and_(deliveries.c.state == "queued", deliveries.c.next_attempt_at <= func.now(), _free, _is_next)
_due_ids = (
    select(deliveries.c.id)
    .where(_due, deliveries.c.account_id != all_(bindparam("busy", type_=ARRAY(Uuid))))
    .order_by(deliveries.c.next_attempt_at)
    .limit(bindparam("rows", type_=Integer))
    .with_for_update(skip_locked=True)
)
# Of all accounts: the deliveries whose turn it is, leased.
LEASE_DUE = Statement(
    update(deliveries).where(deliveries.c.id.in_(_due_ids)).values(_leased).returning(deliveries),
    scope=EVERYONE("the background delivers for all accounts"),
)
# Of one account: the one whose turn it has been for longest.
_next_id = (
    select(deliveries.c.id)
    .where(_due, deliveries.c.account_id == bindparam("account_id", type_=Uuid))
    .order_by(deliveries.c.next_attempt_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
LEASE_NEXT = Statement(
    update(deliveries).where(deliveries.c.id == _next_id.scalar_subquery()).values(_leased).returning(deliveries),
    scope=ACCOUNT,
)
# One delivery, if it is its turn.
LEASE = Statement(
    update(deliveries)
    .where(
        deliveries.c.account_id == bindparam("account_id", type_=Uuid),
        deliveries.c.id == bindparam("delivery_id", type_=Uuid),
        _due,
    )
    .values(_leased)
    .returning(deliveries),
    scope=ACCOUNT,
)


def _postpone() -> Statement:
    """Of all accounts: the deliveries that are due for long but not next, put off for a while.

    Each look for what is due would read all of them. Those with many before them are put off for longer; the end of the
    one before wakes the next.
    """
    head = select(func.min(_earlier.c.version)).where(_earlier.c.ticket_id == deliveries.c.ticket_id).scalar_subquery()
    minutes = func.least(deliveries.c.version - head, _LONGEST_WAIT_MINUTES)
    in_vain = (
        select(deliveries.c.id)
        .where(deliveries.c.state == "queued", deliveries.c.next_attempt_at <= func.now() - _IN_VAIN, not_(_is_next))
        .order_by(deliveries.c.next_attempt_at)
        .limit(_PUT_OFF_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return Statement(
        update(deliveries)
        .where(deliveries.c.id.in_(in_vain))
        .values(next_attempt_at=func.now() + func.make_interval(0, 0, 0, 0, 0, minutes))
        .returning(deliveries.c.id),
        scope=EVERYONE("the background delivers for all accounts"),
    )


POSTPONE = _postpone()


def _behind(ended: CTE) -> Select[Any]:
    """The queued deliveries behind one that has ended, of the same ticket."""
    later = deliveries.alias("later")
    return (
        select(later.c.id)
        .where(later.c.ticket_id == ended.c.ticket_id, later.c.version > ended.c.version, later.c.state == "queued")
        .correlate(ended)
    )


def _wake(ended: CTE, *conditions: ColumnElement[bool]) -> CTE:
    """The next one, which is due as soon as this one has ended."""
    first = _behind(ended).order_by(column("version")).limit(1).scalar_subquery()
    return (
        update(deliveries)
        .where(deliveries.c.id == select(first).select_from(ended).where(*conditions).scalar_subquery())
        .values(next_attempt_at=func.now())
        .returning(deliveries.c.id)
        .cte("woken")
    )


_gone = delete(deliveries).where(*_OURS).returning(deliveries).cte("gone")
_woken = _wake(_gone)
DROP_DELIVERY = Statement(select(_gone.c.id).add_cte(_woken), scope=ACCOUNT)

_failure = {
    **bound(deliveries, "in_doubt", "last_error", "state"),
    "next_attempt_at": in_seconds("pause"),
    "lease": null(),
    "leased_until": null(),
}


def _fail() -> Statement:
    """The statement that writes down how a delivery failed; one that is dead holds nothing up.

    Behind a dead creation nothing waits: requeued, it tells what the ticket has by then.
    """
    failed = update(deliveries).where(*_OURS).values(_failure).returning(deliveries).cte("failed")
    is_dead, is_creation = failed.c.state == "dead", failed.c.kind == "create"
    behind = _behind(failed).lateral("behind")
    of_dead = select(behind.c.id).select_from(failed.join(behind, true())).where(is_dead, is_creation)
    needless = delete(deliveries).where(deliveries.c.id.in_(of_dead)).returning(deliveries.c.id).cte("needless")
    return Statement(select(failed.c.id).add_cte(_wake(failed, is_dead, not_(is_creation)), needless), scope=ACCOUNT)


FAIL_DELIVERY = _fail()


def _finish(claimed: CTE) -> idempotency.Creation:
    """The statements that keep a ticket which the provider was asked for, if the delivery is still ours."""
    names = [*NEW, "external_provider", "external_ticket_id", "external_ticket_url"]
    given = select(*bound(tickets, *names).values()).where(exists(select(claimed.c.id)))
    return creation(insert(tickets).from_select(names, given).returning(*SHOWN).cte("ticket"))


# The provider has it or there is none any more; it will have it later.
CREATE_DELIVERED = _finish(_gone)
CREATE_QUEUED = _finish(
    update(deliveries).where(*_OURS).values({**_failure, "is_kept": True}).returning(deliveries.c.id).cte("kept")
)


def _delivered() -> Statement:
    """The statement that ends the delivery of a ticket that is here: it says where the provider has it."""
    names = ("external_provider", "external_ticket_id", "external_ticket_url")
    before = select(*SHOWN).where(*ONE).with_for_update().cte("before")
    after = (
        update(tickets)
        .where(*MINE, tickets.c.id == before.c.id, exists(select(_gone.c.id)))
        .values(
            bound(tickets, *names)
            | {"updated_at": events.next_instant(tickets.c.updated_at)}
            | events.next_version(tickets)
        )
        .returning(*SHOWN)
        .cte("after")
    )
    told = select(after, events.changes(before, after, names).label("changes"))
    written = told.select_from(after.join(before, after.c.id == before.c.id)).cte("written")
    event = events.append(tables.events, written, "ticket.updated", written.c.changes, of_change(written))
    # Who changed the ticket while the creation was dead told nobody, and may have been about to as it was taken up.
    requeued = select(
        bindparam("sync_id", type_=Uuid),
        after.c.account_id,
        after.c.id,
        after.c.version,
        literal("update", Text),
        cast(literal(json.dumps(dict.fromkeys(MEMBERS)), Text), JSON),
        true(),
        true(),
        bindparam("actor", type_=Text),
        bindparam("request_id", type_=Text),
    ).where(exists(select(_gone.c.id).where(_gone.c.is_requeued)))
    columns = [
        "id",
        "account_id",
        "ticket_id",
        "version",
        "kind",
        "members",
        "is_kept",
        "is_requeued",
        "actor",
        "request_id",
    ]
    sync = insert(deliveries).from_select(columns, requeued.select_from(after)).returning(deliveries.c.id).cte("sync")
    return Statement(select(after).add_cte(event, _woken, sync), scope=ACCOUNT)


DELIVERED = _delivered()

LINK = Statement(select(links).where(links.c.account_id == bindparam("account_id", type_=Uuid)), scope=ACCOUNT)
