"""The SQL statements of messages: the lease of those that are due, of all scopes, and how attempts end."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    Boolean,
    ColumnElement,
    Delete,
    FromClause,
    Integer,
    Interval,
    Select,
    Subquery,
    Table,
    Update,
    Uuid,
    all_,
    and_,
    bindparam,
    case,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    null,
    or_,
    select,
    tuple_,
    update,
)

from service.storage.scope import EVERYONE
from service.storage.statement import Statement, bound, in_seconds
from service.webhooks.queries import KEPT_ATTEMPTS, is_active
from service.webhooks.source import Source

# How many messages of a webhook are in flight at once, and how many of a webhook that fails.
_OF_WEBHOOK, _OF_FAILING_WEBHOOK = 4, 1
# How many messages of an owner a process sends at once.
MAX_OF_OWNER = 8
# A worker that does not renew its leases for this long is considered dead. Short, because the messages of a dead worker
# wait for it; three times as long as the pause between renewals, so that two renewals may fail.
LEASE_SECONDS = 6
_LEASE_TIME = literal_column(f"interval '{LEASE_SECONDS} seconds'", Interval)


class MessageQueries:
    """The statements of one source."""

    def __init__(self, source: Source) -> None:
        self.lease_due = _lease_due(source)
        self.renew_leases = _renew_leases(source)
        messages, leased = source.tables.messages, _leased(source)
        # The message was accepted, or is given up.
        self.record_last_attempt = _record_attempt(source, delete(messages).where(*leased))
        self.record_attempt = _record_attempt(source, update(messages).where(*leased).values(_try_again(source)))


@cache
def for_source(source: Source) -> MessageQueries:
    """The statements of a source, built once."""
    return MessageQueries(source)


def key_of_message(source: Source) -> tuple[str, ...]:
    """The columns that identify a message. Those of a ticket are sent in the order of the last two."""
    return (*source.webhook_key, "ticket_id", "version", "type")


def _same(names: Sequence[str], one: FromClause, other: FromClause) -> list[ColumnElement[bool]]:
    return [one.c[name] == other.c[name] for name in names]


def _is_due(messages: Table) -> ColumnElement[bool]:
    has_lapsed = and_(bindparam("lapsed_too", type_=Boolean), messages.c.leased_until < func.now())
    is_free = or_(messages.c.leased_until.is_(None), has_lapsed)
    return and_(messages.c.next_attempt_at <= func.now(), is_free)


def _lease_due(source: Source) -> Statement:
    """The statement that leases the messages to send next, of all owners but the `busy`.

    They are a few of each webhook and of each owner, so that a slow receiver delays no other. `lapsed_too`: also those
    whose lease is over.
    """
    webhooks, messages, _ = source.tables
    locked = _lock(source, _rank(source, _due(source)))
    leased = (
        update(messages)
        .where(*_same(key_of_message(source), messages, locked))
        .values(
            lease=bindparam("lease", type_=Uuid),
            leased_until=func.now() + _LEASE_TIME,
        )
        .returning(messages)
        .cte("leased")
    )
    previous = case((webhooks.c.previous_secret_until > func.now(), webhooks.c.previous_secret), else_=null())
    its_webhook = and_(*_same(source.scope, webhooks, leased), webhooks.c.id == leased.c.webhook_id)
    return Statement(
        select(
            leased,
            webhooks.c.url,
            webhooks.c.secret,
            previous.label("previous_secret"),
            webhooks.c.failing_since,
            func.now().label("attempted_at"),
        ).select_from(leased.join(webhooks, its_webhook)),
        scope=EVERYONE("the background sends the messages of all owners"),
    )


def _renew_leases(source: Source) -> Statement:
    """The statement that prolongs the leases of messages in flight, of all owners, given as arrays.

    It includes messages that were reset meanwhile (`_as_new`), so that none is sent twice at once. A locked one is left
    to the next renewal: the transaction that has locked it may wait for others of these.
    """
    messages, key = source.tables.messages, key_of_message(source)
    names = (*key, "lease")
    arrays = [bindparam(f"{name}s", type_=ARRAY(messages.c[name].type)) for name in names]
    given = func.unnest(*arrays).table_valued(*(column(name, messages.c[name].type) for name in names))
    given = given.render_derived(name="given")
    is_mine = or_(messages.c.lease.is_(None), messages.c.lease == given.c.lease)
    held = (
        select(*(messages.c[name] for name in key))
        .select_from(messages.join(given, and_(*_same(key, given, messages))))
        .where(messages.c.leased_until.is_not(None), is_mine)
        .with_for_update(of=messages, skip_locked=True)
        .cte("held")
    )
    renewed = update(messages).where(*_same(key, messages, held)).values(leased_until=func.now() + _LEASE_TIME)
    return Statement(
        renewed.returning(messages.c.version), scope=EVERYONE("the background sends the messages of all owners")
    )


def _order(messages: FromClause) -> ColumnElement[Any]:
    return tuple_(messages.c.version, messages.c.type)


def _due(source: Source) -> Subquery:
    """Messages that are due, each the first of its ticket, with its `position` among its webhook's.

    `is_allowed`: it and those before it are not too many in flight.
    """
    webhooks, messages, _ = source.tables
    key = key_of_message(source)
    of_webhook = [messages.c[name] for name in source.webhook_key]
    in_flight = (
        select(*of_webhook, func.count().label("number"))
        .where(messages.c.leased_until >= func.now())
        .group_by(*of_webhook)
        .subquery("in_flight")
    )
    earlier = messages.alias("earlier")
    is_first = not_(exists().where(*_same(key[:-2], earlier, messages), _order(earlier) < _order(messages)))
    position = func.row_number().over(
        partition_by=of_webhook, order_by=[messages.c.next_attempt_at, messages.c.version]
    )
    at_once = case((webhooks.c.failing_since.is_(None), _OF_WEBHOOK), else_=_OF_FAILING_WEBHOOK)
    owner = messages.c[source.owner]
    return (
        select(
            *(messages.c[name] for name in key),
            messages.c.next_attempt_at,
            webhooks.c.failing_since.is_not(None).label("is_failing"),
            position.label("position"),
            (position + func.coalesce(in_flight.c.number, 0) <= at_once).label("is_allowed"),
        )
        .select_from(
            messages.join(webhooks, and_(*source.its_messages(), webhooks.c.is_active)).outerjoin(
                in_flight, and_(*_same(source.webhook_key, in_flight, messages))
            )
        )
        .where(_is_due(messages), is_first, owner != all_(bindparam("busy", type_=ARRAY(owner.type))))
        .subquery("due")
    )


# A webhook that fails comes after those that do not, and a webhook's second message after the first of another.
_ORDER = ("is_failing", "position", "next_attempt_at")


def _rank(source: Source, due: Subquery) -> CTE:
    """Those that are allowed, numbered among the owner's, and among all that fail or all that do not."""
    order = [due.c[name] for name in _ORDER]
    of_owner = [due.c[source.owner], due.c.is_failing]
    return (
        select(
            due,
            func.row_number().over(partition_by=of_owner, order_by=order).label("of_owner"),
            func.row_number().over(partition_by=due.c.is_failing, order_by=order).label("of_kind"),
        )
        .where(due.c.is_allowed)
        .cte("allowed")
        # If its statistics are from a moment when little was due, the planner would evaluate this for each message.
        .prefix_with("MATERIALIZED")
    )


