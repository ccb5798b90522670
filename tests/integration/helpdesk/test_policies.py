"""contracts/helpdesk.md at both transports, SLA: policies, and those that tickets may name."""

import asyncio
import re
from typing import Any

import grpc
import pytest
from support.helpdesk import TICKET, Transport, create, get, new_tenant_id, numbers, update
from support.system import Credential, World
from support.transports import Grpc, Reply, Rest

NEW = {"name": "Urgent", "priority": "urgent", "resolution_minutes": 240}
EVERYTHING = {
    "name": "Zoë's promise 🎫",
    "description": "# Fast\n\nAnd friendly.",
    "applies_to": ["problem", "incident"],
    "priority": "high",
    "first_response_minutes": 15,
    "resolution_minutes": 480,
    "business_hours_only": True,
    "status": "inactive",
}
DEFAULTS: dict[str, Any] = {
    "description": None,
    "applies_to": [],
    "first_response_minutes": None,
    "business_hours_only": False,
    "status": "active",
}
STAMPS = {"id", "tenant_id", "created_at", "created_by", "updated_at", "updated_by"}
TYPES = ["incident", "service_request", "change", "problem"]
# Of members that a new policy and a change share.
BROKEN: list[tuple[dict[str, Any], str]] = [
    *(({"name": value}, "name") for value in ("", "x" * 256, "a\0b")),
    *(({"description": value}, "description") for value in ("x" * 65_537, "\0")),
    ({"applies_to": ["incident", "other"]}, "applies_to.1"),
    ({"applies_to": ["change", "incident", "change"]}, "applies_to"),
    ({"priority": "critical"}, "priority"),
    *(({name: value}, name) for name in ("first_response_minutes", "resolution_minutes") for value in (0, -1, 525_601)),
    ({"status": "deleted"}, "status"),
]
POLICIES = ("helpdesk.policies", "helpdesk.policy", "helpdesk.create_policy", "helpdesk.update_policy")
CALENDAR = ("helpdesk.calendar", "helpdesk.update_calendar")


async def make(transport: Transport, agent: Credential, **members: Any) -> Any:
    return (await attempt(transport, agent, **members)).succeeded(201)


async def attempt(transport: Transport, agent: Credential, **members: Any) -> Reply:
    return await transport.call("helpdesk.create_policy", agent, body={**NEW, **members})


async def read(transport: Transport, agent: Credential, policy: Any) -> Any:
    return (await transport.call("helpdesk.policy", agent, path={"id": policy["id"]})).succeeded()


async def change(transport: Transport, agent: Credential, policy: Any, **changes: Any) -> Reply:
    return await transport.call("helpdesk.update_policy", agent, path={"id": policy["id"]}, body=changes)


async def page(transport: Transport, agent: Credential, **query: Any) -> Reply:
    return await transport.call("helpdesk.policies", agent, query=query)


async def listed(transport: Transport, agent: Credential, **query: Any) -> Any:
    return (await page(transport, agent, **query)).succeeded()["sla_policies"]


def is_taken(reply: Reply) -> bool:
    """Whether it failed because another policy is already active; otherwise it succeeded."""
    if reply.status in (200, 201, grpc.StatusCode.OK):
        return False
    assert reply.status == (409 if reply.transport == "rest" else grpc.StatusCode.ALREADY_EXISTS), reply
    assert reply.body["code"] == "already_exists"
    assert reply.message() == "An active SLA policy for this priority and type already exists"
    return True


# The policy


