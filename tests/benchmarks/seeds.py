"""What is in the database before anything is timed: for each contestant tickets of its own, the same ones.

An ITSM account, a helpdesk tenant, a handoff project: of each the service has one and the peer has one. The service
keeps totals as it writes, which the peer, who counts, knows nothing of; and each takes numbers from its own counter.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from service.access.api_keys import hash_api_key, new_api_key
from service.handoff.index_terms import search_scope as project_scope
from service.itsm.index_terms import search_scope as account_scope

from .tokens import Issuer

# The n-th seeded ticket's id is computable, so that pgbench can name tickets at random too.
ID_OF_SEED = "md5(cast({n} AS text))::uuid"
_AT = "LATERAL (SELECT timestamptz '2026-01-01T00:00:00Z' + (n - %(tickets)s) * interval '1 second' AS at)"
_WORDS = "laptop does not wake up it stays dark after"

_TICKETS = f"""
INSERT INTO itsm_tickets
    (account_id, live, id, subject, description, status, priority, requester_email, metadata, created_at, updated_at,
    search_terms)
SELECT %(account)s, true, {ID_OF_SEED.format(n="n")}, 'Laptop ' || n || ' does not wake up',
    repeat('It stays dark after lunch. ', 6), (ARRAY['open', 'pending', 'resolved', 'closed'])[1 + n %% 4],
    (ARRAY['low', 'medium', 'high', 'urgent', NULL])[1 + n %% 5], 'person' || n %% 1000 || '@example.com',
    '{{"category": "Hardware", "floor": 3}}', at, at,
    array_to_tsvector(string_to_array('{_WORDS} ' || n || ' ' || %(scope)s, ' '))
FROM generate_series(1, %(tickets)s) AS n, {_AT}
"""
_EVENTS = """
INSERT INTO itsm_events (account_id, live, ticket_id, version, type, changes, actor, request_id, created_at)
SELECT account_id, live, id, 1, 'ticket.created', '{}', 'seed', 'seed', created_at
FROM itsm_tickets WHERE account_id = %(account)s
"""
_TOTALS = """
INSERT INTO itsm_totals (account_id, live, status, total, days_as_of)
SELECT account_id, live, status, count(*), pg_current_xact_id() FROM itsm_tickets WHERE account_id = %(account)s
GROUP BY 1, 2, 3
"""
_DAYS = """
INSERT INTO itsm_day_totals (account_id, live, day, status, total)
SELECT account_id, live, (created_at AT TIME ZONE 'UTC')::date, status, count(*) FROM itsm_tickets
WHERE account_id = %(account)s GROUP BY 1, 2, 3, 4
"""
_ACCOUNT = """
WITH account AS (INSERT INTO accounts (name) VALUES ('benchmark') RETURNING id)
INSERT INTO api_keys (account_id, key_hash, live, scopes)
SELECT id, %s, true, ARRAY['tickets:read', 'tickets:write'] FROM account RETURNING account_id
"""

HELPDESK_TICKETS = f"""
INSERT INTO helpdesk_tickets
    (tenant_id, id, number, title, description, type, status, priority, submitted_by_id, tags, source, source_type,
    created_at, created_by, updated_at, updated_by, search_terms)
SELECT %(tenant)s, 'tkt_' || lpad(n::text, 26, '0'), n, 'Laptop ' || n || ' does not wake up',
    repeat('It stays dark after lunch. ', 6), 'incident', 'open', 'medium', 'per_' || n %% 1000, '["hardware"]', 'edm',
    'api', at, 'seed', at, 'seed',
    array_to_tsvector(string_to_array('{_WORDS} ' || n || ' @' || %(tenant)s, ' '))
FROM generate_series(1, %(tickets)s) AS n, {_AT}
"""
_HELPDESK_EVENTS = """
INSERT INTO helpdesk_events (tenant_id, ticket_id, version, type, changes, actor, request_id, created_at)
SELECT tenant_id, id, 1, 'ticket.created', '{}', 'seed', 'seed', created_at
FROM helpdesk_tickets WHERE tenant_id = %(tenant)s
"""

_OWNER = "00000000-0000-4000-8000-00000000ba5e"
_USER = "00000000-0000-4000-8000-000000000017"
_PROJECT = """
WITH account AS (
    INSERT INTO accounts (id, name) VALUES (%(owner)s, 'benchmark')
    ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING id
), project AS (
    INSERT INTO projects (account_id, name, slug, backend_repo) SELECT id, 'Shop', %(slug)s, 'shop/api' FROM account
    RETURNING id
)
INSERT INTO project_members (project_id, user_id, role) SELECT id, %(user)s, 'triager' FROM project RETURNING project_id
"""
_HANDOFF_TICKETS = f"""
INSERT INTO handoff_tickets
    (project_id, id, number, source, title, description, request_type, priority, blocking, evidence,
    reported_by_user_id, actor_role, actor_id, created_at, search_terms)
