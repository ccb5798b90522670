"""Steps that run while the service writes to the tables."""

from collections.abc import Sequence
from typing import Any

from alembic import op
from sqlalchemy import TextClause


def create_index(name: str, table: str, columns: Sequence[str | TextClause], **options: Any) -> None:
    """Build an index while others write; one that an earlier try left unfinished is built anew.

    What the step did before is committed, and cannot be undone with what follows.
    """
    with op.get_context().autocommit_block():
        op.drop_index(name, table_name=table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)
