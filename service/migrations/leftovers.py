"""What stays in the schema for processes of the version before, for one release: nothing is declared of it any more."""

from typing import Any

# By kind: tables, and columns with their tables. The release after the one that stopped using them drops them.
_TABLES = frozenset({"counters", "idempotency_keys"})
_COLUMNS = frozenset({("provider_deliveries", "idempotency_scope")})


def is_declared(name: str | None, kind: str, parents: Any) -> bool:
    """Whether Alembic may compare what has this name with what is declared."""
    if kind == "table":
        return name not in _TABLES
    return kind != "column" or (parents["table_name"], name) not in _COLUMNS
