"""Zendesk: https://developer.zendesk.com/api-reference/ticketing/tickets/tickets/ (and ".../ticketing/introduction/").

A description is the ticket's first comment, which cannot be changed: a later one is an internal note. A ticket always
has a requester: a null one is the user of the credential, as in a ticket that is created without. Our key is the
`external_id`, which finds a ticket at once, and the Idempotency-Key of its creation, which Zendesk remembers for two
hours. `closed` is final there, also for us: to have tickets reopened, let the link close them as `solved`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import httpx2

from service.providers.http import Answer, Http, Members, check, found, member, one_line, rejected, translated
from service.providers.port import ExternalTicket, Link, LinkOptions, NewExternalTicket, UnavailableError

_TICKETS = "/api/v2/tickets"
# What `closed` is there, the link says (Options).
_STATUSES = {"open": "open", "pending": "pending", "resolved": "solved", "closed": "closed"}
_PRIORITIES = {None: None, "low": "low", "medium": "normal", "high": "high", "urgent": "urgent"}
_CLOSED = "closed prevents ticket update"


class Options(LinkOptions):
    """What a link to Zendesk has beside its address (https://acme.zendesk.com) and credential."""

    credential_form: ClassVar[str] = "mail/token:token"
    credential_pattern: ClassVar[str] = r".+/token:.+"

    # What our `closed` becomes at Zendesk.
    closed_as: Literal["closed", "solved"] = "closed"


class Zendesk:
    """One account's Zendesk."""

    def __init__(self, client: httpx2.AsyncClient, link: Link) -> None:
        self._http = Http(client, link.url, link.credential)
        our_email = link.credential.partition("/token:")[0]
        statuses = _STATUSES | {"closed": Options.model_validate(link.options).closed_as}
        self._members: Members = {
            "subject": ("subject", one_line),
            "description": ("comment", lambda text: {"body": f"Description:\n\n{text}", "public": False}),
            "status": ("status", statuses.__getitem__),
            "priority": ("priority", _PRIORITIES.__getitem__),
            "requester_email": ("requester", lambda email: _person(email or our_email)),
        }

    async def create(self, ticket: NewExternalTicket) -> ExternalTicket:
        """Create the ticket."""
        values = {name: value for name, value in ticket._asdict().items() if value is not None}
        body = translated(values, self._members)
        answer = await self._http.send(
            "POST",
            _TICKETS,
            body={"ticket": body | {"comment": {"body": ticket.description}, "external_id": ticket.key}},
            headers={"idempotency-key": ticket.key},
        )
        # It is in progress, or was created under this key with members that have changed here since: `find` knows.
        if answer.status == 400 and answer.members.get("error") == "IdempotentRequestError":
            raise UnavailableError("the provider has seen this key before", in_doubt=True)
        check(answer, _message)
        return self._external(member(answer.body, "ticket", dict, in_doubt=True), in_doubt=True)

    async def find(self, key: str) -> ExternalTicket | None:
        """The ticket that was created under a key, if any."""
        answer = await self._http.send("GET", _TICKETS, params={"external_id": key})
        check(answer, _message)
        tickets = found(answer.body, "tickets")
        return next((self._external(one, in_doubt=False) for one in tickets if one.get("external_id") == key), None)

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change members."""
        if not changes:
            return
        answer = await self._http.send(
            "PUT", f"{_TICKETS}/{external_id}", body={"ticket": translated(changes, self._members)}
        )
        if answer.status == 404:
            raise rejected("The ticket is no longer in Zendesk")
        if answer.status == 422 and _CLOSED in _message(answer):
            # The ticket is closed already, perhaps by an earlier attempt at this change whose answer was lost.
            if changes == {"status": "closed"}:
                return
            raise rejected("The ticket is closed in Zendesk: it can neither be changed nor reopened there")
        check(answer, _message)

    def _external(self, ticket: Mapping[str, Any], *, in_doubt: bool) -> ExternalTicket:
        number = member(ticket, "id", int, in_doubt=in_doubt)
        return ExternalTicket(str(number), self._http.link_to(f"/agent/tickets/{number}"))


def _person(email: str) -> dict[str, str]:
    # A new user must have a name; an existing one keeps theirs.
    return {"name": email.rpartition("@")[0], "email": email}


def _message(answer: Answer) -> str:
    return ". ".join(_sentences(answer.members))


def _sentences(members: Mapping[str, Any]) -> Iterator[str]:
    """{"error": code or {"title", "message"}, "description", "details": {member: [{"description"}]}}."""
    error, details = members.get("error"), members.get("details")
    summary = error.get("message") if isinstance(error, dict) else members.get("description") or error
    if summary:
        yield str(summary)
    for issues in details.values() if isinstance(details, dict) else ():
        for issue in issues if isinstance(issues, list) else ():
            if isinstance(issue, dict) and issue.get("description"):
                yield str(issue["description"])
