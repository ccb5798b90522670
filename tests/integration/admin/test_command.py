"""The `tickets` command: operators' operations, migrations, and signing tokens."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import psycopg
import pytest
from support.handoff import created
from support.operators import LIVE_KEY, OTHERS, SCOPES, SETTINGS, UNKNOWN, set_up
from support.system import Credential, World
from support.transports import Grpc
from typer.testing import CliRunner

from service.__main__ import app
from service.local.demo import AUDIENCE, ISSUER, DevelopmentKey
from service.local.processes import free_port

# Mostly in this process: a new one takes more than a second to start


def environment(database_url: str) -> dict[str, str | None]:
    """The environment of a command; None removes a variable of this process."""
    return {**{name: None for name in os.environ if name.startswith("TICKETS_")}, "TICKETS_DATABASE_URL": database_url}


async def run(database_url: str, *arguments: str) -> tuple[int, str, str]:
    """Run `tickets …` in this process; returns the exit code, stdout and stderr."""
    runner = CliRunner(env=environment(database_url))
    # In a thread, where it can have its own event loop.
    result = await asyncio.to_thread(runner.invoke, app, arguments)
    # Not in that thread, which cannot raise a StopIteration.
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise RuntimeError(arguments) from result.exception
    return result.exit_code, result.stdout, result.stderr


async def run_process(database_url: str, directory: Path, *arguments: str) -> tuple[int, str, str]:
    """Run `tickets …` as a process in a directory."""
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


def error_line(answer: tuple[int, str, str]) -> str:
    """The one line that a command prints on stderr when it fails."""
    code, output, errors = answer
    assert (code, output) == (1, "")
    assert errors.count("\n") == 1
    return errors


@pytest.mark.processes
async def test_a_command_is_a_process_with_one_line_of_output(database_url: str, tmp_path: Path) -> None:
    name = f"Acme {uuid4()}"
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/tickets"
    made, failed = await asyncio.gather(
        run_process(database_url, tmp_path, "admin", "create-account", "--name", name),
        run_process(nowhere, tmp_path, "migrate"),
    )
    assert printed(made)["name"] == name
    assert error_line(failed).startswith("the database refused: ")


async def test_the_command_creates_every_resource(database_url: str, rpc: Grpc, world: World) -> None:
    async def admin(*arguments: str) -> Any:
        return printed(await run(database_url, "admin", *arguments))

    user_id, slug = str(uuid4()), f"shop-{uuid4().hex}"
    account = await admin("create-account", "--name", "Acme")
    assert set(account) == {"id", "name", "created_at", "suspended_at"}
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
    shown = ("id", "account_id", "scopes", "live", "created_at", "expires_at", "revoked_at", "key")
    assert set(api_key) == {*shown, "suspended_at", "prefix", "last_used_at"}
    assert LIVE_KEY.fullmatch(api_key["key"])
    assert (api_key["scopes"], api_key["live"], api_key["expires_at"]) == (SCOPES, True, None)
    assert test_key["key"].startswith("itsm_sk_test_")
    assert (test_key["scopes"], test_key["live"]) == (["tickets:read"], False)
    assert test_key["expires_at"] == "2098-12-31T22:00:00Z"
    given = {"name": "Shop", "slug": slug, "account_id": account["id"], "backend_repo": "acme/api"}
    more = {"frontend_repo": "acme/web", "github_repo": "acme/shop", "default_roles": ["qa", "design"]}
    assert project == {**given, **more, "id": project["id"], "created_at": project["created_at"]}
    assert tenant == {"id": slug, "name": "Acme", "created_at": tenant["created_at"], "suspended_at": None}

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
    # What it created works at the running service.
    (await rpc.call("itsm.list", {"x-api-key": api_key["key"]})).succeeded()
    (await rpc.call("itsm.list", {"x-api-key": test_key["key"]})).failed("invalid_token")
    ticket = await created(rpc, world.issuer.bearer(user_id), project["id"])
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
    # An empty option clears the setting.
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


async def test_the_command_prints_errors_on_stderr(database_url: str, fresh_url: str, tmp_path: Path) -> None:
    slug, nothing = f"shop-{uuid4().hex}", str(tmp_path)
    key, nowhere = ("admin", "create-api-key", "--account", UNKNOWN), f"postgresql://127.0.0.1:{free_port()}/tickets"
    printed(await run(database_url, "admin", "create-project", "--name", "Shop", "--slug", slug))
    for beginning, url, arguments in (
        ("Account not found\n", database_url, (*key, "--scopes", "tickets:read")),
        ("expires_at: ", database_url, (*key, "--scopes", "tickets:read", "--expires", "2020-01-01T00:00:00Z")),
        ("scopes.0: ", database_url, (*key, "--scopes", "everything")),
        ("API key not found\n", database_url, ("admin", "revoke-api-key", "--id", UNKNOWN)),
        (
            "A project with this slug already exists\n",
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
        ("the database refused: connection failed: ", nowhere, ("admin", "create-account")),
        ("the database has no tables yet, ", fresh_url, ("admin", "create-account")),
    ):
        assert error_line(await run(url, *arguments)).startswith(beginning)


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
    # A second run changes nothing and keeps the data.
    account = printed(await run(fresh_url, "admin", "create-account", "--name", "Acme"))
    assert printed(await run(fresh_url, "migrate")) == first
    with psycopg.connect(fresh_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(first["revision"],)]
        assert connection.execute("SELECT id::text FROM accounts").fetchall() == [(account["id"],)]


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


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("create-project", "--name", "Shop", "--slug", "My Shop"),
            "slug: Input should be 1-64 lower-case letters, digits and hyphens,"
            " the first and the last of them no hyphen",
        ),
        (
            ("create-project", "--name", "Shop", "--slug", "shop", "--github-repo", "shop"),
            "github_repo: Input should be a repository of GitHub: owner/name",
        ),
        (("create-tenant", "--id", "a b"), "id: Input should be printable ASCII characters without spaces"),
        (("suspend", "--tenant", "a\tb"), "tenant_id: Input should have printable characters alone"),
        (
            ("link-provider", "--account", UNKNOWN, "--provider", "zendesk", "--url", "https://me:s3cret@x.example"),
            "url: Input should be https://host or https://host:port, without user and path",
        ),
    ],
)
async def test_a_text_of_another_form_is_told_which_in_words(
    database_url: str, words: tuple[str, ...], line: str
) -> None:
    # (No credential is piped in.)
    assert error_line(await run(database_url, "admin", *words)).rstrip().partition("; credential")[0] == line
