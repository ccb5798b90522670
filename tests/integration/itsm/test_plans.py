"""Plans of the ITSM API's statements: selective filters use their indexes, and what travels on a lane reads little."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from support.built import at_once
from support.system import World

from service.itsm import day_queries, days, index_terms, queries
from service.search import tsqueries, tsquery
from service.storage.statement import Statement

ROWS = 100_000
FIRST_DAY, SECOND_DAY = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
LARGE, ONE = uuid4(), uuid4()
MINE = {"account_id": LARGE, "live": True}
ACTOR = {"actor": "key_1", "request_id": "r"}
NEW = {
    **dict.fromkeys(queries.NEW),
    **MINE,
    "id": uuid4(),
    "subject": "A",
    "description": "B",
    "status": "open",
    "metadata": "{}",
}


@pytest.fixture(scope="module")
def large(world: World) -> Iterator[psycopg.Connection[Any]]:
    """An account of 100,000 tickets: each on one of a thousand floors and in one of two networks."""
    floors = [index_terms.metadata_query_terms(LARGE, True, {"floor": str(number)})[1:-1] for number in range(1000)]
    networks = [index_terms.metadata_query_terms(LARGE, True, {"network": str(number)})[1:-1] for number in range(2)]
    with psycopg.connect(world.database_url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(
            "INSERT INTO itsm_tickets (account_id, live, id, subject, description, status, metadata, metadata_terms,"
            " created_at, search_terms)"
            " SELECT %s, true, CASE WHEN n = 50000 THEN %s ELSE gen_random_uuid() END, 'A', 'B', 'open', '{}',"
            " ARRAY[(%s::uuid[])[1 + n %% 1000], (%s::uuid[])[1 + n %% 2]],"
            " timestamptz '2026-01-01Z' + n * interval '1 s',"
            # Of a word of 5 % all are old.
            " array_to_tsvector(ARRAY['a', 'b', 'word' || n %% 1000, CASE WHEN n <= %s AND n %% 10 = 0 THEN 'former'"
            " ELSE 'latter' END, %s]) FROM generate_series(1, %s) n",
            (LARGE, ONE, floors, networks, ROWS // 2, index_terms.search_scope(LARGE, True), ROWS),
        )
        connection.execute("SELECT gin_clean_pending_list('itsm_tickets_metadata_idx')")
        connection.execute("SELECT gin_clean_pending_list('itsm_tickets_search_idx')")
        connection.execute("INSERT INTO itsm_totals VALUES (%s, true, 'open', %s, pg_current_xact_id())", [LARGE, ROWS])
        connection.execute("INSERT INTO itsm_day_recounts VALUES (%s, true, '9999-12-31')", [LARGE])
        given = {**MINE, "before": "9999-12-31", "rows": 10 * ROWS}
        plan(connection, day_queries.RECOUNT, given, "auto")
        connection.execute("ANALYZE itsm_tickets")
        yield connection
        # They are never committed.
        connection.rollback()


def plan(connection: psycopg.Connection[Any], statement: Statement, given: Mapping[str, Any], mode: str) -> str:
    """The plan of a statement as it runs."""
    values = [given[name] if name in given else statement.constants[name] for name in statement.names]
    connection.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
    connection.execute(b"PREPARE planned AS " + statement.sql)
    try:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) EXECUTE planned({', '.join(['%s'] * len(values))})"
        return "\n".join(line for (line,) in connection.execute(explain, values))
    finally:
        connection.execute("DEALLOCATE planned")


def blocks(plan: str) -> int:
    """How many pages of the database were read, in memory or not."""
    read = re.search(r"Buffers: shared((?: (?:hit|read|dirtied|written)=\d+)+)", plan)
    return 0 if read is None else sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", read[1]))


def having(**members: str) -> dict[str, str]:
    return {"metadata_terms": index_terms.metadata_query_terms(LARGE, True, members)}


def saying(words: str) -> dict[str, str | None]:
    return {"search_terms": tsquery(index_terms.search_scope(LARGE, True), words)}


SELECTIVE: dict[str, dict[str, Any]] = {
    "a rare value": having(floor="117"),
    "a rare and a common value": having(floor="117", network="1"),
    "a value of none": having(floor="nothing"),
    "with a status": {**having(floor="117"), "status": "open"},
    "a rare word": saying("word117"),
    "a rare and a common word": saying("word117 A"),
    "a word of none": saying("nothing"),
    "a word with a status": {**saying("word117"), "status": "open"},
    "without a word": saying("!!!"),
}


@pytest.mark.parametrize("filters", SELECTIVE.values(), ids=SELECTIVE)
def test_a_selective_filter_is_served_by_its_index(large: psycopg.Connection[Any], filters: dict[str, Any]) -> None:
    statement = at_once(queries.list_tickets)(frozenset(filters), skips=False)
    found = plan(large, statement, {**MINE, "limit": 20, "offset": 0, **filters}, "force_custom_plan")
    assert "Seq Scan" not in found, found
    # Twice a hundred tickets, for the page and for the total, each on a page of its own, and the nearest four thousand.
    assert blocks(found) < 900, found


FAR: dict[str, dict[str, Any]] = {
    "a word": saying("former"),
    "with a common one": {**saying("former A"), "words": tsqueries(index_terms.search_scope(LARGE, True), "former A")},
    "of a status": {**saying("former"), "status": "open"},
}


@pytest.mark.parametrize("offset", [0, 30])
@pytest.mark.parametrize("filters", FAR.values(), ids=FAR)
def test_what_only_old_tickets_have_is_read_once_for_page_and_total(
    large: psycopg.Connection[Any], filters: dict[str, Any], offset: int
) -> None:
    statement = at_once(queries.list_tickets)(frozenset(filters), skips=offset > 0)
    given = {**MINE, "limit": 20, "offset": offset, **filters}
    found = plan(large, statement, given, "force_custom_plan")
    # Half of the pages of the table once, the index, the nearest four thousand, and the tickets of the page.
    [[pages]] = large.execute("SELECT pg_relation_size('itsm_tickets') / current_setting('block_size')::int").fetchall()
    assert blocks(found) < pages / 2 + 500, found
    [*_, last] = rows = listed(large, statement, given)
    assert {row["total"] for row in rows} == {ROWS // 20}
    newest = FIRST_DAY + timedelta(seconds=ROWS // 2)
    assert [rows[0]["created_at"], last["created_at"]] == [
        newest - timedelta(seconds=10 * place) for place in (offset, offset + 19)
    ]


def listed(connection: psycopg.Connection[Any], statement: Statement, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a list."""
    values = [given[name] if name in given else statement.constants[name] for name in statement.names]
    connection.execute(b"PREPARE listed AS " + statement.sql)
    try:
        cursor = connection.cursor(row_factory=dict_row)
        return cursor.execute(f"EXECUTE listed({', '.join(['%s'] * len(values))})", values).fetchall()
    finally:
        connection.execute("DEALLOCATE listed")


