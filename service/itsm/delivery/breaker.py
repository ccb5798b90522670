"""Circuit breakers: an account's provider that keeps failing is not called for a while, then probed by one call.

Closed, a breaker admits every call; open, none. When its period is over it is half-open: the next call with enough time
is the probe, and no other call is admitted until that has ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

# A call without an answer for this long counts as a failure.
SLOW_SECONDS = 4.0
# What a probe must have: more, so that one without an answer counts.
PROBE_SECONDS = 4.5
FAILURES_TO_OPEN = 5
OPEN_SECONDS = 30.0
# The failures of an account that are followed by no call for this long are forgotten.
IDLE_SECONDS = 600.0
# How many are forgotten at once, so that no call waits for that.
_MAX_FORGOTTEN = 100


class Admission(NamedTuple):
    """One admitted call. How it ended is reported exactly once."""

    account_id: UUID
    # The address of the account's link: another one is another provider.
    url: str
    is_probe: bool = False


@dataclass(slots=True)
class _Failures:
    """The failures in a row of one account's provider."""

    url: str
    number: int
    last_used: float


class Breakers:
    """The breakers of one process, one for each account. Only those of accounts whose last call failed take memory."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is a clock in seconds."""
        self._now = now
        # In the order of their last use.
        self._failures: dict[UUID, _Failures] = {}
        # Until when no call is admitted, in the order of these instants: each period has the same length.
        self._open_until: dict[UUID, float] = {}

    def __len__(self) -> int:
        """How many accounts it keeps failures of."""
        return len(self._failures)

    def is_open(self, account_id: UUID) -> bool:
        """Whether no call of an account is admitted right now."""
        return self._open_until.get(account_id, 0.0) > self._now()

    def open_accounts(self) -> list[UUID]:
        """The accounts of which no call is admitted right now."""
        self._forget_idle()
        now = self._now()
        while self._open_until and self._open_until[first := next(iter(self._open_until))] <= now:
            del self._open_until[first]
        return list(self._open_until)

    def admit(self, account_id: UUID, url: str, seconds: float) -> Admission | None:
        """Admit a call that has `seconds` left, or None."""
        failures = self._failures.get(account_id)
        if failures is not None and failures.url != url:
            self._close(account_id)
            failures = None
        if failures is None or failures.number < FAILURES_TO_OPEN:
            return Admission(account_id, url)
        if self.is_open(account_id) or seconds < PROBE_SECONDS:
            return None
        # Meanwhile no other call is admitted; a probe whose end is never reported prevents them for one period.
        self._open(account_id, failures)
        return Admission(account_id, url, is_probe=True)

    def succeeded(self, admission: Admission) -> None:
        """Report that the provider works: the breaker closes."""
        if self._of(admission) is not None:
            self._close(admission.account_id)

    def failed(self, admission: Admission) -> None:
        """Report that the provider failed: the fifth failure in a row opens the breaker, as does that of a probe."""
        self._forget_idle()
        failures = self._failures.setdefault(admission.account_id, _Failures(admission.url, 0, 0.0))
        if failures.url != admission.url:
            return
        failures.number += 1
        self._use(admission.account_id, failures)
        if admission.is_probe or failures.number == FAILURES_TO_OPEN:
            self._open(admission.account_id, failures)

    def undecided(self, admission: Admission) -> None:
        """Report that the call has not shown whether the provider works: if it was the probe, the next one is."""
        if admission.is_probe and self._of(admission) is not None:
            self._open_until.pop(admission.account_id, None)

    def _of(self, admission: Admission) -> _Failures | None:
        failures = self._failures.get(admission.account_id)
        return None if failures is None or failures.url != admission.url else failures

    def _use(self, account_id: UUID, failures: _Failures) -> None:
        self._failures.pop(account_id, None)
        failures.last_used = self._now()
        self._failures[account_id] = failures

    def _open(self, account_id: UUID, failures: _Failures) -> None:
        self._use(account_id, failures)
        self._open_until.pop(account_id, None)
        self._open_until[account_id] = self._now() + OPEN_SECONDS

    def _close(self, account_id: UUID) -> None:
        del self._failures[account_id]
        self._open_until.pop(account_id, None)

    def _forget_idle(self) -> None:
        """None of them is open: that lasts shorter than an account must be idle."""
        idle_since = self._now() - IDLE_SECONDS
        for _ in range(_MAX_FORGOTTEN):
            oldest = next(iter(self._failures), None)
            if oldest is None or self._failures[oldest].last_used > idle_since:
                return
            self._close(oldest)
