"""contracts/helpdesk.md at both transports: a comment or a close under an idempotency key happens once."""

import asyncio

import pytest
from support.helpdesk import Transport, close, create, get, new_tenant_id, update
from support.helpdesk_calls import ALL, MISMATCH, MISSING, comments, edit, events, post_comment
from support.system import World

pytestmark = pytest.mark.usefixtures("quiet_postgres")


async def test_a_comment_under_a_key_is_written_once(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    made, other = [await create(transport, person) for _ in range(2)]
    first = await post_comment(transport, agent, made, "key", internal=True)
    assert "idempotent-replayed" not in first.headers
    (await edit(transport, agent, first.succeeded(201))).succeeded()
    again = await post_comment(transport, agent, made, "key", internal=True)
    assert again.headers["idempotent-replayed"] == "true"
    # The first answer, although the comment has changed since.
    assert again.succeeded(201) == first.body
    assert len(await comments(transport, agent, made)) == 1
    for ticket, members in ((made, {"internal": True, "body": "y"}), (made, {}), (other, {"internal": True})):
        (await post_comment(transport, agent, ticket, "key", **members)).failed("idempotency_mismatch", MISMATCH)
    (await close(transport, agent, made, **{"idempotency-key": "key"})).failed("idempotency_mismatch", MISMATCH)
    assert await comments(transport, agent, other) == []
    # A caller who is no longer an agent no longer gets the answer.
    (
        await post_comment(
            transport, world.person("write", tenant_id=tenant_id, sub="per_agent"), made, "key", internal=True
        )
    ).failed("forbidden")


async def test_concurrent_requests_under_one_key_write_one_comment(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    replies = await asyncio.gather(*(post_comment(transport, person, made, "key") for _ in range(8)))
    [comment] = await comments(transport, person, made)
    assert [reply.succeeded(201) for reply in replies] == [comment] * 8
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 7
    assert len(await events(transport, person, made)) == 2


async def test_a_key_whose_request_failed_is_free(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person, other = (world.person("read", "write", tenant_id=tenant_id, sub=sub) for sub in ("per_1", "per_2"))
    made = await create(transport, person)
    (await post_comment(transport, person, {"id": MISSING}, "key")).failed("not_found")
    (await post_comment(transport, person, made, "key", body="")).failed("validation_error")
    (await post_comment(transport, other, made, "key")).failed("not_found")
    (await post_comment(transport, person, made, "key")).succeeded(201)
    # Keys belong to the person.
    own = await create(transport, other)
    assert "idempotent-replayed" not in (await post_comment(transport, other, own, "key")).headers


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_keys_have_bounds(transport: Transport, world: World, key: str) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    (await post_comment(transport, person, made, key)).failed("validation_error", paths=["idempotency-key"])
    headers = {"idempotency-key": key}
    (await close(transport, person, made, **headers)).failed("validation_error", paths=["idempotency-key"])
    assert await get(transport, person, made) == made


async def test_a_close_under_a_key_closes_once(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made, other = [await create(transport, person) for _ in range(2)]
    note, key = {"resolution_note": "Done"}, {"idempotency-key": "key"}
    first = await close(transport, person, made, note, **key)
    assert first.succeeded()["status"] == "closed"
    reopened = (await update(transport, person, made, status="open")).succeeded()
    again = await close(transport, person, made, note, **key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.succeeded() == first.body
    # It was a retry, not another close.
    assert await get(transport, person, made) == reopened
    for ticket, body in ((made, {"resolution_note": "Other"}), (made, None), (other, note)):
        (await close(transport, person, ticket, body, **key)).failed("idempotency_mismatch", MISMATCH)
    (await post_comment(transport, person, made, "key")).failed("idempotency_mismatch", MISMATCH)
    assert await get(transport, person, other) == other


async def test_a_stale_close_leaves_its_key_free(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    stale = {"idempotency-key": "key", "if-match": '"x"'}
    (await close(transport, person, made, **stale)).failed("stale")
    (await close(transport, person, made, **{"idempotency-key": "key"})).succeeded()
