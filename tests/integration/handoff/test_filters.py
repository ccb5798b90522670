"""contracts/handoff.md at both transports: filters and search of both lists, and the indexes that serve them."""

import asyncio
import re
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.built import at_once
from support.handoff import Transport, changed, created, listed, new_project, starts
from support.methods import METHODS
from support.system import Credential, World
from support.transports import Grpc
from tickets.handoff.v1 import ticket_service_pb2

from service import nearest
from service.handoff import index_terms, list_queries, operations
from service.handoff.commands import ProjectTicketsQuery
from service.search import tsquery

MILESTONE = "0b7c1ad6-7c6e-4f3c-9d57-5a3a0f5c2a11"
SHIPPING: dict[str, dict[str, str]] = {
    "merged": {"outcome": "merged"},
    "deployed": {"outcome": "deployed"},
    "deploy_failed": {"outcome": "failed"},
}


async def project_list(transport: Transport, who: Credential, project_id: str, **query: Any) -> list[dict[str, Any]]:
    reply = await transport.call("handoff.project", who, path={"project_id": project_id}, query=query)
    tickets: list[dict[str, Any]] = reply.succeeded()["tickets"]
    return tickets


async def titles(transport: Transport, who: Credential, project_id: str, **query: Any) -> str:
    """The first letters of the titles in a project's list, in alphabetical order."""
    return "".join(sorted(ticket["title"][0] for ticket in await project_list(transport, who, project_id, **query)))


async def read_by_offsets(transport: Transport, who: Credential, project_id: str, query: dict[str, str]) -> str:
    """The same, read in pages that begin at an offset."""
    found = ""
    while page := await project_list(transport, who, project_id, **query, limit=3, offset=len(found)):
        found += "".join(ticket["title"][0] for ticket in page)
    return "".join(sorted(found))


@pytest.fixture(scope="module")
async def shared_project(world: World) -> tuple[str, Credential, str]:
    """A project, its owner's credential and id, for `filled`."""
    user_id, project_id = str(uuid4()), await world.project()
    return project_id, await world.member(project_id, "owner", user_id), user_id


@pytest.fixture
async def filled(transport: Transport, shared_project: tuple[str, Credential, str]) -> tuple[str, Credential, str]:
    """The project with tickets a to g, each with something that no other has."""
    project_id, who, user_id = shared_project
    if await project_list(transport, who, project_id):
        return shared_project
    a = await created(transport, who, project_id, title="a", priority="high", roles=["qa"])
    b = await created(transport, who, project_id, title="b", request_type="feature_request")
    c = await created(transport, who, project_id, title="c", priority="low")
    await created(transport, who, project_id, title="d")
    await changed(transport, who, a, role_status=starts("qa", assignee_user_id=user_id))
    await changed(transport, who, b, milestone_id=MILESTONE, stage="up_next")
    await changed(transport, who, c, role_status={"role": "backend", "status": "skipped"})
    for title, report in zip("efg", SHIPPING.values(), strict=True):
        made = await created(transport, who, project_id, title=title)
        path = {"project_id": project_id, "ticket_id": made["id"]}
        await transport.call("handoff.deploy", who, path=path, body={"merge_sha": "9fceb02", **report})
    return shared_project


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, "abcdefg"),
        ({"status": "closed"}, "c"),
        ({"status": "open"}, "abdefg"),
        ({"stage": "live"}, "c"),
        ({"stage": "up_next,in_progress"}, "ab"),
        ({"priority": "high"}, "a"),
        ({"request_type": "feature_request"}, "b"),
        ({"role": "qa"}, "a"),
        ({"role": "design"}, ""),
        ({"assignee": "me"}, "a"),
        ({"assignee": MILESTONE}, ""),
        ({"severity": "high"}, "a"),
        ({"category": "feature_request", "request_type": "feature_request"}, "b"),
        ({"ship": "merged"}, "e"),
        ({"ship": "deploying"}, "e"),
        ({"ship": "deploying,deploy_failed"}, "eg"),
        ({"ship": "deployed,merged,deploying"}, "ef"),
        ({"ship": "deployed"}, "f"),
        ({"ship": "deploy_failed"}, "g"),
        ({"milestone": MILESTONE}, "b"),
        ({"milestone": "none"}, "acdefg"),
        ({"updated_since": "2100-01-01T00:00:00Z"}, ""),
        ({"updated_since": "2020-01-01T00:00:00+02:00"}, "abcdefg"),
        ({"status": "open", "priority": "medium", "stage": "backlog", "milestone": "none"}, "defg"),
    ],
    ids=str,
)
async def test_filters_keep_the_matching_tickets(
    transport: Transport, filled: tuple[str, Credential, str], query: dict[str, str], expected: str
) -> None:
    project_id, who, _ = filled
    assert await titles(transport, who, project_id, **query) == expected
    assert (await read_by_offsets(transport, who, project_id, query)) == expected
    if query.keys().isdisjoint({"ship", "milestone"}):
        everywhere = await listed(transport, who, project_id=project_id, **query)
        assert "".join(sorted(ticket["title"] for ticket in everywhere)) == expected
        assert await listed(transport, who, project_id=str(uuid4()), **query) == []


