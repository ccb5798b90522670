"""The messages that webhooks are sent (contracts/itsm.md, Webhooks), as OpenAPI's `webhooks`."""

from typing import get_args

from service.itsm.commands import EventType
from service.openapi.answers import Schema

_HEADERS = {
    "webhook-id": "The event's id: the same in every attempt, so that a message that came twice is seen.",
    "webhook-timestamp": "When this attempt was made, in Unix seconds.",
    "webhook-signature": (
        "`v1,` and the base64 of an HMAC-SHA256 of `id.timestamp.body`, keyed with the decoded secret (Standard"
        " Webhooks); for a day after a rotation a second one, by the old secret, after a blank."
    ),
    "x-aurion-signature": "`sha256=` and the hex HMAC-SHA256 of the body, keyed with the newest secret as it is shown.",
}
_WHEN = {
    "ticket.created": "A ticket was created.",
    "ticket.updated": "A ticket was changed, in any way, after its creation.",
    "ticket.closed": "A ticket was closed; `ticket.updated` is sent besides.",
    "ticket.reopened": "A closed ticket was opened again; `ticket.updated` is sent besides.",
}
# It is not the tag of the calls about webhooks: generators make a file of each tag's calls, and another one of what is
# received.
TAG = "ITSM webhook messages"
ABOUT = "What is sent to the account's webhooks."
MESSAGE: Schema = {
    "type": "object",
    "description": "One event: sent at least once, and in order for each ticket.",
    "required": ["id", "type", "timestamp", "data"],
    "properties": {
        "id": {"type": "string", "description": "The event's id, as in the header `webhook-id`."},
        "type": {"type": "string", "enum": list(get_args(EventType)), "description": "What happened."},
        "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
        "data": {"$ref": "#/components/schemas/ItsmTicket", "description": "The ticket as of this event."},
    },
}


def webhooks() -> dict[str, Schema]:
    """What receivers get, by the name of the event."""
    return {name: {"post": _message(name)} for name in get_args(EventType)}


def _message(name: str) -> Schema:
    return {
        "operationId": "itsmReceive" + "".join(part.capitalize() for part in name.split(".")),
        "tags": [TAG],
        "summary": _WHEN[name],
        "description": "Without a 2xx within fifteen seconds it is sent again, for three days.",
        "security": [],
        "parameters": [
            {"name": header, "in": "header", "required": True, "description": about, "schema": {"type": "string"}}
            for header, about in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ItsmWebhookMessage"}}},
        },
        "responses": {"2XX": {"description": "The message was received."}},
    }
