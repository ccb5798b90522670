"""`client.itsm`: `tickets` and `webhooks` of the account whose API key calls. Every call raises TicketsError."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Required, TypeAlias, TypedDict, Unpack

from tickets.client.api import PAGE_SIZE, Api, Stream, Unary, Words, stream, unary
from tickets.client.messages import methods, result
from tickets.client.session import Request, TransportT
from tickets.itsm.v1 import ticket_pb2, ticket_service_pb2, webhook_pb2, webhook_service_pb2

Status: TypeAlias = Literal["open", "pending", "resolved", "closed"]
Priority: TypeAlias = Literal["low", "medium", "high", "urgent"]
EventType: TypeAlias = Literal["ticket.created", "ticket.updated", "ticket.closed", "ticket.reopened"]
# What webhooks may subscribe to: those, and the names of the public catalogue that nothing sends.
WebhookEvent: TypeAlias = Literal[
    EventType,
    "ticket.note_added",
    "conversation.created",
    "conversation.updated",
    "conversation.resolved",
    "conversation.assigned",
    "conversation.reply",
    "call.started",
    "call.completed",
    "call.escalated",
    "user.created",
]


@result(ticket_pb2.Ticket)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An IT support ticket of a customer account; protos/tickets/itsm/v1/ticket.proto.

    `etag` goes back with a change that must not overwrite another; it is None in lists.
    """

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
    etag: str | None


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


@result(ticket_service_pb2.WatchTicketsResponse)
@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResponse:
    """One response of a watch: an event, or None as a keep-alive, and the cursor to resume after it.

    A keep-alive with `behind_seconds` says for how long events have been held back.
    """

    event: TicketEvent | None
    cursor: str
    behind_seconds: int | None


@result(webhook_pb2.Webhook)
@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An address that events are sent to; protos/tickets/itsm/v1/webhook.proto."""

    id: str
    url: str
    events: tuple[WebhookEvent, ...]
    is_active: bool
    disabled_reason: str | None
    failing_since: datetime | None
    missed_events_at: datetime | None
    created_at: datetime
    updated_at: datetime
    # The secret is only in the response that made it, and in no repr.
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
    events: Words[WebhookEvent]
    is_active: bool


class TicketFilter(TypedDict, total=False):
    """Which tickets are listed; None leaves all of them in. `start_date` and `end_date` belong to the range.

    `metadata` are members that a ticket has, each as a string, or as the JSON text of a number or boolean.
    """

    status: Status | None
    priority: Priority | None
    requester_email: str | None
    metadata: Mapping[str, str] | None
    q: str | None
    start_date: datetime | None
    end_date: datetime | None


class Tickets(Api[TransportT]):
    """ITSM tickets."""

    METHODS = methods(ticket_service_pb2)

    @unary
    def create(
        self, *, idempotency_key: str | None = None, timeout: float | None = None, **ticket: Unpack[NewTicket]
    ) -> Unary[Ticket]:
        """Create a ticket. Raises ValidationError."""
        return self._call(Ticket, "CreateTicket", ticket, timeout, key=idempotency_key)

    @unary
    def get(self, ticket_id: str, *, timeout: float | None = None) -> Unary[Ticket]:
        """One ticket. Raises NotFoundError; ValidationError when `ticket_id` is no UUID."""
        return self._call(Ticket, "GetTicket", {"ticket_id": ticket_id}, timeout)

    @stream
    def list(
        self, *, page_size: int = PAGE_SIZE, timeout: float | None = None, **filters: Unpack[TicketFilter]
    ) -> Stream[Ticket]:
        """The account's tickets, newest first, each once; `timeout` is that of each page.

        Tickets that leave the filter while pages are read can hide others from them.
        """
        return _without_duplicates(self._list(Ticket, "ListTickets", filters, page_size, timeout))

    @unary
    def update(
        self,
        ticket_id: str,
        *,
        etag: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **changes: Unpack[TicketChanges],
    ) -> Unary[Ticket]:
        """Change some members of a ticket; with `etag`, only while it is as it was when it had that one.

        Raises NotFoundError, ValidationError, ConflictError.
        """
        members = {"ticket_id": ticket_id, "etag": etag}
        return self._call(Ticket, "UpdateTicket", members, timeout, changes=changes, key=idempotency_key)

    @stream
    def events(
        self, ticket_id: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None
    ) -> Stream[TicketEvent]:
        """A ticket's history, oldest first; `timeout` is that of each page. Raises NotFoundError, ValidationError."""
        return self._list(TicketEvent, "ListTicketEvents", {"ticket_id": ticket_id}, page_size, timeout, field="events")

    @stream
    def watch(self, *, cursor: str | None = None, resume_timeout: float = 60.0) -> Stream[WatchResponse]:
        """Every change of the account's tickets as it happens, from now on or after a cursor.

        It lasts until it is closed. The first response comes at once and says where the watch begins. When the service
        goes away the watch resumes after the last response; it raises UnavailableError when it cannot
        within `resume_timeout` seconds, UnauthenticatedError when the key is revoked, and CursorExpiredError when
        events after the cursor were deleted.
        """
        return self._watch(WatchResponse, {"cursor": cursor}, resume_timeout)


