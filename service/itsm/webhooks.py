"""Webhooks of ITSM tickets: what the engine needs to send their events, and the use cases that manage them."""

from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

from ulid import ULID

from service import idempotency
from service.errors import ECHO_LENGTH, TicketError
from service.itsm import lookup, tables, views
from service.itsm.commands import (
    MAX_WEBHOOKS,
    CreateWebhook,
    DeleteWebhook,
    ListWebhooks,
    ReplayDelivery,
    RotateWebhookSecret,
    UpdateWebhook,
    WebhookEvent,
    WebhookNamed,
)
from service.itsm.dependencies import ItsmDependencies
from service.itsm.keys import KEYS
from service.operation import Call, autocommit, operation, own_transactions
from service.outbound import UnreachableError
from service.storage.database import Connection, ConstraintViolationError
from service.storage.statement import Row
from service.vault import Vault
from service.webhooks import queries
from service.webhooks.signatures import new_secret
from service.webhooks.source import Source

SOURCE = Source(
    events=tables.events,
    tickets=tables.tickets,
    # What only lists and writers need stays where it is.
    ticket_columns=[
        c.name for c in tables.tickets.c if c.name not in ("metadata_terms", "search_terms", "transaction_id")
    ],
    tables=tables.WEBHOOKS,
    event_types=get_args(WebhookEvent),
    max_webhooks=MAX_WEBHOOKS,
    show=views.ticket_as_of,
    event_columns=["updated_at"],
    also={"ticket.closed": "ticket.updated", "ticket.reopened": "ticket.updated"},
    body_signature="x-aurion-signature",
)
_QUERIES = queries.for_source(SOURCE)


@own_transactions(CreateWebhook)
async def create_webhook(dependencies: ItsmDependencies, call: Call, command: CreateWebhook) -> views.Webhook:
    """Register a webhook. Its secret is in this view and, after a rotation, in that one."""

    async def act(connection: Connection) -> views.Webhook:
        secret, sealed = _new_secret(dependencies.vault)
        values = {**lookup.scope(call), **vars(command.body), "id": f"wh_{ULID()}", "secret": sealed}
        rows = await connection.all(_QUERIES.create_webhook, values, lock=_QUERIES.lock_webhooks)
        if not rows:
            raise TicketError("already_exists", f"An account can have at most {MAX_WEBHOOKS} webhooks")
        return views.webhook(rows[0], secret)

    check = partial(_check, dependencies, call, command.body.url, command.body.events)
    return await idempotency.once(
        dependencies, call, KEYS, command, act, before=check, transaction=autocommit, is_secret=True
    )


@operation(ListWebhooks, transaction=autocommit)
async def list_webhooks(connection: Connection, call: Call, _command: ListWebhooks) -> views.WebhookList:
    """All of the account's webhooks, the oldest first."""
    rows = await connection.all(_QUERIES.list_webhooks, lookup.scope(call))
    return {"webhooks": [views.webhook(row) for row in rows]}


@own_transactions(UpdateWebhook)
async def update_webhook(dependencies: ItsmDependencies, call: Call, command: UpdateWebhook) -> views.Webhook:
    """Change some members of a webhook. Enabled again, it goes on where it stopped."""
    changed = {name: getattr(command.body, name) for name in command.body.model_fields_set}
    key, values = _key(call, command.path.webhook_id), {f"new_{name}": value for name, value in changed.items()}

    async def act(connection: Connection) -> views.Webhook:
        before = _found(await connection.one(_QUERIES.lock_webhook, key))
        statement = queries.update_webhook(SOURCE, frozenset(changed))
        webhook = _found(await connection.one(statement, key | values))
        if not webhook["is_active"]:
            await connection.all(_QUERIES.hold_messages, key)
        elif "is_active" in changed or webhook["url"] != before["url"]:
            await connection.all(_QUERIES.resume_messages, key)
        return views.webhook(webhook)

    check = partial(_check, dependencies, call, changed.get("url"), changed.get("events", ()))
    return await idempotency.once(dependencies, call, KEYS, command, act, before=check)


@idempotency.write(DeleteWebhook, KEYS)
async def delete_webhook(connection: Connection, call: Call, command: DeleteWebhook) -> views.WebhookDeletion:
    """Delete a webhook with its queue and its log."""
    key = _key(call, command.path.webhook_id)
    # In the order in which a change locks too.
    _found(await connection.one(_QUERIES.lock_webhook, key))
    await connection.all(_QUERIES.delete_messages, key)
    await connection.one(_QUERIES.delete_webhook, key)
    return {}


@own_transactions(RotateWebhookSecret)
async def rotate_secret(dependencies: ItsmDependencies, call: Call, command: RotateWebhookSecret) -> views.Webhook:
    """Give a webhook a new secret; the old one is good for another day, so that receivers can follow."""
    secret, sealed = _new_secret(dependencies.vault)
    values = {**_key(call, command.path.webhook_id), "secret": sealed}

    async def act(connection: Connection) -> views.Webhook:
        return views.webhook(_found(await connection.one(_QUERIES.rotate_secret, values)), secret)

    return await idempotency.once(dependencies, call, KEYS, command, act, transaction=autocommit, is_secret=True)


@operation(WebhookNamed)
async def list_deliveries(connection: Connection, call: Call, command: WebhookNamed) -> views.WebhookDeliveryList:
    """The last attempts to deliver to a webhook, the newest first."""
    key = _key(call, command.path.webhook_id)
    _found(await connection.one(_QUERIES.get_webhook, key))
    rows = await connection.all(_QUERIES.list_attempts, key, commit=True)
    return {"deliveries": [views.webhook_delivery(row) for row in rows]}


@idempotency.write(ReplayDelivery, KEYS, transaction=autocommit)
async def replay_delivery(connection: Connection, call: Call, command: ReplayDelivery) -> views.WebhookDelivery:
    """Queue the message of an attempt once more, as it was."""
    key = {**_key(call, command.path.webhook_id), "delivery_id": command.path.delivery_id}
    try:
        attempt = await connection.one(_QUERIES.replay, key)
    except ConstraintViolationError:
        attempt = None  # the webhook is being deleted
    if attempt is None:
        raise TicketError("not_found", "Delivery not found")
    return views.webhook_delivery(attempt)


async def _check(dependencies: ItsmDependencies, call: Call, url: str | None, events: Sequence[str]) -> None:
    """Raise TicketError `unknown_event`, or `url_refused` for an address that may not be called."""
    for name in events:
        if name not in SOURCE.event_types:
            valid = ", ".join(SOURCE.event_types)
            raise TicketError("unknown_event", f"Invalid event type: {name[:ECHO_LENGTH]}. Valid events: {valid}")
    if url is not None:
        call.place.give_back()
        try:
            await dependencies.outbound.check(url)
        except UnreachableError as error:
            raise TicketError("url_refused", f"The address is refused: {error}") from error


def _new_secret(vault: Vault) -> tuple[str, bytes]:
    """A fresh secret, and the same encrypted. Raises TicketError `unavailable` where none can be encrypted."""
    secret = new_secret()
    try:
        return secret, vault.seal(secret)
    except TicketError as error:
        # What the operator would have to set is not for callers.
        raise TicketError("unavailable", "Webhooks are not available on this server") from error


def _key(call: Call, webhook_id: str) -> dict[str, Any]:
    return {**lookup.scope(call), "webhook_id": webhook_id}


def _found(row: Row | None) -> Row:
    if row is None:
        raise TicketError("not_found", "Webhook not found")
    return row
