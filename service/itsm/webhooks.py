"""Webhooks: registered here, told of events by messages that are made in the background, and sent by sending.py."""

import base64
import secrets
from collections.abc import Sequence
from typing import Any, get_args

from ulid import ULID

from service.errors import TicketError, invalid
from service.itsm import views
from service.itsm.commands import (
    MAX_WEBHOOKS,
    CreateWebhook,
    EventType,
    ListWebhooks,
    ReplayDelivery,
    UpdateWebhook,
    WebhookNamed,
)
from service.itsm.dependencies import ItsmDependencies
from service.operation import Call, View, operation, own_transactions
from service.outbound import UnreachableError
from service.storage.database import Connection, ConstraintViolationError
from service.storage.statement import Row
from service.vault import Vault
from service.webhooks import queries

_EVENTS = frozenset(get_args(EventType))
_SECRET_BYTES = 32
_TOLD_LENGTH = 100


@own_transactions(CreateWebhook)
async def create_webhook(dependencies: ItsmDependencies, call: Call, command: CreateWebhook) -> View:
    """Register a webhook. Its secret is in this view and, after a rotation, in that one."""
    await _check(dependencies, command.body.url, command.body.events)
    secret, sealed = _new_secret(dependencies.vault)
    values = {**_scope(call), **vars(command.body), "id": f"wh_{ULID()}", "secret": sealed}
    rows = await dependencies.database.all(queries.CREATE, values, lock=queries.LOCK_ALL)
    if not rows:
        raise TicketError("already_exists", f"There are {MAX_WEBHOOKS} webhooks already, which is the most")
    return views.webhook(rows[0], secret)


@operation(ListWebhooks, one_statement=True)
async def list_webhooks(connection: Connection, call: Call, _command: ListWebhooks) -> View:
    """All of the account's webhooks, the oldest first."""
    return {"webhooks": [views.webhook(row) for row in await connection.all(queries.LIST, _scope(call))]}


@own_transactions(UpdateWebhook)
async def update_webhook(dependencies: ItsmDependencies, call: Call, command: UpdateWebhook) -> View:
    """Change some members of a webhook. Switched on again, it goes on where it stopped."""
    changed = {name: getattr(command.body, name) for name in command.body.model_fields_set}
    await _check(dependencies, changed.get("url"), changed.get("events", ()))
    named, values = _named(call, command.path.webhook_id), {f"new_{name}": value for name, value in changed.items()}
    async with dependencies.database.transaction() as connection:
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


@own_transactions(WebhookNamed)
async def rotate_secret(dependencies: ItsmDependencies, call: Call, command: WebhookNamed) -> View:
    """Give a webhook a new secret; the old one is good for another day, so that receivers can follow."""
    secret, sealed = _new_secret(dependencies.vault)
    named = _named(call, command.path.webhook_id)
    return views.webhook(_found(await dependencies.database.one(queries.ROTATE, {**named, "secret": sealed})), secret)


@operation(WebhookNamed)
async def list_deliveries(connection: Connection, call: Call, command: WebhookNamed) -> View:
    """The last attempts to deliver to a webhook, the newest first."""
    named = _named(call, command.path.webhook_id)
    _found(await connection.one(queries.GET, named))
    rows = await connection.all(queries.LIST_ATTEMPTS, named, commit=True)
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


async def _check(dependencies: ItsmDependencies, url: str | None, events: Sequence[str]) -> None:
    """Raise TicketError `unknown_event`, or `validation_error` for an address that would be refused."""
    for name in events:
        if name not in _EVENTS:
            raise TicketError("unknown_event", f"Unknown event: {name[:_TOLD_LENGTH]}")
    if url is not None:
        try:
            await dependencies.outbound.check(url)
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
