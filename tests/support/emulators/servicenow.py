"""A strict ServiceNow: the Table API for incidents and users, of an instance that demands what real ones may."""

import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from support.emulators.http import Fault, RefusedError, Request, Response, Server

CREDENTIAL = "ticket.service:s3cret:ü"
# Status, message and detail.
Refusal = tuple[int, str, str]
_STACK = "Business Rule 'No weekends^5230b9179735ca504546f027f053af79'. Business Rule Stack:No weekends"
# How the rules of real instances reject a record.
BY_RULES: Mapping[str, Refusal] = {
    "data policy": (
        403,
        "Operation Failed",
        "Data Policy Exception: \n\tThe following fields are mandatory: Close notes",
    ),
    "data policy of one field": (403, "Operation Failed", "Data Policy Exception: Short description is mandatory"),
    "business rule": (403, "Operation Failed", f"Operation against file 'incident' was aborted by {_STACK}"),
}
# How they refuse a user without permission.
BY_RIGHTS: Mapping[str, Refusal] = {
    "no right to insert": (403, "Operation Failed", "ACL Exception Insert Failed due to security constraints"),
    "no right to update": (403, "Operation Failed", "ACL Exception Update Failed due to security constraints"),
    "no right to the API": (403, "User Not Authorized", "Failed API level ACL Validation"),
    "unknown": (401, "User Not Authenticated", "Required to provide Auth information"),
}

_TABLES = {
    "incident": {
        "short_description",
        "description",
        "state",
        "hold_reason",
        "close_code",
        "close_notes",
        "impact",
        "urgency",
        "caller_id",
        "correlation_id",
    },
    "sys_user": {"email", "active"},
}
_CHOICES = {
    "state": {"1", "2", "3", "6", "7"},
    "hold_reason": {"1", "3", "4", "5"},
    "close_code": {"Solution provided", "Resolved by caller", "No resolution provided"},
    "impact": {"1", "2", "3"},
    "urgency": {"1", "2", "3"},
}
_LENGTHS = {"short_description": 160, "description": 4000, "correlation_id": 100}
_MATRIX = {
    **dict.fromkeys(["11"], "1"),
    **dict.fromkeys(["12", "21"], "2"),
    **dict.fromkeys(["13", "22", "31"], "3"),
    **dict.fromkeys(["23", "32"], "4"),
    **dict.fromkeys(["33"], "5"),
}
_DEMANDED = {"3": ("hold_reason",), "6": ("close_code", "close_notes"), "7": ("close_code", "close_notes")}


def _refused(status: int, message: str, detail: str | None = None) -> RefusedError:
    return RefusedError(Response(status, {"error": {"message": message, "detail": detail}, "status": "failure"}))


