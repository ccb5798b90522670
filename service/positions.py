"""Positions in the events of a scope, and the cursors by which callers know them."""

from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter

from service import epochs, paging

_TransactionId = Annotated[int, Field(ge=0, lt=2**64)]
_EventId = Annotated[int, Field(ge=0, lt=2**63)]
_CURSOR: TypeAdapter[tuple[int, int, int]] = TypeAdapter(tuple[_TransactionId, _EventId, int])


class Position(NamedTuple):
    """The last event that a watcher has: always a committed one, as the id of an aborted transaction may come again."""

    # The server's own id together with its epoch (epochs.py).
    transaction_id: int
    id: int

    def parameters(self) -> dict[str, Any]:
        """The parameters of `events.after_position`."""
        return {"after_transaction": str(self.transaction_id), "after_id": self.id}

    @property
    def epoch(self) -> int:
        """The epoch of the event."""
        return epochs.epoch_of(self.transaction_id)


# The positions before and after every event.
BEFORE_ALL = Position(0, 0)
AFTER_ALL = Position(2**64 - 1, 0)


class Start(NamedTuple):
    """Where a watcher begins, by its cursor: after which event, of which server."""

    position: Position
    server: int


def resumed(cursor: str | None, binding: str) -> Start | None:
    """The start that a cursor names; None without a cursor: from now on. Raises TicketError `validation_error`."""
    if cursor is None:
        return None
    *position, server = paging.decode(cursor, binding, _CURSOR)
    return Start(Position(*position), server)


def cursor(binding: str, position: Position, server: int) -> str:
    """The cursor with which a watch is resumed after an event of a server."""
    return paging.encode(binding, *position, server)
