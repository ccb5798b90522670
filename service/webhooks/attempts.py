"""Records attempts, and decides whether their messages and webhooks go on, pause or stop."""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import structlog
from ulid import ULID

from service.counters import WEBHOOK_ATTEMPTS
from service.errors import TicketError
from service.settings import Settings
from service.storage.database import Connection, Database
from service.storage.statement import Row
from service.webhooks import message_queries, queries
from service.webhooks.source import Source
from service.webhooks.tables import MESSAGE

_MINUTE, _HOUR = 60.0, 3600.0
# The pause after each failure, as the Standard Webhooks specification has it: three days in all.
PAUSES = (5.0, 5 * _MINUTE, 30 * _MINUTE, *(hours * _HOUR for hours in (2, 5, 10, 14, 20, 24)))
MAX_ATTEMPTS = len(PAUSES) + 1
# The value of the setting with which the pauses are these.
_USUAL_PAUSE: float = Settings.model_fields["delivery_pause_seconds"].default
_JITTER = (0.9, 1.1)
_GONE = 410
# How long to wait before an attempt is recorded again after a failure, and for how long that is tried.
_AGAIN_SECONDS = 0.5
_RECORD_SECONDS = 60.0

_log = structlog.get_logger()


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: with the status of an answer, or with an error."""

    status: int | None = None
    error: str | None = None
    # How many seconds the receiver asked to wait.
    retry_after: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver has accepted the message."""
        return self.status is not None and 200 <= self.status < 300

    def __str__(self) -> str:
        return f"the receiver answered {self.status}" if self.error is None else self.error


class Attempts:
    """Records the attempts of one source."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self._key = source.webhook_key
        self._messages = message_queries.for_source(source)
        self._webhooks = queries.for_source(source)
        self._scale = settings.delivery_pause_seconds / _USUAL_PAUSE

    async def record(self, database: Database, message: Row, outcome: Outcome, seconds: float) -> None:
        """Add an attempt to the log, and decide what becomes of the message, as it was leased, and of its webhook.

        Retried while the database is unavailable, as the message would otherwise be sent again.
        """
        attempt = {name: message[name] for name in (*self._key, *MESSAGE, "attempted_at", "lease")} | {
            "id": f"dlv_{ULID()}",
            "attempt": message["attempts"] + 1,
            "duration_ms": round(seconds * 1000),
            "succeeded": outcome.is_success,
            "status_code": outcome.status,
            "error": outcome.error,
        }
        WEBHOOK_ATTEMPTS.labels("succeeded" if outcome.is_success else "failed").inc()
        until = time.monotonic() + _RECORD_SECONDS
        while True:
            try:
                return await self._record(database, attempt, outcome)
            except TicketError:
                if time.monotonic() >= until:
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _record(self, database: Database, attempt: Row, outcome: Outcome) -> None:
        if outcome.is_success:
            await database.one(self._messages.record_last_attempt, attempt)
            # The failure ends also where it began while this message was in flight.
            await database.one(self._webhooks.end_failure, self._webhook(attempt))
            return
        async with database.transaction() as connection:
            await self._record_failure(connection, attempt, outcome)

    async def _record_failure(self, connection: Connection, attempt: Row, outcome: Outcome) -> None:
        key = self._webhook(attempt)
        webhook = await connection.one(self._webhooks.lock_webhook, key)
        if webhook is None:
            return
        is_last = attempt["attempt"] >= MAX_ATTEMPTS
        if is_last and not self._has_long_failed(webhook):
            # The receiver accepts other messages, so this one must not disable the webhook.
            await connection.one(self._messages.record_last_attempt, attempt, commit=True)
            _log.warning("webhook", webhook=attempt["webhook_id"], message=attempt["event_id"], outcome="given up")
            return
        pause = self.pause(attempt["attempt"], outcome.retry_after)
        recorded = await connection.one(self._messages.record_attempt, {**attempt, "pause": pause})
        if recorded is None or not recorded["had_lease"]:
            return
        if is_last or outcome.status == _GONE:
            await connection.one(self._webhooks.disable, {**key, "reason": _why_disabled(outcome)})
            await connection.one(self._webhooks.hold_messages, key)
        else:
            await connection.one(self._webhooks.begin_failure, key)

    def _has_long_failed(self, webhook: Row) -> bool:
        """Whether no message was accepted since before the first attempt of one that has had all of its attempts."""
        shortest = sum(PAUSES) * self._scale * min(_JITTER)
        return webhook["failing_for"] is not None and webhook["failing_for"].total_seconds() >= shortest

    def pause(self, attempts: int, retry_after: float | None) -> float:
        """Seconds until the next attempt: longer each time, and no sooner than the receiver asked, within a day."""
        pause = PAUSES[min(attempts, len(PAUSES)) - 1] * self._scale
        pause *= random.uniform(*_JITTER)  # noqa: S311 - spreads attempts, guards nothing
        return max(pause, min(retry_after or 0.0, PAUSES[-1]))

    def _webhook(self, message: Row) -> dict[str, Any]:
        return {name: message[name] for name in self._key}


def _why_disabled(outcome: Outcome) -> str:
    if outcome.status == _GONE:
        return "The receiver answered 410 Gone"
    return f"No message was accepted for three days; the last attempt failed: {outcome}"
