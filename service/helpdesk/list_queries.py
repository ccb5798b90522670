"""The statement of the lists of tickets: filters, search, orders and pages.

A list without filters, and one with a filter that has an index in its order, walks that index. Of any other the nearest
rows are looked at first (nearest.py).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    Subquery,
    Text,
    and_,
    any_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from service import nearest
from service.helpdesk import tables
from service.helpdesk.queries import CREATED, SUBMITTED, found_by, scope_of
from service.storage.built import built
from service.storage.conditions import Condition, conditions, filled, slot
from service.storage.statement import Statement, mine

tickets = tables.tickets


class _Order(NamedTuple):
    """What a list is sorted by; among equals by the id, in the same direction."""

    key: ColumnElement[Any]
    descending: bool

    def of(self, *columns: ColumnElement[Any]) -> Sequence[ColumnElement[Any]]:
        """The columns in the direction of the order."""
        return [column.desc() if self.descending else column.asc() for column in columns]

    def after(self) -> ColumnElement[bool]:
        """The condition of rows after a position: the parameters `after_key` and `after_id`."""
        last = tuple_(bindparam("after_key", type_=self.key.type), bindparam("after_id", type_=tickets.c.id.type))
        position = tuple_(self.key, tickets.c.id)
        return position < last if self.descending else position > last


_ORDERS: Mapping[str, _Order] = {
    "-created_at": _Order(tickets.c.created_at, descending=True),
    "created_at": _Order(tickets.c.created_at, descending=False),
    "-updated_at": _Order(tickets.c.updated_at, descending=True),
    # Tickets without a due instant come last.
    "due_at": _Order(tables.DUE, descending=False),
    "-priority": _Order(tables.RANK, descending=True),
}


def _any_of(name: str, filter_: str = "") -> Mapping[str, ColumnElement[bool]]:
    """The conditions for one value and for any of several: only for one value does an index keep the order."""
    column, filter_ = tickets.c[name], filter_ or name
    return {
        filter_: column == bindparam(filter_, type_=column.type),
        f"any_{filter_}": column == any_(bindparam(f"any_{filter_}", type_=ARRAY(column.type))),
    }


_DUE_WHILE_PAUSED = exists().where(
    *mine(tables.pauses),
    tables.pauses.c.ticket_id == tickets.c.id,
    tables.pauses.c.started_at < tickets.c.due_at,
    tables.pauses.c.ended_at > tickets.c.due_at,
)

_ROWS = bindparam("rows", type_=Integer)
_TERMS = bindparam("terms", type_=TSQUERY)
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    **_any_of("status"),
    **_any_of("type"),
    **_any_of("priority"),
    **_any_of("category"),
    **_any_of("assigned_to_id"),
    **_any_of("team_id"),
    **_any_of("submitted_by_id"),
    **_any_of("related_asset_id"),
    **_any_of("related_vulnerability_id"),
    **_any_of("sla_policy"),
    **_any_of("source"),
    **_any_of("number"),
    # (`app_id` is the caller's.)
    **_any_of("app_id", "of_app_id"),
    "unassigned": tickets.c.assigned_to_id.is_(None),
    "any_or_unassigned": or_(
        tickets.c.assigned_to_id.is_(None),
        tickets.c.assigned_to_id == any_(bindparam("any_or_unassigned", type_=ARRAY(Text))),
    ),
    "tag": literal_column("'#'", Text) + bindparam("tag", type_=Text) == any_(tickets.c.tag_terms),
    "terms": tickets.c.search_terms.op("@@")(_TERMS),
    "created_after": tickets.c.created_at >= bindparam("created_after", type_=tickets.c.created_at.type),
    "created_before": tickets.c.created_at < bindparam("created_before", type_=tickets.c.created_at.type),
    "updated_since": tickets.c.updated_at >= bindparam("updated_since", type_=tickets.c.updated_at.type),
    "unresolved": tables.IS_UNRESOLVED,
    # (And unresolved.)
    "overdue": and_(
        func.now() > tables.DUE,
        # While a ticket is pending the clocks of its SLA stand still. What a caller gave does not move on after that.
        or_(tickets.c.paused_at.is_(None), tickets.c.due_at <= tickets.c.paused_at),
        ~and_(tickets.c.due_at_given, _DUE_WHILE_PAUSED),
    ),
}


# The filters that one index has together: the parameter `facets` (index_terms.py).
_FACETS = frozenset({"tag", *tables.FACETS, *(f"any_{name}" for name in tables.FACETS)})
_HAS_FACETS = tables.FACET_TERMS.op("@@")(bindparam("facets", type_=TSQUERY))
_HAS_RANK = tables.rank(bindparam("priority", type_=Text)) == tables.RANK
_CONDITIONS = conditions(
    {**_FILTERS, "priority": _HAS_RANK, "facets": _HAS_FACETS},
    select(tickets.c.id).where(*mine(tickets)),
    scope_of(frozenset({"tenant_id"})),
)

_NEWEST = ("-created_at", "created_at")
# For each sort, the filters by time that its index has too.
_BETWEEN = {**dict.fromkeys(_NEWEST, frozenset({"created_after", "created_before"})), "-updated_at": {"updated_since"}}
_RELATED = ("related_asset_id", "related_vulnerability_id", "submitted_by_id", "assigned_to_id", "team_id")
# For each sort, the filters of which one may be in its index: the first that is given.
_ONE_OF: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(_NEWEST, (*_RELATED, "of_app_id", "unresolved")),
    "-updated_at": ("submitted_by_id", "of_app_id"),
    "due_at": ("of_app_id", "unresolved"),
    "-priority": ("priority", "of_app_id", "unresolved"),
}
# The sorts without an index of a person's own tickets, which are so few that they are sorted.
_NOT_OF_PERSONS = frozenset({"due_at", "-priority"})
# The filters that match so few tickets that PostgreSQL always begins with their index.
_UNIQUE = frozenset({"number", "any_number"})


def _ordered(by: frozenset[str], filters: frozenset[str], sort: str) -> frozenset[str]:
    """The filters that an index has in the order of a list."""
    if filters & _UNIQUE:
        return filters
    of_tenant = _ONE_OF[sort] if by == {"tenant_id"} else ()
    return frozenset(filters & {*_BETWEEN.get(sort, ())}) | {*[name for name in of_tenant if name in filters][:1]}


def _indexed(filters: frozenset[str]) -> frozenset[str]:
    """The conditions that say the same in the words of indexes that are in another order than the list."""
    # Of several words the statement asks itself.
    found = filters - _FACETS - ({"terms"} if "words" in filters else set())
    return found | {"facets"} if filters & _FACETS else found


def _all_of(names: frozenset[str]) -> Sequence[Condition]:
    return [_CONDITIONS[name] for name in sorted(names - {"words"})]


def _numbered(by: frozenset[str]) -> nearest.Numbered | None:
    """The numbers of a whole tenant: of an application or a person few are the caller's."""
    last = select(func.max(tickets.c.number)).where(*mine(tickets)).correlate(None).scalar_subquery()
    return nearest.Numbered(tickets.c.number, last) if by == {"tenant_id"} else None


