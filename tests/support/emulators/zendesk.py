"""Zendesk's ticketing API for tickets, as strict as its documents.

https://developer.zendesk.com/api-reference/ticketing/tickets/tickets/
"""

from collections.abc import Mapping
from typing import Any

from support.emulators.http import Check, Request, Response, Server

AGENT = "agent@desk.example"
CREDENTIAL = f"{AGENT}/token:zendesk-token"


def _subject(value: Any) -> str | None:
    return None if isinstance(value, str) and "\n" not in value else "Subject: must be one line"


def _comment(value: Any) -> str | None:
    if not isinstance(value, dict) or not value.keys() <= {"body", "public"}:
        return "Comment: is invalid"
    body = value.get("body")
    return None if isinstance(body, str) and body.strip() else "Description: cannot be blank"


def _one_of(*allowed: str | None) -> Check:
    return lambda value: None if value in allowed else f"Value: {value} is not included in the list"


def _requester(value: Any) -> str | None:
    if not isinstance(value, dict) or value.keys() != {"name", "email"} or "@" not in value["email"]:
        return "Requester: Email: is not properly formatted"
    return None if value["name"] else "Requester: Name: is too short (minimum one character)"


def _external_id(value: Any) -> str | None:
    return None if isinstance(value, str) and len(value) <= 255 else "ExternalTicket: is invalid"


_MEMBERS: Mapping[str, Check] = {
    "subject": _subject,
    "comment": _comment,
    "status": _one_of("new", "open", "pending", "hold", "solved", "closed"),
    "priority": _one_of("low", "normal", "high", "urgent", None),
    "requester": _requester,
    "external_id": _external_id,
}


class Zendesk(Server):
    """A desk, with all of its tickets."""

    def __init__(self) -> None:
        super().__init__(self._take)
        self.tickets: list[dict[str, Any]] = []
        self._by_key: dict[str, tuple[Any, Response]] = {}

    def _take(self, request: Request) -> Response:
        if not request.is_by(CREDENTIAL):
            return Response(401, {"error": "Couldn't authenticate you"})
        if not request.is_json:
            return Response(415, {"error": "UnsupportedContentType", "description": "Not application/json"})
        path = request.path.removeprefix("/api/v2/tickets")
        if path == request.path:
            return Response(404, {"error": "InvalidEndpoint", "description": "Not found"})
        if path == "":
            return {"POST": self._create_once, "GET": self._list}[request.method](request)
        ticket = next((one for one in self.tickets if path == f"/{one['id']}"), None)
        if ticket is None:
            return Response(404, {"error": "RecordNotFound", "description": "Not found"})
        assert request.method == "PUT"
        return self._update(request, ticket)

    def _create_once(self, request: Request) -> Response:
        key = request.headers.get("idempotency-key", "")
        if key in self._by_key:
            body, response = self._by_key[key]
            if body == request.body:
                return Response(response.status, response.body, {"x-idempotency-lookup": "hit"})
            message = "Request parameters don't match the given idempotency key"
            return Response(400, {"error": "IdempotentRequestError", "description": message})
        response = self._create(request)
        if key:
            self._by_key[key] = (request.body, response)
        return response

    def _create(self, request: Request) -> Response:
        if (problem := _problem(request.body)) is not None:
            return problem
        given = request.body["ticket"]
        if "comment" not in given:
            return _invalid("base", "Description: cannot be blank")
        nothing = {"subject": None, "priority": None, "status": "open", "requester": {"email": AGENT}}
        ticket = {"id": 500 + len(self.tickets), "external_id": None, **nothing, **given}
        ticket["comments"] = [ticket.pop("comment")]
        self.tickets.append(ticket)
        return Response(201, {"ticket": _shown(ticket)})

    def _update(self, request: Request, ticket: dict[str, Any]) -> Response:
        if (problem := _problem(request.body)) is not None:
            return problem
        if ticket["status"] == "closed":
            return _invalid("status", "Status: closed prevents ticket update")
        changes = dict(request.body["ticket"])
        if (comment := changes.pop("comment", None)) is not None:
            ticket["comments"].append(comment)
        ticket.update(changes)
        return Response(200, {"ticket": _shown(ticket)})

    def _list(self, request: Request) -> Response:
        # As loose as a list may be: letters of any case, several ids separated by commas.
        wanted = request.query.get("external_id", "").lower().split(",")
        found = [_shown(one) for one in self.tickets if (one["external_id"] or "").lower() in wanted]
        return Response(200, {"tickets": found, "count": len(found), "next_page": None, "previous_page": None})


def _shown(ticket: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in ticket.items() if name not in ("comments", "requester")}
    return shown | {"description": ticket["comments"][0]["body"]}


def _problem(body: Any) -> Response | None:
    if not isinstance(body, dict) or body.keys() != {"ticket"} or not isinstance(body["ticket"], dict):
        error = {"title": "Invalid attribute", "message": "You passed an invalid value for the ticket attribute"}
        return Response(400, {"error": error})
    for name, value in body["ticket"].items():
        problem = _MEMBERS[name](value) if name in _MEMBERS else f"{name}: is not an attribute of a ticket"
        if problem is not None:
            return _invalid(name, problem)
    return None


def _invalid(member: str, message: str) -> Response:
    details = {member: [{"description": message, "error": "InvalidValue"}]}
    return Response(422, {"error": "RecordInvalid", "description": "Record validation errors", "details": details})