async def test_a_policy_is_created_with_defaults(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    made = await make(transport, world.person("agent", tenant_id=tenant_id, sub="per_7"))
    assert set(made) == {*NEW, *DEFAULTS, *STAMPS}
    assert {name: made[name] for name in (*NEW, *DEFAULTS)} == {**NEW, **DEFAULTS}
    assert re.fullmatch(r"sla_[0-9A-HJKMNP-TV-Z]{26}", made["id"])
    assert made["tenant_id"] == tenant_id
    assert made["created_by"] == made["updated_by"] == "per_7"
    assert made["updated_at"] == made["created_at"]


async def test_every_member_of_a_policy_is_stored_and_read_at_both_transports(
    transport: Transport, rest: Rest, rpc: Grpc, world: World
) -> None:
    agent = world.person("agent")
    made = await make(transport, agent, **EVERYTHING)
    assert {name: made[name] for name in EVERYTHING} == EVERYTHING
    for reader in (rest, rpc):
        assert await read(reader, agent, made) == made
        assert await listed(reader, agent) == [made]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "New"},
        {"description": None},
        {"applies_to": ["change"]},
        {"applies_to": []},
        {"priority": "low"},
        {"first_response_minutes": None},
        {"first_response_minutes": 525_600, "resolution_minutes": 1},
        {"business_hours_only": False},
        {"status": "active"},
        {**NEW, **DEFAULTS},
    ],
    ids=str,
)
async def test_a_patch_of_a_policy_changes_only_the_members_given(
    transport: Transport, world: World, changes: Any
) -> None:
    tenant_id = new_tenant_id()
    agent = world.person("agent", tenant_id=tenant_id, sub="per_1")
    made = await make(transport, agent, **EVERYTHING)
    changed = (
        await change(transport, world.person("agent", tenant_id=tenant_id, sub="per_2"), made, **changes)
    ).succeeded()
    assert changed["updated_at"] > made["updated_at"]
    assert changed == {**made, **changes, "updated_at": changed["updated_at"], "updated_by": "per_2"}
    assert await read(transport, agent, made) == changed


@pytest.mark.parametrize("minutes", [1, 525_600])
async def test_bounds_of_a_policy_hold_at_their_edges(transport: Transport, world: World, minutes: int) -> None:
    edges = {"name": "é" * 255, "description": "x" * 65_536, "applies_to": TYPES, "resolution_minutes": minutes}
    made = await make(transport, world.person("agent"), first_response_minutes=minutes, **edges)
    assert {name: made[name] for name in edges} == edges
    assert made["first_response_minutes"] == minutes


@pytest.mark.parametrize(("changed", "path"), BROKEN, ids=lambda value: str(value)[:40])
async def test_broken_bounds_of_a_policy_are_reported_by_path(
    transport: Transport, world: World, changed: Any, path: str
) -> None:
    agent = world.person("agent")
    (await attempt(transport, agent, **changed)).failed("validation_error", paths=[path])
    made = await make(transport, agent, **EVERYTHING)
    (await change(transport, agent, made, **changed)).failed("validation_error", paths=[path])
    assert await listed(transport, agent) == [made]


@pytest.mark.parametrize("member", ["name", "priority", "resolution_minutes", "business_hours_only", "status"])
async def test_clearing_a_required_member_of_a_policy_is_rejected(
    transport: Transport, world: World, member: str
) -> None:
    agent = world.person("agent")
    made = await make(transport, agent)
    reply = await change(transport, agent, made, **{member: None, "description": "x"})
    reply.failed("validation_error", paths=[member])
    assert await read(transport, agent, made) == made


async def test_too_many_types_are_one_problem(transport: Transport, world: World) -> None:
    reply = await attempt(transport, world.person("agent"), applies_to=["other"] * 20)
    reply.failed("validation_error", paths=["applies_to"])


async def test_a_policy_needs_a_name_a_priority_and_a_resolution(transport: Transport, world: World) -> None:
    reply = await transport.call("helpdesk.create_policy", world.person("agent"), body={"description": "x"})
    assert {issue["path"] for issue in reply.failed("validation_error")["issues"]} == set(NEW)


@pytest.mark.parametrize("name", ["sla_" + "0" * 26, "sla_", "x" * 300, "TKT-0001", "Zoë"], ids=lambda name: name[:9])
async def test_a_missing_policy_is_not_found(transport: Transport, world: World, name: str) -> None:
    agent = world.person("agent")
    for operation in ("helpdesk.policy", "helpdesk.update_policy"):
        body = {"name": "New"} if operation == "helpdesk.update_policy" else None
        (await transport.call(operation, agent, path={"id": name}, body=body)).failed(
            "not_found", "SLA policy not found"
        )


async def test_an_id_with_a_nul_is_not_found(rpc: Grpc, world: World) -> None:
    (await rpc.call("helpdesk.policy", world.person("agent"), path={"id": "sla_\0"})).failed("not_found")


