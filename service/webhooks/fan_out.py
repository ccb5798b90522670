"""Makes messages of events, in the background."""

import hashlib
from collections.abc import Sequence

import structlog
from ulid import ULID

from service import jsontext
from service.itsm import views
from service.itsm.tables import MESSAGE
from service.operation import View
from service.storage.database import Connection, Database
from service.storage.statement import Row
from service.webhooks import fan_out_queries as news_queries

# Events of one webhook that become messages in one transaction; each may have half a megabyte.
_ROWS = 25


# The queue of a webhook that does not get on ends about here; the rest waits where it is, in the events. (Whoever looks
# for what is due looks at all that wait.)
_QUEUE = 200


_log = structlog.get_logger()


async def fan_out(database: Database) -> None:
    """Make messages of what happened, for the webhooks of all accounts; run in the background, in every process.

    A webhook's place moves in the transaction that queues its messages, so none is queued twice and none is left out.
    """
    failed: list[str] = []
    while waiting := await database.all(news_queries.WAITING, {"failed": failed, "room": _QUEUE}):
        told = 0
        # Each some, so that who is far behind holds up no other.
        for one in waiting:
            try:
                told += await _tell_some(database, one)
            except Exception as error:
                # As broad as the work it repeats: one webhook must not hold up all others.
                _log.warning("webhooks", webhook=one["id"], exc_info=error)
                failed.append(one["id"])
        if not told:
            return  # others are at them


async def _tell_some(database: Database, waiting: Row) -> bool:
    """Queue some of what a webhook has to be told; False if it no longer waits, or somebody else is at it."""
    named = {"account_id": waiting["account_id"], "live": waiting["live"], "webhook_id": waiting["id"]}
    async with database.transaction() as connection:
        webhook = await connection.one(news_queries.TAKE, {**named, "room": _QUEUE})
        if webhook is None:
            return False
        await _tell(connection, webhook)
    return True


async def _tell(connection: Connection, webhook: Row) -> None:
    """Queue what a webhook has to be told of the next events, and move its place behind them."""
    scope = {name: webhook[name] for name in ("account_id", "live")}
    place = {"after_transaction": str(webhook["transaction_id"]), "after_id": webhook["event_id"]}
    news = await connection.all(news_queries.NEWS, {**scope, **place, "since": webhook["created_at"], "rows": _ROWS})
    told: list[Row] = []
    if news:
        told = [message for message in await _messages(connection, scope, news) if message["type"] in webhook["events"]]
        place = {"after_transaction": str(news[-1]["transaction_id"]), "after_id": news[-1]["id"]}
    else:
        # What there was is older than the webhook.
        place = {"after_transaction": str(webhook["horizon"]), "after_id": 0}
    columns = {f"{name}s": [message[name] for message in told] for name in MESSAGE}
    await connection.one(news_queries.WRITE, {**scope, **place, **columns, "webhook_id": webhook["id"]}, commit=True)


async def _messages(connection: Connection, scope: Row, news: Sequence[Row]) -> list[Row]:
    """The messages that tell of events, each with its ticket as of then: the newest is undone, event by event."""
    last = {event["ticket_id"]: event["version"] for event in news}
    wanted = {**scope, "ticket_ids": list(last), "versions": list(last.values())}
    tickets = {row["id"]: _undone(row, row) for row in await connection.all(news_queries.TICKETS_AS_OF, wanted)}
    messages = []
    for event in reversed(news):
        ticket = tickets[event["ticket_id"]]
        messages.append(_message(event, views.ticket_as_of(ticket, event)))
        tickets[event["ticket_id"]] = _undone(ticket, event)
    return messages[::-1]


def _undone(ticket: Row, changed: Row) -> Row:
    """A ticket before what was changed."""
    return {**ticket, **dict(zip(changed["names"] or (), changed["befores"] or (), strict=True))}


def _message(event: Row, ticket: View) -> Row:
    body = {"id": _event_id(event), "type": event["type"], "timestamp": event["told_at"], "data": ticket}
    return {
        **{name: event[name] for name in ("ticket_id", "version", "type")},
        "event_id": body["id"],
        "body": jsontext.dump(body).decode(),
    }


def _event_id(event: Row) -> str:
    """What receivers know a message by: the same whenever and for whomever it is made, and sorted by its time."""
    milliseconds = int(event["told_at"].timestamp() * 1000)
    rest = hashlib.sha256(f"{event['ticket_id']}:{event['version']}".encode()).digest()[:10]
    return f"evt_{ULID(milliseconds.to_bytes(6) + rest)}"
