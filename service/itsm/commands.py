"""What comes in to the ITSM API: every bound, vocabulary and default (contracts/itsm.md)."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from service.fields import (
    MAX_OBJECT_BYTES,
    Command,
    Creation,
    Email,
    Etag,
    FirstInstant,
    IdempotencyHeader,
    JsonObject,
    LastInstant,
    Limit,
    Number,
    OpaqueId,
    Page,
    Resumable,
    Section,
    Uuid,
    Words,
    WriteHeaders,
    distinct,
    without_nul,
)
from service.jsontext import JsonText

Status = Literal["open", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]
# What happens to a ticket.
EventType = Literal["ticket.created", "ticket.updated", "ticket.closed", "ticket.reopened"]
# What a webhook may subscribe to: that, and the names of the public catalogue that nothing here sends.
WebhookEvent = Literal[
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

Subject = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]
Description = Annotated[str, StringConstraints(min_length=1), without_nul]

MAX_OFFSET = 2**63 - 1
MAX_NAME_LENGTH = 255
# For an account in one mode.
MAX_WEBHOOKS = 20

# No longer than metadata itself: a longer one is in no ticket.
MemberValue = Annotated[str, StringConstraints(max_length=MAX_OBJECT_BYTES), without_nul]
MemberName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH), without_nul]

# Without user and fragment; which networks a host may be in is up to outbound.py.
_WEB_ADDRESS = re.compile(r"(?i:https?)://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:(\d{1,5}))?([/?][!-\[\]-~]*)?")

_NO_WEB_ADDRESS = (
    "Input should be a web address such as https://example.com/hook: in ASCII, without user, fragment and spaces"
)


def _web_address(text: str) -> str:
    match = _WEB_ADDRESS.fullmatch(text)
    if match is None or "#" in text or not 0 < int(match[3] or 1) < 65536:
        raise PydanticCustomError("url_parsing", _NO_WEB_ADDRESS)
    return text


WebAddress = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_web_address)]
# Free text: an unknown event has an error of its own, which the use case raises.
EventNames = Annotated[list[Annotated[str, without_nul]], Field(min_length=1, max_length=32), distinct]


class TicketPath(Section):
    """The path of one ticket."""

    ticket_id: Uuid


class TicketMembers(Section):
    """The members of a ticket that a POST and a PATCH may set.

    A default here only makes a member optional: a PATCH changes the members that are set, and a POST says itself which
    it requires.
    """

    subject: Subject = ""
    description: Description = ""
    status: Status = "open"
    priority: Priority | None = None
    requester_email: Email | None = None
    metadata: JsonObject = JsonText("{}")


class TicketChanges(TicketMembers):
    """The body of a PATCH: members that are not set stay."""

    # The same condition as `If-Match`.
    etag: Etag | None = None


class NewTicket(Creation, TicketMembers):
    """The body of a POST."""

    subject: Subject
    description: Description


class TicketFilter(Section):
    """The query of a list."""

    status: Status | None = None
    priority: Priority | None = None
    requester_email: Email | None = None
    metadata: Annotated[dict[MemberName, MemberValue], Field(max_length=10)] | None = None
    q: Words | None = None
    start_date: FirstInstant | None = None
    end_date: LastInstant | None = None
    limit: Limit = 20
    offset: Annotated[Number, Field(ge=0, le=MAX_OFFSET)] = 0


class CreateTicket(Command):
    """POST /api/v1/tickets."""

    header: IdempotencyHeader
    body: NewTicket


class GetTicket(Command):
    """GET /api/v1/tickets/{ticket_id}."""

    path: TicketPath


class ListTickets(Command):
    """GET /api/v1/tickets."""

    query: TicketFilter


class UpdateTicket(Command):
    """PATCH /api/v1/tickets/{ticket_id}."""

    path: TicketPath
    header: WriteHeaders = WriteHeaders()
    body: TicketChanges


class ListTicketEvents(Command):
    """GET /api/v1/tickets/{ticket_id}/events."""

    path: TicketPath
    query: Page


class WatchTickets(Command):
    """GET /api/v1/events."""

    query: Resumable


class NewWebhook(Creation):
    """The body of a registration."""

    url: WebAddress
    events: EventNames


class WebhookChanges(Section):
    """The body of a PATCH: what is not set stays."""

    url: WebAddress = ""
    events: EventNames = Field([])
    is_active: bool = True


class WebhookPath(Section):
    """The path of one webhook."""

    webhook_id: OpaqueId


class DeliveryPath(WebhookPath):
    """The path of one attempt in its log."""

    delivery_id: OpaqueId


class CreateWebhook(Command):
    """POST /api/v1/webhooks."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: NewWebhook


class ListWebhooks(Command):
    """GET /api/v1/webhooks."""


class WebhookNamed(Command):
    """GET /api/v1/webhooks/{webhook_id}/deliveries."""

    path: WebhookPath


class DeleteWebhook(WebhookNamed):
    """DELETE /api/v1/webhooks/{webhook_id}."""

    header: IdempotencyHeader = IdempotencyHeader()


class NoMembers(Creation):
    """A body that says nothing: none at all, or an object."""


class RotateWebhookSecret(WebhookNamed):
    """POST /api/v1/webhooks/{webhook_id}/rotate-secret."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: NoMembers = NoMembers()


class UpdateWebhook(Command):
    """PATCH /api/v1/webhooks/{webhook_id}."""

    path: WebhookPath
    header: IdempotencyHeader = IdempotencyHeader()
    body: WebhookChanges


class ReplayDelivery(Command):
    """POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay."""

    path: DeliveryPath
    header: IdempotencyHeader = IdempotencyHeader()
    body: NoMembers = NoMembers()
