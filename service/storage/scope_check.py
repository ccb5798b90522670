"""Rejects, when it is built, a statement that can touch rows outside its scope.

Every SELECT, INSERT, UPDATE and DELETE of it, in CTEs and subqueries too, must bind each of its tables: the AND-ed
conditions of WHERE and of joins make every scope column equal to a parameter of the scope, or to a column that is bound
itself. A NOT, a function or a literal binds nothing, nor does an OR, unless it is between the columns any one of which
suffices; and the ON of an outer join binds only the side that may be missing. Columns have a kind (`account_id`,
`project_id`): only what is of the same kind binds.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ColumnClause,
    ColumnElement,
    CompoundSelect,
    Delete,
    Exists,
    FromClause,
    Insert,
    Join,
    Label,
    Lateral,
    ScalarSelect,
    Select,
    Table,
    TextClause,
    Update,
)
from sqlalchemy.dialects.postgresql.dml import OnConflictDoUpdate
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, SelectStatementGrouping, Values

from service.storage.scope import Scope, UnscopedError, separation, source_of

# The columns that can only have the caller's values, by table (or alias, or subquery) and name; each with its kind.
Bound = dict[tuple[FromClause, str], str]
# The kinds of a result's columns, in order; None for those that are not bound.
Kinds = Sequence[str | None]
# The tables to whose rows a condition applies; None for all, those of enclosing statements too.
Reach = frozenset[FromClause] | None


def check(clause: Any, scope: Scope, sql: str) -> None:
    """Refuse a clause, compiled as `sql`, that can touch rows outside the scope. Raises UnscopedError."""
    if scope.reason is None:
        checker = _Checker(scope)
        checker.check(clause, _Around())
        # However a SELECT came in that is not walked here.
        if len(re.findall(r"\bSELECT\b", sql)) > checker.selects:
            raise UnscopedError(f"A part of the statement cannot be checked: {sql}")


class _Around(NamedTuple):
    """What encloses a statement: the tables it may refer to, by `correlate` and of itself, and what is bound there."""

    explicit: frozenset[FromClause] = frozenset()
    implicit: frozenset[FromClause] = frozenset()
    bound: Mapping[tuple[FromClause, str], str] = {}


class _Block(NamedTuple):
    """One SELECT, INSERT, UPDATE or DELETE: what it reads or changes, what is bound in it, and what encloses it."""

    items: frozenset[FromClause]
    bound: Bound
    around: _Around

    def inner(self, item: FromClause | None = None) -> _Around:
        """What encloses a subquery: one in an expression, or the one that is an `item` of FROM."""
        if item is None or isinstance(item, Lateral):
            return _Around(self.items | self.around.explicit, self.items, self.bound)
        return _Around(self.around.explicit - self.items, frozenset(), self.around.bound)


class _Checker:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._ctes: dict[Any, Kinds] = {}
        self._solved: dict[Any, _Block] = {}
        # Worked out once: SQLAlchemy makes each anew.
        self._states: dict[Any, Any] = {}
        self._results: dict[Any, Sequence[Any]] = {}
        self.selects = 0

    def check(self, statement: Any, around: _Around) -> Kinds:
        """Check a statement and all that is in it. The kinds of its result's columns."""
        statement = _core(statement)
        if isinstance(statement, CompoundSelect):
            for part in statement.selects:
                self.check(part, around)
            block = _Block(around.implicit, dict(around.bound), around)
            children = [child for child in statement.get_children() if child not in statement.selects]
        elif isinstance(statement, Select | Insert | Update | Delete):
            block = self._solve(statement, around)
            self._check_block(statement, block)
            children = list(statement.get_children())
        else:
            raise UnscopedError(f"{type(statement).__name__} cannot be checked")
        for child in children:
            self._walk(child, block)
        return self._kinds(statement, around)

    def _check_block(self, statement: Any, block: _Block) -> None:
        self.selects += isinstance(statement, Select)
        for item in block.items:
            source = source_of(item)
            if isinstance(source, Table):
                self._check_table(item, source, block.bound)
            elif isinstance(item, AliasedReturnsRows):
                if not isinstance(item, CTE):
                    self._check_item(item, source, block)
            elif not isinstance(item, Join | FromGrouping | Values):
                raise UnscopedError(f"{item} does not declare how its rows are separated")
        if isinstance(statement, Insert | Update):
            self._check_written(statement, block)

    def _check_table(self, item: FromClause, table: Table, bound: Bound) -> None:
        if not self._is_bound(item, table, bound):
            raise self._unscoped(table, f"{getattr(item, 'name', item)} is not bound")
        self._check_whole(table)

    def _check_whole(self, table: Table) -> None:
        if not separation(table).is_whole(self._scope):
            raise self._unscoped(table, "it does not say why the caller sees all of that")

    def _check_item(self, item: FromClause, source: Any, block: _Block) -> None:
        if isinstance(source, FunctionElement | Values):
            self._walk(source, block)
        else:
            self.check(source, block.inner(item))

    def _check_written(self, statement: Any, block: _Block) -> None:
        """What is written into scope columns must be the caller's, and so must be what an upsert finds."""
        table = statement.table
        self._check_whole(table)
        values, declared = self._written(statement, block), separation(table)
        needed, kinds = declared.needed(self._scope), declared.kinds(self._scope)
        # An insert must name what is needed, an update must not name anything else.
        written = needed if isinstance(statement, Insert) else [{name: kinds[name]} for name in kinds if name in values]
        for any_of in written:
            if not any(values.get(name) == kind for name, kind in any_of.items()):
                raise self._unscoped(table, f"what is written into {_or(any_of)} is not bound")
        conflict = getattr(statement, "_post_values_clause", None)
        if isinstance(conflict, OnConflictDoUpdate):
            target = _target(table, conflict)
            if any(target.isdisjoint(any_of) for any_of in needed):
                raise self._unscoped(table, "a conflict can be with a row that is not bound")
            if kinds.keys() & set(map(_name, conflict.update_values_to_set)):
                raise self._unscoped(table, "a conflict changes whose row it is")

    def _written(self, statement: Any, block: _Block) -> dict[str, str | None]:
        """The columns that a statement writes, with the kinds of what it writes into them."""
        if isinstance(statement, Insert) and statement.select is not None:
            return dict(zip(statement._select_names or (), self._kinds(statement.select, _Around()), strict=True))
        if not statement._values or getattr(statement, "_multi_values", None):
            raise self._unscoped(statement.table, "what is written is not named")
        return {_name(column): self._kind(value, block) for column, value in statement._values.items()}

    def _walk(self, element: Any, block: _Block) -> None:
        """Check every statement in an expression."""
        if isinstance(element, ColumnClause):
            if element.is_literal:
                _refuse_text(element.name)
        elif isinstance(element, CTE):
            self._cte(element)
        elif isinstance(element, Select | CompoundSelect | SelectStatementGrouping):
            self.check(element, block.inner())
        elif isinstance(element, TextClause):
            _refuse_text(element.text)
        elif not isinstance(element, FromClause) or isinstance(element, Join | FromGrouping | Values | FunctionElement):
            # (Any other FromClause is an item of some block.)
            for child in element.get_children():
                self._walk(child, block)

    def _cte(self, cte: CTE) -> Kinds:
        """Check a CTE, once. What a recursive one reads of itself is its first part."""
        known = self._ctes.get(cte.element)
        if known is None:
            # It cannot refer to what encloses it.
            known = self._ctes[cte.element] = self.check(cte.element, _Around())
        return known

    def _kinds(self, statement: Any, around: _Around) -> Kinds:
        """The kinds of the columns of a result."""
        statement = _core(statement)
        if isinstance(statement, CompoundSelect):
            parts = [self._kinds(part, around) for part in statement.selects]
            return [kinds[0] if len({*kinds}) == 1 else None for kinds in zip(*parts, strict=True)]
        block = self._solve(statement, around)
        if statement not in self._results:
            self._results[statement] = [_bare(column) for column in statement.exported_columns]
        return [self._kind(column, block) for column in self._results[statement]]

    def _solve(self, statement: Any, around: _Around) -> _Block:
        """Find what one statement binds."""
        asked = (statement, around.explicit, around.implicit, frozenset(around.bound.items()))
        if asked not in self._solved:
            self._solved[asked] = self._solve_anew(statement, around)
        return self._solved[asked]

    def _solve_anew(self, statement: Any, around: _Around) -> _Block:
        froms = self._froms(statement, around)
        items = frozenset(item for from_ in froms for item in from_._from_objects)
        block = _Block(items, {place: kind for place, kind in around.bound.items() if place[0] not in items}, around)
        if isinstance(statement, Insert):
            written, kinds = self._written(statement, block), separation(statement.table).kinds(self._scope)
            block.bound.update(
                {(statement.table, name): kind for name, kind in kinds.items() if written.get(name) == kind}
            )
            return block
        conditions: list[tuple[Any, Reach]] = []
        for condition in statement._where_criteria:
            conditions += ((part, None) for part in _parts(condition))
        for from_ in froms:
            conditions += _joined(from_, None)
        known = -1
        while known < len(block.bound):
            known = len(block.bound)
            for item in items:
                self._learn(item, block)
            for condition, reach in conditions:
                self._bind(condition, reach, block)
        return block

    def _froms(self, statement: Any, around: _Around) -> Sequence[FromClause]:
        """What a statement itself reads and changes: not what it refers to outside, by SQLAlchemy's own rules."""
        if isinstance(statement, Insert):
            return ()
        if isinstance(statement, Select):
            if statement not in self._states:
                factory: Any = statement._compile_state_factory
                self._states[statement] = factory(statement, None)
            froms: list[FromClause] = self._states[statement]._get_display_froms(around.explicit, around.implicit)
            return froms
        parts = [*statement._where_criteria, *(getattr(statement, "_values", None) or {}).values()]
        return list(dict.fromkeys((statement.table, *(item for part in parts for item in part._from_objects))))

    def _learn(self, item: FromClause, block: _Block) -> None:
        """Add what is bound in a table's row once that is the caller's, or in a subquery's result."""
        source = source_of(item)
        if isinstance(source, Table):
            if self._is_bound(item, source, block.bound):
                kinds = separation(source).kinds(self._scope)
                block.bound.update({(item, name): kind for name, kind in kinds.items()})
        elif isinstance(item, CTE):
            self._name_result(item, self._cte(item), block)
        elif isinstance(_core(source), Select | CompoundSelect):
            self._name_result(item, self._kinds(source, block.inner(item)), block)

    def _name_result(self, item: FromClause, kinds: Kinds, block: _Block) -> None:
        named = zip(item.c, kinds, strict=True)
        block.bound.update({(item, column.key): kind for column, kind in named if kind is not None})

    def _bind(self, condition: Any, reach: Reach, block: _Block) -> None:
        """Add what one condition binds."""
        if isinstance(condition, BooleanClauseList):
            self._bind_either(condition, reach, block)
        elif isinstance(condition, BinaryExpression):
            if condition.operator is operators.eq:
                self._take(condition.left, condition.right, reach, block)
                self._take(condition.right, condition.left, reach, block)
            elif condition.operator is operators.in_op and isinstance(condition.right, ScalarSelect):
                self._take(condition.left, condition.right, reach, block)
        elif isinstance(condition, Exists):
            query = _core(condition.element)
            if isinstance(query, Select) and _has_no_row_of_its_own(query):
                # What is equal to something bound in there.
                inner = self._solve(query, block.inner())
                found = {place: kind for place, kind in inner.bound.items() if place[0] not in inner.items}
                block.bound.update({place: kind for place, kind in found.items() if reach is None or place[0] in reach})

    def _bind_either(self, condition: BooleanClauseList, reach: Reach, block: _Block) -> None:
        """Bind columns any one of which suffices, if each side of an OR binds one of them, all in the same row."""
        if condition.operator is not operators.or_:
            return
        sides = []
        for side in map(_bare, condition.clauses):
            alone = block._replace(bound=dict(block.bound))
            if isinstance(side, BinaryExpression):
                self._bind(side, reach, alone)
            sides.append(alone.bound.keys() - block.bound.keys())
        for table in {table for side in sides for table, _ in side}:
            source = source_of(table)
            for any_of in separation(source).needed(self._scope) if isinstance(source, Table) else ():
                if all(any((table, name) in side for name in any_of) for side in sides):
                    block.bound[table, _or(any_of)] = _or({*any_of.values()})

    def _take(self, column: Any, value: Any, reach: Reach, block: _Block) -> None:
        """Bind a column to an equal value, if that is bound and of the same kind."""
        column = _bare(column)
        table = getattr(column, "table", None)
        if table is None or (reach is not None and table not in reach):
            return
        kind, source = self._kind(value, block), source_of(table)
        if kind is not None and (
            not isinstance(source, Table) or separation(source).bindable(self._scope).get(column.key) == kind
        ):
            block.bound[table, column.key] = kind

    def _kind(self, value: Any, block: _Block) -> str | None:
        """The kind of a value that can only be the caller's; None for any other."""
        value = _bare(value)
        if isinstance(value, BindParameter):
            return value.key if value.required and value.key in self._scope.parameters else None
        if isinstance(value, ScalarSelect):
            kinds = self._kinds(value.element, block.inner())
            return kinds[0] if len(kinds) == 1 else None
        if isinstance(value, ColumnClause) and value.table is not None:
            return block.bound.get((value.table, value.key))
        return None

    def _is_bound(self, item: FromClause, table: Table, bound: Bound) -> bool:
        declared = separation(table)
        alone = any(bound.get((item, name)) == kind for name, kind in declared.or_by.items())
        return alone or all(
            any((item, name) in bound for name in (*any_of, _or(any_of))) for any_of in declared.needed(self._scope)
        )

    def _unscoped(self, table: Table, what: str) -> UnscopedError:
        needed = map(_or, separation(table).needed(self._scope))
        columns, given = (", ".join(sorted(names)) for names in (needed, self._scope.parameters))
        return UnscopedError(f"{table} is scoped by {columns}, the statement by {given}: {what}")


