"""What Alembic runs for each command: the tables of all dialects, on the connection it was given."""

from typing import Any, Literal

from alembic import context

import service.handoff.tables
import service.helpdesk.tables
import service.idempotency
import service.itsm.tables
import service.numbering  # noqa: F401 - imported for their tables
from service.directory import METADATA
from service.storage.database import Xid8


def _render(kind: str, item: object, autogen_context: Any) -> str | Literal[False]:
    if kind == "type" and isinstance(item, Xid8):
        autogen_context.imports.add("from service.storage.database import Xid8")
        return "Xid8()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_item=_render,
    compare_type=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
