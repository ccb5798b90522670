"""What operators do: AdminService over gRPC, and the `tickets` command that does the same."""

import asyncio
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import jwt
import psycopg
import pytest
from harness import METHODS, Grpc, Method, Reply
from system import Credential, World
from tickets.admin.v1 import service_pb2
from typer.testing import CliRunner

from service.__main__ import app
from service.development import AUDIENCE, ISSUER, DevelopmentKey
from service.processes import free_port

SERVICE: Any = service_pb2.DESCRIPTOR.services_by_name["AdminService"]
SCOPES = ["tickets:read", "tickets:write"]
LIVE_KEY = re.compile(r"itsm_sk_live_[0-9A-Za-z]{38}")
# Nothing of the kind exists.
UNKNOWN = "7b0a3c9e-51d8-4a6e-8f0c-0b8f6f1f2a33"
# Requests that are right but for what they name.
REQUESTS: dict[str, dict[str, Any]] = {
    "CreateAccount": {"name": "Acme"},
    "CreateApiKey": {"account_id": UNKNOWN, "scopes": SCOPES},
    "RevokeApiKey": {"api_key_id": UNKNOWN},
    "CreateProject": {"name": "Shop", "slug": "shop", "account_id": UNKNOWN},
    "UpdateProject": {"project_id": UNKNOWN, "name": "Shop"},
    "AddMember": {"project_id": UNKNOWN, "user_id": UNKNOWN, "role": "member"},
    "RemoveMember": {"project_id": UNKNOWN, "user_id": UNKNOWN},
    "CreateTenant": {"name": "Acme", "id": "acme"},
    "LinkProvider": {
        "account_id": UNKNOWN,
        "provider": "zendesk",
        "url": "https://acme.zendesk.com",
        "credential": "ada@example.com/token:secret",
    },
    "UnlinkProvider": {"account_id": UNKNOWN},
    "ListDeliveries": {},
    "RequeueDelivery": {"delivery_id": UNKNOWN},
}
# What is no `owner/name` of GitHub.
NO_GITHUB_REPOS = (
    *("", "acme", "acme/", "/web", "acme/web/issues", "a b/web", "acme/w b", "acme/web\n", "acme/web?", "acme/é"),
    *("ac_me/web", "x" * 40 + "/web", "acme/" + "x" * 101, "https://github.com/acme/web"),
)
# A project's settings, and others.
SETTINGS: dict[str, Any] = {
    "name": "Shop",
    "backend_repo": "acme/api",
    "frontend_repo": "acme/web",
    "github_repo": "acme/shop",
    "default_roles": ["qa", "backend"],
}
OTHERS: dict[str, Any] = {
    "name": "Zoë & Söhne",
    "backend_repo": "x" * 255,
    "frontend_repo": "x",
    "github_repo": "x" * 39 + "/" + "A.b-c_9" + "x" * 93,
    "default_roles": ["frontend", "backend", "design", "devops", "qa", "test", "other"],
}
TICKET = {"title": "x", "description": "y", "request_type": "bug"}


@pytest.fixture
def operator(world: World) -> Credential:
    """The credential of an operator; no user's UUID is asked of one."""
    return world.issuer.bearer("operator", scope="tickets:read tickets:admin")


async def call(rpc: Grpc, who: Credential, method: str, /, **request: Any) -> Reply:
    message = SERVICE.methods_by_name[method].input_type._concrete_class(**request)
    return await rpc.send(Method("admin", "", "", 0, SERVICE, method), message, who)


async def made(rpc: Grpc, who: Credential, method: str, /, **request: Any) -> Any:
    return (await call(rpc, who, method, **request)).succeeded()


# Over gRPC


async def test_every_method_is_tried_here() -> None:
    assert set(REQUESTS) == {method.name for method in SERVICE.methods}


