"""What Alembic runs for each command: the tables of all dialects, on the connection it was given."""

from collections.abc import Sequence
from typing import Any, Literal

from alembic import context
from alembic.operations.ops import CreateTableOp, MigrationScript

import service.admin.tables
import service.backlog
import service.epochs
import service.handoff.tables
import service.helpdesk.tables
import service.itsm.tables
import service.providers.tables
import service.retention.look
import service.retention.purge
import service.schema
import service.vault_check  # noqa: F401 - imported for their tables
from service.directory import METADATA
from service.migrations import leftovers
from service.storage.database import Xid8


def _render(kind: str, item: object, autogen_context: Any) -> str | Literal[False]:
    if kind == "type" and isinstance(item, Xid8):
        autogen_context.imports.add("from service.storage.database import Xid8")
        return "Xid8()"
    return False


def _without_info(_context: object, _revision: object, directives: Sequence[MigrationScript]) -> None:
    """Leave out what the service keeps beside a table: a revision is of the schema alone."""
    for script in directives:
        for step in script.upgrade_ops.ops if script.upgrade_ops else ():
            if isinstance(step, CreateTableOp):
                step.info = {}


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_item=_render,
    process_revision_directives=_without_info,
    compare_type=True,
    include_name=leftovers.is_declared,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
