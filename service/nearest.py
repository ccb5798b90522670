"""The keys of a page of a list, with little work whatever its filters hit.

No index has every filter in every order. PostgreSQL would guess how much is hit, and either walk the order until the
page is full, or take all that is hit from a filter's index and sort it. Where it guesses wrong it walks everything. So
it does not guess: the nearest rows of the order are looked at, and where much is hit these fill the page. Where they do
not, little is hit, and all of that is sorted.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Subquery,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    not_,
    select,
    union,
)
from sqlalchemy.dialects.postgresql import TSQUERY

# How many rows are looked at, and how many more for each row of the page.
ROWS = 4000
_FOR_EACH = 4
# In how many of them words are counted. A word of all of them is one of a million: PostgreSQL would read them all.
_SAMPLE = 100

Order = Callable[..., Sequence[ColumnElement[Any]]]


def nearest_keys(
    base: Select[Any],
    order: Order,
    *,
    wanted: Sequence[ColumnElement[bool]],
    indexed: Sequence[ColumnElement[bool]],
    rows: ColumnElement[int],
    name: str = "",
) -> Subquery:
    """Up to `rows` rows of `base`, the first by `order` of those that are `wanted`; in no order themselves.

    The columns of `base` are what rows are ordered by, and there is an index of what it selects in that order.
    `indexed` says the same as `wanted` in the words of other indexes. `name` tells two of one statement apart.
    """
    look = _look(base, order, wanted, rows, name)
    # OFFSET keeps PostgreSQL from a guess at how soon a walk would be at its end.
    hits = base.where(*indexed).offset(literal_column("0", Integer)).subquery("hits")
    return look.or_else(hits, order, rows)


def counted_keys(
    base: Select[Any],
    order: Order,
    *,
    wanted: Sequence[ColumnElement[bool]],
    indexed: Sequence[ColumnElement[bool]],
    rows: ColumnElement[int],
) -> tuple[Subquery, Select[Any]]:
    """The same, and how many there are: what is sorted is counted then, and not read twice."""
    look = _look(base, order, wanted, rows)
    hits = base.where(*indexed).cte("hits")
    counts = (
        (not_(look.is_partial), _count(look.looked_at).where(look.looked_at.c.is_wanted)),
        (look.is_short, _count(hits)),
    )
    # Many hits need not be kept to be counted.
    all_hits = base.with_only_columns(func.count()).where(*indexed).scalar_subquery()
    total = case(*((when, count.scalar_subquery()) for when, count in counts), else_=all_hits)
    return look.or_else(hits, order, rows), select(total.label("total"))


class _Look(NamedTuple):
    """The nearest rows, those of them that are wanted, whether these do not fill a page, and whether there are more."""

    looked_at: CTE
    near: CTE
    is_short: ColumnElement[bool]
    is_partial: ColumnElement[bool]

    def or_else(self, hits: FromClause, order: Order, rows: ColumnElement[int]) -> Subquery:
        """The keys near by and, where they do not fill a page, the first of all hits."""
        far = select(hits).where(self.is_short, self.is_partial).order_by(*order(*hits.c)).limit(rows).subquery("far")
        return union(select(self.near), select(far)).subquery("found")


def _look(
    base: Select[Any], order: Order, wanted: Sequence[ColumnElement[bool]], rows: ColumnElement[int], name: str = ""
) -> _Look:
    most = literal_column(str(ROWS), Integer) + rows * literal_column(str(_FOR_EACH), Integer)
    is_wanted = and_(*wanted).label("is_wanted")
    looked_at = base.add_columns(is_wanted).order_by(*order(*base.selected_columns)).limit(most).cte(f"looked_at{name}")
    names = base.selected_columns.keys()
    # Rows come out of a CTE as they went in, and no more of them than are asked for.
    near = select(*(looked_at.c[name] for name in names)).where(looked_at.c.is_wanted).limit(rows).cte(f"near{name}")
    found, seen = (_count(part).scalar_subquery() for part in (near, looked_at))
    return _Look(looked_at, near, found < rows, seen >= most)


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
    # As a function no index is asked for it.
    return terms.op("@@")(rarest.scalar_subquery()), func.ts_match_vq(terms, query)
