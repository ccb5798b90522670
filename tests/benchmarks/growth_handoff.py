"""Handoff lists of a project of a million: every filter that finds little, of both kinds of text.

python -m tests.benchmarks.growth_handoff [--tickets 1000000] [--text machine]
"""

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import typer

from service.handoff import index_terms, list_queries, operations
from service.handoff.commands import ProjectTicketsQuery

from . import growth_plans, growth_texts, seeds

_TICKETS = """
INSERT INTO handoff_tickets
    (project_id, id, number, milestone_id, source, title, description, request_type, priority, blocking, status, stage,
    merge_sha, deployed_at, reported_by_user_id, actor_role, actor_id, created_at, updated_at, search_terms)
SELECT %(project)s, md5(n::text)::uuid, n, CASE WHEN n %% 4 = 0 THEN md5((n / 50000)::text)::uuid END, 'portal',
    'Laptop ' || n, repeat('It stays dark after lunch. ', 6), (ARRAY['bug', 'feature_request'])[1 + n %% 2],
    (ARRAY['low', 'medium'])[1 + n %% 2], n %% 7 = 0, status, CASE status WHEN 'open' THEN 'backlog' ELSE 'live' END,
    CASE WHEN n %% 3 = 0 AND status = 'closed' THEN md5(n::text) END,
    CASE WHEN n %% 3 = 0 AND status = 'closed' AND n %% 50000 <> 3 THEN at END, cast(%(user)s AS uuid), 'user', 'seed',
    at, at + least(n::bigint * 7919 %% %(tickets)s, %(tickets)s - n) * interval '1 second', TERMS
FROM generate_series(1, %(tickets)s) AS n,
    LATERAL (SELECT timestamptz '2026-01-01T00:00:00Z' + (n - %(tickets)s) * interval '1 minute' AS at) AS _,
    LATERAL (SELECT CASE WHEN n > %(tickets)s * 0.95 AND n %% 2 = 0 OR n %% 1000 = 17 THEN 'open' ELSE 'closed' END
        AS status) AS __
"""
_ROLES = """
INSERT INTO handoff_roles (project_id, ticket_id, id, position, role, assignee_user_id, created_at, updated_at)
SELECT project_id, id, md5('role' || number)::uuid, 1, CASE WHEN number %% 50000 = 1 THEN 'qa' ELSE 'backend' END,
    CASE WHEN number %% 1000 = 0 THEN cast(%(user)s AS uuid) END, created_at, created_at
FROM handoff_tickets WHERE project_id = %(project)s
"""
_QUERIES: dict[str, dict[str, str]] = {
    "no filter": {},
    "status=open": {"status": "open"},
    "a stage of none": {"stage": "validation"},
    "a priority of none": {"priority": "high"},
    "a type of none": {"request_type": "decision_needed"},
    "a role of 20": {"role": "qa"},
    "a role of none": {"role": "devops"},
    "an assignee of 1,000": {"assignee": "me"},
    "changed of late": {"updated_since": "2025-12-31T23:30:00Z"},
    "merged, of 20": {"ship": "merged"},
    "failed, of none": {"ship": "deploy_failed"},
    "no milestone": {"milestone": "none"},
    "open, and a priority of none": {"status": "open", "priority": "high"},
}
_LIMITS = (20, 1000)


def seed(database_url: str, tickets: int, kind: growth_texts.Kind) -> UUID:
    """A project of so many tickets, with a role each."""
    given: dict[str, Any] = {"owner": seeds._OWNER, "slug": "growth", "user": seeds._USER, "tickets": tickets}
    with psycopg.connect(database_url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        row = connection.execute(seeds._PROJECT.encode(), given).fetchone()
        if row is None:
            raise RuntimeError("no project")
        project_id: UUID = row[0]
        given |= {"project": project_id, "scope": index_terms.search_scope(project_id)}
        terms = growth_texts.terms(kind, tickets, "%(scope)s")
        with growth_texts.without_indexes(connection, "handoff_tickets"):
            connection.execute(_TICKETS.replace("TERMS", terms).encode(), given)
        with growth_texts.without_indexes(connection, "handoff_roles"):
            connection.execute(_ROLES.encode(), given)
    return project_id


def costs(connection: psycopg.Connection[Any], project_id: UUID, query: dict[str, str]) -> list[str]:
    """What the first page of a list costs, of each length."""
    found = []
    for limit in _LIMITS:
        wanted = ProjectTicketsQuery.model_validate({**query, "limit": str(limit)})
        user_id = UUID(seeds._USER)
        filters = {"project_id": project_id, **operations._project_filters(wanted)}
        filters |= operations._filters(user_id, wanted)
        given = {**filters, **operations._index_terms(filters), "user_id": user_id, "limit": limit + 1}
        names = operations._names(wanted, given) - {"project_id"}
        statement = asyncio.run(list_queries.list_tickets(names, after=False, of_project=True))
        found.append(growth_plans.cost(connection, statement, given).text)
    return found


def main(tickets: int = 1_000_000, text: growth_texts.Kind = growth_texts.Kind.MACHINE) -> None:
    """Print the CPU of PostgreSQL in ms, and the pages read, of each list."""
    queries = _QUERIES | {name: {"q": q} for name, q in growth_texts.searches(text).items()}
    with growth_plans.ground(seed, tickets, text) as (connection, project_id):
        rows = [[name, *costs(connection, project_id, query)] for name, query in queries.items()]
        growth_plans.show(
            connection, "handoff_tickets", [[f"{tickets:,}, {text}", *(f"limit={limit}" for limit in _LIMITS)], *rows]
        )


if __name__ == "__main__":
    typer.run(main)
