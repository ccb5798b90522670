"""The responses that are failures: by API and status, with an example of every reason."""

from collections.abc import Collection, Mapping
from typing import Any

from service.errors import REASONS, Issue, TicketError
from service.openapi.answers import Schema
from service.transport import rest
from service.transport.documented import JSON

# Reasons that not every API has.
_ONLY: Mapping[str, Collection[str]] = {
    "token_expired": ("Handoff", "Helpdesk"),
    "reconnect_required": ("Handoff",),
    "roles_incomplete": ("Handoff",),
    "invalid_transition": ("Handoff", "Helpdesk"),
    "already_exists": ("Helpdesk", "Itsm"),
    "provider_rejected": ("Itsm",),
    "unknown_event": ("Itsm",),
    "url_refused": ("Itsm",),
}
# What the gateway answers itself is no reason of the service's.
_OF_THE_GATEWAY: Mapping[int, str] = {400: "The request is not valid", 431: "The request headers are too large"}
# Any call may get these; the next, a call with a credential, which may be suspended; the last, a call with a body.
EVERYWHERE = (400, 413, 429, 431, 500, 503, 504)
WITH_CREDENTIAL = (401, 403)
WITH_BODY = 415
_ISSUES = {
    "Itsm": Issue(("body", "subject"), "Field required", "missing", {}),
    "Handoff": Issue(("body", "title"), "Field required", "missing"),
    "Helpdesk": Issue(("body", "title"), "Field required", "missing"),
}
_RETRY = ("rate_limited", "unavailable")

SCHEMAS: Mapping[str, Schema] = {
    "Error": {
        "type": "object",
        "description": "A failure. Clients decide by `code`, and show `error` to people.",
        "required": ["error", "code"],
        "properties": {
            "error": {"type": "string", "description": "What is wrong, in plain English."},
            "code": {"type": "string", "description": "The reason, which stays the same: see the examples."},
            "fieldErrors": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "The first problem of each member, by its path. Absent when no member is at fault.",
            },
            "issues": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["path", "message"],
                    "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
                },
                "description": "Every problem. Absent when no member is at fault.",
            },
            "retryAfter": {"type": "integer", "description": "Seconds to wait. Absent when waiting does not help."},
            "reconnect": {
                "type": "boolean",
                "description": "True when the link to GitHub must be made again; or absent.",
            },
        },
    },
    "Detail": {
        "type": "object",
        "description": "A failure, in FastAPI's shape.",
        "required": ["detail"],
        "properties": {
            "detail": {
                "description": "What is wrong, in plain English; or, of a request that is not valid, every problem.",
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["type", "loc", "msg", "input"],
                            "properties": {
                                "type": {"type": "string", "description": "Pydantic's name of the problem."},
                                "loc": {
                                    "type": "array",
                                    "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                                    "description": "Where: `body`, `path`, `query` or `header`, then the member.",
                                },
                                "msg": {"type": "string", "description": "What is wrong with it."},
                                "input": {"description": "What was sent, cut short."},
                                "ctx": {"type": "object", "additionalProperties": True, "description": "The bounds."},
                            },
                        },
                    },
                ],
            }
        },
    },
}


def responses(api: str, failures: rest.Failures) -> dict[int, Schema]:
    """The failures of an API by their HTTP status, as they leave its `…Rest` service."""
    found: dict[int, list[str]] = {status: [] for status in (*_OF_THE_GATEWAY, WITH_BODY)}
    for name, reason in REASONS.items():
        if api in _ONLY.get(name, (api,)):
            found.setdefault(failures.status_of(reason), []).append(name)
    return {status: _response(api, status, names, failures) for status, names in sorted(found.items())}


def _response(api: str, status: int, names: Collection[str], failures: rest.Failures) -> Schema:
    examples = {name: {"summary": REASONS[name].message, "value": _example(api, name, failures)} for name in names}
    headers = ["X-Request-Id", "Cache-Control"]
    if status == 401:
        headers.append("WWW-Authenticate")
    if any(name in _RETRY for name in names):
        headers.append("Retry-After")
    if status not in _OF_THE_GATEWAY and status != WITH_BODY:
        headers += ["RateLimit", "RateLimit-Policy"]
    about = [f"`{name}`: {REASONS[name].message}." for name in names]
    if status in _OF_THE_GATEWAY:
        about.append(f"{_OF_THE_GATEWAY[status]}, says the gateway.")
    return {
        "description": " ".join(about),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {
            JSON: {
                "schema": {"$ref": f"#/components/schemas/{'Detail' if api == 'Itsm' else 'Error'}"},
                **({"examples": examples} if examples else {}),
            }
        },
    }


def _example(api: str, name: str, failures: rest.Failures) -> Mapping[str, Any]:
    issues = (_ISSUES[api],) if name == "validation_error" else ()
    error = TicketError(name, issues=issues, retry_after=1 if name in _RETRY else None)
    return failures.body_of(error)
