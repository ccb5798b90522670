"""contracts/helpdesk.md: the indexes that serve the list, at any depth and under every common filter."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from support.built import at_once
from support.helpdesk_lists import SORTS
from support.system import World

from service import nearest
from service.helpdesk import index_terms, list_queries, operations
from service.helpdesk.commands import TicketQuery
from service.helpdesk.sla import clock_queries
from service.search import tsqueries, tsquery
from service.storage.statement import Statement

# Enough: the plans are those of 100,000 tickets.
ROWS = 20_000
# How many pages of the database a page of 20 tickets may read: about one for each row, and the index.
MAX_BLOCKS = 250
# And with a filter that no index has in its order: some thousand rows, which lie side by side by their time alone.
MAX_LOOKED_AT, MAX_SCATTERED = 1200, 6000
KEYS = {
    "-created_at": "created_at",
    "created_at": "created_at",
    "-updated_at": "updated_at",
    "due_at": "coalesce(due_at, '9999-12-31T23:59:59.999999Z')",
    "-priority": "array_position(ARRAY['low', 'medium', 'high', 'urgent'], priority)",
}
# Each as common as its name says.
COMMON: dict[str, dict[str, Any]] = {
    "a common status": {"status": "open"},
    "a rare status": {"status": "pending"},
    "some statuses": {"status": "pending,resolved"},
    "an assignee": {"assigned_to_id": "per_17"},
    "nobody": {"assigned_to_id": "none"},
    "nobody or someone": {"assigned_to_id": "none,per_17"},
    "a team": {"team_id": "grp_3"},
    "a submitter": {"submitted_by_id": "per_117"},
    "an asset": {"related_asset_id": "ast_117"},
    "some assets": {"related_asset_id": "ast_117,ast_118"},
    "a vulnerability": {"related_vulnerability_id": "vul_117"},
    "an application": {"app_id": "app_2"},
    "a rare tag": {"tag": "rare117"},
    "a tag of half": {"tag": "half1"},
    "a rare word": {"q": "word117"},
    "a word of all": {"q": "title"},
    "a word of none": {"q": "nothing"},
    "a number": {"q": "TKT-15000"},
    "that number": {"number": "TKT-15000"},
}


@pytest.fixture(scope="module")
def large(world: World) -> Iterator[psycopg.Connection[Any]]:
    """The tenant `large` of 20,000 tickets, of four applications and of persons, among a thousand with one each."""
    with psycopg.connect(world.database_url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("SET LOCAL gin_pending_list_limit = '512MB'")
        connection.execute("SET LOCAL maintenance_work_mem = '512MB'")
        connection.execute(
            "INSERT INTO helpdesk_tickets (tenant_id, id, app_id, number, title, type, status, priority, category,"
            " submitted_by_id, assigned_to_id, team_id, tags, tag_terms, source, source_type, created_by, updated_by,"
            " created_at, updated_at, due_at, sla_policy, sla_look_at, related_asset_id, related_vulnerability_id,"
            " search_terms)"
            " SELECT CASE WHEN n <= %s THEN 'large' ELSE 'small' || n END, 'tkt_' || lpad(n::text, 26, '0'),"
            " 'app_' || nullif(n %% 5, 0), n, 'Title word' || n %% 1000, 'incident', CASE WHEN n %% 99 = 1 THEN"
            " 'pending' WHEN n %% 13 = 3 THEN 'resolved' WHEN n %% 2 = 0 THEN 'open' ELSE 'closed' END,"
            " (ARRAY['low', 'medium', 'high', 'urgent'])[1 + n %% 4], 'c' || n %% 20, 'per_' || n %% 200,"
            " CASE WHEN n %% 19 > 0 THEN 'per_' || n %% 101 END, 'grp_' || n %% 11, '[]',"
            " ARRAY['#rare' || n %% 1000, '#half' || n %% 2], 'edm', 'api', 'per_1', 'per_1',"
            " timestamptz '2026-01-01Z' + n * interval '1 s', timestamptz '2026-02-01Z' + n * 7919 %% %s * interval"
            " '1 s', CASE WHEN n %% 3 > 0 THEN timestamptz '2026-03-01Z' + n * 7907 %% %s * interval '1 s' END,"
            " 'sla_' || n %% 1000, CASE n %% 1000 WHEN 7 THEN timestamptz '2026-01-01Z' ELSE '2999-01-01Z' END,"
            " 'ast_' || n %% 5000, 'vul_' || nullif(n %% 5000, 0),"
            # As views.py makes them.
            # Text of a machine: PostgreSQL's statistics of it know `title`, and nothing of what is rare.
            # Three quarters have a word, and none of the newest.
            " array_to_tsvector(ARRAY['title', CASE WHEN n <= %s THEN 'former' ELSE 'latter' END,"
            " CASE n %% 1000 WHEN 117 THEN 'word117' ELSE md5(n::text) END,"
            " 'tkt.' || to_char(n, 'FM999990000'),"
            " '@' || CASE WHEN n <= %s THEN 'large' ELSE 'small' || n END])"
            " FROM generate_series(1, %s) n",
            (ROWS, ROWS, ROWS, ROWS * 3 // 4, ROWS, ROWS + 1000),
        )
        connection.execute("SELECT gin_clean_pending_list('helpdesk_tickets_search_idx')")
        connection.execute("SELECT gin_clean_pending_list('helpdesk_tickets_facets_idx')")
        connection.execute("ANALYZE helpdesk_tickets")
        # A table as small as this is soon read whole. Where there is no index for it, it still is.
        connection.execute("SET LOCAL enable_seqscan = off")
        yield connection
        # Other connections never see them.
        connection.rollback()


def plan(
    connection: psycopg.Connection[Any],
    scope: Mapping[str, Any],
    query: Mapping[str, Any],
    position: tuple[Any, str] | None = None,
    mode: str = "force_custom_plan",
) -> str:
    """The plan of a list's statement as it runs: after a position, or from the first ticket on."""
    return explained(connection, *prepared(scope, query, position), mode)


