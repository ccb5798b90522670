"""contracts/helpdesk.md at both doors: comments, what is internal, histories and watches, and whose each of them is."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import product
from typing import Any
from uuid import uuid4

import grpc
import pytest
from desk import TICKET, Door, close, create, get, update
from harness import Grpc, Reply, Rest, _documented, _grpc_failure, rest_reply
from system import Credential, World
from tickets.helpdesk.v1 import service_pb2

ALL = ("read", "write", "agent")
MISSING = "tkt_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MISSING_COMMENT = "cmt_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MISMATCH = "Idempotency key reused with a different payload"
PATIENCE = 10.0

Message = dict[str, Any]


def tenant() -> str:
    return f"ten_{uuid4().hex}"


async def say(door: Door, person: Credential, ticket: Any, key: str | None = None, **members: Any) -> Reply:
    headers = {} if key is None else {"idempotency-key": key}
    body = {"body": "x", **members}
    return await door.call("helpdesk.comment", person, path={"id": ticket["id"]}, body=body, headers=headers)


async def said(door: Door, person: Credential, ticket: Any, **members: Any) -> Any:
    return (await say(door, person, ticket, **members)).succeeded(201)


async def edit(door: Door, person: Credential, comment: Any, body: str = "y") -> Reply:
    path = {"id": comment["ticket_id"], "comment_id": comment["id"]}
    return await door.call("helpdesk.edit", person, path=path, body={"body": body})


async def page(door: Door, person: Credential, ticket: Any, member: str, **query: Any) -> Reply:
    return await door.call(f"helpdesk.{member}", person, path={"id": ticket["id"]}, query=query)


async def comments(door: Door, person: Credential, ticket: Any) -> list[Any]:
    answer = (await page(door, person, ticket, "comments", limit=100)).succeeded()
    assert set(answer) == {"comments", "next_cursor"}
    found: list[Any] = answer["comments"]
    return found


async def events(door: Door, person: Credential, ticket: Any) -> list[Any]:
    answer = (await page(door, person, ticket, "events", limit=100)).succeeded()
    assert set(answer) == {"events", "next_cursor"}
    found: list[Any] = answer["events"]
    return found


async def walk(door: Door, person: Credential, ticket: Any, member: str, limit: int) -> list[list[Any]]:
    """The pages of a ticket's comments or events, to the last."""
    pages, query = list[list[Any]](), {"limit": limit}
    while query.get("cursor", "") is not None:
        answer = (await page(door, person, ticket, member, **query)).succeeded()
        pages.append(answer[member])
        query["cursor"] = answer["next_cursor"]
    return pages


# Watches


@asynccontextmanager
async def watching(
    door: Door, who: Credential, cursor: str | None = None
) -> AsyncIterator[AsyncIterator[Message | Reply]]:
    """What somebody who watches is told, as it comes; or a reply that refuses it."""
    query = {} if cursor is None else {"cursor": cursor}
    told = _lines(door, who, query) if isinstance(door, Rest) else _messages(door, who, query)
    async with aclosing(told) as stream, asyncio.timeout(PATIENCE):
        yield stream


async def _lines(door: Rest, who: Credential, query: dict[str, str]) -> AsyncGenerator[Message | Reply, None]:
    url = "/api/v1/helpdesk/events"
    async with door.client.stream("GET", url, params=query, headers=dict(who)) as response:
        if response.status_code != 200:
            await response.aread()
            yield rest_reply("helpdesk", response)
            return
        assert response.headers["content-type"] == "application/x-ndjson"
        async for line in response.aiter_lines():
            message = json.loads(line)
            assert set(message) == {"event", "cursor"}
            yield message


async def _messages(door: Grpc, who: Credential, query: dict[str, str]) -> AsyncGenerator[Message | Reply, None]:
    stream = door.channel.unary_stream(
        "/tickets.helpdesk.v1.TicketService/WatchTickets",
        request_serializer=service_pb2.WatchTicketsRequest.SerializeToString,
        response_deserializer=service_pb2.WatchTicketsResponse.FromString,
    )
    call: Any = stream(service_pb2.WatchTicketsRequest(**query), metadata=tuple(who.items()))
    try:
        async for message in call:
            yield _documented(message)
    except grpc.aio.AioRpcError as error:
        yield _grpc_failure("helpdesk", error)
    finally:
        call.cancel()


