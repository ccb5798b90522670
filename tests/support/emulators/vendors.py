"""The vendors side by side: how an account is linked to each, and how each shows what it was told."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import uuid4

import httpx

from service.providers import provider
from service.providers.port import Link, NewExternalTicket, Provider, ProviderName
from support.emulators import freshservice, jira, servicenow, zendesk
from support.emulators.http import Server

BOB = "bob@example.com"
# Made once: reading the certificates takes longer than all else of a test.
_TLS = httpx.create_ssl_context()


class Told(NamedTuple):
    """A member's value here, and what becomes of it there; `{key}` in a text is our ticket's id."""

    value: str
    name: str
    there: Any


@dataclass(frozen=True)
class Vendor:
    """One vendor."""

    name: ProviderName
    credential: str
    options: Mapping[str, Any]
    # Its emulator, which knows Bob where a requester must be known.
    emulator: Callable[[], Server]
    # Where that has its tickets, and what in one of them is its id.
    tickets: str
    id: str
    # Where people see a ticket.
    page: str
    # Every member that it is told of.
    told: Mapping[str, Told]

    def has(self, desk: Server) -> list[dict[str, Any]]:
        """All tickets that are there, in the order in which they were made."""
        tickets: list[dict[str, Any]] = getattr(desk, self.tickets)
        return tickets

    def external(self, desk: Server, number: int = 0) -> dict[str, str]:
        """What a ticket here says of the one there."""
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
    told={
        "subject": Told("Changed", "subject", "Changed"),
        "description": Told("Since ten.", "description", "Since ten."),
        "status": Told("pending", "status", 3),
        "priority": Told("urgent", "priority", 4),
        "requester_email": Told(BOB, "email", BOB),
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
    told={
        "subject": Told("Changed", "subject", "Changed"),
        "description": Told("Since ten.", "comments", [{"body": "Since nine."}, _NOTE]),
        "status": Told("pending", "status", "pending"),
        "priority": Told("urgent", "priority", "urgent"),
        "requester_email": Told(BOB, "requester", {"name": "bob", "email": BOB}),
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
    told={
        "subject": Told("Changed", "short_description", "Changed"),
        "description": Told("Since ten.", "description", "Since ten."),
        "status": Told("pending", "state", "3"),
        "priority": Told("urgent", "priority", "1"),
        "requester_email": Told(BOB, "caller_id", "b0b" + "0" * 29),
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
    told={
        "subject": Told("Changed", "summary", "Changed"),
        "description": Told("Since ten.", "description", "Since ten.\n\nReference: {key}"),
        "status": Told("pending", "status", "Waiting for customer"),
        "priority": Told("urgent", "priority", {"name": "Highest"}),
        "requester_email": Told(BOB, "reporter", {"accountId": "account-bob"}),
    },
)
VENDORS = (FRESHSERVICE, ZENDESK, SERVICENOW, JIRA)


def new(**members: Any) -> NewExternalTicket:
    """A ticket with only what is required, and these."""
    given: dict[str, Any] = {
        "key": str(uuid4()),
        "subject": "Mail is down",
        "description": "Since nine.",
        "status": "open",
    }
    return NewExternalTicket(**{**given, "priority": None, "requester_email": None, **members})


@asynccontextmanager
async def asking(link: Link, patience: float = 10) -> AsyncIterator[Provider]:
    """The adapter of a link, with so many seconds of patience for an answer."""
    async with httpx.AsyncClient(timeout=httpx.Timeout(10, read=patience), verify=_TLS, trust_env=False) as client:
        yield provider(client, link)
