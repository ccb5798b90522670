"""What would keep a statement from running where the rows of its scope lie: rules over its clause, without an engine.

Every use of a distributed table, in CTEs and subqueries too, must have `column = parameter` of its own among the AND-ed
conditions of its WHERE or of its joins: an engine does not look through joins, subqueries and arrays for it. That is
also a wall between tenants, beside the one of `service/storage/scope_check.py`, which does look through them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BinaryExpression,
    BindParameter,
    ClauseElement,
    ColumnClause,
    CompoundSelect,
    Delete,
    FromClause,
    Insert,
    Join,
    Lateral,
    Select,
    Table,
    Update,
)
from sqlalchemy.dialects.postgresql.dml import OnConflictDoUpdate
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, SelectStatementGrouping, Values

from service.storage.distribution import DISTRIBUTION
from service.storage.scope import source_of
from service.storage.scope_check import _bare, _core, _joined, _parts

# What has another value on another machine, or at another moment.
_STABLE = frozenset(
    {"now", "clock_timestamp", "pg_current_xact_id", "pg_current_snapshot", "pg_snapshot_xmin", "pg_snapshot_xmax"}
)


class Problem(NamedTuple):
    """One reason why a statement would not run on one machine: a key of `ADVICE`, and what it is about."""

    kind: str
    what: str


# What to do about each kind of problem.
ADVICE: Mapping[str, str] = {
    "unbound": "give each use of the table `column = parameter` of its own, beside any join (statement.mine, or as the"
    " statements around it do); what is for many scopes asks which have work, and then runs for each",
    "written": "write the parameter, or the column of a row that is bound itself, into the column",
    "groups": "read and write the tables of one scope alone: those that lie elsewhere in a statement of their own",
    "insert": "an INSERT and another write are two statements where an engine is to run them",
    "stable": "give the instant or the transaction as a parameter, or leave the column out of the expression",
    "text": "say it with SQLAlchemy's words: a table in a text cannot be checked",
}


def problems(clause: Any, sql: str) -> set[Problem]:
    """What keeps a clause, compiled as `sql`, from running where one scope's rows lie."""
    walk = _Walk()
    walk.statement(clause, frozenset(), frozenset())
    if len(re.findall(r"\bSELECT\b", sql)) > walk.selects:
        walk.found.add(Problem("text", "a part of the statement"))
    columns = {DISTRIBUTION[name] for name in walk.tables} - {None}
    if len(columns) > 1:
        walk.found.add(Problem("groups", " and ".join(sorted(map(str, columns)))))
    if len(walk.writes) > 1 and (inserts := [write for write in walk.writes if isinstance(write, Insert)]):
        walk.found.update(Problem("insert", str(write.table)) for write in inserts)
    for write in walk.writes:
        walk.found.update(_stable(write))
    return walk.found


def column_of(table: Any) -> str | None:
    """The column that a table is distributed by; None for what lies everywhere, or is no table of ours."""
    return DISTRIBUTION.get(table.name) if isinstance(table, Table) else None


class _Block(NamedTuple):
    """A SELECT, INSERT, UPDATE or DELETE: what it reads or changes, and which of that is bound to a parameter."""

    items: frozenset[FromClause]
    bound: frozenset[tuple[FromClause, str]]


