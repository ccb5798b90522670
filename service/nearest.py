"""The keys of one page of a filtered, ordered list, found with bounded work whatever the filters match.

No index has every filter in every order. PostgreSQL would guess how many rows match, and either walk the order until
the page is full, or read all matches from a filter's index and sort them. Where it guesses wrong it walks everything.
So these statements do not leave it a guess:

1. The first `ROWS` rows of the order are looked at. If enough of them match, they are the page.
2. Otherwise few rows match, or the matches are far away: all matches are read from the filter's index, and sorted.
3. Where rows are numbered, a sample of them first estimates whether to walk on is cheaper than that sort.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Subquery,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    not_,
    select,
    true,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY

# How many rows are looked at, and how many more for each row of the page.
ROWS = 4000
_FOR_EACH = 4
# In how many of them words are counted. A word of all of them is one of a million: PostgreSQL would read them all.
_SAMPLE = 100

# A sample has rows of this many stretches of a scope's numbers, and this many of each.
_STRETCHES, _IN_EACH = 32, 32
# How many rows are walked in the time that it takes to find and sort one hit.
_FOR_EACH_HIT = 2

Order = Callable[..., Sequence[ColumnElement[Any]]]


class Numbered(NamedTuple):
    """What finds rows from all over a scope: the column of their numbers, of an index, and the last number."""

    number: ColumnElement[int]
    last: ColumnElement[int]


def nearest_keys(
    base: Select[Any],
    order: Order,
    *,
    wanted: Sequence[ColumnElement[bool]],
    indexed: Sequence[ColumnElement[bool]],
    rows: ColumnElement[int],
    name: str = "",
    numbered: Numbered | None = None,
) -> Subquery:
    """Up to `rows` rows of `base`, the first by `order` of those that are `wanted`; in no order themselves.

    The columns of `base` are what rows are ordered by, and there is an index of what it selects in that order.
    `indexed` says the same as `wanted` in the words of other indexes. `name` tells two of one statement apart. Rows
    that are `numbered` are walked on where a walk is shorter than a sort.
    """
    near = _look(base, order, wanted, _nearest(rows), rows, name)
    # OFFSET keeps PostgreSQL from a guess at how soon a walk would be at its end.
    hits = base.where(*indexed).offset(literal_column("0", Integer)).subquery("hits")
    if numbered is None:
        return near.or_else(select(_first(hits, order, rows, *near.fails)))
    on = _look(base, order, wanted, _far(base, order, wanted, numbered), rows, f"_on{name}")
    walked = select(on.near).where(*near.fails)
    return near.or_else(walked, select(_first(hits, order, rows, *near.fails, on.is_short)))


def few_keys(
    base: Select[Any],
    order: Order,
    *,
    wanted: Sequence[ColumnElement[bool]],
    read: Sequence[ColumnElement[Any]],
    rows: ColumnElement[int],
    or_many: Callable[[Select[Any]], Subquery],
    name: str = "",
) -> Subquery:
    """As `nearest_keys`, for a `base` that usually has few rows, and no index in this order: all are read, and sorted.

    They are `read` in an order that an index has. `or_many` finds the keys of a base with `ROWS` rows or more.
    """
    most = literal_column(str(ROWS), Integer)
    some = base.add_columns(and_(*wanted, true()).label("is_wanted")).order_by(*read).limit(most).cte(f"some{name}")
    are_many = _count(some).scalar_subquery() >= most
    keys = base.selected_columns.keys()
    of_few = select(*(some.c[key] for key in keys)).where(not_(are_many), some.c.is_wanted)
    few = of_few.order_by(*order(*of_few.selected_columns)).limit(rows).subquery("few")
    return union_all(select(few), select(or_many(base.where(are_many)))).subquery("found")


def counted_keys(
    base: Select[Any],
    order: Order,
    *,
    wanted: Sequence[ColumnElement[bool]],
    indexed: Sequence[ColumnElement[bool]],
    rows: ColumnElement[int],
) -> tuple[Subquery, Select[Any]]:
    """The same, and how many there are: what is sorted is counted then, and not read twice."""
    near = _look(base, order, wanted, _nearest(rows), rows)
    hits = base.where(*indexed).cte("hits")
    counts = (
        (not_(near.is_partial), _count(near.looked_at).where(near.looked_at.c.is_wanted)),
        (near.is_short, _count(hits)),
    )
    # Many hits need not be kept to be counted.
    all_hits = base.with_only_columns(func.count()).where(*indexed).scalar_subquery()
    total = case(*((when, count.scalar_subquery()) for when, count in counts), else_=all_hits)
    return near.or_else(select(_first(hits, order, rows, *near.fails))), select(total.label("total"))


class _Look(NamedTuple):
    """The first rows, those of them that are wanted, whether these do not fill a page, and whether there are more."""

    looked_at: CTE
    near: CTE
    is_short: ColumnElement[bool]
    is_partial: ColumnElement[bool]

    @property
    def fails(self) -> tuple[ColumnElement[bool], ...]:
        """Whether there may be more for the page."""
        return self.is_short, self.is_partial

    def or_else(self, *others: Select[Any]) -> Subquery:
        """The keys near by, and others where these do not fill a page."""
        return union(select(self.near), *others).subquery("found")


def _look(
    base: Select[Any],
    order: Order,
    wanted: Sequence[ColumnElement[bool]],
    most: ColumnElement[int],
    rows: ColumnElement[int],
    name: str = "",
) -> _Look:
    is_wanted = and_(*wanted).label("is_wanted")
    looked_at = base.add_columns(is_wanted).order_by(*order(*base.selected_columns)).limit(most).cte(f"looked_at{name}")
    names = base.selected_columns.keys()
    # Rows come out of a CTE as they went in, and no more of them than are asked for.
    near = select(*(looked_at.c[name] for name in names)).where(looked_at.c.is_wanted).limit(rows).cte(f"near{name}")
    found, seen = (_count(part).scalar_subquery() for part in (near, looked_at))
    return _Look(looked_at, near, found < rows, seen >= most)


def _nearest(rows: ColumnElement[int]) -> ColumnElement[int]:
    return literal_column(str(ROWS), Integer) + rows * literal_column(str(_FOR_EACH), Integer)


def _far(
    base: Select[Any], order: Order, wanted: Sequence[ColumnElement[bool]], numbered: Numbered
) -> ColumnElement[int]:
    """How many rows to walk: 0 unless a sample suggests that to walk to the first match costs less than to sort all."""
    stretch, place = (
        func.generate_series(literal_column("0"), literal_column(str(most - 1)), type_=BigInteger).column_valued(name)
        for name, most in (("stretch", _STRETCHES), ("place", _IN_EACH))
    )
    numbers = select(numbered.last * stretch // literal_column(str(_STRETCHES), BigInteger) + place).scalar_subquery()
    from_all_over = numbered.number == any_(func.array(numbers, type_=ARRAY(BigInteger)))
    nth = func.row_number().over(order_by=order(*base.selected_columns)).label("nth")
    sample = base.with_only_columns(and_(*wanted).label("is_wanted"), nth).where(from_all_over).subquery("sample")
    first, hits = (part.filter(sample.c.is_wanted) for part in (func.min(sample.c.nth), func.count()))
    walk = (
        literal_column("2", BigInteger)
        * first
        * numbered.last
        // literal_column(str(_STRETCHES * _IN_EACH), BigInteger)
    )
    is_worth_it = first <= literal_column(str(_FOR_EACH_HIT)) * hits
    return select(case((is_worth_it, walk), else_=literal_column("0"))).select_from(sample).scalar_subquery()


def _first(hits: FromClause, order: Order, rows: ColumnElement[int], *conditions: ColumnElement[bool]) -> Subquery:
    return select(hits).where(*conditions).order_by(*order(*hits.c)).limit(rows).subquery("far")


def _count(rows: FromClause) -> Select[Any]:
    return select(func.count()).select_from(rows)


def has_words(
    terms: ColumnElement[Any], query: ColumnElement[Any], base: Select[Any], order: Order
) -> tuple[ColumnElement[bool], ...]:
    """The conditions of index terms that have all of a `query`, whose `words` are a parameter (search.py).

    The index is asked for the rarest of them alone: of a common one it would read all that there is. Rare is what the
    nearest rows of `base` seldom have.
    """
    nearest = base.with_only_columns(terms.label("terms")).order_by(*order(*base.selected_columns))
    sample = nearest.limit(literal_column(str(_SAMPLE), Integer)).subquery("sample")
    word = func.unnest(bindparam("words", type_=ARRAY(Text)), type_=Text).column_valued("word")
    hits = select(func.count()).select_from(sample).where(sample.c.terms.op("@@")(cast(word, TSQUERY)))
    counted = select(word, hits.scalar_subquery().label("hits")).subquery("counted")
    least = select(counted, func.min(counted.c.hits).over().label("least")).subquery("least")
    rarest = select(cast(func.string_agg(least.c.word, literal_column("' & '")), TSQUERY)).where(
        least.c.hits <= func.greatest(least.c.least, literal_column("1"))
    )
    # Written as a function call, so that PostgreSQL does not ask the index for it.
    return terms.op("@@")(rarest.scalar_subquery()), func.ts_match_vq(terms, query)
