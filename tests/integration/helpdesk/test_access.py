"""contracts/helpdesk.md at both transports: who may do what, which tickets a caller sees, and how they are named."""

import asyncio
from itertools import product
from typing import Any

import pytest
from support.helpdesk import TICKET, Transport, create, new_tenant_id, numbers
from support.system import Credential, World
from support.transports import Grpc, Reply, Rest

# One request of each operation, and the scopes, any one of which it needs.
OPERATIONS: dict[str, tuple[Any, set[str]]] = {
    "helpdesk.list": (None, {"read", "read_all", "agent"}),
    "helpdesk.get": (None, {"read", "read_all", "agent"}),
    "helpdesk.create": (TICKET, {"write", "agent"}),
    "helpdesk.update": ({"title": "New"}, {"write", "agent"}),
    "helpdesk.close": (None, {"write", "agent"}),
}
ON_ONE_TICKET = ("helpdesk.get", "helpdesk.update", "helpdesk.close")
ALL = ("read", "write", "agent")


async def call(transport: Transport, operation: str, person: Credential, id_or_number: str) -> Reply:
    path = {"id": id_or_number} if operation in ON_ONE_TICKET else None
    return await transport.call(operation, person, path=path, body=OPERATIONS[operation][0])


# Scopes


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "scope", [*(f"helpdesk:{name}" for name in ("read", "read_all", "write", "agent")), "tickets:read", "", None]
)
async def test_each_operation_needs_its_scope(
    transport: Transport, world: World, operation: str, scope: str | None
) -> None:
    tenant_id = new_tenant_id()
    made = await create(transport, world.person("write", tenant_id=tenant_id))
    credential = world.issuer.bearer("per_1", tenant_id=tenant_id, scope=scope)
    reply = await call(transport, operation, credential, made["id"])
    if (scope or "").removeprefix("helpdesk:") in OPERATIONS[operation][1]:
        reply.succeeded(201 if operation == "helpdesk.create" else 200)
    else:
        reply.failed("missing_scope")
        needed = "read" if "read" in OPERATIONS[operation][1] else "write"
        assert reply.message() == f"Token missing required scope: helpdesk:{needed}"


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_token_needs_a_tenant(transport: Transport, world: World, operation: str) -> None:
    scope = " ".join(f"helpdesk:{name}" for name in ALL)
    for tenant_id in (None, "", 17):
        credential = world.issuer.bearer("per_1", tenant_id=tenant_id, scope=scope)
        (await call(transport, operation, credential, "TKT-0001")).failed("invalid_token")
    (await call(transport, operation, {}, "TKT-0001")).failed("unauthenticated")


@pytest.mark.parametrize("operation", ["helpdesk.update", "helpdesk.close"])
@pytest.mark.parametrize(
    ("sub", "scopes", "reason"),
    [
        ("per_submitter", ("write",), None),
        ("per_submitter", ("read", "write"), None),
        # A ticket that somebody created for another is theirs too.
        ("per_creator", ("read", "write"), None),
        ("per_other", ("agent",), None),
        ("per_creator", ("write", "agent"), None),
        # What they do not see does not exist for them.
        ("per_other", ("read", "write"), "not_found"),
        ("per_assigned", ("read", "write"), "not_found"),
        ("per_other", ("write",), "not_found"),
        ("per_other", ("read_all", "write"), "forbidden"),
    ],
)
async def test_writers_change_their_own_tickets_and_agents_all(
    transport: Transport, world: World, operation: str, sub: str, scopes: tuple[str, ...], reason: str | None
) -> None:
    tenant_id = new_tenant_id()
    creator = world.person(*ALL, tenant_id=tenant_id, sub="per_creator")
    made = await create(transport, creator, submitted_by_id="per_submitter", assigned_to_id="per_assigned")
    assert (made["created_by"], made["submitted_by_id"]) == ("per_creator", "per_submitter")
    reply = await call(transport, operation, world.person(*scopes, tenant_id=tenant_id, sub=sub), made["id"])
    now = (await call(transport, "helpdesk.get", creator, made["id"])).succeeded()
    if reason is None:
        assert reply.succeeded() == now
        assert now["updated_by"] == sub
    else:
        reply.failed(reason)
        assert now == made


# Tenants, applications, deleted tickets


