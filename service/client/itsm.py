"""`client.itsm`: `tickets` and `webhooks` of the account whose API key calls. Every call raises TicketsError."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Required, TypeAlias, TypedDict, Unpack

from tickets.itsm.v1 import service_pb2, ticket_pb2, webhook_pb2

from service.client.api import PAGE_SIZE, Answer, Answers, Api, fresh, many, one
from service.client.link import Request, W
from service.client.messages import methods, result, write

Status: TypeAlias = Literal["open", "pending", "resolved", "closed"]
Priority: TypeAlias = Literal["low", "medium", "high", "urgent"]
EventType: TypeAlias = Literal["ticket.created", "ticket.updated", "ticket.closed", "ticket.reopened"]

_METHODS = methods(service_pb2)


@result(ticket_pb2.Ticket)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An IT support ticket of a customer account; protos/tickets/itsm/v1/ticket.proto."""

    id: str
    subject: str
    description: str
    status: Status
    priority: Priority | None
    requester_email: str | None
    external_provider: str | None
    external_ticket_id: str | None
    external_ticket_url: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


@result(ticket_pb2.TicketEvent)
@dataclass(frozen=True, slots=True, kw_only=True)
class TicketEvent:
    """One change of a ticket, as it was written; `changes` has `{"from": …, "to": …}` for each changed member."""

    account_id: str
    ticket_id: str
    version: int
    type: str
    changes: dict[str, Any]
    actor: str
    request_id: str
    created_at: datetime


@result(service_pb2.WatchTicketsResponse)
@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a watch tells: an event, or None as a sign of life, and the cursor to go on behind it."""

    event: TicketEvent | None
    cursor: str


@result(webhook_pb2.Webhook)
@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An address that is told of events; protos/tickets/itsm/v1/webhook.proto."""

    id: str
    url: str
    events: tuple[EventType, ...]
    is_active: bool
    disabled_reason: str | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime
    # Only where it was just made, and in no repr.
    secret: str | None = field(repr=False)


@result(webhook_pb2.WebhookDelivery)
@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDelivery:
    """One attempt to deliver a message; protos/tickets/itsm/v1/webhook.proto."""

    id: str
    event_id: str
    type: EventType
    ticket_id: str
    attempt: int
    attempted_at: datetime
    duration_ms: int
    succeeded: bool
    status_code: int | None
    error: str | None


class _Members(TypedDict, total=False):
    status: Status
    priority: Priority | None
    requester_email: str | None
    metadata: Mapping[str, Any]


class NewTicket(_Members, total=False):
    """What a new ticket is made of; what is left out has its documented default."""

    subject: Required[str]
    description: Required[str]


class TicketChanges(_Members, total=False):
    """What changes; what is left out stays, and None clears."""

    subject: str
    description: str


class WebhookChanges(TypedDict, total=False):
    """What changes; what is left out stays. `events` replaces the old ones whole."""

    url: str
    events: Sequence[EventType]
    is_active: bool


class TicketFilter(TypedDict, total=False):
    """Which tickets are listed; None leaves all of them in. `start_date` and `end_date` belong to the range.

    `metadata` are members that a ticket has, each as a string, or as the JSON text of a number or boolean.
    """

    status: Status | None
    metadata: Mapping[str, str] | None
    start_date: datetime | None
    end_date: datetime | None


