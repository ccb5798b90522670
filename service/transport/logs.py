"""Structured logs: one JSON object a line, on standard error."""

import asyncio
import logging
import math
import os
import select
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime

import orjson
import structlog
from structlog.typing import EventDict

# While something is away, everything that needs it fails again and again.
_REPEATED = frozenset(("unavailable", "deadline_exceeded"))
_CAUSE = ("event", "work", "outcome", "error")
_REPEAT_SECONDS = 60.0
_MAX_CAUSES = 1000
# How long the line of a call may wait for others; as long as they fit into one write that a pipe keeps whole.
_GATHER_SECONDS = 0.02
# A logger that was used once is as it was configured then. Tests, which run commands in their own process, change it.
_KEEPS_LOGGERS = True
_INFO = logging.getLevelNamesMapping()["INFO"]


def configure(level: str) -> None:
    """Make every logger write JSON lines at this level and above; libraries' own logging too."""
    severity = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            _Repeats(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps, default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=_KEEPS_LOGGERS,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine())
    # It logs headers that it cannot decode, whole: a credential with one odd byte, say.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING))


class _Repeats:
    """Drops lines that say again what cannot be had: one a minute remains, with the number of those dropped before."""

    def __init__(self) -> None:
        # By cause: when it was last said, and how often it was not since then.
        self._said: dict[tuple[object, ...], tuple[float, int]] = {}

    def __call__(self, _logger: object, _name: str, line: EventDict) -> EventDict:
        if line.get("outcome") not in _REPEATED:
            return line
        cause = tuple(line.get(name) for name in _CAUSE)
        said_at, dropped = self._said.pop(cause, (-math.inf, 0))
        now = time.monotonic()
        if now - said_at < _REPEAT_SECONDS:
            self._said[cause] = said_at, dropped + 1
            raise structlog.DropEvent
        if len(self._said) >= _MAX_CAUSES:
            self._said.clear()
        self._said[cause] = now, 0
        return {**line, "dropped": dropped} if dropped else line


class CallLog:
    """Writes one line for every call, past structlog, whose processors would cost more than the line.

    Lines are gathered for some milliseconds: each write costs as much as making several of them.
    """

    def __init__(self, level: str, file: int) -> None:
        """`file` is a descriptor."""
        self._wanted = logging.getLevelNamesMapping()[level.upper()] <= _INFO
        self._file = file
        self._lines: list[bytes] = []
        self._length = 0

    def write(self, **line: str | float) -> None:
        """Write the line soon, if lines of level `info` are wanted."""
        if not self._wanted:
            return
        now = datetime.now(UTC)
        whole = {**line, "event": "call", "level": "info", "timestamp": now}
        text = orjson.dumps(whole, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)
        if self._length + len(text) > select.PIPE_BUF:
            self.flush()
        if not self._lines:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self.flush)
        self._lines.append(text)
        self._length += len(text)

    def flush(self) -> None:
        """Write what was gathered."""
        lines, self._lines, self._length = self._lines, [], 0
        if lines:
            # The reader of the log may be gone or slow: the answer is worth more than its line.
            with suppress(OSError):
                os.write(self._file, b"".join(lines))


class _JsonLine(logging.Formatter):
    """Formats what libraries log as a line of the same form."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {"event": record.getMessage(), "logger": record.name, "level": record.levelname.lower()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()