def prepared(
    scope: Mapping[str, Any], query: Mapping[str, Any], position: tuple[Any, str] | None
) -> tuple[Statement, dict[str, Any]]:
    """A list's statement with its parameters."""
    wanted = TicketQuery.model_validate(query)
    filters = operations._filters(wanted)
    words = tsqueries("@large", wanted.q or "")
    names = frozenset(filters).union(operations._implied(wanted, words))
    statement = at_once(list_queries.list_tickets)(frozenset(scope), names, wanted.sort, after=position is not None)
    given = {**scope, **filters, "rows": 21, "terms": tsquery("@large", wanted.q or ""), "words": words}
    given["facets"] = index_terms.facet_terms("@large", filters)
    if position is not None:
        given["after_key"], given["after_id"] = position
    return statement, given


def explained(connection: psycopg.Connection[Any], statement: Statement, given: Mapping[str, Any], mode: str) -> str:
    """The plan of a statement as it runs."""
    values = [given[name] if name in given else statement.constants[name] for name in statement.names]
    connection.execute(b"SET plan_cache_mode = " + mode.encode())
    connection.execute(b"PREPARE list AS " + statement.sql)
    try:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) EXECUTE list({', '.join(['%s'] * len(values))})"
        return "\n".join(line for (line,) in connection.execute(explain, values))
    finally:
        connection.execute("DEALLOCATE list")


def blocks(plan: str) -> int:
    """How many pages of the database were read, in memory or not."""
    read = re.search(r"Buffers: shared((?: (?:hit|read|dirtied|written)=\d+)+)", plan)
    if read is None:
        # What contradicts itself is not read at all.
        assert "One-Time Filter: false" in plan, plan
        return 0
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", read[1]))


def scans_all(plan: str) -> bool:
    """Whether the table was read from end to end."""
    return re.search(r"Seq Scan on helpdesk_tickets.*\(actual", plan) is not None


