"""How a ticket's status moves its stamps and stops its clocks. Pure."""

from collections.abc import Collection
from typing import Literal, get_args

from service.helpdesk.commands import Status

_RESOLVED: Collection[Status] = ("resolved", "closed")
UNRESOLVED = frozenset(get_args(Status)).difference(_RESOLVED)
_STOPPED: Collection[Status] = ("pending", *_RESOLVED)


def resolution(was: Status | None, becomes: Status) -> Literal["stamp", "clear", "keep"]:
    """What a move between statuses does to `resolved_at`; `was` is None for a ticket that is being created."""
    if becomes == was:
        return "keep"
    if becomes not in _RESOLVED:
        return "clear"
    return "keep" if was in _RESOLVED else "stamp"


def stops_clocks(status: Status) -> bool:
    """Whether the clocks of a ticket's SLA stand still: it waits for the requester, or the work is done."""
    return status in _STOPPED
