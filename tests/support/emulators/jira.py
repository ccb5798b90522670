"""A strict Jira Service Management: one service desk with one request type, and a workflow of four statuses."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from support.emulators.http import Fault, RefusedError, Request, Response, Server

CREDENTIAL = "desk@example.com:ATATT3x:ü"
MYSELF = "5b10a2844c20165700ede21g"
DESK, REQUEST_TYPE = "10", "25"
REFERENCE_FIELD = "customfield_10050"
PRIORITIES = ("Highest", "High", "Medium", "Low")
# Of a status: its category. Of a transition: where it leads, and from where it is offered.
STATUSES = {
    "Waiting for support": "new",
    "Waiting for customer": "indeterminate",
    "Resolved": "done",
    "Closed": "done",
}
TRANSITIONS = {
    "11": ("Waiting for customer", {"Waiting for support"}),
    "21": ("Waiting for support", {"Waiting for customer", "Resolved"}),
    "31": ("Resolved", {"Waiting for support", "Waiting for customer"}),
    "41": ("Closed", {"Waiting for support", "Waiting for customer", "Resolved"}),
}

_GONE = "Issue does not exist or you do not have permission to see it."
_JQL = re.compile(r'(description|cf\[10050\]) ~ "\\"([^"\\]+)\\"" ORDER BY created ASC')


def _refused(status: int, *messages: str, **fields: str) -> RefusedError:
    return RefusedError(Response(status, {"errorMessages": list(messages), "errors": fields}))


def _refused_by_desk(status: int, message: str) -> RefusedError:
    body = {"errorMessage": message, "i18nErrorMessage": {"i18nKey": "sd.error", "parameters": []}}
    return RefusedError(Response(status, body))


class Jira(Server):
    """A site; its issues are in the order of their creation."""

    def __init__(self) -> None:
        super().__init__(self._take)
        self.issues: list[dict[str, Any]] = []
        # Account ids by e-mail address.
        self.customers: dict[str, str] = {}
        # The message with which it rejects the next creations.
        self.refusal: str | None = None
        # The answer instead of the documented one; the request is processed.
        self.garbled: Response | None = None
        # How the request after a creation fails.
        self.faults_after_creation: list[Fault] = []
        # Whether every issue is being moved by another request.
        self.is_transitioning = False
        self._routes = (
            ("POST", r"/rest/servicedeskapi/request", self._create),
            ("GET", r"/rest/api/2/issue/([^/]+)", self._get),
            ("PUT", r"/rest/api/2/issue/([^/]+)", self._edit),
            ("POST", r"/rest/api/2/issue/([^/]+)/transitions", self._move),
            ("GET", r"/rest/api/2/search/jql", self._search),
            ("GET", r"/rest/api/2/user/search", self._users),
            ("GET", r"/rest/api/2/myself", lambda _: Response(200, {"accountId": MYSELF})),
        )

    def status_of(self, key: str) -> str:
        """The status of an issue."""
        return str(self._issue(key)["status"])

    def _take(self, request: Request) -> Response:
        _check_headers(request)
        for method, pattern, answer in self._routes:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                answered: Response = answer(request, *match.groups())
                return self.garbled or answered
        raise _refused(404, "null for uri: " + request.path)

    def _issue(self, key: str) -> dict[str, Any]:
        for issue in self.issues:
            if issue["key"] == key:
                return issue
        raise _refused(404, _GONE)

    def _create(self, request: Request) -> Response:
        body = request.body
        required = {"serviceDeskId", "requestTypeId", "requestFieldValues"}
        if not isinstance(body, dict) or not required <= set(body) <= required | {"raiseOnBehalfOf"}:
            raise _refused_by_desk(400, "Invalid request payload. Refer to the REST API documentation and try again.")
        if (body["serviceDeskId"], body["requestTypeId"]) != (DESK, REQUEST_TYPE):
            raise _refused_by_desk(404, "The request type you are trying to access does not exist.")
        if self.refusal is not None:
            raise _refused_by_desk(400, self.refusal)
        email = body.get("raiseOnBehalfOf")
        if email is not None and email not in self.customers:
            raise _refused_by_desk(400, f"Customer {email} does not exist or may not raise requests here.")
        try:
            fields = _checked(body["requestFieldValues"])
        except RefusedError as refusal:
            errors = refusal.response.body["errors"]
            raise _refused_by_desk(400, "Your request could not be created. " + " ".join(errors.values())) from None
        if not {"summary", "description"} <= set(fields):
            raise _refused_by_desk(400, "Your request could not be created. Please check the fields have been filled.")
        key = f"ITH-{len(self.issues) + 1}"
        reporter = {"accountId": MYSELF if email is None else self.customers[email]}
        first = {"key": key, "status": "Waiting for support", "priority": {"name": "Medium"}, "reporter": reporter}
        self.issues.append(first | fields)
        self.faults.extend(self.faults_after_creation)
        links = {"web": f"{self.url}/servicedesk/customer/portal/{DESK}/{key}"}
        made = {"issueId": str(10000 + len(self.issues)), "issueKey": key, "_links": links}
        return Response(201, made | {"currentStatus": {"status": "Waiting for support"}})

    def _get(self, request: Request, key: str) -> Response:
        return Response(200, self._shown(self._issue(key), request.query))

    def _shown(self, issue: Mapping[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
        assert set(query) <= {"fields", "expand", "jql", "maxResults"}
        status = {"name": issue["status"], "statusCategory": {"key": STATUSES[issue["status"]]}}
        known = {**issue, "status": status}
        shown = {"key": issue["key"], "fields": {name: known.get(name) for name in query["fields"].split(",")}}
        if query.get("expand") == "transitions":
            shown["transitions"] = [
                {"id": name, "to": {"name": to}}
                for name, (to, froms) in TRANSITIONS.items()
                if issue["status"] in froms
            ]
        return shown

    def _edit(self, request: Request, key: str) -> Response:
        issue = self._issue(key)
        if not isinstance(request.body, dict) or set(request.body) != {"fields"}:
            raise _refused(400, "one of 'fields' or 'update' required")
        fields = _checked(request.body["fields"])
        if "reporter" in fields and fields["reporter"] not in [
            {"accountId": account} for account in (MYSELF, *self.customers.values())
        ]:
            raise _refused(400, reporter="The reporter specified is not a user.")
        issue.update(fields)
        return Response(204)

    def _move(self, request: Request, key: str) -> Response:
        issue = self._issue(key)
        if self.is_transitioning:
            raise _refused(409, "The issue is being transitioned by another request.")
        if not isinstance(request.body, dict) or set(request.body) != {"transition"}:
            raise _refused(400, "Missing 'transition' identifier")
        to, froms = TRANSITIONS.get(request.body["transition"]["id"], ("", set()))
        if issue["status"] not in froms:
            raise _refused(400, "It seems that you have tried to perform a workflow operation that is not valid.")
        issue["status"] = to
        return Response(204)

    def _search(self, request: Request) -> Response:
        match = _JQL.fullmatch(request.query.get("jql", ""))
        if match is None:
            raise _refused(400, f"Error in the JQL Query: {request.query.get('jql')}")
        member = "description" if match[1] == "description" else REFERENCE_FIELD
        # Words in their order, whatever is between them.
        words = re.findall(r"\w+", match[2].lower())
        phrase = re.compile(r"\b" + r"\W+".join(words) + r"\b")
        found = [one for one in self.issues if phrase.search((one.get(member) or "").lower())]
        return Response(200, {"issues": [self._shown(one, request.query) for one in found], "isLast": True})

    def _users(self, request: Request) -> Response:
        assert set(request.query) == {"query"}
        found = [
            {"accountId": account, "emailAddress": email}
            for email, account in self.customers.items()
            if email.lower().startswith(request.query["query"].lower())
        ]
        return Response(200, found)


def _check_headers(request: Request) -> None:
    if not request.is_by(CREDENTIAL):
        raise _refused(401, "Client must be authenticated to access this resource.")
    if not request.is_json:
        raise _refused(415, "Unsupported media type")


def _checked(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise _refused(400, fields="must be an object")
    for name in set(fields) - {"summary", "description", "priority", "reporter", REFERENCE_FIELD}:
        message = f"Field '{name}' cannot be set. It is not on the appropriate screen, or unknown."
        raise _refused(400, **{name: message})
    summary = fields.get("summary", "-")
    if not summary.strip():
        raise _refused(400, summary="You must specify a summary of the issue.")
    if "\n" in summary or "\r" in summary:
        raise _refused(400, summary="The summary is invalid because it contains newline characters.")
    if len(summary) > 255:
        raise _refused(400, summary="Summary must be less than 255 characters.")
    if len(fields.get("description", "")) > 32767:
        message = "The entered text is too long. It exceeds the allowed limit of 32,767 characters."
        raise _refused(400, description=message)
    if "priority" in fields and fields["priority"] not in [{"name": name} for name in PRIORITIES]:
        raise _refused(400, priority="The priority selected is invalid.")
    return fields


@asynccontextmanager
async def jira(*faults: Fault) -> AsyncIterator[Jira]:
    """A listening site with these faults first."""
    site = Jira()
    site.faults.extend(faults)
    async with site.listening():
        yield site
