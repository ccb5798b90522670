"""Freshservice: https://api.freshservice.com/ (API v2, "Tickets").

Statuses and priorities are numbers there. A ticket always has a requester and a priority: a null requester is the
link's `default_email`, a null priority is low, as in a ticket that people create there. A description is HTML, so ours
is escaped. Nothing there is idempotent and no member is for foreign keys: our key is a tag, and is found by it.
"""

import hashlib
import html
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import httpx2

from service.fields import Email
from service.providers.http import Answer, Http, Members, check, found, member, one_line, rejected, translated
from service.providers.port import ExternalTicket, Link, LinkOptions, NewExternalTicket

_TICKETS = "/api/v2/tickets"
_STATUSES = {"open": 2, "pending": 3, "resolved": 4, "closed": 5}
_PRIORITIES = {None: 1, "low": 1, "medium": 2, "high": 3, "urgent": 4}
_FROM_PORTAL = 2


class Options(LinkOptions):
    """What a link has beside its address (https://acme.freshservice.com) and its credential (an agent's API key)."""

    credential_form: ClassVar[str] = "an API key, without a colon"
    credential_pattern: ClassVar[str] = r"[^:]+"
    # The requester of tickets without one.
    default_email: Email


class Freshservice:
    """One account's Freshservice."""

    def __init__(self, client: httpx2.AsyncClient, link: Link) -> None:
        self._http = Http(client, link.url, f"{link.credential}:X")
        default_email = Options.model_validate(link.options).default_email
        self._members: Members = {
            "subject": ("subject", one_line),
            "description": ("description", _as_html),
            "status": ("status", _STATUSES.__getitem__),
            "priority": ("priority", _PRIORITIES.__getitem__),
            "requester_email": ("email", lambda email: email or default_email),
        }

    async def create(self, ticket: NewExternalTicket) -> ExternalTicket:
        """Create the ticket."""
        body = translated(ticket._asdict(), self._members) | {"source": _FROM_PORTAL, "tags": [_tag(ticket.key)]}
        answer = await self._http.send("POST", _TICKETS, body=body)
        check(answer, _message)
        return self._external(member(answer.body, "ticket", dict, in_doubt=True), in_doubt=True)

    async def find(self, key: str) -> ExternalTicket | None:
        """The ticket that was created under a key, if any."""
        tag = _tag(key)
        searched = await self._http.send("GET", f"{_TICKETS}/filter", params={"query": f"\"tag:'{tag}'\""})
        check(searched, _message)
        for ticket in found(searched.body, "tickets"):
            # A search shows tickets without their tags.
            external = self._external(ticket, in_doubt=False)
            if await self._is_tagged(external.id, tag):
                return external
        # A search finds a ticket only minutes after its creation. The list, newest first, has it at once.
        listed = await self._http.send("GET", _TICKETS, params={"include": "tags", "per_page": "100"})
        check(listed, _message)
        tickets = found(listed.body, "tickets")
        return next((self._external(one, in_doubt=False) for one in tickets if _has(one, tag)), None)

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change members."""
        if not changes:
            return
        answer = await self._http.send("PUT", f"{_TICKETS}/{external_id}", body=translated(changes, self._members))
        if answer.status == 404:
            raise rejected("The ticket is no longer in Freshservice")
        check(answer, _message)

    async def _is_tagged(self, external_id: str, tag: str) -> bool:
        answer = await self._http.send("GET", f"{_TICKETS}/{external_id}", params={"include": "tags"})
        if answer.status == 404:
            return False
        check(answer, _message)
        return _has(member(answer.body, "ticket", dict, in_doubt=False), tag)

    def _external(self, ticket: Mapping[str, Any], *, in_doubt: bool) -> ExternalTicket:
        number = member(ticket, "id", int, in_doubt=in_doubt)
        return ExternalTicket(str(number), self._http.link_to(f"/a/tickets/{number}"))


def _tag(key: str) -> str:
    # Tags have at most 32 characters and a UUID has more; and a search may split it into five words.
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _as_html(text: str) -> str:
    return html.escape(text, quote=False).replace("\r\n", "\n").replace("\n", "<br>")


def _message(answer: Answer) -> str:
    return ". ".join(_sentences(answer.members))


def _sentences(members: Mapping[str, Any]) -> Iterator[str]:
    """Either {"description", "errors": [{"field", "message", "code"}]} or {"code", "message"}."""
    for name in ("description", "message"):
        if members.get(name):
            yield str(members[name])
    errors = members.get("errors")
    for error in errors if isinstance(errors, list) else ():
        if isinstance(error, dict):
            yield ": ".join(str(error[name]) for name in ("field", "message") if error.get(name))


def _has(ticket: Mapping[str, Any], tag: str) -> bool:
    tags = ticket.get("tags")
    return isinstance(tags, list) and tag in tags