class ServiceNow(Server):
    """One instance; its incidents are in the order of their creation."""

    def __init__(self) -> None:
        super().__init__(self._take)
        self.incidents: list[dict[str, str]] = []
        self.users: list[dict[str, str]] = []
        # How it refuses writes, and searches.
        self.refusal: Refusal | None = None
        self.search_refusal: Refusal | None = None
        # Old instances and missing permissions: a condition on an unknown member is ignored, so everything matches.
        self.ignores_conditions = False

    def user(self, email: str, *, active: bool = True) -> str:
        """Create a user; its `sys_id`."""
        self.users.append({"sys_id": uuid.uuid4().hex, "email": email, "active": str(active).lower()})
        return self.users[-1]["sys_id"]

    def _take(self, request: Request) -> Response:
        _check_headers(request)
        match = re.fullmatch(r"/api/now/table/(\w+)(?:/([0-9a-f]{32}))?", request.path)
        if match is None:
            raise _refused(400, "Requested URI does not represent any resource", request.path)
        table, sys_id = match.groups()
        if table not in _TABLES:
            raise _refused(404, f"Invalid table {table}")
        if (request.method, sys_id is None) == ("GET", True):
            return self._search(table, request.query)
        if table != "incident" or (request.method, sys_id is None) not in (("POST", True), ("PATCH", False)):
            raise _refused(405, "Method not supported")
        return self._write(sys_id, request)

    def _write(self, sys_id: str | None, request: Request) -> Response:
        body = _checked(request.body)
        if self.refusal is not None:
            raise _refused(*self.refusal)
        known = {one["sys_id"]: one for one in self.incidents}
        if sys_id is not None and sys_id not in known:
            raise _refused(404, "No Record found", "Record doesn't exist or ACL restricts the record retrieval")
        number = f"INC{10001 + len(self.incidents):07}"
        new = {"sys_id": uuid.uuid4().hex, "number": number, "state": "1", "impact": "3", "urgency": "3"}
        incident = self._made(known[sys_id] if sys_id else new, body)
        if sys_id is None:
            self.incidents.append(incident)
        else:
            known[sys_id].update(incident)
        return Response(200 if sys_id else 201, {"result": _shown(incident, request.query)})

    def _made(self, old: Mapping[str, str], body: Mapping[str, str]) -> dict[str, str]:
        incident = {**old, **{name: text[: _LENGTHS.get(name, len(text))] for name, text in body.items()}}
        demanded = ("short_description", *_DEMANDED.get(incident["state"], ()))
        if missing := [name for name in demanded if not incident.get(name)]:
            message = f"Data Policy Exception: \n\tThe following fields are mandatory: {', '.join(missing)}"
            raise _refused(403, "Operation Failed", message)
        if incident.get("caller_id") and incident["caller_id"] not in [one["sys_id"] for one in self.users]:
            raise _refused(400, "Invalid reference", "caller_id")
        return incident | {"priority": _MATRIX[incident["impact"] + incident["urgency"]]}

    def _search(self, table: str, query: Mapping[str, str]) -> Response:
        if self.search_refusal is not None:
            raise _refused(*self.search_refusal)
        if set(query) - {"sysparm_query", "sysparm_fields", "sysparm_limit"}:
            raise _refused(400, "Unknown parameter")
        rows = self.incidents if table == "incident" else self.users
        # Two carets stand for one.
        parts = [part.replace("\0", "^") for part in query["sysparm_query"].replace("^^", "\0").split("^")]
        for condition in parts:
            name, is_comparison, value = condition.partition("=")
            if not is_comparison:
                assert condition == "ORDERBYsys_created_on"
            elif not self.ignores_conditions:
                assert name in _TABLES[table], name
                # Its database ignores case.
                rows = [row for row in rows if row.get(name, "").lower() == value.lower()]
        limit = int(query["sysparm_limit"])
        return Response(200, {"result": [_shown(row, query) for row in rows[:limit]]})


def _check_headers(request: Request) -> None:
    if not request.is_by(CREDENTIAL):
        raise _refused(401, "User Not Authenticated", "Required to provide Auth information")
    if request.headers.get("accept") != "application/json":
        raise _refused(406, "Not acceptable")
    if not request.is_json:
        raise _refused(415, "Unsupported media type")


def _checked(body: Any) -> dict[str, str]:
    if not isinstance(body, dict) or not body or not all(isinstance(value, str) for value in body.values()):
        raise _refused(400, "Exception while reading request", "The payload is not a valid object of strings")
    if unknown := set(body) - _TABLES["incident"]:
        raise _refused(400, "Unknown members", ", ".join(sorted(unknown)))
    for name, choices in _CHOICES.items():
        if name in body and body[name] not in choices:
            raise _refused(400, "Invalid choice", f"{name}: {body[name]}")
    return body


def _shown(row: Mapping[str, str], query: Mapping[str, str]) -> dict[str, str]:
    # A member that a record does not have is empty, not left out.
    return {name: row.get(name, "") for name in query["sysparm_fields"].split(",")}


@asynccontextmanager
async def servicenow(*faults: Fault) -> AsyncIterator[ServiceNow]:
    """A listening instance with these faults first."""
    instance = ServiceNow()
    instance.faults.extend(faults)
    async with instance.listening():
        yield instance
