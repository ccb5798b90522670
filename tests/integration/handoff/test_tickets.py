"""contracts/handoff.md at both transports: creating tickets."""

import asyncio
import json
import re
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.handoff import (
    ALIASES,
    DOCUMENTED,
    MEMBERS,
    NOT_GIVEN,
    NOTHING_YET,
    ROLE_MEMBERS,
    ROLE_NOTHING_YET,
    TICKET,
    Transport,
    create,
    created,
    has_members,
    history,
    listed,
    member_of,
    new_project,
)
from support.system import World
from support.transports import Grpc, Rest
from tickets.handoff.v1 import ticket_pb2, ticket_service_pb2, ticket_service_pb2_grpc

LONGEST = {
    "title": 140,
    "description": 20_000,
    "suggested_resolution": 5_000,
    "implementation_notes": 5_000,
    "actor_role": 64,
    "actor_id": 128,
    "source": 64,
}
# The largest evidence: 256 KiB of compact JSON.
EVIDENCE = {"n": "x" * (256 * 1024 - len('{"n":""}'))}
RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


async def test_a_ticket_is_created_with_the_documented_defaults(transport: Transport, world: World) -> None:
    user_id, account_id, slug = str(uuid4()), (await world.program()).account_id, f"shop-{uuid4().hex}"
    project_id = await world.project(name="The shop", slug=slug, account_id=account_id)
    who = await world.member(project_id, user_id=user_id)
    ticket = await created(transport, who, project_id)
    assert has_members(transport, ticket, MEMBERS)
    assert UUID(ticket["id"])
    assert RFC_3339_UTC.fullmatch(ticket["created_at"])
    nothing = {*NOTHING_YET, *NOT_GIVEN, "suggested_backend_change"}
    assert {name for name in MEMBERS if ticket[name] is None} == nothing
    expected = {
        **TICKET,
        "project_id": project_id,
        "billing_account_id": account_id,
        "project_name": "The shop",
        "number": 1,
        "ticket_ref": f"HO-1-{slug}",
        "source": "portal",
        "status": "open",
        "stage": "backlog",
        "priority": "medium",
        "blocking": False,
        "reported_by_user_id": user_id,
        "can_triage": False,
    }
    assert {name: ticket[name] for name in expected} == expected
    [role] = ticket["roles"]
    assert set(role) == ROLE_MEMBERS
    assert (role["handoff_request_id"], role["role"], role["status"]) == (ticket["id"], "backend", "pending")
    assert {name for name in role if role[name] is None} == set(ROLE_NOTHING_YET)
    assert role["created_at"] == role["updated_at"] == ticket["created_at"]
    declared = world.rows("SELECT actor_role, actor_id FROM handoff_tickets WHERE id = %s", ticket["id"])
    assert declared == [("user", user_id)]


async def test_the_documented_body_is_accepted_as_it_stands(transport: Transport, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who = await world.member(project_id, user_id=user_id)
    ticket = await created(transport, who, project_id, **DOCUMENTED)
    kept = set(DOCUMENTED) & MEMBERS - {"roles"}
    assert {name: ticket[name] for name in kept} == {name: DOCUMENTED[name] for name in kept}
    assert [role["role"] for role in ticket["roles"]] == ["frontend"]
    # The declared provenance does not replace the authenticated user.
    assert ticket["reported_by_user_id"] == user_id
    declared = world.rows("SELECT actor_role, actor_id FROM handoff_tickets WHERE id = %s", ticket["id"])
    assert declared == [("example", "example")]


async def test_old_names_have_the_values_of_the_new_ones(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    given = {"request_type": "decision_needed", "priority": "high", "suggested_resolution": "Ask."}
    full, bare = await created(transport, who, project_id, **given), await created(transport, who, project_id)
    for ticket in (full, bare, *await listed(transport, who)):
        assert {name: ticket[name] for name in ALIASES} == {name: ticket[of] for name, of in ALIASES.items()}
    assert [full[name] for name in ALIASES] == ["decision_needed", "high", "Ask."]
    assert bare["suggested_backend_change"] is None


async def test_roles_keep_their_order_and_default_to_those_of_the_project(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world, default_roles=["qa", "backend", "design"])
    every = ["test", "other", "qa", "frontend", "devops", "design", "backend"]
    for given, expected in ((None, ["qa", "backend", "design"]), ([], ["qa", "backend", "design"]), (every, every)):
        ticket = await created(transport, who, project_id, roles=given)
        assert [role["role"] for role in ticket["roles"]] == expected
        assert (await listed(transport, who))[0]["roles"] == ticket["roles"]


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        *(({name: "x" * (longest + 1)}, [name]) for name, longest in LONGEST.items()),
        *(({name: "a\0b"}, [name]) for name in LONGEST),
        ({"title": ""}, ["title"]),
        ({"title": " \n\t "}, ["title"]),
        ({"description": ""}, ["description"]),
        ({"request_type": None}, ["request_type"]),
        ({"request_type": "question"}, ["request_type"]),
        ({"roles": ["frontend", "chef"]}, ["roles.1"]),
        ({"roles": ["qa", "backend", "qa"]}, ["roles"]),
        ({"priority": "urgent"}, ["priority"]),
        ({"evidence": []}, ["evidence"]),
        ({"evidence": {"steps": ["a\0b"]}}, ["evidence"]),
        ({"evidence": {"n": EVIDENCE["n"] + "x"}}, ["evidence"]),
        ({"title": "", "request_type": "x", "roles": ["x", "y"]}, ["title", "request_type", "roles.0", "roles.1"]),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_broken_bounds_are_reported_by_path(
    transport: Transport, world: World, changed: Any, paths: list[str]
) -> None:
    project_id, who = await new_project(world)
    body = (await create(transport, who, project_id, **changed)).failed("validation_error", paths=paths)
    if transport.name == "rest":
        assert set(body) == {"error", "code", "fieldErrors", "issues"}
        assert body["fieldErrors"] == {issue["path"]: issue["message"] for issue in body["issues"]}
    assert await listed(transport, who) == []


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"title": 5}, "title"),
        ({"blocking": "true"}, "blocking"),
        ({"blocking": 1}, "blocking"),
        ({"roles": "frontend"}, "roles"),
        ({"roles": [["frontend"]]}, "roles.0"),
        ({"evidence": "{}"}, "evidence"),
    ],
    ids=str,
)
async def test_types_are_not_guessed(rest: Rest, world: World, changed: Any, path: str) -> None:
    project_id, who = await new_project(world)
    (await create(rest, who, project_id, **changed)).failed("validation_error", paths=[path])


