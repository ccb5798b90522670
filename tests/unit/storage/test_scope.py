"""A statement that can touch rows of others is refused when it is built."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    FromClause,
    MetaData,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    null,
    or_,
    select,
    table,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

import service.server  # noqa: F401 - every table that there is
from service.directory import ACCOUNT, MEMBER, METADATA, TENANT, TENANT_AND_APP, api_keys, project_members, projects
from service.handoff import tables as handoff
from service.helpdesk import tables as helpdesk
from service.idempotency import idempotency_keys
from service.itsm import tables as itsm
from service.providers.tables import deliveries, links
from service.storage.scope import EVERYONE, Scope, UnscopedError, separation
from service.storage.statement import Statement

# What they insert has not all that a row needs.
pytestmark = pytest.mark.filterwarnings("ignore:Column 'helpdesk_pauses:sqlalchemy.exc.SAWarning")

TICKETS = itsm.tickets
OTHER = TICKETS.alias("other")
DESK = helpdesk.tickets


def given(name: str) -> ColumnElement[Any]:
    return bindparam(name)


def mine(of: FromClause) -> ColumnElement[bool]:
    return and_(of.c.account_id == given("account_id"), of.c.live == given("live"))


TENANT_IS = DESK.c.tenant_id == given("tenant_id")
CALLER_IS = project_members.c.user_id == given("user_id")
HO = handoff.tickets
MINE = mine(TICKETS)
others = project_members.alias("others")


def _updated_by_id() -> Any:
    bound = select(TICKETS.c.id, TICKETS.c.account_id).where(MINE).cte("bound")
    return update(TICKETS).where(TICKETS.c.id == bound.c.id).values(subject="")


def _is_member() -> ColumnElement[bool]:
    return exists().where(CALLER_IS, project_members.c.project_id == HO.c.project_id)


def _linked_by(subquery: FromClause) -> Any:
    return select(links).join(subquery, links.c.account_id == subquery.c.account_id)


def _upsert(elements: list[str], set_: dict[str, Any]) -> Any:
    new = upsert(helpdesk.pauses).values(tenant_id=given("tenant_id"), ticket_id=given("id"))
    return new.on_conflict_do_update(index_elements=elements, set_=set_)


def _deliveries_of(ticket: FromClause) -> Any:
    return select(deliveries).where(deliveries.c.ticket_id == ticket.c.ticket_id)


def _ticket_id() -> FromClause:
    return select(TICKETS.c.id.label("ticket_id")).where(MINE).subquery("of_ticket")


def _recursive() -> Any:
    first = select(TICKETS.c.account_id, TICKETS.c.live, TICKETS.c.id).where(MINE).cte(recursive=True)
    more = select(OTHER.c.account_id, OTHER.c.live, OTHER.c.id).where(
        OTHER.c.account_id == first.c.account_id, OTHER.c.live == first.c.live
    )
    return select(first.union_all(more))


Build = Callable[[], Any]
REFUSED: dict[str, tuple[Scope, Build]] = {
    # The two leaks.
    "a builder without conditions": (TENANT, lambda: select(DESK)),
    "a tenant or": (TENANT, lambda: select(DESK).where(or_(TENANT_IS, DESK.c.status == "open"))),
    # What is no condition of the table.
    "a parameter that merely occurs": (TENANT, lambda: select(DESK, given("tenant_id").label("mine"))),
    "a parameter of another column": (TENANT, lambda: select(DESK).where(DESK.c.id == given("tenant_id"))),
    "another parameter": (TENANT, lambda: select(DESK).where(DESK.c.tenant_id == given("id"))),
    "another scope's parameter": (ACCOUNT, lambda: select(DESK).where(TENANT_IS)),
    "a literal tenant": (TENANT, lambda: select(DESK).where(DESK.c.tenant_id == "acme")),
    "a parameter with a value": (
        TENANT,
        lambda: select(DESK).where(DESK.c.tenant_id == bindparam("tenant_id", "acme")),
    ),
    "a parameter with a value elsewhere": (
        TENANT,
        lambda: select(DESK).where(TENANT_IS, DESK.c.title == bindparam("tenant_id", "acme")),
    ),
    "itself": (TENANT, lambda: select(DESK).where(DESK.c.tenant_id == DESK.c.tenant_id)),
    # What is no equality that always holds.
    "a negation": (TENANT, lambda: select(DESK).where(not_(TENANT_IS))),
    "a negated and": (TENANT, lambda: select(DESK).where(not_(and_(TENANT_IS, DESK.c.status == "open")))),
    "a case": (TENANT, lambda: select(DESK).where(case((TENANT_IS, true()), else_=true()))),
    "a function": (TENANT, lambda: select(DESK).where(func.lower(DESK.c.tenant_id) == given("tenant_id"))),
    "not distinct": (TENANT, lambda: select(DESK).where(DESK.c.tenant_id.is_not_distinct_from(given("tenant_id")))),
    "having": (TENANT, lambda: select(DESK.c.tenant_id).group_by(DESK.c.tenant_id).having(TENANT_IS)),
    "an or in text": (TENANT, lambda: select(DESK).where(TENANT_IS, text("status = 'open' OR true"))),
    # Scopes of several columns.
    "without live": (ACCOUNT, lambda: select(TICKETS).where(TICKETS.c.account_id == given("account_id"))),
    "without the application": (TENANT_AND_APP, lambda: select(DESK).where(TENANT_IS)),
    # Each occurrence of a table by itself.
    "an alias": (ACCOUNT, lambda: select(TICKETS, OTHER).where(MINE, OTHER.c.id == TICKETS.c.id)),
    "the table beside its alias": (ACCOUNT, lambda: select(TICKETS.c.id).where(mine(OTHER))),
    "a table of a subquery": (
        ACCOUNT,
        lambda: select(TICKETS, select(func.count(TICKETS.c.id)).scalar_subquery()).where(MINE),
    ),
    "one side of an outer join": (
        ACCOUNT,
        lambda: select(TICKETS).outerjoin(links, and_(MINE, links.c.account_id == TICKETS.c.account_id)),
    ),
    "the left of an outer join with what is bound": (
        MEMBER,
        lambda: (
            select(HO)
            .select_from(HO.outerjoin(project_members, HO.c.project_id == project_members.c.project_id))
            .where(CALLER_IS)
        ),
    ),
    "a full join": (
        ACCOUNT,
        lambda: select(TICKETS).select_from(
            TICKETS.join(api_keys, and_(MINE, api_keys.c.id == given("key_id")), full=True)
        ),
    ),
    "an inner join within an outer one": (
        ACCOUNT,
        lambda: select(OTHER).select_from(
            OTHER.outerjoin(TICKETS.join(links, mine(OTHER)), TICKETS.c.id == OTHER.c.id)
        ),
    ),
    # CTEs.
    "a CTE of everyone": (ACCOUNT, lambda: select(select(TICKETS).cte("all_of_them"))),
    "a CTE that is only attached": (
        ACCOUNT,
        lambda: select(TICKETS).where(MINE).add_cte(delete(links).returning(links.c.account_id).cte("gone")),
    ),
    "a CTE within a CTE": (
        ACCOUNT,
        lambda: select(
            select(TICKETS).where(MINE).add_cte(delete(links).returning(links.c.account_id).cte("gone")).cte("mine")
        ),
    ),
    "an update bound by a CTE's other column": (ACCOUNT, _updated_by_id),
    "an update of another's": (ACCOUNT, lambda: update(TICKETS).values(subject="")),
    "a delete": (ACCOUNT, lambda: delete(links).where(links.c.provider == given("account_id"))),
    "a delete by a table of everyone": (
        ACCOUNT,
        lambda: delete(links).where(links.c.account_id == TICKETS.c.account_id),
    ),
    # EXISTS.
    "an EXISTS without correlation": (
        MEMBER,
        lambda: select(HO).where(exists(select(project_members).where(CALLER_IS))),
    ),
    "an EXISTS in an or": (MEMBER, lambda: select(HO).where(or_(_is_member(), HO.c.status == "open"))),
    "no EXISTS": (MEMBER, lambda: select(HO).where(not_(_is_member()))),
    "an EXISTS of a count": (
        MEMBER,
        lambda: select(HO).where(
            exists(
                select(func.count(project_members.c.user_id))
                .where(CALLER_IS, project_members.c.project_id == HO.c.project_id)
                .correlate(HO)
            )
        ),
    ),
    "an EXISTS of everyone": (
        MEMBER,
        lambda: select(HO).where(exists().where(project_members.c.project_id == HO.c.project_id)),
    ),
    "an EXISTS whose outer join makes the equality": (
        MEMBER,
        lambda: select(HO).where(
            exists(
                select(others.c.role)
                .select_from(
                    others.outerjoin(project_members, and_(CALLER_IS, project_members.c.project_id == HO.c.project_id))
                )
                .where(others.c.user_id == given("user_id"))
                .correlate(HO)
            )
        ),
    ),
    # Results.
    "one part of a union": (
        ACCOUNT,
        lambda: select(union_all(select(TICKETS.c.id).where(MINE), select(TICKETS.c.id)).subquery()),
    ),
    "what one part of a union leaves open": (
        ACCOUNT,
        lambda: _linked_by(union_all(select(TICKETS.c.account_id).where(MINE), select(cast(null(), Uuid))).subquery()),
    ),
    "what a subquery makes up": (
        ACCOUNT,
        lambda: _linked_by(select(func.gen_random_uuid().label("account_id"), TICKETS.c.id).where(MINE).subquery()),
    ),
    "an IN of everyone": (ACCOUNT, lambda: select(links).where(links.c.account_id.in_(select(api_keys.c.account_id)))),
    "an equality with an aggregate": (
        ACCOUNT,
        lambda: select(links).where(
            links.c.account_id == select(func.max(TICKETS.c.account_id)).where(MINE).scalar_subquery()
        ),
    ),
    # Inserts and what an update writes.
    "an insert with another's": (
        TENANT,
        lambda: insert(helpdesk.pauses).values(tenant_id=given("tenant"), ticket_id=given("id")),
    ),
    "an insert with a literal": (
        TENANT,
        lambda: insert(helpdesk.pauses).values(tenant_id="acme", ticket_id=given("id")),
    ),
    "an insert without its scope": (TENANT, lambda: insert(helpdesk.pauses).values(ticket_id=given("id"))),
    "an insert that names nothing": (TENANT, lambda: insert(helpdesk.pauses)),
    "an insert of several": (
        TENANT,
        lambda: insert(helpdesk.pauses).values([{"tenant_id": given("tenant_id")}, {"tenant_id": given("tenant_id")}]),
    ),
    "an insert from what is not bound": (
        TENANT,
        lambda: insert(helpdesk.pauses).from_select(["tenant_id", "ticket_id"], select(DESK.c.tenant_id, DESK.c.id)),
    ),
    "an insert from another column": (
        TENANT,
        lambda: insert(helpdesk.pauses).from_select(
            ["tenant_id", "ticket_id"], select(DESK.c.team_id, DESK.c.tenant_id).where(TENANT_IS)
        ),
    ),
    "an insert that reads its own table": (
        TENANT,
        lambda: insert(helpdesk.pauses).from_select(
            ["tenant_id", "ticket_id"],
            select(given("tenant_id"), helpdesk.pauses.c.ticket_id).select_from(
                helpdesk.pauses.join(DESK, and_(TENANT_IS, DESK.c.id == helpdesk.pauses.c.ticket_id))
            ),
        ),
    ),
    "an upsert of whatever has the id": (TENANT, lambda: _upsert(["ticket_id"], {"ended_at": func.now()})),
    "an upsert that gives a row away": (
        TENANT,
        lambda: _upsert(["tenant_id", "ticket_id"], {"tenant_id": given("to")}),
    ),
    "an update that gives a row away": (TENANT, lambda: update(DESK).where(TENANT_IS).values(tenant_id=given("to"))),
    "an insert's ids of others": (
        ACCOUNT,
        lambda: _deliveries_of(
            insert(deliveries)
            .values(id=given("id"), account_id=given("account_id"), ticket_id=given("any"))
            .returning(deliveries.c.ticket_id)
            .cte("new")
        ),
    ),
    # What cannot be checked.
    "a table that declares nothing": (ACCOUNT, lambda: select(Table("new", MetaData(), Column("account_id", Uuid)))),
    "a table by its name alone": (ACCOUNT, lambda: select(literal_column("x")).select_from(table("itsm_tickets"))),
    "a SELECT in text": (ACCOUNT, lambda: select(literal_column("(SELECT subject FROM itsm_tickets LIMIT 1)"))),
    "a SELECT in a condition": (ACCOUNT, lambda: select(TICKETS).where(MINE, text("EXISTS (select 1)"))),
    "a table in text": (ACCOUNT, lambda: select(TICKETS).where(MINE, text("id IN (TABLE ids)"))),
    "a statement of text": (ACCOUNT, lambda: select(text("SELECT 1 AS x").columns(Column("x", Text)).subquery())),
    "a SELECT in a prefix": (ACCOUNT, lambda: select(TICKETS.c.id).where(MINE).prefix_with("(SELECT 1),")),
    "a column by text": (
        ACCOUNT,
        lambda: select(TICKETS).where(
            literal_column("account_id", Uuid) == given("account_id"), literal_column("live", Boolean) == given("live")
        ),
    ),
    "a list of accounts": (
        ACCOUNT,
        lambda: select(links).where(links.c.account_id.in_(bindparam("account_id", expanding=True))),
    ),
    "an idempotency key by its key alone": (
        ACCOUNT,
        lambda: select(idempotency_keys).where(idempotency_keys.c.key == given("idempotency_key")),
    ),
}


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
    "an EXISTS": (MEMBER, lambda: update(HO).where(_is_member(), HO.c.id == given("id")).values(title="")),
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
        lambda: _linked_by(update(TICKETS).where(MINE).values(subject="").returning(TICKETS).cte("changed")),
    ),
    "what an insert returns": (
        ACCOUNT,
        lambda: _linked_by(
            insert(TICKETS)
            .values(account_id=given("account_id"), live=given("live"))
            .returning(TICKETS.c.account_id)
            .cte("new")
        ),
    ),
    "a union": (
        ACCOUNT,
        lambda: _linked_by(
            union_all(
                select(TICKETS.c.account_id).where(MINE), select(OTHER.c.account_id).where(mine(OTHER))
            ).subquery()
        ),
    ),
    "a column under another name": (
        ACCOUNT,
        lambda: _linked_by(select(OTHER.c.live, OTHER.c.account_id.label("account_id")).where(mine(OTHER)).subquery()),
    ),
    "a recursive CTE": (ACCOUNT, _recursive),
    "an insert from a subquery": (
        TENANT,
        lambda: insert(helpdesk.pauses).from_select(
            ["ticket_id", "tenant_id"], select(DESK.c.id, DESK.c.tenant_id).where(TENANT_IS)
        ),
    ),
    "an upsert": (TENANT, lambda: _upsert(["tenant_id", "ticket_id"], {"ended_at": func.now()})),
    "an upsert by a constraint": (
        TENANT,
        lambda: (
            upsert(helpdesk.pauses)
            .values(tenant_id=given("tenant_id"))
            .on_conflict_do_update(constraint=helpdesk.pauses.primary_key, set_={"ended_at": func.now()})
        ),
    ),
    "rows of a bound ticket": (ACCOUNT, lambda: _deliveries_of(_ticket_id())),
    "an idempotency key, in any scope": (
        TENANT,
        lambda: select(idempotency_keys).where(idempotency_keys.c.scope == given("idempotency_scope")),
    ),
    "an API key": (ACCOUNT, lambda: select(api_keys).where(api_keys.c.id == given("key_id"))),
    "everyone": (EVERYONE("a test"), lambda: select(TICKETS)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_statement_is_refused_that_can_touch_rows_of_others(name: str) -> None:
    scope, build = REFUSED[name]
    clause = build()
    with pytest.raises(UnscopedError):
        Statement(clause, scope=scope)


@pytest.mark.parametrize("name", TAKEN)
def test_a_statement_is_taken_that_cannot(name: str) -> None:
    scope, build = TAKEN[name]
    assert Statement(build(), scope=scope).scope is scope


def test_the_error_names_table_columns_and_scope() -> None:
    with pytest.raises(UnscopedError, match=r"itsm_tickets is scoped by account_id, live.*tenant_id"):
        Statement(select(TICKETS), scope=TENANT)


def test_a_statement_for_everyone_says_why() -> None:
    assert EVERYONE("it counts").reason == "it counts"
    with pytest.raises(ValueError, match="says why"):
        EVERYONE(" ")


@pytest.mark.parametrize("name", METADATA.tables)
def test_every_table_declares_how_its_rows_are_separated(name: str) -> None:
    of = METADATA.tables[name]
    declared = separation(of)
    assert bool(declared.scope) is not bool(declared.shared)
    assert {*declared.scope, *declared.narrower, *declared.or_by, *declared.gives} <= {*of.c.keys()}


def test_a_statement_is_whole_when_it_is_built() -> None:
    with pytest.raises(ValueError, match="as it runs it"):
        Statement(select(literal_column("1").in_([1, 2]).label("x")), scope=EVERYONE("reads no table"))
