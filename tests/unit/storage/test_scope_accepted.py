"""A statement is accepted whose every table is bound to the caller's scope, in each form that the service uses."""

import pytest
from sqlalchemy import (
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from support.scoped_clauses import (
    CALLER_IS,
    DESK,
    HO,
    MINE,
    OTHER,
    TENANT,
    TENANT_IS,
    TICKETS,
    Build,
    deliveries_of,
    given,
    is_member,
    linked_by,
    mine,
    recursive,
    ticket_id,
    upsert_pause,
)

import service.server  # noqa: F401 - every table that there is
from service.directory import ACCOUNT, MEMBER, TENANT_AND_APP, api_keys, project_members, projects
from service.helpdesk import tables as helpdesk
from service.providers.tables import links
from service.storage import statement
from service.storage.scope import EVERYONE, Scope
from service.storage.statement import Statement

# What they insert has not all that a row needs.
pytestmark = pytest.mark.filterwarnings("ignore:Column 'helpdesk_pauses:sqlalchemy.exc.SAWarning")

TAKEN: dict[str, tuple[Scope, Build]] = {
    "its own conditions": (TENANT, lambda: select(DESK).where(TENANT_IS, or_(DESK.c.status == "open", true()))),
    "nested ands": (ACCOUNT, lambda: select(TICKETS).where(and_(TICKETS.c.id == given("id"), MINE))),
    "turned around": (TENANT, lambda: select(DESK).where(given("tenant_id") == DESK.c.tenant_id)),
    "the application too": (TENANT_AND_APP, lambda: select(DESK).where(TENANT_IS, DESK.c.app_id == given("app_id"))),
    "nothing but parameters": (TENANT, lambda: select(given("tenant_id").label("x"))),
    "a join": (
        MEMBER,
        lambda: select(HO).join(project_members, project_members.c.project_id == HO.c.project_id).where(CALLER_IS),
    ),
    "a join of joins": (
        MEMBER,
        lambda: (
            select(HO, projects)
            .select_from(project_members.join(projects, projects.c.id == project_members.c.project_id))
            .outerjoin(HO, HO.c.project_id == projects.c.id)
            .where(CALLER_IS)
        ),
    ),
    "an alias": (ACCOUNT, lambda: select(OTHER).where(mine(OTHER))),
    "an EXISTS": (MEMBER, lambda: update(HO).where(is_member(), HO.c.id == given("id")).values(title="")),
    "an IN": (
        MEMBER,
        lambda: select(HO).where(HO.c.project_id.in_(select(project_members.c.project_id).where(CALLER_IS))),
    ),
    "a scalar subquery": (
        ACCOUNT,
        lambda: select(links).where(
            links.c.account_id == select(TICKETS.c.account_id).where(MINE).limit(1).scalar_subquery()
        ),
    ),
    "a correlated subquery": (
        ACCOUNT,
        lambda: select(
            TICKETS,
            select(func.count()).where(links.c.account_id == TICKETS.c.account_id).scalar_subquery(),
        ).where(MINE),
    ),
    "a subquery of its own table": (
        ACCOUNT,
        lambda: delete(TICKETS).where(MINE, TICKETS.c.id.in_(select(TICKETS.c.id).where(MINE))),
    ),
    "a lateral": (
        TENANT,
        lambda: (
            select(DESK)
            .join(
                select(helpdesk.comments)
                .where(helpdesk.comments.c.tenant_id == DESK.c.tenant_id)
                .limit(1)
                .lateral("newest"),
                true(),
            )
            .where(TENANT_IS)
        ),
    ),
    "what an update returns": (
        ACCOUNT,
        lambda: linked_by(update(TICKETS).where(MINE).values(subject="").returning(TICKETS).cte("changed")),
    ),
    "what an insert returns": (
        ACCOUNT,
        lambda: linked_by(
            insert(TICKETS)
            .values(account_id=given("account_id"), live=given("live"))
            .returning(TICKETS.c.account_id)
            .cte("new")
        ),
    ),
    "a union": (
        ACCOUNT,
        lambda: linked_by(
            union_all(
                select(TICKETS.c.account_id).where(MINE), select(OTHER.c.account_id).where(mine(OTHER))
            ).subquery()
        ),
    ),
    "a column under another name": (
        ACCOUNT,
        lambda: linked_by(select(OTHER.c.live, OTHER.c.account_id.label("account_id")).where(mine(OTHER)).subquery()),
    ),
    "a recursive CTE": (ACCOUNT, recursive),
    "an insert from a subquery": (
        TENANT,
        lambda: insert(helpdesk.pauses).from_select(
            ["ticket_id", "tenant_id"], select(DESK.c.id, DESK.c.tenant_id).where(TENANT_IS)
        ),
    ),
    "an upsert": (TENANT, lambda: upsert_pause(["tenant_id", "ticket_id"], {"ended_at": func.now()})),
    "an upsert by a constraint": (
        TENANT,
        lambda: (
            upsert(helpdesk.pauses)
            .values(tenant_id=given("tenant_id"))
            .on_conflict_do_update(constraint=helpdesk.pauses.primary_key, set_={"ended_at": func.now()})
        ),
    ),
    "rows of a bound ticket": (ACCOUNT, lambda: deliveries_of(ticket_id())),
    "an idempotency key, by whose it is": (
        TENANT.with_also("sub", "key_app_id"),
        lambda: select(helpdesk.keys).where(*statement.mine(helpdesk.keys)),
    ),
    "an API key": (ACCOUNT, lambda: select(api_keys).where(api_keys.c.id == given("key_id"))),
    "everyone": (EVERYONE("a test"), lambda: select(TICKETS)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_statement_is_taken_that_cannot(name: str) -> None:
    scope, build = TAKEN[name]
    assert Statement(build(), scope=scope).scope is scope
