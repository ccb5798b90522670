"""contracts/helpdesk.md and errors.md at both transports: an idempotency key creates once."""

import asyncio
from typing import Any

import pytest
from support.helpdesk import TICKET, Transport, new_tenant_id, numbers
from support.helpdesk_calls import ALL
from support.system import Credential, World
from support.transports import Grpc, Reply, Rest

pytestmark = pytest.mark.usefixtures("quiet_postgres")

MISMATCH = "Idempotency key reused with a different payload"


async def create(transport: Transport, person: Credential, key: str, **members: Any) -> Reply:
    body = {**TICKET, **members}
    return await transport.call("helpdesk.create", person, body=body, headers={"idempotency-key": key})


async def test_the_same_key_and_body_give_the_first_answer_again(transport: Transport, world: World) -> None:
    person = world.person("read", "write", "agent")
    members = {
        "description": None if transport.name == "rest" else "x",
        "status": "resolved",
        "due_at": "2030-01-01T00:00:00.5+02:00",
        "tags": {"a": 1, "b": [1.5], "c": 12345678901234567890123},
    }
    first = await create(transport, person, "key 1", **members)
    assert "idempotent-replayed" not in first.headers
    path = {"id": first.succeeded(201)["id"]}
    changes = {"title": "Other", "status": "open", "tags": []}
    (await transport.call("helpdesk.update", person, path=path, body=changes)).succeeded()
    # Equal values, not equal bytes: the members in another order, the number written otherwise.
    again = {**dict(reversed(members.items())), "tags": {"c": 12345678901234567890123, "b": [1.50], "a": 1.0}}
    second = await create(transport, person, "key 1", **again)
    assert second.succeeded(201) == first.body
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert await numbers(transport, person) == ["TKT-0001"]