class _Walk:
    def __init__(self) -> None:
        self.found: set[Problem] = set()
        self.tables: set[str] = set()
        self.writes: list[Insert | Update | Delete] = []
        self.selects = 0
        self._blocks: dict[Any, _Block] = {}
        self._ctes: set[Any] = set()

    def statement(self, statement: Any, explicit: frozenset[FromClause], implicit: frozenset[FromClause]) -> None:
        """Look at a statement and all that is in it. It may refer to what encloses it."""
        statement = _core(statement)
        if isinstance(statement, CompoundSelect):
            for part in statement.selects:
                self.statement(part, explicit, implicit)
            block = _Block(implicit, frozenset())
            children = [child for child in statement.get_children() if child not in statement.selects]
        else:
            self.selects += isinstance(statement, Select)
            block = self._blocks[statement] = self._solve(statement, explicit, implicit)
            self._uses(statement, block, explicit)
            children = list(statement.get_children())
        for child in children:
            self._walk(child, block, explicit)

    def _solve(self, statement: Any, explicit: frozenset[FromClause], implicit: frozenset[FromClause]) -> _Block:
        if isinstance(statement, Insert):
            return _Block(frozenset({statement.table}), frozenset())
        if isinstance(statement, Select):
            factory: Any = statement._compile_state_factory
            froms = factory(statement, None)._get_display_froms(explicit, implicit)
        else:
            parts = [*statement._where_criteria, *(getattr(statement, "_values", None) or {}).values()]
            froms = [statement.table, *(item for part in parts for item in part._from_objects)]
        items = frozenset(item for from_ in froms for item in from_._from_objects)
        conditions = [(part, None) for whole in statement._where_criteria for part in _parts(whole)]
        joined = [pair for from_ in froms for pair in _joined(from_, None)]
        bound = {
            place
            for condition, reach in [*conditions, *joined]
            for place in _bound_by(condition)
            if reach is None or place[0] in reach
        }
        return _Block(items, frozenset(bound))

    def _uses(self, statement: Any, block: _Block, explicit: frozenset[FromClause]) -> None:
        for item in block.items:
            source = source_of(item)
            if isinstance(source, Table):
                self._use(statement, item, source, block)
            elif isinstance(item, CTE):
                self._walk(item, block, explicit)
            elif isinstance(item, AliasedReturnsRows):
                inner = explicit | block.items if isinstance(item, Lateral) else explicit - block.items
                if isinstance(_core(source), Select | CompoundSelect):
                    self.statement(source, inner, block.items if isinstance(item, Lateral) else frozenset())
                else:
                    self._walk(source, block, explicit)
        if isinstance(statement, Insert | Update | Delete):
            self.writes.append(statement)

    def _use(self, statement: Any, item: FromClause, table: Table, block: _Block) -> None:
        column = column_of(table)
        if column is None:
            return
        self.tables.add(table.name)
        if isinstance(statement, Insert):
            if not self._is_written(statement, column):
                self.found.add(Problem("written", f"{table.name}.{column}"))
        elif (item, column) not in block.bound:
            self.found.add(Problem("unbound", f"{table.name}.{column}"))

    def _is_written(self, insert: Insert, column: str) -> bool:
        """Whether what an INSERT writes into a column is a parameter, or of a row that is bound."""
        if insert.select is None:
            values = {getattr(name, "key", name): value for name, value in (insert._values or {}).items()}
            return isinstance(_bare(values.get(column)), BindParameter)
        place = list(insert._select_names or ()).index(column)
        return self._is_fixed_in(insert.select, place)

    def _is_fixed_in(self, statement: Any, place: int) -> bool:
        """Whether one column of a result can only have a value that is bound."""
        statement = _core(statement)
        if isinstance(statement, CompoundSelect):
            return all(self._is_fixed_in(part, place) for part in statement.selects)
        return self._is_fixed(_bare(list(statement.exported_columns)[place]), statement)

    def _is_fixed(self, value: Any, statement: Any) -> bool:
        if isinstance(value, BindParameter):
            return True
        if not isinstance(value, ColumnClause) or value.table is None:
            return False
        source = source_of(value.table)
        if isinstance(source, Table):
            if isinstance(statement, Insert):
                return self._is_written(statement, value.key)
            return (value.table, value.key) in self._block(statement).bound
        inner = _core(source)
        if not isinstance(inner, Select | CompoundSelect | Insert | Update | Delete):
            return False
        return self._is_fixed_in(inner, [column.key for column in value.table.c].index(value.key))

    def _block(self, statement: Any) -> _Block:
        if statement not in self._blocks:
            self._blocks[statement] = self._solve(statement, frozenset(), frozenset())
        return self._blocks[statement]

    def _walk(self, element: Any, block: _Block, explicit: frozenset[FromClause]) -> None:
        """Look at every statement in an expression."""
        if isinstance(element, CTE):
            if element.element not in self._ctes:
                self._ctes.add(element.element)
                self.statement(element.element, frozenset(), frozenset())
        elif isinstance(element, Select | CompoundSelect | SelectStatementGrouping):
            self.statement(element, block.items | explicit, block.items)
        elif not isinstance(element, FromClause) or isinstance(element, Join | FromGrouping | Values | FunctionElement):
            # (Any other FromClause is an item of some block.)
            for child in element.get_children():
                self._walk(child, block, explicit)


def _bound_by(condition: Any) -> Iterator[tuple[FromClause, str]]:
    """The columns that one condition makes equal to a parameter."""
    if isinstance(condition, BinaryExpression) and condition.operator is operators.eq:
        sides = _bare(condition.left), _bare(condition.right)
        for column, value in (sides, sides[::-1]):
            if isinstance(value, BindParameter) and isinstance(column, ColumnClause) and column.table is not None:
                yield column.table, column.key


def _stable(write: Insert | Update | Delete) -> Iterator[Problem]:
    """Expressions of an UPDATE or of an ON CONFLICT in which a stable function stands beside a column."""
    if column_of(write.table) is None:
        return
    for expression in _set_by(write):
        nodes = list(visitors.iterate(expression))
        functions = {name for node in nodes if (name := getattr(node, "name", None)) in _STABLE}
        beside = any(isinstance(node, ColumnClause) and isinstance(source_of(node.table), Table) for node in nodes)
        if functions and beside:
            yield Problem("stable", f"{', '.join(sorted(functions))} in {write.table}")


def _set_by(write: Insert | Update | Delete) -> Iterable[Any]:
    if isinstance(write, Update):
        return [*(write._values or {}).values(), *(side for part in write._where_criteria for side in _sides(part))]
    conflict = getattr(write, "_post_values_clause", None)
    if isinstance(conflict, OnConflictDoUpdate):
        where = conflict.update_whereclause
        values = [value for value in conflict.update_values_to_set.values() if isinstance(value, ClauseElement)]
        return [*values, *(() if where is None else _sides(where))]
    return ()


def _sides(condition: Any) -> Iterator[Any]:
    """What a condition compares: a column and a function on its two sides do not stand beside each other."""
    for part in _parts(condition):
        if isinstance(part, BinaryExpression):
            yield from (part.left, part.right)
        else:
            yield part
