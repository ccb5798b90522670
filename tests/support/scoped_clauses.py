"""Parts of statements that the tests of scopes are made of."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    and_,
    bindparam,
    exists,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

import service.server  # noqa: F401 - every table that there is
from service.directory import project_members
from service.handoff import tables as handoff
from service.helpdesk import tables as helpdesk
from service.itsm import tables as itsm
from service.providers.tables import deliveries, links
from service.storage.scope import Scope

TICKETS = itsm.tickets
OTHER = TICKETS.alias("other")
DESK = helpdesk.tickets
# A tenant, all of whose tickets are meant; less than that is in test_narrower_scope.py.
TENANT = Scope("tenant_id", whole="a test")


def given(name: str) -> ColumnElement[Any]:
    return bindparam(name)


def mine(of: FromClause) -> ColumnElement[bool]:
    return and_(of.c.account_id == given("account_id"), of.c.live == given("live"))


TENANT_IS = DESK.c.tenant_id == given("tenant_id")
CALLER_IS = project_members.c.user_id == given("user_id")
HO = handoff.tickets
MINE = mine(TICKETS)
others = project_members.alias("others")


def updated_by_id() -> Any:
    bound = select(TICKETS.c.id, TICKETS.c.account_id).where(MINE).cte("bound")
    return update(TICKETS).where(TICKETS.c.id == bound.c.id).values(subject="")


def is_member() -> ColumnElement[bool]:
    return exists().where(CALLER_IS, project_members.c.project_id == HO.c.project_id)


def linked_by(subquery: FromClause) -> Any:
    return select(links).join(subquery, links.c.account_id == subquery.c.account_id)


def upsert_pause(elements: list[str], set_: dict[str, Any]) -> Any:
    new = upsert(helpdesk.pauses).values(tenant_id=given("tenant_id"), ticket_id=given("id"))
    return new.on_conflict_do_update(index_elements=elements, set_=set_)


def deliveries_of(ticket: FromClause) -> Any:
    return select(deliveries).where(deliveries.c.ticket_id == ticket.c.ticket_id)


def ticket_id() -> FromClause:
    return select(TICKETS.c.id.label("ticket_id")).where(MINE).subquery("of_ticket")


def recursive() -> Any:
    first = select(TICKETS.c.account_id, TICKETS.c.live, TICKETS.c.id).where(MINE).cte(recursive=True)
    more = select(OTHER.c.account_id, OTHER.c.live, OTHER.c.id).where(
        OTHER.c.account_id == first.c.account_id, OTHER.c.live == first.c.live
    )
    return select(first.union_all(more))


Build = Callable[[], Any]
