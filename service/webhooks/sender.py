"""Sends messages to webhooks: at least once, in order per ticket, signed.

A process holds the lease of a message, and renews it while the message is in flight. When the process dies, another
finds the message a few seconds later. No transaction is open while a receiver is called.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import structlog

from service import tracing
from service.errors import TicketError
from service.numbering import uuid7
from service.outbound import Outbound, UnreachableError
from service.settings import Settings
from service.storage.database import ConstraintViolationError, Database
from service.storage.statement import Row, Statement
from service.vault import SealedError, Vault
from service.webhooks import message_queries
from service.webhooks.attempts import Attempts, Outcome
from service.webhooks.signatures import body_signature, signature_headers
from service.webhooks.source import Source

_ANSWER_SECONDS = 15.0
_MAX_IN_FLIGHT = 128
# How long those in flight are waited for before others are looked for.
_LOOK_SECONDS = 0.5
# The pause between two renewals of their leases.
_RENEW_SECONDS = 2.0

# The messages that are being sent.
_InFlight: TypeAlias = dict[asyncio.Task[None], Row]

_log = structlog.get_logger()


class Sender:
    """Sends the messages of one source, in one process."""

    def __init__(self, source: Source, settings: Settings, vault: Vault, outbound: Outbound) -> None:
        self._owner = source.owner
        self._body_signature = source.body_signature
        self._key = (*message_queries.key_of_message(source), "lease")
        self._queries = message_queries.for_source(source)
        self._attempts = Attempts(source, settings)
        self._vault = vault
        self._outbound = outbound
        # When leases are renewed next, and when the database was last found to be away, both by the monotonic clock.
        self._renew_at = 0.0
        self._away_at = -math.inf

    async def send_due(self, database: Database) -> None:
        """Send the messages that are due, of all scopes, until none is; run in the background, in every process."""
        in_flight: _InFlight = {}
        try:
            while True:
                await self._renew(database, in_flight)
                leased_at = time.monotonic()
                for message in await self._lease(database, in_flight):
                    in_flight[asyncio.create_task(self._send(database, message, leased_at))] = message
                if not in_flight:
                    return
                ended, _ = await asyncio.wait(in_flight, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    del in_flight[task]
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)

    async def _renew(self, database: Database, in_flight: Mapping[asyncio.Task[None], Row]) -> None:
        """Renew the leases of those in flight, when it is time."""
        if not in_flight or time.monotonic() < self._renew_at:
            return
        held = {f"{name}s": [message[name] for message in in_flight.values()] for name in self._key}
        if await self._all(database, self._queries.renew_leases, held) is not None:
            self._renew_at = time.monotonic() + _RENEW_SECONDS

    async def _lease(self, database: Database, in_flight: Mapping[asyncio.Task[None], Row]) -> Sequence[Row]:
        """Messages to send next."""
        rows = _MAX_IN_FLIGHT - len(in_flight)
        if not rows:
            return []
        owners = Counter(message[self._owner] for message in in_flight.values())
        limits = {
            "rows": rows,
            "failing_rows": max(0, rows - _MAX_IN_FLIGHT // 2),
            "busy": [owner for owner, number in owners.items() if number >= message_queries.MAX_OF_OWNER],
            # Not soon after the database was unavailable: then some leases have lapsed whose holders are well and
            # will renew them.
            "lapsed_too": time.monotonic() - self._away_at >= message_queries.LEASE_SECONDS,
        }
        return await self._all(database, self._queries.lease_due, {**limits, "lease": uuid7()}) or []

    async def _all(self, database: Database, statement: Statement, given: Mapping[str, Any]) -> Sequence[Row] | None:
        """The rows; None where the database is away, which is no reason to cancel the messages in flight."""
        try:
            return await database.all(statement, given)
        except TicketError as error:
            self._away_at = time.monotonic()
            _log.info("webhooks", outcome=error.reason)
            return None

    async def _send(self, database: Database, message: Row, leased_at: float) -> None:
        """Send a leased message. If that is interrupted, another process leases it when the lease ends."""
        begun = time.monotonic()
        if begun - leased_at >= message_queries.LEASE_SECONDS:
            return  # this process was paused, and another may have sent this message and later ones
        try:
            with tracing.work("webhook message", "tickets.event_id", message["event_id"]):
                outcome = await self._post(message)
                await self._attempts.record(database, message, outcome, time.monotonic() - begun)
        except TicketError as error:
            _log.info("webhook", webhook=message["webhook_id"], outcome=error.reason)
        except ConstraintViolationError:
            pass  # the webhook was deleted meanwhile
        except Exception:
            # Any failure is caught: one message must not end the sending of all others in flight.
            _log.exception("webhook", webhook=message["webhook_id"], outcome="internal")

    async def _post(self, message: Row) -> Outcome:
        body = message["body"].encode()
        try:
            headers = self._headers(message, body)
            with tracing.request("POST", message["url"], "webhook") as trace:
                headers |= {} if trace is None else trace.headers
                answer = await self._outbound.post(message["url"], headers, body, _ANSWER_SECONDS)
                if trace is not None:
                    trace.answered(answer.status)
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
        headers = signature_headers(message["event_id"], int(time.time()), body, secrets)
        if self._body_signature is not None:
            # The header has room for one signature: by the current secret.
            headers[self._body_signature] = body_signature(body, secrets[0])
        return headers