SELECT %(project)s, {ID_OF_SEED.format(n="n")}, n, 'portal', 'Laptop ' || n || ' does not wake up',
    repeat('It stays dark after lunch. ', 6), (ARRAY['bug', 'feature_request'])[1 + n %% 2],
    (ARRAY['low', 'medium', 'high'])[1 + n %% 3], n %% 7 = 0, '{{"build": 17, "browser": "Firefox"}}',
    cast(%(user)s AS uuid), 'user', cast(%(user)s AS text), at,
    array_to_tsvector(string_to_array('{_WORDS} ' || n || ' ' || %(scope)s, ' '))
FROM generate_series(1, %(tickets)s) AS n, {_AT}
"""
_HANDOFF_ROLES = """
INSERT INTO handoff_roles (project_id, ticket_id, id, position, role, created_at, updated_at)
SELECT project_id, id, md5('role' || number)::uuid, 1, 'backend', created_at, created_at
FROM handoff_tickets WHERE project_id = %(project)s
"""
_HANDOFF_EVENTS = """
INSERT INTO handoff_events (project_id, ticket_id, version, type, changes, actor, request_id, created_at)
SELECT project_id, id, 1, 'ticket.created', '{}', 'seed', 'seed', created_at
FROM handoff_tickets WHERE project_id = %(project)s
"""
_HELPDESK_COUNTER = "INSERT INTO helpdesk_counters SELECT %(tenant)s, %(tickets)s WHERE %(tickets)s > 0"
_HANDOFF_COUNTER = "INSERT INTO handoff_counters SELECT %(project)s, %(tickets)s WHERE %(tickets)s > 0"


@dataclass(frozen=True)
class Account:
    """Whom requests are for: an account, a tenant or a project, with the header of one who may do everything there."""

    scope: str
    header: tuple[str, str]
    tickets: int
    # Another name of it that is in answers.
    slug: str = ""


def itsm(database_url: str, tickets: int, _: Issuer | None = None) -> Account:
    """An account with an API key and this many tickets, each with the event of its creation."""
    key = new_api_key(live=True)
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(_ACCOUNT, [hash_api_key(key)]).fetchone()
        if row is None:
            raise RuntimeError("no account")
        scope = account_scope(row[0], live=True)
        for statement in (_TICKETS, _EVENTS, _TOTALS, _DAYS):
            connection.execute(statement, {"account": row[0], "scope": scope, "tickets": tickets})
    return Account(str(row[0]), ("x-api-key", key), tickets)


def helpdesk(database_url: str, tickets: int, issuer: Issuer) -> Account:
    """A tenant, with an agent who calls."""
    tenant = f"ten_{uuid4().hex}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in (HELPDESK_TICKETS, _HELPDESK_EVENTS, _HELPDESK_COUNTER):
            connection.execute(statement, {"tenant": tenant, "tickets": tickets})
    return Account(tenant, issuer.bearer("per_agent", tenant_id=tenant, scope="helpdesk:agent helpdesk:write"), tickets)


def handoff(database_url: str, tickets: int, issuer: Issuer) -> Account:
    """A project, with a triager who calls. The same user, and the same customer's account, for each of them."""
    slug = f"shop-{uuid4().hex[:12]}"
    given: dict[str, Any] = {"owner": _OWNER, "slug": slug, "user": _USER}
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(_PROJECT, given).fetchone()
        if row is None:
            raise RuntimeError("no project")
        given |= {"project": row[0], "tickets": tickets, "scope": project_scope(row[0])}
        for statement in (_HANDOFF_TICKETS, _HANDOFF_ROLES, _HANDOFF_EVENTS, _HANDOFF_COUNTER):
            connection.execute(statement, given)
    return Account(str(row[0]), issuer.bearer(_USER), tickets, slug)


def write_ids(database_url: str, tickets: int, path: Path) -> None:
    """A file of the seeded ITSM tickets' ids, one a line, for the load generators."""
    ids = f"SELECT {ID_OF_SEED.format(n='n')} FROM generate_series(1, %s) AS n"
    with psycopg.connect(database_url) as connection:
        path.write_text("".join(f"{row[0]}\n" for row in connection.execute(ids, [tickets])))
