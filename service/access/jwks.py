"""The keys that sign bearer tokens: a JWKS file or URL, cached, fetched again within bounds."""

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx2
import jwt
import orjson
import structlog

from service.errors import TicketError

_TTL_SECONDS = 300.0
# An unknown `kid` may mean that keys were rotated, or be noise: the source is fetched at most once in this time, and at
# most once in the shorter one while it does not answer.
_PAUSE_SECONDS = 10.0
_RETRY_SECONDS = 1.0
# For each step of a fetch, and for the whole of it.
_TIMEOUT_SECONDS = 2.0
_FETCH_SECONDS = 5.0
_MAX_BYTES = 256 * 1024

_log = structlog.get_logger()


class KeySet:
    """The public keys of a JWKS by key id."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._client = httpx2.AsyncClient(timeout=_TIMEOUT_SECONDS) if source.startswith("http") else None
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched = self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def key(self, kid: str | None) -> jwt.PyJWK:
        """The key with this id; the only key there is when a token names none.

        Raises TicketError: `invalid_token` for an unknown key, `unavailable` while no JWKS could be had.
        """
        if not self._source:
            raise TicketError("invalid_token")
        if self._find(kid) is None or time.monotonic() - self._fetched > _TTL_SECONDS:
            await self._ask()
        key = self._find(kid)
        if key is None:
            if not self._keys:
                raise TicketError("unavailable", retry_after=int(_RETRY_SECONDS), begun=False)
            raise TicketError("invalid_token")
        return key

    async def close(self) -> None:
        """Close the HTTP client."""
        if self._asking is not None:
            self._asking.cancel()
        if self._client is not None:
            await self._client.aclose()

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

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
            _log.warning("jwks", outcome="unavailable", error=type(error).__name__)
            return
        if not keys:
            _log.warning("jwks", outcome="no usable keys")
            return
        self._keys = {key.key_id: key for key in keys}
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
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    return key if key.key_type in ("RSA", "EC") and isinstance(key.key_id, str | None) else None