@pytest.mark.parametrize("name", REQUESTS)
async def test_only_operators_are_admitted(rpc: Grpc, world: World, name: str) -> None:
    words = "Token missing required scope: tickets:admin"
    for scope in (None, "", "tickets:read tickets:write", "helpdesk:admin", "tickets:administrator"):
        who = world.issuer.bearer("operator", scope=scope)
        (await call(rpc, who, name, **REQUESTS[name])).failed("missing_scope", words)
    (await call(rpc, {}, name, **REQUESTS[name])).failed("unauthenticated")
    program = await world.program(scopes=("tickets:read", "tickets:write", "webhooks:manage"))
    (await call(rpc, program.credential, name, **REQUESTS[name])).failed("unauthenticated")
    assert (
        world.rows("SELECT 1 FROM tenants WHERE id = 'acme' UNION ALL SELECT 1 FROM projects WHERE slug = 'shop'") == []
    )


async def test_an_account_is_created(rpc: Grpc, operator: Credential, world: World) -> None:
    account = (await made(rpc, operator, "CreateAccount", name="Zoë & Söhne"))["account"]
    assert (UUID(account["id"]).version, account["name"]) == (4, "Zoë & Söhne")
    assert account["created_at"].endswith("Z")
    assert world.rows("SELECT name FROM accounts WHERE id = %s", account["id"]) == [("Zoë & Söhne",)]


async def test_a_key_is_shown_once_and_works_until_it_is_revoked(rpc: Grpc, operator: Credential, world: World) -> None:
    account_id = (await made(rpc, operator, "CreateAccount", name="Acme"))["account"]["id"]
    answer = await made(rpc, operator, "CreateApiKey", account_id=account_id, scopes=["tickets:read"])
    key, api_key = answer["key"], answer["api_key"]
    assert LIVE_KEY.fullmatch(key)
    expected = {"account_id": account_id, "scopes": ["tickets:read"], "live": True}
    assert api_key == {
        **expected,
        "id": api_key["id"],
        "created_at": api_key["created_at"],
        "expires_at": None,
        "revoked_at": None,
    }
    (await rpc.call("itsm.create", {"x-api-key": key}, body={"subject": "a", "description": "b"})).failed(
        "missing_scope"
    )

    second = await made(rpc, operator, "CreateApiKey", account_id=account_id, scopes=SCOPES)
    revoked = (await made(rpc, operator, "RevokeApiKey", api_key_id=second["api_key"]["id"]))["api_key"]
    assert revoked == {**second["api_key"], "revoked_at": revoked["revoked_at"]}
    assert revoked["revoked_at"]
    # Revoking twice is revoking once, at the first moment.
    again = await made(rpc, operator, "RevokeApiKey", api_key_id=second["api_key"]["id"])
    assert again["api_key"] == revoked
    (await rpc.call("itsm.list", {"x-api-key": second["key"]})).failed("invalid_token")
    (await rpc.call("itsm.list", {"x-api-key": key})).succeeded()


async def test_a_key_may_be_for_tests_and_may_expire(rpc: Grpc, operator: Credential, world: World) -> None:
    account_id = (await world.program()).account_id
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    answer = await made(
        rpc, operator, "CreateApiKey", account_id=account_id, scopes=SCOPES, test=True, expires_at=expires_at
    )
    assert answer["key"].startswith("itsm_sk_test_")
    assert answer["api_key"]["live"] is False
    assert datetime.fromisoformat(answer["api_key"]["expires_at"]) == expires_at


async def test_a_project_is_created(rpc: Grpc, operator: Credential, world: World) -> None:
    account_id, slug = (await world.program()).account_id, f"shop-{uuid4().hex}"
    given = {"name": "Shop", "slug": slug, "account_id": account_id}
    more = {name: value for name, value in SETTINGS.items() if name != "name"}
    project = (await made(rpc, operator, "CreateProject", **given, **more))["project"]
    assert project == {**given, **more, "id": project["id"], "created_at": project["created_at"]}
    # Without an account it gets one of its own name; without roles, backend.
    name = f"Shop {uuid4()}"
    alone = (await made(rpc, operator, "CreateProject", name=name, slug=f"shop-{uuid4().hex}"))["project"]
    repos = ("backend_repo", "frontend_repo", "github_repo")
    assert (alone["default_roles"], [alone[name] for name in repos]) == (["backend"], [None] * 3)
    assert world.rows("SELECT id::text FROM accounts WHERE name = %s", name) == [(alone["account_id"],)]


