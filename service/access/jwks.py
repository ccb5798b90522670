"""The keys that sign bearer tokens: a JWKS file or URL, cached, fetched again within bounds."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import httpx2
import jwt
import orjson
import structlog

from service.errors import TicketError
from service.settings import is_url

_TTL_SECONDS = 300.0
# An unknown `kid` may mean that keys were rotated, or be noise: the source is fetched at most once in this time, and at
# most once in the shorter one while it does not answer.
_PAUSE_SECONDS = 10.0
_RETRY_SECONDS = 1.0
# The time limits of each step of a fetch, and of the whole fetch.
_TIMEOUT_SECONDS = 2.0
_FETCH_SECONDS = 5.0
_MAX_BYTES = 256 * 1024
# Each candidate costs a signature's verification, and anybody may send a token.
_MAX_CANDIDATES = 8

_log = structlog.get_logger()


class KeySet:
    """The public keys of a JWKS by key id; several may have the same, and a key may have none (RFC 7517, 4.5)."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._client = httpx2.AsyncClient(timeout=_TIMEOUT_SECONDS) if is_url(source) else None
        self._keys: dict[str | None, list[jwt.PyJWK]] = {}
        self._fetched = self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self.failure = ""  # why the last fetch failed

    async def candidates(self, kid: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """The keys that may have signed a token: those with its key id, or else those without one.

        All of them where the token names none; but only those for its algorithm, and a few at most.
        Raises TicketError: `invalid_token` when there are none, `unavailable` while no JWKS could be had.
        """
        if not self._source:
            raise TicketError("invalid_token")
        is_missing = not self._keys if kid is None else kid not in self._keys
        if is_missing or time.monotonic() - self._fetched > _TTL_SECONDS:
            await self._ask()
        if not self._keys:
            raise TicketError("unavailable", retry_after=int(_RETRY_SECONDS), begun=False)
        named = (
            chain.from_iterable(self._keys.values()) if kid is None else self._keys.get(kid, self._keys.get(None, ()))
        )
        found = [key for key in named if key.algorithm_name == algorithm][:_MAX_CANDIDATES]
        if not found:
            raise TicketError("invalid_token")
        return found

    async def count(self) -> int:
        """How many keys the source has now."""
        await self._fetch()
        return sum(map(len, self._keys.values()))

    async def close(self) -> None:
        """Close the HTTP client."""
        if self._asking is not None:
            self._asking.cancel()
        if self._client is not None:
            await self._client.aclose()

    def _ask(self) -> Awaitable[None]:
        """Fetch the source, unless it was fetched a moment ago; the returned future ends when the keys are in."""
        pause = _PAUSE_SECONDS if self._fetched >= self._asked else _RETRY_SECONDS
        if self._asking is None or (self._asking.done() and time.monotonic() - self._asked > pause):
            self._asked = time.monotonic()
            self._asking = asyncio.create_task(self._fetch())
        # Shielded: a caller that is cancelled does not cancel the fetch for the others who wait for it.
        return asyncio.shield(self._asking)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                entries = orjson.loads(await self._read())["keys"]
            keys = [key for entry in entries if (key := _usable(entry)) is not None]
        except (httpx2.HTTPError, OSError, ValueError, TypeError, KeyError) as error:
            self.failure = f"cannot be had: {type(error).__name__}"
            _log.warning("jwks", outcome="unavailable", error=type(error).__name__)
            return
        if not keys:
            self.failure = "there is no usable key"
            _log.warning("jwks", outcome="no usable keys")
            return
        by_kid: dict[str | None, list[jwt.PyJWK]] = {}
        for key in keys:
            by_kid.setdefault(key.key_id, []).append(key)
        self._keys = by_kid
        self._fetched = time.monotonic()

    async def _read(self) -> bytes:
        if self._client is None:
            return await asyncio.to_thread(Path(self._source).read_bytes)
        response = await self._client.get(self._source)
        response.raise_for_status()
        if len(response.content) > _MAX_BYTES:
            raise ValueError("the JWKS is too large")
        return response.content


def _usable(entry: Any) -> jwt.PyJWK | None:
    """The key of one entry; None for an entry that cannot verify a token here, so that the others still count."""
    try:
        key = jwt.PyJWK.from_dict(entry)
        is_for_tokens = key.public_key_use != "enc" and "verify" in entry.get("key_ops", ["verify"])
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    return key if is_for_tokens and key.key_type in ("RSA", "EC") and isinstance(key.key_id, str | None) else None