async def next_of(stream: AsyncIterator[Message | Reply]) -> Message:
    message = await anext(stream)
    assert isinstance(message, dict), f"{message.status}: {message.body}"
    return message


async def next_event(stream: AsyncIterator[Message | Reply]) -> Any:
    while (message := await next_of(stream))["event"] is None:
        pass
    return message["event"]


async def begun(door: Door, who: Credential) -> str:
    """The cursor of a watch that begins now."""
    async with watching(door, who) as stream:
        first = await next_of(stream)
    assert first["event"] is None
    return str(first["cursor"])


async def refused(door: Door, who: Credential, reason: str, cursor: str | None = None) -> None:
    async with watching(door, who, cursor) as stream:
        reply = await anext(stream)
    assert isinstance(reply, Reply)
    reply.failed(reason, paths=["cursor"] if reason == "validation_error" else None)


async def told(door: Door, who: Credential, cursor: str, last: Any) -> list[Any]:
    """The events behind a cursor, up to the creation of the ticket `last`, which ends it."""
    found = list[Any]()
    async with watching(door, who, cursor) as stream:
        while (event := await next_event(stream))["ticket_id"] != last["id"]:
            found.append(event)
    return found


# Comments


async def test_a_comment_is_told_whole(door: Door, world: World) -> None:
    person = world.person("read", "write", sub="per_7", app_id="app_1")
    made = await create(door, person)
    comment = await said(door, person, made, body="**Zoë** said: \U0001f600\n")
    assert re.fullmatch(r"cmt_[0-9A-HJKMNP-TV-Z]{26}", comment["id"])
    assert comment == {
        "id": comment["id"],
        "ticket_id": made["id"],
        "body": "**Zoë** said: \U0001f600\n",
        "internal": False,
        "author_id": "per_7",
        "created_at": comment["created_at"],
        "updated_at": None,
    }
    assert comment["created_at"] > made["created_at"]
    assert await comments(door, person, made) == [comment]
    other = (await say(door, person, {"id": made["number"]}, body="By number")).succeeded(201)
    assert other["ticket_id"] == made["id"]
    assert await comments(door, person, {"id": made["number"]}) == [comment, other]


async def test_a_comment_is_a_change_of_the_ticket_and_of_nothing_else_in_it(door: Door, world: World) -> None:
    tenant_id = tenant()
    person = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made = await create(door, person, status="closed", tags={"a": 1})
    comment = await said(door, agent, made, internal=True)
    now = await get(door, person, made)
    assert now == {**made, "updated_at": comment["created_at"], "updated_by": "per_agent"}
    [_, event] = await events(door, agent, made)
    told = {"comment": {"from": None, "to": {"id": comment["id"], "internal": True}}}
    assert (event["type"], event["version"], event["actor"]) == ("ticket.commented", 2, "per_agent")
    assert event["changes"] == told
    assert event["request_id"]


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"body": ""}, ["body"]),
        ({"body": "a\0b"}, ["body"]),
        ({"body": "é" * 65_537}, ["body"]),
    ],
    ids=["empty", "nul", "long"],
)
async def test_comments_out_of_bounds_are_refused(door: Door, world: World, body: Any, paths: list[str]) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    comment = await said(door, person, made)
    (await say(door, person, made, **body)).failed("validation_error", paths=paths)
    (await edit(door, person, comment, **body)).failed("validation_error", paths=paths)
    assert await comments(door, person, made) == [comment]
    assert len(await events(door, person, made)) == 2


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"", None),
        (b"{", ["body"]),
        (b"[]", None),
        (b"{}", ["body"]),
        (b'{"body":null}', ["body"]),
        (b'{"body":17}', ["body"]),
        (b'{"body":"x","internal":"true"}', ["internal"]),
        (b'{"body":"x","internal":1}', ["internal"]),
        (b'{"body":"x","internal":null}', ["internal"]),
        (b"\xff", ["body"]),
    ],
)
async def test_bodies_that_are_no_comment_are_refused(rest: Rest, world: World, content: bytes, paths: Any) -> None:
    person = world.person(*ALL)
    made = await create(rest, person)
    headers = {**person, "content-type": "application/json"}
    answer = await rest.client.post(f"/api/v1/helpdesk/tickets/{made['id']}/comments", content=content, headers=headers)
    rest_reply("helpdesk", answer).failed("validation_error", paths=paths)
    assert await comments(rest, person, made) == []


