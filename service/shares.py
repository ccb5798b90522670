"""Limits on how many of something are open at once: in all, for each owner, and for each of an owner's callers."""

from typing import Any

from service.access.policy import Caller
from service.counters import SHED
from service.errors import TicketError


class Shares:
    """Counts what is open, such as the watches of a process."""

    def __init__(self, what: str, total: int, of_owner: int, of_caller: int, retry_after: int) -> None:
        """`what` names it in messages, such as `watches`; a refused caller may retry after `retry_after` seconds."""
        self._what = what
        self._full, self._had_its_share = SHED.labels(what), SHED.labels("share")
        self._total = total
        self._of_owner = max(1, min(of_owner, total))
        self._of_caller = max(1, min(of_caller, total))
        self._retry_after = retry_after
        self._in_use = 0
        self._owners: dict[object, int] = {}
        self._callers: dict[tuple[object, str], int] = {}

    def __len__(self) -> int:
        return self._in_use

    def take(self, caller: Caller) -> None:
        """Count one more. Raises TicketError: `unavailable` when all are taken, `rate_limited` at its own limit."""
        owner = caller.owner
        key = owner, caller.subject
        of_owner, of_caller = self._owners.get(owner, 0), self._callers.get(key, 0)
        if self._in_use >= self._total:
            self._full.inc()
            message = f"Too many {self._what} are open; try again later"
            raise TicketError("unavailable", message, retry_after=self._retry_after)
        if of_owner >= self._of_owner or of_caller >= self._of_caller:
            self._had_its_share.inc()
            message = f"You have too many {self._what} open at once"
            raise TicketError("rate_limited", message, retry_after=self._retry_after)
        self._in_use += 1
        self._owners[owner] = of_owner + 1
        self._callers[key] = of_caller + 1

    def has_average_share(self, caller: Caller) -> bool:
        """Whether its owner has as many as the others on average, or more."""
        return self._owners.get(caller.owner, 0) * len(self._owners) >= self._in_use

    def give_back(self, caller: Caller) -> None:
        """Count one less."""
        owner = caller.owner
        self._in_use -= 1
        _decrement(self._owners, owner)
        _decrement(self._callers, (owner, caller.subject))


def _decrement(counts: dict[Any, int], key: object) -> None:
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1
