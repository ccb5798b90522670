"""The SQL statements of deliveries to providers: each of one account, but for those that lease or postpone due ones.

The tickets are written here too where that depends on the delivery: only the process that holds its lease may.
"""

import json
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    JSON,
    ColumnElement,
    FromClause,
    Integer,
    Interval,
    Select,
    Text,
    Uuid,
    all_,
    and_,
    any_,
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
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events
from service.directory import ACCOUNT
from service.idempotency import Guard
from service.itsm import tables
from service.itsm.keys import KEYS
from service.itsm.queries import MINE, NEW, ONE, SHOWN, known_ticket, new_ticket, of_change, tickets
from service.providers.port import MEMBERS
from service.providers.tables import deliveries, links
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, bound, in_seconds

# How long a delivery may be due behind an earlier one of its ticket before it is postponed.
_BLOCKED_FOR = literal_column("interval '30 seconds'", Interval)
_MAX_POSTPONED_MINUTES = 60
MAX_POSTPONED_ROWS = 10_000


def _of_account(table: FromClause = deliveries) -> ColumnElement[bool]:
    return table.c.account_id == bindparam("account_id", type_=Uuid)


_UNDER_LEASE = (
    _of_account(),
    deliveries.c.id == bindparam("delivery_id", type_=Uuid),
    deliveries.c.lease == bindparam("lease", type_=Uuid),
)
_unleased = or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < func.now())
# A lease that was never ended: the process that held it may have reached the provider.
_in_doubt = or_(deliveries.c.in_doubt, deliveries.c.leased_until.is_not(None))


def _url_of(account_id: ColumnElement[Any]) -> ColumnElement[Any]:
    return select(links.c.url).where(links.c.account_id == account_id).scalar_subquery()


_leased = {
    "lease": bindparam("lease", type_=Uuid),
    "leased_until": in_seconds("lease_seconds"),
    "attempts": deliveries.c.attempts + 1,
    "in_doubt": _in_doubt,
    "attempted_url": case((_in_doubt, deliveries.c.attempted_url), else_=_url_of(deliveries.c.account_id)),
}


# No row while another request holds the key.
BEGIN_DELIVERY = Statement(
    upsert(deliveries)
    .values(
        {
            **bound(deliveries, "account_id", "ticket_id", "members", "actor", "request_id", "lease"),
            **bound(deliveries, "idempotency_key", "request_hash"),
            "id": bindparam("delivery_id", type_=Uuid),
            "version": 1,
            "kind": "create",
            "has_ticket": False,
            "leased_until": in_seconds("lease_seconds"),
            "attempts": 1,
            "attempted_url": _url_of(bindparam("account_id", type_=Uuid)),
        }
    )
    .on_conflict_do_nothing()
    .returning(deliveries),
    scope=ACCOUNT,
)
_OF_KEY = (
    _of_account(),
    deliveries.c.idempotency_key == bindparam("idempotency_key", type_=Text),
    not_(deliveries.c.has_ticket),
)
# The request under a key whose creation is being attempted.
KEY_HOLDER = Statement(select(deliveries.c.request_hash).where(*_OF_KEY), scope=ACCOUNT)
TAKE_OVER = Statement(
    update(deliveries).where(*_OF_KEY, _unleased).values(_leased).returning(deliveries), scope=ACCOUNT
)

_earlier = deliveries.alias("earlier")
_SAME_TICKET = (_earlier.c.account_id == deliveries.c.account_id, _earlier.c.ticket_id == deliveries.c.ticket_id)


