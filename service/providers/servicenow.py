"""ServiceNow: incidents through the Table API (docs.servicenow.com: REST API reference, Table API).

The credential is `user:password` (Basic). What maps to what:

- subject: `short_description` (ServiceNow cuts it at 160 characters, and `description` at 4000, unless an instance
  allows more); key: `correlation_id`; the external id is the `sys_id`.
- status: `state`; open is New at first and In Progress later. On hold says why, resolved and closed say how (Options).
- priority: `impact` and `urgency`, from which ServiceNow works out its own: Critical, High, Moderate, Low;
  none is Planning.
- requester: `caller_id`, the active user with that e-mail address; empty where there is none.

Data policies and business rules of an instance refuse with 403, as a missing right does: for the operator to mend.
"""

import base64
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import ConfigDict, StringConstraints

from service.fields import Section, without_nul
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

_INCIDENTS = "/api/now/table/incident"
_USERS = "/api/now/table/sys_user"
_TEXTS = {"subject": "short_description", "description": "description"}
_NEW_STATES = {"open": "1", "pending": "3", "resolved": "6", "closed": "7"}
_LATER_STATES = _NEW_STATES | {"open": "2"}
# Impact and urgency.
_PRIORITIES = {"urgent": ("1", "1"), "high": ("2", "1"), "medium": ("2", "2"), "low": ("2", "3"), None: ("3", "3")}
# More than one is nobody's intention; what comes first stays first.
_FEW = "10"

_Choice = Annotated[str, StringConstraints(min_length=1, max_length=40), without_nul]
_Note = Annotated[str, StringConstraints(min_length=1, max_length=4000), without_nul]


class Options(Section):
    """What an instance wants to know with some states: values of the choices of its incidents."""

    model_config = ConfigDict(extra="forbid")

    close_code: _Choice = "Solution provided"
    close_notes: _Note = "Resolved by the requester's organisation"
    # 1 is Awaiting Caller.
    hold_reason: _Choice = "1"


class ServiceNow:
    """One instance."""

    def __init__(self, client: httpx.AsyncClient, link: Link) -> None:
        basic = base64.b64encode(link.credential.encode()).decode()
        self._http = Http(client, link, {"authorization": f"Basic {basic}"})
        self._options = Options.model_validate(link.options)

    async def create(self, ticket: NewExternal) -> External:
        """Make the incident. There is no idempotency at ServiceNow: `find` before asking again."""
        body = self._members(ticket._asdict(), _NEW_STATES) | {"correlation_id": ticket.key}
        caller = await self._caller(ticket.requester_email)
        if caller:
            body["caller_id"] = caller
        answer = await self._http.send("POST", _INCIDENTS, params={"sysparm_fields": "sys_id"}, body=body)
        if answer.status == 404:
            # There is no such table: it is the address that is wrong, not the ticket.
            raise UnlinkedError(_words(answer))
        if not answer.is_success:
            raise rejected(_words(answer))
        made = self._external(_result(answer))
        if made is None:
            raise UnavailableError("it named no sys_id", done=None)
        return made

    async def find(self, key: str) -> External | None:
        """The first incident with this correlation id."""
        for row in await self._rows(_INCIDENTS, "correlation_id", key, ""):
            # An instance that does not know or may not show a member ignores the condition, and answers with anything.
            if row.get("correlation_id") == key and (found := self._external(row)):
                return found
        return None

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change members, all at once."""
        body = self._members(changes, _LATER_STATES)
        if "requester_email" in changes:
            body["caller_id"] = await self._caller(changes["requester_email"])
        path = f"{_INCIDENTS}/{quote(external_id, safe='')}"
        answer = await self._http.send("PATCH", path, params={"sysparm_fields": "sys_id"}, body=body)
        if not answer.is_success:
            raise rejected(_words(answer))

    def _members(self, values: Mapping[str, Any], states: Mapping[str, str]) -> dict[str, str]:
        """The body for those members that need no question first."""
        body = {theirs: values[ours] for ours, theirs in _TEXTS.items() if ours in values}
        if "priority" in values:
            body["impact"], body["urgency"] = _PRIORITIES[values["priority"]]
        if "status" in values:
            body["state"] = states[values["status"]]
        if values.get("status") == "pending":
            body["hold_reason"] = self._options.hold_reason
        if values.get("status") in ("resolved", "closed"):
            body |= {"close_code": self._options.close_code, "close_notes": self._options.close_notes}
        return body

    async def _caller(self, email: str | None) -> str:
        """The `sys_id` of the user with an e-mail address; empty for nobody."""
        if email is None:
            return ""
        for row in await self._rows(_USERS, "email", email, "^active=true"):
            if str(row.get("email")).lower() == email.lower():
                return str(row.get("sys_id") or "")
        return ""

    async def _rows(self, table: str, member: str, value: str, condition: str) -> list[dict[str, Any]]:
        """The few oldest rows of a table that have a value, by what the instance says."""
        # In a query `^` is "and", unless it is doubled.
        query = f"{member}={value.replace('^', '^^')}{condition}^ORDERBYsys_created_on"
        params = {"sysparm_query": query, "sysparm_fields": f"sys_id,{member}", "sysparm_limit": _FEW}
        answer = await self._http.send("GET", table, params=params)
        if not answer.is_success:
            # It says nothing of the ticket, so it is no rejection.
            raise UnlinkedError(_words(answer))
        rows = _result(answer)
        if not isinstance(rows, list):
            raise UnavailableError("it answered a search without a result", done=False)
        return [row for row in rows if isinstance(row, dict)]

    def _external(self, row: Any) -> External | None:
        sys_id = row.get("sys_id") if isinstance(row, dict) else None
        if not isinstance(sys_id, str) or not sys_id:
            return None
        return External(sys_id, self._http.link_to(f"/nav_to.do?uri=incident.do%3Fsys_id%3D{quote(sys_id, safe='')}"))


def _result(answer: Answer) -> Any:
    return answer.body.get("result") if isinstance(answer.body, dict) else None


def _words(answer: Answer) -> str:
    error = answer.body.get("error") if isinstance(answer.body, dict) else None
    if not isinstance(error, dict):
        return f"It answered {answer.status}"
    return ": ".join(str(error[name]) for name in ("message", "detail") if error.get(name))