def deep(connection: psycopg.Connection[Any], scope: Mapping[str, Any], sort: str) -> tuple[Any, str]:
    """The position in the middle of a list."""
    direction = "DESC" if sort.startswith("-") else "ASC"
    person = {"person_id": "%s IN (submitted_by_id, created_by)"}
    where = " AND ".join(person.get(name, f"{name} = %s") for name in scope)
    [found] = connection.execute(
        f"SELECT {KEYS[sort]}, id FROM helpdesk_tickets WHERE {where}"
        f" ORDER BY {KEYS[sort]} {direction}, id {direction} OFFSET %s LIMIT 1",
        (*scope.values(), DEPTHS.get(scope.get("person_id", ""), ROWS // 10)),
    ).fetchall()
    return found[0], found[1]


# Who submitted a hundred tickets, and who created all of them.
OF_FEW, OF_ALL = {"tenant_id": "large", "person_id": "per_117"}, {"tenant_id": "large", "person_id": "per_1"}
DEPTHS = {"per_117": 50}
SCOPES = [{"tenant_id": "large"}, {"tenant_id": "large", "app_id": "app_1"}, OF_FEW, OF_ALL]
IDS = ["tenant", "application", "person", "busy person"]


MODES = ["force_custom_plan", "force_generic_plan"]


# Without filters a statement is prepared: after a few times it has one plan for every tenant. Not that of a person.
@pytest.mark.parametrize(
    ("scope", "mode"),
    [(scope, mode) for scope in SCOPES for mode in (MODES[:1] if "person_id" in scope else MODES)],
    ids=[f"{name}-{mode}" for name in IDS for mode in (MODES[:1] if "person" in name else MODES)],
)
@pytest.mark.parametrize("sort", SORTS)
def test_every_order_is_served_by_an_index_at_any_depth(
    large: psycopg.Connection[Any], scope: dict[str, Any], sort: str, mode: str
) -> None:
    for position in (None, deep(large, scope, sort)):
        found = plan(large, scope, {"sort": sort}, position, mode)
        assert "Seq Scan on helpdesk_tickets" not in found
        # Of a person, two pages are merged.
        assert "Sort Key" not in found or "person_id" in scope, found
        is_sorted = "person_id" in scope and sort in list_queries._NOT_OF_PERSONS
        assert blocks(found) <= (MAX_LOOKED_AT if is_sorted else MAX_BLOCKS), found


# (Of a busy person a rare filter reads as much as two of the tenant.)
@pytest.mark.parametrize("scope", SCOPES[:-1], ids=IDS[:-1])
@pytest.mark.parametrize("query", COMMON.values(), ids=COMMON)
def test_every_common_filter_is_served_by_an_index(
    large: psycopg.Connection[Any], scope: dict[str, Any], query: dict[str, Any]
) -> None:
    for position in (None, deep(large, scope, "-created_at")):
        found = plan(large, scope, query, position)
        assert not scans_all(found), found
        assert blocks(found) <= MAX_LOOKED_AT, found


RARE: dict[str, dict[str, Any]] = {
    "a word of none": {"q": "nothing"},
    "a word of one": {"q": "c4ca4238a0b923820dcc509a6f75849b"},
    "a word of twenty": {"q": "word117"},
    "a common and a rare word": {"q": "title word117"},
    "a common word and one of none": {"q": "title nothing"},
    "a status of none": {"status": "in_progress"},
    "statuses of few and none": {"status": "pending,in_progress"},
    "a type of none": {"type": "change"},
    "types of none": {"type": "change,problem"},
    "a category of none": {"category": "nothing"},
    "a source of none": {"source": "nothing"},
    "a policy of few": {"sla_policy": "sla_117"},
    "a tag of none": {"tag": "nothing"},
    "nobody's": {"assigned_to_id": "nobody"},
    "an asset": {"related_asset_id": "ast_117"},
    "overdue, and a category of none": {"overdue": "true", "category": "nothing"},
}


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("query", RARE.values(), ids=RARE)
def test_what_is_rare_is_found_without_a_walk_through_everything(
    large: psycopg.Connection[Any], query: dict[str, Any], sort: str
) -> None:
    found = plan(large, {"tenant_id": "large"}, {**query, "sort": sort})
    assert not scans_all(found), found
    assert blocks(found) <= (MAX_LOOKED_AT if "created_at" in sort else MAX_SCATTERED), found


def test_what_many_old_tickets_have_is_walked_to(large: psycopg.Connection[Any]) -> None:
    # The nearest four thousand, a sample of a thousand, and the newest five thousand.
    found = plan(large, {"tenant_id": "large"}, {"q": "former"})
    assert re.search(r"search_idx .*\(never executed\)", found), found
    assert blocks(found) <= 1.5 * MAX_LOOKED_AT, found


FEW = {"a word of many that are old": {"q": "former"}} | {
    name: RARE[name] for name in ("a word of twenty", "a common and a rare word", "a policy of few")
}


def _build_again() -> None:
    list_queries._list_tickets.cache_clear()
    list_queries.list_tickets.forget()


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("query", FEW.values(), ids=FEW)
def test_what_is_sorted_is_what_a_walk_finds(
    large: psycopg.Connection[Any], query: dict[str, Any], sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope, wanted = {"tenant_id": "large"}, {**query, "sort": sort}
    statement, given = prepared(scope, wanted, None)
    [*_, last] = sorted_rows = listed(large, statement, {**given, "rows": 3})
    later, after = prepared(scope, wanted, (last["sort_key"], last["id"]))
    sorted_rows += listed(large, later, after)
    monkeypatch.setattr(nearest, "ROWS", 2 * ROWS)
    _build_again()
    walk, given = prepared(scope, wanted, None)
    assert statement.sql != walk.sql
    assert [row["id"] for row in sorted_rows][:21] == [row["id"] for row in listed(large, walk, given)]
    _build_again()


OWN: dict[str, dict[str, Any]] = {"all": {}, "of a status": {"status": "open"}, "with a word": {"q": "word117"}}


@pytest.mark.parametrize("scope", [OF_FEW, OF_ALL], ids=["of few", "of all"])
@pytest.mark.parametrize("sort", sorted(list_queries._NOT_OF_PERSONS))
@pytest.mark.parametrize("query", OWN.values(), ids=OWN)
def test_own_tickets_are_the_same_as_few_and_as_many(
    large: psycopg.Connection[Any],
    scope: dict[str, Any],
    query: dict[str, Any],
    sort: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for few in (1, 2 * ROWS):
        monkeypatch.setattr(nearest, "ROWS", few)
        _build_again()
        statement, given = prepared(scope, {**query, "sort": sort}, deep(large, scope, sort))
        found.append([row["id"] for row in listed(large, statement, given)])
    _build_again()
    assert found[0] == found[1]
    assert found[0] or query


def listed(connection: psycopg.Connection[Any], statement: Statement, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a list."""
    values = [given[name] if name in given else statement.constants[name] for name in statement.names]
    connection.execute(b"PREPARE list AS " + statement.sql)
    try:
        cursor = connection.cursor(row_factory=dict_row)
        return cursor.execute(f"EXECUTE list({', '.join(['%s'] * len(values))})", values).fetchall()
    finally:
        connection.execute("DEALLOCATE list")


def test_of_several_words_the_index_is_asked_for_the_rarest(large: psycopg.Connection[Any]) -> None:
    found = plan(large, {"tenant_id": "large"}, {"q": "title word117"})
    asked = re.search(r"search_idx .*\n\s*Index Cond: (.*)", found)
    assert asked is not None, found
    assert "title" not in asked[1], found


HUNDRED = {"tenant_id": "large", "ids": [f"tkt_{number:026}" for number in range(7, 10_007, 100)]}
CLOCKS: Mapping[str, tuple[Statement, dict[str, Any]]] = {
    "tickets to re-clock": (
        clock_queries.NEXT_CLOCKS,
        {"tenant_id": "large", "policy_id": "sla_1", "after_id": f"tkt_{ROWS // 2:026}", "rows": 50},
    ),
    "tickets that are due": (clock_queries.DUE_ROUND, {"rows": 500}),
    "whose turn it is": (clock_queries.TAKE_TURN, {}),
}
PICKED: Mapping[str, tuple[Statement, dict[str, Any]]] = {
    "locked": (clock_queries.LOCK_TICKETS, HUNDRED),
    "locked if due": (clock_queries.LOCK_DUE, HUNDRED),
    "read": (clock_queries.READ_TICKETS, HUNDRED),
    "written": (
        clock_queries.SET_CLOCKS,
        {
            "tenant_id": "large",
            "tickets": json.dumps(
                [{"id": id_, "is_moved": False, "sla_emitted": [], "appended": []} for id_ in HUNDRED["ids"]]
            ),
            "actor": "system",
            "request_id": "sla-1",
        },
    ),
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("case", CLOCKS)
def test_what_sets_clocks_finds_its_tickets_by_an_index(large: psycopg.Connection[Any], case: str, mode: str) -> None:
    found = explained(large, *CLOCKS[case], mode)
    assert "Seq Scan on helpdesk_tickets" not in found, found
    assert blocks(found) <= MAX_BLOCKS, found


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("case", PICKED)
def test_what_sets_clocks_takes_them_by_their_keys(large: psycopg.Connection[Any], case: str, mode: str) -> None:
    found = explained(large, *PICKED[case], mode)
    assert "Seq Scan on helpdesk_tickets" not in found, found
