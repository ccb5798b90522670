"""`client.itsm.tickets`: the tickets of the account whose API key calls. Every call raises TicketsError."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Required, TypeAlias, TypedDict, Unpack

from tickets.itsm.v1 import service_pb2, ticket_pb2

from service.client.api import PAGE_SIZE, Answer, Answers, Api, fresh, many, one
from service.client.link import W
from service.client.messages import methods, result

Status: TypeAlias = Literal["open", "pending", "resolved", "closed"]
Priority: TypeAlias = Literal["low", "medium", "high", "urgent"]


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


class TicketFilter(TypedDict, total=False):
    """Which tickets are listed; None leaves all of them in. `start_date` and `end_date` belong to the range."""

    status: Status | None
    start_date: datetime | None
    end_date: datetime | None


class Tickets(Api[W]):
    """ITSM tickets."""

    METHODS = methods(service_pb2)

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


async def _each_once(newest_first: Answers[Ticket]) -> Answers[Ticket]:
    """Leave out what was told already: tickets created meanwhile push others onto the next page again."""
    last = None
    async for ticket in newest_first:
        place = (ticket.created_at, ticket.id)
        if last is None or place < last:
            last = place
            yield ticket