async def set_up(rpc: Grpc, operator: Credential) -> dict[str, Any]:
    """A project with all of SETTINGS."""
    made_: dict[str, Any] = await made(rpc, operator, "CreateProject", slug=f"shop-{uuid4().hex}", **SETTINGS)
    project: dict[str, Any] = made_["project"]
    return project


async def file(rpc: Grpc, who: Credential, project_id: str, **changed: Any) -> dict[str, Any]:
    reply = await rpc.call("handoff.create", who, path={"project_id": project_id}, body={**TICKET, **changed})
    ticket: dict[str, Any] = reply.succeeded()["ticket"]
    return ticket


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
    # And so it stays.
    after = (await made(rpc, operator, "UpdateProject", project_id=project["id"]))["project"]
    assert after == {**project, **expected}


async def test_tickets_follow_the_settings_of_their_project(rpc: Grpc, operator: Credential, world: World) -> None:
    project = await set_up(rpc, operator)
    who = await world.member(project["id"], "owner")
    before = await file(rpc, who, project["id"])
    changed = {**SETTINGS, "name": "New", "backend_repo": "acme/new", "default_roles": ["design", "test"]}
    await made(rpc, operator, "UpdateProject", project_id=project["id"], **changed)
    after = await file(rpc, who, project["id"])
    named = await file(rpc, who, project["id"], roles=["other"])
    roles = [[role["role"] for role in ticket["roles"]] for ticket in (before, after, named)]
    assert roles == [["qa", "backend"], ["design", "test"], ["other"]]
    # What was filed before shows the new names, and keeps its roles.
    path = {"project_id": project["id"], "ticket_id": before["id"]}
    shown = (await rpc.call("handoff.get", who, path=path)).succeeded()["ticket"]
    assert shown == {**before, "project_name": "New", "backend_repo": "acme/new"}


async def test_the_github_repository_makes_the_links_of_issues(rpc: Grpc, operator: Credential, world: World) -> None:
    project = await set_up(rpc, operator)
    path = {"project_id": project["id"]}
    who = await world.member(project["id"], "owner")
    linked, bare = await file(rpc, who, project["id"]), await file(rpc, who, project["id"])
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
    ticket = await file(rpc, who, project_id)
    path = {"project_id": project_id, "ticket_id": ticket["id"]}

    async def replies() -> list[Reply]:
        """What each operation in the project says to the user; none of these changes what it shows."""
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
    # Ending it twice is ending it once.
    for _ in range(2):
        assert await made(rpc, operator, "RemoveMember", project_id=project_id, user_id=user_id) == {}
        for reply in await replies():
            reply.failed("forbidden")
        assert (await rpc.call("handoff.list", who)).succeeded()["tickets"] == []
    assert world.rows("SELECT project_id::text, role FROM project_members WHERE user_id = %s", user_id) == [
        (elsewhere, "viewer")
    ]
    (await rpc.call("handoff.project", who, path={"project_id": elsewhere})).succeeded()
    # What the user filed stays, for those who stay.
    found = (await rpc.call("handoff.get", colleague, path=path)).succeeded()["ticket"]
    assert found["reported_by_user_id"] == user_id
    # One who is no member stays none, and may become one again.
    assert await made(rpc, operator, "RemoveMember", **REQUESTS["RemoveMember"]) == {}
    await made(rpc, operator, "AddMember", project_id=project_id, user_id=user_id, role="viewer")
    assert (await rpc.call("handoff.get", who, path=path)).succeeded()["ticket"] == found


async def test_a_tenant_is_created(rpc: Grpc, operator: Credential, world: World) -> None:
    tenant = (await made(rpc, operator, "CreateTenant", name="Acme"))["tenant"]
    assert re.fullmatch(r"ten_[0-9A-HJKMNP-TV-Z]{26}", tenant["id"])
    tenant_id = uuid4().hex + uuid4().hex
    named = (await made(rpc, operator, "CreateTenant", name="Acme", id=tenant_id))["tenant"]
    assert named == {"id": tenant_id, "name": "Acme", "created_at": named["created_at"]}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CreateApiKey", "Account not found"),
        ("CreateProject", "Account not found"),
        ("RevokeApiKey", "API key not found"),
        ("UpdateProject", "Project not found"),
        ("AddMember", "Project not found"),
        ("LinkProvider", "Account not found"),
        ("RequeueDelivery", "Delivery not found"),
    ],
)
async def test_what_is_not_there_is_not_found(rpc: Grpc, operator: Credential, name: str, words: str) -> None:
    (await call(rpc, operator, name, **REQUESTS[name])).failed("not_found", words)


