"""contracts/helpdesk.md at both transports: comments, first responses, edits, and who may write them."""

import asyncio
import re
from typing import Any

import pytest
from support.helpdesk import Transport, close, create, get, new_tenant_id, update
from support.helpdesk_calls import (
    ALL,
    MISSING,
    MISSING_COMMENT,
    comments,
    edit,
    events,
    page,
    post_comment,
    write_comment,
)
from support.system import World
from support.transports import Rest, rest_reply
from support.watches import HELPDESK

# Comments


async def test_a_comment_has_every_documented_member(transport: Transport, world: World) -> None:
    person = world.person("read", "write", sub="per_7", app_id="app_1")
    made = await create(transport, person)
    comment = await write_comment(transport, person, made, body="**Zoë** said: \U0001f600\n")
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
    assert await comments(transport, person, made) == [comment]
    other = (await post_comment(transport, person, {"id": made["number"]}, body="By number")).succeeded(201)
    assert other["ticket_id"] == made["id"]
    assert await comments(transport, person, {"id": made["number"]}) == [comment, other]


@pytest.mark.parametrize("internal", [False, True])
async def test_a_comment_changes_only_the_stamps_of_the_ticket_and_an_internal_one_nothing(
    transport: Transport, world: World, internal: bool
) -> None:
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made = await create(transport, agent, status="closed", tags={"a": 1})
    comment = await write_comment(transport, agent, made, internal=internal)
    now = await get(transport, person, made)
    assert now == ({**made} if internal else {**made, "updated_at": comment["created_at"]})
    [_, event] = await events(transport, agent, made)
    changes = {"comment": {"from": None, "to": {"id": comment["id"], "internal": internal}}}
    assert (event["type"], event["version"], event["actor"]) == ("ticket.commented", 2, "per_agent")
    assert event["changes"] == changes
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
async def test_comments_out_of_bounds_are_rejected(
    transport: Transport, world: World, body: Any, paths: list[str]
) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    comment = await write_comment(transport, person, made)
    (await post_comment(transport, person, made, **body)).failed("validation_error", paths=paths)
    (await edit(transport, person, comment, **body)).failed("validation_error", paths=paths)
    assert await comments(transport, person, made) == [comment]
    assert len(await events(transport, person, made)) == 2


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
        (b"\xff", ["body"]),
    ],
)
async def test_invalid_comment_bodies_are_rejected(rest: Rest, world: World, content: bytes, paths: Any) -> None:
    person = world.person(*ALL)
    made = await create(rest, person)
    headers = {**person, "content-type": "application/json"}
    answer = await rest.client.post(f"/api/v1/helpdesk/tickets/{made['id']}/comments", content=content, headers=headers)
    rest_reply("helpdesk", answer).failed("validation_error", paths=paths)
    assert await comments(rest, person, made) == []