# One active policy for a priority and a type


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        ({}, {}, True),
        ({"applies_to": ["incident"]}, {"applies_to": ["incident"]}, True),
        ({}, {"applies_to": ["problem"]}, True),
        ({"applies_to": ["problem"]}, {}, True),
        ({"applies_to": ["incident", "change"]}, {"applies_to": ["problem", "change"]}, True),
        ({"applies_to": ["incident", "change"]}, {"applies_to": ["problem", "service_request"]}, False),
        ({}, {"priority": "high"}, False),
        ({"status": "inactive"}, {}, False),
        ({}, {"status": "inactive"}, False),
    ],
    ids=str,
)
async def test_a_priority_and_a_type_have_one_active_policy_at_most(
    transport: Transport, world: World, first: Any, second: Any, taken: bool
) -> None:
    agent = world.person("agent")
    made = await make(transport, agent, **first)
    reply = await attempt(transport, agent, **second)
    assert is_taken(reply) == taken
    assert await listed(transport, agent) == ([made] if taken else [reply.body, made])
    # Another tenant is unaffected.
    await make(transport, world.person("agent"), **second)


@pytest.mark.parametrize(
    ("own", "changes"),
    [
        ({"status": "inactive"}, {"status": "active"}),
        ({"priority": "low"}, {"priority": "urgent"}),
        ({"applies_to": ["change"]}, {"applies_to": []}),
        ({"applies_to": ["change"]}, {"applies_to": ["change", "incident"]}),
    ],
    ids=str,
)
async def test_a_patch_to_a_taken_priority_or_type_changes_nothing(
    transport: Transport, world: World, own: Any, changes: Any
) -> None:
    agent = world.person("agent")
    other = await make(transport, agent, applies_to=["incident"])
    made = await make(transport, agent, **own)
    assert is_taken(await change(transport, agent, made, name="New", first_response_minutes=1, **changes))
    assert await listed(transport, agent) == [made, other]
    # It stays active for what it was active for, if it was.
    assert is_taken(await attempt(transport, agent, **own)) == (made["status"] == "active")


@pytest.mark.parametrize(
    ("moved", "taken"),
    [
        ({"priority": "low"}, {"priority": "low"}),
        ({"applies_to": ["change"]}, {"applies_to": ["change", "problem"]}),
        ({"status": "inactive"}, None),
    ],
    ids=str,
)
async def test_a_policy_that_changes_frees_its_priority_and_types(
    transport: Transport, world: World, moved: Any, taken: Any
) -> None:
    agent = world.person("agent")
    made = await make(transport, agent, applies_to=["incident"])
    (await change(transport, agent, made, **moved)).succeeded()
    await make(transport, agent, applies_to=["incident"])
    if taken is not None:
        assert is_taken(await attempt(transport, agent, **taken))
    else:
        assert is_taken(await change(transport, agent, made, status="active"))


async def test_of_concurrent_policies_one_becomes_active(transport: Transport, world: World) -> None:
    agent = world.person("agent")
    created = await asyncio.gather(*(attempt(transport, agent) for _ in range(6)))
    assert sorted(map(is_taken, created)) == [False] + [True] * 5
    # The others were not created as inactive: they were not created.
    assert len(await listed(transport, agent)) == 1
    waiting = [await make(transport, agent, priority="low", status="inactive") for _ in range(6)]
    changed = await asyncio.gather(*(change(transport, agent, one, status="active") for one in waiting))
    assert sorted(map(is_taken, changed)) == [False] + [True] * 5
    assert [one["status"] for one in await listed(transport, agent)].count("active") == 2


# Lists


async def test_policies_are_listed_newest_first_by_page_and_by_status(transport: Transport, world: World) -> None:
    agent = world.person("agent")
    assert (await page(transport, agent)).succeeded() == {"sla_policies": [], "next_cursor": None}
    made = [await make(transport, agent, status="inactive") for _ in range(4)]
    made.append(await make(transport, agent))
    walked, query = [], {"limit": 2}
    for size in (2, 2, 1):
        answer = (await page(transport, agent, **query)).succeeded()
        assert len(answer["sla_policies"]) == size
        walked += answer["sla_policies"]
        query["cursor"] = answer["next_cursor"]
    assert answer["next_cursor"] is None
    assert walked == made[::-1]
    assert await listed(transport, agent, status="active") == [made[4]]
    first = (await page(transport, agent, status="inactive", limit=3)).succeeded()
    assert first["sla_policies"] == made[3:0:-1]
    assert await listed(transport, agent, status="inactive", cursor=first["next_cursor"]) == [made[0]]


@pytest.mark.parametrize(
    ("query", "path"), [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"status": "other"}, "status")], ids=str
)
async def test_a_list_of_policies_has_bounds(transport: Transport, world: World, query: Any, path: str) -> None:
    (await page(transport, world.person("agent"), **query)).failed("validation_error", paths=[path])


