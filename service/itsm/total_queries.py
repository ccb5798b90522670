"""The SQL of totals: the sum of appended changes, and the merge of those changes.

A merge deletes the changes that it has added up, and PostgreSQL keeps deleted rows until no snapshot can see them and
they are vacuumed. A sum over all changes would read those rows each time. So sums begin at the floor, a number up to
which all changes are merged.

The floor may only rise to a number below which no running transaction has a change. A write has its transaction id,
from its ticket, before it takes the number of its change. So the newest number is noted; once all transactions that had
an id by then have ended, all changes up to that number are visible; and once none of those is left, all are merged.
"""

from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Date,
    FromClause,
    Select,
    SmallInteger,
    Text,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events
from service.itsm import tables
from service.storage.database import Xid8
from service.storage.row_version import Xid, xmin
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, mine, some_rows

_changes, _totals, _floor = tables.total_changes, tables.totals, tables.totals_floor
_days = tables.day_totals
_ALL = EVERYONE("the background merges the totals of all accounts")
MAX_MERGED_ROWS = 10_000


def one_change(ticket: FromClause, status: ColumnElement[str], change: int) -> Select[Any]:
    """The change that one ticket more or less in a status is."""
    return select(ticket.c.account_id, ticket.c.live, status, literal(change, SmallInteger), day_of(ticket))


def day_of(ticket: FromClause) -> ColumnElement[Any]:
    """When a ticket was created, in UTC."""
    return cast(func.timezone(literal_column("'UTC'"), ticket.c.created_at), Date)


def change(changes: Select[Any] | CompoundSelect[Any]) -> CTE:
    """The part of a statement that appends changes."""
    names = ["account_id", "live", "status", "change", "day"]
    return insert(_changes).from_select(names, changes).cte("total_change")


# Changes that are not merged yet have numbers after the floor.
UNMERGED = _changes.c.id > func.coalesce(select(_floor.c.floor).scalar_subquery(), literal_column("0"))


def total(filters: frozenset[str]) -> Select[Any]:
    """How many tickets there are, of all or of one status, without counting them."""
    of_status = [bindparam("status", type_=Text)] if filters else []
    merged = select(func.coalesce(func.sum(_totals.c.total), 0)).where(
        *mine(_totals), *(_totals.c.status == status for status in of_status)
    )
    since = select(func.coalesce(func.sum(_changes.c.change), 0)).where(
        *mine(_changes), UNMERGED, *(_changes.c.status == status for status in of_status)
    )
    return select(cast(merged.scalar_subquery() + since.scalar_subquery(), BigInteger).label("total"))


def _merge() -> Statement:
    """The statement that moves changes of totals, of all accounts, into the totals, and into those by day.

    Readers see a change on one side of the move or the other, never on both. Processes that merge at the same moment
    take different changes, and lock totals in the same order, then days in the same order. Each of its rows has how
    many changes were `merged`.
    """
    gone = delete(_changes).where(some_rows(_changes, MAX_MERGED_ROWS)).returning(_changes).cte("gone")
    scope = (gone.c.account_id, gone.c.live, gone.c.status)
    # None where a change has no day: then this account's totals by day are not reliable any more.
    as_of = case((func.bool_and(gone.c.day.is_not(None)), func.pg_current_xact_id(type_=Xid8())))
    merged = select(*scope, func.sum(gone.c.change), as_of).group_by(*scope).order_by(*scope)
    number = select(func.count()).select_from(gone).scalar_subquery()
    into = upsert(_totals).from_select(["account_id", "live", "status", "total", "days_as_of"], merged)
    # `days_as_of` names the last merge that knew of days. If another transaction has written the row since, that was a
    # process from before migration 0021.
    goes_on = is_as_of_days() & into.excluded.days_as_of.is_not(None)
    return Statement(
        into.on_conflict_do_update(
            index_elements=["account_id", "live", "status"],
            set_={
                "total": _totals.c.total + into.excluded.total,
                "days_as_of": case((goes_on, into.excluded.days_as_of)),
            },
        )
        .returning(_totals.c.total, number.label("merged"))
        .add_cte(_merge_days(gone)),
        scope=_ALL,
    )


def is_as_of_days() -> ColumnElement[bool]:
    """Whether the transaction that wrote a row of totals last has merged the days too."""
    return cast(_totals.c.days_as_of, Xid) == xmin(_totals)


def _merge_days(gone: CTE) -> CTE:
    scope = (gone.c.account_id, gone.c.live, gone.c.day, gone.c.status)
    total = func.sum(gone.c.change)
    # A ticket that went from one status to another and back has changed nothing.
    merged = (
        select(*scope, total)
        .where(gone.c.day.is_not(None))
        .group_by(*scope)
        .having(total != literal_column("0"))
        .order_by(*scope)
    )
    into = upsert(_days).from_select(["account_id", "live", "day", "status", "total"], merged)
    return into.on_conflict_do_update(
        index_elements=["account_id", "live", "day", "status"], set_={"total": _days.c.total + into.excluded.total}
    ).cte("merged_days")


MERGE = _merge()

# The number of the newest change. Read before the floor is raised, as the running transactions must be read after it.
NEWEST = Statement(
    select(
        func.coalesce(
            func.pg_sequence_last_value(literal_column("'itsm_total_changes_id_seq'::regclass")), literal_column("0")
        ).label("newest")
    ),
    scope=_ALL,
)


def _raise_floor() -> Statement:
    """The statement that raises the floor to what was the newest change once, when all up to that are merged.

    Then it notes the `newest` one of now, for the next time. A floor above all numbers is that of another database.
    """
    newest = bindparam("newest", type_=BigInteger)
    left = exists().where(_changes.c.id <= _floor.c.pending)
    is_settled = _floor.c.pending_until <= events.HORIZON
    is_strange = newest < _floor.c.floor
    return Statement(
        update(_floor)
        .where(or_(is_strange, is_settled & not_(left) & (_floor.c.floor < newest)))
        .values(
            floor=case((is_strange, literal_column("0")), else_=_floor.c.pending),
            pending=newest,
            pending_until=events.NEXT_TRANSACTION,
        )
        .returning(_floor.c.floor),
        scope=_ALL,
    )


RAISE_FLOOR = _raise_floor()
