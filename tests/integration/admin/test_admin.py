"""AdminService: accounts, keys and tenants, and the refusals of every method."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from support.operators import LIVE_KEY, SCOPES, SERVICE, UNKNOWN, call, made
from support.system import Credential, World
from support.transports import Grpc

# Valid requests about resources that do not exist.
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
    "ListAccounts": {},
    "ListApiKeys": {"account_id": UNKNOWN},
    "ListProjects": {"account_id": UNKNOWN},
    "ListMembers": {"project_id": UNKNOWN},
    "ListTenants": {},
    "ListLinks": {"account_id": UNKNOWN},
    "RequeueDelivery": {"delivery_id": UNKNOWN},
    "GetAccount": {"account_id": UNKNOWN},
    "GetApiKey": {"api_key_id": UNKNOWN},
    "GetProject": {"project_id": UNKNOWN},
    "GetMember": {"project_id": UNKNOWN, "user_id": UNKNOWN},
    "GetTenant": {"tenant_id": UNKNOWN},
    "GetLink": {"account_id": UNKNOWN},
    "GetDelivery": {"delivery_id": UNKNOWN},
    "ListFailingWebhooks": {"account_id": UNKNOWN},
    "SuspendAccount": {"account_id": UNKNOWN},
    "ResumeAccount": {"account_id": UNKNOWN},
    "SuspendApiKey": {"api_key_id": UNKNOWN},
    "ResumeApiKey": {"api_key_id": UNKNOWN},
    "SuspendTenant": {"tenant_id": "acme"},
    "ResumeTenant": {"tenant_id": UNKNOWN},
}
# Texts that are not an `owner/name` of GitHub.
NO_GITHUB_REPOS = (
    *("", "acme", "acme/", "/web", "acme/web/issues", "a b/web", "acme/w b", "acme/web\n", "acme/web?", "acme/é"),
    *("ac_me/web", "x" * 40 + "/web", "acme/" + "x" * 101, "https://github.com/acme/web"),
)


async def test_every_method_is_tested_here() -> None:
    assert set(REQUESTS) == {method.name for method in SERVICE.methods}


@pytest.mark.parametrize("name", REQUESTS)
async def test_only_operators_are_admitted(rpc: Grpc, world: World, name: str) -> None:
    message = "Token missing required scope: tickets:admin"
    for scope in (None, "", "tickets:read tickets:write", "helpdesk:admin", "tickets:administrator"):
        who = world.issuer.bearer("operator", scope=scope)
        (await call(rpc, who, name, **REQUESTS[name])).failed("missing_scope", message)
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
        "suspended_at": None,
        # Six of its random characters.
        "prefix": key[: len("itsm_sk_live_") + 6],
        "last_used_at": None,
    }
    (await rpc.call("itsm.create", {"x-api-key": key}, body={"subject": "a", "description": "b"})).failed(
        "missing_scope"
    )

    second = await made(rpc, operator, "CreateApiKey", account_id=account_id, scopes=SCOPES)
    revoked = (await made(rpc, operator, "RevokeApiKey", api_key_id=second["api_key"]["id"]))["api_key"]
    assert revoked == {**second["api_key"], "revoked_at": revoked["revoked_at"]}
    assert revoked["revoked_at"]
    # Revoking again keeps the first instant.
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


async def test_a_tenant_is_created(rpc: Grpc, operator: Credential, world: World) -> None:
    tenant = (await made(rpc, operator, "CreateTenant", name="Acme"))["tenant"]
    assert re.fullmatch(r"ten_[0-9A-HJKMNP-TV-Z]{26}", tenant["id"])
    tenant_id = uuid4().hex + uuid4().hex
    named = (await made(rpc, operator, "CreateTenant", name="Acme", id=tenant_id))["tenant"]
    assert named == {"id": tenant_id, "name": "Acme", "created_at": named["created_at"], "suspended_at": None}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CreateApiKey", "Account not found"),
        ("CreateProject", "Account not found"),
        ("RevokeApiKey", "API key not found"),
        ("UpdateProject", "Project not found"),
        ("AddMember", "Project not found"),
        ("LinkProvider", "Account not found"),
        ("RequeueDelivery", "Delivery not found"),
        ("GetAccount", "Account not found"),
        ("GetApiKey", "API key not found"),
        ("GetProject", "Project not found"),
        ("GetMember", "Membership not found"),
        ("GetTenant", "Tenant not found"),
        ("GetLink", "Link not found"),
        ("GetDelivery", "Delivery not found"),
        ("SuspendAccount", "Account not found"),
        ("ResumeAccount", "Account not found"),
        ("SuspendApiKey", "API key not found"),
        ("ResumeApiKey", "API key not found"),
        ("ResumeTenant", "Tenant not found"),
    ],
)
async def test_a_missing_resource_is_not_found(rpc: Grpc, operator: Credential, name: str, message: str) -> None:
    (await call(rpc, operator, name, **REQUESTS[name])).failed("not_found", message)


async def test_a_name_that_is_taken_already_exists(rpc: Grpc, operator: Credential, world: World) -> None:
    slug, tenant_id, name = f"shop-{uuid4().hex}", uuid4().hex, f"Second {uuid4()}"
    await made(rpc, operator, "CreateProject", name="First", slug=slug)
    await made(rpc, operator, "CreateTenant", name="First", id=tenant_id)
    for method, request in (("CreateProject", {"slug": slug}), ("CreateTenant", {"id": tenant_id})):
        reply = await call(rpc, operator, method, name=name, **request)
        assert (reply.status, reply.body["code"]) == (grpc.StatusCode.ALREADY_EXISTS, "already_exists")
        assert "already exists" in reply.message()
        assert "google.rpc.ErrorInfo" in reply.details
    # The project that was not created left no account either.
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
        # Members that cannot be null, and members that cannot change.
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
        ("ListDeliveries", {"kind": "late"}, ["kind"]),
        ("RequeueDelivery", {"delivery_id": "x"}, ["delivery_id"]),
        ("GetMember", {"project_id": "shop", "user_id": ""}, ["project_id", "user_id"]),
        *(
            (f"{verb}{name}", {key: "acme"}, [key])
            for name, key in (("Account", "account_id"), ("ApiKey", "api_key_id"))
            for verb in ("Get", "Suspend", "Resume")
        ),
        *(("GetTenant", {"tenant_id": tenant_id}, ["tenant_id"]) for tenant_id in ("", "x" * 65, "a\tb")),
        ("SuspendTenant", {"tenant_id": "a\0b"}, ["tenant_id"]),
        ("GetProject", {"project_id": "shop"}, ["project_id"]),
        ("GetLink", {"account_id": "acme"}, ["account_id"]),
        ("GetDelivery", {"delivery_id": "x"}, ["delivery_id"]),
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
async def test_bad_input_is_reported_by_path(
    rpc: Grpc, operator: Credential, name: str, changed: dict[str, Any], paths: list[str]
) -> None:
    (await call(rpc, operator, name, **{**REQUESTS[name], **changed})).failed("validation_error", paths=paths)
