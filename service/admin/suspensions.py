"""The use cases of operators that suspend and resume accounts, API keys and tenants (access/suspensions.py)."""

from service import idempotency
from service.admin import queries, views
from service.admin.commands import (
    ResumeAccount,
    ResumeApiKey,
    ResumeTenant,
    SuspendAccount,
    SuspendApiKey,
    SuspendTenant,
)
from service.admin.keys import KEYS
from service.errors import TicketError
from service.fields import Section
from service.operation import Call, autocommit
from service.storage.database import Connection
from service.storage.statement import Row, Statement


async def _changed(connection: Connection, statement: Statement, body: Section, what: str) -> Row:
    row = await connection.one(statement, vars(body))
    if row is None:
        raise TicketError("not_found", f"{what} not found")
    return row


@idempotency.write(SuspendAccount, KEYS, transaction=autocommit)
async def suspend_account(connection: Connection, _call: Call, command: SuspendAccount) -> views.AccountAnswer:
    """Suspend an account: its keys are refused."""
    account = await _changed(connection, queries.SUSPEND_ACCOUNT, command.body, "Account")
    return {"account": views.resource(views.Account, account)}


@idempotency.write(ResumeAccount, KEYS, transaction=autocommit)
async def resume_account(connection: Connection, _call: Call, command: ResumeAccount) -> views.AccountAnswer:
    """End an account's suspension."""
    account = await _changed(connection, queries.RESUME_ACCOUNT, command.body, "Account")
    return {"account": views.resource(views.Account, account)}


@idempotency.write(SuspendApiKey, KEYS, transaction=autocommit)
async def suspend_api_key(connection: Connection, _call: Call, command: SuspendApiKey) -> views.ApiKeyAnswer:
    """Suspend an API key."""
    api_key = await _changed(connection, queries.SUSPEND_API_KEY, command.body, "API key")
    return {"api_key": views.resource(views.ApiKey, api_key)}


@idempotency.write(ResumeApiKey, KEYS, transaction=autocommit)
async def resume_api_key(connection: Connection, _call: Call, command: ResumeApiKey) -> views.ApiKeyAnswer:
    """End an API key's suspension; a revoked one stays revoked."""
    api_key = await _changed(connection, queries.RESUME_API_KEY, command.body, "API key")
    return {"api_key": views.resource(views.ApiKey, api_key)}


@idempotency.write(SuspendTenant, KEYS, transaction=autocommit)
async def suspend_tenant(connection: Connection, _call: Call, command: SuspendTenant) -> views.TenantAnswer:
    """Suspend a helpdesk tenant; one without a row gets one."""
    tenant = await _changed(connection, queries.SUSPEND_TENANT, command.body, "Tenant")
    return {"tenant": views.resource(views.Tenant, tenant)}


@idempotency.write(ResumeTenant, KEYS, transaction=autocommit)
async def resume_tenant(connection: Connection, _call: Call, command: ResumeTenant) -> views.TenantAnswer:
    """End a tenant's suspension."""
    tenant = await _changed(connection, queries.RESUME_TENANT, command.body, "Tenant")
    return {"tenant": views.resource(views.Tenant, tenant)}
