"""What a REST method says of itself, for the OpenAPI document: nothing of it is needed to answer a call."""

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
    # The member of the query that is said by members: `metadata.floor=3`.
    members_of: str = ""
    # A list that is complete, and has no `next_cursor`, when neither `limit` nor `cursor` is given.
    complete: bool = False


def documented(method: Any, facts: Documented) -> Any:
    """The method, which knows these facts from now on."""
    method.documented = facts
    return method
