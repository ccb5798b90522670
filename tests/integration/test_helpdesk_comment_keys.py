"""contracts/helpdesk.md at both doors: a comment or a close under an idempotency key happens once."""

import asyncio

import pytest
from desk import Door, close, create, get, update
from desk_calls import ALL, MISMATCH, MISSING, comments, edit, events, say, tenant
from system import World


async def test_a_comment_under_a_key_is_written_once(door: Door, world: World) -> None:
    tenant_id = tenant()
    person = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made, other = [await create(door, person) for _ in range(2)]
    first = await say(door, agent, made, "key", internal=True)
    assert "idempotent-replayed" not in first.headers
    (await edit(door, agent, first.succeeded(201))).succeeded()
    again = await say(door, agent, made, "key", internal=True)
    assert again.headers["idempotent-replayed"] == "true"
    # The first answer, whatever became of it.
    assert again.succeeded(201) == first.body
    assert len(await comments(door, agent, made)) == 1
    for ticket, members in ((made, {"internal": True, "body": "y"}), (made, {}), (other, {"internal": True})):
        (await say(door, agent, ticket, "key", **members)).failed("idempotency_mismatch", MISMATCH)
    (await close(door, agent, made, **{"idempotency-key": "key"})).failed("idempotency_mismatch", MISMATCH)
    assert await comments(door, agent, other) == []
    # No agent any more: the answer is no more theirs.
    (await say(door, world.person("write", tenant_id=tenant_id, sub="per_agent"), made, "key", internal=True)).failed(
        "forbidden"
    )


async def test_many_requests_under_one_key_are_one_comment(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    replies = await asyncio.gather(*(say(door, person, made, "key") for _ in range(8)))
    [comment] = await comments(door, person, made)
    assert [reply.succeeded(201) for reply in replies] == [comment] * 8
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 7
    assert len(await events(door, person, made)) == 2


async def test_a_key_whose_request_failed_is_free(door: Door, world: World) -> None:
    tenant_id = tenant()
    person, other = (world.person("read", "write", tenant_id=tenant_id, sub=sub) for sub in ("per_1", "per_2"))
    made = await create(door, person)
    (await say(door, person, {"id": MISSING}, "key")).failed("not_found")
    (await say(door, person, made, "key", body="")).failed("validation_error")
    (await say(door, other, made, "key")).failed("forbidden")
    (await say(door, person, made, "key")).succeeded(201)
    # Keys belong to the person.
    own = await create(door, other)
    assert "idempotent-replayed" not in (await say(door, other, own, "key")).headers


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_keys_have_bounds(door: Door, world: World, key: str) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    (await say(door, person, made, key)).failed("validation_error", paths=["idempotency-key"])
    headers = {"idempotency-key": key}
    (await close(door, person, made, **headers)).failed("validation_error", paths=["idempotency-key"])
    assert await get(door, person, made) == made


async def test_a_close_under_a_key_closes_once(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made, other = [await create(door, person) for _ in range(2)]
    note, key = {"resolution_note": "Done"}, {"idempotency-key": "key"}
    first = await close(door, person, made, note, **key)
    assert first.succeeded()["status"] == "closed"
    reopened = (await update(door, person, made, status="open")).succeeded()
    again = await close(door, person, made, note, **key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.succeeded() == first.body
    # It was a repetition, and not another wish.
    assert await get(door, person, made) == reopened
    for ticket, body in ((made, {"resolution_note": "Other"}), (made, None), (other, note)):
        (await close(door, person, ticket, body, **key)).failed("idempotency_mismatch", MISMATCH)
    (await say(door, person, made, "key")).failed("idempotency_mismatch", MISMATCH)
    assert await get(door, person, other) == other


async def test_a_stale_close_leaves_its_key_free(door: Door, world: World) -> None:
    person = world.person(*ALL)
    made = await create(door, person)
    stale = {"idempotency-key": "key", "if-match": '"x"'}
    (await close(door, person, made, **stale)).failed("stale")
    (await close(door, person, made, **{"idempotency-key": "key"})).succeeded()
