"""Fan-out: events become messages, one for each webhook that subscribes to them, in the background."""

import hashlib
from collections.abc import Sequence
from typing import Any

import structlog
from ulid import ULID

from service import jsontext
from service.errors import TicketError
from service.operation import View
from service.storage.database import Connection, Database
from service.storage.statement import Row
from service.webhooks import fan_out_queries
from service.webhooks.source import Source
from service.webhooks.tables import MESSAGE

# Events of one webhook that become messages in one transaction; each may have half a megabyte.
_EVENTS_AT_ONCE = 25
# About how long the queue of a slow or failing webhook may get; the rest stays in the event table. (Each look for due
# messages reads all queued ones.)
MAX_QUEUE = 200

_log = structlog.get_logger()


class FanOut:
    """The fan-out of one source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._queries = fan_out_queries.for_source(source)

    async def queue_messages(self, database: Database) -> None:
        """Queue messages of new events for the webhooks of all scopes; run in the background, in every process.

        A webhook's position moves in the transaction that queues its messages, so none is queued twice or left out.
        """
        failed: list[str] = []
        limits = {"failed": failed, "max_queue": MAX_QUEUE}
        while waiting := await database.all(self._queries.waiting_webhooks, limits):
            is_progress = False
            # A few events of each webhook are queued, so that one that is far behind delays no other.
            for webhook in waiting:
                try:
                    is_progress |= await self._queue_if_waiting(database, webhook)
                except TicketError as error:
                    _log.warning("webhooks", webhook=webhook["id"], outcome=error.reason)
                    failed.append(webhook["id"])
                except Exception as error:
                    # Any failure is caught: one webhook must not stop all others.
                    _log.warning("webhooks", webhook=webhook["id"], exc_info=error)
                    failed.append(webhook["id"])
            if not is_progress:
                return  # other processes have them

    async def _queue_if_waiting(self, database: Database, waiting: Row) -> bool:
        """Queue messages of a webhook's next events; False if it no longer waits, or another process has it."""
        key = {**self._scope(waiting), "webhook_id": waiting["id"]}
        async with database.transaction() as connection:
            limits = {"max_queue": MAX_QUEUE}
            webhook = await connection.one(self._queries.lock_waiting_webhook, key | limits)
            if webhook is None:
                return False
            await self._queue_next(connection, webhook)
        return True

    async def _queue_next(self, connection: Connection, webhook: Row) -> None:
        """Queue messages of a webhook's next events, and move its position after them."""
        scope = self._scope(webhook)
        position = {"after_transaction": str(webhook["transaction_id"]), "after_id": webhook["event_id"]}
        limits = {"since": webhook["created_at"], "rows": _EVENTS_AT_ONCE}
        events = await connection.all(self._queries.next_events, scope | position | limits)
        messages: list[Row] = []
        if events:
            messages = [
                one for one in await self._messages(connection, scope, events) if one["type"] in webhook["events"]
            ]
            position = {"after_transaction": str(events[-1]["transaction_id"]), "after_id": events[-1]["id"]}
        else:
            # All events up to the horizon are older than the webhook.
            position = {"after_transaction": str(webhook["horizon"]), "after_id": 0}
        columns = {f"{name}s": [message[name] for message in messages] for name in MESSAGE}
        key = {**scope, "webhook_id": webhook["id"]}
        await connection.one(self._queries.queue, key | position | columns, commit=True)

    async def _messages(self, connection: Connection, scope: Row, events: Sequence[Row]) -> list[Row]:
        """The messages of events, each with its ticket as of then: the newest state is undone, event by event."""
        last = {event["ticket_id"]: event["version"] for event in events}
        given = {**scope, "ticket_ids": list(last), "versions": list(last.values())}
        rows = await connection.all(self._queries.tickets_as_of, given)
        tickets = {row["id"]: self._undo(row, row) for row in rows}
        messages = []
        for event in reversed(events):
            ticket = tickets[event["ticket_id"]]
            view = self._source.show(ticket, event)
            messages += [_message(event, kind, view) for kind in self._source.types_of(event["type"])]
            tickets[event["ticket_id"]] = self._undo(ticket, event)
        return messages[::-1]

    def _undo(self, ticket: Row, changed: Row) -> Row:
        """A ticket before what was changed."""
        before = dict(zip(changed["names"] or (), changed["befores"] or (), strict=True))
        return self._source.undo(ticket, before)

    def _scope(self, row: Row) -> dict[str, Any]:
        return {name: row[name] for name in self._source.scope}


def _message(event: Row, kind: str, ticket: View) -> Row:
    body = {"id": _event_id(event, kind), "type": kind, "timestamp": event["occurred_at"], "data": ticket}
    return {
        **{name: event[name] for name in ("ticket_id", "version")},
        "type": kind,
        "event_id": body["id"],
        "body": jsontext.dump(body).decode(),
    }


def _event_id(event: Row, kind: str) -> str:
    """What receivers know a message by: the same for each webhook and whenever it is made, and sorted by time."""
    milliseconds = int(event["occurred_at"].timestamp() * 1000)
    named = f"{event['ticket_id']}:{event['version']}" + ("" if kind == event["type"] else f":{kind}")
    rest = hashlib.sha256(named.encode()).digest()[:10]
    return f"evt_{ULID(milliseconds.to_bytes(6) + rest)}"
