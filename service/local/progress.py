"""What a terminal shows while something starts: the step under way, in one line that is replaced."""

import sys
import time

_WIPE = "\r\x1b[K"


class Progress:
    """The steps of a start. Where standard error is no terminal, they are silent."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shows = sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def step(self, name: str) -> None:
        """Show what is done now."""
        if self._shows:
            sys.stderr.write(f"{_WIPE}starting: {name} ({self.seconds:.0f} s)")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._shows:
            sys.stderr.write(_WIPE)
            sys.stderr.flush()
