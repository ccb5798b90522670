"""contracts/handoff.md at both transports: lists of tickets, complete and in pages."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from support.handoff import (
    MEMBERS,
    NOTHING_YET,
    ROLE_NOTHING_YET,
    Transport,
    created,
    has_members,
    listed,
    member_of,
    new_project,
)
from support.system import World
from support.transports import Grpc, Rest


async def test_rows_of_a_list_carry_the_ticket_and_the_extras(transport: Transport, world: World) -> None:
    user_id = str(uuid4())
    repos = {"backend_repo": "acme/api", "frontend_repo": "acme/web"}
    one, two = await world.project(name="One", **repos), await world.project(name="Two")
    who = await world.member(one, "triager", user_id)
    await world.member(two, "member", user_id)
    made = [
        await created(transport, who, project_id, description=f"{project_id}\nMore.") for project_id in (one, two, one)
    ]
    rows = await listed(transport, who)
    # Newest first across projects; every row is the ticket of the creation's answer with its summary.
    assert rows == [{**ticket, "summary": ticket["project_id"]} for ticket in made[::-1]]
    assert all(has_members(transport, row, {*MEMBERS, "summary"}) for row in rows)
    # Each row has the data of its own project and of the caller's role in it.
    extras = [(row["project_name"], row["can_triage"], row["backend_repo"], row["frontend_repo"]) for row in rows]
    assert extras == [("One", True, *repos.values()), ("Two", False, None, None), ("One", True, *repos.values())]


async def test_slim_rows_have_no_description(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    await created(transport, who, project_id)
    [whole] = await listed(transport, who)
    [slim] = await listed(transport, who, slim=1 if transport.name == "rest" else True)
    assert has_members(transport, slim, {*MEMBERS, "summary"} - {"description"})
    assert {**slim, "description": whole["description"]} == whole
    assert slim["summary"] == "Since nine."
    assert await listed(transport, who, slim=0 if transport.name == "rest" else False) == [whole]


async def test_a_list_shows_later_changes(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    made = await created(transport, who, project_id)

    def set_in(table: str, key: str, values: Mapping[str, Any]) -> None:
        columns = ", ".join(f"{name} = %s" for name in values)
        world.run(f"UPDATE {table} SET {columns} WHERE {key} = %s", *values.values(), made["id"])

    since = {**NOTHING_YET, "status": "closed", "stage": "live"}
    set_in("handoff_tickets", "id", since)
    part = {**ROLE_NOTHING_YET, "status": "done", "updated_at": "2026-02-21T16:00:01Z"}
    set_in("handoff_roles", "ticket_id", part)
    [row] = await listed(transport, who)
    assert row == {**made, **since, "roles": [{**made["roles"][0], **part}], "summary": "Since nine."}


def fill(world: World, project_id: str, count: int) -> list[str]:
    """Insert so many tickets without roles into a project, ten at each instant; returns their ids, newest first."""
    rows = world.rows(
        "INSERT INTO handoff_tickets (project_id, number, source, title, description, request_type, priority, blocking,"
        " actor_role, actor_id, created_at) SELECT %s, n, 'portal', 'Title', 'Text', 'bug', 'low', false, 'user', 'x',"
        " timestamptz '2026-01-01Z' + (n / 10) * interval '1 second' FROM generate_series(1, %s) AS n"
        " RETURNING created_at, id::text",
        project_id,
        count,
    )
    return [ticket_id for _, ticket_id in sorted(rows, reverse=True)]


async def test_the_list_is_complete_however_many_there_are(rest: Rest, world: World) -> None:
    project_id, who = await new_project(world, "viewer")
    assert (await rest.call("handoff.list", who)).succeeded() == {"tickets": []}
    ids = fill(world, project_id, 600)
    for query in ({}, {"slim": 1}):
        body = (await rest.call("handoff.list", who, query=query)).succeeded()
        assert set(body) == {"tickets"}
        assert [ticket["id"] for ticket in body["tickets"]] == ids
        assert {"description" in ticket for ticket in body["tickets"]} == {not query}
        assert {str(ticket["roles"]) for ticket in body["tickets"]} == {"[]"}


async def test_a_list_of_one_project_has_a_thousand_and_goes_on(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world, "viewer")
    ids, path = fill(world, project_id, 2050), {"project_id": project_id}
    for query, expected in (
        ({}, ids[:1000]),
        ({"limit": 2000}, ids[:2000]),
        ({"limit": 251, "offset": 1000}, ids[1000:1251]),
        ({"offset": 1100}, ids[1100:]),
        ({"offset": 2050}, []),
        ({"offset": 2**63 - 1}, []),
    ):
        body = (await transport.call("handoff.project", who, path=path, query=query)).succeeded()
        found = [ticket["id"] for ticket in body["tickets"]]
        assert found == expected
        assert (body["next_cursor"] is None) == (not found or found[-1] == ids[-1])
        if body["next_cursor"] is not None:
            after = {"cursor": body["next_cursor"], "limit": 1}
            [following] = (await transport.call("handoff.project", who, path=path, query=after)).succeeded()["tickets"]
            assert following["id"] == ids[ids.index(found[-1]) + 1]


@pytest.mark.parametrize("limit", [40, 124, 125, 249, 250, 1000])
async def test_pages_hold_each_ticket_once_and_in_order(transport: Transport, world: World, limit: int) -> None:
    projects = [await world.project(), await world.project()]
    who = await member_of(world, *projects)
    fill(world, projects[0], 200)
    fill(world, projects[1], 50)
    expected = world.rows(
        "SELECT id::text FROM handoff_tickets WHERE project_id = ANY(%s::uuid[]) ORDER BY created_at DESC, id DESC",
        projects,
    )
    pages, query = [], {"limit": limit}
    while True:
        body = (await transport.call("handoff.list", who, query=query)).succeeded()
        assert set(body) == {"tickets", "next_cursor"}
        pages.append([ticket["id"] for ticket in body["tickets"]])
        if body["next_cursor"] is None:
            break
        query["cursor"] = body["next_cursor"]
    assert [len(page) for page in pages[:-1]] == [limit] * ((250 - 1) // limit)
    assert [ticket_id for page in pages for ticket_id in page] == [ticket_id for (ticket_id,) in expected]


async def test_a_page_without_limit_has_100(rest: Rest, rpc: Grpc, world: World) -> None:
    project_id, who = await new_project(world)
    ids = fill(world, project_id, 210)
    first = (await rpc.call("handoff.list", who)).succeeded()
    assert [ticket["id"] for ticket in first["tickets"]] == ids[:100]
    # A cursor alone asks for a page over REST too, and each transport accepts the cursors of the other.
    for transport in (rest, rpc):
        second = (await transport.call("handoff.list", who, query={"cursor": first["next_cursor"]})).succeeded()
        assert [ticket["id"] for ticket in second["tickets"]] == ids[100:200]
        last = (await transport.call("handoff.list", who, query={"cursor": second["next_cursor"]})).succeeded()
        assert ([ticket["id"] for ticket in last["tickets"]], last["next_cursor"]) == (ids[200:], None)


async def test_tickets_of_a_former_project_are_in_no_list(transport: Transport, world: World) -> None:
    projects = [await world.project(), await world.project()]
    who = await member_of(world, *projects)
    kept, *_ = [fill(world, project_id, 5) for project_id in projects]
    cursor = (await transport.call("handoff.list", who, query={"limit": 2})).succeeded()["next_cursor"]
    world.run("DELETE FROM project_members WHERE project_id = %s", projects[1])
    assert [ticket["id"] for ticket in await listed(transport, who)] == kept
    assert {ticket["project_id"] for ticket in await listed(transport, who, cursor=cursor)} == {projects[0]}


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ({"limit": 0}, ["limit"]),
        ({"limit": 1001}, ["limit"]),
        ({"limit": -1}, ["limit"]),
        ({"cursor": "abc"}, ["cursor"]),
        ({"cursor": ""}, ["cursor"]),
        ({"limit": 0, "cursor": "é"}, ["limit"]),
    ],
    ids=str,
)
async def test_invalid_pages_are_refused(transport: Transport, world: World, query: Any, paths: list[str]) -> None:
    who = await world.member(await world.project())
    (await transport.call("handoff.list", who, query=query)).failed("validation_error", paths=paths)


@pytest.mark.parametrize(("name", "value"), [("slim", "maybe"), ("limit", "ten"), ("limit", ""), ("limit", "1.5")])
async def test_a_query_of_the_wrong_type_is_refused(rest: Rest, world: World, name: str, value: str) -> None:
    who = await world.member(await world.project())
    (await rest.call("handoff.list", who, query={name: value})).failed("validation_error", paths=[name])


async def test_a_cursor_is_valid_only_for_its_list(transport: Transport, world: World) -> None:
    project_id = await world.project()
    who, colleague = await world.member(project_id), await world.member(project_id)
    fill(world, project_id, 3)
    cursor = (await transport.call("handoff.list", who, query={"limit": 1})).succeeded()["next_cursor"]
    assert len(await listed(transport, who, cursor=cursor)) == 2
    for credential, wrong in ((colleague, cursor), (who, cursor[:-1]), (who, cursor + "A"), (who, cursor[::-1])):
        reply = await transport.call("handoff.list", credential, query={"cursor": wrong})
        reply.failed("validation_error", paths=["cursor"])
