"""A statement that can touch rows of others is refused when it is built."""

import pytest
from sqlalchemy import (
    Boolean,
    Column,
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
    others,
    updated_by_id,
    upsert_pause,
)

import service.server  # noqa: F401 - every table that there is
from service.directory import ACCOUNT, MEMBER, METADATA, TENANT_AND_APP, api_keys, project_members
from service.helpdesk import tables as helpdesk
from service.itsm import tables as itsm
from service.providers.tables import deliveries, links
from service.storage.scope import EVERYONE, Scope, UnscopedError, separation
from service.storage.statement import Statement

# What they insert has not all that a row needs.
pytestmark = pytest.mark.filterwarnings("ignore:Column 'helpdesk_pauses:sqlalchemy.exc.SAWarning")

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
    "an update bound by a CTE's other column": (ACCOUNT, updated_by_id),
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
    "an EXISTS in an or": (MEMBER, lambda: select(HO).where(or_(is_member(), HO.c.status == "open"))),
    "no EXISTS": (MEMBER, lambda: select(HO).where(not_(is_member()))),
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
        lambda: linked_by(union_all(select(TICKETS.c.account_id).where(MINE), select(cast(null(), Uuid))).subquery()),
    ),
    "what a subquery makes up": (
        ACCOUNT,
        lambda: linked_by(select(func.gen_random_uuid().label("account_id"), TICKETS.c.id).where(MINE).subquery()),
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
    "an upsert of whatever has the id": (TENANT, lambda: upsert_pause(["ticket_id"], {"ended_at": func.now()})),
    "an upsert that gives a row away": (
        TENANT,
        lambda: upsert_pause(["tenant_id", "ticket_id"], {"tenant_id": given("to")}),
    ),
    "an update that gives a row away": (TENANT, lambda: update(DESK).where(TENANT_IS).values(tenant_id=given("to"))),
    "an insert's ids of others": (
        ACCOUNT,
        lambda: deliveries_of(
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
        lambda: select(itsm.keys).where(itsm.keys.c.key == given("idempotency_key")),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_statement_is_refused_that_can_touch_rows_of_others(name: str) -> None:
    scope, build = REFUSED[name]
    clause = build()
    with pytest.raises(UnscopedError):
        Statement(clause, scope=scope)


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
    narrower = {name for columns in declared.narrower.values() for name in columns}
    assert {*declared.scope, *narrower, *declared.or_by, *declared.gives} <= {*of.c.keys()}


def test_a_statement_is_whole_when_it_is_built() -> None:
    with pytest.raises(ValueError, match="as it runs it"):
        Statement(select(literal_column("1").in_([1, 2]).label("x")), scope=EVERYONE("reads no table"))