async def test_what_is_taken_exists_already(rpc: Grpc, operator: Credential, world: World) -> None:
    slug, tenant_id, name = f"shop-{uuid4().hex}", uuid4().hex, f"Second {uuid4()}"
    await made(rpc, operator, "CreateProject", name="First", slug=slug)
    await made(rpc, operator, "CreateTenant", name="First", id=tenant_id)
    for method, request in (("CreateProject", {"slug": slug}), ("CreateTenant", {"id": tenant_id})):
        reply = await call(rpc, operator, method, name=name, **request)
        assert (reply.status, reply.body["code"]) == (grpc.StatusCode.ALREADY_EXISTS, "already_exists")
        assert "exists already" in reply.words()
        assert "google.rpc.ErrorInfo" in reply.details
    # Nothing is half done: the project that could not be made left no account either.
    assert world.rows("SELECT 1 FROM accounts WHERE name = %s", name) == []


@pytest.mark.parametrize(
    ("name", "changed", "paths"),
    [
        ("CreateAccount", {"name": ""}, ["name"]),
        ("CreateAccount", {"name": "x" * 256}, ["name"]),
        ("CreateAccount", {"name": "a\0b"}, ["name"]),
        ("CreateApiKey", {"account_id": "acme"}, ["account_id"]),
        ("CreateApiKey", {"scopes": []}, ["scopes"]),
        ("CreateApiKey", {"scopes": ["tickets:read", "tickets:admin"]}, ["scopes.1"]),
        ("CreateApiKey", {"scopes": ["tickets:read", "tickets:read"]}, ["scopes"]),
        ("CreateApiKey", {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, ["expires_at"]),
        ("RevokeApiKey", {"api_key_id": "itsm_sk_live_x"}, ["api_key_id"]),
        ("RevokeApiKey", {"api_key_id": ""}, ["api_key_id"]),
        ("CreateProject", {"name": ""}, ["name"]),
        ("CreateProject", {"account_id": "acme"}, ["account_id"]),
        *(
            ("CreateProject", {"slug": slug}, ["slug"])
            for slug in ("", "Shop", "-a", "a-", "a b", "a\n", "é", "x" * 65)
        ),
        ("CreateProject", {"backend_repo": "x" * 256}, ["backend_repo"]),
        ("CreateProject", {"default_roles": ["backend", "chef"]}, ["default_roles.1"]),
        ("CreateProject", {"default_roles": ["qa", "qa"]}, ["default_roles"]),
        *(
            (method, {"github_repo": repo}, ["github_repo"])
            for method in ("CreateProject", "UpdateProject")
            for repo in NO_GITHUB_REPOS
        ),
        ("UpdateProject", {"project_id": "shop"}, ["project_id"]),
        ("UpdateProject", {"name": ""}, ["name"]),
        ("UpdateProject", {"name": "x" * 256}, ["name"]),
        ("UpdateProject", {"name": "a\0b"}, ["name"]),
        ("UpdateProject", {"backend_repo": "x" * 256}, ["backend_repo"]),
        ("UpdateProject", {"frontend_repo": "x" * 256}, ["frontend_repo"]),
        ("UpdateProject", {"default_roles": ["backend", "chef"]}, ["default_roles.1"]),
        ("UpdateProject", {"default_roles": ["qa", "qa"]}, ["default_roles"]),
        # What cannot be null is not cleared, and what does not change is not named.
        ("UpdateProject", {"name": None, "update_mask": {"paths": ["name"]}}, ["name"]),
        ("UpdateProject", {"update_mask": {"paths": ["default_roles"]}}, ["default_roles"]),
        *(
            ("UpdateProject", {"update_mask": {"paths": ["name", path]}}, ["update_mask"])
            for path in ("slug", "account_id", "project_id", "update_mask", "name.x", "")
        ),
        ("AddMember", {"project_id": "shop", "user_id": "jane"}, ["project_id", "user_id"]),
        ("AddMember", {"role": "admin"}, ["role"]),
        ("AddMember", {"role": ""}, ["role"]),
        ("RemoveMember", {"project_id": "shop", "user_id": "jane"}, ["project_id", "user_id"]),
        ("RemoveMember", {"project_id": "", "user_id": ""}, ["project_id", "user_id"]),
        ("UnlinkProvider", {"account_id": "acme"}, ["account_id"]),
        ("ListDeliveries", {"account_id": "acme", "state": "late"}, ["account_id", "state"]),
        *(("ListDeliveries", {"limit": limit}, ["limit"]) for limit in (0, 101, -1)),
        ("ListDeliveries", {"cursor": "x"}, ["cursor"]),
        ("RequeueDelivery", {"delivery_id": "x"}, ["delivery_id"]),
        ("CreateTenant", {"name": ""}, ["name"]),
        ("CreateTenant", {"id": ""}, ["id"]),
        ("CreateTenant", {"id": "x" * 65}, ["id"]),
        *(
            ("CreateTenant", {"id": tenant_id}, ["id"])
            for tenant_id in ("a b", " a", "a ", "a\n", "a\tb", "a\0", "a\x1b", "a\x7f", "a\xa0b", "\u200bé")
        ),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_bad_input_is_told_by_path(
    rpc: Grpc, operator: Credential, name: str, changed: dict[str, Any], paths: list[str]
) -> None:
    (await call(rpc, operator, name, **{**REQUESTS[name], **changed})).failed("validation_error", paths=paths)


# As a command, mostly within this process: a process of its own takes more than a second to begin


def environment(database_url: str) -> dict[str, str | None]:
    """The environment of a command; None where the one of this process has too much."""
    return {**{name: None for name in os.environ if name.startswith("TICKETS_")}, "TICKETS_DATABASE_URL": database_url}


async def run(database_url: str, *arguments: str) -> tuple[int, str, str]:
    """Run `tickets …` here; returns the exit code, and what it wrote to stdout and stderr."""
    runner = CliRunner(env=environment(database_url))
    # In a thread, where it may have an event loop of its own.
    result = await asyncio.to_thread(runner.invoke, app, arguments)
    # Not in that thread: a StopIteration does not come out of it.
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise RuntimeError(arguments) from result.exception
    return result.exit_code, result.stdout, result.stderr


async def run_process(database_url: str, directory: Path, *arguments: str) -> tuple[int, str, str]:
    """Run `tickets …` as people do, in a directory."""
    given = {**os.environ, **environment(database_url)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", *arguments),
        cwd=directory,
        env={name: value for name, value in given.items() if value is not None},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def printed(answer: tuple[int, str, str]) -> Any:
    """The one JSON object that a command prints when it succeeds."""
    code, output, errors = answer
    assert (code, errors) == (0, "")
    assert output.count("\n") == 1
    value = json.loads(output)
    assert isinstance(value, dict)
    return value


def told(answer: tuple[int, str, str]) -> str:
    """The one line that a command tells on stderr when it fails."""
    code, output, errors = answer
    assert (code, output) == (1, "")
    assert errors.count("\n") == 1
    return errors


async def test_a_command_is_a_process_of_one_answer(database_url: str, tmp_path: Path) -> None:
    name = f"Acme {uuid4()}"
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/tickets"
    made, failed = await asyncio.gather(
        run_process(database_url, tmp_path, "admin", "create-account", "--name", name),
        run_process(nowhere, tmp_path, "migrate"),
    )
    assert printed(made)["name"] == name
    assert told(failed).startswith("the database refused: ")


async def test_the_command_makes_everything(database_url: str, rpc: Grpc, world: World) -> None:
    async def admin(*arguments: str) -> Any:
        return printed(await run(database_url, "admin", *arguments))

    user_id, slug = str(uuid4()), f"shop-{uuid4().hex}"
    account = await admin("create-account", "--name", "Acme")
    assert set(account) == {"id", "name", "created_at"}
    api_key = await admin("create-api-key", "--account", account["id"], "--scopes", "tickets:read, tickets:write")
    test_key = await admin(
        *("create-api-key", "--account", account["id"], "--scopes", "tickets:read", "--test"),
        *("--expires", "2099-01-01T00:00:00+02:00"),
    )
    project = await admin(
        *("create-project", "--name", "Shop", "--slug", slug, "--account", account["id"]),
        *("--backend-repo", "acme/api", "--frontend-repo", "acme/web", "--default-roles", "qa,design"),
        *("--github-repo", "acme/shop"),
    )
    tenant = await admin("create-tenant", "--name", "Acme", "--id", slug)
    assert set(api_key) == {*("id", "account_id", "scopes", "live", "created_at", "expires_at", "revoked_at", "key")}
    assert LIVE_KEY.fullmatch(api_key["key"])
    assert (api_key["scopes"], api_key["live"], api_key["expires_at"]) == (SCOPES, True, None)
    assert test_key["key"].startswith("itsm_sk_test_")
    assert (test_key["scopes"], test_key["live"]) == (["tickets:read"], False)
    assert test_key["expires_at"] == "2098-12-31T22:00:00Z"
    given = {"name": "Shop", "slug": slug, "account_id": account["id"], "backend_repo": "acme/api"}
    more = {"frontend_repo": "acme/web", "github_repo": "acme/shop", "default_roles": ["qa", "design"]}
    assert project == {**given, **more, "id": project["id"], "created_at": project["created_at"]}
    assert tenant == {"id": slug, "name": "Acme", "created_at": tenant["created_at"]}

    member = await admin("add-member", "--project", project["id"], "--user", user_id, "--role", "member")
    revoked = await admin("revoke-api-key", "--id", test_key["id"])
    assert member == {
        "project_id": project["id"],
        "user_id": user_id,
        "role": "member",
        "created_at": member["created_at"],
    }
    assert revoked["revoked_at"]
    assert "key" not in revoked
    # What it made is good at the running service.
    (await rpc.call("itsm.list", {"x-api-key": api_key["key"]})).succeeded()
    (await rpc.call("itsm.list", {"x-api-key": test_key["key"]})).failed("invalid_token")
    ticket = await file(rpc, world.issuer.bearer(user_id), project["id"])
    assert [role["role"] for role in ticket["roles"]] == ["qa", "design"]


async def test_the_command_changes_a_project(database_url: str, rpc: Grpc, operator: Credential) -> None:
    project = await set_up(rpc, operator)

    async def update(**options: str) -> Any:
        given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        return printed(await run(database_url, "admin", "update-project", "--project", project["id"], *given))

    assert await update() == project
    for name, value in OTHERS.items():
        project |= {name: value}
        assert await update(**{name: value if isinstance(value, str) else ", ".join(value)}) == project
    assert await update(**SETTINGS | {"default_roles": "qa,backend"}) == {**project, **SETTINGS}
    # Empty is none.
    repos = ("backend_repo", "frontend_repo", "github_repo")
    assert await update(**dict.fromkeys(repos, "")) == {**project, **SETTINGS, **dict.fromkeys(repos)}


async def test_the_command_ends_a_membership(database_url: str, rpc: Grpc, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who = await world.member(project_id, "owner", user_id)
    (await rpc.call("handoff.project", who, path={"project_id": project_id})).succeeded()
    for _ in range(2):
        arguments = ("remove-member", "--project", project_id, "--user", user_id)
        assert printed(await run(database_url, "admin", *arguments)) == {}
        (await rpc.call("handoff.project", who, path={"project_id": project_id})).failed("forbidden")


async def test_the_command_tells_errors_on_stderr(database_url: str, tmp_path: Path) -> None:
    slug, nothing = f"shop-{uuid4().hex}", str(tmp_path)
    key, nowhere = ("admin", "create-api-key", "--account", UNKNOWN), f"postgresql://127.0.0.1:{free_port()}/tickets"
    printed(await run(database_url, "admin", "create-project", "--name", "Shop", "--slug", slug))
    for words, url, arguments in (
        ("Account not found\n", database_url, (*key, "--scopes", "tickets:read")),
        ("expires_at: ", database_url, (*key, "--scopes", "tickets:read", "--expires", "2020-01-01T00:00:00Z")),
        ("scopes.0: ", database_url, (*key, "--scopes", "everything")),
        ("API key not found\n", database_url, ("admin", "revoke-api-key", "--id", UNKNOWN)),
        (
            "A project with this slug exists already\n",
            database_url,
            ("admin", "create-project", "--name", "Shop", "--slug", slug),
        ),
        (
            "project_id: ",
            database_url,
            ("admin", "add-member", "--project", "shop", "--user", UNKNOWN, "--role", "owner"),
        ),
        ("Project not found\n", database_url, ("admin", "update-project", "--project", UNKNOWN, "--name", "Shop")),
        ("github_repo: ", database_url, ("admin", "update-project", "--project", UNKNOWN, "--github-repo", "acme")),
        ("default_roles: ", database_url, ("admin", "update-project", "--project", UNKNOWN, "--default-roles", "")),
        ("name: ", database_url, ("admin", "update-project", "--project", UNKNOWN, "--name", "")),
        ("user_id: ", database_url, ("admin", "remove-member", "--project", UNKNOWN, "--user", "jane")),
        ("id: ", database_url, ("admin", "create-tenant", "--name", "Acme", "--id", "a b")),
        ("name: ", database_url, ("admin", "create-account", "--name", "")),
        (f"no development key in {nothing}", database_url, ("token", "--sub", UNKNOWN, "--data-dir", nothing)),
        ("the database refused: ", nowhere, ("migrate",)),
        ("the database refused: ", "nonsense", ("migrate",)),
    ):
        assert told(await run(url, *arguments)).startswith(words)


@pytest.fixture
def fresh_url(database_url: str) -> str:
    """A database with nothing in it."""
    name = f"fresh_{uuid4().hex}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return database_url.replace("/tickets?", f"/{name}?")


async def test_migrate_brings_an_empty_database_to_the_newest_schema(fresh_url: str) -> None:
    first = printed(await run(fresh_url, "migrate"))
    assert set(first) == {"revision"}
    # Once more changes nothing, and the data stays.
    account = printed(await run(fresh_url, "admin", "create-account", "--name", "Acme"))
    assert printed(await run(fresh_url, "migrate")) == first
    with psycopg.connect(fresh_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(first["revision"],)]
        assert connection.execute("SELECT id::text FROM accounts").fetchall() == [(account["id"],)]


async def test_a_database_before_migrate_is_told_of(fresh_url: str) -> None:
    told(await run(fresh_url, "admin", "create-account", "--name", "Too early"))


async def test_token_signs_with_the_development_key(database_url: str, tmp_path: Path) -> None:
    data_dir, user_id = tmp_path / "data", str(uuid4())
    data_dir.mkdir()
    key = DevelopmentKey(data_dir)
    key.make()
    claims = {"sub": user_id, "tenant_id": "acme", "app_id": "crm", "actor_role": "mcp_bot", "scope": "a b"}
    options = {"--sub": user_id, "--tenant": "acme", "--app-id": "crm", "--actor-role": "mcp_bot", "--scope": "a b"}
    arguments = [part for option in options.items() for part in option]
    full = printed(await run(database_url, "token", *arguments, "--ttl", "60", "--data-dir", str(data_dir)))
    bare = printed(await run(database_url, "token", "--sub", user_id, "--data-dir", str(data_dir)))
    [public] = jwt.PyJWKSet.from_json(key.jwks.read_text()).keys
    for answer, expected, lifetime in ((full, claims, 60), (bare, {"sub": user_id}, 3600)):
        assert set(answer) == {"token"}
        said = jwt.decode(answer["token"], public, ["ES256"], audience=AUDIENCE, issuer=ISSUER)
        assert said.pop("exp") - said.pop("iat") == lifetime
        assert said == {**expected, "iss": ISSUER, "aud": AUDIENCE}
