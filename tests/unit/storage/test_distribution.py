"""What keeps a statement from running on one machine is found, and nothing else is: `tests/support/distribution.py`."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import and_, any_, case, exists, func, insert, literal_column, not_, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert as upsert
from support.distribution import problems
from support.scoped_clauses import CALLER_IS, DESK, HO, MINE, OTHER, TENANT_IS, TICKETS, given, mine

from service.directory import accounts, project_members, projects
from service.helpdesk import tables as helpdesk
from service.itsm import tables as itsm
from service.storage.statement import _DIALECT, some_rows

EVENTS = itsm.events
TICKETS_OF = EVENTS.c.account_id == TICKETS.c.account_id
IN_PROJECT = HO.c.project_id == given("project_id")
PAUSES = helpdesk.pauses


def found(clause: Any) -> set[tuple[str, str]]:
    return {*problems(clause, str(clause.compile(dialect=_DIALECT)))}


def changed_in_cte() -> Any:
    return update(TICKETS).where(MINE).values(subject="").returning(TICKETS.c.account_id, TICKETS.c.id).cte("changed")


def event_of(ticket: Any) -> Any:
    return insert(EVENTS).from_select(["account_id"], select(ticket.c.account_id)).returning(EVENTS.c.id).cte("event")


Build = Callable[[], Any]
PLANTED: dict[str, tuple[str, Build]] = {
    # The wall between tenants.
    "without a condition": ("unbound", lambda: select(TICKETS)),
    "another column": ("unbound", lambda: select(TICKETS).where(TICKETS.c.live == given("live"))),
    "either of two": ("unbound", lambda: select(TICKETS).where(or_(MINE, TICKETS.c.live == true()))),
    "a negation": ("unbound", lambda: select(DESK).where(not_(TENANT_IS))),
    "any of several": ("unbound", lambda: select(DESK).where(DESK.c.tenant_id == any_(given("tenant_ids")))),
    "in a case": ("unbound", lambda: select(DESK).where(case((TENANT_IS, true()), else_=true()))),
    # What the wall of scopes sees through, and an engine does not.
    "a join": ("unbound", lambda: select(EVENTS).join(TICKETS, TICKETS_OF).where(MINE)),
    "an outer join": ("unbound", lambda: select(EVENTS).select_from(TICKETS.outerjoin(EVENTS, TICKETS_OF)).where(MINE)),
    "an alias": (
        "unbound",
        lambda: select(OTHER).join(TICKETS, OTHER.c.account_id == TICKETS.c.account_id).where(MINE),
    ),
    "a subquery": ("unbound", lambda: select(TICKETS).where(MINE, exists().where(TICKETS_OF))),
    "a scalar": (
        "unbound",
        lambda: select(TICKETS, select(func.count()).where(TICKETS_OF).scalar_subquery()).where(MINE),
    ),
    "a lateral": (
        "unbound",
        lambda: select(TICKETS).join(select(EVENTS).where(TICKETS_OF).lateral("page"), true()).where(MINE),
    ),
    "a membership": (
        "unbound",
        lambda: select(HO).join(project_members, HO.c.project_id == project_members.c.project_id).where(CALLER_IS),
    ),
    "the left of an outer join": (
        "unbound",
        lambda: select(TICKETS).select_from(TICKETS.outerjoin(EVENTS, and_(TICKETS_OF, mine(TICKETS), mine(EVENTS)))),
    ),
    "an update of ids": (
        "unbound",
        lambda: update(TICKETS).where(TICKETS.c.id.in_(select(OTHER.c.id).where(mine(OTHER)))).values(subject=""),
    ),
    "ids of everybody": (
        "unbound",
        lambda: update(TICKETS).where(MINE, TICKETS.c.id.in_(select(OTHER.c.id))).values(subject=""),
    ),
    "a CTE that is only attached": ("unbound", lambda: select(DESK).where(TENANT_IS).add_cte(select(TICKETS).cte("a"))),
    "an insert of another's": (
        "written",
        lambda: insert(PAUSES).from_select(["tenant_id", "ticket_id"], select(func.lower("A"), given("id"))),
    ),
    "an insert of nobody's": (
        "written",
        lambda: insert(PAUSES).values(tenant_id=func.lower("A"), ticket_id=given("id")),
    ),
    "text": ("text", lambda: select(TICKETS).where(MINE, some_rows(TICKETS, 1))),
    # What runs here, and on one machine of several does not.
    "an insert beside an update": ("insert", lambda: select(literal_column("1")).add_cte(event_of(changed_in_cte()))),
    "accounts and tenants": ("groups", lambda: select(TICKETS.c.id, DESK.c.id).where(MINE, TENANT_IS)),
    "an instant beside a column": (
        "stable",
        lambda: update(TICKETS).where(MINE).values(updated_at=func.greatest(func.now(), TICKETS.c.updated_at)),
    ),
    "an instant in a conflict": (
        "stable",
        lambda: (
            upsert(PAUSES)
            .values(tenant_id=given("tenant_id"), ticket_id=given("id"))
            .on_conflict_do_update(
                index_elements=["tenant_id", "ticket_id", "started_at"],
                set_={"ended_at": func.coalesce(PAUSES.c.ended_at, func.now())},
            )
        ),
    ),
}


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("name", PLANTED)
def test_what_would_not_run_on_one_machine_is_found(name: str) -> None:
    kind, build = PLANTED[name]
    assert kind in {problem[0] for problem in found(build())}


FINE: dict[str, Build] = {
    "one table": lambda: select(TICKETS).where(MINE),
    "what lies everywhere": lambda: select(projects).join(accounts, accounts.c.id == projects.c.account_id),
    "a join beside it": lambda: select(EVENTS).join(TICKETS, TICKETS_OF).where(MINE, mine(EVENTS)),
    "in the condition of a join": lambda: select(EVENTS).join(TICKETS, and_(MINE, mine(EVENTS))),
    "the right of an outer join": lambda: (
        select(EVENTS).select_from(TICKETS.outerjoin(EVENTS, and_(TICKETS_OF, mine(EVENTS)))).where(MINE)
    ),
    "a membership beside it": lambda: (
        select(HO)
        .join(project_members, HO.c.project_id == project_members.c.project_id)
        .where(CALLER_IS, IN_PROJECT, project_members.c.project_id == given("project_id"))
    ),
    "a subquery": lambda: select(TICKETS).where(MINE, exists().where(TICKETS_OF, mine(EVENTS))),
    "an update of ids": lambda: (
        update(TICKETS).where(MINE, TICKETS.c.id.in_(select(OTHER.c.id).where(mine(OTHER)))).values(subject="")
    ),
    "an instant": lambda: update(TICKETS).where(MINE, TICKETS.c.created_at < func.now()).values(updated_at=func.now()),
    "an insert of what is bound": lambda: insert(EVENTS).from_select(
        ["account_id"], select(TICKETS.c.account_id).where(MINE)
    ),
    "a key": lambda: upsert(itsm.keys).values(account_id=given("account_id")).on_conflict_do_nothing(),
}


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("name", FINE)
def test_nothing_else_is_found(name: str) -> None:
    assert found(FINE[name]()) == set()
