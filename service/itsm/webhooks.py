"""Webhooks: registered here, told of events by messages that are made in the background, and sent by sending.py."""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from typing import Any, Protocol, get_args

import structlog
from ulid import ULID

from service import jsontext
from service.database import Connection, ConstraintViolationError, Database
from service.errors import TicketError, invalid
from service.itsm import news_queries, views
from service.itsm import webhook_queries as queries
from service.itsm.commands import (
    MAX_WEBHOOKS,
    CreateWebhook,
    EventType,
    ListWebhooks,
    ReplayDelivery,
    UpdateWebhook,
    WebhookNamed,
)
from service.itsm.tables import MESSAGE
from service.operation import Call, Host, View, errand, operation
from service.outbound import Outbound, UnreachableError
from service.statement import Row
from service.vault import Vault

_EVENTS = frozenset(get_args(EventType))
_SECRET_BYTES = 32
_TOLD_LENGTH = 100
# Events of one webhook that become messages in one transaction; each may have half a megabyte.
_ROWS = 25
# The queue of a webhook that does not get on ends about here; the rest waits where it is, in the events. (Whoever looks
# for what is due looks at all that wait.)
_QUEUE = 200

_log = structlog.get_logger()


class WebhookHost(Host, Protocol):
    """What the use cases need that keep a secret or look at an address."""

    @property
    def vault(self) -> Vault:
        """Where secrets are kept."""

    @property
    def outbound(self) -> Outbound:
        """What says which addresses may be called."""


@errand(CreateWebhook)
async def create_webhook(host: WebhookHost, call: Call, command: CreateWebhook) -> View:
    """Register a webhook. Its secret is in this view and, after a rotation, in that one."""
    await _check(host, command.body.url, command.body.events)
    secret, sealed = _new_secret(host.vault)
    values = {**_scope(call), **vars(command.body), "id": f"wh_{ULID()}", "secret": sealed}
    rows = await host.database.all(queries.CREATE, values, behind=queries.LOCK_ALL)
    if not rows:
        raise TicketError("already_exists", f"There are {MAX_WEBHOOKS} webhooks already, which is the most")
    return views.webhook(rows[0], secret)


@operation(ListWebhooks, one_statement=True)
async def list_webhooks(connection: Connection, call: Call, _command: ListWebhooks) -> View:
    """All of the account's webhooks, the oldest first."""
    return {"webhooks": [views.webhook(row) for row in await connection.all(queries.LIST, _scope(call))]}


@errand(UpdateWebhook)
async def update_webhook(host: WebhookHost, call: Call, command: UpdateWebhook) -> View:
    """Change some members of a webhook. Switched on again, it goes on where it stopped."""
    changed = {name: getattr(command.body, name) for name in command.body.model_fields_set}
    await _check(host, changed.get("url"), changed.get("events", ()))
    named, values = _named(call, command.path.webhook_id), {f"new_{name}": value for name, value in changed.items()}
    async with host.database.transaction() as connection:
        webhook = _found(await connection.one(queries.update_webhook(frozenset(changed)), named | values))
        if changed.keys() & {"is_active", "url"}:
            await connection.all(queries.RESUME if webhook["is_active"] else queries.HOLD, named)
    return views.webhook(webhook)


@operation(WebhookNamed)
async def delete_webhook(connection: Connection, call: Call, command: WebhookNamed) -> View:
    """Delete a webhook, with what it was to be told yet, and its log."""
    named = _named(call, command.path.webhook_id)
    # In the order in which a change locks too.
    _found(await connection.one(queries.LOCK, named))
    await connection.all(queries.DELETE_QUEUE, named)
    await connection.one(queries.DELETE, named)
    return {}


@errand(WebhookNamed)
async def rotate_secret(host: WebhookHost, call: Call, command: WebhookNamed) -> View:
    """Give a webhook a new secret; the old one is good for another day, so that receivers can follow."""
    secret, sealed = _new_secret(host.vault)
    named = _named(call, command.path.webhook_id)
    return views.webhook(_found(await host.database.one(queries.ROTATE, {**named, "secret": sealed})), secret)


@operation(WebhookNamed)
async def list_deliveries(connection: Connection, call: Call, command: WebhookNamed) -> View:
    """The last attempts to deliver to a webhook, the newest first."""
    named = _named(call, command.path.webhook_id)
    _found(await connection.one(queries.GET, named))
    rows = await connection.all(queries.LIST_ATTEMPTS, named, last=True)
    return {"deliveries": [views.delivery(row) for row in rows]}


@operation(ReplayDelivery, one_statement=True)
async def replay_delivery(connection: Connection, call: Call, command: ReplayDelivery) -> View:
    """Queue the message of an attempt once more, as it was."""
    named = {**_named(call, command.path.webhook_id), "delivery_id": command.path.delivery_id}
    try:
        attempt = await connection.one(queries.REPLAY, named)
    except ConstraintViolationError:
        attempt = None  # the webhook is being deleted
    if attempt is None:
        raise TicketError("not_found", "Delivery not found")
    return views.delivery(attempt)


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
        place = {"after_transaction": str(webhook["fence"]), "after_id": 0}
    columns = {f"{name}s": [message[name] for message in told] for name in MESSAGE}
    await connection.one(news_queries.WRITE, {**scope, **place, **columns, "webhook_id": webhook["id"]}, last=True)


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


async def _check(host: WebhookHost, url: str | None, events: Sequence[str]) -> None:
    """Raise TicketError `unknown_event`, or `validation_error` for an address that would be refused."""
    for name in events:
        if name not in _EVENTS:
            raise TicketError("unknown_event", f"Unknown event: {name[:_TOLD_LENGTH]}")
    if url is not None:
        try:
            await host.outbound.check(url)
        except UnreachableError as error:
            raise invalid("body", "url", f"It cannot be called: {error}", "url_refused", url) from error


def _new_secret(vault: Vault) -> tuple[str, bytes]:
    """A fresh secret in the form of the Standard Webhooks specification, and the same encrypted."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    return secret, vault.seal(secret)


def _scope(call: Call) -> dict[str, Any]:
    return {"account_id": call.caller.account_id, "live": call.caller.live}


def _named(call: Call, webhook_id: str) -> dict[str, Any]:
    return {**_scope(call), "webhook_id": webhook_id}


def _found(row: Row | None) -> Row:
    if row is None:
        raise TicketError("not_found", "Webhook not found")
    return row
