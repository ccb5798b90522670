"""Helpdesk lists of a tenant of a million: every filter that finds little, in every order, of both kinds of text.

python -m tests.benchmarks.growth_helpdesk [--tickets 1000000] [--text machine]
"""

import asyncio
from typing import Any, get_args

import psycopg
import typer

from service.helpdesk import index_terms, list_queries, operations
from service.helpdesk.commands import Sort, TicketQuery
from service.search import tsqueries, tsquery

from . import growth_plans, growth_texts
from .growth_ground import TENANT

_TICKETS = """
INSERT INTO helpdesk_tickets
    (tenant_id, id, app_id, number, title, description, type, status, priority, category, submitted_by_id,
    assigned_to_id, team_id, tags, tag_terms, source, source_type, created_at, created_by, updated_at, updated_by,
    due_at, related_asset_id, related_vulnerability_id, search_terms)
SELECT %(tenant)s, 'tkt_' || lpad(n::text, 26, '0'), 'app_' || nullif(n %% 5, 0), n, 'Laptop ' || n,
    repeat('It stays dark after lunch. ', 6), CASE WHEN n %% 4 = 0 THEN 'service_request' ELSE 'incident' END, status,
    -- What is open is never urgent, and what is old is closed.
    CASE WHEN n %% 10 = 0 AND status = 'closed' THEN 'urgent' WHEN n %% 3 = 0 THEN 'low' ELSE 'medium' END,
    CASE WHEN n %% 50000 = 7 THEN 'rare' WHEN n %% 3 > 0 THEN 'category' || n %% 20 END, 'per_' || n %% 1000,
    CASE WHEN n %% 19 > 0 THEN 'per_' || n %% 101 END, 'grp_' || n %% 11, '["hardware"]', ARRAY['#hardware'], 'edm',
    'api', at, CASE WHEN n %% 7 = 0 THEN 'per_helper' ELSE 'per_' || n %% 1000 END,
    at + least(n::bigint * 7919 %% %(tickets)s, %(tickets)s - n) * interval '1 second', 'seed',
    CASE WHEN n %% 3 > 0 THEN at + interval '3 days' END, 'ast_' || n %% 5000, 'vul_' || nullif(n %% 5000, 0),
    TERMS
FROM generate_series(1, %(tickets)s) AS n,
    LATERAL (SELECT timestamptz '2026-01-01T00:00:00Z' + (n - %(tickets)s) * interval '1 minute' AS at) AS _,
    LATERAL (SELECT CASE WHEN n > %(tickets)s * 0.95 AND n %% 2 = 0 OR n %% 1000 = 17 THEN
        (ARRAY['open', 'open', 'in_progress', 'pending'])[1 + n / 2 %% 4] ELSE 'closed' END AS status) AS __
"""
_QUERIES: dict[str, dict[str, Any]] = {
    "no filter": {},
    "status=open": {"status": "open"},
    "a status of none": {"status": "resolved"},
    "two statuses": {"status": "open,pending"},
    "a type of none": {"type": "change"},
    "a priority of none": {"priority": "high"},
    "a category of none": {"category": "nothing"},
    "a category of 20": {"category": "rare"},
    "a policy of none": {"sla_policy": "nothing"},
    "a source of none": {"source": "nothing"},
    "a tag of none": {"tag": "nothing"},
    "an assignee": {"assigned_to_id": "per_17"},
    "nobody's": {"assigned_to_id": "nobody"},
    "an asset": {"related_asset_id": "ast_117"},
    "overdue": {"overdue": "true"},
    "open, and a category": {"status": "open", "category": "category7"},
    "open and urgent: none": {"status": "open", "priority": "urgent"},
}


def seed(database_url: str, tickets: int, kind: growth_texts.Kind) -> None:
    """A tenant of so many tickets."""
    terms = growth_texts.terms(kind, tickets, f"'@{TENANT}'")
    with (
        psycopg.connect(database_url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection,
        growth_texts.without_indexes(connection, "helpdesk_tickets"),
    ):
        connection.execute(_TICKETS.replace("TERMS", terms).encode(), {"tenant": TENANT, "tickets": tickets})


def costs(connection: psycopg.Connection[Any], query: dict[str, Any]) -> list[str]:
    """What the first page of a list costs in each order."""
    found = []
    for sort in get_args(Sort):
        wanted = TicketQuery.model_validate({**query, "sort": sort})
        filters, words = operations._filters(wanted), tsqueries(f"@{TENANT}", wanted.q or "")
        names = frozenset(filters).union(operations._implied(wanted, words))
        statement = asyncio.run(list_queries.list_tickets(frozenset({"tenant_id"}), names, sort, after=False))
        searched = {"words": words, "terms": tsquery(f"@{TENANT}", wanted.q or "")}
        facets = index_terms.facet_terms(f"@{TENANT}", filters)
        given = {**filters, **searched, "tenant_id": TENANT, "facets": facets, "rows": 21}
        found.append(growth_plans.cost(connection, statement, given).text)
    return found


def main(tickets: int = 1_000_000, text: growth_texts.Kind = growth_texts.Kind.MACHINE) -> None:
    """Print the CPU of PostgreSQL in ms, and the pages read, of each list."""
    queries = _QUERIES | {name: {"q": q} for name, q in growth_texts.searches(text).items()}
    with growth_plans.ground(seed, tickets, text) as (connection, _):
        rows = [[name, *costs(connection, query)] for name, query in queries.items()]
        growth_plans.show(connection, "helpdesk_tickets", [[f"{tickets:,}, {text}", *get_args(Sort)], *rows])


if __name__ == "__main__":
    typer.run(main)
