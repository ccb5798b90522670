"""Whose rows a statement may touch, as tables and statements declare it.

A table declares how its rows are separated (`scoped_by`, `shared`), and a statement which parameters hold the caller's
own values (`Scope`), or why it is for everyone. `scope_check.py` compares the two.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import FromClause
from sqlalchemy.sql.selectable import AliasedReturnsRows


class UnscopedError(Exception):
    """A statement can touch rows that are not its caller's. Raised when it is built."""


class Scope:
    """The parameters that hold the caller's own values, each named as the kind of column that it binds.

    Where its tables have `narrower` scopes, not everyone in a scope sees all of it. A statement then has a parameter of
    one of those too, or says in `whole` why it may touch the whole scope.
    """

    reason: str | None = None

    def __init__(self, *parameters: str, whole: str = "") -> None:
        self.parameters = frozenset(parameters)
        self.whole = whole

    def with_also(self, *parameters: str) -> "Scope":
        """The same with more of the caller's own values."""
        return Scope(*self.parameters, *parameters, whole=self.whole)


class EVERYONE(Scope):
    """The scope of what touches everybody's rows, as operators and background work do, with the reason why it may."""

    def __init__(self, reason: str) -> None:
        if not reason.strip():
            raise ValueError("A statement for everyone says why")
        super().__init__()
        self.reason = reason


# Columns with their kinds, any one of which suffices.
AnyOf = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Separation:
    """How a table's rows are separated; all are columns with their kinds (`scoped_by`)."""

    scope: Mapping[str, str]
    # Keyed by the parameter of a scope with which they count.
    narrower: Mapping[str, AnyOf]
    or_by: Mapping[str, str]
    gives: Mapping[str, str]
    # Why there is nothing to separate.
    shared: str | None = None

    def needed(self, scope: Scope) -> list[AnyOf]:
        """What must be bound, one column of each, for a row to be the caller's."""
        every = [{name: kind} for name, kind in self.scope.items()]
        return [*every, *(columns for name, columns in self.narrower.items() if name in scope.parameters)]

    def kinds(self, scope: Scope) -> dict[str, str]:
        """What is bound in a row that is the caller's."""
        alone = [columns for columns in self.needed(scope) if len(columns) == 1]
        return {**{name: kind for columns in alone for name, kind in columns.items()}, **self.or_by, **self.gives}

    def bindable(self, scope: Scope) -> dict[str, str]:
        """What counts when it is bound."""
        return {**{name: kind for columns in self.needed(scope) for name, kind in columns.items()}, **self.kinds(scope)}

    def is_whole(self, scope: Scope) -> bool:
        """Whether a scope says whose rows of this table it is about: of a narrower scope, or why of all."""
        return not self.narrower or bool(scope.whole) or not scope.parameters.isdisjoint(self.narrower)


def scoped_by(
    *columns: str,
    narrower: Mapping[str, Iterable[str] | AnyOf] | None = None,
    or_by: Mapping[str, str] | None = None,
    gives: Mapping[str, str] | None = None,
    **renamed: str,
) -> dict[str, Any]:
    """The `info` of a table each row of which belongs to the one caller whose values are in all these columns.

    The kind of a column is its name, or what `renamed` says. `narrower` has for a parameter that a scope may have too
    the columns, any one of which must then be bound: with their kinds, or all of the parameter's. `or_by` are columns,
    with their kinds, each of which suffices: ids that are unique. `gives` are columns, with their kinds, that are the
    caller's when the row is.
    """
    scope = {**{name: name for name in columns}, **renamed}
    narrowed = {
        name: dict(any_of) if isinstance(any_of, Mapping) else dict.fromkeys(any_of, name)
        for name, any_of in (narrower or {}).items()
    }
    return {"scope": Separation(scope, narrowed, or_by or {}, gives or {})}


def shared(reason: str) -> dict[str, Any]:
    """The `info` of a table that has nothing of any one caller, with the reason why."""
    return {"scope": Separation({}, {}, {}, {}, shared=reason)}


def separation(table: FromClause) -> Separation:
    """What a table declares. Raises UnscopedError when it declares nothing."""
    declared = getattr(table, "info", {}).get("scope")
    if not isinstance(declared, Separation):
        raise UnscopedError(f"{table} does not declare how its rows are separated")
    return declared


def source_of(item: Any) -> Any:
    """The table, statement or function behind aliases."""
    while isinstance(item, AliasedReturnsRows):
        item = item.element
    return item
