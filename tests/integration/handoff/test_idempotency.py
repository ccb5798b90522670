"""contracts/handoff.md and errors.md at both transports: a ticket is created once under an idempotency key."""

import asyncio
from uuid import uuid4

import pytest
from support.handoff import DOCUMENTED, Transport, create, listed, member_of, new_project
from support.system import World
from support.transports import Grpc, Rest

pytestmark = pytest.mark.usefixtures("quiet_postgres")


async def test_the_same_key_and_body_give_the_first_answer_again(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world, "triager", backend_repo="acme/api")
    headers = {"idempotency-key": "key 1"}
    given = {"evidence": {"a": 1, "b": [1.5]}, "roles": ["qa", "backend"]}
    first = await create(transport, who, project_id, headers, **given)
    assert "idempotent-replayed" not in first.headers
    again = await create(transport, who, project_id, headers, evidence={"b": [1.50], "a": 1.0}, roles=given["roles"])
    assert again.succeeded(201) == first.succeeded(201)
    assert again.headers["idempotent-replayed"] == "true"
    for other in ({"title": "Other"}, {"roles": ["backend", "qa"]}, {"priority": "medium"}):
        reply = await create(transport, who, project_id, headers, **{**given, **other})
        reply.failed("idempotency_mismatch", "Idempotency key reused with a different payload")
    assert len(await listed(transport, who)) == 1


async def test_keys_belong_to_the_user_and_the_project(transport: Transport, world: World) -> None:
    projects = [await world.project(), await world.project()]
    who = await member_of(world, *projects)
    colleague = await world.member(projects[0])
    headers = {"idempotency-key": "shared"}
    made = [
        (await create(transport, credential, project_id, headers, title=title)).succeeded(201)["ticket"]
        for credential, project_id, title in (
            (who, projects[0], "a"),
            (colleague, projects[0], "b"),
            (who, projects[1], "c"),
        )
    ]
    assert [ticket["title"] for ticket in made] == ["a", "b", "c"]


async def test_a_failed_request_frees_its_key(transport: Transport, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who, headers = await world.member(project_id, "viewer", user_id), {"idempotency-key": "retried"}
    (await create(transport, who, project_id, headers)).failed("forbidden")
    await world.member(project_id, "member", user_id)
    (await create(transport, who, project_id, headers, title="")).failed("validation_error")
    reply = await create(transport, who, project_id, headers)
    reply.succeeded(201)
    assert "idempotent-replayed" not in reply.headers


async def test_concurrent_requests_under_one_key_create_one_ticket(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    headers = {"idempotency-key": "race"}
    replies = await asyncio.gather(*(create(transport, who, project_id, headers) for _ in range(24)))
    assert len({str(reply.succeeded(201)) for reply in replies}) == 1
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) == 1
    assert len(await listed(transport, who)) == 1


async def test_a_key_is_the_same_at_both_transports(rest: Rest, rpc: Grpc, world: World) -> None:
    project_id, who = await new_project(world)
    headers = {"idempotency-key": "both"}
    first = (await create(rest, who, project_id, headers, **DOCUMENTED)).succeeded(201)["ticket"]
    second = await create(rpc, who, project_id, headers, **DOCUMENTED)
    assert {**first, "summary": None} == second.succeeded()["ticket"]
    assert second.headers["idempotent-replayed"] == "true"
