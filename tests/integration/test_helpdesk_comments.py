"""contracts/helpdesk.md at both doors: comments, first responses, edits, and who may make which."""

import asyncio
import re
from typing import Any

import pytest
from desk import Door, close, create, get, update
from desk_calls import ALL, MISSING, MISSING_COMMENT, comments, edit, events, page, said, say, tenant
from harness import Rest, rest_reply
from system import World
from watches import HELPDESK

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
        assert await HELPDESK.begun(door, person)
    else:
        await HELPDESK.refused(door, person, "missing_scope")
