"""Messages that are held for webhooks that are disabled: old ones are deleted, and their webhooks say so."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    collate,
    delete,
    exists,
    func,
    select,
    update,
)
from ulid import ULID

from service.retention.walk import SCOPE
from service.storage.database import Database
from service.storage.statement import Row, Statement
from service.webhooks import queries
from service.webhooks.source import Source

# Webhooks that are looked for at once; each has a transaction of its own.
_WEBHOOKS: Final = 100
_DAY_SECONDS: Final = 86_400


class HeldMessages:
    """Those of one source."""

    def __init__(self, source: Source) -> None:
        self._key = (*source.scope, "id")
        self._lock = queries.for_source(source).lock_webhook
        webhooks, messages = source.tables.webhooks, source.tables.messages
        number: Select[Any] = select(func.count().label("rows"))
        self._count = Statement(
            number.add_columns(func.min(collate(messages.c.event_id, "C")).label("oldest")).where(_is_old(source)),
            scope=SCOPE,
        )
        self._next = Statement(
            select(*(webhooks.c[name] for name in self._key))
            .where(exists().where(*source.its_messages(), _is_old(source)))
            .order_by(webhooks.c.id)
            .limit(bindparam("webhooks", type_=Integer)),
            scope=SCOPE,
        )
        gone = delete(messages).where(*source.of_webhook(messages), _is_old(source)).returning(messages.c.version)
        self._drop = Statement(
            select(func.count().label("rows")).select_from(gone.cte("gone")), scope=source.statement_scope
        )
        self._note = Statement(
            update(webhooks).where(*source.one_webhook).values(missed_events_at=func.now()).returning(webhooks.c.id),
            scope=source.statement_scope,
        )

    async def count(self, database: Database, days: int) -> tuple[int, datetime | None]:
        """How many are old, and since when the oldest is there."""
        row = await database.one(self._count, _before(days)) or {"rows": 0, "oldest": None}
        return row["rows"], None if row["oldest"] is None else instant(row["oldest"])

    async def delete(self, database: Database, days: int) -> tuple[int, list[str]]:
        """Delete those that are old; how many, and the webhooks that have missed them."""
        number, missed = 0, list[str]()
        limits = {**_before(days), "webhooks": _WEBHOOKS}
        while found := await database.all(self._next, limits):
            before = number
            for webhook in found:
                dropped = await self._delete_of(database, webhook, limits)
                number += dropped
                missed += [webhook["id"]] if dropped else []
            if number == before:
                break  # they were enabled meanwhile
        return number, missed

    async def _delete_of(self, database: Database, webhook: Row, limits: Mapping[str, Any]) -> int:
        key = {name: webhook[name] for name in self._key[:-1]} | {"webhook_id": webhook["id"]}
        async with database.transaction() as connection:
            # Locked in this order, as in every transaction that changes a webhook and its messages.
            await connection.one(self._lock, key)
            row = await connection.one(self._drop, {**key, **limits}) or {"rows": 0}
            if row["rows"]:
                await connection.one(self._note, key)
            return int(row["rows"])


def _is_old(source: Source) -> ColumnElement[bool]:
    """Held, and older than the event `before`: its id begins with its instant."""
    messages = source.tables.messages
    is_before = collate(messages.c.event_id, "C") < bindparam("before", type_=Text)
    return and_(messages.c.next_attempt_at.is_(None), is_before)


def _before(days: int) -> dict[str, str]:
    milliseconds = int((time.time() - days * _DAY_SECONDS) * 1000)
    return {"before": f"evt_{ULID(milliseconds.to_bytes(6) + bytes(10))}"}


def instant(event_id: str) -> datetime:
    """When the event of a message was."""
    return datetime.fromtimestamp(ULID.from_str(event_id.removeprefix("evt_")).timestamp, UTC)
