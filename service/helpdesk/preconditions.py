"""Conditions of a write: it counts only while the ticket has an ETag that the caller names (RFC 9110, 13.1.1)."""

from collections.abc import Iterable

from service.errors import TicketError
from service.helpdesk import views
from service.storage.statement import Row


def matches(etag: str, conditions: Iterable[str | None]) -> bool:
    """Whether a resource with this ETag meets every condition that was given: `*`, or one ETag or several."""
    return all(
        condition is None or condition.strip() == "*" or etag in [one.strip() for one in condition.split(",")]
        for condition in conditions
    )


def require_match(ticket: Row, *conditions: str | None) -> None:
    """Raise TicketError `stale` unless the ticket meets the conditions; None is no condition."""
    if not matches(views.etag(ticket), conditions):
        raise TicketError("stale")