async def test_a_cursor_is_valid_only_for_its_own_list_of_policies(transport: Transport, world: World) -> None:
    agent, stranger = world.person("agent"), world.person("agent")
    for person in (agent, stranger):
        for _ in range(2):
            await make(transport, person, status="inactive")
            await create(transport, person)
    cursor = (await page(transport, agent, limit=1)).succeeded()["next_cursor"]
    of_tickets = (await transport.call("helpdesk.list", agent, query={"limit": 1})).succeeded()["next_cursor"]
    assert len(await listed(transport, agent, cursor=cursor)) == 1
    for reply in (
        await page(transport, agent, cursor=cursor, status="inactive"),
        await page(transport, stranger, cursor=cursor),
        await page(transport, agent, cursor=of_tickets),
        await page(transport, agent, cursor=cursor[:-1]),
        await transport.call("helpdesk.list", agent, query={"cursor": cursor}),
    ):
        reply.failed("validation_error", paths=["cursor"])


# Scopes


@pytest.mark.parametrize("operation", [*POLICIES, *CALENDAR])
async def test_only_agents_manage_service_levels(transport: Transport, world: World, operation: str) -> None:
    tenant_id = new_tenant_id()
    agent = world.person("agent", tenant_id=tenant_id, app_id="app_1")
    made = await make(transport, world.person("agent", tenant_id=tenant_id))
    path = {"id": made["id"]} if operation in ("helpdesk.policy", "helpdesk.update_policy") else None
    body = {"helpdesk.create_policy": {**NEW, "priority": "low"}}.get(operation, {} if "update" in operation else None)
    for scopes in ((), ("read", "write")):
        reply = await transport.call(operation, world.person(*scopes, tenant_id=tenant_id), path=path, body=body)
        reply.failed("missing_scope", "Token missing required scope: helpdesk:agent")
    # A token for one application reads what is the tenant's, and leaves it as it is.
    reply = await transport.call(operation, agent, path=path, body=body)
    if body is None:
        reply.succeeded()
    else:
        reply.failed("forbidden")


async def test_another_tenants_policies_are_not_found(transport: Transport, world: World) -> None:
    agent, stranger = world.person("agent"), world.person("agent")
    made = await make(transport, agent)
    (await transport.call("helpdesk.policy", stranger, path={"id": made["id"]})).failed("not_found")
    (await change(transport, stranger, made, name="Mine")).failed("not_found")
    assert await listed(transport, stranger) == []
    assert await listed(transport, agent) == [made]


# The policy that a ticket names


@pytest.mark.parametrize("kind", ["unknown", "inactive", "of another tenant"])
async def test_a_ticket_names_an_active_policy_of_its_tenant(transport: Transport, world: World, kind: str) -> None:
    tenant_id = new_tenant_id()
    person, agent = world.person("write", "agent", tenant_id=tenant_id), world.person("agent", tenant_id=tenant_id)
    other = world.person("agent") if kind == "of another tenant" else agent
    policy = await make(transport, other, status="inactive" if kind == "inactive" else "active")
    name = "x" * 64 if kind == "unknown" else policy["id"]
    reply = await transport.call("helpdesk.create", person, body={**TICKET, "sla_policy": name})
    reply.failed("validation_error", paths=["sla_policy"])
    assert await numbers(transport, person) == []
    made = await create(transport, person)
    reply = await update(transport, person, made, sla_policy=name, title="New")
    reply.failed("validation_error", paths=["sla_policy"])
    assert await get(transport, person, made) == made


async def test_a_ticket_keeps_a_policy_that_has_become_inactive(transport: Transport, world: World) -> None:
    agent = world.person("agent")
    policy = await make(transport, agent)
    made = await create(transport, agent, sla_policy=policy["id"])
    (await change(transport, agent, policy, status="inactive")).succeeded()
    changed = (await update(transport, agent, made, sla_policy=policy["id"], title="New")).succeeded()
    assert changed == {**made, "title": "New", "updated_at": changed["updated_at"]}


async def test_a_mask_clears_lists(rpc: Grpc, world: World) -> None:
    """A typed list has no null: named in the mask and not set is empty."""
    agent = world.person("agent")
    cleared = (await rpc.call("helpdesk.update_calendar", agent, body={"hours": None, "holidays": None})).succeeded()
    assert (cleared["hours"], cleared["holidays"]) == ([], [])
    made = await make(rpc, agent, **EVERYTHING)
    assert (await change(rpc, agent, made, applies_to=None)).succeeded()["applies_to"] == []