async def test_a_ticket_created_by_an_application_has_its_app_id(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    application = world.person("write", tenant_id=tenant_id, app_id="app_1")
    made = await create(transport, application)
    assert (made["app_id"], made["tenant_id"]) == ("app_1", tenant_id)
    person = world.person(*ALL, tenant_id=tenant_id)
    assert (await call(transport, "helpdesk.get", person, made["id"])).succeeded() == made
    # A change by a person does not take it from its application.
    assert (await call(transport, "helpdesk.update", person, made["id"])).succeeded()["app_id"] == "app_1"
    own = await create(transport, person)
    assert own.get("app_id") is None
    assert ("app_id" in own) == (transport.name == "grpc")


async def test_an_agent_sees_the_whole_tenant_and_an_application_its_own(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    one, two = (world.person(*ALL, tenant_id=tenant_id, app_id=app_id) for app_id in ("app_1", "app_2"))
    for credential in (person, one, two, one):
        await create(transport, credential)
    assert await numbers(transport, person) == ["TKT-0004", "TKT-0003", "TKT-0002", "TKT-0001"]
    assert await numbers(transport, one) == ["TKT-0004", "TKT-0002"]
    assert await numbers(transport, two) == ["TKT-0003"]
    assert await numbers(transport, world.person(*ALL, tenant_id=tenant_id, app_id="app_3")) == []
    assert await numbers(transport, world.person(*ALL)) == []
    # The same name in another tenant is another application.
    assert await numbers(transport, world.person(*ALL, app_id="app_1")) == []


@pytest.mark.parametrize("operation", ON_ONE_TICKET)
@pytest.mark.parametrize("name", ["id", "number"])
async def test_missing_and_invisible_tickets_are_not_found_alike(
    transport: Transport, world: World, operation: str, name: str
) -> None:
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    application = world.person(*ALL, tenant_id=tenant_id, app_id="app_1")
    missing = await call(transport, operation, person, "tkt_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    missing.failed("not_found", "Ticket not found")
    of_application, of_person, deleted = [await create(transport, who) for who in (application, person, person)]
    world.run(
        "UPDATE helpdesk_tickets SET is_deleted = true, deleted_at = now(), deleted_by = 'x' WHERE id = %s",
        deleted["id"],
    )
    not_seen = [
        (person, deleted),
        (world.person(*ALL), of_person),
        # The answer does not reveal that it belongs to someone else.
        (world.person("read", "write", sub="per_2"), of_person),
        (world.person("read", "write", tenant_id=tenant_id, sub="per_2"), of_person),
        (world.person(*ALL, app_id="app_1"), of_application),
        (world.person(*ALL, tenant_id=tenant_id, app_id="app_2"), of_application),
        (application, of_person),
    ]
    for credential, ticket in not_seen:
        reply = await call(transport, operation, credential, ticket[name])
        assert (reply.status, reply.failed("not_found")) == (missing.status, missing.body)
    for ticket in (of_application, of_person):
        assert (await call(transport, "helpdesk.get", person, ticket[name])).succeeded() == ticket
    assert await numbers(transport, person) == ["TKT-0002", "TKT-0001"]


CLAIMS = {
    "id": "tkt_01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "tenant_id": "ten_other",
    "app_id": "app_other",
    "number": "TKT-0042",
    "created_at": "2001-01-01T00:00:00Z",
    "updated_at": "never",
    "created_by": "per_other",
    "updated_by": 17,
    "is_deleted": True,
    "deleted_at": "2001-01-01T00:00:00Z",
    "deleted_by": "per_other",
    "schema_version": 2,
    "first_response_at": "2001-01-01T00:00:00Z",
    "resolved_at": [],
}


async def test_stamps_in_a_body_are_ignored(rest: Rest, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    plain, made = await create(rest, person), await create(rest, person, **CLAIMS)
    own = {"id": made["id"], "number": "TKT-0002", "created_at": made["created_at"], "updated_at": made["updated_at"]}
    assert made == {**plain, **own}
    assert made["id"] != CLAIMS["id"]
    body = {**CLAIMS, "title": "New"}
    reply = await rest.call("helpdesk.update", person, path={"id": made["id"]}, body=body)
    changed = reply.succeeded()
    assert changed == {**made, "title": "New", "updated_at": changed["updated_at"]}
    path = {"id": made["id"]}
    closed = (await rest.call("helpdesk.close", person, path=path, body=CLAIMS)).succeeded()
    assert closed == {
        **changed,
        "status": "closed",
        "updated_at": closed["updated_at"],
        "resolved_at": closed["updated_at"],
    }
    application = world.person(*ALL, tenant_id=tenant_id, app_id="app_1")
    assert (await create(rest, application, **CLAIMS))["app_id"] == "app_1"


# Numbers


async def test_numbers_count_up_per_tenant(transport: Transport, world: World) -> None:
    one, two = world.person(*ALL), world.person(*ALL)
    made = [(await create(transport, person))["number"] for person in (one, two, one, one, two)]
    assert made == ["TKT-0001", "TKT-0001", "TKT-0002", "TKT-0003", "TKT-0002"]


async def test_numbers_are_unique_and_without_gaps_under_concurrency(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    people = [world.person("write", tenant_id=tenant_id, sub=f"per_{n}") for n in range(3)]
    bodies: list[Any] = [TICKET, {"title": ""}, TICKET, {**TICKET, "team_id": "grp_1"}]
    requests = [transport.call("helpdesk.create", who, body=body) for who, body in product(people * 4, bodies)]
    replies = await asyncio.gather(*requests)
    made = sorted(reply.body["number"] for reply in replies if "number" in reply.body)
    assert made == [f"TKT-{n:04d}" for n in range(1, 25)]


async def test_a_ticket_is_found_by_its_number(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person)
    assert (await call(transport, "helpdesk.get", person, "TKT-0001")).succeeded() == made
    changed = (await call(transport, "helpdesk.update", person, "TKT-0001")).succeeded()
    assert (changed["id"], changed["title"]) == (made["id"], "New")
    closed = (await call(transport, "helpdesk.close", person, "TKT-0001")).succeeded()
    assert (closed["id"], closed["status"]) == (made["id"], "closed")


async def test_a_number_has_four_digits_or_more(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    await create(transport, person)
    for last, number in ((9_998, "TKT-9999"), (9_999, "TKT-10000"), (10**17, "TKT-100000000000000001")):
        world.run("UPDATE helpdesk_counters SET last_number = %s WHERE tenant_id = %s", last, tenant_id)
        made = await create(transport, person)
        assert made["number"] == number
        assert (await call(transport, "helpdesk.get", person, number)).succeeded() == made


@pytest.mark.parametrize("operation", ON_ONE_TICKET)
@pytest.mark.parametrize(
    "form",
    [
        "TKT-0002",
        "TKT-0000",
        "TKT-1",
        "TKT-001",
        "TKT-00001",
        "TKT-",
        "TKT",
        "TKT-0001 ",
        " TKT-0001",
        "TKT--001",
        "TKT-+001",
        "TKT-0x01",
        "TKT-1e00",
        "tkt-0001",
        "TKT_0001",
        "0001",
        "1",
        "TKT-٠٠٠١",
        "TKT-000１",
        "TKT-999999999999999999",
        "TKT-9223372036854775808",
        "TKT-" + "9" * 400,
        "tkt_",
        "tkt_01arz3ndektsv4rrffq69g5fav",
        "tkt_01ARZ3NDEKTSV4RRFFQ69G5FAI",
        "TKT_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "tkt_" + "Z" * 26,
        "tkt_" + "0" * 27,
        "é",
        "%25",
        "'; --",
        "x" * 4_000,
    ],
    ids=lambda form: form[:32],
)
async def test_text_that_is_neither_an_id_nor_a_number_is_not_found(
    transport: Transport, world: World, operation: str, form: str
) -> None:
    person = world.person(*ALL)
    await create(transport, person)
    (await call(transport, operation, person, form)).failed("not_found", "Ticket not found")


@pytest.mark.parametrize("form", ["", "TKT-0001\n", "TKT-0001\0", "\0", "../TKT-0001", "TKT-0001/close", "."])
async def test_references_that_no_path_can_hold_are_not_found(rpc: Grpc, world: World, form: str) -> None:
    person = world.person(*ALL)
    await create(rpc, person)
    for operation in ON_ONE_TICKET:
        (await call(rpc, operation, person, form)).failed("not_found", "Ticket not found")
