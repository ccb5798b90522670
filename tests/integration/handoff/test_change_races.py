"""contracts/handoff.md at both transports: concurrent changes, and changes under an idempotency key."""

import asyncio
from typing import Any
from uuid import uuid4

from support.handoff import Transport, change, changed, created, filed, history, read, starts
from support.system import World

# Concurrent changes


async def test_the_last_two_roles_done_concurrently_close_the_ticket_once(transport: Transport, world: World) -> None:
    who, one = await filed(transport, world)
    for _ in range(5):
        ticket = await created(transport, who, one["project_id"], roles=["qa", "backend"])
        for role in ("qa", "backend"):
            await changed(transport, who, ticket, role_status=starts(role))
        done = [
            change(transport, who, ticket, role_status={"role": role, "status": "done"}) for role in ("qa", "backend")
        ]
        for reply in await asyncio.gather(*done):
            reply.succeeded()
        assert (await read(transport, who, ticket))["status"] == "closed"
        kinds = [event["type"] for event in await history(transport, who, ticket)]
        assert kinds.count("ticket.closed") == 1


async def test_of_changes_with_the_same_updated_at_only_one_is_not_stale(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    for _ in range(5):
        replies = await asyncio.gather(
            *(change(transport, who, ticket, title=str(uuid4()), updated_at=ticket["updated_at"]) for _ in range(6))
        )
        won = [reply for reply in replies if "ticket" in reply.body]
        for reply in replies:
            if reply not in won:
                reply.failed("stale")
        assert len(won) == 1
        ticket = won[0].body["ticket"]
    assert await read(transport, who, ticket) == ticket


async def test_a_role_started_concurrently_starts_once(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world, roles=["backend", "qa"])
    notes = [f"note {number}" for number in range(6)]
    replies = await asyncio.gather(
        *(change(transport, who, ticket, role_status=starts(work_started_note=note)) for note in notes)
    )
    after = [reply.succeeded()["ticket"]["roles"][0]["started_at"] for reply in replies]
    assert len(set(after)) == 1
    versions = [event["version"] for event in await history(transport, who, ticket)]
    assert versions == list(range(1, len(versions) + 1))


async def test_replacing_roles_while_one_is_done_leaves_no_closed_ticket_with_open_roles(
    transport: Transport, world: World
) -> None:
    who, one = await filed(transport, world)
    for _ in range(8):
        ticket = await created(transport, who, one["project_id"])
        await changed(transport, who, ticket, role_status=starts())
        await asyncio.gather(
            change(transport, who, ticket, role_status={"role": "backend", "status": "done"}),
            change(transport, who, ticket, roles=["backend", "qa"]),
        )
        after = await read(transport, who, ticket)
        assert after["status"] == "open"
        assert [role["status"] for role in after["roles"]] == ["done", "pending"]


# Idempotency


async def test_a_change_under_a_key_is_made_once(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world, evidence={"n": 1.10})
    key = {"idempotency-key": "k"}
    lock = {"updated_at": ticket["updated_at"]}
    first = (await change(transport, who, ticket, key, title="New", **lock)).succeeded()
    await changed(transport, who, ticket, title="Newer")
    again = await change(transport, who, ticket, key, title="New", **lock)
    assert again.succeeded() == first
    assert again.headers["idempotent-replayed"] == "true"
    (await change(transport, who, ticket, key, title="Other", **lock)).failed("idempotency_mismatch")
    other = await created(transport, who, ticket["project_id"])
    (await change(transport, who, other, key, title="New", **lock)).failed("idempotency_mismatch")
    assert (await read(transport, who, ticket))["title"] == "Newer"


async def test_a_change_of_deep_evidence_is_replayed(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    deep: Any = 1
    for _ in range(97):
        deep = {"a": deep}
    key = {"idempotency-key": "deep"}
    first = (await change(transport, who, ticket, key, evidence=deep)).succeeded()
    assert (await change(transport, who, ticket, key, evidence=deep)).succeeded() == first


async def test_a_change_that_failed_leaves_its_key_free(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    key = {"idempotency-key": "k"}
    (await change(transport, who, ticket, key, status="closed")).failed("roles_incomplete")
    await changed(transport, who, ticket, role_status={"role": "backend", "status": "skipped"}, stage="up_next")
    (await change(transport, who, ticket, key, status="closed")).succeeded()


async def test_concurrent_changes_under_one_key_change_once(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    key = {"idempotency-key": "k"}
    calls = [change(transport, who, ticket, key, title="New", updated_at=None) for _ in range(8)]
    answers = [reply.succeeded() for reply in await asyncio.gather(*calls)]
    assert all(answer == answers[0] for answer in answers)
    assert len(await history(transport, who, ticket)) == 2
