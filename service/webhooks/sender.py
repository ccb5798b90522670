"""Sends messages to webhooks: at least once, in order per ticket, signed.

A process has a message for the time of its lease; when a process ends in between, another finds the message once the
lease is over. No transaction is open while a receiver is called.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import structlog

from service.errors import TicketError
from service.numbering import uuid7
from service.outbound import Outbound, UnreachableError
from service.settings import Settings
from service.storage.database import ConstraintViolationError, Database
from service.storage.statement import Row
from service.vault import SealedError, Vault
from service.webhooks import message_queries
from service.webhooks.attempts import Attempts, Outcome
from service.webhooks.signatures import signature_headers
from service.webhooks.source import Source

_ANSWER_SECONDS = 15.0
_MAX_IN_FLIGHT = 128
# How long those in flight are waited for before others are looked for.
_LOOK_SECONDS = 0.5

# Each with the message's owner.
_InFlight: TypeAlias = dict[asyncio.Task[None], Any]

_log = structlog.get_logger()


class Sender:
    """Sends the messages of one source, in one process."""

    def __init__(self, source: Source, settings: Settings, vault: Vault, outbound: Outbound) -> None:
        self._owner = source.owner
        self._queries = message_queries.for_source(source)
        self._attempts = Attempts(source, settings)
        self._vault = vault
        self._outbound = outbound

    async def send_due(self, database: Database) -> None:
        """Send the messages that are due, of all scopes, until none is; run in the background, in every process."""
        in_flight: _InFlight = {}
        try:
            while True:
                for message in await self._lease(database, in_flight):
                    in_flight[asyncio.create_task(self._send(database, message))] = message[self._owner]
                if not in_flight:
                    return
                ended, _ = await asyncio.wait(in_flight, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    del in_flight[task]
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)

    async def _lease(self, database: Database, in_flight: Mapping[asyncio.Task[None], Any]) -> Sequence[Row]:
        """Messages to send next. A database that is unavailable is no reason to cancel those in flight."""
        busy = [
            owner for owner, number in Counter(in_flight.values()).items() if number >= message_queries.MAX_OF_OWNER
        ]
        rows = _MAX_IN_FLIGHT - len(in_flight)
        try:
            given = {"rows": rows, "failing_rows": max(0, rows - _MAX_IN_FLIGHT // 2), "busy": busy, "lease": uuid7()}
            return await database.all(self._queries.lease_due, given) if rows else []
        except TicketError as error:
            _log.info("webhooks", outcome=error.reason)
            return []

    async def _send(self, database: Database, message: Row) -> None:
        """Send a leased message. One that breaks off is found when its lease ends."""
        try:
            begun = time.monotonic()
            outcome = await self._post(message)
            await self._attempts.record(database, message, outcome, time.monotonic() - begun)
        except TicketError as error:
            _log.info("webhook", webhook=message["webhook_id"], outcome=error.reason)
        except ConstraintViolationError:
            pass  # the webhook was deleted meanwhile
        except Exception:
            # As broad as the work it repeats: one message must not end all that are in flight.
            _log.exception("webhook", webhook=message["webhook_id"], outcome="internal")

    async def _post(self, message: Row) -> Outcome:
        body = message["body"].encode()
        try:
            headers = self._headers(message, body)
            answer = await self._outbound.post(message["url"], headers, body, _ANSWER_SECONDS)
        except SealedError:
            return Outcome(error="the secret cannot be decrypted")
        except UnreachableError as error:
            return Outcome(error=str(error))
        return Outcome(answer.status, retry_after=answer.retry_after)

    def _headers(self, message: Row, body: bytes) -> dict[str, str]:
        secrets = [self._vault.open(bytes(message["secret"]))]
        if message["previous_secret"] is not None:
            with suppress(SealedError):  # its key may be lost; the new secret is what counts
                secrets.append(self._vault.open(bytes(message["previous_secret"])))
        return signature_headers(message["event_id"], int(time.time()), body, secrets)
