"""How a ticket's status moves its stamps. Pure."""

from typing import Literal

from service.helpdesk.commands import Status


def resolution(was: Status | None, becomes: Status) -> Literal["stamp", "clear", "keep"]:
    """What a move between statuses does to `resolved_at`; `was` is None for a ticket that is being created."""
    if becomes == was:
        return "keep"
    if becomes == "resolved":
        return "stamp"
    if becomes == "closed":
        return "keep" if was == "resolved" else "stamp"
    return "clear"
