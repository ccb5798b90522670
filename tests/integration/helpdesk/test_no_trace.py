"""contracts/helpdesk.md at both transports: what a caller may not see leaves no trace for them."""

from typing import Any

import pytest
from support.helpdesk import Transport, create, new_tenant_id, update
from support.helpdesk_calls import comments, edit, etag, events, page, post_comment, write_comment
from support.helpdesk_lists import SORTS, listed
from support.system import Credential, World
from support.watches import HELPDESK


async def readable(transport: Transport, person: Credential, ticket: Any) -> Any:
    """All that a person can read of a ticket, and of the lists that it is in."""
    got = await transport.call("helpdesk.get", person, path={"id": ticket["id"]})
    sla = (await transport.call("helpdesk.sla", person, path={"id": ticket["id"]})).succeeded()
    return {
        "ticket": got.succeeded(),
        "etag": got.headers["etag"],
        "comments": await comments(transport, person, ticket),
        "events": await events(transport, person, ticket),
        # With the cursors between their pages.
        "pages": [
            (await page(transport, person, ticket, member, limit=1)).succeeded() for member in ("comments", "events")
        ],
        "lists": [await listed(transport, person, sort=sort) for sort in SORTS],
        "changed": await listed(transport, person, updated_since=got.body["updated_at"]),
        "sla": {**sla, "as_of": None},
    }


READERS: dict[str, dict[str, Any]] = {
    "the submitter": {"scopes": ("read", "write")},
    "who reads all": {"scopes": ("read_all",), "sub": "per_reader"},
}


@pytest.mark.parametrize("who", READERS)
async def test_internal_comments_leave_no_trace(transport: Transport, world: World, who: str) -> None:
    tenant_id = new_tenant_id()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    scopes, *more = READERS[who].values()
    reader = world.person(*scopes, tenant_id=tenant_id, **({"sub": more[0]} if more else {}))
    made = await create(transport, submitter)
    other = await create(transport, submitter)
    for text in ("one", "two"):
        await write_comment(transport, submitter, made, body=text)
    before, cursor = await readable(transport, reader, made), await HELPDESK.start_cursor(transport, reader)
    secret = await write_comment(transport, agent, made, body="secret", internal=True)
    (await edit(transport, agent, secret, "more secret")).succeeded()
    assert await readable(transport, reader, made) == before
    # A change by somebody who has read it before is no conflict.
    headers = {"if-match": before["etag"]}
    path, body = {"id": made["id"]}, {"title": "New"}
    changed = await transport.call("helpdesk.update", submitter, path=path, body=body, headers=headers)
    assert changed.succeeded()["updated_by"] == "per_1"
    # Nor do later versions tell that something was there.
    await write_comment(transport, agent, made, body="more", internal=True)
    await write_comment(transport, submitter, made)
    history = await events(transport, reader, made)
    assert [event["version"] for event in history] == [1, 2, 3, 4, 5]
    assert changed.headers["etag"] == '"4"'
    assert await etag(transport, reader, made) == '"5"'
    await update(transport, submitter, other, title="Last")
    last = await create(transport, submitter)
    watched = await HELPDESK.emitted(transport, reader, cursor, last)
    assert [(event["ticket_id"], event["version"]) for event in watched] == [
        *((made["id"], version) for version in (4, 5)),
        (other["id"], 2),
    ]
    # The pages of the history are of the same versions.
    found, after = list[int](), dict[str, str]()
    while True:
        answer = (await page(transport, reader, made, "events", limit=2, **after)).succeeded()
        found += [event["version"] for event in answer["events"]]
        if answer["next_cursor"] is None:
            break
        after = {"cursor": answer["next_cursor"]}
    assert found == [1, 2, 3, 4, 5]
    # Agents see, and count, all of it.
    assert [event["version"] for event in await events(transport, agent, made)] == [*range(1, 9)]


async def test_an_internal_comment_is_no_conflict_for_agents_either(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    agents = [world.person("agent", tenant_id=tenant_id, sub=sub) for sub in ("per_a", "per_b")]
    made = await create(transport, agents[0])
    known = await etag(transport, agents[0], made)
    await write_comment(transport, agents[1], made, internal=True)
    headers, body = {"if-match": known}, {"status": "pending"}
    path = {"id": made["id"]}
    (await transport.call("helpdesk.update", agents[0], path=path, body=body, headers=headers)).succeeded()
    # A public one is.
    await write_comment(transport, agents[1], made)
    (await transport.call("helpdesk.update", agents[0], path=path, body=body, headers=headers)).failed("stale")


async def test_an_internal_comment_is_refused_alike_on_any_ticket(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    other = await create(transport, world.person("write", tenant_id=tenant_id, sub="per_other"))
    person = world.person("read", "write", tenant_id=tenant_id)
    own = await create(transport, person)
    for ticket in (own, other, {"id": "TKT-0999"}):
        reply = await post_comment(transport, person, ticket, internal=True)
        reply.failed("forbidden", "Only agents can write internal comments")