class Tickets(Api[W]):
    """ITSM tickets."""

    METHODS = _METHODS

    @one
    def create(
        self, *, idempotency_key: str | None = None, timeout: float | None = None, **ticket: Unpack[NewTicket]
    ) -> Answer[Ticket]:
        """Create a ticket. Raises ValidationError."""
        key = fresh(idempotency_key)
        return self._ask(Ticket, "CreateTicket", ticket, timeout, key=key)

    @one
    def get(self, ticket_id: str, *, timeout: float | None = None) -> Answer[Ticket]:
        """One ticket. Raises NotFoundError; ValidationError when `ticket_id` is no UUID."""
        return self._ask(Ticket, "GetTicket", {"ticket_id": ticket_id}, timeout)

    @many
    def list(
        self, *, page_size: int = PAGE_SIZE, timeout: float | None = None, **filters: Unpack[TicketFilter]
    ) -> Answers[Ticket]:
        """The account's tickets, newest first, each once; `timeout` is that of each page.

        Tickets that leave the filter while pages are read can hide others from them.
        """
        return _each_once(self._list(Ticket, "ListTickets", filters, page_size, timeout))

    @one
    def update(
        self, ticket_id: str, *, timeout: float | None = None, **changes: Unpack[TicketChanges]
    ) -> Answer[Ticket]:
        """Change some members of a ticket. Raises NotFoundError, ValidationError."""
        members = {"ticket_id": ticket_id}
        return self._ask(Ticket, "UpdateTicket", members, timeout, changes=changes)

    @many
    def events(
        self, ticket_id: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None
    ) -> Answers[TicketEvent]:
        """A ticket's history, oldest first; `timeout` is that of each page. Raises NotFoundError, ValidationError."""
        return self._list(TicketEvent, "ListTicketEvents", {"ticket_id": ticket_id}, page_size, timeout, of="events")

    @many
    def watch(self, *, cursor: str | None = None, patience: float = 60.0) -> Answers[Watched]:
        """Every change of the account's tickets as it happens, from now on or behind a cursor.

        It tells until it is closed. The first answer comes at once and says where the watch begins. When the service
        goes away the watch goes on behind the last answer; it raises UnavailableError when that fails for `patience`
        seconds, and UnauthenticatedError when the key is revoked.
        """
        return self._watch(Watched, {"cursor": cursor}, patience)


class Webhooks(Api[W]):
    """Webhooks of ITSM tickets."""

    METHODS = _METHODS

    @one
    def create(self, *, url: str, events: Sequence[EventType], timeout: float | None = None) -> Answer[Webhook]:
        """Register a webhook; only this answer has its secret. Raises ValidationError, ConflictError."""
        return self._ask(Webhook, "CreateWebhook", {"url": url, "events": events}, timeout, of="webhook")

    @many
    def list(self, *, timeout: float | None = None) -> Answers[Webhook]:
        """The account's webhooks, oldest first."""
        return self._items(Webhook, self._request("ListWebhooks", {}, timeout), "webhooks")

    @one
    def update(
        self, webhook_id: str, *, timeout: float | None = None, **changes: Unpack[WebhookChanges]
    ) -> Answer[Webhook]:
        """Change some members of a webhook; switched on again, it goes on where it stopped.

        Raises NotFoundError, ValidationError.
        """
        members = {"webhook_id": webhook_id}
        return self._ask(Webhook, "UpdateWebhook", members, timeout, changes=changes, of="webhook")

    @one
    def delete(self, webhook_id: str, *, timeout: float | None = None) -> Answer[None]:
        """Delete a webhook with its queue and its log. Raises NotFoundError."""
        return self._nothing(self._request("DeleteWebhook", {"webhook_id": webhook_id}, timeout))

    @one
    def rotate_secret(self, webhook_id: str, *, timeout: float | None = None) -> Answer[Webhook]:
        """Give a webhook a new secret, which only this answer has. Raises NotFoundError."""
        return self._ask(Webhook, "RotateWebhookSecret", {"webhook_id": webhook_id}, timeout, of="webhook")

    @many
    def deliveries(self, webhook_id: str, *, timeout: float | None = None) -> Answers[WebhookDelivery]:
        """The last attempts to deliver, newest first. Raises NotFoundError."""
        request = self._request("ListWebhookDeliveries", {"webhook_id": webhook_id}, timeout)
        return self._items(WebhookDelivery, request, "deliveries")

    @one
    def replay(self, webhook_id: str, delivery_id: str, *, timeout: float | None = None) -> Answer[WebhookDelivery]:
        """Have the message of an attempt sent once more. Raises NotFoundError."""
        members = {"webhook_id": webhook_id, "delivery_id": delivery_id}
        return self._ask(WebhookDelivery, "ReplayWebhookDelivery", members, timeout, of="delivery")

    async def _nothing(self, request: Request) -> None:
        await self._link.answer(request)

    def _request(self, method: str, members: Mapping[str, object], seconds: float | None) -> Request:
        asked = self.METHODS[method]
        return Request(asked, write(asked.request, members), seconds)


async def _each_once(newest_first: Answers[Ticket]) -> Answers[Ticket]:
    """Leave out what was told already: tickets created meanwhile push others onto the next page again."""
    last = None
    async for ticket in newest_first:
        place = (ticket.created_at, ticket.id)
        if last is None or place < last:
            last = place
            yield ticket
