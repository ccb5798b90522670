"""The SQLAlchemy clause of every statement: a Statement keeps only its SQL, whose clause takes 100 times the memory."""

from typing import Any

from service.storage import scope_check
from service.storage.scope import Scope

# By the SQL.
CLAUSES: dict[bytes, Any] = {}

_check = scope_check.check


def _recorded(clause: Any, scope: Scope, sql: str) -> None:
    _check(clause, scope, sql)
    CLAUSES[sql.encode()] = clause


scope_check.check = _recorded
