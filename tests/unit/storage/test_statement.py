"""What a statement keeps of the clause that it is built from."""

import gc
from typing import Any
from weakref import ref

from sqlalchemy import Select, literal_column, select
from support.clauses import CLAUSES

from service.storage.scope import EVERYONE
from service.storage.statement import Statement


def test_a_statement_does_not_keep_its_clause() -> None:
    """Of lists there are hundreds, one for each set of filters, and their clauses took hundreds of MiB."""
    clause: Select[Any] = select(literal_column("'forgotten'").label("x"))
    statement, kept = Statement(clause, scope=EVERYONE("reads no table")), ref(clause)
    del CLAUSES[statement.sql], clause
    gc.collect()
    assert kept() is None
