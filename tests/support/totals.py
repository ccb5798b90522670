"""The statements of ITSM tickets and of their totals, on a database that no service works at."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import select

from service.directory import ACCOUNT
from service.itsm import day_queries, days, queries, total_queries
from service.itsm.index_terms import search_terms
from service.storage.statement import Statement
from support.built import at_once

ACTOR = {"actor": "key_1", "request_id": "r"}
LIST = at_once(queries.list_tickets)(frozenset(), skips=False, short=True)
_CHANGE = at_once(queries.update_ticket)(frozenset({"status"}))
_ticket, *_others = queries.new_ticket((*queries.NEW, "created_at"))
# A creation at another time than now.
_CREATE_THEN = Statement(select(_ticket.c.id).add_cte(*_others), scope=ACCOUNT)
_ARE_TRUE = Statement(select(day_queries.ARE_TRUE.label("are_true")), scope=ACCOUNT)
# As the version before did it.
_OLD_MERGE = """
WITH gone AS (DELETE FROM itsm_total_changes RETURNING account_id, live, status, change)
INSERT INTO itsm_totals (account_id, live, status, total)
SELECT account_id, live, status, sum(change) FROM gone GROUP BY account_id, live, status
ON CONFLICT (account_id, live, status) DO UPDATE SET total = itsm_totals.total + excluded.total
"""


class Session:
    """One connection to a database that no service works at."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(
            url, autocommit=True, row_factory=dict_row, cursor_factory=psycopg.ClientCursor
        )
        self.connection.execute("SET plan_cache_mode = force_generic_plan; SET enable_bitmapscan = off")

    def run(self, statement: Statement, **given: Any) -> list[dict[str, Any]]:
        values = [given[name] if name in given else statement.constants[name] for name in statement.names]
        self.connection.execute(b"PREPARE one AS " + statement.sql)
        try:
            places = f"({', '.join(['%s'] * len(values))})" if values else ""
            return self.connection.execute(f"EXECUTE one{places}", values).fetchall()
        finally:
            self.connection.execute("DEALLOCATE one")

    def create(self, account_id: UUID) -> None:
        ticket = {"account_id": account_id, "live": True, "subject": "A", "description": "B"}
        given = {**dict.fromkeys(queries.NEW), **ticket, "id": uuid4(), "status": "open", "metadata": "{}"}
        self.run(queries.CREATE.plain, **{**given, "search_terms": search_terms(ticket), **ACTOR})

    def change(self, account_id: UUID, times: int) -> None:
        self.connection.execute(
            "INSERT INTO itsm_total_changes (account_id, live, status, change)"
            " SELECT %s, true, 'open', 1 FROM generate_series(1, %s)",
            [account_id, times],
        )

    def merge(self) -> None:
        """As the background does."""
        self.run(total_queries.MERGE)
        [newest] = self.run(total_queries.NEWEST)
        self.run(total_queries.RAISE_FLOOR, **newest)

    def total(self, account_id: UUID) -> int:
        [row] = self.run(LIST, account_id=account_id, live=True, limit=1, offset=0)
        total: int = row["total"]
        return total

    def floor(self) -> int:
        [row] = self.connection.execute("SELECT floor FROM itsm_totals_floor").fetchall()
        floor: int = row["floor"]
        return floor

    def create_then(self, account_id: UUID, created_at: datetime, status: str) -> UUID:
        """A ticket of another time."""
        ticket_id = uuid4()
        ticket = {"account_id": account_id, "live": True, "subject": "A", "description": "B"}
        given = {**dict.fromkeys(queries.NEW), **ticket, "id": ticket_id, "status": status, "metadata": "{}"}
        self.run(_CREATE_THEN, **{**given, "search_terms": "", "created_at": created_at, **ACTOR})
        return ticket_id

    def set_status(self, account_id: UUID, ticket_id: UUID, status: str) -> None:
        given = {"account_id": account_id, "live": True, "ticket_id": ticket_id, "new_status": status}
        self.run(_CHANGE, **{**given, **ACTOR})

    def forget_days(self) -> None:
        """As when the version before has written what is not merged."""
        self.connection.execute("UPDATE itsm_total_changes SET day = NULL")

    def merge_as_before(self) -> None:
        """As the background of the version before does."""
        self.connection.execute(_OLD_MERGE)

    def recount(self, rows: int = 3, steps: int = 1000) -> None:
        """As the background does."""
        self.run(day_queries.QUEUE_RECOUNTS)
        places: list[dict[str, Any]] = [{}]
        while places and steps:
            steps -= 1
            with self.connection.transaction():
                places = self.run(day_queries.NEXT_RECOUNT)
                for place in places:
                    self.run(day_queries.RECOUNT, **place, rows=rows)

    def has_true_days(self, account_id: UUID) -> bool:
        """Whether totals by date are sums."""
        [row] = self.run(_ARE_TRUE, account_id=account_id, live=True)
        are_true: bool = row["are_true"]
        return are_true

    def page(self, account_id: UUID, limit: int, offset: int, **filters: Any) -> tuple[int, list[UUID]]:
        """The total of a list, and the ids on a page of it that is far from its beginning."""
        statement = at_once(queries.list_tickets)(frozenset(filters), skips=offset > 0, far=offset > 0)
        given = filters | days.ends(filters.get("start_date"), filters.get("end_date"))
        rows = self.run(statement, account_id=account_id, live=True, limit=limit, offset=offset, **given)
        return rows[0]["total"], [row["id"] for row in rows if row["id"] is not None]

    def counted(self, account_id: UUID, **filters: Any) -> list[UUID]:
        """The ids of all tickets that match, newest first."""
        first = datetime(1, 1, 1, tzinfo=UTC) + timedelta(days=1)
        given = {"status": None, "start_date": first, "end_date": datetime(9999, 1, 1, tzinfo=UTC), **filters}
        rows = self.connection.execute(
            "SELECT id FROM itsm_tickets WHERE account_id = %(account_id)s AND created_at >= %(start_date)s"
            " AND created_at <= %(end_date)s AND status = coalesce(%(status)s, status)"
            " ORDER BY created_at DESC, id DESC",
            {"account_id": account_id, **given},
        )
        return [row["id"] for row in rows.fetchall()]
