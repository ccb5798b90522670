"""contracts/helpdesk.md at both transports: deleted and restored tickets."""

import asyncio
from typing import Any

import pytest
from support.helpdesk import Transport, create, get, new_tenant_id, numbers, update
from support.helpdesk_calls import ALL, MISSING, delete, get_with_deleted, restore
from support.helpdesk_calls import events as history
from support.system import World
from support.transports import Rest

MARKED = ("is_deleted", "deleted_at", "deleted_by", "updated_at", "updated_by")


async def test_deleting_a_ticket_changes_only_its_stamps(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    submitter = world.person(*ALL, tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made = await create(transport, submitter, status="resolved", tags={"a": 1}, due_at="2030-01-01T00:00:00Z")
    deleted = (await delete(transport, agent, made)).succeeded()
    assert deleted["deleted_at"] == deleted["updated_at"] > made["updated_at"]
    assert (deleted["is_deleted"], deleted["deleted_by"], deleted["updated_by"]) == (True, "per_agent", "per_agent")
    assert deleted == {**made, **{name: deleted[name] for name in MARKED}}
    assert await get_with_deleted(transport, submitter, made) == deleted


@pytest.mark.parametrize("name", ["id", "number"])
async def test_a_deleted_ticket_is_not_found_unless_asked_for(transport: Transport, world: World, name: str) -> None:
    person = world.person(*ALL)
    kept, made = [await create(transport, person) for _ in range(2)]
    deleted = (await delete(transport, person, made)).succeeded()
    path = {"id": made[name]}
    bodies = {"helpdesk.update": {"title": "New"}, "helpdesk.close": None, "helpdesk.comment": {"body": "x"}}
    for operation in ("helpdesk.get", *bodies, "helpdesk.comments"):
        reply = await transport.call(operation, person, path=path, body=bodies.get(operation))
        reply.failed("not_found", "Ticket not found")
    asked = {"include_deleted": True}
    assert (await transport.call("helpdesk.get", person, path=path, query=asked)).succeeded() == deleted
    unasked = {"include_deleted": False}
    (await transport.call("helpdesk.get", person, path=path, query=unasked)).failed("not_found")
    assert await numbers(transport, person) == [kept["number"]]
    listed = (await transport.call("helpdesk.list", person, query=asked)).succeeded()["tickets"]
    assert listed == [deleted, kept]
    # Its history can still be read.
    events = (await transport.call("helpdesk.events", person, path=path)).succeeded()["events"]
    assert [event["type"] for event in events] == ["ticket.created", "ticket.deleted"]


async def test_comments_come_back_with_their_ticket_and_its_number_is_not_reused(
    transport: Transport, world: World
) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    path = {"id": made["id"]}
    comment = (await transport.call("helpdesk.comment", person, path=path, body={"body": "x"})).succeeded(201)
    (await delete(transport, person, made)).succeeded()
    edit = {"id": made["id"], "comment_id": comment["id"]}
    (await transport.call("helpdesk.edit", person, path=edit, body={"body": "y"})).failed("not_found")
    assert (await create(transport, person))["number"] == "TKT-0002"
    (await restore(transport, person, made)).succeeded()
    assert (await transport.call("helpdesk.comments", person, path=path)).succeeded()["comments"] == [comment]


async def test_a_restored_ticket_is_as_before(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made = await create(transport, person, priority="urgent", category="Network", tags=["vpn"])
    deleted = (await delete(transport, person, made)).succeeded()
    restored = (await restore(transport, agent, made)).succeeded()
    assert restored["updated_at"] > deleted["updated_at"]
    assert restored == {**made, "updated_at": restored["updated_at"], "updated_by": "per_agent"}
    assert await get(transport, person, made) == restored
    assert await numbers(transport, person) == ["TKT-0001"]
    (await update(transport, person, made, title="New")).succeeded()
    events = await history(transport, person, made)
    kinds = [(event["version"], event["type"], event["actor"]) for event in events]
    assert kinds == [
        (1, "ticket.created", "per_1"),
        (2, "ticket.deleted", "per_1"),
        (3, "ticket.restored", "per_agent"),
        (4, "ticket.updated", "per_1"),
    ]
    assert [event["changes"] for event in events[1:3]] == [
        {"is_deleted": {"from": False, "to": True}},
        {"is_deleted": {"from": True, "to": False}},
    ]


async def test_a_ticket_is_deleted_and_restored_by_its_number(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    by_number = {"id": made["number"]}
    assert (await delete(transport, person, by_number)).succeeded()["id"] == made["id"]
    assert (await restore(transport, person, by_number)).succeeded()["id"] == made["id"]
    for name in (MISSING, "TKT-0002", "tkt_x", "0001"):
        for act in (delete, restore):
            (await act(transport, person, {"id": name})).failed("not_found", "Ticket not found")


async def test_deleting_or_restoring_twice_changes_nothing_more(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person, other = (world.person(*ALL, tenant_id=tenant_id, sub=sub) for sub in ("per_1", "per_2"))
    made = await create(transport, person)
    tags = []
    for act, kinds in ((restore, 1), (delete, 2), (restore, 3)):
        first, second = await act(transport, person, made), await act(transport, other, made)
        assert second.succeeded() == first.succeeded()
        assert second.headers["etag"] == first.headers["etag"]
        tags.append(first.headers["etag"])
        assert len(await history(transport, person, made)) == kinds
    assert len(set(tags)) == 3


@pytest.mark.parametrize("act", [delete, restore])
async def test_concurrent_deletes_or_restores_are_one(transport: Transport, world: World, act: Any) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    if act is restore:
        (await delete(transport, person, made)).succeeded()
    before = len(await history(transport, person, made))
    replies = await asyncio.gather(*(act(transport, person, made) for _ in range(12)))
    assert len({str(reply.succeeded()) for reply in replies}) == 1
    assert len(await history(transport, person, made)) == before + 1


@pytest.mark.parametrize("act", [delete, restore])
@pytest.mark.parametrize(
    ("sub", "scopes", "reason"),
    [
        ("per_submitter", ("write",), None),
        ("per_other", ("agent",), None),
        ("per_creator", ("write", "agent"), None),
        ("per_submitter", ("read",), "missing_scope"),
        # A ticket that somebody created for another is theirs too.
        ("per_creator", ("read", "write"), None),
        # What they do not see does not exist for them.
        ("per_other", ("read", "write"), "not_found"),
        ("per_assigned", ("read", "write"), "not_found"),
        ("per_other", ("read_all", "write"), "forbidden"),
    ],
)
async def test_who_may_delete_and_restore(
    transport: Transport, world: World, act: Any, sub: str, scopes: tuple[str, ...], reason: str | None
) -> None:
    tenant_id = new_tenant_id()
    creator = world.person(*ALL, tenant_id=tenant_id, sub="per_creator")
    made = await create(transport, creator, submitted_by_id="per_submitter", assigned_to_id="per_assigned")
    if act is restore:
        (await delete(transport, creator, made)).succeeded()
    before = await get_with_deleted(transport, creator, made)
    reply = await act(transport, world.person(*scopes, tenant_id=tenant_id, sub=sub), made)
    if reason is None:
        assert reply.succeeded()["is_deleted"] is (act is delete)
        assert await get_with_deleted(transport, creator, made) == reply.body
    else:
        reply.failed(reason)
        assert await get_with_deleted(transport, creator, made) == before


async def test_a_deleted_ticket_is_visible_only_to_its_tenant_and_application(
    transport: Transport, world: World
) -> None:
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    application = world.person(*ALL, tenant_id=tenant_id, app_id="app_1")
    of_person, of_application = await create(transport, person), await create(transport, application)
    for made in (of_person, of_application):
        (await delete(transport, person, made)).succeeded()
    asked = {"include_deleted": True}
    strangers = [
        (world.person(*ALL), [of_person, of_application]),
        (world.person(*ALL, app_id="app_1"), [of_person, of_application]),
        (world.person(*ALL, tenant_id=tenant_id, app_id="app_2"), [of_person, of_application]),
        (application, [of_person]),
    ]
    for credential, hidden in strangers:
        listed = (await transport.call("helpdesk.list", credential, query=asked)).succeeded()["tickets"]
        assert [ticket["id"] for ticket in listed] == [of_application["id"]][: credential is application]
        for made in hidden:
            for path in ({"id": made["id"]}, {"id": made["number"]}):
                (await transport.call("helpdesk.get", credential, path=path, query=asked)).failed("not_found")
                (await transport.call("helpdesk.events", credential, path=path)).failed("not_found")
            for act in (delete, restore):
                (await act(transport, credential, made)).failed("not_found", "Ticket not found")
    for made in (of_person, of_application):
        assert len(await history(transport, person, made)) == 2


async def test_include_deleted_is_true_or_false(rest: Rest, world: World) -> None:
    person = world.person("read", "write")
    made = await create(rest, person)
    query = {"include_deleted": "maybe"}
    reply = await rest.call("helpdesk.get", person, path={"id": made["id"]}, query=query)
    reply.failed("validation_error", paths=["include_deleted"])
