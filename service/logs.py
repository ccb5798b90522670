"""Structured logs: one JSON object a line, on standard error."""

import logging
import sys

import orjson
import structlog


def configure(level: str) -> None:
    """Make every logger write JSON lines at this level and above; libraries' own logging too."""
    severity = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps, default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=max(severity, logging.WARNING), format="%(name)s: %(message)s")
