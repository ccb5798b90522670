"""contracts/helpdesk.md at both transports: lists and their cursors."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.helpdesk import Transport, create, new_tenant_id
from support.system import Credential, World
from support.transports import Grpc, Reply, Rest


async def page(transport: Transport, person: Credential, **query: Any) -> Reply:
    return await transport.call("helpdesk.list", person, query=query)


async def pages(transport: Transport, person: Credential, limit: int) -> AsyncIterator[Any]:
    """The tickets of each page, to the last."""
    query: dict[str, Any] = {"limit": limit}
    for _ in range(10):
        answer = (await page(transport, person, **query)).succeeded()
        assert set(answer) == {"tickets", "next_cursor"}
        yield answer["tickets"]
        query["cursor"] = answer["next_cursor"]
        if query["cursor"] is None:
            return
    raise AssertionError("No list here has so many pages")


async def cursor_of(transport: Transport, person: Credential, **query: Any) -> str:
    """A cursor into a list that has at least two tickets."""
    cursor = (await page(transport, person, limit=1, **query)).succeeded()["next_cursor"]
    assert isinstance(cursor, str)
    return cursor


async def test_a_list_is_newest_first_and_has_whole_tickets(transport: Transport, world: World) -> None:
    person = world.person("read", "write", "agent", app_id="app_1")
    assert (await page(transport, person)).succeeded() == {"tickets": [], "next_cursor": None}
    made = [await create(transport, person, tags={"n": n}, due_at="2030-01-01T00:00:00Z") for n in range(3)]
    assert (await page(transport, person)).succeeded() == {"tickets": made[::-1], "next_cursor": None}
    path = {"id": made[0]["id"]}
    changed = (await transport.call("helpdesk.update", person, path=path, body={"title": "New"})).succeeded()
    assert (await page(transport, person)).succeeded()["tickets"] == [made[2], made[1], changed]


async def test_a_ticket_without_an_application_has_no_such_key_in_a_list(rest: Rest, world: World) -> None:
    person = world.person("read", "write")
    await create(rest, person)
    assert "app_id" not in (await page(rest, person)).succeeded()["tickets"][0]


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (4, [4, 1]), (5, [5]), (6, [5]), (100, [5])]
)
async def test_pages_follow_each_other_to_the_end(
    transport: Transport, world: World, limit: int, sizes: list[int]
) -> None:
    person = world.person("read", "write")
    made = [await create(transport, person) for _ in range(5)]
    walked = [tickets async for tickets in pages(transport, person, limit)]
    assert [len(tickets) for tickets in walked] == sizes
    assert [ticket for tickets in walked for ticket in tickets] == made[::-1]


async def test_a_page_has_20_tickets_by_default_and_at_most_100(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "write", tenant_id=tenant_id)
    await create(transport, person)
    world.run(
        "INSERT INTO helpdesk_tickets (tenant_id, id, number, title, type, status, priority, submitted_by_id, tags,"
        " source, source_type, created_by, updated_by) SELECT tenant_id, 'tkt_' || lpad(n::text, 26, '0'), n, title,"
        " type, status, priority, submitted_by_id, tags, source, source_type, created_by, updated_by"
        " FROM helpdesk_tickets, generate_series(2, 101) n WHERE tenant_id = %s",
        tenant_id,
    )
    for query, size in (({}, 20), ({"limit": 100}, 100)):
        answer = (await page(transport, person, **query)).succeeded()
        assert (len(answer["tickets"]), answer["next_cursor"] is None) == (size, False)
    rest = (await page(transport, person, limit=100, cursor=answer["next_cursor"])).succeeded()
    assert (len(rest["tickets"]), rest["next_cursor"]) == (1, None)


@pytest.mark.parametrize("limit", [0, -1, 101, 2**31 - 1])
async def test_limits_out_of_range_are_rejected(transport: Transport, world: World, limit: int) -> None:
    (await page(transport, world.person("read"), limit=limit)).failed("validation_error", paths=["limit"])


@pytest.mark.parametrize("limit", ["", "ten", "1.5", "1e1", "0x10", "2 0", "9" * 400])
async def test_a_limit_is_a_whole_number(rest: Rest, world: World, limit: str) -> None:
    (await page(rest, world.person("read"), limit=limit)).failed("validation_error", paths=["limit"])


async def test_every_problem_of_a_query_is_reported(transport: Transport, world: World) -> None:
    reply = await page(transport, world.person("read"), limit=0, cursor="x")
    assert "limit" in [issue["path"] for issue in reply.failed("validation_error")["issues"]]


# Cursors


async def test_pages_are_stable_while_tickets_are_created(transport: Transport, world: World) -> None:
    person = world.person("read", "write")
    made = [await create(transport, person) for _ in range(5)]
    walked = []
    async for tickets in pages(transport, person, 2):
        walked += tickets
        await create(transport, person)
    assert walked == made[::-1]


async def test_a_cursor_survives_the_deletion_or_change_of_its_ticket(transport: Transport, world: World) -> None:
    person = world.person("read", "write")
    made = [await create(transport, person) for _ in range(5)]
    walk = pages(transport, person, 2)
    assert await anext(walk) == [made[4], made[3]]
    world.run("UPDATE helpdesk_tickets SET is_deleted = true WHERE id IN (%s, %s)", made[3]["id"], made[1]["id"])
    changed = await transport.call("helpdesk.update", person, path={"id": made[2]["id"]}, body={"title": "New"})
    assert await anext(walk) == [changed.succeeded(), made[0]]
    assert [tickets async for tickets in walk] == []


async def test_tickets_of_one_instant_are_each_listed_once(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "write", tenant_id=tenant_id)
    made = [await create(transport, person) for _ in range(5)]
    world.run("UPDATE helpdesk_tickets SET created_at = %s WHERE tenant_id = %s", made[0]["created_at"], tenant_id)
    walked = [ticket["id"] async for tickets in pages(transport, person, 2) for ticket in tickets]
    assert walked == sorted((ticket["id"] for ticket in made), reverse=True)


async def test_an_application_pages_through_its_own_tickets(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    one, two = (world.person("read", "write", tenant_id=tenant_id, app_id=app_id) for app_id in ("app_1", "app_2"))
    made = [await create(transport, credential) for credential in (one, two, one, two, one)]
    walked = [ticket async for tickets in pages(transport, one, 1) for ticket in tickets]
    assert walked == [made[4], made[2], made[0]]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda cursor: "",
        lambda cursor: "x",
        lambda cursor: "null",
        lambda cursor: "é",
        lambda cursor: "20",
        lambda cursor: "x" * 3_000,
        lambda cursor: cursor[:-1],
        lambda cursor: cursor[1:],
        lambda cursor: cursor + "A",
        lambda cursor: cursor + "=",
        lambda cursor: cursor + " ",
        lambda cursor: cursor[:20],
        lambda cursor: cursor.swapcase(),
        lambda cursor: ("B" if cursor[0] == "A" else "A") + cursor[1:],
        lambda cursor: cursor[:30] + ("B" if cursor[30] == "A" else "A") + cursor[31:],
        lambda cursor: cursor * 2,
    ],
)
async def test_a_tampered_cursor_is_rejected(transport: Transport, world: World, tamper: Any) -> None:
    person = world.person("read", "write")
    for _ in range(2):
        await create(transport, person)
    reply = await page(transport, person, cursor=tamper(await cursor_of(transport, person)))
    reply.failed("validation_error", paths=["cursor"])


async def test_every_changed_character_invalidates_a_cursor(rpc: Grpc, world: World) -> None:
    person = world.person("read", "write")
    for _ in range(2):
        await create(rpc, person)
    cursor = await cursor_of(rpc, person)
    for position, character in enumerate(cursor):
        tampered = cursor[:position] + ("B" if character == "A" else "A") + cursor[position + 1 :]
        (await page(rpc, person, cursor=tampered)).failed("validation_error", paths=["cursor"])
    (await page(rpc, person, cursor="\0")).failed("validation_error", paths=["cursor"])


async def test_a_cursor_is_valid_only_for_its_own_list(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "write", tenant_id=tenant_id)
    one, two = (world.person("read", "write", tenant_id=tenant_id, app_id=app_id) for app_id in ("app_1", "app_2"))
    stranger = world.person("read", "write")
    lists = [person, one, two, stranger]
    for credential in lists:
        for _ in range(2):
            await create(transport, credential)
    cursors = [await cursor_of(transport, credential) for credential in lists]
    for reader, credential in enumerate(lists):
        for owner, cursor in enumerate(cursors):
            reply = await page(transport, credential, cursor=cursor)
            if reader == owner:
                reply.succeeded()
            else:
                reply.failed("validation_error", paths=["cursor"])


async def test_a_cursor_is_valid_for_everyone_who_sees_the_same_list(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("write", "read_all", tenant_id=tenant_id)
    made = [await create(transport, person) for _ in range(2)]
    colleague = world.person("agent", tenant_id=tenant_id, sub="per_2")
    answer = (await page(transport, colleague, cursor=await cursor_of(transport, person))).succeeded()
    assert answer == {"tickets": [made[0]], "next_cursor": None}


async def test_a_cursor_of_another_api_is_rejected(transport: Transport, world: World) -> None:
    project_id = await world.project()
    member = await world.member(project_id)
    body = {"title": "x", "description": "x", "request_type": "bug", "roles": ["backend"]}
    for _ in range(2):
        (await transport.call("handoff.create", member, path={"project_id": project_id}, body=body)).succeeded(201)
    cursor = (await transport.call("handoff.list", member, query={"limit": 1})).succeeded()["next_cursor"]
    assert cursor
    (await page(transport, world.person("read"), cursor=cursor)).failed("validation_error", paths=["cursor"])