class Webhooks(Api[TransportT]):
    """Webhooks of ITSM tickets."""

    METHODS = methods(webhook_service_pb2)

    @unary
    def create(
        self,
        *,
        url: str,
        events: Words[WebhookEvent],
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Unary[Webhook]:
        """Register a webhook; only this response has its secret. Raises ValidationError, ConflictError."""
        members = {"url": url, "events": events}
        return self._call(Webhook, "CreateWebhook", members, timeout, key=idempotency_key, field="webhook")

    @stream
    def list(self, *, timeout: float | None = None) -> Stream[Webhook]:
        """The account's webhooks, oldest first."""
        return self._items(Webhook, self._request("ListWebhooks", {}, timeout), "webhooks")

    @unary
    def update(
        self,
        webhook_id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **changes: Unpack[WebhookChanges],
    ) -> Unary[Webhook]:
        """Change some members of a webhook; switched on again, it resumes where it stopped.

        Raises NotFoundError, ValidationError.
        """
        members, key = {"webhook_id": webhook_id}, idempotency_key
        return self._call(Webhook, "UpdateWebhook", members, timeout, changes=changes, key=key, field="webhook")

    @unary
    def delete(
        self, webhook_id: str, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> Unary[None]:
        """Delete a webhook with its queue and its log. Raises NotFoundError."""
        members = {"webhook_id": webhook_id}
        return self._no_result(self._request("DeleteWebhook", members, timeout, key=idempotency_key))

    @unary
    def rotate_secret(
        self, webhook_id: str, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> Unary[Webhook]:
        """Give a webhook a new secret, which only this response has. Raises NotFoundError."""
        members = {"webhook_id": webhook_id}
        return self._call(Webhook, "RotateWebhookSecret", members, timeout, key=idempotency_key, field="webhook")

    @stream
    def deliveries(self, webhook_id: str, *, timeout: float | None = None) -> Stream[WebhookDelivery]:
        """The last attempts to deliver, newest first. Raises NotFoundError."""
        request = self._request("ListWebhookDeliveries", {"webhook_id": webhook_id}, timeout)
        return self._items(WebhookDelivery, request, "deliveries")

    @unary
    def replay(
        self,
        webhook_id: str,
        delivery_id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Unary[WebhookDelivery]:
        """Send the message of an attempt once more. Raises NotFoundError."""
        members, key = {"webhook_id": webhook_id, "delivery_id": delivery_id}, idempotency_key
        return self._call(WebhookDelivery, "ReplayWebhookDelivery", members, timeout, key=key, field="delivery")

    async def _no_result(self, request: Request) -> None:
        await self._session.call(request)


async def _without_duplicates(newest_first: Stream[Ticket]) -> Stream[Ticket]:
    """Skip tickets that were listed already: those created meanwhile push others onto the next page again."""
    last = None
    async for ticket in newest_first:
        position = (ticket.created_at, ticket.id)
        if last is None or position < last:
            last = position
            yield ticket