async def test_the_longest_comment_is_kept(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    comment = await said(door, person, made, body="é" * 65_536)
    changed = (await edit(door, person, comment, "ü" * 65_536)).succeeded()
    assert (await comments(door, person, made)) == [changed]
    assert changed["body"] == "ü" * 65_536


@pytest.mark.parametrize(
    ("sub", "scopes", "internal", "reason"),
    [
        ("per_submitter", ("write",), False, None),
        ("per_submitter", ("write",), True, "forbidden"),
        ("per_submitter", ("agent",), True, None),
        ("per_other", ("agent",), False, None),
        ("per_other", ("agent",), True, None),
        ("per_other", ("read", "write"), False, "forbidden"),
        ("per_other", ("read", "write"), True, "forbidden"),
        ("per_assigned", ("read", "write"), False, "forbidden"),
        ("per_creator", ("read", "write"), False, "forbidden"),
        ("per_submitter", ("read",), False, "missing_scope"),
    ],
)
async def test_who_may_comment(
    door: Door, world: World, sub: str, scopes: tuple[str, ...], internal: bool, reason: str | None
) -> None:
    tenant_id = tenant()
    creator = world.person(*ALL, tenant_id=tenant_id, sub="per_creator")
    made = await create(door, creator, submitted_by_id="per_submitter", assigned_to_id="per_assigned")
    reply = await say(door, world.person(*scopes, tenant_id=tenant_id, sub=sub), made, internal=internal)
    if reason is None:
        assert await comments(door, creator, made) == [reply.succeeded(201)]
        assert (reply.body["internal"], reply.body["author_id"]) == (internal, sub)
    else:
        reply.failed(reason)
        assert await comments(door, creator, made) == []
        assert await get(door, creator, made) == made


# The first response


async def test_the_first_public_word_of_an_agent_who_did_not_submit_is_the_first_response(
    door: Door, world: World
) -> None:
    tenant_id = tenant()
    submitter = world.person(*ALL, tenant_id=tenant_id, sub="per_submitter")
    plain = world.person("write", tenant_id=tenant_id, sub="per_submitter")
    agents = [world.person("agent", tenant_id=tenant_id, sub=sub) for sub in ("per_a", "per_b")]
    made = await create(door, plain)
    for person, internal in ((plain, False), (submitter, False), (submitter, True), (agents[0], True)):
        await said(door, person, made, internal=internal)
        assert (await get(door, submitter, made))["first_response_at"] is None
    # What is no comment is no response.
    (await update(door, agents[0], made, status="in_progress")).succeeded()
    assert (await get(door, submitter, made))["first_response_at"] is None
    first = await said(door, agents[0], made)
    assert (await get(door, submitter, made))["first_response_at"] == first["created_at"]
    for person in (*agents, plain):
        await said(door, person, made)
    (await edit(door, agents[0], first)).succeeded()
    (await close(door, agents[0], made)).succeeded()
    assert (await get(door, submitter, made))["first_response_at"] == first["created_at"]


async def test_an_application_with_the_agents_scope_responds_too(door: Door, world: World) -> None:
    tenant_id = tenant()
    application = world.person("write", "agent", tenant_id=tenant_id, app_id="app_1", sub="app_1")
    made = await create(door, application, submitted_by_id="per_1")
    comment = await said(door, application, made)
    assert (await get(door, application, made))["first_response_at"] == comment["created_at"]


async def test_of_many_first_responses_one_counts(door: Door, world: World) -> None:
    tenant_id = tenant()
    made = await create(door, world.person("write", tenant_id=tenant_id))
    agents = [world.person("agent", tenant_id=tenant_id, sub=f"per_a{n}") for n in range(8)]
    instants = [
        comment["created_at"] for comment in await asyncio.gather(*(said(door, agent, made) for agent in agents))
    ]
    assert (await get(door, agents[0], made))["first_response_at"] in instants
    assert [event["version"] for event in await events(door, agents[0], made)] == list(range(1, 10))


# Editing


async def test_an_edit_changes_the_body_and_is_told_in_the_history(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    other, comment = [await said(door, person, made) for _ in range(2)]
    changed = (await edit(door, person, comment)).succeeded()
    assert changed["updated_at"] > comment["created_at"]
    assert changed == {**comment, "body": "y", "updated_at": changed["updated_at"]}
    assert await comments(door, person, made) == [other, changed]
    assert (await get(door, person, made))["updated_at"] == changed["updated_at"]
    event = (await events(door, person, made))[-1]
    told = {"from": {"id": comment["id"], "body": "x"}, "to": {"id": comment["id"], "body": "y"}}
    assert (event["type"], event["version"], event["changes"]) == ("ticket.comment_edited", 4, {"comment": told})
    # As it is already, nothing is changed.
    assert (await edit(door, person, comment)).succeeded() == changed
    assert len(await events(door, person, made)) == 4
    again = (await edit(door, person, comment, "z")).succeeded()
    assert again["updated_at"] > changed["updated_at"]
    path = {"id": made["number"], "comment_id": comment["id"]}
    by_number = await door.call("helpdesk.edit", person, path=path, body={"body": "by number"})
    assert by_number.succeeded()["ticket_id"] == made["id"]


async def test_only_its_author_edits_a_comment(door: Door, world: World) -> None:
    tenant_id = tenant()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agents = [world.person("agent", tenant_id=tenant_id, sub=sub) for sub in ("per_a", "per_b")]
    made = await create(door, submitter)
    of_submitter, of_agent = await said(door, submitter, made), await said(door, agents[0], made)
    for person, comment in ((submitter, of_agent), (agents[1], of_agent), (agents[0], of_submitter)):
        (await edit(door, person, comment)).failed("forbidden")
    (await edit(door, world.person("read", tenant_id=tenant_id), of_submitter)).failed("missing_scope")
    assert await comments(door, agents[0], made) == [of_submitter, of_agent]
    # Who wrote it may edit it when they are no agent any more.
    (await edit(door, world.person("write", tenant_id=tenant_id, sub="per_a"), of_agent)).succeeded()


async def test_an_internal_comment_is_there_for_agents_alone(door: Door, world: World) -> None:
    tenant_id = tenant()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agents = [world.person("agent", tenant_id=tenant_id, sub=sub) for sub in ("per_a", "per_b")]
    made = await create(door, submitter)
    comment = await said(door, agents[0], made, internal=True)
    missing = await edit(door, submitter, {**comment, "id": MISSING_COMMENT})
    missing.failed("not_found")
    for person in (submitter, world.person("write", tenant_id=tenant_id, sub="per_a")):
        assert (await edit(door, person, comment)).failed("not_found") == missing.body
    (await edit(door, agents[1], comment)).failed("forbidden")
    changed = (await edit(door, agents[0], comment)).succeeded()
    assert changed["internal"] is True
    assert await comments(door, agents[1], made) == [changed]
    assert await comments(door, submitter, made) == []


async def test_a_comment_is_found_under_its_own_ticket(door: Door, world: World) -> None:
    person = world.person(*ALL)
    one, two = [await create(door, person) for _ in range(2)]
    comment = await said(door, person, one)
    for ticket_id, comment_id in (
        (two["id"], comment["id"]),
        (one["id"], MISSING_COMMENT),
        (one["id"], "x"),
        (one["id"], one["id"]),
        (MISSING, comment["id"]),
        ("TKT-0003", comment["id"]),
    ):
        (await edit(door, person, {"ticket_id": ticket_id, "id": comment_id})).failed("not_found")
    assert await comments(door, person, one) == [comment]


# Lists


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (100, [5])])
async def test_comments_and_events_come_in_pages_oldest_first(
    door: Door, world: World, limit: int, sizes: list[int]
) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    written = [await said(door, person, made, body=f"{n}", internal=n % 2 == 1) for n in range(5)]
    pages = await walk(door, person, made, "comments", limit)
    assert [len(found) for found in pages] == sizes
    assert [comment for found in pages for comment in found] == written
    history = [event for found in await walk(door, person, made, "events", limit) for event in found]
    assert [event["version"] for event in history] == [1, 2, 3, 4, 5, 6]
    assert history == await events(door, person, made)


