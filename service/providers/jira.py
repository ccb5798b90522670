"""Jira Service Management: customer requests (developer.atlassian.com: Jira Service Management Cloud, and Jira v2).

The credential is `email:apitoken` (Basic), the link's URL that of the site. Version 2 of Jira's API takes descriptions
as text. What maps to what:

- subject: `summary`, in one line; the external id is the issue's key.
- key: the custom field `reference_field`, or else the last line of the description.
- status: the transition that the options name for it. A status without one is left as it is. A transition that an issue
  does not offer is a rejection, unless the issue is done as resolved and closed are, or not done as the others are:
  then it was made earlier, or one status of theirs stands for two of ours. A new request is open; if its workflow
  offers no way on from there, it stays so.
- priority: theirs that the options name; one without a name is left as it is, and so is none: Jira's is never empty.
- requester: `raiseOnBehalfOf`, later `reporter`; none is the user of the credential. A person whom Jira does not know
  is a rejection.

Which fields and priorities a request has is up to its request type: Jira rejects others. A search finds a request some
seconds after its creation.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

import httpx2
from pydantic import Field, StringConstraints

from service.fields import without_nul
from service.providers.http import Answer, Http, check, found, member, one_line, rejected
from service.providers.port import (
    ExternalTicket,
    Link,
    LinkBrokenError,
    LinkOptions,
    NewExternalTicket,
    RejectedError,
    UnavailableError,
)

_REFERENCE = re.compile(r"Reference: \S+")
_DONE = ("resolved", "closed")

# The values of ours that a link's options may name.
_Status = Literal["open", "pending", "resolved", "closed"]
_Priority = Literal["low", "medium", "high", "urgent"]

_Id = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=60), without_nul]


class Options(LinkOptions):
    """Where requests are created, and the account's own ids of transitions and names of priorities."""

    credential_form: ClassVar[str] = "mail:token"
    service_desk_id: _Id
    request_type_id: _Id
    transitions: dict[_Status, _Id] = Field(default_factory=dict)
    priorities: dict[_Priority, _Name] = Field(default_factory=dict)
    # A text field of the request type.
    reference_field: Annotated[str, StringConstraints(pattern=r"^customfield_[0-9]{1,18}$")] | None = None


