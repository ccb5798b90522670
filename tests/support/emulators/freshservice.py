"""Freshservice's API v2 for tickets, as strict as its documents (https://api.freshservice.com/)."""

import re
from collections.abc import Mapping
from typing import Any

from support.emulators.http import Check, Request, Response, Server

API_KEY = "freshservice-key"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "It should not be blank as this is a mandatory field"


def _subject(value: Any) -> str | None:
    if (problem := _text(value)) is not None:
        return problem
    return "It should be one line of at most 255 characters" if "\n" in value or len(value) > 255 else None


def _html(value: Any) -> str | None:
    if (problem := _text(value)) is not None:
        return problem
    bare = re.sub(r"<br>|&(amp|lt|gt);", "", value)
    return "It is not the HTML of plain text" if re.search(r"[<>&\n]", bare) else None


def _email(value: Any) -> str | None:
    return None if isinstance(value, str) and "@" in value else "It should be in the 'valid email address' format"


def _one_of(*allowed: int) -> Check:
    message = "It should be one of these values: '" + ",".join(map(str, allowed)) + "'"
    return lambda value: None if type(value) is int and value in allowed else message


def _tags(value: Any) -> str | None:
    is_good = isinstance(value, list) and all(isinstance(tag, str) and 0 < len(tag) <= 32 for tag in value)
    return None if is_good else "It should only contain elements of a maximum of 32 characters"


_MEMBERS: Mapping[str, Check] = {
    "subject": _subject,
    "description": _html,
    "email": _email,
    "status": _one_of(2, 3, 4, 5),
    "priority": _one_of(1, 2, 3, 4),
    "source": _one_of(1, 2, 3),
    "tags": _tags,
}
_REQUIRED = ("subject", "description", "email", "status", "priority")


class Freshservice(Server):
    """A desk, with all of its tickets."""

    def __init__(self) -> None:
        super().__init__(self._take)
        self.tickets: list[dict[str, Any]] = []
        # A search finds a ticket only minutes later; the list has it at once.
        self.is_indexed = True

    def _take(self, request: Request) -> Response:
        if not request.is_by(f"{API_KEY}:X"):
            message = "You have to be logged in to perform this action."
            return Response(401, {"code": "invalid_credentials", "message": message})
        if not request.is_json:
            return Response(415, {"code": "invalid_content_type", "message": "Content-Type must be application/json"})
        path = request.path.removeprefix("/api/v2/tickets")
        if path == request.path:
            return Response(404)
        if path == "/filter" and request.method == "GET":
            return self._filter(request)
        if path == "":
            return {"POST": self._create, "GET": self._list}[request.method](request)
        ticket = next((one for one in self.tickets if path == f"/{one['id']}"), None)
        if ticket is None:
            return Response(404)
        return {"PUT": self._update, "GET": self._view}[request.method](request, ticket)

    def _create(self, request: Request) -> Response:
        missing = [name for name in _REQUIRED if name not in request.body]
        if (problems := _problems(request.body, missing)) is not None:
            return problems
        ticket = {"id": 100 + len(self.tickets), "tags": [], **request.body}
        self.tickets.append(ticket)
        return Response(201, {"ticket": ticket})

    def _update(self, request: Request, ticket: dict[str, Any]) -> Response:
        if (problems := _problems(request.body, [])) is not None:
            return problems
        ticket.update(request.body)
        return Response(200, {"ticket": ticket})

    def _view(self, request: Request, ticket: dict[str, Any]) -> Response:
        return Response(200, {"ticket": _shown(request, ticket)})

    def _list(self, request: Request) -> Response:
        if not 1 <= int(request.query.get("per_page", "30")) <= 100:
            errors = [{"field": "per_page", "message": "It should be a Positive Integer", "code": "invalid_value"}]
            return Response(400, {"description": "Validation failed", "errors": errors})
        newest = self.tickets[::-1][: int(request.query.get("per_page", "30"))]
        return Response(200, {"tickets": [_shown(request, ticket) for ticket in newest]})

    def _filter(self, request: Request) -> Response:
        given = re.fullmatch(r"\"tag:'([^']*)'\"", request.query.get("query", ""))
        if given is None or "include" in request.query:
            errors = [{"field": "query", "message": "Given query is invalid", "code": "invalid_value"}]
            return Response(400, {"description": "Validation failed", "errors": errors})
        # As loose as a search may be: tags with the same beginning.
        found = [one for one in self.tickets if any(tag.startswith(given[1][:8]) for tag in one["tags"])]
        shown = [_shown(request, ticket) for ticket in found] if self.is_indexed else []
        return Response(200, {"tickets": shown, "total": len(shown)})


def _shown(request: Request, ticket: Mapping[str, Any]) -> dict[str, Any]:
    """A ticket without the members that are shown only on request."""
    hidden = {"email"} if request.query.get("include") == "tags" else {"email", "tags"}
    return {name: value for name, value in ticket.items() if name not in hidden}


def _problems(body: Any, missing: list[str]) -> Response | None:
    if not isinstance(body, dict):
        return Response(400, {"code": "invalid_json", "message": "Request body has invalid json format"})
    issues = [
        {"field": name, "message": "Unexpected/invalid field in request", "code": "invalid_field"}
        for name in body
        if name not in _MEMBERS
    ]
    issues += [
        {"field": name, "message": problem, "code": "invalid_value"}
        for name, value in body.items()
        if name in _MEMBERS and (problem := _MEMBERS[name](value)) is not None
    ]
    issues += [
        {"field": name, "message": "It should not be blank as this is a mandatory field", "code": "missing_field"}
        for name in missing
    ]
    return Response(400, {"description": "Validation failed", "errors": issues}) if issues else None
