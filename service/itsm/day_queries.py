"""The SQL of totals by the day of creation: a total between two instants, and where in a list a deep page begins.

They are merged with the totals (total_queries.py), of the same changes. A process of the version before writes changes
without a day, and merges days away. Both are detected: by a change that has no day, and by a row of totals that was
written by another transaction than the last one that merged days. So is a restored table, whose rows are all of one new
transaction. Until the days of such an account have been recounted, its lists by date count their matches.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    Integer,
    Select,
    Subquery,
    Text,
    and_,
    between,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal_column,
    not_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from service.directory import ACCOUNT
from service.itsm import tables
from service.itsm.total_queries import UNMERGED, day_of, is_as_of_days
from service.storage.database import Xid8
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, mine, parameter

_tickets, _changes, _totals = tables.tickets, tables.total_changes, tables.totals
_days, _recounts = tables.day_totals, tables.day_recounts
_ALL = EVERYONE("the background counts the days of all accounts")
_day = day_of(_tickets).label("day")

# Whether the totals by day of an account are reliable.
ARE_TRUE = and_(
    not_(exists().where(*mine(_totals), is_as_of_days().is_not(True))),
    not_(exists().where(*mine(_recounts))),
    not_(exists().where(*mine(_changes), UNMERGED, _changes.c.day.is_(None))),
)


def total(filters: frozenset[str], counted: Select[Any]) -> Select[Any]:
    """How many tickets there are between two instants (days.py), of all or of one status.

    It is `counted` while the days are not to be relied on.
    """
    cells = _cells(filters)
    within = [cells.c.day >= _of("start", "day", Date)] if "start_date" in filters else []
    within += [cells.c.day < _of("end", "day", Date)] if "end_date" in filters else []
    summed: ColumnElement[Any] = (
        select(func.coalesce(func.sum(cells.c.tickets), literal_column("0"))).where(*within).scalar_subquery()
    )
    if "start_date" in filters:
        summed = summed - _beside("start", filters)
    if "end_date" in filters:
        summed = summed + _beside("end", filters)
    return select(cast(case((ARE_TRUE, summed), else_=counted.scalar_subquery()), BigInteger).label("total"))


def start_of_page(filters: frozenset[str]) -> Select[Any]:
    """Where to look for the page behind `offset` tickets: before which instant, and how many newer ones that skips.

    No row where a walk from the end of the range is as good, or where the days are not to be relied on.
    """
    cells = _cells(filters)
    skipped = func.sum(func.sum(cells.c.tickets)).over(order_by=cells.c.day.desc()) - func.sum(cells.c.tickets)
    newer = select(cells.c.day, skipped.label("skipped")).group_by(cells.c.day)
    if "end_date" in filters:
        newer = newer.where(cells.c.day < _of("end", "day", Date))
    days = newer.subquery("newer")
    between_end = _beside("end", filters) if "end_date" in filters else literal_column("0")
    all_skipped = cast(days.c.skipped + between_end, BigInteger)
    return (
        select(
            _midnight(days.c.day + literal_column("1")).label("before"),
            all_skipped.label("skipped"),
        )
        .where(ARE_TRUE, between(all_skipped, literal_column("0"), bindparam("offset", type_=BigInteger)))
        .order_by(all_skipped.desc())
        .limit(literal_column("1"))
    )


def _cells(filters: frozenset[str]) -> Subquery:
    """Tickets by day: what is merged, and what is appended since."""
    tables_ = ((_days, _days.c.total), (_changes, _changes.c.change))
    parts = [select(table.c.day, tickets.label("tickets")).where(*mine(table)) for table, tickets in tables_]
    parts[1] = parts[1].where(UNMERGED)
    if "status" in filters:
        status = bindparam("status", type_=Text)
        parts = [part.where(table.c.status == status) for part, (table, _) in zip(parts, tables_, strict=True)]
    return union_all(*parts).subquery("cells")


def _of(end: str, field: str, type_: Any) -> ColumnElement[Any]:
    return bindparam(f"{end}_{field}", type_=type_)


def _beside(end: str, filters: frozenset[str]) -> ColumnElement[int]:
    """How many tickets lie between the midnight of an end and the end, negative where the end is first."""
    return select(_counted_beside(end, has_status="status" in filters).c.tickets).scalar_subquery()


@lru_cache(maxsize=4)  # one expression, so that a statement which needs it twice counts once
def _counted_beside(end: str, *, has_status: bool) -> CTE:
    since, until = (_of(end, field, _tickets.c.created_at.type) for field in ("since", "until"))
    within = [*mine(_tickets), _tickets.c.created_at >= since, _tickets.c.created_at < until]
    if has_status:
        within.append(_tickets.c.status == bindparam("status", type_=Text))
    return select((_of(end, "sign", Integer) * func.count()).label("tickets")).where(*within).cte(f"beside_{end}")


def _queue_recounts() -> Statement:
    """The statement that has days counted anew where they are not to be relied on; from then on no merge loses any."""
    stale = (
        select(_totals.c.account_id, _totals.c.live, _totals.c.status)
        .where(is_as_of_days().is_not(True))
        .limit(literal_column("1000"))
        .with_for_update(skip_locked=True)
    ).cte("stale")
    marked = (
        update(_totals)
        .where(*(_totals.c[column.name] == column for column in stale.c))
        .values(days_as_of=func.pg_current_xact_id(type_=Xid8()))
    ).cte("marked")
    all_days = select(stale.c.account_id, stale.c.live, literal_column("'9999-12-31'::date")).distinct()
    into = upsert(_recounts).from_select(["account_id", "live", "before"], all_days)
    return Statement(
        into.on_conflict_do_update(index_elements=["account_id", "live"], set_={"before": into.excluded.before})
        .returning(_recounts.c.account_id)
        .add_cte(marked),
        scope=_ALL,
    )


QUEUE_RECOUNTS = _queue_recounts()
# The next recount, locked: the next statement of the transaction then sees all that other processes have counted of it.
NEXT_RECOUNT = Statement(
    select(_recounts).limit(literal_column("1")).with_for_update(skip_locked=True),
    scope=_ALL,
)


def _recount() -> Statement:
    """The statement that counts some more days of an account, of about `rows` tickets, back from before `before`.

    A process without totals by day merged changes without their day: as many as a day has tickets beyond its merged and
    appended totals. Writes and merges at the same moment change both alike, so nothing has to wait for a recount.
    """
    before = parameter(_recounts.c.before)
    rest = _tickets.c.created_at < _midnight(before)
    first = (
        select(_day)
        .where(*mine(_tickets), rest)
        .order_by(_tickets.c.created_at.desc(), _tickets.c.id.desc())
        .offset(bindparam("rows", type_=Integer))
        .limit(literal_column("1"))
    ).cte("first")
    is_last = not_(exists(select(first.c.day)))
    since = func.coalesce(select(first.c.day).scalar_subquery(), literal_column("'-infinity'::date"))
    names = ("account_id", "live", "day", "status")
    parts = [
        select(_tickets.c.account_id, _tickets.c.live, _day, _tickets.c.status, func.count().label("n"))
        .where(*mine(_tickets), rest, _tickets.c.created_at >= _midnight(since))
        .group_by(_tickets.c.account_id, _tickets.c.live, _day, _tickets.c.status)
    ]
    for table, number in ((_days, _days.c.total), (_changes, cast(_changes.c.change, BigInteger))):
        within = (*mine(table), table.c.day >= since, table.c.day < before)
        parts.append(select(*(table.c[name] for name in names), -number).where(*within))
    cells = union_all(*parts).subquery("cells")
    cell = [cells.c[name] for name in names]
    missing = select(*cell, func.sum(cells.c.n)).group_by(*cell).having(func.sum(cells.c.n) != literal_column("0"))
    into = upsert(_days).from_select([*names, "total"], missing.order_by(*cell))
    counted = into.on_conflict_do_update(
        index_elements=list(names), set_={"total": _days.c.total + into.excluded.total}
    ).cte("counted")
    moved = update(_recounts).where(*mine(_recounts), not_(is_last)).values(before=since).cte("moved")
    done = delete(_recounts).where(*mine(_recounts), is_last).cte("done")
    return Statement(select(is_last.label("is_last")).add_cte(counted, moved, done), scope=ACCOUNT)


def _midnight(day: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.timezone(literal_column("'UTC'"), cast(day, DateTime))


RECOUNT = _recount()
