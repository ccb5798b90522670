"""Facts about a REST method for the OpenAPI document; no call needs them."""

from dataclasses import dataclass
from typing import Any

from service.fields import Command

JSON = "application/json"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Documented:
    """One method of a `…Rest` service."""

    command: type[Command]
    # The TypedDict of its answer, or of each message of a watch.
    view: type
    # The HTTP status of its success.
    status: int = 200
    media_types: tuple[str, ...] = (JSON,)
    # The object in the query, each member of which is a parameter of its own: `metadata.floor=3`.
    members_of: str = ""
    # A list that is complete, and has no `next_cursor`, when neither `limit` nor `cursor` is given.
    complete: bool = False


def documented(method: Any, facts: Documented) -> Any:
    """Attach the facts to the method."""
    method.documented = facts
    return method
