"""The vendors side by side: how an account is linked to each, and how each shows a ticket's members."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import uuid4

import httpx2

from service.outbound import trusted_authorities
from service.providers import adapter
from service.providers.port import Link, NewExternalTicket, Provider, ProviderName
from support.emulators import freshservice, jira, servicenow, zendesk
from support.emulators.http import Server

BOB = "bob@example.com"
# Once: reading the certificates takes longer than all else in a test.


class Mirrored(NamedTuple):
    """A member's value here, and its name and value there; `{key}` in a text is our ticket's id."""

    value: str
    name: str
    value_there: Any


@dataclass(frozen=True)
class Vendor:
    """One vendor."""

    name: ProviderName
    credential: str
    options: Mapping[str, Any]
    # Its emulator; Bob is a user there, where a requester must be one.
    emulator: Callable[[], Server]
    # The emulator's attribute with its tickets, and the id's name in one of them.
    tickets: str
    id: str
    # The page of a ticket.
    page: str
    # Every member that it has too.
    mirrored: Mapping[str, Mirrored]

    def has(self, desk: Server) -> list[dict[str, Any]]:
        """All tickets there, in the order of their creation."""
        tickets: list[dict[str, Any]] = getattr(desk, self.tickets)
        return tickets

    def external(self, desk: Server, number: int = 0) -> dict[str, str]:
        """The external reference of a ticket there."""
        id_ = str(self.has(desk)[number][self.id])
        return {
            "external_provider": self.name,
            "external_ticket_id": id_,
            "external_ticket_url": desk.url + self.page.format(id_),
        }


def _servicenow() -> Server:
    instance = servicenow.ServiceNow()
    instance.users.append({"sys_id": "b0b" + "0" * 29, "email": BOB, "active": "true"})
    return instance


def _jira() -> Server:
    site = jira.Jira()
    site.customers[BOB] = "account-bob"
    return site


_TRANSITIONS = {"open": "21", "pending": "11", "resolved": "31", "closed": "41"}
_PRIORITIES = {"urgent": "Highest", "high": "High", "medium": "Medium", "low": "Low"}
_NOTE = {"body": "Description:\n\nSince ten.", "public": False}

FRESHSERVICE = Vendor(
    name="freshservice",
    credential=freshservice.API_KEY,
    options={"default_email": "desk@example.com"},
    emulator=freshservice.Freshservice,
    tickets="tickets",
    id="id",
    page="/a/tickets/{}",
    mirrored={
        "subject": Mirrored("Changed", "subject", "Changed"),
        "description": Mirrored("Since ten.", "description", "Since ten."),
        "status": Mirrored("pending", "status", 3),
        "priority": Mirrored("urgent", "priority", 4),
        "requester_email": Mirrored(BOB, "email", BOB),
    },
)
ZENDESK = Vendor(
    name="zendesk",
    credential=zendesk.CREDENTIAL,
    options={},
    emulator=zendesk.Zendesk,
    tickets="tickets",
    id="id",
    page="/agent/tickets/{}",
    mirrored={
        "subject": Mirrored("Changed", "subject", "Changed"),
        "description": Mirrored("Since ten.", "comments", [{"body": "Since nine."}, _NOTE]),
        "status": Mirrored("pending", "status", "pending"),
        "priority": Mirrored("urgent", "priority", "urgent"),
        "requester_email": Mirrored(BOB, "requester", {"name": "bob", "email": BOB}),
    },
)
SERVICENOW = Vendor(
    name="servicenow",
    credential=servicenow.CREDENTIAL,
    options={},
    emulator=_servicenow,
    tickets="incidents",
    id="sys_id",
    page="/nav_to.do?uri=incident.do%3Fsys_id%3D{}",
    mirrored={
        "subject": Mirrored("Changed", "short_description", "Changed"),
        "description": Mirrored("Since ten.", "description", "Since ten."),
        "status": Mirrored("pending", "state", "3"),
        "priority": Mirrored("urgent", "priority", "1"),
        "requester_email": Mirrored(BOB, "caller_id", "b0b" + "0" * 29),
    },
)
JIRA = Vendor(
    name="jira",
    credential=jira.CREDENTIAL,
    options={
        "service_desk_id": jira.DESK,
        "request_type_id": jira.REQUEST_TYPE,
        "transitions": _TRANSITIONS,
        "priorities": _PRIORITIES,
    },
    emulator=_jira,
    tickets="issues",
    id="key",
    page="/browse/{}",
    mirrored={
        "subject": Mirrored("Changed", "summary", "Changed"),
        "description": Mirrored("Since ten.", "description", "Since ten.\n\nReference: {key}"),
        "status": Mirrored("pending", "status", "Waiting for customer"),
        "priority": Mirrored("urgent", "priority", {"name": "Highest"}),
        "requester_email": Mirrored(BOB, "reporter", {"accountId": "account-bob"}),
    },
)
VENDORS = (FRESHSERVICE, ZENDESK, SERVICENOW, JIRA)


def new(**members: Any) -> NewExternalTicket:
    """A ticket with only the required members, and these."""
    given: dict[str, Any] = {
        "key": str(uuid4()),
        "subject": "Mail is down",
        "description": "Since nine.",
        "status": "open",
    }
    return NewExternalTicket(**{**given, "priority": None, "requester_email": None, **members})


@asynccontextmanager
async def connected(link: Link, answer_seconds: float = 10) -> AsyncIterator[Provider]:
    """The adapter of a link, which waits so many seconds for an answer."""
    waiting = httpx2.Timeout(10, read=answer_seconds)
    async with httpx2.AsyncClient(timeout=waiting, verify=trusted_authorities(), trust_env=False) as client:
        yield adapter(client, link)