def _core(statement: Any) -> Any:
    while isinstance(statement, SelectStatementGrouping | ScalarSelect):
        statement = statement.element
    return statement


def _bare(element: Any) -> Any:
    while isinstance(element, Grouping | Label):
        element = element.element
    return element


def _or(names: Iterable[str]) -> str:
    return " or ".join(sorted(names))


def _name(column: Any) -> str:
    return str(getattr(column, "key", column))


def _parts(condition: Any) -> Iterator[ColumnElement[bool]]:
    """The conditions that are AND-ed."""
    condition = _bare(condition)
    if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for part in condition.clauses:
            yield from _parts(part)
    else:
        yield condition


def _joined(from_: FromClause, reach: Reach) -> Iterator[tuple[ColumnElement[bool], Reach]]:
    """The conditions of joins, each with its reach: that of an outer join is the side that may be missing."""
    if isinstance(from_, FromGrouping):
        yield from _joined(from_.element, reach)
    elif isinstance(from_, Join) and not from_.full:
        right = frozenset(from_.right._from_objects) if from_.isouter else reach
        yield from _joined(from_.left, reach)
        yield from _joined(from_.right, right)
        if from_.onclause is not None:
            yield from ((part, right) for part in _parts(from_.onclause))


def _has_no_row_of_its_own(query: Select[Any]) -> bool:
    """Whether it has no row where no row meets its conditions: an aggregate has one all the same."""
    is_plain = all(
        isinstance(column, ColumnClause) and (not column.is_literal or column.name in ("*", "1"))
        for column in map(_bare, query._raw_columns)
    )
    return is_plain and not query._group_by_clauses and not query._having_criteria


def _target(table: Table, conflict: OnConflictDoUpdate) -> set[str]:
    """The columns by which an upsert finds the row that is there."""
    if conflict.constraint_target is not None:
        found = [one for one in table.constraints if one.name == conflict.constraint_target]
        return {column.key for one in found for column in getattr(one, "columns", ())}
    return set(map(_name, conflict.inferred_target_elements or ()))


def _refuse_text(text: str) -> None:
    # An OR of its own would take the conditions beside it along.
    if re.search(r"\b(select|from|table|or)\b", re.sub(r"'[^']*'", "", text), re.IGNORECASE):
        raise UnscopedError(f"Text may read a table or undo a condition: {text}")
