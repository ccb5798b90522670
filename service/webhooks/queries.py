"""The SQL statements of webhooks, each of one scope: what callers ask, and what attempts change."""

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Interval,
    Text,
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
from service.storage.statement import Statement, bound
from service.webhooks.source import Source
from service.webhooks.tables import MESSAGE

# How many attempts the log of a webhook keeps.
KEPT_ATTEMPTS = 100
_PREVIOUS_SECRET = literal_column("interval '24 hours'", Interval)


def _as_new(next_attempt_at: ColumnElement[Any]) -> dict[str, Any]:
    """What makes a message begin anew. A worker that holds its lease loses it: its attempt no longer counts."""
    return {"attempts": 0, "next_attempt_at": next_attempt_at, "lease": null()}


class WebhookQueries:
    """The statements of one source."""

    def __init__(self, source: Source) -> None:
        webhooks, one = source.tables.webhooks, source.one_webhook
        all_of_scope = select(webhooks).where(*source.in_scope(webhooks))
        self.list_webhooks = Statement(
            all_of_scope.order_by(webhooks.c.created_at, webhooks.c.id), scope=source.statement_scope
        )
        self.get_webhook = Statement(select(webhooks).where(*one), scope=source.statement_scope)
        # Runs before `create_webhook`, so that those created at the same moment count each other.
        self.lock_webhooks = Statement(
            select(webhooks.c.id)
            .where(*source.in_scope(webhooks))
            .order_by(webhooks.c.id)
            .with_for_update(key_share=True),
            scope=source.statement_scope,
        )
        self.create_webhook = _create_webhook(source)
        self.rotate_secret = _rotate_secret(source)
        # Runs before what changes a webhook and its messages in one transaction, so that all lock in the same order.
        self.lock_webhook = Statement(
            select((func.now() - webhooks.c.failing_since).label("failing_for"), webhooks.c.url)
            .where(*one)
            .with_for_update(key_share=True),
            scope=source.statement_scope,
        )
        self.delete_messages = _delete_messages(source)
        self.delete_webhook = Statement(
            delete(webhooks).where(*one).returning(webhooks.c.id), scope=source.statement_scope
        )
        self.resume_messages = _resume_messages(source)
        self.hold_messages = _hold_messages(source)
        self.list_attempts = _list_attempts(source)
        self.replay = _replay(source)
        self.end_failure = _end_failure(source)
        self.begin_failure = _begin_failure(source)
        self.disable = _disable(source)


@cache
def for_source(source: Source) -> WebhookQueries:
    """The statements of a source, built once."""
    return WebhookQueries(source)


def _create_webhook(source: Source) -> Statement:
    webhooks = source.tables.webhooks
    number = select(func.count()).select_from(webhooks).where(*source.in_scope(webhooks)).scalar_subquery()
    given = bound(webhooks, *source.scope, "id", "url", "events", "secret")
    # All that is written from now on comes after this position; `next_events` leaves older events out by their time.
    position = (events.HORIZON, literal(0, BigInteger))
    row = select(*given.values(), *position).where(number < source.max_webhooks)
    return Statement(
        insert(webhooks).from_select([*given, "transaction_id", "event_id"], row).returning(webhooks),
        scope=source.statement_scope,
    )


@cache
def update_webhook(source: Source, changed: frozenset[str]) -> Statement:
    """The statement that changes these members; `updated_at` stays where they do not change.

    A webhook that its owner enables or disables is no longer disabled for another reason, and begins anew; so does one
    with another address.
    """
    webhooks = source.tables.webhooks
    values: dict[str, Any] = {name: bindparam(f"new_{name}", type_=webhooks.c[name].type) for name in sorted(changed)}
    if "is_active" in changed:
        values["disabled_reason"] = null()
        values["failing_since"] = null()
    elif "url" in changed:
        values["failing_since"] = case((webhooks.c.url == values["url"], webhooks.c.failing_since))
    is_other = or_(false(), *(webhooks.c[name].is_distinct_from(value) for name, value in values.items()))
    values["updated_at"] = case((is_other, events.next_instant(webhooks.c.updated_at)), else_=webhooks.c.updated_at)
    return Statement(
        update(webhooks).where(*source.one_webhook).values(values).returning(webhooks), scope=source.statement_scope
    )