class Jira:
    """One service desk of a site."""

    def __init__(self, client: httpx2.AsyncClient, link: Link) -> None:
        self._http = Http(client, link.url, link.credential)
        self._options = Options.model_validate(link.options)
        self._transitions: Mapping[Any, str] = self._options.transitions
        self._priorities: Mapping[Any, str] = self._options.priorities

    async def create(self, ticket: NewExternalTicket) -> ExternalTicket:
        """Create the request, then move it to its status. Jira has no idempotency: `find` before a retry."""
        fields = {"summary": one_line(ticket.subject)} | self._priority(ticket.priority)
        if self._options.reference_field is None:
            fields["description"] = _with_reference(ticket.description, _reference(ticket.key))
        else:
            fields |= {"description": ticket.description, self._options.reference_field: ticket.key}
        body = {
            "serviceDeskId": self._options.service_desk_id,
            "requestTypeId": self._options.request_type_id,
            "requestFieldValues": fields,
        }
        if ticket.requester_email is not None:
            body["raiseOnBehalfOf"] = ticket.requester_email
        answer = await self._http.send("POST", "/rest/servicedeskapi/request", body=body)
        if answer.status == 404:
            # There is no such service desk or request type: the link is wrong, not the ticket.
            raise LinkBrokenError(_message(answer))
        check(answer, _message)
        issue = member(answer.body, "issueKey", str, in_doubt=True)
        if ticket.status != "open":
            await self._move_new(issue, ticket.status)
        return self._external(issue)

    async def find(self, key: str) -> ExternalTicket | None:
        """The first request with this reference."""
        field = self._options.reference_field
        searched = "description" if field is None else f"cf[{field.removeprefix('customfield_')}]"
        # The key is searched as a phrase, so that it is found as a whole; there is no search for equal text.
        phrase = re.sub(r'["\\]', " ", key)
        jql = f'{searched} ~ "\\"{phrase}\\"" ORDER BY created ASC'
        params = {"jql": jql, "fields": field or "description", "maxResults": "50"}
        for issue in found(await self._read("/rest/api/2/search/jql", params), "issues"):
            if self._is_for(key, issue.get("fields")):
                return self._external(member(issue, "key", str, in_doubt=False))
        return None

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change fields, then the status. Safe to retry where only a part was done."""
        path = _path(external_id)
        fields: dict[str, Any] = {}
        if "subject" in changes:
            fields["summary"] = one_line(changes["subject"])
        if "description" in changes:
            fields["description"] = await self._with_kept_reference(path, changes["description"])
        if "priority" in changes:
            fields |= self._priority(changes["priority"])
        if "requester_email" in changes:
            fields["reporter"] = {"accountId": await self._account(changes["requester_email"])}
        if fields:
            check(await self._http.send("PUT", path, body={"fields": fields}), _message, of_ticket=True)
        if "status" in changes:
            await self._move(external_id, changes["status"])

    def _external(self, issue: str) -> ExternalTicket:
        return ExternalTicket(issue, self._http.link_to(f"/browse/{quote(issue, safe='')}"))

    def _priority(self, priority: str | None) -> dict[str, Any]:
        name = self._priorities.get(priority)
        return {} if name is None else {"priority": {"name": name}}

    def _is_for(self, key: str, fields: Any) -> bool:
        if self._options.reference_field is not None:
            return _text(fields, self._options.reference_field) == key
        return _last_line(_text(fields, "description")) == _reference(key)

    async def _with_kept_reference(self, path: str, description: str) -> str:
        """A new description, with the reference line kept as it is."""
        if self._options.reference_field is not None:
            return description
        issue = await self._read(path, {"fields": "description"}, is_issue=True)
        line = _last_line(_text(issue.get("fields") if isinstance(issue, dict) else None, "description"))
        return _with_reference(description, line) if _REFERENCE.fullmatch(line) else description

    async def _account(self, email: str | None) -> str:
        """The account id of the person with an e-mail address; our own for None."""
        if email is None:
            people: Any = [await self._read("/rest/api/2/myself", {})]
        else:
            known = await self._read("/rest/api/2/user/search", {"query": email})
            people = known if isinstance(known, list) else []
            people = [one for one in people if (_text(one, "emailAddress") or "").lower() == email.lower()]
            if not people:
                raise rejected(f"The reporter specified is not a user: {email}")
        return member(people[0], "accountId", str, in_doubt=False)

    async def _move_new(self, issue: str, status: str) -> None:
        """Move a new request to its status; the request exists however that ends."""
        try:
            await self._move(issue, status)
        except RejectedError:
            # The request itself was not rejected: its workflow just has no such transition.
            return
        except (UnavailableError, LinkBrokenError) as error:
            after = error.retry_after if isinstance(error, UnavailableError) else None
            raise UnavailableError(
                f"created, but not moved to its status: {error}", in_doubt=True, retry_after=after
            ) from error

    async def _move(self, issue: str, status: str) -> None:
        transition = self._transitions.get(status)
        if transition is None:
            return
        path = _path(issue)
        there = await self._read(path, {"fields": "status", "expand": "transitions"}, is_issue=True)
        try:
            offered = [one["id"] for one in there["transitions"]]
            now = there["fields"]["status"]
            is_done = now["statusCategory"]["key"] == "done"
        except (KeyError, TypeError):
            raise UnavailableError("the provider's answer names no status or transitions", in_doubt=False) from None
        if transition not in offered:
            if is_done == (status in _DONE):
                return
            raise rejected(f"The transition {transition} is not valid for the status {now.get('name')} of this issue")
        answer = await self._http.send("POST", f"{path}/transitions", body={"transition": {"id": transition}})
        check(answer, _message, of_ticket=True)

    async def _read(self, path: str, params: Mapping[str, str], *, is_issue: bool = False) -> Any:
        """The answer to a GET. A refusal is a rejection where it is about the issue, else the link is broken."""
        answer = await self._http.send("GET", path, params=params)
        if answer.is_success:
            return answer.body
        raise rejected(_message(answer)) if is_issue else LinkBrokenError(_message(answer))


def _path(issue: str) -> str:
    return f"/rest/api/2/issue/{quote(issue, safe='')}"


def _reference(key: str) -> str:
    return f"Reference: {key}"


def _with_reference(description: str, reference: str) -> str:
    return f"{description}\n\n{reference}"


def _last_line(text: str | None) -> str:
    return (text or "").rstrip().rpartition("\n")[2]


def _text(value: Any, name: str) -> str | None:
    text = value.get(name) if isinstance(value, dict) else None
    return text if isinstance(text, str) and text else None


def _message(answer: Answer) -> str:
    """Jira has one shape of errors, and its service desk another."""
    messages, fields = answer.members.get("errorMessages"), answer.members.get("errors")
    parts = [answer.members.get("errorMessage")] + (messages if isinstance(messages, list) else [])
    parts += [f"{name}: {text}" for name, text in fields.items()] if isinstance(fields, dict) else []
    return "; ".join(str(part) for part in parts if part) or f"The provider answered {answer.status}"
