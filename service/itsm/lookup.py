"""Which tickets a caller of the ITSM API sees, and what is raised when there is none."""

from typing import Any

from service.errors import TicketError
from service.operation import Call
from service.storage.statement import Row


def scope(call: Call) -> dict[str, Any]:
    """What limits the tickets and webhooks that the caller sees: the account, and which of its modes the key is for."""
    return {"account_id": call.caller.account_id, "live": call.caller.live}


def found(row: Row | None) -> Row:
    """The row that was read. Raises TicketError `not_found` when there is none."""
    if row is None:
        raise ticket_not_found()
    return row


def ticket_not_found() -> TicketError:
    """The failure of a caller who names no ticket that they see."""
    return TicketError("not_found", "Ticket not found")
