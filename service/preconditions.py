"""Conditions of a request: it counts only while a resource has an ETag that the caller names (RFC 9110, 13.1.1)."""

from collections.abc import Iterable, Mapping
from typing import Any

from service.errors import TicketError

_WEAK = "W/"


def etag_of(row: Mapping[str, Any]) -> str:
    """The ETag of a resource that counts its changes: its version."""
    return f'"{row["version"]}"'


def matches(etag: str, conditions: Iterable[str | None]) -> bool:
    """Whether a resource with this ETag meets every condition that was given: `*`, or one ETag or several.

    They are compared weakly: a proxy that compresses an answer makes `W/"3"` of its `"3"`.
    """
    return all(
        condition is None
        or condition.strip() == "*"
        or etag in [one.strip().removeprefix(_WEAK) for one in condition.split(",")]
        for condition in conditions
    )


def require_match(row: Mapping[str, Any], *conditions: str | None) -> None:
    """Raise TicketError `stale` unless a resource meets the conditions; None is no condition."""
    if not matches(etag_of(row), conditions):
        raise TicketError("stale")