async def test_the_longest_comment_is_stored(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    comment = await write_comment(transport, person, made, body="é" * 65_536)
    changed = (await edit(transport, person, comment, "ü" * 65_536)).succeeded()
    assert (await comments(transport, person, made)) == [changed]
    assert changed["body"] == "ü" * 65_536


@pytest.mark.parametrize(
    ("sub", "scopes", "internal", "reason"),
    [
        ("per_submitter", ("write",), False, None),
        ("per_submitter", ("write",), True, "forbidden"),
        ("per_submitter", ("agent",), True, None),
        ("per_other", ("agent",), False, None),
        ("per_other", ("agent",), True, None),
        ("per_creator", ("read", "write"), False, None),
        ("per_creator", ("read", "write"), True, "forbidden"),
        # What they do not see does not exist for them.
        ("per_other", ("read", "write"), False, "not_found"),
        ("per_assigned", ("read", "write"), False, "not_found"),
        ("per_other", ("read_all", "write"), False, "forbidden"),
        ("per_other", ("read_all", "write"), True, "forbidden"),
        ("per_submitter", ("read",), False, "missing_scope"),
    ],
)
async def test_who_may_comment(
    transport: Transport, world: World, sub: str, scopes: tuple[str, ...], internal: bool, reason: str | None
) -> None:
    tenant_id = new_tenant_id()
    creator = world.person(*ALL, tenant_id=tenant_id, sub="per_creator")
    made = await create(transport, creator, submitted_by_id="per_submitter", assigned_to_id="per_assigned")
    reply = await post_comment(transport, world.person(*scopes, tenant_id=tenant_id, sub=sub), made, internal=internal)
    if reason is None:
        assert await comments(transport, creator, made) == [reply.succeeded(201)]
        assert (reply.body["internal"], reply.body["author_id"]) == (internal, sub)
    else:
        reply.failed(reason)
        assert await comments(transport, creator, made) == []
        assert await get(transport, creator, made) == made


# The first response


async def test_the_first_public_comment_of_an_agent_who_is_not_the_submitter_is_the_first_response(
    transport: Transport, world: World
) -> None:
    tenant_id = new_tenant_id()
    submitter = world.person(*ALL, tenant_id=tenant_id, sub="per_submitter")
    plain = world.person("write", tenant_id=tenant_id, sub="per_submitter")
    agents = [world.person("agent", tenant_id=tenant_id, sub=sub) for sub in ("per_a", "per_b")]
    made = await create(transport, plain)
    for person, internal in ((plain, False), (submitter, False), (submitter, True), (agents[0], True)):
        await write_comment(transport, person, made, internal=internal)
        assert (await get(transport, submitter, made))["first_response_at"] is None
    # A change is not a response.
    (await update(transport, agents[0], made, status="in_progress")).succeeded()
    assert (await get(transport, submitter, made))["first_response_at"] is None
    first = await write_comment(transport, agents[0], made)
    assert (await get(transport, submitter, made))["first_response_at"] == first["created_at"]
    for person in (*agents, plain):
        await write_comment(transport, person, made)
    (await edit(transport, agents[0], first)).succeeded()
    (await close(transport, agents[0], made)).succeeded()
    assert (await get(transport, submitter, made))["first_response_at"] == first["created_at"]


async def test_an_application_with_the_agent_scope_responds_too(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    application = world.person("write", "agent", tenant_id=tenant_id, app_id="app_1", sub="app_1")
    made = await create(transport, application, submitted_by_id="per_1")
    comment = await write_comment(transport, application, made)
    assert (await get(transport, application, made))["first_response_at"] == comment["created_at"]


async def test_of_concurrent_first_responses_one_counts(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    made = await create(transport, world.person("write", tenant_id=tenant_id))
    agents = [world.person("agent", tenant_id=tenant_id, sub=f"per_a{n}") for n in range(8)]
    instants = [
        comment["created_at"]
        for comment in await asyncio.gather(*(write_comment(transport, agent, made) for agent in agents))
    ]
    assert (await get(transport, agents[0], made))["first_response_at"] in instants
    assert [event["version"] for event in await events(transport, agents[0], made)] == list(range(1, 10))


# Editing


async def test_an_edit_changes_the_body_and_is_in_the_history(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    other, comment = [await write_comment(transport, person, made) for _ in range(2)]
    changed = (await edit(transport, person, comment)).succeeded()
    assert changed["updated_at"] > comment["created_at"]
    assert changed == {**comment, "body": "y", "updated_at": changed["updated_at"]}
    assert await comments(transport, person, made) == [other, changed]
    assert (await get(transport, person, made))["updated_at"] == changed["updated_at"]
    event = (await events(transport, person, made))[-1]
    change = {"from": {"id": comment["id"], "body": "x"}, "to": {"id": comment["id"], "body": "y"}}
    assert (event["type"], event["version"], event["changes"]) == ("ticket.comment_edited", 4, {"comment": change})
    # The same body changes nothing.
    assert (await edit(transport, person, comment)).succeeded() == changed
    assert len(await events(transport, person, made)) == 4
    again = (await edit(transport, person, comment, "z")).succeeded()
    assert again["updated_at"] > changed["updated_at"]
    path = {"id": made["number"], "comment_id": comment["id"]}
    by_number = await transport.call("helpdesk.edit", person, path=path, body={"body": "by number"})
    assert by_number.succeeded()["ticket_id"] == made["id"]


async def test_only_the_author_edits_a_comment(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agents = [world.person("agent", tenant_id=tenant_id, sub=sub) for sub in ("per_a", "per_b")]
    made = await create(transport, submitter)
    of_submitter, of_agent = (
        await write_comment(transport, submitter, made),
        await write_comment(transport, agents[0], made),
    )
    for person, comment in ((submitter, of_agent), (agents[1], of_agent), (agents[0], of_submitter)):
        (await edit(transport, person, comment)).failed("forbidden")
    (await edit(transport, world.person("read", tenant_id=tenant_id), of_submitter)).failed("missing_scope")
    assert await comments(transport, agents[0], made) == [of_submitter, of_agent]
    # The author may edit it even when no longer an agent, while they see the ticket.
    reader = world.person("read_all", "write", tenant_id=tenant_id, sub="per_a")
    (await edit(transport, reader, of_agent)).succeeded()
    (await edit(transport, world.person("write", tenant_id=tenant_id, sub="per_a"), of_agent)).failed("not_found")


async def test_only_agents_find_an_internal_comment(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agents = [world.person("agent", tenant_id=tenant_id, sub=sub) for sub in ("per_a", "per_b")]
    made = await create(transport, submitter)
    comment = await write_comment(transport, agents[0], made, internal=True)
    missing = await edit(transport, submitter, {**comment, "id": MISSING_COMMENT})
    missing.failed("not_found")
    for person in (submitter, world.person("read_all", "write", tenant_id=tenant_id, sub="per_a")):
        assert (await edit(transport, person, comment)).failed("not_found") == missing.body
    (await edit(transport, agents[1], comment)).failed("forbidden")
    changed = (await edit(transport, agents[0], comment)).succeeded()
    assert changed["internal"] is True
    assert await comments(transport, agents[1], made) == [changed]
    assert await comments(transport, submitter, made) == []


async def test_a_comment_is_found_under_its_own_ticket(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    one, two = [await create(transport, person) for _ in range(2)]
    comment = await write_comment(transport, person, one)
    for ticket_id, comment_id in (
        (two["id"], comment["id"]),
        (one["id"], MISSING_COMMENT),
        (one["id"], "x"),
        (one["id"], one["id"]),
        (MISSING, comment["id"]),
        ("TKT-0003", comment["id"]),
    ):
        (await edit(transport, person, {"ticket_id": ticket_id, "id": comment_id})).failed("not_found")
    assert await comments(transport, person, one) == [comment]


# Scopes


@pytest.mark.parametrize("scope", ["read", "write", "agent", ""])
async def test_each_operation_needs_its_scope(transport: Transport, world: World, scope: str) -> None:
    tenant_id = new_tenant_id()
    author = world.person(*ALL, tenant_id=tenant_id)
    made = await create(transport, author)
    comment = await write_comment(transport, author, made)
    scopes = (scope,) if scope else ()
    person, path = world.person(*scopes, tenant_id=tenant_id), {"id": made["id"]}
    replies = {
        "read": [await page(transport, person, made, member) for member in ("comments", "events")],
        "write": [
            await post_comment(transport, person, made),
            await edit(transport, person, comment),
            await transport.call("helpdesk.delete", person, path=path),
            await transport.call("helpdesk.restore", person, path=path),
        ],
    }
    for needed, some in replies.items():
        for reply in some:
            if scope in (needed, "agent"):
                reply.succeeded(201 if reply is replies["write"][0] else 200)
            else:
                reply.failed("missing_scope")
    if scope in ("read", "agent"):
        assert await HELPDESK.start_cursor(transport, person)
    else:
        await HELPDESK.refused(transport, person, "missing_scope")