# What travels on a lane has one plan for everyone, made without looking at the values.
SHORT: dict[str, tuple[Statement, dict[str, Any]]] = {
    "get": (queries.GET, {"ticket_id": ONE}),
    "list": (at_once(queries.list_tickets)(frozenset(), skips=False, short=True), {"limit": 50, "offset": 0}),
    "list by status": (
        at_once(queries.list_tickets)(frozenset({"status"}), skips=False, short=True),
        {"limit": 50, "offset": 0, "status": "open"},
    ),
    "list by a status of none": (
        at_once(queries.list_tickets)(frozenset({"status"}), skips=False, short=True),
        {"limit": 50, "offset": 0, "status": "closed"},
    ),
    "change": (
        at_once(queries.update_ticket)(frozenset({"status", "priority"})),
        {"ticket_id": ONE, "new_status": "pending", "new_priority": "high", **ACTOR},
    ),
    "create": (queries.CREATE.plain, {**NEW, **ACTOR}),
}


@pytest.mark.parametrize(("statement", "given"), SHORT.values(), ids=SHORT)
def test_what_travels_on_a_lane_reads_little(
    large: psycopg.Connection[Any], statement: Statement, given: dict[str, Any]
) -> None:
    assert statement.is_short
    large.execute("SET LOCAL enable_bitmapscan = off")
    found = plan(large, statement, {**MINE, **given}, "force_generic_plan")
    large.execute("SET LOCAL enable_bitmapscan = on")
    assert "Seq Scan on itsm_tickets" not in found, found
    assert blocks(found) < 250, found


MINUTES = timedelta(minutes=10)
# With how many pages of the database: what is counted at the ends, and what is walked of a day.
SUMMED: dict[str, tuple[dict[str, Any], int]] = {
    "from a time": ({"start_date": FIRST_DAY + MINUTES}, 100),
    "until a time": ({"end_date": SECOND_DAY + MINUTES}, 100),
    "between times, of a status": (
        {"start_date": FIRST_DAY + MINUTES, "end_date": SECOND_DAY + MINUTES, "status": "open"},
        150,
    ),
    "far": ({"offset": ROWS - 86_000}, 200),
    "far, of a status": ({"offset": ROWS - 86_000, "status": "open"}, 200),
    "far, until a time": ({"offset": 1000, "end_date": SECOND_DAY + MINUTES}, 200),
    "past the end": ({"offset": 2 * ROWS, "start_date": FIRST_DAY}, 100),
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(("filters", "most"), SUMMED.values(), ids=SUMMED)
def test_days_that_are_summed_are_not_read(
    large: psycopg.Connection[Any], filters: dict[str, Any], most: int, mode: str
) -> None:
    names = frozenset(filters) - {"offset"}
    statement = at_once(queries.list_tickets)(names, skips="offset" in filters, far="offset" in filters)
    given = filters | days.ends(filters.get("start_date"), filters.get("end_date"))
    found = plan(large, statement, {**MINE, "limit": 20, "offset": 0, **given}, mode)
    assert blocks(found) < most, found
