"""The use cases of operators that read one resource."""

from typing import Any, TypeVar

from sqlalchemy import Table

from service.admin import queries, views
from service.admin.commands import GetAccount, GetApiKey, GetDelivery, GetLink, GetMember, GetProject, GetTenant
from service.directory import accounts, api_keys, project_members, projects, tenants
from service.errors import TicketError
from service.operation import Call, View, autocommit, operation
from service.providers.tables import deliveries, links
from service.storage.database import Connection

V = TypeVar("V", bound=View)


async def _one(connection: Connection, table: Table, kind: type[V], what: str, values: dict[str, Any], **by: str) -> V:
    """The resource whose columns have the values that `by` names. Raises TicketError `not_found`."""
    row = await connection.one(queries.one(table, **by), values)
    if row is None:
        raise TicketError("not_found", f"{what} not found")
    return views.resource(kind, row)


@operation(GetAccount, transaction=autocommit)
async def get_account(connection: Connection, _call: Call, command: GetAccount) -> views.AccountAnswer:
    """A customer account."""
    found = await _one(connection, accounts, views.Account, "Account", vars(command.path), id="account_id")
    return {"account": found}


@operation(GetApiKey, transaction=autocommit)
async def get_api_key(connection: Connection, _call: Call, command: GetApiKey) -> views.ApiKeyAnswer:
    """An API key, without its secret."""
    found = await _one(connection, api_keys, views.ApiKey, "API key", vars(command.path), id="api_key_id")
    return {"api_key": found}


@operation(GetProject, transaction=autocommit)
async def get_project(connection: Connection, _call: Call, command: GetProject) -> views.ProjectAnswer:
    """A project with its settings."""
    found = await _one(connection, projects, views.Project, "Project", vars(command.path), id="project_id")
    return {"project": found}


@operation(GetMember, transaction=autocommit)
async def get_member(connection: Connection, _call: Call, command: GetMember) -> views.MemberAnswer:
    """A user's membership of a project."""
    found = await _one(
        connection,
        project_members,
        views.Member,
        "Membership",
        vars(command.path),
        project_id="project_id",
        user_id="user_id",
    )
    return {"member": found}


@operation(GetTenant, transaction=autocommit)
async def get_tenant(connection: Connection, _call: Call, command: GetTenant) -> views.TenantAnswer:
    """A helpdesk tenant that was recorded."""
    found = await _one(connection, tenants, views.Tenant, "Tenant", vars(command.path), id="tenant_id")
    return {"tenant": found}


@operation(GetLink, transaction=autocommit)
async def get_link(connection: Connection, _call: Call, command: GetLink) -> views.LinkAnswer:
    """An account's link to its provider, without the credential."""
    found = await _one(connection, links, views.ProviderLink, "Link", vars(command.path), account_id="account_id")
    return {"link": found}


@operation(GetDelivery, transaction=autocommit)
async def get_delivery(connection: Connection, _call: Call, command: GetDelivery) -> views.DeliveryAnswer:
    """A delivery to a provider."""
    found = await _one(connection, deliveries, views.Delivery, "Delivery", vars(command.path), id="delivery_id")
    return {"delivery": found}
