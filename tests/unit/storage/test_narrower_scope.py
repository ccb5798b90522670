"""Not everyone in a tenant sees all of it: a statement on tickets says whose it is about, or is refused."""

import pytest
from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    bindparam,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    true,
    union_all,
    update,
)
from support.scoped_clauses import DESK, TENANT_IS, Build, given

from service.directory import TENANT, TENANT_AND_APP, TENANT_AND_PERSON
from service.helpdesk import tables as helpdesk
from service.storage.scope import Scope, UnscopedError
from service.storage.statement import Statement

# What they insert has not all that a row needs.
pytestmark = pytest.mark.filterwarnings("ignore:Column 'helpdesk_:sqlalchemy.exc.SAWarning")

COMMENTS, EVENTS, PAUSES = helpdesk.comments, helpdesk.events, helpdesk.pauses
SUBMITTED, CREATED = DESK.c.submitted_by_id == given("person_id"), DESK.c.created_by == given("person_id")
OWN = or_(SUBMITTED, CREATED)
OTHER = DESK.alias("other")
WHOLE = Scope("tenant_id", whole="agents see all of it")


def of_ticket(item: object, *more: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether there is a ticket of the tenant that an event or a comment belongs to."""
    columns = item.c  # type: ignore[attr-defined]
    return exists().where(TENANT_IS, DESK.c.id == columns.ticket_id, DESK.c.tenant_id == columns.tenant_id, *more)


def mine(item: object) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = item.c.tenant_id == given("tenant_id")  # type: ignore[attr-defined]
    return condition


TAKEN: dict[str, tuple[Scope, Build]] = {
    "all of a tenant, with the reason": (WHOLE, lambda: select(DESK).where(TENANT_IS)),
    "what a person submitted": (TENANT_AND_PERSON, lambda: select(DESK).where(TENANT_IS, SUBMITTED)),
    "what a person created": (TENANT_AND_PERSON, lambda: select(DESK).where(TENANT_IS, CREATED)),
    "either": (TENANT_AND_PERSON, lambda: select(DESK).where(TENANT_IS, OWN)),
    "either, turned around": (
        TENANT_AND_PERSON,
        lambda: select(DESK).where(and_(or_(given("person_id") == DESK.c.created_by, SUBMITTED), TENANT_IS)),
    ),
    "both halves of a union": (
        TENANT_AND_PERSON,
        lambda: select(
            union_all(
                select(DESK.c.id).where(TENANT_IS, SUBMITTED).limit(1), select(DESK.c.id).where(TENANT_IS, CREATED)
            ).subquery()
        ),
    ),
    "events of own tickets": (TENANT_AND_PERSON, lambda: select(EVENTS).where(mine(EVENTS), of_ticket(EVENTS, OWN))),
    "events of an application": (
        TENANT_AND_APP,
        lambda: select(EVENTS).where(mine(EVENTS), EVENTS.c.app_id == given("app_id")),
    ),
    "comments of a ticket that is found": (
        TENANT_AND_PERSON,
        lambda: (
            select(COMMENTS)
            .join(DESK, and_(DESK.c.tenant_id == COMMENTS.c.tenant_id, DESK.c.id == COMMENTS.c.ticket_id))
            .where(TENANT_IS, OWN)
        ),
    ),
    "what is written about a ticket that is found": (
        TENANT_AND_PERSON,
        lambda: insert(PAUSES).from_select(
            ["tenant_id", "ticket_id"], select(DESK.c.tenant_id, DESK.c.id).where(TENANT_IS, OWN)
        ),
    ),
    "policies, which all share": (
        TENANT,
        lambda: select(helpdesk.policies).where(helpdesk.policies.c.tenant_id == given("tenant_id")),
    ),
}
REFUSED: dict[str, tuple[Scope, Build]] = {
    "all of a tenant, without a reason": (TENANT, lambda: select(DESK).where(TENANT_IS)),
    "its comments": (TENANT, lambda: select(COMMENTS).where(mine(COMMENTS))),
    "its events": (TENANT, lambda: select(EVENTS).where(mine(EVENTS))),
    "what is written about any ticket": (
        TENANT,
        lambda: insert(PAUSES).values(tenant_id=given("tenant_id"), ticket_id=given("id")),
    ),
    "a person's without the person": (TENANT_AND_PERSON, lambda: select(DESK).where(TENANT_IS)),
    "a person's without the tenant": (TENANT_AND_PERSON, lambda: select(DESK).where(OWN)),
    "another column of a person": (
        TENANT_AND_PERSON,
        lambda: select(DESK).where(TENANT_IS, DESK.c.assigned_to_id == given("person_id")),
    ),
    "either, or another column": (
        TENANT_AND_PERSON,
        lambda: select(DESK).where(TENANT_IS, or_(SUBMITTED, DESK.c.assigned_to_id == given("person_id"))),
    ),
    "either, or always": (TENANT_AND_PERSON, lambda: select(DESK).where(TENANT_IS, or_(SUBMITTED, CREATED, true()))),
    "either, or a state": (
        TENANT_AND_PERSON,
        lambda: select(DESK).where(TENANT_IS, or_(SUBMITTED, DESK.c.status == "open")),
    ),
    "either of another parameter": (
        TENANT_AND_PERSON,
        lambda: select(DESK).where(TENANT_IS, or_(SUBMITTED, DESK.c.created_by == given("actor"))),
    ),
    "either of a value of its own": (
        TENANT_AND_PERSON,
        lambda: select(DESK).where(
            TENANT_IS, or_(SUBMITTED, DESK.c.created_by == bindparam("person_id", "per_1", type_=Text))
        ),
    ),
    "neither": (TENANT_AND_PERSON, lambda: select(DESK).where(TENANT_IS, not_(OWN))),
    "the tenant or the person": (TENANT_AND_PERSON, lambda: select(DESK).where(or_(TENANT_IS, SUBMITTED))),
    "each in another row": (
        TENANT_AND_PERSON,
        lambda: select(DESK.c.id).where(
            TENANT_IS, OTHER.c.tenant_id == DESK.c.tenant_id, or_(SUBMITTED, OTHER.c.created_by == given("person_id"))
        ),
    ),
    "one half of a union": (
        TENANT_AND_PERSON,
        lambda: select(
            union_all(select(DESK.c.id).where(TENANT_IS, SUBMITTED), select(DESK.c.id).where(TENANT_IS)).subquery()
        ),
    ),
    "an application's without it": (TENANT_AND_APP, lambda: select(DESK).where(TENANT_IS, OWN)),
    "events of all tickets": (TENANT_AND_PERSON, lambda: select(EVENTS).where(mine(EVENTS), of_ticket(EVENTS))),
    "events by their actor": (
        TENANT_AND_PERSON,
        lambda: select(EVENTS).where(mine(EVENTS), EVENTS.c.actor == given("person_id")),
    ),
    "comments of a ticket that is named": (
        TENANT_AND_PERSON,
        lambda: select(COMMENTS).where(mine(COMMENTS), COMMENTS.c.ticket_id == given("id")),
    ),
    "what is written about a ticket that is named": (
        TENANT_AND_PERSON,
        lambda: insert(PAUSES).values(tenant_id=given("tenant_id"), ticket_id=given("id")),
    ),
    "a change of any ticket": (TENANT_AND_PERSON, lambda: update(DESK).where(TENANT_IS).values(title="")),
    "how many there are": (
        TENANT_AND_PERSON,
        lambda: select(func.count()).select_from(DESK).where(TENANT_IS),
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_statement_says_whose_it_is_about(name: str) -> None:
    scope, build = TAKEN[name]
    assert Statement(build(), scope=scope).scope is scope


@pytest.mark.parametrize("name", REFUSED)
def test_a_statement_that_does_not_is_refused(name: str) -> None:
    scope, build = REFUSED[name]
    clause = build()
    with pytest.raises(UnscopedError):
        Statement(clause, scope=scope)
