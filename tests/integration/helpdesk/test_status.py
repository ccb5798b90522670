"""contracts/helpdesk.md at both transports: how a ticket's status changes, how it is closed, and its history."""

import asyncio
from typing import Any

import pytest
from support.helpdesk import URL, Transport, close, create, get, new_tenant_id, update
from support.system import World
from support.transports import Rest, rest_reply

UNRESOLVED = ("open", "in_progress", "pending")

# From, to, and what becomes of `resolved_at`: a new stamp, null, or what it was.
MOVES = [
    *((was, becomes, None) for was in UNRESOLVED for becomes in UNRESOLVED),
    *((was, becomes, "stamped") for was in UNRESOLVED for becomes in ("resolved", "closed")),
    *((was, becomes, None) for was in ("resolved", "closed") for becomes in UNRESOLVED),
    ("resolved", "resolved", "kept"),
    ("resolved", "closed", "kept"),
    ("closed", "closed", "kept"),
    ("closed", "resolved", "kept"),
]


def events(world: World, ticket: Any, columns: str) -> list[tuple[Any, ...]]:
    sql = f"SELECT {columns} FROM helpdesk_events WHERE tenant_id = %s AND ticket_id = %s ORDER BY version"
    return world.rows(sql, ticket["tenant_id"], ticket["id"])


# Status


@pytest.mark.parametrize("status", [*UNRESOLVED, "resolved", "closed"])
async def test_a_ticket_created_as_resolved_or_closed_has_resolved_at(
    transport: Transport, world: World, status: str
) -> None:
    made = await create(transport, world.person("write", "agent"), status=status)
    assert made["status"] == status
    assert made["resolved_at"] == (None if status in UNRESOLVED else made["created_at"])


def test_every_move_between_two_statuses_is_in_the_table() -> None:
    statuses = {*UNRESOLVED, "resolved", "closed"}
    assert {move[:2] for move in MOVES} == {(was, becomes) for was in statuses for becomes in statuses}
    assert len(MOVES) == len(statuses) ** 2


@pytest.mark.parametrize(("was", "becomes", "effect"), MOVES)
async def test_any_status_may_follow_any_other_and_decides_resolved_at(
    transport: Transport, world: World, was: str, becomes: str, effect: str | None
) -> None:
    person = world.person("read", "write", "agent")
    made = await create(transport, person, status=was)
    moved = (await update(transport, person, made, status=becomes)).succeeded()
    expected = {"stamped": moved["updated_at"], "kept": made["resolved_at"], None: None}[effect]
    assert (moved["status"], moved["resolved_at"]) == (becomes, expected)
    assert await get(transport, person, made) == moved
    # A change without a status keeps the stamp.
    assert (await update(transport, person, made, title="Other")).succeeded()["resolved_at"] == expected


# Closing


@pytest.mark.parametrize("was", [*UNRESOLVED, "resolved"])
@pytest.mark.parametrize("body", [None, {}, {"resolution_note": None}, {"resolution_note": "Rebooted"}], ids=str)
async def test_a_close_closes_and_changes_nothing_else(transport: Transport, world: World, was: str, body: Any) -> None:
    person = world.person("read", "write", "agent", sub="per_7")
    made = await create(transport, person, status=was, category="Network", tags={"a": 1})
    closed = (await close(transport, person, made, body)).succeeded()
    assert closed["updated_at"] > made["updated_at"]
    resolved_at = made["resolved_at"] if was == "resolved" else closed["updated_at"]
    stamps = {"status": "closed", "resolved_at": resolved_at, "updated_at": closed["updated_at"]}
    assert closed == {**made, **stamps}
    assert await get(transport, person, made) == closed
    changes: dict[str, Any] = {"status": {"from": was, "to": "closed"}}
    if body and body["resolution_note"]:
        changes["resolution_note"] = {"from": None, "to": "Rebooted"}
    assert events(world, made, "version, type, changes")[1:] == [(2, "ticket.closed", changes)]


async def test_closing_a_closed_ticket_changes_nothing_and_answers_the_same(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person, agent = (world.person("write", "agent", tenant_id=tenant_id, sub=sub) for sub in ("per_1", "per_2"))
    made = await create(transport, person)
    closed = (await close(transport, person, made)).succeeded()
    for body in (None, {"resolution_note": "Once more"}):
        assert (await close(transport, agent, made, body)).succeeded() == closed
    assert await get(transport, agent, made) == closed
    assert events(world, made, "type") == [("ticket.created",), ("ticket.closed",)]
    patched = await create(transport, person, status="closed")
    assert (await close(transport, person, patched)).succeeded() == patched


async def test_concurrent_closes_are_one(transport: Transport, world: World) -> None:
    person = world.person("write", "agent")
    made = await create(transport, person)
    bodies = [{"resolution_note": f"n{n}"} for n in range(12)]
    replies = await asyncio.gather(*(close(transport, person, made, body) for body in bodies))
    assert len({str(reply.succeeded()) for reply in replies}) == 1
    assert events(world, made, "version, type") == [(1, "ticket.created"), (2, "ticket.closed")]


async def test_a_resolution_note_holds_5000_characters(transport: Transport, world: World) -> None:
    person = world.person("read", "write", "agent")
    made = await create(transport, person)
    for note in ("é" * 5_001, "a\0b"):
        reply = await close(transport, person, made, {"resolution_note": note})
        reply.failed("validation_error", paths=["resolution_note"])
    assert await get(transport, person, made) == made
    (await close(transport, person, made, {"resolution_note": "é" * 5_000})).succeeded()
    [(changes,)] = events(world, made, "changes")[1:]
    assert changes["resolution_note"] == {"from": None, "to": "é" * 5_000}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (b"[]", ["body"]),
        (b'"Rebooted"', ["body"]),
        (b"{", ["body"]),
        (b'{"resolution_note": "x",}', ["body"]),
        (b'{"resolution_note": 1}', ["resolution_note"]),
        (b'{"resolution_note": ["x"]}', ["resolution_note"]),
        (b'{"status": "open", "note": 1}', ["status", "note"]),
    ],
)
async def test_a_close_with_a_bad_body_closes_nothing(rest: Rest, world: World, text: bytes, paths: list[str]) -> None:
    person = world.person("read", "write", "agent")
    made = await create(rest, person)
    response = await rest.client.post(f"{URL}/{made['id']}/close", content=text, headers=person)
    rest_reply("helpdesk", response).failed("validation_error", paths=paths)
    assert await get(rest, person, made) == made


