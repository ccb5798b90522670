"""Every SQL statement of the ITSM API, each within one account and mode."""

from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
    Text,
    Uuid,
    bindparam,
    func,
    insert,
    select,
    true,
    update,
)

from service import events, idempotency
from service.database import Statement
from service.itsm import tables

tickets = tables.tickets

MINE = (
    tickets.c.account_id == bindparam("account_id", type_=Uuid),
    tickets.c.live == bindparam("live", type_=Boolean),
)
_ONE = (*MINE, tickets.c.id == bindparam("ticket_id", type_=Uuid))

GET = Statement(select(tickets).where(*_ONE))


def _create() -> idempotency.Creation:
    given = {
        name: bindparam(name, type_=tickets.c[name].type)
        for name in (
            "account_id",
            "live",
            "subject",
            "description",
            "status",
            "priority",
            "requester_email",
            "metadata",
        )
    }
    ticket = insert(tickets).values(given).returning(tickets).cte("ticket")
    return idempotency.creation(ticket, events.append(tables.events, ticket, "ticket.created"))


CREATE = _create()


@lru_cache(maxsize=64)  # one statement for each set of members
def update_ticket(changed: frozenset[str]) -> Statement:
    """The statement that changes these members of a ticket and appends the event that tells what changed."""
    # The lock makes the row seen here the row that is changed, so that the event tells the truth.
    before = select(tickets).where(*_ONE).with_for_update().cte("before")
    after = (
        update(tickets)
        .where(*MINE, tickets.c.id == before.c.id)
        .values(
            {name: bindparam(f"new_{name}", type_=tickets.c[name].type) for name in sorted(changed)}
            | {"updated_at": events.next_instant(tickets.c.updated_at), "version": tickets.c.version + 1}
        )
        .returning(tickets)
        .cte("after")
    )
    told = select(
        after,
        events.kind_of_change(before, after).label("kind"),
        events.changes(before, after, sorted(changed)).label("changes"),
    )
    written = told.select_from(after.join(before, after.c.id == before.c.id)).cte("written")
    event = events.append(tables.events, written, written.c.kind, written.c.changes)
    return Statement(select(after).add_cte(event))


@lru_cache(maxsize=8)
def list_tickets(filters: frozenset[str]) -> Statement:
    """A page, newest first, each row with the exact `total`; one row without a ticket when the page is empty."""
    conditions: dict[str, ColumnElement[bool]] = {
        "status": tickets.c.status == bindparam("status", type_=Text),
        "start_date": tickets.c.created_at >= bindparam("start_date", type_=tickets.c.created_at.type),
        "end_date": tickets.c.created_at <= bindparam("end_date", type_=tickets.c.created_at.type),
    }
    wanted = (*MINE, *(conditions[name] for name in sorted(filters)))
    newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
    count = select(func.count().label("total")).where(*wanted).subquery("count")
    page = (
        select(tickets)
        .where(*wanted)
        .order_by(*newest_first)
        .limit(bindparam("limit", type_=Integer))
        .offset(bindparam("offset", type_=BigInteger))
        .subquery("page")
    )
    return Statement(
        select(count.c.total, page)
        .select_from(count.outerjoin(page, true()))
        .order_by(page.c.created_at.desc(), page.c.id.desc())
    )
