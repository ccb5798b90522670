"""Verifies bearer JWTs and API keys, and caches the caller of a verified credential for a short while."""

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import jwt
from sqlalchemy import LargeBinary, and_, bindparam, exists, func, select

from service.access.api_keys import hash_api_key, is_well_formed
from service.access.jwks import KeySet
from service.access.key_uses import KeyUses
from service.access.policy import Caller, Policy, admit
from service.access.suspensions import Suspensions
from service.directory import KEY_HOLDS, api_keys
from service.errors import TicketError
from service.fields import one_uuid_form
from service.providers.tables import links
from service.settings import Settings
from service.storage.database import Database
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

_ALGORITHMS = ("RS256", "ES256")
_MAX_TOKEN_LENGTH = 8192
_MAX_CLAIM_LENGTH = 64
_CACHE_SIZE = 10_000
# A revoked key works for this long at most: contracts promise five seconds.
_KEY_CACHE_SECONDS = 3.0
_TOKEN_CACHE_SECONDS = 300.0

_FIND_KEY = Statement(
    select(
        api_keys.c.id,
        api_keys.c.account_id,
        api_keys.c.live,
        api_keys.c.scopes,
        api_keys.c.expires_at,
        func.now().label("used_at"),
        # A test key has no provider.
        and_(api_keys.c.live, exists().where(links.c.account_id == api_keys.c.account_id)).label("is_linked"),
    ).where(
        api_keys.c.key_hash == bindparam("key_hash", type_=LargeBinary),
        KEY_HOLDS,
    ),
    short=True,
    scope=EVERYONE("the caller is unknown before the key is found, and only its owner can make its hash"),
)


class Authenticator:
    """Turns a call's credential into its Caller. The cache is bounded, and no entry outlives its credential."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._keys = KeySet(settings.jwks)
        self.suspensions = Suspensions(database)
        self.key_uses = KeyUses()
        self._leeway = settings.jwt_leeway_seconds
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        # Keyed by kind, so that a token is never taken for a key, and by the credential's SHA-256: caller, valid until.
        self._verified: dict[tuple[bool, bytes], tuple[Caller, float]] = {}

    async def caller(self, policy: Policy, metadata: Mapping[str, Any]) -> Caller:
        """The caller whose credential is in the metadata, allowed by the policy.

        Raises TicketError: `unauthenticated`, `token_expired`, `invalid_token`, `suspended`, `missing_scope`.
        """
        is_key = policy.who == "program"
        credential = metadata.get("x-api-key") if is_key else _bearer(metadata.get("authorization"))
        if not credential:
            raise TicketError("unauthenticated")
        kind_and_digest = is_key, hashlib.sha256(credential.encode()).digest()
        known = self._verified.get(kind_and_digest)
        if known is None or known[1] <= time.time():
            known = await (self._verify_key if is_key else self._verify_token)(credential)
            await self.suspensions.look_once(known[0])
            self._remember(kind_and_digest, known)
        if policy.who != "operator":
            self.suspensions.refuse(known[0])
        admit(policy, known[0])
        return known[0]

    async def close(self) -> None:
        """Close the JWKS client."""
        await self._keys.close()

    def _remember(self, kind_and_digest: tuple[bool, bytes], known: tuple[Caller, float]) -> None:
        self._verified.pop(kind_and_digest, None)
        if len(self._verified) >= _CACHE_SIZE:
            del self._verified[next(iter(self._verified))]
        self._verified[kind_and_digest] = known

    async def _verify_key(self, key: str) -> tuple[Caller, float]:
        row = None
        if is_well_formed(key):
            row = await self._database.one(_FIND_KEY, {"key_hash": hash_api_key(key)})
        if row is None:
            raise TicketError("invalid_token", "Invalid API key")
        # Recorded whenever it is looked up: every few seconds while it is used.
        self.key_uses.note(row["id"], row["used_at"])
        until = time.time() + _KEY_CACHE_SECONDS
        if row["expires_at"] is not None:
            until = min(until, row["expires_at"].timestamp())
        caller = Caller(
            subject=str(row["id"]),
            scopes=frozenset(row["scopes"]),
            account_id=row["account_id"],
            live=row["live"],
            is_linked=row["is_linked"],
        )
        return caller, until

    async def _verify_token(self, token: str) -> tuple[Caller, float]:
        if len(token) > _MAX_TOKEN_LENGTH:
            raise TicketError("invalid_token")
        try:
            claims = await self._claims(token)
        except jwt.ExpiredSignatureError as error:
            raise TicketError("token_expired") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TicketError("invalid_token") from error
        # PyJWT also accepts a number in quotes.
        expires_at = int(claims["exp"]) + self._leeway
        return _caller_of(claims, expires_at), min(expires_at, time.time() + _TOKEN_CACHE_SECONDS)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """What the token says, when one of the keys has signed it. Raises TicketError, jwt.PyJWTError."""
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in _ALGORITHMS:
            raise TicketError("invalid_token")
        for key in await self._keys.candidates(header.get("kid"), algorithm):
            # (The signature is verified before anything that the token says.)
            with suppress(jwt.InvalidSignatureError):
                claims: Mapping[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=self._leeway,
                    options={"require": ["exp", "iss", "aud", "sub"]},
                )
                return claims
        raise TicketError("invalid_token")


def _caller_of(claims: Mapping[str, Any], expires_at: float) -> Caller:
    subject, scope = claims["sub"], claims.get("scope", "")
    if not isinstance(scope, str) or not _is_claim(subject):
        raise TicketError("invalid_token")
    named = {name: claims.get(name) for name in ("tenant_id", "app_id", "actor_role")}
    if not all(value is None or _is_claim(value) for value in named.values()):
        raise TicketError("invalid_token")
    return Caller(
        subject=one_uuid_form(subject),
        # Scopes are split at U+0020 alone (RFC 6749, 3.3): any other blank is part of a scope that nobody grants.
        scopes=frozenset(scope.split(" ")) - {""},
        tenant_id=named["tenant_id"],
        app_id=named["app_id"],
        actor_role=named["actor_role"],
        expires_at=expires_at,
    )


def _is_claim(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_CLAIM_LENGTH and value.isprintable()


def _bearer(header: str | None) -> str | None:
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
