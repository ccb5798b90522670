"""API keys: who calls, from the header or from what was verified in the last seconds."""

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, HTTPException, Security
from fastapi.security import APIKeyHeader
from sqlalchemy import bindparam, func, or_, select

from tests.benchmarks.peer.database import engine

from .tables import api_keys

_CACHE_SECONDS = 3.0
_CACHE_SIZE = 10_000

_FIND_KEY = select(api_keys).where(
    api_keys.c.key_hash == bindparam("key_hash"),
    api_keys.c.revoked_at.is_(None),
    or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now()),
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The program that calls."""

    key_id: str
    account_id: UUID
    live: bool
    scopes: frozenset[str]

    @property
    def scope(self) -> dict[str, object]:
        """What every statement is limited to."""
        return {"account_id": self.account_id, "live": self.live}


_header = APIKeyHeader(name="X-API-Key", auto_error=False)
_known: dict[bytes, tuple[Caller, float]] = {}


async def _authenticate(key: Annotated[str | None, Security(_header)]) -> Caller:
    if not key:
        raise HTTPException(401, "Missing authentication credentials")
    digest = hashlib.sha256(key.encode()).digest()
    known = _known.get(digest)
    if known is None or known[1] <= time.time():
        known = _known[digest] = await _look_up(digest)
        if len(_known) > _CACHE_SIZE:
            del _known[next(iter(_known))]
    return known[0]


async def _look_up(digest: bytes) -> tuple[Caller, float]:
    # A connection of its own, given back before the request takes one: two at once could starve the pool.
    async with engine.connect() as connection:
        row = (await connection.execute(_FIND_KEY, {"key_hash": digest})).one_or_none()
    if row is None:
        raise HTTPException(401, "Invalid API key")
    until = time.time() + _CACHE_SECONDS
    if row.expires_at is not None:
        until = min(until, row.expires_at.timestamp())
    return Caller(str(row.id), row.account_id, row.live, frozenset(row.scopes)), until


def _requires(scope: str) -> Callable[[Caller], Awaitable[Caller]]:
    async def check(caller: Annotated[Caller, Depends(_authenticate)]) -> Caller:
        if scope not in caller.scopes:
            raise HTTPException(403, f"API key missing required scope: {scope}")
        return caller

    return check


Reader = Annotated[Caller, Depends(_requires("tickets:read"))]
Writer = Annotated[Caller, Depends(_requires("tickets:write"))]
