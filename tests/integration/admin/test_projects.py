"""AdminService: projects with their settings, and memberships."""

from typing import Any
from uuid import uuid4

import grpc
import pytest
from support.handoff import TICKET, created
from support.methods import METHODS
from support.operators import OTHERS, SETTINGS, UNKNOWN, made, set_up
from support.system import Credential, World
from support.transports import Grpc, Reply


async def test_a_project_is_created(rpc: Grpc, operator: Credential, world: World) -> None:
    account_id, slug = (await world.program()).account_id, f"shop-{uuid4().hex}"
    given = {"name": "Shop", "slug": slug, "account_id": account_id}
    more = {name: value for name, value in SETTINGS.items() if name != "name"}
    project = (await made(rpc, operator, "CreateProject", **given, **more))["project"]
    assert project == {**given, **more, "id": project["id"], "created_at": project["created_at"]}
    # Without an account a new one has the project's name; without roles the default is backend.
    name = f"Shop {uuid4()}"
    alone = (await made(rpc, operator, "CreateProject", name=name, slug=f"shop-{uuid4().hex}"))["project"]
    repos = ("backend_repo", "frontend_repo", "github_repo")
    assert (alone["default_roles"], [alone[name] for name in repos]) == (["backend"], [None] * 3)
    assert world.rows("SELECT id::text FROM accounts WHERE name = %s", name) == [(alone["account_id"],)]


async def test_the_settings_that_are_given_are_changed_and_no_others(
    rpc: Grpc, operator: Credential, world: World
) -> None:
    project, other = await set_up(rpc, operator), await set_up(rpc, operator)
    for name, value in OTHERS.items():
        project |= {name: value}
        # The second time changes nothing.
        for _ in range(2):
            answer = await made(rpc, operator, "UpdateProject", project_id=project["id"], **{name: value})
            assert answer["project"] == project
    assert (await made(rpc, operator, "UpdateProject", project_id=project["id"]))["project"] == project
    assert (await made(rpc, operator, "UpdateProject", project_id=project["id"], **SETTINGS))["project"] == {
        **project,
        **SETTINGS,
    }
    assert (await made(rpc, operator, "UpdateProject", project_id=other["id"]))["project"] == other


