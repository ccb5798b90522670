"""The use cases of operators. The `tickets admin` command runs the same ones."""

import re
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import ValidationError
from ulid import ULID

from service import idempotency, jsontext
from service.access.api_keys import hash_api_key, new_api_key, prefix_of
from service.admin import queries, views
from service.admin.commands import (
    AddMember,
    CreateAccount,
    CreateApiKey,
    CreateProject,
    CreateTenant,
    LinkProvider,
    RemoveMember,
    RequeueDelivery,
    RevokeApiKey,
    UnlinkProvider,
    UpdateProject,
)
from service.admin.keys import KEYS
from service.directory import SLUG_IS_TAKEN, TENANT_EXISTS
from service.errors import Issue, TicketError, invalid, validation_error
from service.operation import Call, Dependencies, autocommit, own_transactions
from service.providers import OPTIONS
from service.storage.database import Connection


@idempotency.write(CreateAccount, KEYS, transaction=autocommit)
async def create_account(connection: Connection, _call: Call, command: CreateAccount) -> views.AccountAnswer:
    """Create a customer account."""
    [account] = await connection.all(queries.CREATE_ACCOUNT, vars(command.body))
    return {"account": views.resource(views.Account, account)}


@idempotency.write(CreateApiKey, KEYS, transaction=autocommit, is_secret=True)
async def create_api_key(connection: Connection, _call: Call, command: CreateApiKey) -> views.NewApiKeyAnswer:
    """Create an API key. The key itself is in this answer and in no other."""
    if command.body.expires_at is not None and command.body.expires_at <= datetime.now(UTC):
        raise invalid("body", "expires_at", "Input should be in the future")
    live = not command.body.test
    key = new_api_key(live)
    values = {**vars(command.body), "live": live, "key_hash": hash_api_key(key), "prefix": prefix_of(key)}
    [api_key] = await connection.all(queries.CREATE_API_KEY, values)
    return {"api_key": views.resource(views.ApiKey, api_key), "key": key}


@idempotency.write(RevokeApiKey, KEYS, transaction=autocommit)
async def revoke_api_key(connection: Connection, _call: Call, command: RevokeApiKey) -> views.ApiKeyAnswer:
    """Revoke an API key; revoking it again changes nothing."""
    api_key = await connection.one(queries.REVOKE_API_KEY, vars(command.body))
    if api_key is None:
        raise TicketError("not_found", "API key not found")
    return {"api_key": views.resource(views.ApiKey, api_key)}


@idempotency.write(CreateProject, KEYS, transaction=autocommit)
async def create_project(connection: Connection, _call: Call, command: CreateProject) -> views.ProjectAnswer:
    """Create a project, and an account of its name when none is given."""
    statement = queries.CREATE_PROJECT if command.body.account_id else queries.CREATE_PROJECT_WITH_ACCOUNT
    project = await connection.one(statement, vars(command.body))
    if project is None:
        raise TicketError(*SLUG_IS_TAKEN)
    return {"project": views.resource(views.Project, project)}


@idempotency.write(UpdateProject, KEYS, transaction=autocommit)
async def update_project(connection: Connection, _call: Call, command: UpdateProject) -> views.ProjectAnswer:
    """Change a project's settings."""
    statement = queries.update_project(frozenset(command.body.model_fields_set))
    project = await connection.one(statement, {**vars(command.path), **vars(command.body)})
    if project is None:
        raise TicketError("not_found", "Project not found")
    return {"project": views.resource(views.Project, project)}


@idempotency.write(RemoveMember, KEYS, transaction=autocommit)
async def remove_member(connection: Connection, _call: Call, command: RemoveMember) -> views.EmptyAnswer:
    """End a user's membership of a project; ending it again changes nothing."""
    await connection.one(queries.REMOVE_MEMBER, vars(command.body))
    return {}


@idempotency.write(AddMember, KEYS, transaction=autocommit)
async def add_member(connection: Connection, _call: Call, command: AddMember) -> views.MemberAnswer:
    """Make a user a member of a project, or change the member's role."""
    [member] = await connection.all(queries.ADD_MEMBER, vars(command.body))
    return {"member": views.resource(views.Member, member)}


@idempotency.write(CreateTenant, KEYS, transaction=autocommit)
async def create_tenant(connection: Connection, _call: Call, command: CreateTenant) -> views.TenantAnswer:
    """Create a helpdesk tenant."""
    values = {"name": command.body.name, "id": command.body.id or f"ten_{ULID()}"}
    tenant = await connection.one(queries.CREATE_TENANT, values)
    if tenant is None:
        raise TicketError(*TENANT_EXISTS)
    return {"tenant": views.resource(views.Tenant, tenant)}


@own_transactions(LinkProvider)
async def link_provider(dependencies: Dependencies, call: Call, command: LinkProvider) -> views.LinkAnswer:
    """Link an account to its external provider. The credential is stored encrypted and in no answer."""
    body = command.body
    if not (body.url.startswith("https:") or dependencies.settings.allow_private_targets):
        raise invalid("body", "url", "Input should be an https URL")
    options = OPTIONS[body.provider]
    if not re.fullmatch(options.credential_pattern, body.credential, re.DOTALL):
        raise invalid("body", "credential", f"Input should be {options.credential_form}")
    try:
        options.model_validate(jsontext.parse(body.options.text.encode()))
    except ValidationError as error:
        issues = [_of_option(issue) for issue in validation_error(error).issues]
        raise TicketError("validation_error", issues=issues) from error
    sealed = dependencies.vault.seal(body.credential)

    async def act(connection: Connection) -> views.LinkAnswer:
        [link] = await connection.all(queries.LINK_PROVIDER, {**vars(body), "credential": sealed})
        return {"link": views.resource(views.ProviderLink, link)}

    return await idempotency.once(dependencies, call, KEYS, command, act, transaction=autocommit)


@idempotency.write(UnlinkProvider, KEYS, transaction=autocommit)
async def unlink_provider(connection: Connection, _call: Call, command: UnlinkProvider) -> views.EmptyAnswer:
    """End an account's link; ending it again changes nothing."""
    await connection.one(queries.UNLINK_PROVIDER, vars(command.body))
    return {}


@idempotency.write(RequeueDelivery, KEYS, transaction=autocommit)
async def requeue_delivery(connection: Connection, _call: Call, command: RequeueDelivery) -> views.DeliveryAnswer:
    """Have a delivery retried at once."""
    delivery = await connection.one(queries.REQUEUE_DELIVERY, vars(command.body))
    if delivery is None:
        raise TicketError("not_found", "Delivery not found")
    return {"delivery": views.resource(views.Delivery, delivery)}


def _of_option(issue: Issue) -> Issue:
    return replace(issue, loc=("body", "options", *issue.loc))
