"""Conditions of a write: the ticket must still have an ETag that the caller names."""

from service import etags
from service.helpdesk import views
from service.storage.statement import Row


def require_match(ticket: Row, *conditions: str | None) -> None:
    """Raise TicketError `stale` unless the ticket meets the conditions; None is no condition."""
    etags.require_match(views.etag(ticket), *conditions)
