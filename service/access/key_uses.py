"""When each API key was last used: gathered in the process, written once a minute."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, DateTime, Uuid, any_, bindparam, column, func, literal_column, or_, select, update
from sqlalchemy.types import Interval

from service.directory import api_keys
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

WRITE_SECONDS = 60.0
# How many keys one statement writes.
_ROWS = 500

_ids = bindparam("ids", type_=ARRAY(Uuid))
_used = (
    func.unnest(_ids, bindparam("instants", type_=ARRAY(DateTime(timezone=True))))
    .table_valued(column("id", Uuid), column("used_at", DateTime(timezone=True)), name="used")
    .render_derived()
)
# A locked key is skipped: another process is writing about the same instant.
_keys = (
    select(api_keys.c.id)
    .where(api_keys.c.id == any_(_ids))
    .with_for_update(skip_locked=True, key_share=True)
    .cte("keys")
)
_WRITE = Statement(
    update(api_keys)
    .where(
        api_keys.c.id == _used.c.id,
        api_keys.c.id.in_(select(_keys.c.id)),
        # Many processes may write: together they write about once a minute.
        or_(
            api_keys.c.last_used_at.is_(None),
            api_keys.c.last_used_at <= _used.c.used_at - literal_column("interval '1 minute'", Interval),
        ),
    )
    .values(last_used_at=_used.c.used_at),
    scope=EVERYONE("each process writes for all of its callers at once"),
)


class KeyUses:
    """The API keys that were used since the last write, each with the instant."""

    def __init__(self) -> None:
        self._used: dict[UUID, datetime] = {}

    def note(self, key_id: UUID, used_at: datetime) -> None:
        """Record that an existing key was used; so there are never more entries than keys."""
        self._used[key_id] = used_at

    async def write(self, database: Database) -> None:
        """Write what was gathered. Raises TicketError, and then keeps what is not written."""
        while self._used:
            batch = dict(list(self._used.items())[:_ROWS])
            await database.all(_WRITE, {"ids": list(batch), "instants": list(batch.values())})
            for key_id, used_at in batch.items():
                if self._used[key_id] == used_at:
                    del self._used[key_id]
