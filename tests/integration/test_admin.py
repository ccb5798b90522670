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
from harness import Grpc, Method, Reply
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
    "AddMember": {"project_id": UNKNOWN, "user_id": UNKNOWN, "role": "member"},
    "CreateTenant": {"name": "Acme", "id": "acme"},
}


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
    more = {"backend_repo": "acme/api", "frontend_repo": "acme/web", "default_roles": ["qa", "backend"]}
    project = (await made(rpc, operator, "CreateProject", **given, **more))["project"]
    assert project == {**given, **more, "id": project["id"], "created_at": project["created_at"]}
    # Without an account it gets one of its own name; without roles, backend.
    name = f"Shop {uuid4()}"
    alone = (await made(rpc, operator, "CreateProject", name=name, slug=f"shop-{uuid4().hex}"))["project"]
    assert (alone["default_roles"], alone["backend_repo"], alone["frontend_repo"]) == (["backend"], None, None)
    assert world.rows("SELECT id::text FROM accounts WHERE name = %s", name) == [(alone["account_id"],)]


async def test_a_membership_is_made_and_changed(rpc: Grpc, operator: Credential, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    path, ticket = {"project_id": project_id}, {"title": "x", "description": "y", "request_type": "bug"}
    for role in ("viewer", "member"):
        given = {"project_id": project_id, "user_id": user_id, "role": role}
        member = (await made(rpc, operator, "AddMember", **given))["member"]
        assert member == {**given, "created_at": member["created_at"]}
        reply = await rpc.call("handoff.create", world.issuer.bearer(user_id), path=path, body=ticket)
        assert reply.status == {"viewer": grpc.StatusCode.PERMISSION_DENIED, "member": grpc.StatusCode.OK}[role]
    assert world.rows("SELECT role FROM project_members WHERE user_id = %s", user_id) == [("member",)]


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
        ("AddMember", "Project not found"),
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
        ("AddMember", {"project_id": "shop", "user_id": "jane"}, ["project_id", "user_id"]),
        ("AddMember", {"role": "admin"}, ["role"]),
        ("AddMember", {"role": ""}, ["role"]),
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
    result = await asyncio.to_thread(runner.invoke, app, arguments, catch_exceptions=False)
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
    )
    tenant = await admin("create-tenant", "--name", "Acme", "--id", slug)
    assert set(api_key) == {*("id", "account_id", "scopes", "live", "created_at", "expires_at", "revoked_at", "key")}
    assert LIVE_KEY.fullmatch(api_key["key"])
    assert (api_key["scopes"], api_key["live"], api_key["expires_at"]) == (SCOPES, True, None)
    assert test_key["key"].startswith("itsm_sk_test_")
    assert (test_key["scopes"], test_key["live"]) == (["tickets:read"], False)
    assert test_key["expires_at"] == "2098-12-31T22:00:00Z"
    given = {"name": "Shop", "slug": slug, "account_id": account["id"], "backend_repo": "acme/api"}
    more = {"frontend_repo": "acme/web", "default_roles": ["qa", "design"]}
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
    ticket = {"title": "x", "description": "y", "request_type": "bug"}
    path = {"project_id": project["id"]}
    reply = await rpc.call("handoff.create", world.issuer.bearer(user_id), path=path, body=ticket)
    assert [role["role"] for role in reply.succeeded()["ticket"]["roles"]] == ["qa", "design"]


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
