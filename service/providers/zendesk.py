"""Zendesk: https://developer.zendesk.com/api-reference/ticketing/tickets/tickets/ (and ".../ticketing/introduction/").

A description is the ticket's first comment, which nobody can change: a later one is an internal note. A ticket always
has a requester: a null one is the user that we are there, as in a ticket that is made without. Our key is the
`external_id`, which finds a ticket at once, and the Idempotency-Key of its creation, which Zendesk remembers for two
hours. `closed` is final there, also for us: whoever wants to reopen tickets has the link close them as `solved`.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import httpx
from pydantic import ConfigDict

from service.fields import Section
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
_PRIORITIES = {None: None, "low": "low", "medium": "normal", "high": "high", "urgent": "urgent"}
_CLOSED = "closed prevents ticket update"


class Options(Section):
    """What a link to Zendesk says beside its address (https://acme.zendesk.com) and credential.

    The credential is `{email}/token:{API token}`.
    """

    model_config = ConfigDict(extra="forbid")

    # What our `closed` is there.
    closed_as: Literal["closed", "solved"] = "closed"


class Zendesk:
    """One account's Zendesk."""

    def __init__(self, client: httpx.AsyncClient, link: Link) -> None:
        basic = b64encode(link.credential.encode()).decode()
        self._http = Http(client, link, {"authorization": f"Basic {basic}"})
        ourselves = link.credential.partition("/token:")[0]
        closed_as = Options.model_validate(dict(link.options)).closed_as
        statuses = {"open": "open", "pending": "pending", "resolved": "solved", "closed": closed_as}
        self._members: Mapping[str, tuple[str, Callable[[Any], object]]] = {
            "subject": ("subject", _one_line),
            "description": ("comment", lambda text: {"body": f"Description:\n\n{text}", "public": False}),
            "status": ("status", statuses.__getitem__),
            "priority": ("priority", _PRIORITIES.__getitem__),
            "requester_email": ("requester", lambda email: _person(email or ourselves)),
        }

    async def create(self, ticket: NewExternal) -> External:
        """Make the ticket."""
        values = {name: getattr(ticket, name) for name in self._members}
        body = self._body({name: value for name, value in values.items() if value is not None})
        answer = await self._http.send(
            "POST",
            _TICKETS,
            body={"ticket": body | {"comment": {"body": ticket.description}, "external_id": ticket.key}},
            headers={"idempotency-key": ticket.key},
        )
        # In progress, or made for this key with other members, before they were changed here: `find` will tell.
        if answer.status == 409 or (answer.status == 400 and _error(answer) == "IdempotentRequestError"):
            raise UnavailableError("it has seen this key before", done=None)
        _check(answer)
        return self._external(_member(answer, "ticket", dict, done=None), done=None)

    async def find(self, key: str) -> External | None:
        """The ticket that was made for a key, if any."""
        answer = await self._http.send("GET", _TICKETS, params={"external_id": key})
        _check(answer)
        tickets = [one for one in _member(answer, "tickets", list, done=False) if isinstance(one, dict)]
        return next((self._external(one, done=False) for one in tickets if one.get("external_id") == key), None)

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change members."""
        if not changes:
            return
        answer = await self._http.send("PUT", f"{_TICKETS}/{external_id}", body={"ticket": self._body(changes)})
        if answer.status == 404:
            raise rejected("The ticket is no longer in Zendesk")
        if answer.status == 409:
            raise UnavailableError("it answered 409", done=False)
        if answer.status == 422 and any(_CLOSED in words for words in _words(answer.body)):
            # Closed before, perhaps by this very change when its answer was lost.
            if changes == {"status": "closed"}:
                return
            raise rejected("The ticket is closed in Zendesk: it can neither be changed nor reopened there")
        _check(answer)

    def _body(self, values: Mapping[str, Any]) -> dict[str, object]:
        named = ((self._members[name], value) for name, value in values.items())
        return {theirs: convert(value) for (theirs, convert), value in named}

    def _external(self, ticket: Mapping[str, Any], *, done: Literal[False] | None) -> External:
        number = ticket.get("id")
        if not isinstance(number, int):
            raise UnavailableError("its answer has no ticket id", done=done)
        return External(str(number), self._http.link_to(f"/agent/tickets/{number}"))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _person(email: str) -> dict[str, str]:
    # Who is new there must have a name; who is not keeps theirs.
    return {"name": email.rpartition("@")[0], "email": email}


def _check(answer: Answer) -> None:
    """Raise for an answer that is no success. A 404 is of the address: where it could be a ticket's, look before."""
    if answer.status == 404:
        raise UnlinkedError("it answered 404: its address is another")
    if not answer.is_success:
        raise rejected(". ".join(_words(answer.body)))


def _error(answer: Answer) -> Any:
    return answer.body.get("error") if isinstance(answer.body, dict) else None


def _words(body: Any) -> Iterator[str]:
    """{"error": code or {"title", "message"}, "description", "details": {member: [{"description"}]}}."""
    if not isinstance(body, dict):
        return
    error, details = body.get("error"), body.get("details")
    summary = error.get("message") if isinstance(error, dict) else body.get("description") or error
    if summary:
        yield str(summary)
    for issues in details.values() if isinstance(details, dict) else ():
        for issue in issues if isinstance(issues, list) else ():
            if isinstance(issue, dict) and issue.get("description"):
                yield str(issue["description"])


def _member(answer: Answer, name: str, kind: type[Any], *, done: Literal[False] | None) -> Any:
    member = answer.body.get(name) if isinstance(answer.body, dict) else None
    if not isinstance(member, kind):
        raise UnavailableError(f"its answer has no {name}", done=done)
    return member
