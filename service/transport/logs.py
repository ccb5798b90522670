"""Structured logs on standard error: one JSON object a line, or a line of text for people."""

import asyncio
import logging
import math
import os
import re
import select
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime

import orjson
import structlog
from structlog.typing import EventDict

# Outcomes that repeat for as long as something that calls need is unavailable.
_REPEATED = frozenset(("unavailable", "deadline_exceeded"))
_CAUSE = ("event", "work", "outcome", "error")
_REPEAT_SECONDS = 60.0
_MAX_CAUSES = 1000
# How long the line of a call may wait for others. Lines are written together up to what a pipe writes atomically.
_GATHER_SECONDS = 0.02
# A cached logger ignores a later `configure`. Tests, which run commands in their own process, turn caching off.
_KEEPS_LOGGERS = True
_INFO = logging.getLevelNamesMapping()["INFO"]
# What needs no quotes in a line for people.
_WORD = re.compile(r"[\x21\x23-\x26\x28-\x7e]+")
_for_programs = structlog.processors.JSONRenderer(serializer=orjson.dumps, default=str)


def configure(level: str, form: str = "json") -> None:
    """Make every logger write lines of this form, at this level and above; libraries' own logging too."""
    severity = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            _Repeats(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _for_people if form == "console" else _for_programs,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=_KEEPS_LOGGERS,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(form))
    handler.addFilter(_SeldomWithoutCollector())
    # gRPC logs the whole of a header that it cannot decode, such as a credential with one invalid byte.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING))


class _Repeats:
    """Drops repeated lines about what is unavailable: one a minute is kept, with the number of those dropped before."""

    def __init__(self) -> None:
        # When a line was last written, and how many were dropped since, by cause.
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
    """Writes one line for every call, without structlog, whose processors would cost more than the line.

    Lines are gathered for some milliseconds: each write costs as much as making several of them.
    """

    def __init__(self, level: str, file: int, form: str = "json") -> None:
        """`file` is a descriptor."""
        self._is_json = form == "json"
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
        if not self._is_json:
            text = _for_people(None, "", orjson.loads(text)) + b"\n"
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


class _SeldomWithoutCollector(logging.Filter):
    """Keeps one line a minute of those that OpenTelemetry repeats, such as about a collector that is unavailable."""

    def __init__(self) -> None:
        super().__init__()
        # By logger and line of code.
        self._said_at: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it may be written."""
        if not record.name.startswith("opentelemetry."):
            return True
        place, now = (record.name, record.lineno), time.monotonic()
        if now - self._said_at.get(place, -math.inf) < _REPEAT_SECONDS:
            return False
        self._said_at[place] = now
        return True


class _Line(logging.Formatter):
    """Formats what libraries log as a line of the same form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._is_json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {"event": record.getMessage(), "logger": record.name, "level": record.levelname.lower()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if not self._is_json:
            line["timestamp"] = datetime.now(UTC).isoformat()
            return _for_people(None, "", line).decode()
        return orjson.dumps(line).decode()


def _for_people(_logger: object, _name: str, line: EventDict) -> bytes:
    """The time of day, the level, the event, and the other values by name; below it the traceback of a failure.

    Values from callers are escaped, so that they can neither begin a new line nor control a terminal.
    """
    time_of_day = str(line.pop("timestamp")).partition("T")[2][:12]
    head = f"{time_of_day} {line.pop('level'):<7} {_word(line.pop('event'))}"
    exception = line.pop("exception", None)
    words = [head, *(f"{name}={_word(value)}" for name, value in line.items() if value != "")]
    below = "" if exception is None else "\n" + "".join(c if c.isprintable() or c == "\n" else "?" for c in exception)
    return (" ".join(words) + below).encode(errors="replace")


def _word(value: object) -> str:
    """A value as it is, or as Python would write it where it is more than a word."""
    text = str(value)
    return text if _WORD.fullmatch(text) else repr(text)
