"""Rows of every kind that may be old, written as time would have: so many days ago, for an owner."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

from ulid import ULID

from service.directory import METADATA
from service.retention.kinds import KINDS
from service.retention.purge import Purge
from service.settings import Settings
from service.storage.database import Database

KEEP = 90
Run = Callable[..., Any]


def purge(*kinds: str, **options: Any) -> Purge:
    """The purge of some kinds, without a wait for readers."""
    chosen = [kind for kind in KINDS if kind.name in kinds]
    settings: dict[str, Any] = {kind.setting: KEEP for kind in chosen}
    return Purge(Settings(database_url="postgresql://", **settings), chosen, settle_seconds=0, **options)


@asynccontextmanager
async def database_of(url: str) -> AsyncIterator[Database]:
    """The database of a purge."""
    database = Database(Settings(database_url=url, pool_size=2), METADATA)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


class Seed(NamedTuple):
    """One kind in a table: how its rows are written, and how old the ones are that are there."""

    kind: str
    # What an owner needs first; {owner} is a UUID.
    before: Sequence[str]
    # `{number}` rows that are `{days}` old.
    rows: str
    # The days of an owner's rows.
    ages: str
    # Rows of the owner that are as old and stay: SQL, and the number of them.
    others: str = ""


_EVENT = "ticket_id, version, type, changes, actor, request_id, created_at"
_EVENT_VALUES = "1, 'ticket.created', '{{}}', 'a', 'r', now() - {days} * interval '1 day'"
_SINCE = "round(extract(epoch FROM now() - {} ) / 86400)::int"
_DELIVERY = "INSERT INTO provider_deliveries (id, account_id, ticket_id, version, kind, members, has_ticket, actor,"
_DELIVERY += " request_id, state, created_at) SELECT gen_random_uuid(), '{owner}', gen_random_uuid(), n, {what}, now()"
_DELIVERY += " - {days} * interval '1 day' FROM generate_series(1, {number}) n"
_ACCOUNT = "INSERT INTO accounts (id, name) VALUES ('{owner}', 'x') ON CONFLICT DO NOTHING"
_WEBHOOK = (
    "INSERT INTO itsm_webhooks (account_id, live, id, url, events, secret, transaction_id, event_id, is_active)"
    " VALUES ('{owner}', true, 'wh_{owner}', 'u', '{{}}', '', '0', 0, false) ON CONFLICT DO NOTHING"
)
_TICKET = (
    "tenant_id, id, number, title, type, status, priority, submitted_by_id, tags, source, source_type, created_by,"
)
_TICKET += " updated_by, is_deleted, deleted_at"
_TICKET_VALUES = "'', 'incident', 'open', 'low', '', '[]', '', 'api', '', ''"
_INTO_TICKETS = f"INSERT INTO helpdesk_tickets ({_TICKET}) SELECT '{{owner}}', '{{days}}-' || n, {{days}} * 10000 + n,"
_PROJECT = "INSERT INTO projects (id, account_id, name, slug) VALUES ('{owner}', '{owner}', 'x', '{owner}')"
_HANDOFF = (
    "INSERT INTO handoff_tickets (project_id, id, number, source, title, description, request_type, priority, blocking,"
    " actor_role, actor_id) VALUES ('{owner}', '{owner}', 1, 'x', 'x', 'x', 'bug', 'low', false, 'x', 'x')"
)


def _events(table: str, scope: str, values: str, ticket: str = "gen_random_uuid()") -> Seed:
    rows = f"INSERT INTO {table} ({scope}, {_EVENT}) SELECT {values}, {ticket}, {_EVENT_VALUES}"
    first = scope.split(",", maxsplit=1)[0]
    ages = f"SELECT {_SINCE.format('created_at')} FROM {table} WHERE {first} = '{{owner}}'"
    return Seed(table, (), rows + " FROM generate_series(1, {number}) n", ages)


SEEDS: Mapping[str, Seed] = {
    seed.kind: seed
    for seed in (
        _events("itsm_events", "account_id, live", "'{owner}', true"),
        _events("helpdesk_events", "tenant_id", "'{owner}'", "gen_random_uuid()::text"),
        _events("handoff_events", "project_id", "'{owner}'"),
        Seed(
            "webhook_messages",
            (_WEBHOOK,),
            "INSERT INTO itsm_webhook_messages (account_id, live, webhook_id, ticket_id, version, type, event_id, body,"
            " next_attempt_at) SELECT '{owner}', true, 'wh_{owner}', gen_random_uuid(), {days}, 'ticket.created',"
            " '{event_id}', '', NULL FROM generate_series(1, {number})",
            "SELECT version FROM itsm_webhook_messages WHERE account_id = '{owner}' AND next_attempt_at IS NULL",
            # It is being tried again, and given up within days.
            "INSERT INTO itsm_webhook_messages (account_id, live, webhook_id, ticket_id, version, type, event_id, body)"
            " SELECT '{owner}', true, 'wh_{owner}', gen_random_uuid(), {days}, 'ticket.created', '{event_id}', ''",
        ),
        Seed(
            "webhook_attempts",
            (_WEBHOOK,),
            "INSERT INTO itsm_webhook_attempts (account_id, live, webhook_id, id, ticket_id, version, type, event_id,"
            " body, attempt, attempted_at, duration_ms, succeeded) SELECT '{owner}', true, 'wh_{owner}',"
            " 'dlv_{days}-' || n, gen_random_uuid(), 1, 'ticket.created', 'evt', '', 1,"
            " now() - {days} * interval '1 day', 1, true FROM generate_series(1, {number}) n",
            f"SELECT {_SINCE.format('attempted_at')} FROM itsm_webhook_attempts WHERE account_id = '{{owner}}'",
        ),
        Seed(
            "dead_deliveries",
            (),
            _DELIVERY.replace("{what}", "'update', '{{}}', true, '', '', 'dead'"),
            f"SELECT {_SINCE.format('created_at')} FROM provider_deliveries"
            " WHERE account_id = '{owner}' AND state = 'dead' AND kind = 'update'",
            # How a ticket is known not to be at its provider.
            _DELIVERY.replace("{what}", "'create', '{{}}', true, '', '', 'dead'"),
        ),
        Seed(
            "deleted_tickets",
            (),
            f"{_INTO_TICKETS} {_TICKET_VALUES}, true, now() - {{days}} * interval '1 day'"
            " FROM generate_series(1, {number}) n",
            f"SELECT {_SINCE.format('deleted_at')} FROM helpdesk_tickets WHERE tenant_id = '{{owner}}' AND is_deleted",
            f"{_INTO_TICKETS.replace('{days}-', 'open-').replace('{days} * 10000', '9000000')}"
            f" {_TICKET_VALUES}, false, NULL FROM generate_series(1, {{number}}) n",
        ),
        Seed(
            "deployments",
            (_ACCOUNT, _PROJECT, _HANDOFF),
            "INSERT INTO handoff_deployments (project_id, ticket_id, merge_sha, outcome, happened_at, created_at)"
            " SELECT '{owner}', '{owner}', '{days}-' || n, 'merged', now(), now() - {days} * interval '1 day'"
            " FROM generate_series(1, {number}) n",
            f"SELECT {_SINCE.format('created_at')} FROM handoff_deployments WHERE project_id = '{{owner}}'",
        ),
        Seed(
            "revoked_keys",
            (_ACCOUNT,),
            "INSERT INTO api_keys (account_id, key_hash, live, scopes, revoked_at) SELECT '{owner}',"
            " gen_random_uuid()::text::bytea, true, '{{}}', now() - {days} * interval '1 day'"
            " FROM generate_series(1, {number})",
            f"SELECT {_SINCE.format('revoked_at')} FROM api_keys WHERE account_id = '{{owner}}' "
            " AND revoked_at IS NOT NULL",
            "INSERT INTO api_keys (account_id, key_hash, live, scopes, created_at) SELECT '{owner}',"
            " gen_random_uuid()::text::bytea, true, '{{}}', now() - {days} * interval '1 day'"
            " FROM generate_series(1, {number})",
        ),
    )
}


def write(run: Run, seed: Seed, owner: UUID, days: int, number: int, sql: str | None = None) -> None:
    """Write so many rows of an owner that are so old."""
    event_id = f"evt_{ULID.from_timestamp(_ago(days))}"
    run((seed.rows if sql is None else sql).format(owner=owner, days=days, number=number, event_id=event_id))


def _ago(days: int) -> float:
    return time.time() - days * 86_400
