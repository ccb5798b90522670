"""contracts/handoff.md at both doors."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from harness import Grpc, Reply, Rest
from system import Credential, World
from tickets.handoff.v1 import service_pb2, service_pb2_grpc, ticket_pb2

Door = Rest | Grpc

TICKET = {"title": "Login loops", "description": "Since nine.\nIn every browser.", "request_type": "bug"}
DOCUMENTED = json.loads("""{"title":"example","description":"example","request_type":"bug","roles":["frontend"],
"priority":"low","blocking":false,"evidence":{},"suggested_resolution":"example","implementation_notes":"example",
"actor_role":"example","actor_id":"example","source":"example"}""")
LONGEST = {
    "title": 140,
    "description": 20_000,
    "suggested_resolution": 5_000,
    "implementation_notes": 5_000,
    "actor_role": 64,
    "actor_id": 128,
    "source": 64,
}
# Compact JSON of so many bytes.
EVIDENCE = {"n": "x" * (256 * 1024 - len('{"n":""}'))}
# What older clients know the same values by. Typed messages, being new, have each once.
ALIASES = {"category": "request_type", "severity": "priority", "suggested_backend_change": "suggested_resolution"}
# What no new ticket has a value for, and such values.
NOTHING_YET = {
    "milestone_id": "2c1d8a51-3f3c-4f0e-9a52-6d6f3b0d5a11",
    "updated_at": "2026-02-20T14:30:00Z",
    "merge_sha": "9fceb02",
    "deployed_at": "2026-02-21T09:00:00.123456Z",
    "deploy_failed_at": "2026-02-21T08:00:00Z",
    "resolution_type": "wont_fix",
    "resolution_note": "Works as meant.",
    "resolved_at": "2026-02-22T10:00:00Z",
    "github_issue_number": 17,
    "github_issue_url": "https://github.com/acme/shop/issues/17",
}
# What has no value unless it is given.
NOT_GIVEN = {"suggested_resolution", "implementation_notes", "evidence", "backend_repo", "frontend_repo"}
ALWAYS = (
    "id project_id billing_account_id source number status stage priority blocking created_at reported_by_user_id roles"
    " ticket_ref project_name can_triage"
)
MEMBERS = {*TICKET, *ALIASES, *NOTHING_YET, *NOT_GIVEN, *ALWAYS.split()}
ROLE_NOTHING_YET = {
    "assignee_user_id": "7b0a3c9e-51d8-4a6e-8f0c-0b8f6f1f2a33",
    "assignee_note": "On it.",
    "blocking_reason": "No access.",
    "work_started_note": "Reading logs.",
    "agent_origin": "agent-7",
    "started_at": "2026-02-20T15:00:00Z",
    "completed_at": "2026-02-21T16:00:00.500000Z",
}
ROLE_MEMBERS = {"id", "handoff_request_id", "role", "status", "created_at", "updated_at", *ROLE_NOTHING_YET}
RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


async def create(door: Door, who: Credential, project_id: str, headers: Any = None, **changed: Any) -> Reply:
    """File TICKET with these changes; a member that is None is left out."""
    body = {name: value for name, value in {**TICKET, **changed}.items() if value is not None}
    return await door.call("handoff.create", who, path={"project_id": project_id}, body=body, headers=headers)


async def created(door: Door, who: Credential, project_id: str, **changed: Any) -> dict[str, Any]:
    ticket: dict[str, Any] = (await create(door, who, project_id, **changed)).succeeded(201)["ticket"]
    return ticket


async def listed(door: Door, who: Credential, **query: Any) -> list[dict[str, Any]]:
    tickets: list[dict[str, Any]] = (await door.call("handoff.list", who, query=query)).succeeded()["tickets"]
    return tickets


async def place(world: World, role: str = "member", **project: Any) -> tuple[str, Credential]:
    """A project, and somebody with this role in it."""
    project_id = await world.project(**project)
    return project_id, await world.member(project_id, role)


async def member_of(world: World, *projects: str) -> Credential:
    """A user who is a member of all these projects."""
    user_id = str(uuid4())
    for project_id in projects:
        await world.member(project_id, user_id=user_id)
    return world.issuer.bearer(user_id)


def has_members(door: Door, ticket: Mapping[str, Any], documented: set[str]) -> bool:
    """Whether a ticket has these members and no other. Typed messages cannot say that there is no such member."""
    if door.name == "rest":
        return set(ticket) == documented
    return {name for name in ticket if name in documented or ticket[name] is not None} == documented - set(ALIASES)


# POST


async def test_a_ticket_is_created_with_the_documented_defaults(door: Door, world: World) -> None:
    user_id, account_id, slug = str(uuid4()), (await world.program()).account_id, f"shop-{uuid4().hex}"
    project_id = await world.project(name="The shop", slug=slug, account_id=account_id)
    who = await world.member(project_id, user_id=user_id)
    ticket = await created(door, who, project_id)
    assert has_members(door, ticket, MEMBERS)
    assert UUID(ticket["id"])
    assert RFC_3339_UTC.fullmatch(ticket["created_at"])
    assert {name for name in MEMBERS - set(ALIASES) if ticket[name] is None} == {*NOTHING_YET, *NOT_GIVEN}
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


async def test_the_documented_body_is_accepted_as_it_stands(door: Door, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who = await world.member(project_id, user_id=user_id)
    ticket = await created(door, who, project_id, **DOCUMENTED)
    kept = set(DOCUMENTED) & MEMBERS - {"roles"}
    assert {name: ticket[name] for name in kept} == {name: DOCUMENTED[name] for name in kept}
    assert [role["role"] for role in ticket["roles"]] == ["frontend"]
    # Declared is kept beside authenticated, and does not replace it.
    assert ticket["reported_by_user_id"] == user_id
    declared = world.rows("SELECT actor_role, actor_id FROM handoff_tickets WHERE id = %s", ticket["id"])
    assert declared == [("example", "example")]


async def test_old_names_say_the_same_as_new_ones(rest: Rest, world: World) -> None:
    project_id, who = await place(world)
    given = {"request_type": "decision_needed", "priority": "high", "suggested_resolution": "Ask."}
    full, bare = await created(rest, who, project_id, **given), await created(rest, who, project_id)
    for ticket in (full, bare, *await listed(rest, who)):
        assert {name: ticket[name] for name in ALIASES} == {name: ticket[of] for name, of in ALIASES.items()}
    assert [full[name] for name in ALIASES] == ["decision_needed", "high", "Ask."]
    assert bare["suggested_backend_change"] is None


async def test_roles_keep_their_order_and_default_to_the_projects(door: Door, world: World) -> None:
    project_id, who = await place(world, default_roles=["qa", "backend", "design"])
    every = ["test", "other", "qa", "frontend", "devops", "design", "backend"]
    for given, expected in ((None, ["qa", "backend", "design"]), ([], ["qa", "backend", "design"]), (every, every)):
        ticket = await created(door, who, project_id, roles=given)
        assert [role["role"] for role in ticket["roles"]] == expected
        assert (await listed(door, who))[0]["roles"] == ticket["roles"]


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
async def test_broken_bounds_are_told_by_path(door: Door, world: World, changed: Any, paths: list[str]) -> None:
    project_id, who = await place(world)
    body = (await create(door, who, project_id, **changed)).failed("validation_error", paths=paths)
    if door.name == "rest":
        assert set(body) == {"error", "code", "fieldErrors", "issues"}
        assert body["fieldErrors"] == {issue["path"]: issue["message"] for issue in body["issues"]}
    assert await listed(door, who) == []


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
    project_id, who = await place(world)
    (await create(rest, who, project_id, **changed)).failed("validation_error", paths=[path])


async def test_bounds_hold_at_their_edges(door: Door, world: World) -> None:
    project_id, who = await place(world)
    longest = {name: "é" * longest for name, longest in LONGEST.items()}
    ticket = await created(door, who, project_id, **longest, evidence=EVIDENCE)
    [declared] = world.rows("SELECT actor_role, actor_id FROM handoff_tickets WHERE id = %s", ticket["id"])
    kept = ticket | dict(zip(("actor_role", "actor_id"), declared, strict=True))
    assert {name: kept[name] for name in longest} == longest
    assert ticket["evidence"] == EVIDENCE
    assert (await created(door, who, project_id, title="x", description="y"))["title"] == "x"


async def test_a_title_is_trimmed_before_it_is_measured(door: Door, world: World) -> None:
    project_id, who = await place(world)
    ticket = await created(door, who, project_id, title=" \t" + "x" * 140 + "\n ", description="  kept \n")
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
    ],
)
async def test_a_bot_must_name_roles(
    door: Door, world: World, source: str | None, actor_role: str | None, token_actor_role: str | None, is_bot: bool
) -> None:
    project_id = await world.project()
    who = await world.member(project_id, actor_role=token_actor_role)
    none_named: tuple[Any, ...] = (None, [])
    for roles in none_named:
        reply = await create(door, who, project_id, source=source, actor_role=actor_role, roles=roles)
        if is_bot:
            reply.failed("validation_error", paths=["roles"])
        else:
            reply.succeeded(201)
    ticket = await created(door, who, project_id, source=source, actor_role=actor_role, roles=["qa"])
    assert [role["role"] for role in ticket["roles"]] == ["qa"]


@pytest.mark.parametrize(
    ("role", "creates", "triages"),
    [("viewer", False, False), ("member", True, False), ("triager", True, True), ("owner", True, True)],
)
async def test_membership_decides(door: Door, world: World, role: str, creates: bool, triages: bool) -> None:
    project_id = await world.project()
    who, colleague = await world.member(project_id, role), await world.member(project_id)
    there = await created(door, colleague, project_id)
    assert [(ticket["id"], ticket["can_triage"]) for ticket in await listed(door, who)] == [(there["id"], triages)]
    reply = await create(door, who, project_id)
    if creates:
        assert reply.succeeded(201)["ticket"]["can_triage"] is triages
    else:
        reply.failed("forbidden")
    assert len(await listed(door, colleague)) == 1 + creates


async def test_a_strangers_project_is_forbidden_like_one_that_does_not_exist(door: Door, world: World) -> None:
    project_id = await world.project()
    who = await world.member(await world.project(), "owner")
    await created(door, await world.member(project_id), project_id)
    refused = await create(door, who, project_id)
    refused.failed("forbidden")
    assert (await create(door, who, str(uuid4()))).failed("forbidden") == refused.body
    assert await listed(door, who) == []
    (await create(door, who, "shop")).failed("validation_error", paths=["project_id"])


async def test_numbers_count_up_per_project_without_gaps(door: Door, world: World) -> None:
    slugs = [f"p-{uuid4().hex}" for _ in range(2)]
    projects = [await world.project(slug=slug) for slug in slugs]
    who = await member_of(world, *projects)
    viewer = await world.member(projects[0], "viewer")
    calls = [
        call
        for project_id in projects
        for _ in range(15)
        for call in (
            create(door, who, project_id),
            # None of these may cost a number.
            create(door, viewer, project_id),
            create(door, who, project_id, title=""),
            create(door, who, project_id, headers={"idempotency-key": "the same"}),
        )
    ]
    await asyncio.gather(*calls)
    tickets = await listed(door, who, limit=1000)
    for project_id, slug in zip(projects, slugs, strict=True):
        refs = {ticket["ticket_ref"]: ticket["number"] for ticket in tickets if ticket["project_id"] == project_id}
        assert refs == {f"HO-{number}-{slug}": number for number in range(1, 17)}


async def test_each_ticket_leaves_one_event(door: Door, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who = await world.member(project_id, user_id=user_id)
    headers = {"idempotency-key": "k", "x-request-id": "r-7"}
    for _ in range(2):
        ticket = (await create(door, who, project_id, headers, actor_id="someone else")).succeeded(201)["ticket"]
    (await create(door, who, project_id, title="")).failed("validation_error")
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
    project_id, who = await place(world)
    body = json.dumps(TICKET)[:-1] + f', "evidence": {evidence}}}'
    for _ in range(2):  # the second answer is the stored one
        answer = await rest.client.post(
            f"/api/projects/{project_id}/tickets", content=body.encode(), headers={**who, "idempotency-key": "e"}
        )
        assert answer.status_code == 201, answer.text
        assert f'"evidence":{evidence}' in answer.text
    assert (await rest.client.get("/api/tickets", headers=dict(who))).text.count(f'"evidence":{evidence}') == 1
    typed = service_pb2_grpc.TicketServiceStub(rpc.channel)
    metadata = tuple(who.items())
    given = service_pb2.CreateTicketRequest(
        project_id=project_id,
        title="x",
        description="y",
        request_type=ticket_pb2.REQUEST_TYPE_BUG,
        evidence_json=evidence,
    )
    made = await typed.CreateTicket(given, metadata=metadata)
    rows = await typed.ListTickets(service_pb2.ListTicketsRequest(), metadata=metadata)
    assert [ticket.evidence_json for ticket in (made.ticket, *rows.tickets)] == [evidence] * 3


# Idempotency


async def test_the_same_key_and_body_give_the_first_answer_again(door: Door, world: World) -> None:
    project_id, who = await place(world, "triager", backend_repo="acme/api")
    headers = {"idempotency-key": "key 1"}
    given = {"evidence": {"a": 1, "b": [1.5]}, "roles": ["qa", "backend"]}
    first = await create(door, who, project_id, headers, **given)
    assert "idempotent-replayed" not in first.headers
    again = await create(door, who, project_id, headers, evidence={"b": [1.50], "a": 1.0}, roles=given["roles"])
    assert again.succeeded(201) == first.succeeded(201)
    assert again.headers["idempotent-replayed"] == "true"
    for other in ({"title": "Other"}, {"roles": ["backend", "qa"]}, {"priority": "medium"}):
        reply = await create(door, who, project_id, headers, **{**given, **other})
        reply.failed("idempotency_mismatch", "Idempotency key reused with a different payload")
    assert len(await listed(door, who)) == 1


async def test_keys_belong_to_the_user_and_the_project(door: Door, world: World) -> None:
    projects = [await world.project(), await world.project()]
    who = await member_of(world, *projects)
    colleague = await world.member(projects[0])
    headers = {"idempotency-key": "shared"}
    made = [
        (await create(door, credential, project_id, headers, title=title)).succeeded(201)["ticket"]
        for credential, project_id, title in (
            (who, projects[0], "a"),
            (colleague, projects[0], "b"),
            (who, projects[1], "c"),
        )
    ]
    assert [ticket["title"] for ticket in made] == ["a", "b", "c"]


async def test_a_failed_request_frees_its_key(door: Door, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who, headers = await world.member(project_id, "viewer", user_id), {"idempotency-key": "once more"}
    (await create(door, who, project_id, headers)).failed("forbidden")
    await world.member(project_id, "member", user_id)
    (await create(door, who, project_id, headers, title="")).failed("validation_error")
    reply = await create(door, who, project_id, headers)
    reply.succeeded(201)
    assert "idempotent-replayed" not in reply.headers


async def test_many_at_the_same_moment_make_one_ticket(door: Door, world: World) -> None:
    project_id, who = await place(world)
    headers = {"idempotency-key": "race"}
    replies = await asyncio.gather(*(create(door, who, project_id, headers) for _ in range(24)))
    assert len({str(reply.succeeded(201)) for reply in replies}) == 1
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) == 1
    assert len(await listed(door, who)) == 1


async def test_one_key_holds_across_both_doors(rest: Rest, rpc: Grpc, world: World) -> None:
    project_id, who = await place(world)
    headers = {"idempotency-key": "both"}
    first = (await create(rest, who, project_id, headers, **DOCUMENTED)).succeeded(201)["ticket"]
    second = await create(rpc, who, project_id, headers, **DOCUMENTED)
    assert {**first, "summary": None} == {**second.succeeded()["ticket"], **{name: first[name] for name in ALIASES}}
    assert second.headers["idempotent-replayed"] == "true"


# GET


async def test_rows_of_a_list_carry_the_ticket_and_the_extras(door: Door, world: World) -> None:
    user_id = str(uuid4())
    repos = {"backend_repo": "acme/api", "frontend_repo": "acme/web"}
    one, two = await world.project(name="One", **repos), await world.project(name="Two")
    who = await world.member(one, "triager", user_id)
    await world.member(two, "member", user_id)
    made = [await created(door, who, project_id, description=f"{project_id}\nMore.") for project_id in (one, two, one)]
    rows = await listed(door, who)
    # Newest first, whatever the project; every row is the ticket as it was answered, and its summary.
    assert rows == [{**ticket, "summary": ticket["project_id"]} for ticket in made[::-1]]
    assert all(has_members(door, row, {*MEMBERS, "summary"}) for row in rows)
    # Each row speaks for its own project, and for the caller's part in it.
    extras = [(row["project_name"], row["can_triage"], row["backend_repo"], row["frontend_repo"]) for row in rows]
    assert extras == [("One", True, *repos.values()), ("Two", False, None, None), ("One", True, *repos.values())]


async def test_slim_rows_have_no_description(door: Door, world: World) -> None:
    project_id, who = await place(world)
    await created(door, who, project_id)
    [whole] = await listed(door, who)
    [slim] = await listed(door, who, slim=1 if door.name == "rest" else True)
    assert has_members(door, slim, {*MEMBERS, "summary"} - {"description"})
    assert {**slim, "description": whole["description"]} == whole
    assert slim["summary"] == "Since nine."
    assert await listed(door, who, slim=0 if door.name == "rest" else False) == [whole]


async def test_what_has_come_to_be_since_is_shown(door: Door, world: World) -> None:
    project_id, who = await place(world)
    made = await created(door, who, project_id)

    def set_in(table: str, key: str, values: Mapping[str, Any]) -> None:
        columns = ", ".join(f"{name} = %s" for name in values)
        world.run(f"UPDATE {table} SET {columns} WHERE {key} = %s", *values.values(), made["id"])

    since = {**NOTHING_YET, "status": "closed", "stage": "live"}
    set_in("handoff_tickets", "id", since)
    part = {**ROLE_NOTHING_YET, "status": "done", "updated_at": "2026-02-21T16:00:01Z"}
    set_in("handoff_roles", "ticket_id", part)
    [row] = await listed(door, who)
    assert row == {**made, **since, "roles": [{**made["roles"][0], **part}], "summary": "Since nine."}


def fill(world: World, project_id: str, count: int) -> list[str]:
    """Put so many tickets without roles into a project, ten of each instant; returns their ids, newest first."""
    rows = world.rows(
        "INSERT INTO handoff_tickets (project_id, number, source, title, description, request_type, priority, blocking,"
        " actor_role, actor_id, created_at) SELECT %s, n, 'portal', 'Title', 'Text', 'bug', 'low', false, 'user', 'x',"
        " timestamptz '2026-01-01Z' + (n / 10) * interval '1 second' FROM generate_series(1, %s) AS n"
        " RETURNING created_at, id::text",
        project_id,
        count,
    )
    return [ticket_id for _, ticket_id in sorted(rows, reverse=True)]


async def test_the_list_is_complete_however_many_there_are(rest: Rest, world: World) -> None:
    project_id, who = await place(world, "viewer")
    assert (await rest.call("handoff.list", who)).succeeded() == {"tickets": []}
    ids = fill(world, project_id, 250)
    for query in ({}, {"slim": 1}):
        body = (await rest.call("handoff.list", who, query=query)).succeeded()
        assert set(body) == {"tickets"}
        assert [ticket["id"] for ticket in body["tickets"]] == ids
        assert {"description" in ticket for ticket in body["tickets"]} == {not query}
        assert {str(ticket["roles"]) for ticket in body["tickets"]} == {"[]"}


@pytest.mark.parametrize("limit", [40, 124, 125, 249, 250, 1000])
async def test_pages_hold_each_ticket_once_and_in_order(door: Door, world: World, limit: int) -> None:
    projects = [await world.project(), await world.project()]
    who = await member_of(world, *projects)
    fill(world, projects[0], 200)
    fill(world, projects[1], 50)
    expected = world.rows(
        "SELECT id::text FROM handoff_tickets WHERE project_id = ANY(%s::uuid[]) ORDER BY created_at DESC, id DESC",
        projects,
    )
    pages, query = [], {"limit": limit}
    while True:
        body = (await door.call("handoff.list", who, query=query)).succeeded()
        assert set(body) == {"tickets", "next_cursor"}
        pages.append([ticket["id"] for ticket in body["tickets"]])
        if body["next_cursor"] is None:
            break
        query["cursor"] = body["next_cursor"]
    assert [len(page) for page in pages[:-1]] == [limit] * ((250 - 1) // limit)
    assert [ticket_id for page in pages for ticket_id in page] == [ticket_id for (ticket_id,) in expected]


async def test_a_page_without_limit_has_100(rest: Rest, rpc: Grpc, world: World) -> None:
    project_id, who = await place(world)
    ids = fill(world, project_id, 210)
    first = (await rpc.call("handoff.list", who)).succeeded()
    assert [ticket["id"] for ticket in first["tickets"]] == ids[:100]
    # A cursor alone asks for a page over REST too, and both doors take each other's.
    for door in (rest, rpc):
        second = (await door.call("handoff.list", who, query={"cursor": first["next_cursor"]})).succeeded()
        assert [ticket["id"] for ticket in second["tickets"]] == ids[100:200]
        last = (await door.call("handoff.list", who, query={"cursor": second["next_cursor"]})).succeeded()
        assert ([ticket["id"] for ticket in last["tickets"]], last["next_cursor"]) == (ids[200:], None)


async def test_what_the_caller_may_no_longer_see_is_in_no_list(door: Door, world: World) -> None:
    projects = [await world.project(), await world.project()]
    who = await member_of(world, *projects)
    kept, *_ = [fill(world, project_id, 5) for project_id in projects]
    cursor = (await door.call("handoff.list", who, query={"limit": 2})).succeeded()["next_cursor"]
    world.run("DELETE FROM project_members WHERE project_id = %s", projects[1])
    assert [ticket["id"] for ticket in await listed(door, who)] == kept
    assert {ticket["project_id"] for ticket in await listed(door, who, cursor=cursor)} == {projects[0]}


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ({"limit": 0}, ["limit"]),
        ({"limit": 1001}, ["limit"]),
        ({"limit": -1}, ["limit"]),
        ({"cursor": "abc"}, ["cursor"]),
        ({"cursor": ""}, ["cursor"]),
        ({"limit": 0, "cursor": "é"}, ["limit"]),
    ],
    ids=str,
)
async def test_lists_out_of_range_are_refused(door: Door, world: World, query: Any, paths: list[str]) -> None:
    who = await world.member(await world.project())
    (await door.call("handoff.list", who, query=query)).failed("validation_error", paths=paths)


@pytest.mark.parametrize(("name", "value"), [("slim", "maybe"), ("limit", "ten"), ("limit", ""), ("limit", "1.5")])
async def test_a_query_that_says_nothing_is_refused(rest: Rest, world: World, name: str, value: str) -> None:
    who = await world.member(await world.project())
    (await rest.call("handoff.list", who, query={name: value})).failed("validation_error", paths=[name])


async def test_a_cursor_is_good_for_the_list_that_made_it(door: Door, world: World) -> None:
    project_id = await world.project()
    who, colleague = await world.member(project_id), await world.member(project_id)
    fill(world, project_id, 3)
    cursor = (await door.call("handoff.list", who, query={"limit": 1})).succeeded()["next_cursor"]
    assert len(await listed(door, who, cursor=cursor)) == 2
    for credential, wrong in ((colleague, cursor), (who, cursor[:-1]), (who, cursor + "A"), (who, cursor[::-1])):
        reply = await door.call("handoff.list", credential, query={"cursor": wrong})
        reply.failed("validation_error", paths=["cursor"])