async def test_updated_since_counts_creations_and_changes(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    first = await created(transport, who, project_id, title="a")
    second = await created(transport, who, project_id, title="b")
    since = second["created_at"]
    assert await titles(transport, who, project_id, updated_since=since) == "b"
    after = await changed(transport, who, first, priority="high")
    assert await titles(transport, who, project_id, updated_since=since) == "ab"
    assert await titles(transport, who, project_id, updated_since=after["updated_at"]) == "a"


@pytest.mark.parametrize(
    ("operation", "query", "path"),
    [
        ("handoff.list", {"status": "done"}, "status"),
        ("handoff.list", {"stage": "backlog,"}, "stage.1"),
        ("handoff.project", {"assignee": "you"}, "assignee"),
        ("handoff.project", {"milestone": "some"}, "milestone"),
        ("handoff.project", {"ship": "shipped"}, "ship.0"),
        ("handoff.project", {"ship": "deployed,"}, "ship.1"),
        ("handoff.project", {"category": "bug", "request_type": "decision_needed"}, "category"),
        ("handoff.list", {"severity": "low", "priority": "high"}, "severity"),
        ("handoff.list", {"severity": "urgent"}, "severity"),
        ("handoff.project", {"q": ""}, "q"),
        ("handoff.project", {"q": "x" * 201}, "q"),
        ("handoff.project", {"limit": 0}, "limit"),
        ("handoff.project", {"limit": 2001}, "limit"),
        ("handoff.project", {"offset": -1}, "offset"),
        ("handoff.project", {"offset": 0, "cursor": "any"}, "offset"),
    ],
    ids=str,
)
async def test_invalid_filters_are_refused(
    transport: Transport, world: World, operation: str, query: dict[str, Any], path: str
) -> None:
    project_id, who = await new_project(world)
    reply = await transport.call(
        operation, who, path={"project_id": project_id} if "project" in operation else None, query=query
    )
    reply.failed("validation_error", paths=[path])


async def test_a_typed_filter_without_a_value_is_refused(rpc: Grpc, world: World) -> None:
    who = await world.member(await world.project())
    for name in ("status", "priority", "request_type", "role", "category", "severity"):
        request = ticket_service_pb2.ListTicketsRequest()
        setattr(request, name, 0)
        assert request.HasField(name)
        (await rpc.send(METHODS["handoff.list"], request, who)).failed("validation_error", paths=[name])


async def test_a_cursor_is_valid_only_for_its_filters_and_its_project(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    for title in "abc":
        await created(transport, who, project_id, title=title, priority="high")
    path = {"project_id": project_id}
    query = {"priority": "high", "limit": 1}
    cursor = (await transport.call("handoff.project", who, path=path, query=query)).succeeded()["next_cursor"]
    assert await titles(transport, who, project_id, **query, cursor=cursor) == "b"
    for wrong in ({"limit": 1}, {"priority": "low", "limit": 1}):
        reply = await transport.call("handoff.project", who, path=path, query={**wrong, "cursor": cursor})
        reply.failed("validation_error", paths=["cursor"])
    (await transport.call("handoff.list", who, query={**query, "cursor": cursor})).failed("validation_error")


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("login", "a"),
        ("LOG", "a"),  # the beginning of a word
        ("ogin", ""),
        ("since nine", "ab"),
        ("nine login", "a"),
        ("Zoë's", "b"),
        ("v1.2.3", "c"),
        ("foo-bar", "c"),
        ("2", "bc"),  # by number, and the 2 of v1.2.3
        ("#3", "c"),
        ("HO-1", "a"),
        ("it's \\ & | ! ( ) : * <->", ""),
        ("' OR true --", ""),
        ("!!!", ""),
    ],
)
async def test_search_finds_words_and_numbers(transport: Transport, world: World, q: str, expected: str) -> None:
    project_id, who = await new_project(world)
    other, _ = await new_project(world)
    await world.member(other, user_id=str(uuid4()))
    await created(transport, who, project_id, title="a Login loops", description="Since nine.")
    await created(transport, who, project_id, title="b Zoë's", description="Since nine, too.")
    await created(transport, who, project_id, title="c", description="foo-bar broke in v1.2.3")
    assert await titles(transport, who, project_id, q=q) == expected


