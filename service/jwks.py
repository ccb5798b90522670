"""The keys that sign bearer tokens: a JWKS file or URL, cached, fetched again within bounds."""

import asyncio
import time
from pathlib import Path

import httpx
import jwt
import orjson

from service.errors import TicketError

_TTL_SECONDS = 300.0
# An unknown `kid` may mean that keys were rotated; it may also be noise. It causes one fetch in this time at most.
_REFETCH_SECONDS = 10.0
_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 256 * 1024


class KeySet:
    """The public keys of a JWKS by key id."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS) if source.startswith("http") else None
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def key(self, kid: str | None) -> jwt.PyJWK:
        """The key with this id; the only key there is when a token names none.

        Raises TicketError: `invalid_token` for an unknown key, `unavailable` while no JWKS could be had.
        """
        if not self._source:
            raise TicketError("invalid_token")
        age = time.monotonic() - self._fetched
        if age > _TTL_SECONDS or (self._find(kid) is None and age > _REFETCH_SECONDS):
            await self._refresh()
        key = self._find(kid)
        if key is None:
            raise TicketError("invalid_token")
        return key

    async def close(self) -> None:
        """Give back the HTTP client."""
        if self._client is not None:
            await self._client.aclose()

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        asked = time.monotonic()
        async with self._lock:
            if self._fetched > asked:
                return  # another call fetched while this one waited
            try:
                keys = jwt.PyJWKSet.from_dict(orjson.loads(await self._read())).keys
            except (httpx.HTTPError, OSError, ValueError, AttributeError, jwt.PyJWTError) as error:
                if not self._keys:
                    raise TicketError("unavailable", retry_after=1, begun=False) from error
                # The keys at hand stay good until the source is back; try again no sooner than the bound.
                self._fetched = time.monotonic() - _TTL_SECONDS + _REFETCH_SECONDS
                return
            self._keys = {key.key_id: key for key in keys if key.key_type in ("RSA", "EC")}
            self._fetched = time.monotonic()

    async def _read(self) -> bytes:
        if self._client is None:
            return await asyncio.to_thread(Path(self._source).read_bytes)
        response = await self._client.get(self._source)
        response.raise_for_status()
        if len(response.content) > _MAX_BYTES:
            raise ValueError("the JWKS is too large")
        return response.content
