"""Messages go to webhooks: at least once, in order per ticket, signed as the Standard Webhooks specification says.

A message is in the hands of one process for the time of its lease; one that ends in between is found when that is over.
No transaction is open while a receiver is asked.
"""

import asyncio
import base64
import hashlib
import hmac
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from ulid import ULID

from service.errors import TicketError
from service.itsm.tables import MESSAGE, OF_WEBHOOK
from service.numbering import uuid7
from service.outbound import Outbound, UnreachableError
from service.settings import Settings
from service.storage.database import Connection, ConstraintViolationError, Database
from service.storage.statement import Row
from service.vault import SealedError, Vault
from service.webhooks import queries

_SECONDS = 15.0
_AT_ONCE = 128
# How long those under way are waited for before there may be others.
_LOOK_SECONDS = 0.5
_MINUTE, _HOUR = 60.0, 3600.0
# After each failure, as the Standard Webhooks specification has it: three days, all in all.
PAUSES = (5.0, 5 * _MINUTE, 30 * _MINUTE, *(hours * _HOUR for hours in (2, 5, 10, 14, 20, 24)))
_ATTEMPTS = len(PAUSES) + 1
# What `delivery_pause_seconds` is when those are as they stand.
_USUAL_PAUSE = 10.0
_JITTER = (0.9, 1.1)
_GONE = 410

_log = structlog.get_logger()


@dataclass(frozen=True)
class _End:
    """How an attempt ended: with a status or without one."""

    status: int | None = None
    error: str | None = None
    retry_after: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken the message."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def words(self) -> str:
        """For a person."""
        return f"it answered {self.status}" if self.error is None else self.error


class Sending:
    """The sending of one process."""

    def __init__(self, settings: Settings, vault: Vault, outbound: Outbound) -> None:
        self._vault = vault
        self._outbound = outbound
        self._scale = settings.delivery_pause_seconds / _USUAL_PAUSE

    async def work(self, database: Database) -> None:
        """Send whatever is due, of all accounts, until nothing is; run in the background, in every process."""
        # With the account of each.
        under_way: dict[asyncio.Task[None], UUID] = {}
        try:
            while True:
                for message in await self._lease(database, under_way):
                    under_way[asyncio.create_task(self._send(database, message))] = message["account_id"]
                if not under_way:
                    return
                ended, _ = await asyncio.wait(under_way, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    del under_way[task]
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _lease(self, database: Database, under_way: Mapping[asyncio.Task[None], UUID]) -> Sequence[Row]:
        """Messages whose turn it is. A database that is away is no reason to break off those under way."""
        of_account = Counter(under_way.values())
        busy = [account_id for account_id, number in of_account.items() if number >= queries.MOST_OF_ACCOUNT]
        rows = _AT_ONCE - len(under_way)
        try:
            wanted = {"rows": rows, "failing_rows": max(0, rows - _AT_ONCE // 2), "busy": busy, "lease": uuid7()}
            return await database.all(queries.LEASE_DUE, wanted) if rows else []
        except TicketError as error:
            _log.info("webhooks", outcome=error.reason)
            return []

    async def _send(self, database: Database, message: Row) -> None:
        """Send a message that is ours. What breaks off is found when its lease ends."""
        try:
            begun = time.monotonic()
            end = await self._ask(message)
            await self._record(database, message, end, time.monotonic() - begun)
        except TicketError as error:
            _log.info("webhook", webhook=message["webhook_id"], outcome=error.reason)
        except ConstraintViolationError:
            pass  # the webhook was deleted meanwhile
        except Exception:
            # As broad as the work it repeats: one message must not end all that are under way.
            _log.exception("webhook", webhook=message["webhook_id"], outcome="internal")

    async def _ask(self, message: Row) -> _End:
        body = message["body"].encode()
        try:
            headers = self._headers(message, body)
            answer = await self._outbound.post(message["url"], headers, body, _SECONDS)
        except SealedError:
            return _End(error="the secret cannot be decrypted")
        except UnreachableError as error:
            return _End(error=str(error))
        return _End(answer.status, retry_after=answer.retry_after)

    def _headers(self, message: Row, body: bytes) -> dict[str, str]:
        secrets = [self._vault.open(bytes(message["secret"]))]
        if message["previous_secret"] is not None:
            with suppress(SealedError):  # its key may have gone; the new secret is what counts
                secrets.append(self._vault.open(bytes(message["previous_secret"])))
        return signed(message["event_id"], int(time.time()), body, secrets)

    async def _record(self, database: Database, message: Row, end: _End, seconds: float) -> None:
        """Write down how an attempt ended, and what becomes of the message and its webhook."""
        attempt = {name: message[name] for name in (*OF_WEBHOOK, *MESSAGE, "attempted_at", "lease")} | {
            "id": f"dlv_{ULID()}",
            "attempt": message["attempts"] + 1,
            "duration_ms": round(seconds * 1000),
            "succeeded": end.is_success,
            "status_code": end.status,
            "error": end.error,
        }
        if end.is_success:
            await database.one(queries.OVER, attempt)
            # Also where it began to fail while this one was on its way.
            await database.one(queries.RECOVERED, _webhook(message))
            return
        async with database.transaction() as connection:
            await self._record_failure(connection, attempt, end)

    async def _record_failure(self, connection: Connection, attempt: Row, end: _End) -> None:
        webhook = await connection.one(queries.LOCK, _webhook(attempt))
        if webhook is None:
            return
        is_last = attempt["attempt"] >= _ATTEMPTS
        if is_last and not self._has_long_failed(webhook):
            # Others are taken: it is not for this one to stop them.
            await connection.one(queries.OVER, attempt, commit=True)
            _log.warning("webhook", webhook=attempt["webhook_id"], message=attempt["event_id"], outcome="given up")
            return
        pause = self._pause(attempt["attempt"], end.retry_after)
        recorded = await connection.one(queries.TO_TRY_AGAIN, {**attempt, "pause": pause})
        if recorded is None or not recorded["was_ours"]:
            return
        if is_last or end.status == _GONE:
            await connection.one(queries.DISABLE, {**_webhook(attempt), "reason": _why_disabled(end)})
            await connection.one(queries.HOLD, _webhook(attempt))
        else:
            await connection.one(queries.FAILING, _webhook(attempt))

    def _has_long_failed(self, webhook: Row) -> bool:
        """Whether no message was taken since before the first attempt of one that has had all of its attempts."""
        shortest = sum(PAUSES) * self._scale * min(_JITTER)
        return webhook["failing_for"] is not None and webhook["failing_for"].total_seconds() >= shortest

    def _pause(self, attempts: int, retry_after: str | None) -> float:
        """Seconds until the next attempt: longer each time, and no sooner than the receiver asked, within a day."""
        pause = PAUSES[min(attempts, len(PAUSES)) - 1] * self._scale
        pause *= random.uniform(*_JITTER)  # noqa: S311 - spreads attempts, guards nothing
        # A date is allowed too, and rare.
        asked = float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0
        return max(pause, min(asked, PAUSES[-1]))


def signed(message_id: str, timestamp: int, body: bytes, secrets: list[str]) -> dict[str, str]:
    """The headers of a message: who it is, when it was sent, and a signature by each secret that is good."""
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _why_disabled(end: _End) -> str:
    if end.status == _GONE:
        return "It answered 410: it is gone"
    return f"Nothing was taken for three days; the last attempt: {end.words}"


def _webhook(message: Row) -> dict[str, Any]:
    return {name: message[name] for name in OF_WEBHOOK}
