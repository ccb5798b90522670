"""contracts/helpdesk.md at both transports: the comments of a ticket and its history, page by page."""

import asyncio
from typing import Any

import pytest
from support.helpdesk import TICKET, Transport, close, create, new_tenant_id, update
from support.helpdesk_calls import ALL, edit, events, page, write_comment
from support.system import Credential, World


async def walk(transport: Transport, person: Credential, ticket: Any, member: str, limit: int) -> list[list[Any]]:
    """The pages of a ticket's comments or events, to the last."""
    pages, query = list[list[Any]](), {"limit": limit}
    while query.get("cursor", "") is not None:
        answer = (await page(transport, person, ticket, member, **query)).succeeded()
        pages.append(answer[member])
        query["cursor"] = answer["next_cursor"]
    return pages


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (100, [5])])
async def test_comments_and_events_come_in_pages_oldest_first(
    transport: Transport, world: World, limit: int, sizes: list[int]
) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    written = [await write_comment(transport, person, made, body=f"{n}", internal=n % 2 == 1) for n in range(5)]
    pages = await walk(transport, person, made, "comments", limit)
    assert [len(found) for found in pages] == sizes
    assert [comment for found in pages for comment in found] == written
    history = [event for found in await walk(transport, person, made, "events", limit) for event in found]
    assert [event["version"] for event in history] == [1, 2, 3, 4, 5, 6]
    assert history == await events(transport, person, made)


async def test_comments_of_one_instant_are_each_listed_once(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    written = [await write_comment(transport, person, made) for _ in range(5)]
    instant = written[0]["created_at"]
    world.run("UPDATE helpdesk_comments SET created_at = %s WHERE ticket_id = %s", instant, made["id"])
    found = [comment["id"] for comments in await walk(transport, person, made, "comments", 2) for comment in comments]
    assert found == sorted(comment["id"] for comment in written)


async def test_pages_without_internal_comments_are_full_and_end_correctly(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made = await create(transport, submitter)
    for internal in (True, False, True, True, False, False, True):
        await write_comment(transport, agent, made, internal=internal)
    pages = await walk(transport, submitter, made, "comments", 2)
    assert [[comment["internal"] for comment in found] for found in pages] == [[False, False], [False]]
    pages = await walk(transport, submitter, made, "events", 2)
    assert [[event["version"] for event in found] for found in pages] == [[1, 2], [3, 4]]
    assert [len(found) for found in await walk(transport, agent, made, "comments", 3)] == [3, 3, 1]


async def test_a_page_has_20_by_default_and_at_most_100(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    for member in ("comments", "events"):
        for limit in (0, -1, 101):
            reply = await page(transport, person, made, member, limit=limit)
            reply.failed("validation_error", paths=["limit"])
    await asyncio.gather(*(write_comment(transport, person, made) for _ in range(21)))
    for member, more in (("comments", 1), ("events", 2)):
        first = (await page(transport, person, made, member)).succeeded()
        assert len(first[member]) == 20
        rest = (await page(transport, person, made, member, cursor=first["next_cursor"])).succeeded()
        assert (len(rest[member]), rest["next_cursor"]) == (more, None)


@pytest.mark.parametrize("member", ["comments", "events"])
async def test_a_cursor_is_valid_only_for_its_ticket_and_its_readers(
    transport: Transport, world: World, member: str
) -> None:
    tenant_id = new_tenant_id()
    agent = world.person(*ALL, tenant_id=tenant_id)
    made, other = [await create(transport, agent) for _ in range(2)]
    for ticket in (made, other):
        for _ in range(2):
            await write_comment(transport, agent, ticket)
    cursor = (await page(transport, agent, made, member, limit=1)).succeeded()["next_cursor"]
    colleague = world.person("agent", tenant_id=tenant_id, sub="per_2")
    assert (await page(transport, colleague, made, member, cursor=cursor)).succeeded()[member]
    reader = world.person("read", tenant_id=tenant_id)
    for person, ticket, wrong in (
        (agent, other, cursor),
        # Readers who are not agents see another list.
        (reader, made, cursor),
        (agent, made, "x"),
        (agent, made, ""),
        (agent, made, cursor[:-1]),
    ):
        (await page(transport, person, ticket, member, cursor=wrong)).failed("validation_error", paths=["cursor"])


async def test_a_history_has_every_kind_of_change(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    path = {"id": made["id"]}
    comment = await write_comment(transport, person, made)
    (await edit(transport, person, comment)).succeeded()
    (await update(transport, person, made, title="New", tags=["vpn"])).succeeded()
    (await close(transport, person, made, {"resolution_note": "Done"})).succeeded()
    (await update(transport, person, made, status="open")).succeeded()
    for operation in ("helpdesk.delete", "helpdesk.restore"):
        (await transport.call(operation, person, path=path)).succeeded()
    history = await events(transport, person, made)
    assert [event["type"].removeprefix("ticket.") for event in history] == [
        *("created", "commented", "comment_edited", "updated", "closed", "reopened", "deleted", "restored")
    ]
    assert [event["version"] for event in history] == list(range(1, 9))
    assert all(set(event) == {*history[0]} for event in history)
    assert (history[0]["tenant_id"], history[0]["ticket_id"]) == (made["tenant_id"], made["id"])
    assert history[0]["changes"] == {}
    assert history[3]["changes"] == {
        "title": {"from": TICKET["title"], "to": "New"},
        "tags": {"from": [], "to": ["vpn"]},
    }
    assert history[4]["changes"]["resolution_note"] == {"from": None, "to": "Done"}
