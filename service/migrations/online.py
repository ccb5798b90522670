"""Steps that run while the service writes to the tables."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alembic import op
from sqlalchemy import ColumnClause, Row, TextClause, column, select, text
from sqlalchemy import table as table_

# Rows of one step of `fill`: a writer of one of them waits for some milliseconds.
ROWS = 500


def create_index(name: str, table: str, columns: Sequence[str | TextClause], **options: Any) -> None:
    """Build an index while others write; one that an earlier try left unfinished is built anew.

    What the step did before is committed, and cannot be undone with what follows.
    """
    with op.get_context().autocommit_block(), _patience():
        op.drop_index(name, table_name=table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def drop_index(name: str, table: str) -> None:
    """Drop an index while others read and write; what the step did before is committed."""
    with op.get_context().autocommit_block(), _patience():
        op.drop_index(name, table_name=table, postgresql_concurrently=True, if_exists=True)


def fill(table: str, key: Sequence[str], *statements: str) -> None:
    """Run statements for all rows of a table, some at a time: each locks a step's rows, and is a transaction.

    A statement takes the rows of a step by `(…the columns of the key…) BETWEEN :first AND :last`, and changes nothing
    when it is run again: a migration that was stopped begins anew. What was done before is committed, as with an index.
    """
    columns = ", ".join(key)
    first, last = (f"({', '.join(f':{side}_{name}' for name in key)})" for side in ("first", "last"))
    steps = [text(statement.replace(":first", first).replace(":last", last)) for statement in statements]
    fields: list[ColumnClause[Any]] = [column(name) for name in key]
    rows = select(*fields).select_from(table_(table)).order_by(*fields).limit(ROWS)
    with op.get_context().autocommit_block(), _patience():
        connection = op.get_bind()
        found = list(connection.execute(rows))
        while found:
            bounds = {f"{side}_{name}": row._mapping[name] for side, row in _ends(found) for name in key}
            for step in steps:
                connection.execute(step, bounds)
            found = list(connection.execute(rows.where(text(f"({columns}) > {last}")), bounds))


@contextmanager
def _patience() -> Iterator[None]:
    """Wait for transactions and rows for as long as it takes: these waits block no other statement."""
    connection = op.get_bind()
    before = connection.scalar(text("SHOW lock_timeout"))
    connection.execute(text("SET lock_timeout = 0"))
    yield
    connection.execute(text(f"SET lock_timeout = '{before}'"))


def _ends(rows: Sequence[Row[Any]]) -> tuple[tuple[str, Row[Any]], tuple[str, Row[Any]]]:
    return ("first", rows[0]), ("last", rows[-1])