async def test_comments_of_one_instant_are_each_listed_once(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    written = [await said(door, person, made) for _ in range(5)]
    instant = written[0]["created_at"]
    world.run("UPDATE helpdesk_comments SET created_at = %s WHERE ticket_id = %s", instant, made["id"])
    found = [comment["id"] for comments in await walk(door, person, made, "comments", 2) for comment in comments]
    assert found == sorted(comment["id"] for comment in written)


async def test_pages_are_full_and_end_truly_where_others_see_more(door: Door, world: World) -> None:
    tenant_id = tenant()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made = await create(door, submitter)
    for internal in (True, False, True, True, False, False, True):
        await said(door, agent, made, internal=internal)
    pages = await walk(door, submitter, made, "comments", 2)
    assert [[comment["internal"] for comment in found] for found in pages] == [[False, False], [False]]
    pages = await walk(door, submitter, made, "events", 2)
    assert [[event["version"] for event in found] for found in pages] == [[1, 3], [6, 7]]
    assert [len(found) for found in await walk(door, agent, made, "comments", 3)] == [3, 3, 1]


async def test_a_page_has_20_unless_told_and_100_at_most(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    for member in ("comments", "events"):
        for limit in (0, -1, 101):
            reply = await page(door, person, made, member, limit=limit)
            reply.failed("validation_error", paths=["limit"])
    await asyncio.gather(*(said(door, person, made) for _ in range(21)))
    for member, more in (("comments", 1), ("events", 2)):
        first = (await page(door, person, made, member)).succeeded()
        assert len(first[member]) == 20
        rest = (await page(door, person, made, member, cursor=first["next_cursor"])).succeeded()
        assert (len(rest[member]), rest["next_cursor"]) == (more, None)


@pytest.mark.parametrize("member", ["comments", "events"])
async def test_a_cursor_is_good_for_its_ticket_and_its_readers(door: Door, world: World, member: str) -> None:
    tenant_id = tenant()
    agent = world.person(*ALL, tenant_id=tenant_id)
    made, other = [await create(door, agent) for _ in range(2)]
    for ticket in (made, other):
        for _ in range(2):
            await said(door, agent, ticket)
    cursor = (await page(door, agent, made, member, limit=1)).succeeded()["next_cursor"]
    colleague = world.person("agent", tenant_id=tenant_id, sub="per_2")
    assert (await page(door, colleague, made, member, cursor=cursor)).succeeded()[member]
    reader = world.person("read", tenant_id=tenant_id)
    for person, ticket, wrong in (
        (agent, other, cursor),
        # They see another list.
        (reader, made, cursor),
        (agent, made, "x"),
        (agent, made, ""),
        (agent, made, cursor[:-1]),
    ):
        (await page(door, person, ticket, member, cursor=wrong)).failed("validation_error", paths=["cursor"])


async def test_a_history_tells_every_kind_of_change(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    path = {"id": made["id"]}
    comment = await said(door, person, made)
    (await edit(door, person, comment)).succeeded()
    (await update(door, person, made, title="New", tags=["vpn"])).succeeded()
    (await close(door, person, made, {"resolution_note": "Done"})).succeeded()
    (await update(door, person, made, status="open")).succeeded()
    for operation in ("helpdesk.delete", "helpdesk.restore"):
        (await door.call(operation, person, path=path)).succeeded()
    history = await events(door, person, made)
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


# Scopes


@pytest.mark.parametrize("scope", ["read", "write", "agent", ""])
async def test_each_operation_needs_its_scope(door: Door, world: World, scope: str) -> None:
    tenant_id = tenant()
    author = world.person(*ALL, tenant_id=tenant_id)
    made = await create(door, author)
    comment = await said(door, author, made)
    scopes = (scope,) if scope else ()
    person, path = world.person(*scopes, tenant_id=tenant_id), {"id": made["id"]}
    replies = {
        "read": [await page(door, person, made, member) for member in ("comments", "events")],
        "write": [
            await say(door, person, made),
            await edit(door, person, comment),
            await door.call("helpdesk.delete", person, path=path),
            await door.call("helpdesk.restore", person, path=path),
        ],
    }
    for needed, some in replies.items():
        for reply in some:
            if scope in (needed, "agent"):
                reply.succeeded(201 if reply is replies["write"][0] else 200)
            else:
                reply.failed("missing_scope")
    if scope in ("read", "agent"):
        assert await begun(door, person)
    else:
        await refused(door, person, "missing_scope")


# Idempotency


async def test_a_comment_under_a_key_is_written_once(door: Door, world: World) -> None:
    tenant_id = tenant()
    person = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made, other = [await create(door, person) for _ in range(2)]
    first = await say(door, agent, made, "key", internal=True)
    assert "idempotent-replayed" not in first.headers
    (await edit(door, agent, first.succeeded(201))).succeeded()
    again = await say(door, agent, made, "key", internal=True)
    assert again.headers["idempotent-replayed"] == "true"
    # The first answer, whatever became of it.
    assert again.succeeded(201) == first.body
    assert len(await comments(door, agent, made)) == 1
    for ticket, members in ((made, {"internal": True, "body": "y"}), (made, {}), (other, {"internal": True})):
        (await say(door, agent, ticket, "key", **members)).failed("idempotency_mismatch", MISMATCH)
    (await close(door, agent, made, **{"idempotency-key": "key"})).failed("idempotency_mismatch", MISMATCH)
    assert await comments(door, agent, other) == []
    # No agent any more: the answer is no more theirs.
    (await say(door, world.person("write", tenant_id=tenant_id, sub="per_agent"), made, "key", internal=True)).failed(
        "forbidden"
    )


async def test_many_requests_under_one_key_are_one_comment(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    replies = await asyncio.gather(*(say(door, person, made, "key") for _ in range(8)))
    [comment] = await comments(door, person, made)
    assert [reply.succeeded(201) for reply in replies] == [comment] * 8
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 7
    assert len(await events(door, person, made)) == 2


async def test_a_key_whose_request_failed_is_free(door: Door, world: World) -> None:
    tenant_id = tenant()
    person, other = (world.person("read", "write", tenant_id=tenant_id, sub=sub) for sub in ("per_1", "per_2"))
    made = await create(door, person)
    (await say(door, person, {"id": MISSING}, "key")).failed("not_found")
    (await say(door, person, made, "key", body="")).failed("validation_error")
    (await say(door, other, made, "key")).failed("forbidden")
    (await say(door, person, made, "key")).succeeded(201)
    # Keys belong to the person.
    own = await create(door, other)
    assert "idempotent-replayed" not in (await say(door, other, own, "key")).headers


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_keys_have_bounds(door: Door, world: World, key: str) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    (await say(door, person, made, key)).failed("validation_error", paths=["idempotency-key"])
    headers = {"idempotency-key": key}
    (await close(door, person, made, **headers)).failed("validation_error", paths=["idempotency-key"])
    assert await get(door, person, made) == made


async def test_a_close_under_a_key_closes_once(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made, other = [await create(door, person) for _ in range(2)]
    note, key = {"resolution_note": "Done"}, {"idempotency-key": "key"}
    first = await close(door, person, made, note, **key)
    assert first.succeeded()["status"] == "closed"
    reopened = (await update(door, person, made, status="open")).succeeded()
    again = await close(door, person, made, note, **key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.succeeded() == first.body
    # It was a repetition, and not another wish.
    assert await get(door, person, made) == reopened
    for ticket, body in ((made, {"resolution_note": "Other"}), (made, None), (other, note)):
        (await close(door, person, ticket, body, **key)).failed("idempotency_mismatch", MISMATCH)
    (await say(door, person, made, "key")).failed("idempotency_mismatch", MISMATCH)
    assert await get(door, person, other) == other


async def test_a_stale_close_leaves_its_key_free(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    stale = {"idempotency-key": "key", "if-match": '"x"'}
    (await close(door, person, made, **stale)).failed("stale")
    (await close(door, person, made, **{"idempotency-key": "key"})).succeeded()


# What is internal, and whose a ticket is


async def test_what_is_internal_is_told_to_agents_alone(door: Door, world: World) -> None:
    tenant_id = tenant()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    cursors = [(person, await begun(door, person)) for person in (submitter, agent)]
    made = await create(door, submitter)
    public = await said(door, agent, made, body="public")
    secret = await said(door, agent, made, body="secret", internal=True)
    (await edit(door, agent, secret, "more secret")).succeeded()
    (await edit(door, agent, public, "more public")).succeeded()
    last = await create(door, submitter)
    for person, cursor in cursors:
        seen = [1, 2, 3, 4, 5] if person is agent else [1, 2, 5]
        listed, history = await comments(door, person, made), await events(door, person, made)
        watched = await told(door, person, cursor, last)
        bodies = ["more public", "more secret"] if person is agent else ["more public"]
        assert [comment["body"] for comment in listed] == bodies
        assert [event["version"] for event in history] == seen
        assert watched == history
        assert ("secret" in str([listed, history, watched])) == (person is agent)
        assert (secret["id"] in str([listed, history, watched])) == (person is agent)
    # What an agent went on from would show others where something is hidden.
    for person, (_, cursor) in zip((agent, submitter), cursors, strict=True):
        await refused(door, person, "validation_error", cursor)


async def test_a_watch_tells_what_happens_as_it_happens(door: Door, world: World) -> None:
    tenant_id = tenant()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    before = await create(door, submitter)
    async with watching(door, agent) as of_agent, watching(door, submitter) as of_submitter:
        for stream in (of_agent, of_submitter):
            first = await next_of(stream)
            assert first["event"] is None
            assert first["cursor"]
        comment = await said(door, agent, before, internal=True)
        event = await next_event(of_agent)
        assert event["changes"]["comment"]["to"]["id"] == comment["id"]
        assert [event] == (await events(door, agent, before))[1:]
        made = await create(door, submitter)
        for stream in (of_agent, of_submitter):
            event = await next_event(stream)
            assert [event] == await events(door, submitter, made)


async def test_a_resumed_watch_goes_on_behind_its_cursor(door: Door, world: World) -> None:
    person = world.person(*ALL)
    cursors = [await begun(door, person)]
    made = [await create(door, person) for _ in range(4)]
    async with watching(door, person, cursors[0]) as stream:
        while len(cursors) < 4:
            message = await next_of(stream)
            if message["event"] is not None:
                cursors.append(message["cursor"])
    for number, cursor in enumerate(cursors):
        watched = await told(door, person, cursor, made[3])
        assert [event["ticket_id"] for event in watched] == [ticket["id"] for ticket in made[number:3]]
    for cursor in ("", "x", cursors[0][:-1]):
        await refused(door, person, "validation_error", cursor)


async def test_a_cursor_of_a_watch_is_good_for_its_tenant_and_application(door: Door, world: World) -> None:
    tenant_id = tenant()
    watchers = [
        world.person(*ALL, tenant_id=tenant_id),
        world.person(*ALL, tenant_id=tenant_id, app_id="app_1"),
        world.person(*ALL, tenant_id=tenant_id, app_id="app_2"),
        world.person(*ALL),
        world.person(*ALL, app_id="app_1"),
    ]
    cursors = [await begun(door, person) for person in watchers]
    for number, person in enumerate(watchers):
        for owner, cursor in enumerate(cursors):
            if owner != number:
                await refused(door, person, "validation_error", cursor)
    made = await create(door, watchers[0])
    for _ in range(2):
        await said(door, watchers[0], made)
    others = [(await page(door, watchers[0], made, member, limit=1)).succeeded() for member in ("comments", "events")]
    others.append((await door.call("helpdesk.list", watchers[0], query={"limit": 1})).succeeded())
    for cursor in (other["next_cursor"] for other in others):
        if cursor is not None:
            await refused(door, watchers[0], "validation_error", cursor)
    (await page(door, watchers[0], made, "events", cursor=cursors[0])).failed("validation_error", paths=["cursor"])


ON_ONE_TICKET: dict[str, Any] = {
    "helpdesk.get": None,
    "helpdesk.update": {"title": "Taken"},
    "helpdesk.close": None,
    "helpdesk.delete": None,
    "helpdesk.restore": None,
    "helpdesk.comment": {"body": "Taken"},
    "helpdesk.edit": {"body": "Taken"},
    "helpdesk.comments": None,
    "helpdesk.events": None,
}


async def all_are_missing(door: Door, stranger: Credential, names: list[str], comment_id: str) -> None:
    """Check that every operation answers as if there were no such tickets, whatever is said with it."""
    for operation, body in ON_ONE_TICKET.items():
        more = {"comment_id": comment_id} if operation == "helpdesk.edit" else {}
        query = {"include_deleted": True} if operation == "helpdesk.get" else None
        missing = await door.call(operation, stranger, path={"id": MISSING, **more}, body=body)
        missing.failed("not_found", "Ticket not found")
        for name, headers in product(names, ({}, {"if-match": '"1"', "idempotency-key": "key"})):
            path = {"id": name, **more}
            reply = await door.call(operation, stranger, path=path, query=query, body=body, headers=headers)
            assert (reply.status, reply.failed("not_found")) == (missing.status, missing.body)


async def only_one_is_listed(door: Door, stranger: Credential, ticket: Any, number: str) -> None:
    """Check that no list has more than their own ticket, and none by what is said of others'."""
    others: list[dict[str, Any]] = [{"q": "hidden"}, {"tag": "hidden"}, {"q": number}, {"status": "pending,closed"}]
    for query, sort in product([{}, *others], ("-created_at", "created_at", "-updated_at", "due_at", "-priority")):
        given = {**query, "sort": sort, "include_deleted": True}
        listed = (await door.call("helpdesk.list", stranger, query=given)).succeeded()["tickets"]
        assert [found["id"] for found in listed] == ([] if query else [ticket["id"]])


@pytest.mark.parametrize("app_id", [None, "app_1"])
async def test_nothing_of_another_tenants_or_applications_ticket_is_seen(
    door: Door, world: World, app_id: str | None
) -> None:
    tenant_id = tenant()
    person = world.person(*ALL, tenant_id=tenant_id)
    owner = world.person(*ALL, tenant_id=tenant_id, app_id=app_id)
    strangers = [
        world.person(*ALL),
        world.person(*ALL, app_id="app_1"),
        # Not what they do decides, but whose it is.
        world.person("read", "write"),
        world.person(*ALL, tenant_id=tenant_id, app_id="app_2"),
        *([world.person(*ALL, tenant_id=tenant_id, app_id="app_1")] if app_id is None else []),
    ]
    # Of each tenant the first number is everyone's.
    first = [await create(door, stranger) for stranger in strangers]
    own = [await said(door, stranger, ticket) for stranger, ticket in zip(strangers, first, strict=True)]
    for _ in range(3):
        made = await create(door, owner, title="Hidden", tags=["hidden"])
    comment = await said(door, owner, made, body="Hidden", internal=True)
    deleted = await create(door, owner, title="Hidden")
    (await door.call("helpdesk.delete", owner, path={"id": deleted["id"]})).succeeded()
    before = await get(door, owner, made)
    history = await events(door, owner, made)
    cursors = [await begun(door, stranger) for stranger in strangers]

    hidden = [made["id"], deleted["id"], made["number"], deleted["number"]]
    for stranger, ticket, mine in zip(strangers, first, own, strict=True):
        await all_are_missing(door, stranger, hidden, comment["id"])
        # Neither under a ticket of their own.
        reply = await edit(door, stranger, {"ticket_id": ticket["id"], "id": comment["id"]})
        reply.failed("not_found", "Comment not found")
        assert await comments(door, stranger, ticket) == [mine]

    # While they watch, there is something to be told.
    await said(door, owner, made)
    (await update(door, owner, made, status="pending")).succeeded()
    (await door.call("helpdesk.restore", owner, path={"id": deleted["id"]})).succeeded()
    (await close(door, owner, deleted)).succeeded()
    for stranger, ticket, cursor in zip(strangers, first, cursors, strict=True):
        await only_one_is_listed(door, stranger, ticket, made["number"])
        last = await create(door, stranger)
        assert await told(door, stranger, cursor, last) == []

    for seer in (owner, person):
        now = await get(door, seer, made)
        assert now == {**before, "status": "pending", "updated_at": now["updated_at"]}
        assert (await events(door, seer, made))[:-2] == history
        assert (await comments(door, seer, made))[0] == comment


async def test_a_person_watches_the_tenant_and_an_application_its_own(door: Door, world: World) -> None:
    tenant_id = tenant()
    person = world.person(*ALL, tenant_id=tenant_id)
    one, two = (world.person(*ALL, tenant_id=tenant_id, app_id=app_id) for app_id in ("app_1", "app_2"))
    watchers = [(who, await begun(door, who)) for who in (person, one, two)]
    made = [await create(door, who) for who in (one, two, person)]
    for ticket in made:
        # Who changes it does not take it over.
        await said(door, person, ticket)
    last = {who["authorization"]: await create(door, who) for who in (one, two, person)}
    ends = [ticket["id"] for ticket in last.values()]
    for who, cursor in watchers:
        watched = await told(door, who, cursor, last[who["authorization"]])
        tickets = [event["ticket_id"] for event in watched if event["ticket_id"] not in ends]
        expected = made if who is person else [made[(one, two).index(who)]]
        assert sorted(tickets) == sorted(ticket["id"] for ticket in expected for _ in range(2))
