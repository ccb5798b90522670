"""Row → documented JSON of an ITSM ticket and its events (contracts/itsm.md, Ticket): every member always there."""

from datetime import datetime
from typing import NotRequired, TypedDict, cast
from uuid import UUID

from service.itsm.commands import EventType
from service.operation import View
from service.storage.statement import Row

_MEMBERS = (
    "id",
    "subject",
    "description",
    "status",
    "priority",
    "requester_email",
    "external_provider",
    "external_ticket_id",
    "external_ticket_url",
    "metadata",
    "created_at",
    "updated_at",
)
_EVENT_MEMBERS = ("account_id", "ticket_id", "version", "type", "changes", "actor", "request_id", "created_at")


def ticket(row: Row) -> View:
    """The ticket."""
    return {name: row[name] for name in _MEMBERS}


def event(row: Row) -> View:
    """One change of a ticket."""
    return {name: row[name] for name in _EVENT_MEMBERS}


def ticket_as_of(row: Row, event: Row) -> View:
    """The ticket of a row whose members are those as of an event.

    Events of creations do not say when the ticket was changed, nor do old ones.
    """
    view = dict(ticket(row))
    if event["version"] < row["version"]:
        view["updated_at"] = row["created_at"] if event["version"] == 1 else event["updated_at"] or event["occurred_at"]
    return view


class Webhook(TypedDict):
    """A webhook; `secret` only in the answers that make one."""

    id: str
    url: str
    events: list[EventType]
    is_active: bool
    disabled_reason: str | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime
    secret: NotRequired[str]


class WebhookDelivery(TypedDict):
    """One attempt to deliver a message."""

    id: str
    event_id: str
    type: EventType
    ticket_id: UUID
    attempt: int
    attempted_at: datetime
    duration_ms: int
    succeeded: bool
    status_code: int | None
    error: str | None


class WebhookList(TypedDict):
    """All webhooks of an account."""

    webhooks: list[Webhook]


class WebhookDeliveryList(TypedDict):
    """The log of a webhook."""

    deliveries: list[WebhookDelivery]


class WebhookDeletion(TypedDict):
    """Nothing: the webhook is deleted."""


_WEBHOOK = tuple(name for name in Webhook.__annotations__ if name in Webhook.__required_keys__)
_DELIVERY = tuple(WebhookDelivery.__annotations__)


def webhook(row: Row, secret: str | None = None) -> Webhook:
    """The webhook, with its secret where that was just made."""
    view = cast(Webhook, {name: row[name] for name in _WEBHOOK})
    if secret is not None:
        view["secret"] = secret
    return view


def webhook_delivery(row: Row) -> WebhookDelivery:
    """One attempt to deliver a message."""
    return cast(WebhookDelivery, {name: row[name] for name in _DELIVERY})
