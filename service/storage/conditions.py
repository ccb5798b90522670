"""Conditions of lists, each compiled and checked once, and put into the slots of statements as callers ask for them.

There are as many lists as sets of filters, and SQLAlchemy takes 25 to 60 ms to build a statement: to put texts together
takes 0.2.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Boolean, ColumnElement, Select, literal_column

from service.storage.scope import Scope
from service.storage.statement import Statement

_PARAMETER = re.compile(r"\$([0-9]+)")
_SLOT = re.compile(r"/\*slot (\w+)\*/")
# Around the name of a parameter; no SQL has it.
_NAMED = "\0"
_NAME = re.compile(f"{_NAMED}([^{_NAMED}]+){_NAMED}")


def slot(name: str) -> ColumnElement[bool]:
    """A place for conditions, all of which must hold. They are conditions on a table that the statement has there."""
    return literal_column(f"/*slot {name}*/", Boolean)


class Condition(NamedTuple):
    """The text of a condition with names for its parameters, and those that have a value already."""

    text: str
    constants: Mapping[str, Any]


def conditions(clauses: Mapping[str, ColumnElement[bool]], rows: Select[Any], scope: Scope) -> Mapping[str, Condition]:
    """The conditions by name, on the rows of a SELECT that ends with its WHERE. Raises UnscopedError, as Statement."""
    begin = f"{_named(Statement(rows, scope=scope, prepared=False))} AND "
    found = {}
    for name, clause in clauses.items():
        statement = Statement(rows.where(clause), scope=scope, prepared=False)
        # Names that SQLAlchemy gave are those of others too.
        renamed = {given: f"{name}.{given}" for given in statement.constants}
        text = _named(statement, renamed)
        if not text.startswith(begin):
            raise ValueError(f"The condition {name} does not stand at the end: {text}")
        values = {renamed[given]: value for given, value in statement.constants.items()}
        found[name] = Condition(text.removeprefix(begin), values)
    return found


def filled(
    template: Statement, slots: Mapping[str, Iterable[Condition]], *, prepared: bool, short: bool = False
) -> Statement:
    """The statement with conditions in its slots; a slot without any is true."""
    given = {name: [*several] for name, several in slots.items()}
    texts = {name: " AND ".join(one.text for one in several) or "true" for name, several in given.items()}
    text = _SLOT.sub(lambda found: texts[found[1]], _named(template))
    names: dict[str, int] = {}
    sql = _NAME.sub(lambda found: f"${names.setdefault(found[1], len(names) + 1)}", text)
    constants = dict(template.constants)
    for several in given.values():
        for one in several:
            constants |= one.constants
    return template.with_text(sql, tuple(names), constants, prepared=prepared, short=short)


def _named(statement: Statement, renamed: Mapping[str, str] | None = None) -> str:
    names = [(renamed or {}).get(name, name) for name in statement.names]
    return _PARAMETER.sub(lambda found: f"{_NAMED}{names[int(found[1]) - 1]}{_NAMED}", statement.sql.decode())
