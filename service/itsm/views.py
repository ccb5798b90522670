"""Row → documented JSON of an ITSM ticket and its events (contracts/itsm.md, Ticket): no member is ever absent."""

from datetime import datetime
from typing import NotRequired, TypedDict, cast
from uuid import UUID

from service.itsm.commands import EventType, Priority, Status, WebhookEvent
from service.jsontext import JsonText
from service.storage.statement import Row


class Ticket(TypedDict):
    """A ticket."""

    id: UUID
    subject: str
    description: str
    status: Status
    priority: Priority | None
    requester_email: str | None
    external_provider: str | None
    external_ticket_id: str | None
    external_ticket_url: str | None
    metadata: JsonText
    created_at: datetime
    updated_at: datetime


class TicketPage(TypedDict):
    """One page of the tickets that match a filter, and how many there are."""

    tickets: list[Ticket]
    total: int
    limit: int
    offset: int


class TicketEvent(TypedDict):
    """One change of a ticket."""

    account_id: UUID
    ticket_id: UUID
    version: int
    type: EventType
    changes: JsonText
    actor: str
    request_id: str
    created_at: datetime


class TicketEventPage(TypedDict):
    """One page of a ticket's history."""

    events: list[TicketEvent]
    next_cursor: str | None


class WatchMessage(TypedDict):
    """One event of a watch, or a heartbeat."""

    event: TicketEvent | None
    cursor: str
    behind_seconds: NotRequired[int]


_TICKET_MEMBERS = tuple(Ticket.__annotations__)
_EVENT_MEMBERS = tuple(TicketEvent.__annotations__)


def ticket(row: Row) -> Ticket:
    """The ticket."""
    return cast(Ticket, {name: row[name] for name in _TICKET_MEMBERS})


def event(row: Row) -> TicketEvent:
    """One change of a ticket."""
    return cast(TicketEvent, {name: row[name] for name in _EVENT_MEMBERS})


def ticket_as_of(row: Row, event: Row) -> Ticket:
    """The ticket of a row whose members are those as of an event.

    Events of creations do not have the ticket's `updated_at`, nor do old ones.
    """
    view = ticket(row)
    if event["version"] < row["version"]:
        view["updated_at"] = row["created_at"] if event["version"] == 1 else event["updated_at"] or event["occurred_at"]
    return view


class Webhook(TypedDict):
    """A webhook; `secret` only in the answers that make one."""

    id: str
    url: str
    events: list[WebhookEvent]
    is_active: bool
    disabled_reason: str | None
    failing_since: datetime | None
    missed_events_at: datetime | None
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