def _is_next(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return not_(
        exists().where(
            *_SAME_TICKET,
            *conditions,
            _earlier.c.version < deliveries.c.version,
            # A dead change blocks nothing; a dead creation the changes of a ticket that the provider does not have.
            or_(_earlier.c.state == "queued", _earlier.c.kind == "create"),
        )
    )


_is_due = and_(deliveries.c.state == "queued", deliveries.c.next_attempt_at <= func.now(), _unleased)
_DUE_OF_ACCOUNT = (_of_account(), _is_due, _is_next(_of_account(_earlier)))
_due_ids = (
    select(deliveries.c.id)
    .where(_is_due, _is_next(), deliveries.c.account_id != all_(bindparam("excluded_accounts", type_=ARRAY(Uuid))))
    .order_by(deliveries.c.next_attempt_at)
    .limit(bindparam("rows", type_=Integer))
    .with_for_update(skip_locked=True)
)
# The deliveries of all accounts that are due, leased.
LEASE_DUE = Statement(
    update(deliveries).where(deliveries.c.id.in_(_due_ids)).values(_leased).returning(deliveries),
    scope=EVERYONE("the background delivers for all accounts"),
)
# The deliveries of all accounts that are being attempted, by their `ids` and `leases`, leased for longer. (One that is
# locked is being recorded.)
RENEW = Statement(
    update(deliveries)
    .where(
        deliveries.c.id.in_(
            select(deliveries.c.id)
            .where(
                deliveries.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))),
                deliveries.c.lease == any_(bindparam("leases", type_=ARRAY(Uuid))),
            )
            .with_for_update(skip_locked=True)
        )
    )
    .values(leased_until=in_seconds("lease_seconds"))
    .returning(deliveries.c.id, deliveries.c.lease),
    scope=EVERYONE("the background delivers for all accounts"),
)
# The delivery of one account that has been due for longest.
_next_id = (
    select(deliveries.c.id)
    .where(*_DUE_OF_ACCOUNT)
    .order_by(deliveries.c.next_attempt_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
LEASE_NEXT = Statement(
    update(deliveries)
    .where(_of_account(), deliveries.c.id == _next_id.scalar_subquery())
    .values(_leased)
    .returning(deliveries),
    scope=ACCOUNT,
)
# One delivery, if it is due.
LEASE = Statement(
    update(deliveries)
    .where(*_DUE_OF_ACCOUNT, deliveries.c.id == bindparam("delivery_id", type_=Uuid))
    .values(_leased)
    .returning(deliveries),
    scope=ACCOUNT,
)


def _postpone() -> Statement:
    """Of all accounts: the deliveries that have been due for a while behind an earlier one, postponed.

    Each search for due deliveries would read all of them. Those with many before them are postponed for longer; the end
    of one makes the next due.
    """
    head = select(func.min(_earlier.c.version)).where(*_SAME_TICKET).scalar_subquery()
    minutes = func.least(deliveries.c.version - head, _MAX_POSTPONED_MINUTES)
    blocked = (
        select(deliveries.c.id)
        .where(
            deliveries.c.state == "queued", deliveries.c.next_attempt_at <= func.now() - _BLOCKED_FOR, not_(_is_next())
        )
        .order_by(deliveries.c.next_attempt_at)
        .limit(MAX_POSTPONED_ROWS)
        .with_for_update(skip_locked=True)
    )
    return Statement(
        update(deliveries)
        .where(deliveries.c.id.in_(blocked))
        .values(next_attempt_at=func.now() + func.make_interval(0, 0, 0, 0, 0, minutes))
        .returning(deliveries.c.id),
        scope=EVERYONE("the background delivers for all accounts"),
    )


POSTPONE = _postpone()


def _after(ended: CTE) -> Select[Any]:
    """The queued deliveries after one that has ended, of the same ticket."""
    later = deliveries.alias("later")
    return (
        select(later.c.id)
        .where(
            _of_account(later),
            later.c.ticket_id == ended.c.ticket_id,
            later.c.version > ended.c.version,
            later.c.state == "queued",
        )
        .correlate(ended)
    )


def _wake(ended: CTE, *conditions: ColumnElement[bool]) -> CTE:
    """Makes the next delivery of the ticket due as soon as this one has ended."""
    first = _after(ended).order_by(column("version")).limit(1).scalar_subquery()
    return (
        update(deliveries)
        .where(_of_account(), deliveries.c.id == select(first).select_from(ended).where(*conditions).scalar_subquery())
        .values(next_attempt_at=func.now())
        .returning(deliveries.c.id)
        .cte("woken")
    )


_ended = delete(deliveries).where(*_UNDER_LEASE).returning(deliveries).cte("ended")
_woken = _wake(_ended)
DROP_DELIVERY = Statement(select(_ended.c.id).add_cte(_woken), scope=ACCOUNT)

_failure = {
    **bound(deliveries, "in_doubt", "last_error", "state"),
    "next_attempt_at": in_seconds("pause"),
    "lease": null(),
    "leased_until": null(),
}


def _fail() -> Statement:
    """The statement that records a failed attempt; a delivery that is dead blocks no later one.

    The changes after a dead creation are dropped: requeued, it brings the members as they are by then.
    """
    failed = update(deliveries).where(*_UNDER_LEASE).values(_failure).returning(deliveries).cte("failed")
    is_dead, is_creation = failed.c.state == "dead", failed.c.kind == "create"
    following = _after(failed).lateral("following")
    of_dead = select(following.c.id).select_from(failed.join(following, true())).where(is_dead, is_creation)
    following_dead = delete(deliveries).where(_of_account(), deliveries.c.id.in_(of_dead))
    dropped = following_dead.returning(deliveries.c.id).cte("dropped")
    return Statement(select(failed.c.id).add_cte(_wake(failed, is_dead, not_(is_creation)), dropped), scope=ACCOUNT)


FAIL_DELIVERY = _fail()


_EXTERNAL_REFERENCE = ("external_provider", "external_ticket_id", "external_ticket_url")


_DELIVERED = (*NEW, *_EXTERNAL_REFERENCE)
_is_ended = exists(select(_ended.c.id))
_held = select(deliveries.c.id).where(*_UNDER_LEASE).with_for_update().cte("held")


def _create_delivered(guard: Guard) -> tuple[CTE, ...]:
    """The ticket of an attempted delivery, if the lease is still held."""
    return new_ticket(_DELIVERED, _is_ended, *guard)


def _create_queued(guard: Guard) -> tuple[CTE, ...]:
    kept = update(deliveries).where(*_UNDER_LEASE, *guard).values({**_failure, "has_ticket": True})
    return new_ticket(_DELIVERED, exists(select(kept.returning(deliveries.c.id).cte("kept").c.id)), *guard)


# The delivery has ended: the provider has the ticket, or the account is no longer linked.
CREATE_DELIVERED = KEYS.creation(
    _create_delivered, scope=ACCOUNT, locks="account_id", known=known_ticket(_DELIVERED, _is_ended)
)
# The delivery stays queued.
CREATE_QUEUED = KEYS.creation(
    _create_queued, scope=ACCOUNT, locks="account_id", known=known_ticket(_DELIVERED, exists(select(_held.c.id)))
)


def _delivered() -> Statement:
    """The statement that ends the delivery of a ticket with a row here: the row gets its external reference."""
    before = select(*SHOWN).where(*ONE).with_for_update().cte("before")
    after = (
        update(tickets)
        .where(*MINE, tickets.c.id == before.c.id, exists(select(_ended.c.id)))
        .values(
            bound(tickets, *_EXTERNAL_REFERENCE)
            | {"updated_at": events.next_instant(tickets.c.updated_at)}
            | events.next_version(tickets)
        )
        .returning(*SHOWN)
        .cte("after")
    )
    changed = select(after, events.changes(before, after, _EXTERNAL_REFERENCE).label("changes"))
    written = changed.select_from(after.join(before, after.c.id == before.c.id)).cte("written")
    event = events.append(tables.events, written, "ticket.updated", written.c.changes, of_change(written))
    # Changes of the ticket while its creation was dead were not queued, even as it was requeued: all members follow.
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
    ).where(exists(select(_ended.c.id).where(_ended.c.is_requeued)))
    columns = [
        "id",
        "account_id",
        "ticket_id",
        "version",
        "kind",
        "members",
        "has_ticket",
        "is_requeued",
        "actor",
        "request_id",
    ]
    sync = insert(deliveries).from_select(columns, requeued.select_from(after)).returning(deliveries.c.id).cte("sync")
    return Statement(select(after).add_cte(event, _woken, sync), scope=ACCOUNT)


DELIVERED = _delivered()

LINK = Statement(select(links).where(_of_account(links)), scope=ACCOUNT)