def _lock(source: Source, allowed: CTE) -> CTE:
    """The keys of those to send, locked."""
    messages, key = source.tables.messages, key_of_message(source)
    max_of_owner = case((allowed.c.is_failing, MAX_OF_OWNER // 2), else_=MAX_OF_OWNER)
    return (
        select(*(messages.c[name] for name in key))
        .select_from(messages.join(allowed, and_(*_same(key, allowed, messages))))
        # It is checked once more that it is due, because another process may have leased it in between.
        .where(_is_due(messages), allowed.c.of_owner <= max_of_owner)
        .where(or_(not_(allowed.c.is_failing), allowed.c.of_kind <= bindparam("failing_rows", type_=Integer)))
        .order_by(*(allowed.c[name] for name in _ORDER))
        .limit(bindparam("rows", type_=Integer))
        .with_for_update(of=messages, skip_locked=True)
        .cte("locked")
    )


def _leased(source: Source) -> tuple[ColumnElement[bool], ...]:
    """The conditions of a message while the lease of the attempt is still its own."""
    parameters = bound(source.tables.messages, "ticket_id", "version", "type", "lease")
    return source.of_webhook(source.tables.messages, **parameters)


def _try_again(source: Source) -> dict[str, Any]:
    """What a failed attempt makes of its message."""
    return {
        # Only recorded attempts count: one that was interrupted in this process says nothing about the receiver.
        "attempts": bindparam("attempt", type_=Integer),
        # Null where its webhook was disabled meanwhile.
        "next_attempt_at": case((is_active(source), in_seconds("pause")), else_=null()),
        "lease": null(),
        "leased_until": null(),
    }


def _record_attempt(source: Source, end: Delete | Update) -> Statement:
    """The statement that adds an attempt to the log, removes the oldest there, and ends the lease of its message.

    `had_lease`: whether the lease was still that of the attempt. If not, the message and its webhook stay as they are.
    """
    messages, attempts = source.tables.messages, source.tables.attempts
    log = source.of_webhook(attempts)
    given = bound(attempts, *(column.name for column in attempts.c))
    written = insert(attempts).values(given).returning(attempts.c.id).cte("written")
    ended = end.returning(messages.c.version).cte("ended")
    # This statement does not see the row that it inserts.
    oldest: Select[Any] = (
        select(attempts.c.id).where(*log).order_by(attempts.c.id.desc()).offset(KEPT_ATTEMPTS - 1).limit(1)
    )
    # Rows that another transaction is removing are skipped: to wait for it could be a deadlock, as this one has locked
    # a message that the other may need.
    too_old = select(attempts.c.id).where(*log, attempts.c.id <= oldest.scalar_subquery())
    removed = (
        delete(attempts)
        .where(*log, attempts.c.id.in_(too_old.with_for_update(skip_locked=True)))
        .returning(attempts.c.id)
    )
    return Statement(
        select(exists(select(ended.c.version)).label("had_lease")).add_cte(written, removed.cte("removed")),
        scope=source.statement_scope,
    )