class _Page(NamedTuple):
    """A page of a list: whose tickets, in which order, and which of them."""

    by: frozenset[str]
    order: _Order
    # Conditions that an index has in this order; and whether there are others, among them a search for several words.
    ordered: Sequence[ColumnElement[bool]]
    is_filtered: bool
    has_words: bool
    # A person's own tickets have no index in this order, and are so few that they are sorted.
    is_sorted: bool
    with_deleted: bool

    def select(self, *whose: ColumnElement[bool], name: str = "") -> Select[Any]:
        """Its rows, whole; of those that are the caller's by `whose` too. `name` tells two of one statement apart."""
        mine = (*found_by(self.by - {"person_id"}, with_deleted=self.with_deleted), *whose)
        key = self.order.key.label("sort_key")
        if not self.is_filtered and not self.is_sorted:
            found = select(*tables.SHOWN, key).where(*mine, *self.ordered)
            return found.order_by(*self.order.of(self.order.key, tickets.c.id)).limit(_ROWS)
        keys = self._keys(select(key, tickets.c.id).where(*mine, *self.ordered), name)
        whole = select(*tables.SHOWN, keys.c.sort_key).join(keys, keys.c.id == tickets.c.id).where(*mine)
        return whole.order_by(*self.order.of(keys.c.sort_key, tickets.c.id)).limit(_ROWS)

    def _keys(self, base: Select[Any], name: str) -> Subquery:
        if not self.is_sorted:
            return self._nearest(base, name)
        newest = _ORDERS["-created_at"].of(tickets.c.created_at, tickets.c.id)
        wanted, or_many = [slot("wanted")], partial(self._nearest, name=name)
        return nearest.few_keys(base, self.order.of, wanted=wanted, read=newest, rows=_ROWS, or_many=or_many, name=name)

    def _nearest(self, base: Select[Any], name: str) -> Subquery:
        order = self.order.of
        if not self.is_filtered:
            return base.order_by(*order(*base.selected_columns)).limit(_ROWS).subquery("walked")
        words = nearest.has_words(tickets.c.search_terms, _TERMS, base, order) if self.has_words else ()
        wanted, indexed, numbered = [slot("wanted")], [slot("indexed"), *words], _numbered(self.by)
        return nearest.nearest_keys(
            base, order, wanted=wanted, indexed=indexed, rows=_ROWS, name=name, numbered=numbered
        )


@lru_cache(maxsize=512)
def _list_tickets(
    by: frozenset[str], sort: str, *, after: bool, with_deleted: bool, is_filtered: bool, has_words: bool
) -> Statement:
    """The lists of a sort, with slots for filters."""
    order, is_sorted = _ORDERS[sort], "person_id" in by and sort in _NOT_OF_PERSONS
    ordered = [slot("ordered"), *([order.after()] if after else [])]
    page = _Page(by, order, ordered, is_filtered, has_words, is_sorted, with_deleted)
    if "person_id" in by:
        # Each half from its own index: an OR would read and sort all that the person has.
        halves = page.select(SUBMITTED), page.select(CREATED, tables.FOR_ANOTHER, name="_for_another")
        both = union_all(*halves).subquery("own")
        found = select(both).order_by(*order.of(both.c.sort_key, both.c.id)).limit(_ROWS)
    else:
        found = page.select()
    return Statement(found, scope=scope_of(by), prepared=False, standby=True)


@built(256)
def list_tickets(
    by: frozenset[str],
    filters: frozenset[str],
    sort: str,
    *,
    after: bool,
    with_deleted: bool = False,
    short: bool = False,
) -> Statement:
    """`rows` tickets in order, from the first one or, with `after`, after a position; each with its `sort_key`.

    Beside `filters` of callers there are `unresolved`, which others imply, and `words`, of a search for several. A
    `short` one has few rows.
    """
    ordered = _ordered(by, filters, sort)
    others = filters - ordered
    template = _list_tickets(
        by, sort, after=after, with_deleted=with_deleted, is_filtered=bool(others), has_words="words" in others
    )
    # With filters the best plan depends on their values, and a person's on whether they have created any for others.
    prepared = not filters and "person_id" not in by
    slots = {"ordered": _all_of(ordered), "wanted": _all_of(others), "indexed": _all_of(_indexed(others))}
    return filled(template, slots, prepared=prepared, short=short and prepared)
