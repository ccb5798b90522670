"""What operators see: every resource that they make is in a list, page by page, by gRPC and by the command."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from support.operators import SCOPES, UNKNOWN, call, made
from support.system import Credential
from support.transports import Grpc
from typer.testing import CliRunner

from service import jsontext
from service.__main__ import app


async def listed(rpc: Grpc, operator: Credential, name: str, limit: int = 2, **query: Any) -> list[Any]:
    """All pages of a list."""
    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await call(rpc, operator, name, limit=limit, **query, **cursor)).succeeded()
        [items] = [value for value in page.values() if isinstance(value, list)]
        assert len(items) <= limit
        found += items
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def by_id(items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda item: str(item["id"]))


async def test_what_an_account_has_is_listed_in_pages(rpc: Grpc, operator: Credential) -> None:
    account = (await made(rpc, operator, "CreateAccount", name="Acme"))["account"]
    other = (await made(rpc, operator, "CreateAccount", name="Other"))["account"]
    keys, projects = [], []
    for number in range(5):
        keys.append((await made(rpc, operator, "CreateApiKey", account_id=account["id"], scopes=SCOPES))["api_key"])
        given = {"name": "Shop", "slug": f"shop-{uuid4().hex}", "account_id": account["id"]}
        projects.append((await made(rpc, operator, "CreateProject", **given))["project"])
        await made(rpc, operator, "CreateApiKey", account_id=other["id"], scopes=SCOPES, test=number % 2 == 0)
    # Also what has ended.
    keys[0] = (await made(rpc, operator, "RevokeApiKey", api_key_id=keys[0]["id"]))["api_key"]
    assert await listed(rpc, operator, "ListApiKeys", account_id=account["id"]) == by_id(keys)
    assert await listed(rpc, operator, "ListProjects", account_id=account["id"]) == by_id(projects)
    everything = await listed(rpc, operator, "ListApiKeys", limit=100)
    assert [key for key in everything if key["account_id"] == account["id"]] == by_id(keys)
    accounts = await listed(rpc, operator, "ListAccounts", limit=100)
    assert account in accounts
    assert other in accounts
    assert await listed(rpc, operator, "ListApiKeys", account_id=UNKNOWN) == []


async def test_members_tenants_and_links_are_listed(rpc: Grpc, operator: Credential) -> None:
    given = {"name": "Shop", "slug": f"shop-{uuid4().hex}"}
    project = (await made(rpc, operator, "CreateProject", **given))["project"]
    users = sorted(str(uuid4()) for _ in range(3))
    members = [
        (await made(rpc, operator, "AddMember", project_id=project["id"], user_id=user, role="member"))["member"]
        for user in users
    ]
    assert await listed(rpc, operator, "ListMembers", project_id=project["id"]) == members
    assert await listed(rpc, operator, "ListMembers", project_id=UNKNOWN) == []
    tenants = [(await made(rpc, operator, "CreateTenant", name="Acme"))["tenant"] for _ in range(3)]
    every = await listed(rpc, operator, "ListTenants", limit=100)
    assert [tenant for tenant in every if tenant in tenants] == tenants  # their ids are ULIDs
    link = {"provider": "zendesk", "url": "https://acme.zendesk.com", "credential": "ada@example.com/token:s3cret"}
    linked = (await made(rpc, operator, "LinkProvider", account_id=project["account_id"], **link))["link"]
    assert await listed(rpc, operator, "ListLinks", account_id=project["account_id"]) == [linked]
    assert linked in await listed(rpc, operator, "ListLinks", limit=100)


@pytest.mark.parametrize(
    "name", ["ListAccounts", "ListApiKeys", "ListProjects", "ListMembers", "ListTenants", "ListLinks"]
)
async def test_a_lists_bounds_and_cursors_are_checked(rpc: Grpc, operator: Credential, name: str) -> None:
    project = {"project_id": UNKNOWN} if name == "ListMembers" else {}
    for limit in (0, 101):
        (await call(rpc, operator, name, **project, limit=limit)).failed("validation_error", paths=["limit"])
    (await call(rpc, operator, name, **project, cursor="x")).failed("validation_error", paths=["cursor"])


async def test_a_cursor_is_of_its_list_alone(rpc: Grpc, operator: Credential) -> None:
    for _ in range(2):
        await made(rpc, operator, "CreateProject", name="Shop", slug=f"shop-{uuid4().hex}")
    cursor = (await call(rpc, operator, "ListAccounts", limit=1)).succeeded()["next_cursor"]
    (await call(rpc, operator, "ListProjects", cursor=cursor)).failed("validation_error", paths=["cursor"])


async def test_the_command_lists_them(rpc: Grpc, operator: Credential, database_url: str) -> None:
    project = (await made(rpc, operator, "CreateProject", name="Shop", slug=f"shop-{uuid4().hex}"))["project"]
    member = (await made(rpc, operator, "AddMember", project_id=project["id"], user_id=UNKNOWN, role="owner"))["member"]
    account = ("--account", project["account_id"])
    for words, name, expected in (
        (("projects", *account), "projects", [project]),
        (("members", "--project", project["id"]), "members", [member]),
        (("api-keys", *account), "api_keys", []),
        (("links", *account), "links", []),
    ):
        runner = CliRunner(env={"TICKETS_DATABASE_URL": database_url})
        done = await asyncio.to_thread(runner.invoke, app, ["admin", *words])
        assert (done.exit_code, done.stderr) == (0, "")
        assert jsontext.parse(done.stdout.encode()) == {name: expected, "next_cursor": None}
