"""contracts/helpdesk.md at both doors: deleted and restored tickets, and writes that must not overwrite another."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from desk import TICKET, URL, Door, close, create, get, numbers, update
from harness import METHODS, Grpc, Reply, Rest, rest_reply
from system import Credential, World
from tickets.helpdesk.v1 import service_pb2

ALL = ("read", "write", "agent")
MISSING = "tkt_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MARKED = ("is_deleted", "deleted_at", "deleted_by", "updated_at", "updated_by")


def tenant() -> str:
    return f"ten_{uuid4().hex}"


async def delete(door: Door, person: Credential, ticket: Any) -> Reply:
    return await door.call("helpdesk.delete", person, path={"id": ticket["id"]})


async def restore(door: Door, person: Credential, ticket: Any) -> Reply:
    return await door.call("helpdesk.restore", person, path={"id": ticket["id"]})


async def history(door: Door, person: Credential, ticket: Any) -> list[Any]:
    reply = await door.call("helpdesk.events", person, path={"id": ticket["id"]}, query={"limit": 100})
    events: list[Any] = reply.succeeded()["events"]
    return events


async def whole(door: Door, person: Credential, ticket: Any) -> Any:
    """The ticket, deleted or not."""
    reply = await door.call("helpdesk.get", person, path={"id": ticket["id"]}, query={"include_deleted": True})
    return reply.succeeded()


async def etag(door: Door, person: Credential, ticket: Any) -> str:
    reply = await door.call("helpdesk.get", person, path={"id": ticket["id"]}, query={"include_deleted": True})
    reply.succeeded()
    return reply.headers["etag"]


# Delete


async def test_a_deleted_ticket_is_marked_so_and_else_as_it_was(door: Door, world: World) -> None:
    tenant_id = tenant()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made = await create(door, submitter, status="resolved", tags={"a": 1}, due_at="2030-01-01T00:00:00Z")
    deleted = (await delete(door, agent, made)).succeeded()
    assert deleted["deleted_at"] == deleted["updated_at"] > made["updated_at"]
    assert (deleted["is_deleted"], deleted["deleted_by"], deleted["updated_by"]) == (True, "per_agent", "per_agent")
    assert deleted == {**made, **{name: deleted[name] for name in MARKED}}
    assert await whole(door, submitter, made) == deleted


@pytest.mark.parametrize("name", ["id", "number"])
async def test_a_deleted_ticket_is_not_found_unless_asked_for(door: Door, world: World, name: str) -> None:
    person = world.person(*ALL)
    kept, made = [await create(door, person) for _ in range(2)]
    deleted = (await delete(door, person, made)).succeeded()
    path = {"id": made[name]}
    bodies = {"helpdesk.update": {"title": "New"}, "helpdesk.close": None, "helpdesk.comment": {"body": "x"}}
    for operation in ("helpdesk.get", *bodies, "helpdesk.comments"):
        reply = await door.call(operation, person, path=path, body=bodies.get(operation))
        reply.failed("not_found", "Ticket not found")
    asked = {"include_deleted": True}
    assert (await door.call("helpdesk.get", person, path=path, query=asked)).succeeded() == deleted
    unasked = {"include_deleted": False}
    (await door.call("helpdesk.get", person, path=path, query=unasked)).failed("not_found")
    assert await numbers(door, person) == [kept["number"]]
    listed = (await door.call("helpdesk.list", person, query=asked)).succeeded()["tickets"]
    assert listed == [deleted, kept]
    # Its history stays to be read.
    events = (await door.call("helpdesk.events", person, path=path)).succeeded()["events"]
    assert [event["type"] for event in events] == ["ticket.created", "ticket.deleted"]


async def test_its_comments_come_back_with_it_and_no_number_is_given_twice(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    path = {"id": made["id"]}
    comment = (await door.call("helpdesk.comment", person, path=path, body={"body": "x"})).succeeded(201)
    (await delete(door, person, made)).succeeded()
    edit = {"id": made["id"], "comment_id": comment["id"]}
    (await door.call("helpdesk.edit", person, path=edit, body={"body": "y"})).failed("not_found")
    assert (await create(door, person))["number"] == "TKT-0002"
    (await restore(door, person, made)).succeeded()
    assert (await door.call("helpdesk.comments", person, path=path)).succeeded()["comments"] == [comment]


async def test_a_restored_ticket_is_as_it_was(door: Door, world: World) -> None:
    tenant_id = tenant()
    person = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made = await create(door, person, status="pending", category="Network", tags=["vpn"])
    deleted = (await delete(door, person, made)).succeeded()
    restored = (await restore(door, agent, made)).succeeded()
    assert restored["updated_at"] > deleted["updated_at"]
    assert restored == {**made, "updated_at": restored["updated_at"], "updated_by": "per_agent"}
    assert await get(door, person, made) == restored
    assert await numbers(door, person) == ["TKT-0001"]
    (await update(door, person, made, title="New")).succeeded()
    events = await history(door, person, made)
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


async def test_by_its_number_it_is_deleted_and_restored_too(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    by_number = {"id": made["number"]}
    assert (await delete(door, person, by_number)).succeeded()["id"] == made["id"]
    assert (await restore(door, person, by_number)).succeeded()["id"] == made["id"]
    for name in (MISSING, "TKT-0002", "tkt_x", "0001"):
        for act in (delete, restore):
            (await act(door, person, {"id": name})).failed("not_found", "Ticket not found")


async def test_twice_is_once(door: Door, world: World) -> None:
    tenant_id = tenant()
    person, other = (world.person(*ALL, tenant_id=tenant_id, sub=sub) for sub in ("per_1", "per_2"))
    made = await create(door, person)
    tags = []
    for act, kinds in ((restore, 1), (delete, 2), (restore, 3)):
        first, second = await act(door, person, made), await act(door, other, made)
        assert second.succeeded() == first.succeeded()
        assert second.headers["etag"] == first.headers["etag"]
        tags.append(first.headers["etag"])
        assert len(await history(door, person, made)) == kinds
    assert len(set(tags)) == 3


@pytest.mark.parametrize("act", [delete, restore])
async def test_many_at_the_same_moment_are_one(door: Door, world: World, act: Any) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    if act is restore:
        (await delete(door, person, made)).succeeded()
    before = len(await history(door, person, made))
    replies = await asyncio.gather(*(act(door, person, made) for _ in range(12)))
    assert len({str(reply.succeeded()) for reply in replies}) == 1
    assert len(await history(door, person, made)) == before + 1


@pytest.mark.parametrize("act", [delete, restore])
@pytest.mark.parametrize(
    ("sub", "scopes", "reason"),
    [
        ("per_submitter", ("write",), None),
        ("per_other", ("agent",), None),
        ("per_creator", ("write", "agent"), None),
        ("per_submitter", ("read",), "missing_scope"),
        ("per_other", ("read", "write"), "forbidden"),
        ("per_assigned", ("read", "write"), "forbidden"),
        # Who created it for someone else has not submitted it.
        ("per_creator", ("read", "write"), "forbidden"),
    ],
)
async def test_who_may_delete_and_restore(
    door: Door, world: World, act: Any, sub: str, scopes: tuple[str, ...], reason: str | None
) -> None:
    tenant_id = tenant()
    creator = world.person(*ALL, tenant_id=tenant_id, sub="per_creator")
    made = await create(door, creator, submitted_by_id="per_submitter", assigned_to_id="per_assigned")
    if act is restore:
        (await delete(door, creator, made)).succeeded()
    before = await whole(door, creator, made)
    reply = await act(door, world.person(*scopes, tenant_id=tenant_id, sub=sub), made)
    if reason is None:
        assert reply.succeeded()["is_deleted"] is (act is delete)
        assert await whole(door, creator, made) == reply.body
    else:
        reply.failed(reason)
        assert await whole(door, creator, made) == before


async def test_a_deleted_ticket_is_seen_by_its_tenant_and_application_alone(door: Door, world: World) -> None:
    tenant_id = tenant()
    person = world.person(*ALL, tenant_id=tenant_id)
    application = world.person(*ALL, tenant_id=tenant_id, app_id="app_1")
    of_person, of_application = await create(door, person), await create(door, application)
    for made in (of_person, of_application):
        (await delete(door, person, made)).succeeded()
    asked = {"include_deleted": True}
    strangers = [
        (world.person(*ALL), [of_person, of_application]),
        (world.person(*ALL, app_id="app_1"), [of_person, of_application]),
        (world.person(*ALL, tenant_id=tenant_id, app_id="app_2"), [of_person, of_application]),
        (application, [of_person]),
    ]
    for credential, hidden in strangers:
        listed = (await door.call("helpdesk.list", credential, query=asked)).succeeded()["tickets"]
        assert [ticket["id"] for ticket in listed] == [of_application["id"]][: credential is application]
        for made in hidden:
            for path in ({"id": made["id"]}, {"id": made["number"]}):
                (await door.call("helpdesk.get", credential, path=path, query=asked)).failed("not_found")
                (await door.call("helpdesk.events", credential, path=path)).failed("not_found")
            for act in (delete, restore):
                (await act(door, credential, made)).failed("not_found", "Ticket not found")
    for made in (of_person, of_application):
        assert len(await history(door, person, made)) == 2


async def test_include_deleted_is_true_or_false(rest: Rest, world: World) -> None:
    person = world.person("read", "write")
    made = await create(rest, person)
    query = {"include_deleted": "maybe"}
    reply = await rest.call("helpdesk.get", person, path={"id": made["id"]}, query=query)
    reply.failed("validation_error", paths=["include_deleted"])


# ETags


async def test_every_answer_that_is_one_ticket_says_its_etag(door: Door, world: World) -> None:
    person, tags = world.person(*ALL), list[str]()
    first = await door.call("helpdesk.create", person, body=TICKET)
    made = first.succeeded(201)
    path = {"id": made["id"]}
    steps = [
        first,
        await update(door, person, made, title="New"),
        await close(door, person, made),
        await delete(door, person, made),
        await restore(door, person, made),
    ]
    tags = [reply.headers["etag"] for reply in steps]
    comment = await door.call("helpdesk.comment", person, path=path, body={"body": "x"})
    tags.append(await etag(door, person, made))
    edit = {**path, "comment_id": comment.succeeded(201)["id"]}
    edited = await door.call("helpdesk.edit", person, path=edit, body={"body": "y"})
    edited.succeeded()
    tags.append(await etag(door, person, made))
    # Every write makes another, strong one; nothing else does.
    assert len(set(tags)) == len(tags)
    assert all(tag[0] == tag[-1] == '"' and len(tag) > 2 for tag in tags)
    (await close(door, person, made)).succeeded()
    (await restore(door, person, made)).succeeded()
    others = [comment, edited]
    for operation in ("helpdesk.list", "helpdesk.comments", "helpdesk.events"):
        others.append(await door.call(operation, person, path=None if operation == "helpdesk.list" else path))
        others[-1].succeeded()
    assert await etag(door, person, made) == tags[-1]
    assert [reply.headers.get("etag") for reply in others] == [None] * 5


async def test_an_answer_with_an_etag_says_what_the_last_write_said(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    for act in (close, delete, restore):
        said = (await act(door, person, made)).headers["etag"]
        assert await etag(door, person, made) == said


async def test_tickets_in_lists_have_no_etag(rpc: Grpc, world: World) -> None:
    person = world.person(*ALL)
    await create(rpc, person)
    call = rpc.channel.unary_unary(
        "/tickets.helpdesk.v1.TicketService/ListTickets",
        request_serializer=service_pb2.ListTicketsRequest.SerializeToString,
        response_deserializer=service_pb2.ListTicketsResponse.FromString,
    )
    answer: Any = await call(service_pb2.ListTicketsRequest(), metadata=tuple(person.items()))
    assert [ticket.HasField("etag") for ticket in answer.tickets] == [False]


@pytest.mark.parametrize("operation", ["helpdesk.create", "helpdesk.close"])
async def test_a_replayed_answer_says_the_etag_of_the_first(door: Door, world: World, operation: str) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    path, body = (None, TICKET) if operation == "helpdesk.create" else ({"id": made["id"]}, None)
    headers = {"idempotency-key": "key"}
    first = await door.call(operation, person, path=path, body=body, headers=headers)
    (await update(door, person, first.body, title="New")).succeeded()
    again = await door.call(operation, person, path=path, body=body, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body == first.body
    assert again.headers.get("etag") == first.headers["etag"]


# If-Match

# What becomes of a write under it; `{}` is the ticket's tag as it is now.
CONDITIONS = [
    ("{}", True),
    ("*", True),
    ('"x",{}', True),
    ('{},"x"', True),
    ('"x",W/"y",{},"z"', True),
    ('"x"', False),
    ('""', False),
    # Weak tags never match here (RFC 9110, 13.1.1).
    ("W/{}", False),
    ('W/{},"x"', False),
    ('"x","y"', False),
]
WRITES: Mapping[str, Mapping[str, Any]] = {
    "helpdesk.update": {"title": "New"},
    "helpdesk.close": {},
    "helpdesk.delete": {},
    "helpdesk.restore": {},
}


async def write(
    door: Door, operation: str, person: Credential, ticket: Any, *, member: str | None = None, **headers: str
) -> Reply:
    """A write under a condition that is said as a member of the body (a delete: the query), in a header, or both."""
    said = {} if member is None else {"etag": member}
    query, body = (said, None) if operation == "helpdesk.delete" else ({}, {**WRITES[operation], **said})
    return await door.call(operation, person, path={"id": ticket["id"]}, query=query, body=body, headers=headers)


async def written_to(door: Door, person: Credential, operation: str) -> Any:
    """A ticket to which this can be done, and which is no more as it was made."""
    made = await create(door, person)
    changed = (await update(door, person, made, category="x")).succeeded()
    return (await delete(door, person, made)).succeeded() if operation == "helpdesk.restore" else changed


@pytest.mark.parametrize("operation", WRITES)
@pytest.mark.parametrize("form", ["header", "member"])
@pytest.mark.parametrize(("condition", "is_met"), CONDITIONS)
async def test_a_write_counts_while_the_ticket_is_as_it_was(
    door: Door, world: World, operation: str, form: str, condition: str, is_met: bool
) -> None:
    person = world.person(*ALL)
    ticket = await written_to(door, person, operation)
    tag, events = await etag(door, person, ticket), await history(door, person, ticket)
    said = condition.format(tag)
    if form == "header":
        reply = await write(door, operation, person, ticket, **{"if-match": said})
    else:
        reply = await write(door, operation, person, ticket, member=said)
    if is_met:
        changed = reply.succeeded()
        assert await whole(door, person, ticket) == changed != ticket
        assert await etag(door, person, ticket) == reply.headers["etag"] != tag
        assert len(await history(door, person, ticket)) == len(events) + 1
        # What was met is not met any more.
        if operation == "helpdesk.update" and said != "*":
            (await write(door, operation, person, ticket, member=said)).failed("stale")
    else:
        reply.failed("stale")
        assert await whole(door, person, ticket) == ticket
        assert await etag(door, person, ticket) == tag
        assert await history(door, person, ticket) == events


@pytest.mark.parametrize("operation", WRITES)
async def test_spaces_stand_between_tags_as_they_like(door: Door, world: World, operation: str) -> None:
    person = world.person(*ALL)
    ticket = await written_to(door, person, operation)
    condition = f'"x" ,  {await etag(door, person, ticket)} , "y"'
    (await write(door, operation, person, ticket, **{"if-match": condition})).succeeded()


@pytest.mark.parametrize("operation", WRITES)
async def test_a_tag_of_an_earlier_version_is_stale(door: Door, world: World, operation: str) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    tag = await etag(door, person, made)
    path = {"id": made["id"]}
    # A comment is a change of the ticket too.
    (await door.call("helpdesk.comment", person, path=path, body={"body": "x"})).succeeded(201)
    if operation == "helpdesk.restore":
        (await delete(door, person, made)).succeeded()
    for condition in ({"if-match": tag}, {"member": tag}):
        (await write(door, operation, person, made, **condition)).failed("stale")


@pytest.mark.parametrize("operation", WRITES)
async def test_two_conditions_are_both_to_be_met(door: Door, world: World, operation: str) -> None:
    person = world.person(*ALL)
    ticket = await written_to(door, person, operation)
    tag = await etag(door, person, ticket)
    for member, header in ((tag, '"x"'), ('"x"', tag), ('"x"', "*"), ('"x"', '"x"')):
        (await write(door, operation, person, ticket, member=member, **{"if-match": header})).failed("stale")
    (await write(door, operation, person, ticket, member=tag, **{"if-match": tag})).succeeded()


async def test_a_list_of_tags_may_stand_in_several_headers(rest: Rest, world: World) -> None:
    person = world.person(*ALL)
    for other_first in (False, True):
        made = await create(rest, person)
        tags = ['"x"', await etag(rest, person, made)]
        lines = [("if-match", tag) for tag in (tags if other_first else tags[::-1])]
        headers = [*person.items(), ("content-type", "application/json"), *lines]
        answer = await rest.client.patch(f"{URL}/{made['id']}", content=b'{"title":"New"}', headers=headers)
        rest_reply("helpdesk", answer).succeeded()


async def test_nothing_said_is_no_condition(rest: Rest, world: World) -> None:
    person = world.person(*ALL)
    for operation in WRITES:
        ticket = await written_to(rest, person, operation)
        body = None if operation == "helpdesk.delete" else {**WRITES[operation], "etag": None}
        (await rest.call(operation, person, path={"id": ticket["id"]}, body=body)).succeeded()


async def test_the_same_request_again_after_its_answer_was_lost(door: Door, world: World) -> None:
    # Closing a closed ticket, and so on, changes nothing and answers the same: under its old condition too.
    person = world.person(*ALL)
    for operation in ("helpdesk.close", "helpdesk.delete", "helpdesk.restore"):
        ticket = await written_to(door, person, operation)
        condition = {"if-match": await etag(door, person, ticket)}
        first = await write(door, operation, person, ticket, **condition)
        again = await write(door, operation, person, ticket, **condition)
        assert again.succeeded() == first.succeeded()
        assert again.headers["etag"] == first.headers["etag"]


async def test_of_many_writers_who_saw_the_same_one_wins(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    tag = await etag(door, person, made)
    replies = await asyncio.gather(
        *(
            door.call("helpdesk.update", person, path={"id": made["id"]}, body={"title": f"t{n}", "etag": tag})
            for n in range(12)
        )
    )
    won = [reply for reply in replies if "etag" in reply.headers]
    assert len(won) == 1
    for reply in replies:
        if reply is not won[0]:
            reply.failed("stale")
    assert await get(door, person, made) == won[0].succeeded()
    assert len(await history(door, person, made)) == 2


async def test_a_tag_of_one_door_is_good_at_the_other(rest: Rest, rpc: Grpc, world: World) -> None:
    person = world.person(*ALL)
    made = await create(rest, person)
    for here, there in ((rest, rpc), (rpc, rest)):
        tag = await etag(here, person, made)
        assert await etag(there, person, made) == tag
        (await write(there, "helpdesk.update", person, made, **{"if-match": tag})).succeeded()
        (await write(here, "helpdesk.update", person, made, **{"if-match": tag})).failed("stale")


@pytest.mark.parametrize("operation", WRITES)
async def test_who_may_not_write_is_told_so_and_not_that_it_is_stale(door: Door, world: World, operation: str) -> None:
    tenant_id = tenant()
    person = world.person(*ALL, tenant_id=tenant_id)
    ticket = await written_to(door, person, operation)
    for credential, reason in (
        (world.person("read", "write", tenant_id=tenant_id, sub="per_2"), "forbidden"),
        (world.person("read", tenant_id=tenant_id), "missing_scope"),
        (world.person(*ALL, tenant_id=tenant_id, app_id="app_1"), "not_found"),
        (world.person(*ALL), "not_found"),
    ):
        for condition in ('"x"', "*", await etag(door, person, ticket)):
            (await write(door, operation, credential, ticket, **{"if-match": condition})).failed(reason)
            (await write(door, operation, credential, ticket, member=condition)).failed(reason)
    (await write(door, operation, person, {"id": MISSING}, **{"if-match": "*"})).failed("not_found")
    assert await whole(door, person, ticket) == ticket


@pytest.mark.parametrize("operation", WRITES)
async def test_conditions_have_bounds(door: Door, world: World, operation: str) -> None:
    person = world.person(*ALL)
    ticket = await written_to(door, person, operation)
    reply = await write(door, operation, person, ticket, member="x" * 65)
    reply.failed("validation_error", paths=["etag"])
    reply = await write(door, operation, person, ticket, **{"if-match": "x" * 1001})
    reply.failed("validation_error", paths=["if-match"])
    assert await whole(door, person, ticket) == ticket


@pytest.mark.parametrize("value", [17, True, ["x"], {}])
@pytest.mark.parametrize("operation", ["helpdesk.update", "helpdesk.close", "helpdesk.restore"])
async def test_an_etag_is_text(rest: Rest, world: World, operation: str, value: Any) -> None:
    person = world.person(*ALL)
    ticket = await written_to(rest, person, operation)
    reply = await rest.call(operation, person, path={"id": ticket["id"]}, body={**WRITES[operation], "etag": value})
    reply.failed("validation_error", paths=["etag"])


async def test_with_a_mask_the_condition_counts_unnamed(rpc: Grpc, world: World) -> None:
    person = world.person(*ALL)
    made = await create(rpc, person, category="x")

    async def masked(tag: str) -> Reply:
        request = service_pb2.UpdateTicketRequest(id=made["id"], title="New", etag=tag)
        request.update_mask.paths.append("category")
        return await rpc.send(METHODS["helpdesk.update"], request, person)

    (await masked('"x"')).failed("stale")
    changed = (await masked(await etag(rpc, person, made))).succeeded()
    assert (changed["title"], changed["category"]) == (made["title"], None)
