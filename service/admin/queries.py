"""Every SQL statement of the operators, who see all accounts and projects."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.dml import ReturningInsert

from service.directory import accounts, api_keys, project_members, projects, tenants
from service.providers.tables import deliveries, links
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, bound, mine, parameter
from service.webhooks.tables import WebhookTables

_OPERATORS = EVERYONE("operators stand above all scopes")
_SETTINGS = ("backend_repo", "frontend_repo", "github_repo", "default_roles")

CREATE_ACCOUNT = Statement(insert(accounts).values(bound(accounts, "name")).returning(accounts), scope=_OPERATORS)

CREATE_API_KEY = Statement(
    insert(api_keys)
    .values(bound(api_keys, "account_id", "key_hash", "live", "scopes", "expires_at", "prefix"))
    .returning(api_keys),
    scope=_OPERATORS,
)

REVOKE_API_KEY = Statement(
    update(api_keys)
    .where(api_keys.c.id == bindparam("api_key_id", type_=api_keys.c.id.type))
    .values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.now()))
    .returning(api_keys),
    scope=_OPERATORS,
)


def _create_project(account_id: ColumnElement[Any]) -> ReturningInsert[Any]:
    values = {**bound(projects, "name", "slug", *_SETTINGS), "account_id": account_id}
    return upsert(projects).values(values).on_conflict_do_nothing(index_elements=["slug"]).returning(projects)


# No row when the slug is taken.
CREATE_PROJECT = Statement(_create_project(parameter(projects.c.account_id)), scope=_OPERATORS)
# The project first, so that there is no account without it; its reference is checked when both are there.
_project = _create_project(func.gen_random_uuid()).cte("project")
_account = insert(accounts).from_select(["id", "name"], select(_project.c.account_id, _project.c.name))
CREATE_PROJECT_WITH_ACCOUNT = Statement(
    select(_project).add_cte(_account.returning(accounts.c.id).cte("account")), scope=_OPERATORS
)


@lru_cache(maxsize=32)
def update_project(changed: frozenset[str]) -> Statement:
    """Changes these settings of a project."""
    return Statement(
        update(projects)
        .where(projects.c.id == bindparam("project_id", type_=projects.c.id.type))
        # The name as it is, because an UPDATE must set something.
        .values({"name": projects.c.name, **bound(projects, *sorted(changed))})
        .returning(projects),
        scope=_OPERATORS,
    )


REMOVE_MEMBER = Statement(
    delete(project_members)
    .where(
        *(project_members.c[name] == value for name, value in bound(project_members, "project_id", "user_id").items())
    )
    .returning(project_members.c.user_id),
    scope=_OPERATORS,
)

_member = upsert(project_members).values(bound(project_members, "project_id", "user_id", "role"))
ADD_MEMBER = Statement(
    _member.on_conflict_do_update(
        index_elements=["user_id", "project_id"], set_={"role": _member.excluded.role}
    ).returning(project_members),
    scope=_OPERATORS,
)

# No row when there is one of this id.
CREATE_TENANT = Statement(
    upsert(tenants).values(bound(tenants, "id", "name")).on_conflict_do_nothing().returning(tenants), scope=_OPERATORS
)

_link = upsert(links).values(bound(links, "account_id", "provider", "url", "credential", "options"))
LINK_PROVIDER = Statement(
    _link.on_conflict_do_update(
        index_elements=["account_id"],
        set_={name: _link.excluded[name] for name in ("provider", "url", "credential", "options")}
        | {"updated_at": func.now()},
    ).returning(links),
    scope=_OPERATORS,
)
UNLINK_PROVIDER = Statement(
    delete(links).where(*mine(links)).returning(links.c.account_id),
    scope=_OPERATORS,
)


def suspend(table: Table, parameter_: str, *, resume: bool = False) -> Statement:
    """Suspends the row of this id, or resumes it. What is suspended stays so since the same instant."""
    since = null() if resume else func.coalesce(table.c.suspended_at, func.now())
    found = update(table).where(table.c.id == bindparam(parameter_, type_=table.c.id.type))
    return Statement(found.values(suspended_at=since).returning(table), scope=_OPERATORS)


SUSPEND_ACCOUNT, RESUME_ACCOUNT = suspend(accounts, "account_id"), suspend(accounts, "account_id", resume=True)
SUSPEND_API_KEY, RESUME_API_KEY = suspend(api_keys, "api_key_id"), suspend(api_keys, "api_key_id", resume=True)
RESUME_TENANT = suspend(tenants, "tenant_id", resume=True)
# A signed tenant has no row before it is recorded.
_tenant_id = bindparam("tenant_id", type_=tenants.c.id.type)
SUSPEND_TENANT = Statement(
    upsert(tenants)
    .values(id=_tenant_id, name=_tenant_id, suspended_at=func.now())
    .on_conflict_do_update(
        index_elements=["id"], set_={"suspended_at": func.coalesce(tenants.c.suspended_at, func.now())}
    )
    .returning(tenants),
    scope=_OPERATORS,
)


@lru_cache(maxsize=16)
def one(table: Table, **named: str) -> Statement:
    """The row whose columns have the values of these parameters."""
    conditions = [table.c[name] == bindparam(value, type_=table.c[name].type) for name, value in named.items()]
    return Statement(select(table).where(*conditions), scope=_OPERATORS)


@lru_cache(maxsize=64)
def list_page(table: Table, key: str, by: frozenset[str], *, after: bool, since: bool = False) -> Statement:
    """The first `rows` rows of a table whose columns `by` have the values given, in the order of the key.

    `since` an instant: the rows that were created then or later, whose keys are UUIDs by time.
    """
    conditions = [table.c[name] == value for name, value in bound(table, *sorted(by)).items()]
    if after:
        conditions.append(table.c[key] > bindparam("after", type_=table.c[key].type))
    if since:
        conditions.append(table.c[key] >= bindparam("first", type_=table.c[key].type))
        conditions.append(table.c.created_at >= bindparam("since", type_=table.c.created_at.type))
    page = select(table).where(*conditions).order_by(table.c[key])
    return Statement(page.limit(bindparam("rows", type_=Integer)), scope=_OPERATORS, prepared=False)


@lru_cache(maxsize=4)
def list_failing_webhooks(of: WebhookTables, *, one_account: bool, after: bool) -> Statement:
    """The first `rows` webhooks that fail, in the order of their ids, each with its last attempt."""
    webhooks, attempts = of.webhooks, of.attempts
    last = (
        select(attempts.c.attempted_at, attempts.c.attempt, attempts.c.status_code, attempts.c.error)
        .where(
            attempts.c.account_id == webhooks.c.account_id,
            attempts.c.live == webhooks.c.live,
            attempts.c.webhook_id == webhooks.c.id,
            *([attempts.c.account_id == parameter(attempts.c.account_id)] if one_account else []),
        )
        .order_by(attempts.c.id.desc())
        .limit(literal_column("1"))
        .lateral("last")
    )
    shown = (webhooks.c[name] for name in ("id", "account_id", "live", "url", "is_active", "disabled_reason"))
    page = select(
        *shown,
        webhooks.c.failing_since,
        last.c.attempted_at.label("last_attempt_at"),
        last.c.attempt.label("last_attempt"),
        last.c.status_code.label("last_status_code"),
        last.c.error.label("last_error"),
    ).where(webhooks.c.failing_since.is_not(None))
    if one_account:
        page = page.where(webhooks.c.account_id == parameter(webhooks.c.account_id))
    if after:
        page = page.where(webhooks.c.id > bindparam("after", type_=webhooks.c.id.type))
    page = page.select_from(webhooks.outerjoin(last, true())).order_by(webhooks.c.id)
    return Statement(page.limit(bindparam("rows", type_=Integer)), scope=_OPERATORS, prepared=False)


REQUEUE_DELIVERY = Statement(
    update(deliveries)
    .where(deliveries.c.id == bindparam("delivery_id", type_=deliveries.c.id.type))
    .values(
        state="queued",
        attempts=0,
        next_attempt_at=func.now(),
        is_requeued=or_(deliveries.c.is_requeued, deliveries.c.state == "dead"),
    )
    .returning(deliveries),
    scope=_OPERATORS,
)
