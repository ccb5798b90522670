"""Every SQL statement of the ITSM API, each within one account and mode."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Integer,
    Select,
    SmallInteger,
    Table,
    Text,
    Uuid,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events, idempotency
from service.itsm import tables
from service.itsm.commands import NewTicket
from service.statement import Statement, some_rows

tickets = tables.tickets


def _mine(table: Table) -> tuple[ColumnElement[bool], ...]:
    return (
        table.c.account_id == bindparam("account_id", type_=Uuid),
        table.c.live == bindparam("live", type_=Boolean),
    )


MINE = _mine(tickets)
_ONE = (*MINE, tickets.c.id == bindparam("ticket_id", type_=Uuid))

GET = Statement(select(tickets).where(*_ONE))


def _create() -> idempotency.Creation:
    names = ("account_id", "live", "id", *NewTicket.model_fields)
    given = {name: bindparam(name, type_=tickets.c[name].type) for name in names}
    ticket = insert(tickets).values(given).returning(tickets).cte("ticket")
    one_more = _change_totals(_total_change(ticket, ticket.c.status, +1))
    return idempotency.creation(ticket, events.append(tables.events, ticket, "ticket.created"), one_more)


def _total_change(ticket: FromClause, status: ColumnElement[str], change: int) -> Select[Any]:
    return select(ticket.c.account_id, ticket.c.live, status, literal(change, SmallInteger))


def _change_totals(changes: Select[Any] | CompoundSelect[Any]) -> CTE:
    names = ["account_id", "live", "status", "change"]
    return insert(tables.total_changes).from_select(names, changes).cte("total_change")


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
            | {"updated_at": events.next_instant(tickets.c.updated_at)}
            | events.next_version(tickets)
        )
        .returning(tickets)
        .cte("after")
    )
    told = select(
        after,
        before.c.status.label("old_status"),
        events.kind_of_change(before, after).label("kind"),
        events.changes(before, after, sorted(changed)).label("changes"),
    )
    written = told.select_from(after.join(before, after.c.id == before.c.id)).cte("written")
    others = [events.append(tables.events, written, written.c.kind, written.c.changes)]
    if "status" in changed:
        moved = written.c.old_status != written.c.status
        others.append(
            _change_totals(
                union_all(
                    _total_change(written, written.c.old_status, -1).where(moved),
                    _total_change(written, written.c.status, +1).where(moved),
                )
            )
        )
    return Statement(select(after).add_cte(*others))


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
    count = _total(filters) if filters <= {"status"} else select(func.count().label("total")).where(*wanted)
    counted = count.subquery("counted")
    page = (
        select(tickets)
        .where(*wanted)
        .order_by(*newest_first)
        .limit(bindparam("limit", type_=Integer))
        .offset(bindparam("offset", type_=BigInteger))
        .subquery("page")
    )
    return Statement(
        select(counted.c.total, page)
        .select_from(counted.outerjoin(page, true()))
        .order_by(page.c.created_at.desc(), page.c.id.desc())
    )


def _total(filters: frozenset[str]) -> Select[Any]:
    """How many tickets there are, of all or of one status, without counting them."""
    parts = [
        select(func.coalesce(func.sum(number), 0))
        .where(*_mine(number.table), *([number.table.c.status == bindparam("status", type_=Text)] if filters else []))
        .scalar_subquery()
        for number in (tables.totals.c.total, tables.total_changes.c.change)
    ]
    return select(cast(parts[0] + parts[1], BigInteger).label("total"))


def _merge_totals() -> Statement:
    """The statement that moves changes of totals, of all accounts, into the totals.

    Readers see a change on one side of the move or the other, never on both. Processes that merge at the same moment
    take different changes, and lock totals in the same order.
    """
    changes, totals = tables.total_changes, tables.totals
    gone = delete(changes).where(some_rows(changes, _MERGED_AT_ONCE)).returning(changes).cte("gone")
    scope = (gone.c.account_id, gone.c.live, gone.c.status)
    merged = select(*scope, func.sum(gone.c.change)).group_by(*scope).order_by(*scope)
    into = upsert(totals).from_select(["account_id", "live", "status", "total"], merged)
    return Statement(
        into.on_conflict_do_update(
            index_elements=["account_id", "live", "status"], set_={"total": totals.c.total + into.excluded.total}
        ).returning(totals.c.total)
    )


_MERGED_AT_ONCE = 10_000
MERGE_TOTALS = _merge_totals()
