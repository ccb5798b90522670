"""Epochs: the servers whose transaction ids the events of the database have, one after another.

Events are read in the order of their transactions, and each server counts its own: a dump that is restored elsewhere,
or a subscriber that takes over, goes on with other numbers. So the database remembers its servers, and the transaction
id of an event (or of a webhook's position) is the epoch, in the upper 16 bits, and the server's own id, in 48: enough
for nine hundred years of ten thousand transactions a second. All of an epoch come before all of the next, in every
index that is there, and what is written is never renumbered. In the first epoch the ids are the server's own.

`tickets migrate` begins an epoch (`service/migrations/epochs.py`) on a server that is not the newest one remembered.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, DateTime, Integer, Table, column, func, select

from service.directory import METADATA
from service.storage.database import Xid8
from service.storage.scope import EVERYONE, shared
from service.storage.statement import Statement

SERVER_BITS = 48

event_epochs = Table(
    "event_epochs",
    METADATA,
    # Counts from 0.
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    # The server's own number, which a promoted standby has too. 0 where it is not known any more.
    Column("system_identifier", BigInteger, nullable=False),
    Column("began_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    info=shared("servers that the database was on, which are everybody's"),
)

# The server that this database is on now.
SERVER = func.pg_control_system().table_valued(column("system_identifier", BigInteger))

_scope = EVERYONE("the order of events is one for all")
# The servers of all epochs, from the first.
ALL = Statement(select(event_epochs.c.system_identifier).order_by(event_epochs.c.epoch), scope=_scope)
_newest = select(event_epochs.c.system_identifier).order_by(event_epochs.c.epoch.desc()).limit(1)
# Finds this server, and the one remembered.
LOOK = Statement(
    select(SERVER.c.system_identifier.label("found"), _newest.scalar_subquery().label("remembered")), scope=_scope
)


def in_epoch(transaction_id: ColumnElement[Any]) -> ColumnElement[Any]:
    """One of the server's transaction ids as events have it, by a function in the database that plans expand."""
    return func.in_epoch(transaction_id, type_=Xid8())


def epoch_of(transaction_id: int) -> int:
    """The epoch of an event's transaction."""
    return transaction_id >> SERVER_BITS


def is_of(transaction_id: int, server: int, servers: Sequence[int]) -> bool:
    """Whether a transaction of a server belongs to a database that was on these servers."""
    epoch = epoch_of(transaction_id)
    return list(servers[epoch : epoch + 1]) == [server]


def moved(found: int, remembered: int) -> str | None:
    """Why a database on this server cannot be used; None when it can."""
    if found == remembered:
        return None
    return (
        f"the database is on another server ({found}) than the one it remembers ({remembered}), and the order of events"
        " must go on here: run `tickets migrate`"
    )