async def test_bounds_hold_at_their_edges(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    longest = {name: "é" * longest for name, longest in LONGEST.items()}
    ticket = await created(transport, who, project_id, **longest, evidence=EVIDENCE)
    [declared] = world.rows("SELECT actor_role, actor_id FROM handoff_tickets WHERE id = %s", ticket["id"])
    kept = ticket | dict(zip(("actor_role", "actor_id"), declared, strict=True))
    assert {name: kept[name] for name in longest} == longest
    assert ticket["evidence"] == EVIDENCE
    assert (await created(transport, who, project_id, title="x", description="y"))["title"] == "x"


async def test_a_title_is_trimmed_before_it_is_measured(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    ticket = await created(transport, who, project_id, title=" \t" + "x" * 140 + "\n ", description="  kept \n")
    assert (ticket["title"], ticket["description"]) == ("x" * 140, "  kept \n")


@pytest.mark.parametrize(
    ("source", "actor_role", "token_actor_role", "is_bot"),
    [
        (None, None, None, False),
        ("portal", "user", "user", False),
        ("mcp_bot", "mcp", "mcp", False),
        ("mcp", None, None, True),
        ("mcp", "user", "user", True),
        (None, "mcp_bot", None, True),
        ("portal", "mcp_bot", "user", True),
        (None, None, "mcp_bot", True),
        ("portal", "user", "mcp_bot", True),
        ("MCP", None, None, True),
        (" Mcp\n", "user", None, True),
        (None, "MCP_Bot", None, True),
    ],
)
async def test_a_bot_must_name_roles(
    transport: Transport,
    world: World,
    source: str | None,
    actor_role: str | None,
    token_actor_role: str | None,
    is_bot: bool,
) -> None:
    project_id = await world.project()
    who = await world.member(project_id, actor_role=token_actor_role)
    none_named: tuple[Any, ...] = (None, [])
    for roles in none_named:
        reply = await create(transport, who, project_id, source=source, actor_role=actor_role, roles=roles)
        if is_bot:
            reply.failed("validation_error", paths=["roles"])
        else:
            reply.succeeded(201)
    ticket = await created(transport, who, project_id, source=source, actor_role=actor_role, roles=["qa"])
    assert [role["role"] for role in ticket["roles"]] == ["qa"]


@pytest.mark.parametrize(
    ("token_actor_role", "given", "expected"),
    [
        (None, {}, ("user", "portal")),
        ("reviewer", {}, ("reviewer", "portal")),
        ("mcp_bot", {}, ("mcp_bot", "mcp")),
        ("mcp_bot", {"source": "cli", "actor_role": "user"}, ("user", "cli")),
        (None, {"source": "MCP", "actor_role": "mcp_bot"}, ("mcp_bot", "MCP")),
    ],
)
async def test_who_declares_nothing_is_written_down_as_their_token_says(
    transport: Transport, world: World, token_actor_role: str | None, given: dict[str, str], expected: tuple[str, str]
) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who = await world.member(project_id, user_id=user_id, actor_role=token_actor_role)
    ticket = await created(transport, who, project_id, roles=["qa"], **given)
    declared = world.rows("SELECT actor_role, source, actor_id FROM handoff_tickets WHERE id = %s", ticket["id"])
    assert declared == [(*expected, user_id)]
    assert ticket["source"] == expected[1]
    # Who was authenticated is the same whatever they declare.
    [event] = await history(transport, who, ticket)
    assert (event["actor"], event["actor_role"], ticket["reported_by_user_id"]) == (user_id, expected[0], user_id)


@pytest.mark.parametrize(
    ("role", "creates", "triages"),
    [("viewer", False, False), ("member", True, False), ("triager", True, True), ("owner", True, True)],
)
async def test_the_role_in_the_project_decides_who_creates_and_triages(
    transport: Transport, world: World, role: str, creates: bool, triages: bool
) -> None:
    project_id = await world.project()
    who, colleague = await world.member(project_id, role), await world.member(project_id)
    existing = await created(transport, colleague, project_id)
    assert [(ticket["id"], ticket["can_triage"]) for ticket in await listed(transport, who)] == [
        (existing["id"], triages)
    ]
    reply = await create(transport, who, project_id)
    if creates:
        assert reply.succeeded(201)["ticket"]["can_triage"] is triages
    else:
        reply.failed("forbidden")
    assert len(await listed(transport, colleague)) == 1 + creates


async def test_a_project_of_others_is_forbidden_like_one_that_does_not_exist(
    transport: Transport, world: World
) -> None:
    project_id = await world.project()
    who = await world.member(await world.project(), "owner")
    await created(transport, await world.member(project_id), project_id)
    refused = await create(transport, who, project_id)
    refused.failed("forbidden")
    assert (await create(transport, who, str(uuid4()))).failed("forbidden") == refused.body
    assert await listed(transport, who) == []
    (await create(transport, who, "shop")).failed("validation_error", paths=["project_id"])


async def test_numbers_count_up_per_project_without_gaps(transport: Transport, world: World) -> None:
    slugs = [f"p-{uuid4().hex}" for _ in range(2)]
    projects = [await world.project(slug=slug) for slug in slugs]
    who = await member_of(world, *projects)
    viewer = await world.member(projects[0], "viewer")
    calls = [
        call
        for project_id in projects
        for _ in range(15)
        for call in (
            create(transport, who, project_id),
            # None of these may use a number.
            create(transport, viewer, project_id),
            create(transport, who, project_id, title=""),
            create(transport, who, project_id, headers={"idempotency-key": "the same"}),
        )
    ]
    await asyncio.gather(*calls)
    tickets = await listed(transport, who, limit=1000)
    for project_id, slug in zip(projects, slugs, strict=True):
        refs = {ticket["ticket_ref"]: ticket["number"] for ticket in tickets if ticket["project_id"] == project_id}
        assert refs == {f"HO-{number}-{slug}": number for number in range(1, 17)}


async def test_each_ticket_leaves_one_event(transport: Transport, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who = await world.member(project_id, user_id=user_id)
    headers = {"idempotency-key": "k", "x-request-id": "r-7"}
    for _ in range(2):
        ticket = (await create(transport, who, project_id, headers, actor_id="someone else")).succeeded(201)["ticket"]
    (await create(transport, who, project_id, title="")).failed("validation_error")
    events = world.rows(
        "SELECT ticket_id::text, version, type, changes, actor, request_id FROM handoff_events WHERE project_id = %s",
        project_id,
    )
    assert events == [(ticket["id"], 1, "ticket.created", {}, user_id, "r-7")]


# Evidence


@pytest.mark.parametrize(
    "evidence",
    [
        '{"z":{"b":null,"a":""},"Zoë":[true,"\\\\u0000 🎫"],"a":[]}',
        '{"z":12345678901234567890123,"a":-9007199254740993}',
        '{"z":1.10,"a":[0.1000000000000000055511151231257827,-0.0]}',
    ],
)
async def test_evidence_is_kept_exactly(rest: Rest, rpc: Grpc, world: World, evidence: str) -> None:
    project_id, who = await new_project(world)
    body = json.dumps(TICKET)[:-1] + f', "evidence": {evidence}}}'
    for _ in range(2):  # the second answer is the stored one
        answer = await rest.client.post(
            f"/api/projects/{project_id}/tickets", content=body.encode(), headers={**who, "idempotency-key": "e"}
        )
        assert answer.status_code == 201, answer.text
        assert f'"evidence":{evidence}' in answer.text
    assert (await rest.client.get("/api/tickets", headers=dict(who))).text.count(f'"evidence":{evidence}') == 1
    typed = ticket_service_pb2_grpc.TicketServiceStub(rpc.channel)
    metadata = tuple(who.items())
    given = ticket_service_pb2.CreateTicketRequest(
        project_id=project_id,
        title="x",
        description="y",
        request_type=ticket_pb2.REQUEST_TYPE_BUG,
        evidence_json=evidence,
    )
    made = await typed.CreateTicket(given, metadata=metadata)
    rows = await typed.ListTickets(ticket_service_pb2.ListTicketsRequest(), metadata=metadata)
    assert [ticket.evidence_json for ticket in (made.ticket, *rows.tickets)] == [evidence] * 3
