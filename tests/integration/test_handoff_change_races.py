"""contracts/handoff.md at both doors: changes at the same moment, and changes under an idempotency key."""

import asyncio
from typing import Any
from uuid import uuid4

from board import Door, change, changed, created, history, read, starts
from board_filed import filed
from system import World

# Two at the same moment


async def test_the_last_two_roles_done_at_the_same_moment_close_the_ticket_once(door: Door, world: World) -> None:
    who, one = await filed(door, world)
    for _ in range(5):
        ticket = await created(door, who, one["project_id"], roles=["qa", "backend"])
        for role in ("qa", "backend"):
            await changed(door, who, ticket, role_status=starts(role))
        done = [change(door, who, ticket, role_status={"role": role, "status": "done"}) for role in ("qa", "backend")]
        for reply in await asyncio.gather(*done):
            reply.succeeded()
        assert (await read(door, who, ticket))["status"] == "closed"
        kinds = [event["type"] for event in await history(door, who, ticket)]
        assert kinds.count("ticket.closed") == 1


async def test_of_two_with_the_same_lock_one_is_stale(door: Door, world: World) -> None:
    who, ticket = await filed(door, world)
    for _ in range(5):
        replies = await asyncio.gather(
            *(change(door, who, ticket, title=str(uuid4()), updated_at=ticket["updated_at"]) for _ in range(6))
        )
        won = [reply for reply in replies if "ticket" in reply.body]
        for reply in replies:
            if reply not in won:
                reply.failed("stale")
        assert len(won) == 1
        ticket = won[0].body["ticket"]
    assert await read(door, who, ticket) == ticket


async def test_a_role_started_by_many_at_once_starts_once(door: Door, world: World) -> None:
    who, ticket = await filed(door, world, roles=["backend", "qa"])
    notes = [f"note {number}" for number in range(6)]
    replies = await asyncio.gather(
        *(change(door, who, ticket, role_status=starts(work_started_note=note)) for note in notes)
    )
    after = [reply.succeeded()["ticket"]["roles"][0]["started_at"] for reply in replies]
    assert len(set(after)) == 1
    versions = [event["version"] for event in await history(door, who, ticket)]
    assert versions == list(range(1, len(versions) + 1))


async def test_roles_replaced_while_one_of_them_is_done_leave_no_closed_ticket_with_work_to_do(
    door: Door, world: World
) -> None:
    who, one = await filed(door, world)
    for _ in range(8):
        ticket = await created(door, who, one["project_id"])
        await changed(door, who, ticket, role_status=starts())
        await asyncio.gather(
            change(door, who, ticket, role_status={"role": "backend", "status": "done"}),
            change(door, who, ticket, roles=["backend", "qa"]),
        )
        after = await read(door, who, ticket)
        assert after["status"] == "open"
        assert [role["status"] for role in after["roles"]] == ["done", "pending"]


# Idempotency


async def test_a_change_under_a_key_is_made_once(door: Door, world: World) -> None:
    who, ticket = await filed(door, world, evidence={"n": 1.10})
    key = {"idempotency-key": "k"}
    lock = {"updated_at": ticket["updated_at"]}
    first = (await change(door, who, ticket, key, title="New", **lock)).succeeded()
    await changed(door, who, ticket, title="Newer")
    again = await change(door, who, ticket, key, title="New", **lock)
    assert again.succeeded() == first
    assert again.headers["idempotent-replayed"] == "true"
    (await change(door, who, ticket, key, title="Other", **lock)).failed("idempotency_mismatch")
    other = await created(door, who, ticket["project_id"])
    (await change(door, who, other, key, title="New", **lock)).failed("idempotency_mismatch")
    assert (await read(door, who, ticket))["title"] == "Newer"


async def test_a_change_of_deep_evidence_is_replayed(door: Door, world: World) -> None:
    who, ticket = await filed(door, world)
    deep: Any = 1
    for _ in range(97):
        deep = {"a": deep}
    key = {"idempotency-key": "deep"}
    first = (await change(door, who, ticket, key, evidence=deep)).succeeded()
    assert (await change(door, who, ticket, key, evidence=deep)).succeeded() == first


async def test_a_change_that_failed_leaves_its_key_free(door: Door, world: World) -> None:
    who, ticket = await filed(door, world)
    key = {"idempotency-key": "k"}
    (await change(door, who, ticket, key, status="closed")).failed("roles_incomplete")
    await changed(door, who, ticket, role_status={"role": "backend", "status": "skipped"}, stage="up_next")
    (await change(door, who, ticket, key, status="closed")).succeeded()


async def test_the_same_key_at_the_same_moment_changes_once(door: Door, world: World) -> None:
    who, ticket = await filed(door, world)
    key = {"idempotency-key": "k"}
    calls = [change(door, who, ticket, key, title="New", updated_at=None) for _ in range(8)]
    answers = [reply.succeeded() for reply in await asyncio.gather(*calls)]
    assert all(answer == answers[0] for answer in answers)
    assert len(await history(door, who, ticket)) == 2
