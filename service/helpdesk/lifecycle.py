"""How a ticket's status decides when it was resolved, and stops its clocks. Pure."""

from collections.abc import Collection
from datetime import datetime
from typing import get_args

from service.helpdesk.commands import Status

_RESOLVED: Collection[Status] = ("resolved", "closed")
UNRESOLVED = frozenset(get_args(Status)).difference(_RESOLVED)
_STOPPED: Collection[Status] = ("pending", *_RESOLVED)


def resolved_at(was: Status | None, becomes: Status, before: datetime | None, now: datetime) -> datetime | None:
    """The `resolved_at` after a move between statuses `now`, given the one `before` it.

    `was` is None for a ticket that is being created.
    """
    if becomes not in _RESOLVED:
        return before if becomes == was else None
    return before if was in _RESOLVED else now


def stops_clocks(status: Status) -> bool:
    """Whether the clocks of a ticket's SLA stand still: it waits for the requester, or the work is done."""
    return status in _STOPPED
