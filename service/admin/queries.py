"""Every SQL statement of the operators. They stand above all scopes, so none of these has one."""

from functools import lru_cache

from sqlalchemy import ColumnElement, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from service.directory import accounts, api_keys, project_members, projects, tenants
from service.statement import Statement


def _given(table: Table, *names: str) -> dict[str, ColumnElement[object]]:
    return {name: bindparam(name, type_=table.c[name].type) for name in names}


_SETTINGS = ("backend_repo", "frontend_repo", "github_repo", "default_roles")

CREATE_ACCOUNT = Statement(insert(accounts).values(_given(accounts, "name")).returning(accounts))

CREATE_API_KEY = Statement(
    insert(api_keys)
    .values(_given(api_keys, "account_id", "key_hash", "live", "scopes", "expires_at"))
    .returning(api_keys)
)

REVOKE_API_KEY = Statement(
    update(api_keys)
    .where(api_keys.c.id == bindparam("api_key_id", type_=api_keys.c.id.type))
    .values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.now()))
    .returning(api_keys)
)

CREATE_PROJECT = Statement(
    insert(projects).values(_given(projects, "account_id", "name", "slug", *_SETTINGS)).returning(projects)
)

_new_account = insert(accounts).values(_given(accounts, "name")).returning(accounts.c.id).cte("account")
CREATE_PROJECT_WITH_ACCOUNT = Statement(
    insert(projects)
    .values(
        {
            **_given(projects, "name", "slug", *_SETTINGS),
            "account_id": select(_new_account.c.id).scalar_subquery(),
        }
    )
    .returning(projects)
)


@lru_cache(maxsize=32)
def update_project(changed: frozenset[str]) -> Statement:
    """The statement that changes these settings of a project."""
    return Statement(
        update(projects)
        .where(projects.c.id == bindparam("project_id", type_=projects.c.id.type))
        # An update must set something.
        .values({"name": projects.c.name, **_given(projects, *sorted(changed))})
        .returning(projects)
    )


REMOVE_MEMBER = Statement(
    delete(project_members)
    .where(
        *(project_members.c[name] == value for name, value in _given(project_members, "project_id", "user_id").items())
    )
    .returning(project_members.c.user_id)
)

_member = upsert(project_members).values(_given(project_members, "project_id", "user_id", "role"))
ADD_MEMBER = Statement(
    _member.on_conflict_do_update(
        index_elements=["user_id", "project_id"], set_={"role": _member.excluded.role}
    ).returning(project_members)
)

CREATE_TENANT = Statement(insert(tenants).values(_given(tenants, "id", "name")).returning(tenants))
