"""contracts/itsm.md at both transports: changes that change nothing, ETags, and conditional changes."""

import asyncio
from typing import Any

import pytest
from support.system import Program, World
from support.transports import Grpc, Reply, Rest

Transport = Rest | Grpc

TICKET: dict[str, Any] = {
    "subject": "VPN is down",
    "description": "Since nine.",
    "priority": "high",
    "metadata": {"floor": 3, "tags": ["a", 1.5, None], "asset": {"tag": "LT-1", "age": 2}},
}


@pytest.fixture
async def program(world: World) -> Program:
    return await world.program()


async def create(transport: Transport, program: Program) -> Reply:
    reply = await transport.call("itsm.create", program.credential, body=TICKET)
    reply.succeeded(201)
    return reply


async def get(transport: Transport, program: Program, ticket: Any) -> Reply:
    return await transport.call("itsm.get", program.credential, path={"ticket_id": ticket["id"]})


async def update(transport: Transport, program: Program, ticket: Any, body: Any, **headers: str) -> Reply:
    path = {"ticket_id": ticket["id"]}
    return await transport.call("itsm.update", program.credential, path=path, body=body, headers=headers)


def changes_of(world: World, ticket: Any) -> list[list[str]]:
    """The members that each change after the creation names."""
    rows = world.rows("SELECT changes FROM itsm_events WHERE ticket_id = %s ORDER BY version", ticket["id"])
    return [sorted(changes) for (changes,) in rows[1:]]


# "What changes nothing is not written: the same `updated_at`, no event, no webhook."

NOTHING: dict[str, Any] = {
    "no member": {},
    "a text": {"subject": TICKET["subject"]},
    "a word": {"status": "open", "priority": "high"},
    "what has no value": {"requester_email": None},
    "the same metadata": {"metadata": TICKET["metadata"]},
    "metadata of equal values": {
        "metadata": {"asset": {"age": 2.0, "tag": "LT-1"}, "tags": ["a", 1.50, None], "floor": 3e0}
    },
    "all of them": {**TICKET, "status": "open", "requester_email": None},
}


@pytest.mark.parametrize("body", NOTHING.values(), ids=NOTHING)
async def test_what_changes_nothing_is_not_written(
    transport: Transport, world: World, program: Program, body: Any
) -> None:
    made = await create(transport, program)
    again = await update(transport, program, made.body, body)
    assert again.succeeded() == made.body
    assert again.headers["etag"] == made.headers["etag"]
    assert (await get(transport, program, made.body)).succeeded() == made.body
    assert changes_of(world, made.body) == []


async def test_an_event_names_only_what_changed(transport: Transport, world: World, program: Program) -> None:
    made = (await create(transport, program)).body
    same = {"metadata": NOTHING["metadata of equal values"]["metadata"], "priority": "high"}
    changed = (await update(transport, program, made, {**same, "subject": "VPN again"})).succeeded()
    assert changed == {**made, "subject": "VPN again", "updated_at": changed["updated_at"]}
    # The order of an array is of its value, and so is the difference of a number and its text, of null and absent.
    for metadata in ({"tags": [1, 2]}, {"tags": [2, 1]}, {"tags": [2, "1"]}, {"tags": [2, "1", None]}):
        changed = (await update(transport, program, made, {"metadata": metadata})).succeeded()
        assert changed["metadata"] == metadata
    assert changes_of(world, made) == [["subject"], *[["metadata"]] * 4]


# "`ETag`/`If-Match` as in helpdesk.md."


async def test_every_answer_that_is_one_ticket_has_its_etag(transport: Transport, program: Program) -> None:
    made = await create(transport, program)
    changed = await update(transport, program, made.body, {"status": "closed"})
    read = await get(transport, program, made.body)
    tags = [reply.headers["etag"] for reply in (made, changed, read)]
    assert tags[0] != tags[1] == tags[2]
    assert all(tag[0] == tag[-1] == '"' and len(tag) > 2 for tag in tags)
    listed = await transport.call("itsm.list", program.credential)
    assert listed.succeeded()["tickets"] == [changed.body]
    assert "etag" not in listed.headers


# Conditions, and whether they are met; `{}` is the ticket's current ETag.
CONDITIONS = [
    ("{}", True),
    ("*", True),
    ('"x", {}', True),
    # Compared weakly.
    ("W/{}", True),
    ('"x"', False),
    ('"x", W/"y"', False),
]


@pytest.mark.parametrize("form", ["header", "member"])
@pytest.mark.parametrize(("condition", "is_met"), CONDITIONS)
async def test_a_change_counts_while_the_ticket_has_the_etag(
    transport: Transport, program: Program, form: str, condition: str, is_met: bool
) -> None:
    made = await create(transport, program)
    condition = condition.format(made.headers["etag"])
    given = {"etag": condition} if form == "member" else {}
    headers = {"if-match": condition} if form == "header" else {}
    reply = await update(transport, program, made.body, {"subject": "New", **given}, **headers)
    if is_met:
        assert reply.succeeded()["subject"] == "New"
    else:
        reply.failed("stale")
        assert (await get(transport, program, made.body)).succeeded() == made.body


async def test_of_changes_with_one_etag_at_once_one_is_made(transport: Transport, program: Program) -> None:
    made = await create(transport, program)
    tag = made.headers["etag"]
    replies = await asyncio.gather(
        *(update(transport, program, made.body, {"subject": f"s{n}"}, **{"if-match": tag}) for n in range(4))
    )
    won = [reply for reply in replies if "subject" in reply.body]
    for reply in replies:
        if reply not in won:
            reply.failed("stale")
    assert [reply.body for reply in won] == [(await get(transport, program, made.body)).body]


async def test_the_condition_is_part_of_the_request_of_a_key(transport: Transport, program: Program) -> None:
    made = await create(transport, program)
    key, tag = {"idempotency-key": "key"}, {"if-match": made.headers["etag"]}
    first = await update(transport, program, made.body, {"subject": "New"}, **key, **tag)
    first.succeeded()
    again = await update(transport, program, made.body, {"subject": "New"}, **key, **tag)
    assert (again.body, again.headers["etag"]) == (first.body, first.headers["etag"])
    assert again.headers["idempotent-replayed"] == "true"
    for other in ({}, {"if-match": "*"}):
        (await update(transport, program, made.body, {"subject": "New"}, **key, **other)).failed("idempotency_mismatch")
