"""Freshservice: https://api.freshservice.com/ (API v2, "Tickets").

Statuses and priorities are numbers there. A ticket always has a requester and a priority: a null requester is the
link's `default_email`, a null priority is low, as in a ticket that people make there. A description is HTML, so ours is
escaped. Nothing there is idempotent and no member is for others' keys: a key travels as a tag, and is found by it.
"""

import hashlib
import html
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import httpx
from pydantic import ConfigDict

from service.fields import Email, Section
from service.providers.port import (
    Answer,
    External,
    Http,
    Link,
    NewExternal,
    UnavailableError,
    UnlinkedError,
    rejected,
)

_TICKETS = "/api/v2/tickets"
_STATUSES = {"open": 2, "pending": 3, "resolved": 4, "closed": 5}
_PRIORITIES = {None: 1, "low": 1, "medium": 2, "high": 3, "urgent": 4}
_FROM_PORTAL = 2


class Options(Section):
    """What a link says beside its address (https://acme.freshservice.com) and its credential (an agent's API key)."""

    model_config = ConfigDict(extra="forbid")

    # The requester of tickets that come without one.
    default_email: Email


class Freshservice:
    """One account's Freshservice."""

    def __init__(self, client: httpx.AsyncClient, link: Link) -> None:
        basic = b64encode(f"{link.credential}:X".encode()).decode()
        self._http = Http(client, link, {"authorization": f"Basic {basic}"})
        default_email = Options.model_validate(dict(link.options)).default_email
        self._members: Mapping[str, tuple[str, Callable[[Any], object]]] = {
            "subject": ("subject", _one_line),
            "description": ("description", _as_html),
            "status": ("status", _STATUSES.__getitem__),
            "priority": ("priority", _PRIORITIES.__getitem__),
            "requester_email": ("email", lambda email: email or default_email),
        }

    async def create(self, ticket: NewExternal) -> External:
        """Make the ticket."""
        body = self._body({name: getattr(ticket, name) for name in self._members})
        answer = await self._http.send(
            "POST", _TICKETS, body=body | {"source": _FROM_PORTAL, "tags": [_tag(ticket.key)]}
        )
        _check(answer)
        return self._external(_member(answer, "ticket", dict, done=None), done=None)

    async def find(self, key: str) -> External | None:
        """The ticket that was made for a key, if any."""
        tag = _tag(key)
        searched = await self._http.send("GET", f"{_TICKETS}/filter", params={"query": f"\"tag:'{tag}'\""})
        _check(searched)
        for ticket in _tickets(searched):
            # What a search finds comes without its tags.
            found = self._external(ticket, done=False)
            if await self._is_tagged(found.id, tag):
                return found
        # It takes minutes until a search knows a ticket. The list, newest first, knows it at once.
        listed = await self._http.send("GET", _TICKETS, params={"include": "tags", "per_page": "100"})
        _check(listed)
        return next((self._external(one, done=False) for one in _tickets(listed) if _has(one, tag)), None)

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change members."""
        if not changes:
            return
        answer = await self._http.send("PUT", f"{_TICKETS}/{external_id}", body=self._body(changes))
        if answer.status == 404:
            raise rejected("The ticket is no longer in Freshservice")
        _check(answer)

    def _body(self, values: Mapping[str, Any]) -> dict[str, object]:
        named = ((self._members[name], value) for name, value in values.items())
        return {theirs: convert(value) for (theirs, convert), value in named}

    async def _is_tagged(self, external_id: str, tag: str) -> bool:
        answer = await self._http.send("GET", f"{_TICKETS}/{external_id}", params={"include": "tags"})
        if answer.status == 404:
            return False
        _check(answer)
        return _has(_member(answer, "ticket", dict, done=False), tag)

    def _external(self, ticket: Mapping[str, Any], *, done: Literal[False] | None) -> External:
        number = ticket.get("id")
        if not isinstance(number, int):
            raise UnavailableError("its answer has no ticket id", done=done)
        return External(str(number), self._http.link_to(f"/a/tickets/{number}"))


def _tag(key: str) -> str:
    # Freshworks' tags are at most 32 characters long, a UUID is longer; and a search may take it for five words.
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _as_html(text: str) -> str:
    return html.escape(text, quote=False).replace("\r\n", "\n").replace("\n", "<br>")


def _check(answer: Answer) -> None:
    """Raise for an answer that is no success. A 404 is of the address: where it could be a ticket's, look before."""
    if answer.status == 404:
        raise UnlinkedError("it answered 404: its address is another")
    if not answer.is_success:
        raise rejected(". ".join(_words(answer.body)))


def _words(body: Any) -> Iterator[str]:
    """Either {"description", "errors": [{"field", "message", "code"}]} or {"code", "message"}."""
    if not isinstance(body, dict):
        return
    for name in ("description", "message"):
        if body.get(name):
            yield str(body[name])
    errors = body.get("errors")
    for error in errors if isinstance(errors, list) else ():
        if isinstance(error, dict):
            yield ": ".join(str(error[name]) for name in ("field", "message") if error.get(name))


def _has(ticket: Mapping[str, Any], tag: str) -> bool:
    tags = ticket.get("tags")
    return isinstance(tags, list) and tag in tags


def _tickets(answer: Answer) -> list[dict[str, Any]]:
    tickets = _member(answer, "tickets", list, done=False)
    return [ticket for ticket in tickets if isinstance(ticket, dict)]


def _member(answer: Answer, name: str, kind: type[Any], *, done: Literal[False] | None) -> Any:
    member = answer.body.get(name) if isinstance(answer.body, dict) else None
    if not isinstance(member, kind):
        raise UnavailableError(f"its answer has no {name}", done=done)
    return member
