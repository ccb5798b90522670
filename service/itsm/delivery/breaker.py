"""A provider that fails again and again is left alone for a while."""

import time

_BREAK_AFTER = 5
_BREAK_SECONDS = 30.0


class Breaker:
    """One account's provider: after some failures in a row it is left alone for a while, then tried by one call."""

    def __init__(self) -> None:
        self._failures = 0
        self._open_until = 0.0

    def allows(self) -> bool:
        """Whether to ask now. If so, `ended` is to be called with how that ended."""
        if self.is_open:
            return False
        if self._failures >= _BREAK_AFTER:
            self._open_until = time.monotonic() + _BREAK_SECONDS
        return True

    @property
    def is_open(self) -> bool:
        """Whether nobody is allowed for now."""
        return self._failures >= _BREAK_AFTER and time.monotonic() < self._open_until

    def ended(self, *, well: bool) -> None:
        """How it ended."""
        self._failures = 0 if well else self._failures + 1
        if self._failures == _BREAK_AFTER:
            self._open_until = time.monotonic() + _BREAK_SECONDS