def _rotate_secret(source: Source) -> Statement:
    webhooks = source.tables.webhooks
    return Statement(
        update(webhooks)
        .where(*source.one_webhook)
        .values(
            **bound(webhooks, "secret"),
            previous_secret=webhooks.c.secret,
            previous_secret_until=func.now() + _PREVIOUS_SECRET,
            updated_at=events.next_instant(webhooks.c.updated_at),
        )
        .returning(webhooks),
        scope=source.statement_scope,
    )


def _delete_messages(source: Source) -> Statement:
    messages = source.tables.messages
    return Statement(
        delete(messages).where(*source.of_webhook(messages)).returning(messages.c.version), scope=source.statement_scope
    )


def _resume_messages(source: Source) -> Statement:
    messages = source.tables.messages
    return Statement(
        update(messages).where(*source.of_webhook(messages)).values(_as_new(func.now())).returning(messages.c.version),
        scope=source.statement_scope,
    )


def _hold_messages(source: Source) -> Statement:
    """The statement that puts off what is queued until the webhook is enabled, unless it is."""
    messages = source.tables.messages
    return Statement(
        update(messages)
        .where(*source.of_webhook(messages), not_(is_active(source)))
        .values(next_attempt_at=null())
        .returning(messages.c.version),
        scope=source.statement_scope,
    )


def is_active(source: Source) -> ColumnElement[bool]:
    """Whether the webhook is enabled, for statements of its messages."""
    return exists().where(*source.one_webhook, source.tables.webhooks.c.is_active)


def _shown(source: Source) -> list[str]:
    """The columns of an attempt that are shown: the body is kept for a replay alone."""
    return [column.name for column in source.tables.attempts.c if column.name != "body"]


def _list_attempts(source: Source) -> Statement:
    attempts = source.tables.attempts
    shown = [attempts.c[name] for name in _shown(source)]
    log = select(*shown).where(*source.of_webhook(attempts))
    return Statement(log.order_by(attempts.c.id.desc()).limit(KEPT_ATTEMPTS), scope=source.statement_scope)


def _replay(source: Source) -> Statement:
    """The statement that queues the message of an attempt again; one that is still queued is due at once.

    Both are held where the webhook is disabled, as what was queued before is.
    """
    _, messages, attempts = source.tables
    is_asked_for = attempts.c.id == bindparam("delivery_id", type_=Text)
    replayed = select(attempts).where(*source.of_webhook(attempts), is_asked_for).cte("replayed")
    names = [*source.webhook_key, *MESSAGE]
    due_at = case((is_active(source), func.now()), else_=null())
    queued_anew = select(*(replayed.c[name] for name in names), due_at)
    again = upsert(messages).from_select([*names, "next_attempt_at"], queued_anew)
    queued = again.on_conflict_do_update(constraint=messages.primary_key, set_=_as_new(again.excluded.next_attempt_at))
    shown = select(*(replayed.c[name] for name in _shown(source)))
    return Statement(shown.add_cte(queued.returning(messages.c.version).cte("queued")), scope=source.statement_scope)


def _end_failure(source: Source) -> Statement:
    webhooks = source.tables.webhooks
    return Statement(
        update(webhooks)
        .where(*source.one_webhook, webhooks.c.failing_since.is_not(None))
        .values(failing_since=null())
        .returning(webhooks.c.id),
        scope=source.statement_scope,
    )


def _begin_failure(source: Source) -> Statement:
    webhooks = source.tables.webhooks
    return Statement(
        update(webhooks)
        .where(*source.one_webhook, webhooks.c.is_active, webhooks.c.failing_since.is_(None))
        .values(failing_since=func.now())
        .returning(webhooks.c.id),
        scope=source.statement_scope,
    )


def _disable(source: Source) -> Statement:
    webhooks = source.tables.webhooks
    return Statement(
        update(webhooks)
        .where(*source.one_webhook, webhooks.c.is_active)
        .values(
            is_active=false(),
            disabled_reason=bindparam("reason", type_=Text),
            failing_since=func.coalesce(webhooks.c.failing_since, func.now()),
            updated_at=events.next_instant(webhooks.c.updated_at),
        )
        .returning(webhooks.c.id),
        scope=source.statement_scope,
    )
