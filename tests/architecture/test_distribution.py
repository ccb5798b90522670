"""Tables and statements are such that PostgreSQL can be spread over several machines (storage/distribution.py)."""

from collections.abc import Sequence
from functools import cache

import pytest
from sqlalchemy import ForeignKeyConstraint, PrimaryKeyConstraint, Table, UniqueConstraint
from support.clauses import CLAUSES
from support.distribution import ADVICE, Problem, column_of, problems
from support.distribution_exceptions import EXCEPTIONS
from support.statements import BUILDERS, builders, statements

from service.directory import METADATA
from service.storage.distribution import DISTRIBUTION
from service.storage.statement import Statement

TABLES = [*METADATA.tables.values()]


def test_every_table_is_in_the_map_and_no_other() -> None:
    assert DISTRIBUTION.keys() == METADATA.tables.keys(), "service/storage/distribution.py: where do its rows lie?"


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_keys_have_the_column(table: Table) -> None:
    """So that one machine alone can tell whether a value is taken."""
    column = column_of(table)
    if column is None:
        return
    assert not table.c[column].nullable
    keys = [one for one in table.constraints if isinstance(one, PrimaryKeyConstraint | UniqueConstraint)]
    uniques = [*keys, *(index for index in table.indexes if index.unique)]
    without = {str(one.name) for one in uniques if column not in one.columns}
    assert without == set(), f"{table}: have {column} in each key and unique index"


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_foreign_keys_stay_on_one_machine(table: Table) -> None:
    column = column_of(table)
    for key in table.constraints:
        if isinstance(key, ForeignKeyConstraint) and (theirs := column_of(key.referred_table)) is not None:
            pairs = [(element.parent.name, element.column.name) for element in key.elements]
            assert (column, theirs) in pairs, f"{key.name}: a foreign key to {key.referred_table} has {theirs} in it"


def test_every_builder_of_statements_is_called() -> None:
    called = {f"{builder.__module__}.{builder.__qualname__}" for builder in BUILDERS}
    assert {*builders()} <= called, "tests/support/statements.py, BUILDERS: say with which arguments it is called"


@cache
def problems_of_all() -> Sequence[tuple[str, Statement, Problem]]:
    return [
        (name, statement, problem)
        for name, several in statements().items()
        for statement in several
        for problem in problems(CLAUSES[statement.sql], statement.sql.decode())
    ]


@pytest.mark.parametrize("kind", ADVICE)
def test_statements_run_where_the_rows_of_their_scope_lie(kind: str) -> None:
    named = {name for names in EXCEPTIONS.get(kind, {}).values() for name in names}
    excepted, wrong = set[str](), set[str]()
    for name, statement, problem in problems_of_all():
        if problem.kind != kind:
            continue
        # What is given the column's value has no reason not to bind it.
        if name in named and problem.what.rpartition(".")[2] not in statement.names:
            excepted.add(name)
        else:
            wrong.add(f"  {name}: {problem.what}")
    assert not wrong, "\n".join(
        [
            f"{ADVICE[kind]}; or name it in tests/support/distribution_exceptions.py ({kind!r}) with the reason:",
            *sorted(wrong),
        ]
    )
    assert excepted == named, f"no exceptions of {kind!r} any more: {sorted(named - excepted)}"
