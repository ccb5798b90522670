"""ITSM searches of an account of a million, with their exact totals: every word, of both kinds of text.

python -m tests.benchmarks.growth_itsm_search [--tickets 1000000] [--text machine]
"""

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import typer

from service.itsm import index_terms, queries
from service.search import tsqueries, tsquery

from . import growth_plans, growth_texts

_ACCOUNT = {"account_id": UUID("00000000-0000-4000-8000-00000000ba5e"), "live": True}
_SCOPE = index_terms.search_scope(**_ACCOUNT)
_TICKETS = """
INSERT INTO itsm_tickets
    (account_id, live, id, subject, description, status, priority, requester_email, metadata, created_at, updated_at,
    search_terms)
SELECT %(account_id)s, true, overlay(md5(n::text) PLACING lpad(to_hex(n), 12, '0') FROM 1)::uuid, 'Laptop ' || n,
    repeat('It stays dark after lunch. ', 6),
    CASE WHEN n > %(tickets)s * 0.95 AND n %% 2 = 0 THEN 'open' ELSE 'closed' END,
    -- What is urgent is old.
    CASE WHEN n < %(tickets)s / 2 AND n %% 10 = 0 THEN 'urgent' WHEN n %% 5 > 0 THEN 'low' END,
    'person' || n %% 1000 || '@example.com', '{}', at, at, TERMS
FROM generate_series(1, %(tickets)s) AS n,
    LATERAL (SELECT timestamptz '2026-01-01T00:00:00Z' + (n - %(tickets)s) * interval '1 minute' AS at) AS _
"""
_BESIDE: dict[str, dict[str, Any]] = {"": {}, "priority=urgent": {"priority": "urgent"}, "offset=100": {"offset": 100}}


def seed(database_url: str, tickets: int, kind: growth_texts.Kind) -> None:
    """An account of so many tickets."""
    terms = growth_texts.terms(kind, tickets, "%(scope)s")
    with (
        psycopg.connect(database_url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection,
        growth_texts.without_indexes(connection, "itsm_tickets"),
    ):
        connection.execute(_TICKETS.replace("TERMS", terms).encode(), {**_ACCOUNT, "scope": _SCOPE, "tickets": tickets})


def costs(connection: psycopg.Connection[Any], q: str) -> list[str]:
    """What a page of a search costs, with its total, alone and beside other filters."""
    found = []
    for beside in _BESIDE.values():
        words = tsqueries(_SCOPE, q)
        given = {"search_terms": tsquery(_SCOPE, q), **({"words": words} if len(words) > 1 else {}), **beside}
        statement = asyncio.run(queries.list_tickets(frozenset(given) - {"offset"}, skips="offset" in given))
        parameters = {"offset": 0, "limit": 20, **_ACCOUNT, **given}
        found.append(growth_plans.cost(connection, statement, parameters).text)
    return found


def main(tickets: int = 1_000_000, text: growth_texts.Kind = growth_texts.Kind.MACHINE) -> None:
    """Print the CPU of PostgreSQL in ms, and the pages read, of each search."""
    with growth_plans.ground(seed, tickets, text) as (connection, _):
        rows = [[name, *costs(connection, q)] for name, q in growth_texts.searches(text).items()]
        growth_plans.show(connection, "itsm_tickets", [[f"{tickets:,}, {text}", *_BESIDE], *rows])


if __name__ == "__main__":
    typer.run(main)
