"""The use cases of operators that list resources page by page, each list in the order of its ids."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import Table

from service import paging
from service.admin import queries, views
from service.admin.commands import (
    ListAccounts,
    ListApiKeys,
    ListDeliveries,
    ListFailingWebhooks,
    ListLinks,
    ListMembers,
    ListProjects,
    ListTenants,
)
from service.directory import accounts, api_keys, project_members, projects, tenants
from service.fields import Page
from service.numbering import uuid7_at
from service.operation import Call, View, autocommit, operation
from service.providers.tables import deliveries, links
from service.storage.database import Connection
from service.webhooks.tables import TABLES

V = TypeVar("V", bound=View)
# What a cursor holds, by the type of the key that a list is ordered by.
_KEYS: Mapping[type, TypeAdapter[tuple[Any]]] = {UUID: TypeAdapter(tuple[UUID]), str: TypeAdapter(tuple[str])}
# Ids are made by the processes, instants of creation by the database: no two of their clocks are that far apart.
_CLOCKS_APART = timedelta(hours=1)
# Nothing here is older, and an id says no instant before 1970.
_FIRST = datetime(2000, 1, 1, tzinfo=UTC)


async def _page(
    connection: Connection,
    table: Table,
    query: Page,
    kind: type[V],
    *,
    key: str = "id",
    by: Sequence[str] = (),
    since: datetime | None = None,
) -> tuple[list[V], str | None]:
    """A page of a table's resources, and the cursor of the next one."""
    given = {name: value for name in by if (value := getattr(query, name)) is not None}
    binding = paging.binding_of(table.name, given, *([since] if since else []))
    after = {}
    if query.cursor is not None:
        (after["after"],) = paging.decode(query.cursor, binding, _KEYS[table.c[key].type.python_type])
    statement = queries.list_page(table, key, frozenset(given), after=bool(after), since=since is not None)
    created = {} if since is None else {"since": since, "first": uuid7_at(max(since, _FIRST) - _CLOCKS_APART)}
    rows = await connection.all(statement, {**given, **after, **created, "rows": query.limit + 1})
    page, next_cursor = paging.cut(rows, query.limit, binding, key)
    return [views.resource(kind, row) for row in page], next_cursor


@operation(ListDeliveries, transaction=autocommit)
async def list_deliveries(connection: Connection, _call: Call, command: ListDeliveries) -> views.DeliveryPage:
    """A page of the deliveries to providers, the oldest first."""
    by, since = ("account_id", "state", "kind"), command.query.since
    page, next_cursor = await _page(connection, deliveries, command.query, views.Delivery, by=by, since=since)
    return {"deliveries": page, "next_cursor": next_cursor}


@operation(ListAccounts, transaction=autocommit)
async def list_accounts(connection: Connection, _call: Call, command: ListAccounts) -> views.AccountPage:
    """A page of the customer accounts."""
    page, next_cursor = await _page(connection, accounts, command.query, views.Account)
    return {"accounts": page, "next_cursor": next_cursor}


@operation(ListApiKeys, transaction=autocommit)
async def list_api_keys(connection: Connection, _call: Call, command: ListApiKeys) -> views.ApiKeyPage:
    """A page of API keys, revoked and expired ones too."""
    page, next_cursor = await _page(connection, api_keys, command.query, views.ApiKey, by=("account_id",))
    return {"api_keys": page, "next_cursor": next_cursor}


@operation(ListProjects, transaction=autocommit)
async def list_projects(connection: Connection, _call: Call, command: ListProjects) -> views.ProjectPage:
    """A page of projects."""
    page, next_cursor = await _page(connection, projects, command.query, views.Project, by=("account_id",))
    return {"projects": page, "next_cursor": next_cursor}


@operation(ListMembers, transaction=autocommit)
async def list_members(connection: Connection, _call: Call, command: ListMembers) -> views.MemberPage:
    """A page of the members of a project."""
    page, next_cursor = await _page(
        connection, project_members, command.query, views.Member, key="user_id", by=("project_id",)
    )
    return {"members": page, "next_cursor": next_cursor}


@operation(ListTenants, transaction=autocommit)
async def list_tenants(connection: Connection, _call: Call, command: ListTenants) -> views.TenantPage:
    """A page of helpdesk tenants."""
    page, next_cursor = await _page(connection, tenants, command.query, views.Tenant)
    return {"tenants": page, "next_cursor": next_cursor}


@operation(ListLinks, transaction=autocommit)
async def list_links(connection: Connection, _call: Call, command: ListLinks) -> views.LinkPage:
    """A page of accounts' links to their providers."""
    page, next_cursor = await _page(
        connection, links, command.query, views.ProviderLink, key="account_id", by=("account_id",)
    )
    return {"links": page, "next_cursor": next_cursor}


@operation(ListFailingWebhooks, transaction=autocommit)
async def list_failing_webhooks(
    connection: Connection, _call: Call, command: ListFailingWebhooks
) -> views.FailingWebhookPage:
    """A page of the webhooks that fail, of ITSM tickets: no other API has any."""
    query = command.query
    given = {} if query.account_id is None else {"account_id": query.account_id}
    binding = paging.binding_of("failing_webhooks", given)
    after = {}
    if query.cursor is not None:
        (after["after"],) = paging.decode(query.cursor, binding, _KEYS[str])
    statement = queries.list_failing_webhooks(TABLES["itsm"], one_account=bool(given), after=bool(after))
    rows = await connection.all(statement, {**given, **after, "rows": query.limit + 1})
    page, next_cursor = paging.cut(rows, query.limit, binding, "id")
    return {"webhooks": [views.resource(views.FailingWebhook, row) for row in page], "next_cursor": next_cursor}