async def test_a_replay_is_the_first_answer_to_the_byte(rest: Rest, world: World) -> None:
    person = {**world.person("write", app_id="app_1"), "idempotency-key": "exact"}
    content = b'{"title":"x","tags":{"n":12345678901234567890123,"d":0.10,"e":1E+400,"b":{"z":1,"a":2}}}'
    answers = [await rest.client.post("/api/v1/helpdesk/tickets", content=content, headers=person) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    assert b'"tags":{"n":12345678901234567890123,"d":0.10,"e":1E+400,"b":{"z":1,"a":2}}' in answers[0].content


@pytest.mark.parametrize(
    "other",
    [
        {"title": "Other"},
        {"status": "open"},
        {"description": ""},
        {"tags": []},
        {"due_at": "2030-01-01T00:00:00Z"},
    ],
    ids=str,
)
async def test_the_same_key_with_another_body_is_rejected(transport: Transport, world: World, other: Any) -> None:
    person = world.person("read", "write", "agent")
    first = (await create(transport, person, "key")).succeeded(201)
    (await create(transport, person, "key", **other)).failed("idempotency_mismatch", MISMATCH)
    assert (await create(transport, person, "key")).succeeded(201) == first
    # The rejected request took no number.
    (await create(transport, person, "next")).succeeded(201)
    assert await numbers(transport, person) == ["TKT-0002", "TKT-0001"]


async def test_tags_that_differ_beyond_a_double_are_different(transport: Transport, world: World) -> None:
    person = world.person("write")
    (await create(transport, person, "key", tags={"n": 9007199254740993})).succeeded(201)
    (await create(transport, person, "key", tags={"n": 9007199254740992})).failed("idempotency_mismatch", MISMATCH)


async def test_keys_belong_to_the_person_in_their_tenant_and_application(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    callers = [
        world.person("write", tenant_id=tenant_id),
        world.person("write", tenant_id=tenant_id, sub="per_2"),
        world.person("write", tenant_id=tenant_id, app_id="app_1"),
        world.person("write", tenant_id=tenant_id, app_id="app_2"),
        world.person("write"),
    ]
    made = [(await create(transport, credential, "shared")).succeeded(201) for credential in callers]
    assert len({ticket["id"] for ticket in made}) == len(callers)
    again = [(await create(transport, credential, "shared")).succeeded(201) for credential in callers]
    assert again == made
    # Another token of the same person: the person counts, not the token.
    token = world.person("write", "agent", tenant_id=tenant_id)
    assert (await create(transport, token, "shared")).succeeded(201) == made[0]


async def test_without_a_key_or_with_another_one_each_request_creates_a_ticket(
    transport: Transport, world: World
) -> None:
    person = world.person("read", "write")
    for _ in range(2):
        (await transport.call("helpdesk.create", person, body=TICKET)).succeeded(201)
    for key in ("key", "Key", "key "):
        reply = await create(transport, person, key + "x")
        assert "idempotent-replayed" not in reply.headers
    assert len(await numbers(transport, person)) == 5


async def test_a_failed_request_frees_its_key(transport: Transport, world: World) -> None:
    person = world.person("write")
    (await create(transport, person, "once more", title="")).failed("validation_error", paths=["title"])
    reply = await create(transport, person, "once more")
    reply.succeeded(201)
    assert "idempotent-replayed" not in reply.headers


async def test_concurrent_requests_with_one_key_create_one_ticket(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "write", tenant_id=tenant_id)
    replies = await asyncio.gather(*(create(transport, person, "race") for _ in range(24)))
    assert len({str(reply.succeeded(201)) for reply in replies}) == 1
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) == 1
    assert world.rows("SELECT count(*) FROM helpdesk_events WHERE tenant_id = %s", tenant_id) == [(1,)]
    # The replayed requests took no number.
    assert (await create(transport, person, "next")).succeeded(201)["number"] == "TKT-0002"


async def test_of_two_concurrent_bodies_one_is_kept(transport: Transport, world: World) -> None:
    person = world.person("read", "write")
    replies = await asyncio.gather(*(create(transport, person, "race", title=f"t{n % 2}") for n in range(16)))
    [kept] = (await transport.call("helpdesk.list", person)).succeeded()["tickets"]
    for n, reply in enumerate(replies):
        if kept["title"] == f"t{n % 2}":
            assert reply.succeeded(201) == kept
        else:
            reply.failed("idempotency_mismatch", MISMATCH)


async def test_a_key_is_free_again_after_an_hour(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("write", tenant_id=tenant_id)
    first = (await create(transport, person, "old")).succeeded(201)
    age = "UPDATE helpdesk_keys SET expires_at = expires_at - interval '{}' WHERE tenant_id = %s"
    world.run(age.format("59 minutes"), tenant_id)
    assert (await create(transport, person, "old")).succeeded(201) == first
    world.run(age.format("61 minutes"), tenant_id)
    other = (await create(transport, person, "old", title="New")).succeeded(201)
    assert (other["title"], other["number"]) == ("New", "TKT-0002")


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_has_1_to_255_characters(transport: Transport, world: World, key: str) -> None:
    person = world.person("read", "write")
    (await create(transport, person, key)).failed("validation_error", paths=["idempotency-key"])
    assert await numbers(transport, person) == []
    (await create(transport, person, "~" * 255)).succeeded(201)


async def test_one_key_holds_across_both_transports(rest: Rest, rpc: Grpc, world: World) -> None:
    person = world.person("write", "agent")
    tags = {"n": 12345678901234567890123}
    members = {"priority": "low", "source_type": "server", "due_at": "2030-01-01T00:00:00Z", "tags": tags}
    first = (await create(rest, person, "both", **members)).succeeded(201)
    second = await create(rpc, person, "both", **members)
    assert {**first, "app_id": None} == second.succeeded()
    assert second.headers["idempotent-replayed"] == "true"


# SLA policies


async def create_policy(transport: Transport, agent: Credential, key: str, **members: Any) -> Reply:
    body = {"name": "Urgent", "priority": "urgent", "resolution_minutes": 60, **members}
    return await transport.call("helpdesk.create_policy", agent, body=body, headers={"idempotency-key": key})


async def change_policy(transport: Transport, agent: Credential, policy: Any, **changes: Any) -> None:
    (await transport.call("helpdesk.update_policy", agent, path={"id": policy["id"]}, body=changes)).succeeded()


async def count_policies(transport: Transport, agent: Credential) -> int:
    return len((await transport.call("helpdesk.policies", agent)).succeeded()["sla_policies"])


async def test_a_key_creates_one_policy(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    agent = world.person("agent", tenant_id=tenant_id)
    first = await create_policy(transport, agent, "key", applies_to=["change"], status="inactive")
    assert "idempotent-replayed" not in first.headers
    await change_policy(transport, agent, first.succeeded(201), name="New")
    again = await create_policy(transport, agent, "key", applies_to=["change"], status="inactive")
    assert again.succeeded(201) == first.body
    assert again.headers["idempotent-replayed"] == "true"
    (await create_policy(transport, agent, "key")).failed("idempotency_mismatch")
    # Keys of another person, and keys of tickets, are separate.
    colleague = world.person("agent", tenant_id=tenant_id, sub="per_2")
    (await create_policy(transport, colleague, "key", applies_to=["change"], status="inactive")).succeeded(201)
    (await transport.call("helpdesk.create", agent, body=TICKET, headers={"idempotency-key": "key"})).succeeded(201)
    assert await count_policies(transport, agent) == 2


async def test_concurrent_requests_with_one_key_create_one_policy(transport: Transport, world: World) -> None:
    agent = world.person("agent")
    replies = await asyncio.gather(*(create_policy(transport, agent, "race") for _ in range(6)))
    assert len({str(reply.succeeded(201)) for reply in replies}) == 1
    assert await count_policies(transport, agent) == 1


async def test_a_failure_frees_the_key_of_a_policy(transport: Transport, world: World) -> None:
    agent = world.person("agent")
    other = (await create_policy(transport, agent, "other")).succeeded(201)
    (await create_policy(transport, agent, "key", name="")).failed("validation_error")
    assert (await create_policy(transport, agent, "key")).body["code"] == "already_exists"
    await change_policy(transport, agent, other, status="inactive")
    reply = await create_policy(transport, agent, "key")
    assert reply.succeeded(201)["status"] == "active"
    assert "idempotent-replayed" not in reply.headers


async def test_a_replay_does_not_check_the_policy_again(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person, agent = world.person(*ALL, tenant_id=tenant_id), world.person("agent", tenant_id=tenant_id)
    policy = (await create_policy(transport, agent, "policy")).succeeded(201)
    first = (await create(transport, person, "key", sla_policy=policy["id"])).succeeded(201)
    await change_policy(transport, agent, policy, status="inactive", resolution_minutes=1)
    again = await create(transport, person, "key", sla_policy=policy["id"])
    assert again.succeeded(201) == first
    assert again.headers["idempotent-replayed"] == "true"
    (await create(transport, person, "key", sla_policy=policy["id"], title="Other")).failed(
        "idempotency_mismatch", MISMATCH
    )
    (await create(transport, person, "new", sla_policy=policy["id"])).failed("validation_error", paths=["sla_policy"])
    assert await numbers(transport, person) == [first["number"]]


async def test_the_request_of_a_key_is_what_it_says(rest: Rest, rpc: Grpc, world: World) -> None:
    """Not how: no body and one without members are the same, and so are an ETag and its weak form."""
    person = world.person("read", "write", "agent")
    ticket = (await rest.call("helpdesk.create", person, body=TICKET)).succeeded(201)
    path, content = {"id": ticket["id"]}, f"/api/v1/helpdesk/tickets/{ticket['id']}/close"
    keyed = {**person, "idempotency-key": "close"}
    first = await rest.client.post(content, headers=keyed)
    for body in (b"{}", b"{ }", b""):
        again = await rest.client.post(content, content=body, headers={**keyed, "content-type": "application/json"})
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"
    by_rpc = await rpc.call("helpdesk.close", person, path=path, headers={"idempotency-key": "close"})
    assert by_rpc.succeeded()["updated_at"] == first.json()["updated_at"]
    assert by_rpc.headers["idempotent-replayed"] == "true"

    change = {"path": path, "body": {"title": "Other"}}
    etag = first.headers["etag"]
    changed = await rest.call(
        "helpdesk.update", person, **change, headers={"idempotency-key": "change", "if-match": etag}
    )
    for same in (f"W/{etag}", etag):
        headers = {"idempotency-key": "change", "if-match": same}
        assert (await rest.call("helpdesk.update", person, **change, headers=headers)).succeeded() == changed.body
    headers = {"idempotency-key": "change", "if-match": '"7"'}
    (await rest.call("helpdesk.update", person, **change, headers=headers)).failed("idempotency_mismatch", MISMATCH)
