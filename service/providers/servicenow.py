"""ServiceNow: incidents through the Table API (docs.servicenow.com: REST API reference, Table API).

The credential is `user:password` (Basic). What maps to what:

- subject: `short_description` (ServiceNow cuts it at 160 characters, and `description` at 4000, unless an instance
  allows more); key: `correlation_id`; the external id is the `sys_id`.
- status: `state`; open is New at first and In Progress later. On hold says why, resolved and closed say how (Options).
- priority: `impact` and `urgency`, from which ServiceNow works out its own: Critical, High, Moderate, Low;
  none is Planning.
- requester: `caller_id`, the active user with that e-mail address; empty where there is none.

A 403 of a write is a rejection where its `detail` names a data policy or a business rule, which check the record
("Data Policy Exception: ...", "Operation against file 'incident' was aborted by Business Rule '...'"). Any other is a
missing permission ("ACL Exception Insert Failed due to security constraints", "Failed API level ACL Validation") or
unknown: for the operator to mend.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import httpx2
from pydantic import StringConstraints

from service.fields import without_nul
from service.providers.http import Answer, Http, check, found, member
from service.providers.port import ExternalTicket, Link, LinkBrokenError, LinkOptions, NewExternalTicket

_INCIDENTS = "/api/now/table/incident"
_USERS = "/api/now/table/sys_user"
_TEXTS = {"subject": "short_description", "description": "description"}
_NEW_STATES = {"open": "1", "pending": "3", "resolved": "6", "closed": "7"}
_LATER_STATES = _NEW_STATES | {"open": "2"}
# Impact and urgency.
_PRIORITIES = {"urgent": ("1", "1"), "high": ("2", "1"), "medium": ("2", "2"), "low": ("2", "3"), None: ("3", "3")}
# There should be one; where there are several, the oldest counts.
_SEARCH_LIMIT = "10"
# How the detail of a rejection begins, and what it contains.
_DATA_POLICY = "Data Policy Exception"
_BUSINESS_RULE = "aborted by Business Rule"

_Choice = Annotated[str, StringConstraints(min_length=1, max_length=40), without_nul]
_Note = Annotated[str, StringConstraints(min_length=1, max_length=4000), without_nul]


class Options(LinkOptions):
    """What an instance demands with some states: values of the choices of its incidents."""

    close_code: _Choice = "Solution provided"
    close_notes: _Note = "Resolved by the requester's organisation"
    # 1 is Awaiting Caller.
    hold_reason: _Choice = "1"


class ServiceNow:
    """One instance."""

    def __init__(self, client: httpx2.AsyncClient, link: Link) -> None:
        self._http = Http(client, link.url, link.credential)
        self._options = Options.model_validate(link.options)

    async def create(self, ticket: NewExternalTicket) -> ExternalTicket:
        """Create the incident. ServiceNow has no idempotency: `find` before a retry."""
        body = self._members(ticket._asdict(), _NEW_STATES) | {"correlation_id": ticket.key}
        caller = await self._caller(ticket.requester_email)
        if caller:
            body["caller_id"] = caller
        answer = await self._write("POST", _INCIDENTS, body)
        if answer.status == 404:
            # There is no such table: the address is wrong, not the ticket.
            raise LinkBrokenError(_message(answer))
        check(answer, _message)
        return self._external(member(answer.body, "result", dict, in_doubt=True), in_doubt=True)

    async def find(self, key: str) -> ExternalTicket | None:
        """The first incident with this correlation id."""
        for row in await self._rows(_INCIDENTS, "correlation_id", key, ""):
            # An instance ignores a condition on a column that it does not have or may not show, and returns any row.
            if row.get("correlation_id") == key:
                return self._external(row, in_doubt=False)
        return None

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change members, all at once."""
        body = self._members(changes, _LATER_STATES)
        if "requester_email" in changes:
            body["caller_id"] = await self._caller(changes["requester_email"])
        answer = await self._write("PATCH", f"{_INCIDENTS}/{quote(external_id, safe='')}", body)
        check(answer, _message, of_ticket=True)

    async def _write(self, method: str, path: str, body: Mapping[str, str]) -> Answer:
        fields = {"sysparm_fields": "sys_id"}
        return await self._http.send(method, path, params=fields, body=body, is_rejection=_rejects_record)

    def _members(self, values: Mapping[str, Any], states: Mapping[str, str]) -> dict[str, str]:
        """The body for those members that need no search first."""
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
        """The `sys_id` of the user with an e-mail address; empty where there is none."""
        if email is None:
            return ""
        for row in await self._rows(_USERS, "email", email, "^active=true"):
            if str(row.get("email")).lower() == email.lower():
                return str(row.get("sys_id") or "")
        return ""

    async def _rows(self, table: str, name: str, value: str, condition: str) -> list[dict[str, Any]]:
        """The oldest rows of a table that have a value, as far as the instance can tell."""
        # In a query `^` is "and", unless it is doubled.
        query = f"{name}={value.replace('^', '^^')}{condition}^ORDERBYsys_created_on"
        params = {"sysparm_query": query, "sysparm_fields": f"sys_id,{name}", "sysparm_limit": _SEARCH_LIMIT}
        answer = await self._http.send("GET", table, params=params)
        if not answer.is_success:
            # The search is not about the ticket, so this is not a rejection.
            raise LinkBrokenError(_message(answer))
        return found(answer.body, "result")

    def _external(self, row: Mapping[str, Any], *, in_doubt: bool) -> ExternalTicket:
        sys_id = member(row, "sys_id", str, in_doubt=in_doubt)
        return ExternalTicket(
            sys_id, self._http.link_to(f"/nav_to.do?uri=incident.do%3Fsys_id%3D{quote(sys_id, safe='')}")
        )


def _message(answer: Answer) -> str:
    error = answer.members.get("error")
    if not isinstance(error, dict):
        return f"The provider answered {answer.status}"
    return ": ".join(str(error[name]) for name in ("message", "detail") if error.get(name))


def _rejects_record(answer: Answer) -> bool:
    """Whether a 403 rejects this very record: the message is the same where a permission is missing."""
    error = answer.members.get("error")
    detail = error.get("detail") if isinstance(error, dict) else None
    return isinstance(detail, str) and (detail.startswith(_DATA_POLICY) or _BUSINESS_RULE in detail)