@pytest.mark.parametrize(
    ("paths", "given", "expected"),
    [
        *(([name], {}, {name: None}) for name in ("backend_repo", "frontend_repo", "github_repo")),
        *(([name], {name: value}, {name: value}) for name, value in OTHERS.items()),
        (["backend_repo"], OTHERS, {"backend_repo": OTHERS["backend_repo"]}),
        (["github_repo", "name"], {"name": "New"}, {"github_repo": None, "name": "New"}),
        ([], OTHERS, {}),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_mask_names_what_is_set_and_what_is_cleared(
    rpc: Grpc, operator: Credential, paths: list[str], given: dict[str, Any], expected: dict[str, Any]
) -> None:
    project = await set_up(rpc, operator)
    request = {"project_id": project["id"], "update_mask": {"paths": paths}, **given}
    assert (await made(rpc, operator, "UpdateProject", **request))["project"] == {**project, **expected}
    # And it stays so.
    after = (await made(rpc, operator, "UpdateProject", project_id=project["id"]))["project"]
    assert after == {**project, **expected}


async def test_tickets_follow_the_settings_of_their_project(rpc: Grpc, operator: Credential, world: World) -> None:
    project = await set_up(rpc, operator)
    who = await world.member(project["id"], "owner")
    before = await created(rpc, who, project["id"])
    changed = {**SETTINGS, "name": "New", "backend_repo": "acme/new", "default_roles": ["design", "test"]}
    await made(rpc, operator, "UpdateProject", project_id=project["id"], **changed)
    after = await created(rpc, who, project["id"])
    named = await created(rpc, who, project["id"], roles=["other"])
    roles = [[role["role"] for role in ticket["roles"]] for ticket in (before, after, named)]
    assert roles == [["qa", "backend"], ["design", "test"], ["other"]]
    # An older ticket shows the new names and keeps its roles.
    path = {"project_id": project["id"], "ticket_id": before["id"]}
    shown = (await rpc.call("handoff.get", who, path=path)).succeeded()["ticket"]
    assert shown == {**before, "project_name": "New", "backend_repo": "acme/new"}


async def test_the_github_repository_makes_the_links_of_issues(rpc: Grpc, operator: Credential, world: World) -> None:
    project = await set_up(rpc, operator)
    path = {"project_id": project["id"]}
    who = await world.member(project["id"], "owner")
    linked, bare = await created(rpc, who, project["id"]), await created(rpc, who, project["id"])
    body = {"github_issue_number": 17}
    reply = await rpc.call("handoff.update", who, path={**path, "ticket_id": linked["id"]}, body=body)
    assert reply.succeeded()["ticket"]["github_issue_url"] == "https://github.com/acme/shop/issues/17"
    for repo, url in (("Zo-e/w.e_b", "https://github.com/Zo-e/w.e_b/issues/17"), (None, None)):
        mask = {"paths": ["github_repo"]}
        await made(rpc, operator, "UpdateProject", project_id=project["id"], github_repo=repo, update_mask=mask)
        for operation in ("handoff.list", "handoff.project"):
            reply = await rpc.call(operation, who, path=path if "{" in METHODS[operation].path else None)
            links = {
                ticket["id"]: (ticket["github_issue_number"], ticket["github_issue_url"])
                for ticket in reply.succeeded()["tickets"]
            }
            assert links == {linked["id"]: (17, url), bare["id"]: (None, None)}


async def test_a_membership_is_made_and_changed(rpc: Grpc, operator: Credential, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    path = {"project_id": project_id}
    for role in ("viewer", "member"):
        given = {"project_id": project_id, "user_id": user_id, "role": role}
        member = (await made(rpc, operator, "AddMember", **given))["member"]
        assert member == {**given, "created_at": member["created_at"]}
        reply = await rpc.call("handoff.create", world.issuer.bearer(user_id), path=path, body=TICKET)
        assert reply.status == {"viewer": grpc.StatusCode.PERMISSION_DENIED, "member": grpc.StatusCode.OK}[role]
    assert world.rows("SELECT role FROM project_members WHERE user_id = %s", user_id) == [("member",)]


async def test_a_membership_is_ended_for_one_user_in_one_project(rpc: Grpc, operator: Credential, world: World) -> None:
    user_id, project_id, elsewhere = str(uuid4()), await world.project(), await world.project()
    who, colleague = await world.member(project_id, "owner", user_id), await world.member(project_id)
    await world.member(elsewhere, "viewer", user_id)
    ticket = await created(rpc, who, project_id)
    path = {"project_id": project_id, "ticket_id": ticket["id"]}

    async def replies() -> list[Reply]:
        """The user's replies of each operation in the project; none of them changes the ticket."""
        bodies: dict[str, dict[str, Any]] = {
            "create": TICKET,
            "update": {"title": "x"},
            "deploy": {"merge_sha": "9fceb02", "outcome": "merged"},
            "bulk": {"action": "move", "stage": "backlog", "ticket_ids": [ticket["id"]]},
        }
        operations = [name for name, method in METHODS.items() if "{project_id}" in method.path]
        return [
            await rpc.call(
                name,
                who,
                path={part: value for part, value in path.items() if f"{{{part}}}" in METHODS[name].path},
                body=bodies.get(name.removeprefix("handoff.")),
            )
            for name in operations
        ]

    assert {reply.status for reply in await replies()} == {grpc.StatusCode.OK}
    # Ending it again changes nothing.
    for _ in range(2):
        assert await made(rpc, operator, "RemoveMember", project_id=project_id, user_id=user_id) == {}
        for reply in await replies():
            reply.failed("forbidden")
        assert (await rpc.call("handoff.list", who)).succeeded()["tickets"] == []
    assert world.rows("SELECT project_id::text, role FROM project_members WHERE user_id = %s", user_id) == [
        (elsewhere, "viewer")
    ]
    (await rpc.call("handoff.project", who, path={"project_id": elsewhere})).succeeded()
    # The user's tickets stay in the project.
    found = (await rpc.call("handoff.get", colleague, path=path)).succeeded()["ticket"]
    assert found["reported_by_user_id"] == user_id
    # Ending no membership succeeds, and a former member can be added again.
    assert await made(rpc, operator, "RemoveMember", project_id=UNKNOWN, user_id=UNKNOWN) == {}
    await made(rpc, operator, "AddMember", project_id=project_id, user_id=user_id, role="viewer")
    assert (await rpc.call("handoff.get", who, path=path)).succeeded()["ticket"] == found
