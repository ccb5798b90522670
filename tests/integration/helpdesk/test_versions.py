"""contracts/helpdesk.md at both transports: ETags and conditional writes."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from support.helpdesk import TICKET, URL, Transport, close, create, get, new_tenant_id, update
from support.helpdesk_calls import ALL, MISSING, delete, etag, get_with_deleted, restore
from support.helpdesk_calls import events as history
from support.methods import METHODS
from support.system import Credential, World
from support.transports import Grpc, Reply, Rest, rest_reply
from tickets.helpdesk.v1 import ticket_service_pb2

# ETags


async def test_every_answer_that_is_one_ticket_has_its_etag(transport: Transport, world: World) -> None:
    person, tags = world.person(*ALL), list[str]()
    first = await transport.call("helpdesk.create", person, body=TICKET)
    made = first.succeeded(201)
    path = {"id": made["id"]}
    steps = [
        first,
        await update(transport, person, made, title="New"),
        await close(transport, person, made),
        await delete(transport, person, made),
        await restore(transport, person, made),
    ]
    tags = [reply.headers["etag"] for reply in steps]
    comment = await transport.call("helpdesk.comment", person, path=path, body={"body": "x"})
    tags.append(await etag(transport, person, made))
    edit = {**path, "comment_id": comment.succeeded(201)["id"]}
    edited = await transport.call("helpdesk.edit", person, path=edit, body={"body": "y"})
    edited.succeeded()
    tags.append(await etag(transport, person, made))
    # Every write makes another, strong one; nothing else does.
    assert len(set(tags)) == len(tags)
    assert all(tag[0] == tag[-1] == '"' and len(tag) > 2 for tag in tags)
    (await close(transport, person, made)).succeeded()
    (await restore(transport, person, made)).succeeded()
    others = [comment, edited]
    for operation in ("helpdesk.list", "helpdesk.comments", "helpdesk.events"):
        others.append(await transport.call(operation, person, path=None if operation == "helpdesk.list" else path))
        others[-1].succeeded()
    assert await etag(transport, person, made) == tags[-1]
    assert [reply.headers.get("etag") for reply in others] == [None] * 5


async def test_a_read_has_the_etag_of_the_last_write(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    for act in (close, delete, restore):
        tag = (await act(transport, person, made)).headers["etag"]
        assert await etag(transport, person, made) == tag


async def test_tickets_in_lists_have_no_etag(rpc: Grpc, world: World) -> None:
    person = world.person(*ALL)
    await create(rpc, person)
    call = rpc.channel.unary_unary(
        "/tickets.helpdesk.v1.TicketService/ListTickets",
        request_serializer=ticket_service_pb2.ListTicketsRequest.SerializeToString,
        response_deserializer=ticket_service_pb2.ListTicketsResponse.FromString,
    )
    answer: Any = await call(ticket_service_pb2.ListTicketsRequest(), metadata=tuple(person.items()))
    assert [ticket.HasField("etag") for ticket in answer.tickets] == [False]


@pytest.mark.parametrize("operation", ["helpdesk.create", "helpdesk.close"])
async def test_a_replayed_answer_has_the_etag_of_the_first(transport: Transport, world: World, operation: str) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    path, body = (None, TICKET) if operation == "helpdesk.create" else ({"id": made["id"]}, None)
    headers = {"idempotency-key": "key"}
    first = await transport.call(operation, person, path=path, body=body, headers=headers)
    (await update(transport, person, first.body, title="New")).succeeded()
    again = await transport.call(operation, person, path=path, body=body, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body == first.body
    assert again.headers.get("etag") == first.headers["etag"]


# If-Match

# Conditions, and whether they are met; `{}` is the ticket's current ETag.
CONDITIONS = [
    ("{}", True),
    ("*", True),
    ('"x",{}', True),
    ('{},"x"', True),
    ('"x",W/"y",{},"z"', True),
    ('"x"', False),
    ('""', False),
    # Compared weakly.
    ("W/{}", True),
    ('W/{},"x"', True),
    ('W/"x",W/"y"', False),
    ('"x","y"', False),
]
WRITES: Mapping[str, Mapping[str, Any]] = {
    "helpdesk.update": {"title": "New"},
    "helpdesk.close": {},
    "helpdesk.delete": {},
    "helpdesk.restore": {},
}


async def write(
    transport: Transport, operation: str, person: Credential, ticket: Any, *, member: str | None = None, **headers: str
) -> Reply:
    """A write with a condition in the body (a delete: in the query), in a header, or in both."""
    given = {} if member is None else {"etag": member}
    query, body = (given, None) if operation == "helpdesk.delete" else ({}, {**WRITES[operation], **given})
    return await transport.call(operation, person, path={"id": ticket["id"]}, query=query, body=body, headers=headers)


async def written_to(transport: Transport, person: Credential, operation: str) -> Any:
    """A ticket that the operation can change, and that has changed since it was created."""
    made = await create(transport, person)
    changed = (await update(transport, person, made, category="x")).succeeded()
    return (await delete(transport, person, made)).succeeded() if operation == "helpdesk.restore" else changed


@pytest.mark.parametrize("operation", WRITES)
@pytest.mark.parametrize("form", ["header", "member"])
@pytest.mark.parametrize(("condition", "is_met"), CONDITIONS)
async def test_a_write_succeeds_only_while_its_condition_is_met(
    transport: Transport, world: World, operation: str, form: str, condition: str, is_met: bool
) -> None:
    person = world.person(*ALL)
    ticket = await written_to(transport, person, operation)
    tag, events = await etag(transport, person, ticket), await history(transport, person, ticket)
    sent = condition.format(tag)
    if form == "header":
        reply = await write(transport, operation, person, ticket, **{"if-match": sent})
    else:
        reply = await write(transport, operation, person, ticket, member=sent)
    if is_met:
        changed = reply.succeeded()
        assert await get_with_deleted(transport, person, ticket) == changed != ticket
        assert await etag(transport, person, ticket) == reply.headers["etag"] != tag
        assert len(await history(transport, person, ticket)) == len(events) + 1
        # The condition is no longer met.
        if operation == "helpdesk.update" and sent != "*":
            (await write(transport, operation, person, ticket, member=sent)).failed("stale")
    else:
        reply.failed("stale")
        assert await get_with_deleted(transport, person, ticket) == ticket
        assert await etag(transport, person, ticket) == tag
        assert await history(transport, person, ticket) == events


@pytest.mark.parametrize("operation", WRITES)
async def test_spaces_between_tags_are_ignored(transport: Transport, world: World, operation: str) -> None:
    person = world.person(*ALL)
    ticket = await written_to(transport, person, operation)
    condition = f'"x" ,  {await etag(transport, person, ticket)} , "y"'
    (await write(transport, operation, person, ticket, **{"if-match": condition})).succeeded()


@pytest.mark.parametrize("operation", WRITES)
async def test_a_tag_of_an_earlier_version_is_stale(transport: Transport, world: World, operation: str) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    tag = await etag(transport, person, made)
    path = {"id": made["id"]}
    # A comment is a change of the ticket too.
    (await transport.call("helpdesk.comment", person, path=path, body={"body": "x"})).succeeded(201)
    if operation == "helpdesk.restore":
        (await delete(transport, person, made)).succeeded()
    for condition in ({"if-match": tag}, {"member": tag}):
        (await write(transport, operation, person, made, **condition)).failed("stale")


@pytest.mark.parametrize("operation", WRITES)
async def test_two_conditions_must_both_be_met(transport: Transport, world: World, operation: str) -> None:
    person = world.person(*ALL)
    ticket = await written_to(transport, person, operation)
    tag = await etag(transport, person, ticket)
    for member, header in ((tag, '"x"'), ('"x"', tag), ('"x"', "*"), ('"x"', '"x"')):
        (await write(transport, operation, person, ticket, member=member, **{"if-match": header})).failed("stale")
    (await write(transport, operation, person, ticket, member=tag, **{"if-match": tag})).succeeded()


async def test_a_list_of_tags_may_stand_in_several_headers(rest: Rest, world: World) -> None:
    person = world.person(*ALL)
    for other_first in (False, True):
        made = await create(rest, person)
        tags = ['"x"', await etag(rest, person, made)]
        lines = [("if-match", tag) for tag in (tags if other_first else tags[::-1])]
        headers = [*person.items(), ("content-type", "application/json"), *lines]
        answer = await rest.client.patch(f"{URL}/{made['id']}", content=b'{"title":"New"}', headers=headers)
        rest_reply("helpdesk", answer).succeeded()


async def test_without_an_etag_there_is_no_condition(rest: Rest, world: World) -> None:
    person = world.person(*ALL)
    for operation in WRITES:
        ticket = await written_to(rest, person, operation)
        body = None if operation == "helpdesk.delete" else {**WRITES[operation], "etag": None}
        (await rest.call(operation, person, path={"id": ticket["id"]}, body=body)).succeeded()


async def test_a_retry_after_a_lost_answer_succeeds(transport: Transport, world: World) -> None:
    # Closing a closed ticket, and so on, changes nothing and succeeds, with its old condition too.
    person = world.person(*ALL)
    for operation in ("helpdesk.close", "helpdesk.delete", "helpdesk.restore"):
        ticket = await written_to(transport, person, operation)
        condition = {"if-match": await etag(transport, person, ticket)}
        first = await write(transport, operation, person, ticket, **condition)
        again = await write(transport, operation, person, ticket, **condition)
        assert again.succeeded() == first.succeeded()
        assert again.headers["etag"] == first.headers["etag"]


async def test_of_concurrent_writes_with_one_etag_one_succeeds(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    tag = await etag(transport, person, made)
    replies = await asyncio.gather(
        *(
            transport.call("helpdesk.update", person, path={"id": made["id"]}, body={"title": f"t{n}", "etag": tag})
            for n in range(12)
        )
    )
    won = [reply for reply in replies if "etag" in reply.headers]
    assert len(won) == 1
    for reply in replies:
        if reply is not won[0]:
            reply.failed("stale")
    assert await get(transport, person, made) == won[0].succeeded()
    assert len(await history(transport, person, made)) == 2


async def test_an_etag_of_one_transport_is_valid_at_the_other(rest: Rest, rpc: Grpc, world: World) -> None:
    person = world.person(*ALL)
    made = await create(rest, person)
    for here, there in ((rest, rpc), (rpc, rest)):
        tag = await etag(here, person, made)
        assert await etag(there, person, made) == tag
        (await write(there, "helpdesk.update", person, made, **{"if-match": tag})).succeeded()
        (await write(here, "helpdesk.update", person, made, **{"if-match": tag})).failed("stale")


@pytest.mark.parametrize("operation", WRITES)
async def test_missing_rights_are_reported_before_stale_conditions(
    transport: Transport, world: World, operation: str
) -> None:
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    ticket = await written_to(transport, person, operation)
    for credential, reason in (
        (world.person("read_all", "write", tenant_id=tenant_id, sub="per_2"), "forbidden"),
        (world.person("read", "write", tenant_id=tenant_id, sub="per_2"), "not_found"),
        (world.person("read", tenant_id=tenant_id), "missing_scope"),
        (world.person(*ALL, tenant_id=tenant_id, app_id="app_1"), "not_found"),
        (world.person(*ALL), "not_found"),
    ):
        for condition in ('"x"', "*", await etag(transport, person, ticket)):
            (await write(transport, operation, credential, ticket, **{"if-match": condition})).failed(reason)
            (await write(transport, operation, credential, ticket, member=condition)).failed(reason)
    (await write(transport, operation, person, {"id": MISSING}, **{"if-match": "*"})).failed("not_found")
    assert await get_with_deleted(transport, person, ticket) == ticket


@pytest.mark.parametrize("operation", WRITES)
async def test_conditions_have_bounds(transport: Transport, world: World, operation: str) -> None:
    person = world.person(*ALL)
    ticket = await written_to(transport, person, operation)
    reply = await write(transport, operation, person, ticket, member="x" * 65)
    reply.failed("validation_error", paths=["etag"])
    reply = await write(transport, operation, person, ticket, **{"if-match": "x" * 1001})
    reply.failed("validation_error", paths=["if-match"])
    assert await get_with_deleted(transport, person, ticket) == ticket


@pytest.mark.parametrize("value", [17, True, ["x"], {}])
@pytest.mark.parametrize("operation", ["helpdesk.update", "helpdesk.close", "helpdesk.restore"])
async def test_an_etag_is_text(rest: Rest, world: World, operation: str, value: Any) -> None:
    person = world.person(*ALL)
    ticket = await written_to(rest, person, operation)
    reply = await rest.call(operation, person, path={"id": ticket["id"]}, body={**WRITES[operation], "etag": value})
    reply.failed("validation_error", paths=["etag"])


async def test_a_mask_need_not_name_the_condition(rpc: Grpc, world: World) -> None:
    person = world.person(*ALL)
    made = await create(rpc, person, category="x")

    async def masked(tag: str) -> Reply:
        request = ticket_service_pb2.UpdateTicketRequest(id=made["id"], title="New", etag=tag)
        request.update_mask.paths.append("category")
        return await rpc.send(METHODS["helpdesk.update"], request, person)

    (await masked('"x"')).failed("stale")
    changed = (await masked(await etag(rpc, person, made))).succeeded()
    assert (changed["title"], changed["category"]) == (made["title"], None)
