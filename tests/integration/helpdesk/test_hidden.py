"""contracts/helpdesk.md at both transports: only agents see what is internal, only its tenant sees a ticket."""

from itertools import product
from typing import Any

import pytest
from support.helpdesk import Transport, close, create, get, new_tenant_id, update
from support.helpdesk_calls import ALL, MISSING, comments, edit, events, write_comment
from support.system import Credential, World
from support.watches import HELPDESK


async def test_only_agents_see_internal_comments(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    cursors = [(person, await HELPDESK.start_cursor(transport, person)) for person in (submitter, agent)]
    made = await create(transport, submitter)
    public = await write_comment(transport, agent, made, body="public")
    secret = await write_comment(transport, agent, made, body="secret", internal=True)
    (await edit(transport, agent, secret, "more secret")).succeeded()
    (await edit(transport, agent, public, "more public")).succeeded()
    last = await create(transport, submitter)
    for person, cursor in cursors:
        seen = [1, 2, 3, 4, 5] if person is agent else [1, 2, 3]
        listed, history = await comments(transport, person, made), await events(transport, person, made)
        watched = await HELPDESK.emitted(transport, person, cursor, last)
        bodies = ["more public", "more secret"] if person is agent else ["more public"]
        assert [comment["body"] for comment in listed] == bodies
        assert [event["version"] for event in history] == seen
        assert watched == history
        assert ("secret" in str([listed, history, watched])) == (person is agent)
        assert (secret["id"] in str([listed, history, watched])) == (person is agent)
    # The cursor of an agent's watch would reveal to others where internal events are.
    for person, (_, cursor) in zip((agent, submitter), cursors, strict=True):
        await HELPDESK.refused(transport, person, "validation_error", cursor)


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


async def all_are_missing(transport: Transport, stranger: Credential, names: list[str], comment_id: str) -> None:
    """Check that every operation answers as if there were no such tickets, whatever else the request has."""
    for operation, body in ON_ONE_TICKET.items():
        more = {"comment_id": comment_id} if operation == "helpdesk.edit" else {}
        query = {"include_deleted": True} if operation == "helpdesk.get" else None
        missing = await transport.call(operation, stranger, path={"id": MISSING, **more}, body=body)
        missing.failed("not_found", "Ticket not found")
        for name, headers in product(names, ({}, {"if-match": '"1"', "idempotency-key": "key"})):
            path = {"id": name, **more}
            reply = await transport.call(operation, stranger, path=path, query=query, body=body, headers=headers)
            assert (reply.status, reply.failed("not_found")) == (missing.status, missing.body)


async def only_one_is_listed(transport: Transport, stranger: Credential, ticket: Any, number: str) -> None:
    """Check that lists have only the caller's own ticket, and not even that under filters for others' tickets."""
    others: list[dict[str, Any]] = [{"q": "hidden"}, {"tag": "hidden"}, {"q": number}, {"status": "pending,closed"}]
    for query, sort in product([{}, *others], ("-created_at", "created_at", "-updated_at", "due_at", "-priority")):
        given = {**query, "sort": sort, "include_deleted": True}
        listed = (await transport.call("helpdesk.list", stranger, query=given)).succeeded()["tickets"]
        assert [found["id"] for found in listed] == ([] if query else [ticket["id"]])


@pytest.mark.parametrize("app_id", [None, "app_1"])
async def test_another_tenants_or_applications_ticket_is_invisible(
    transport: Transport, world: World, app_id: str | None
) -> None:
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    owner = world.person(*ALL, tenant_id=tenant_id, app_id=app_id)
    strangers = [
        world.person(*ALL),
        world.person(*ALL, app_id="app_1"),
        # Fewer scopes in another tenant make no difference.
        world.person("read", "write"),
        world.person(*ALL, tenant_id=tenant_id, app_id="app_2"),
        *([world.person(*ALL, tenant_id=tenant_id, app_id="app_1")] if app_id is None else []),
    ]
    # Each tenant's numbers begin with the same one.
    first = [await create(transport, stranger) for stranger in strangers]
    own = [await write_comment(transport, stranger, ticket) for stranger, ticket in zip(strangers, first, strict=True)]
    for _ in range(3):
        made = await create(transport, owner, title="Hidden", tags=["hidden"])
    comment = await write_comment(transport, owner, made, body="Hidden", internal=True)
    deleted = await create(transport, owner, title="Hidden")
    (await transport.call("helpdesk.delete", owner, path={"id": deleted["id"]})).succeeded()
    before = await get(transport, owner, made)
    history = await events(transport, owner, made)
    cursors = [await HELPDESK.start_cursor(transport, stranger) for stranger in strangers]

    hidden = [made["id"], deleted["id"], made["number"], deleted["number"]]
    for stranger, ticket, mine in zip(strangers, first, own, strict=True):
        await all_are_missing(transport, stranger, hidden, comment["id"])
        # Nor is the comment found under a ticket of their own.
        reply = await edit(transport, stranger, {"ticket_id": ticket["id"], "id": comment["id"]})
        reply.failed("not_found", "Comment not found")
        assert await comments(transport, stranger, ticket) == [mine]

    # Changes that they must not see in their watches.
    await write_comment(transport, owner, made)
    (await update(transport, owner, made, status="pending")).succeeded()
    (await transport.call("helpdesk.restore", owner, path={"id": deleted["id"]})).succeeded()
    (await close(transport, owner, deleted)).succeeded()
    for stranger, ticket, cursor in zip(strangers, first, cursors, strict=True):
        await only_one_is_listed(transport, stranger, ticket, made["number"])
        last = await create(transport, stranger)
        assert await HELPDESK.emitted(transport, stranger, cursor, last) == []

    for seer in (owner, person):
        now = await get(transport, seer, made)
        assert now == {**before, "status": "pending", "updated_at": now["updated_at"]}
        assert (await events(transport, seer, made))[:-2] == history
        assert (await comments(transport, seer, made))[0] == comment