async def test_search_finds_no_project_by_its_id(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    await created(transport, who, project_id, title="zzz", description="zzz")
    for q in (project_id, project_id[:1], project_id[:4], f"' {project_id}'"):
        assert await titles(transport, who, project_id, q=f"x{q}" if q.isdigit() else q) == ""


@pytest.mark.parametrize(
    "large",
    [
        {"evidence": {"text": "x" * 250_000}},
        {"suggested_resolution": "𝄞" * 5000, "implementation_notes": "𝄞" * 5000, "description": "𝄞" * 20_000},
    ],
    ids=["evidence", "texts"],
)
async def test_a_page_of_large_tickets_fits_into_a_message_and_loses_none(
    transport: Transport, world: World, large: dict[str, Any]
) -> None:
    project_id, who = await new_project(world)
    for _ in range(8):  # few at a time: no call may wait for a connection for longer than a caller would
        await asyncio.gather(*(created(transport, who, project_id, **large) for _ in range(4)))
    seen, query, path = list[int](), {"limit": 31, "offset": 0}, {"project_id": project_id}
    while True:
        page = (await transport.call("handoff.project", who, path=path, query=query)).succeeded()
        # A message is cut short for its size; over REST a page is as long as it was asked for.
        if transport.name == "rest":
            assert len(page["tickets"]) == min(31, 32 - len(seen))
        seen += [ticket["number"] for ticket in page["tickets"]]
        if page["next_cursor"] is None:
            break
        query = {"limit": 31, "cursor": page["next_cursor"]}
    assert sorted(seen) == list(range(1, 33))


# Plans


def plan(world: World, statement: Any, *, mode: str = "force_custom_plan", **parameters: Any) -> str:
    """The plan that a list's statement runs with for these values."""
    with psycopg.connect(world.database_url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(f"SET plan_cache_mode = {mode}".encode())
        connection.execute(b"PREPARE list AS " + statement.sql)
        values = [parameters[name] if name in parameters else statement.constants[name] for name in statement.names]
        places = ", ".join(["%s"] * len(values))
        return "\n".join(line for (line,) in connection.execute(f"EXPLAIN EXECUTE list({places})", values))


@pytest.fixture(scope="module")
async def large(world: World) -> tuple[UUID, UUID]:
    """A project of 20,000 tickets among others as large, and a member of it."""
    user_id, projects = uuid4(), [await world.project() for _ in range(3)]
    for project_id in projects:
        await world.member(project_id, user_id=str(user_id))
        world.run(
            "INSERT INTO handoff_tickets (project_id, number, source, title, description, request_type, priority,"
            " blocking, actor_role, actor_id, created_at, search_terms, status, stage)"
            " SELECT %s, n, 'portal', 'Title ' || n, 'word' || n %% 1000, 'bug', 'low', false, 'user', 'x',"
            " timestamptz '2026-01-01Z' + n * interval '1 s',"
            " array_to_tsvector(ARRAY['title', n::text, 'word' || n %% 1000, %s]),"
            " lifecycle.status, lifecycle.stage FROM generate_series(1, 20000) AS n"
            " JOIN (VALUES (true, 'open', 'backlog'), (false, 'closed', 'live')) AS lifecycle (is_open, status, stage)"
            " ON is_open = (n %% 100 = 0)",
            project_id,
            index_terms.search_scope(UUID(project_id)),
        )
        world.run(
            "INSERT INTO handoff_roles (project_id, ticket_id, role, position, assignee_user_id)"
            " SELECT project_id, id, 'backend', 1, CASE WHEN number %% 1000 = 0 THEN %s END FROM handoff_tickets"
            " WHERE project_id = %s",
            user_id,
            project_id,
        )
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE handoff_tickets, handoff_roles")
    return UUID(projects[0]), user_id


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "newest_idx"),
        ({"open": None}, "open_idx"),
        ({"terms": "word17"}, "search_idx"),
        ({"terms_or_number": None, "terms": "17", "number": 17}, "search_idx"),
        ({"assignee": None}, "assignee_idx"),
        ({"milestone": UUID(MILESTONE)}, "milestone_idx"),
        ({"updated_since": "2026-11-01T00:00:00Z"}, "changed_idx"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_list_is_served_by_an_index(
    world: World, large: tuple[UUID, UUID], filters: dict[str, Any], index: str
) -> None:
    project_id, user_id = large
    given = {**filters, **({"assignee": user_id} if "assignee" in filters else {})}
    if "terms" in filters:
        given["terms"] = tsquery(index_terms.search_scope(project_id), filters["terms"])
    names = frozenset(filters) - {"number"} - ({"terms"} if "terms_or_number" in filters else set())
    statement = at_once(list_queries.list_tickets)(names, after=False, of_project=True)
    found = plan(world, statement, project_id=project_id, user_id=user_id, limit=21, **given)
    assert f"handoff_{'roles' if index == 'assignee_idx' else 'tickets'}_{index}" in found, found
    assert "Seq Scan on handoff_tickets" not in found
    assert "Seq Scan on handoff_roles" not in found


@pytest.mark.parametrize("of_project", [True, False], ids=["one project", "all projects"])
def test_the_roles_of_a_listed_ticket_are_read_once(world: World, large: tuple[UUID, UUID], of_project: bool) -> None:
    project_id, user_id = large
    statement = at_once(list_queries.list_tickets)(frozenset(), after=False, of_project=of_project)
    found = plan(world, statement, project_id=project_id, user_id=user_id, limit=21)
    assert len(re.findall("Scan (?:using \\w+ )?on handoff_roles", found)) == 1, found


RARE: dict[str, dict[str, str]] = {
    "a priority of none": {"priority": "high"},
    "a type of none": {"request_type": "decision_needed"},
    "a stage of none": {"stage": "validation"},
    "a role of none": {"role": "devops"},
    "merged, of none": {"ship": "merged"},
    "a word of none": {"q": "nothing"},
    "a common word and one of none": {"q": "title nothing"},
}
# A ticket in a hundred is open, and one in a thousand is somebody's.
FEW: dict[str, dict[str, str]] = {
    "an assignee": {"assignee": "me"},
    "a word": {"q": "word17"},
    "a common and a rare word": {"q": "title word17"},
    "open, of somebody": {"status": "open", "assignee": "me"},
}


def first_rows(world: World, large: tuple[UUID, UUID], query: dict[str, str], *, explain: str = "") -> list[Any]:
    """The ids of the newest of a list, or its plan."""
    project_id, user_id = large
    wanted = ProjectTicketsQuery.model_validate({**query, "limit": "20"})
    filters = {"project_id": project_id, **operations._project_filters(wanted), **operations._filters(user_id, wanted)}
    given = {**filters, **operations._index_terms(filters), "user_id": user_id, "limit": 21}
    names = operations._names(wanted, given) - {"project_id"}
    statement = at_once(list_queries.list_tickets)(names, after=False, of_project=True)
    values = [given[name] if name in given else statement.constants[name] for name in statement.names]
    with psycopg.connect(world.database_url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(b"PREPARE list AS " + statement.sql)
        found = connection.execute(f"{explain} EXECUTE list({', '.join(['%s'] * len(values))})", values)
        return [row[0 if explain else 1] for row in found]


@pytest.mark.parametrize("query", RARE.values(), ids=RARE)
def test_what_is_rare_is_found_without_a_walk_through_everything(
    world: World, large: tuple[UUID, UUID], query: dict[str, str]
) -> None:
    found = "\n".join(first_rows(world, large, query, explain="EXPLAIN (ANALYZE, BUFFERS, TIMING OFF)"))
    read = re.search(r"Buffers: shared((?: (?:hit|read|dirtied|written)=\d+)+)", found)
    assert read is not None, found
    # Four thousand rows lie side by side. All of them are on 600 pages, and in each of many blocks of an index.
    assert sum(map(int, re.findall(r"(?:hit|read)=(\d+)", read[1]))) <= 450, found
    assert re.search(r"Seq Scan on handoff_tickets.*\(actual", found) is None, found


@pytest.mark.parametrize("query", FEW.values(), ids=FEW)
def test_what_is_sorted_is_what_a_walk_finds(
    world: World, large: tuple[UUID, UUID], query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = first_rows(world, large, query)
    assert len(found) >= 20
    monkeypatch.setattr(nearest, "ROWS", 40_000)
    assert first_rows(world, large, query) == found


@pytest.mark.parametrize("after", [{}, {"after_created_at": "2026-01-01T01:00:00Z", "after_id": MILESTONE}])
def test_a_list_that_travels_on_a_lane_is_served_by_an_index(
    world: World, large: tuple[UUID, UUID], after: dict[str, Any]
) -> None:
    project_id, user_id = large
    statement = at_once(list_queries.list_tickets)(frozenset(), after=bool(after), of_project=True, short=True)
    assert statement.is_short
    given = {"project_id": project_id, "user_id": user_id, "limit": 51, **after}
    found = plan(world, statement, mode="force_generic_plan", **given)
    assert "handoff_tickets_newest_idx" in found, found
    assert "Seq Scan on handoff_tickets" not in found