@pytest.mark.parametrize("text", [b"", b"null", b"{}", b'{"id": "x", "number": 1}'])
async def test_a_close_needs_no_body(rest: Rest, world: World, text: bytes) -> None:
    person = world.person("write", "agent")
    made = await create(rest, person)
    response = await rest.client.post(f"{URL}/{made['id']}/close", content=text, headers=person)
    assert rest_reply("helpdesk", response).succeeded()["status"] == "closed"


# History


async def test_each_write_leaves_one_event(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("write", "agent", tenant_id=tenant_id, sub="per_1")
    agent = world.person("agent", tenant_id=tenant_id, sub="per_2")
    made = await create(transport, person, team_id="grp_1")
    await update(transport, agent, made, status="in_progress", assigned_to_id="per_2", tags=["a"], team_id=None)
    await close(transport, agent, made, {"resolution_note": "Rebooted"})
    await update(transport, person, made, status="open", title=made["title"])
    await update(transport, person, made)
    await update(transport, agent, made, status="resolved")
    await update(transport, agent, made, status="closed")
    assert events(world, made, "version, type, changes, actor") == [
        (1, "ticket.created", {}, "per_1"),
        (
            2,
            "ticket.updated",
            {
                "status": {"from": "open", "to": "in_progress"},
                "assigned_to_id": {"from": None, "to": "per_2"},
                "team_id": {"from": "grp_1", "to": None},
                "tags": {"from": [], "to": ["a"]},
            },
            "per_2",
        ),
        (
            3,
            "ticket.closed",
            {"status": {"from": "in_progress", "to": "closed"}, "resolution_note": {"from": None, "to": "Rebooted"}},
            "per_2",
        ),
        (4, "ticket.reopened", {"status": {"from": "closed", "to": "open"}}, "per_1"),
        (5, "ticket.updated", {}, "per_1"),
        (6, "ticket.updated", {"status": {"from": "open", "to": "resolved"}}, "per_2"),
        (7, "ticket.closed", {"status": {"from": "resolved", "to": "closed"}}, "per_2"),
    ]


async def test_an_event_has_the_id_of_its_request(transport: Transport, world: World) -> None:
    person = world.person("write", "agent")
    first = await transport.call("helpdesk.create", person, body={"title": "x"}, headers={"x-request-id": "r-1"})
    made = first.succeeded(201)
    second = await update(transport, person, made, title="y")
    third = await close(transport, person, made, **{"x-request-id": "r-3"})
    ids = [reply.headers["x-request-id"] for reply in (first, second, third)]
    assert ids == ["r-1", ids[1], "r-3"]
    assert events(world, made, "request_id") == [(request_id,) for request_id in ids]


async def test_a_rejected_write_leaves_no_event(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person, other = (world.person("read_all", "write", tenant_id=tenant_id, sub=sub) for sub in ("per_1", "per_2"))
    made = await create(transport, person)
    (await update(transport, other, made, title="x")).failed("forbidden")
    (await close(transport, other, made)).failed("forbidden")
    (await update(transport, person, made, title="")).failed("validation_error", paths=["title"])
    (await update(transport, person, made, title="x", priority="low")).failed("forbidden", paths=["priority"])
    assert events(world, made, "type") == [("ticket.created",)]


async def test_concurrent_patches_lose_nothing(transport: Transport, world: World) -> None:
    person = world.person("write", "agent")
    made = await create(transport, person)
    replies = await asyncio.gather(*(update(transport, person, made, title=f"t{n}") for n in range(20)))
    answers = sorted((reply.succeeded() for reply in replies), key=lambda ticket: str(ticket["updated_at"]))
    assert len({ticket["updated_at"] for ticket in answers}) == 20
    titles = [changes["title"] for (changes,) in events(world, made, "changes")[1:]]
    assert [change["to"] for change in titles] == [ticket["title"] for ticket in answers]
    assert [change["from"] for change in titles] == [made["title"], *(change["to"] for change in titles[:-1])]
