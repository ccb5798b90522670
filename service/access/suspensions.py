"""Which callers are suspended: every process polls once a second, so that no call asks the database."""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select

from service.access.policy import Caller
from service.directory import accounts, api_keys, tenants
from service.errors import TicketError
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

# Contracts promise that calls are refused within five seconds.
LOOK_SECONDS = 1.0


class _Suspended(NamedTuple):
    """The ids of those who are suspended."""

    accounts: frozenset[UUID] = frozenset()
    keys: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()


_FIND = Statement(
    select(
        *(
            select(func.array_agg(table.c.id)).where(table.c.suspended_at.is_not(None)).scalar_subquery().label(name)
            for name, table in zip(_Suspended._fields, (accounts, api_keys, tenants), strict=True)
        )
    ),
    scope=EVERYONE("each process asks for all of its callers at once"),
)


class Suspensions:
    """The accounts, API keys and tenants that are suspended, as of the last look."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._suspended = _Suspended()
        self._has_looked = False
        # Called when the suspended callers have changed.
        self.on_change: list[Callable[[], None]] = []

    async def look_once(self, caller: Caller) -> None:
        """Look, unless this process has looked before, for a caller who can be suspended. Raises TicketError."""
        if not self._has_looked and (caller.account_id or caller.tenant_id):
            await self.look(self._database)

    async def look(self, database: Database) -> None:
        """Ask who is suspended. Raises TicketError."""
        [row] = await database.all(_FIND, {})
        accounts, keys, tenants = (row[name] or () for name in _Suspended._fields)
        before = self._suspended
        self._suspended = _Suspended(frozenset(accounts), frozenset(map(str, keys)), frozenset(tenants))
        self._has_looked = True
        if before != self._suspended:
            for act in self.on_change:
                act()

    def refuse(self, caller: Caller) -> None:
        """Raise TicketError `suspended` for a caller who is, or whose account or tenant is."""
        suspended = self._suspended
        if caller.account_id is not None:
            if caller.subject in suspended.keys:
                raise TicketError("suspended", "The API key is suspended")
            if caller.account_id in suspended.accounts:
                raise TicketError("suspended", "The account is suspended")
        elif caller.tenant_id in suspended.tenants:
            raise TicketError("suspended", "The tenant is suspended")
