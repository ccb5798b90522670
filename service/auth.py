"""Who calls, and what each method asks of them: bearer JWT and API keys, one policy table, default deny."""

import hashlib
import hmac
import secrets
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import jwt
from sqlalchemy import LargeBinary, and_, bindparam, exists, select

from service.database import Database
from service.directory import KEY_HOLDS, api_keys
from service.errors import TicketError
from service.jwks import KeySet
from service.providers.tables import links
from service.settings import Settings
from service.statement import Statement


@dataclass(frozen=True, slots=True)
class Caller:
    """Who was authenticated. Which members are set depends on the credential; nothing here came from a body."""

    # The token's `sub`, or the API key's id.
    subject: str
    scopes: frozenset[str]
    # API keys: the account, and whether the key is live.
    account_id: UUID | None = None
    live: bool = True
    # Whether the account has an external provider that a ticket of this key goes to.
    is_linked: bool = False
    # Tokens: the claims of the same names.
    tenant_id: str | None = None
    app_id: str | None = None
    actor_role: str | None = None
    # Unix time; None for what does not expire.
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a method asks: whose credential, any one of the scopes (none: the operation decides), and its bucket."""

    # `user`: a token whose sub is a UUID. `tenant`: a token with tenant_id. `none`: anyone.
    who: Literal["user", "tenant", "operator", "program", "none"]
    scopes: tuple[str, ...] = ()
    kind: Literal["read", "write"] = "read"


_READ_HELPDESK = Policy("tenant", ("helpdesk:read", "helpdesk:agent"))
_SET_LEVELS = Policy("tenant", ("helpdesk:agent",), "write")
_SEE_LEVELS = Policy("tenant", ("helpdesk:agent",))
_WRITE_HELPDESK = Policy("tenant", ("helpdesk:write", "helpdesk:agent"), "write")
_MANAGE_WEBHOOKS = Policy("program", ("webhooks:manage",), "write")
_SEE_WEBHOOKS = Policy("program", ("webhooks:manage",))
_ADMIN = Policy("operator", ("tickets:admin",), "write")

# Package and method; the typed service and its REST sister share the entry. A method without one is refused.
POLICIES: Mapping[tuple[str, str], Policy] = {
    # Membership of the project decides, in the statement itself.
    ("tickets.handoff.v1", "ListTickets"): Policy("user"),
    ("tickets.handoff.v1", "ListProjectTickets"): Policy("user"),
    ("tickets.handoff.v1", "GetTicket"): Policy("user"),
    ("tickets.handoff.v1", "ListTicketEvents"): Policy("user"),
    ("tickets.handoff.v1", "WatchTickets"): Policy("user"),
    ("tickets.handoff.v1", "CreateTicket"): Policy("user", kind="write"),
    ("tickets.handoff.v1", "UpdateTicket"): Policy("user", kind="write"),
    ("tickets.handoff.v1", "BulkUpdateTickets"): Policy("user", kind="write"),
    ("tickets.handoff.v1", "ReportDeployment"): Policy("user", kind="write"),
    ("tickets.helpdesk.v1", "ListTickets"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "GetTicket"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "CreateTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "UpdateTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "CloseTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "DeleteTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "RestoreTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "CreateComment"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "UpdateComment"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "ListComments"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "ListTicketEvents"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "GetTicketSla"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "ListSlaPolicies"): _SEE_LEVELS,
    ("tickets.helpdesk.v1", "GetSlaPolicy"): _SEE_LEVELS,
    ("tickets.helpdesk.v1", "CreateSlaPolicy"): _SET_LEVELS,
    ("tickets.helpdesk.v1", "UpdateSlaPolicy"): _SET_LEVELS,
    ("tickets.helpdesk.v1", "GetCalendar"): _SEE_LEVELS,
    ("tickets.helpdesk.v1", "UpdateCalendar"): _SET_LEVELS,
    ("tickets.helpdesk.v1", "WatchTickets"): _READ_HELPDESK,
    ("tickets.itsm.v1", "CreateTicket"): Policy("program", ("tickets:write",), "write"),
    ("tickets.itsm.v1", "GetTicket"): Policy("program", ("tickets:read",)),
    ("tickets.itsm.v1", "ListTickets"): Policy("program", ("tickets:read",)),
    ("tickets.itsm.v1", "UpdateTicket"): Policy("program", ("tickets:write",), "write"),
    ("tickets.itsm.v1", "ListTicketEvents"): Policy("program", ("tickets:read",)),
    ("tickets.itsm.v1", "WatchTickets"): Policy("program", ("tickets:read",)),
    ("tickets.itsm.v1", "CreateWebhook"): _MANAGE_WEBHOOKS,
    ("tickets.itsm.v1", "ListWebhooks"): _SEE_WEBHOOKS,
    ("tickets.itsm.v1", "UpdateWebhook"): _MANAGE_WEBHOOKS,
    ("tickets.itsm.v1", "DeleteWebhook"): _MANAGE_WEBHOOKS,
    ("tickets.itsm.v1", "RotateWebhookSecret"): _MANAGE_WEBHOOKS,
    ("tickets.itsm.v1", "ListWebhookDeliveries"): _SEE_WEBHOOKS,
    ("tickets.itsm.v1", "ReplayWebhookDelivery"): _MANAGE_WEBHOOKS,
    ("tickets.admin.v1", "CreateAccount"): _ADMIN,
    ("tickets.admin.v1", "CreateApiKey"): _ADMIN,
    ("tickets.admin.v1", "RevokeApiKey"): _ADMIN,
    ("tickets.admin.v1", "CreateProject"): _ADMIN,
    ("tickets.admin.v1", "UpdateProject"): _ADMIN,
    ("tickets.admin.v1", "AddMember"): _ADMIN,
    ("tickets.admin.v1", "RemoveMember"): _ADMIN,
    ("tickets.admin.v1", "CreateTenant"): _ADMIN,
    ("tickets.admin.v1", "LinkProvider"): _ADMIN,
    ("tickets.admin.v1", "UnlinkProvider"): _ADMIN,
    ("tickets.admin.v1", "ListDeliveries"): _ADMIN,
    ("tickets.admin.v1", "RequeueDelivery"): _ADMIN,
    ("grpc.health.v1", "Check"): Policy("none"),
    ("grpc.health.v1", "Watch"): Policy("none"),
    ("grpc.reflection.v1alpha", "ServerReflectionInfo"): Policy("none"),
}


def admit(policy: Policy, caller: Caller) -> None:
    """Check that a caller is whom a policy asks for. Raises TicketError: `invalid_token`, `missing_scope`."""
    if policy.who == "tenant" and caller.tenant_id is None:
        raise TicketError("invalid_token", "The token has no tenant_id")
    if policy.who == "user" and not _is_uuid(caller.subject):
        raise TicketError("invalid_token", "The token's sub is not a user's UUID")
    if policy.scopes and caller.scopes.isdisjoint(policy.scopes):
        credential = "API key" if policy.who == "program" else "Token"
        raise TicketError("missing_scope", f"{credential} missing required scope: {policy.scopes[0]}")


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


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
        # A test key has no provider.
        and_(api_keys.c.live, exists().where(links.c.account_id == api_keys.c.account_id)).label("is_linked"),
    ).where(
        api_keys.c.key_hash == bindparam("key_hash", type_=LargeBinary),
        KEY_HOLDS,
    )
)


class Authenticator:
    """Turns a call's credential into its Caller. Remembers what it verified, bounded and never past its expiry."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._keys = KeySet(settings.jwks)
        self._leeway = settings.jwt_leeway_seconds
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        # By kind, so that a token is never taken for a key: SHA-256 of the credential → (caller, until when it holds).
        self._verified: dict[tuple[bool, bytes], tuple[Caller, float]] = {}

    async def caller(self, policy: Policy, metadata: Mapping[str, Any]) -> Caller:
        """The caller whose credential is in the metadata, allowed by the policy.

        Raises TicketError: `unauthenticated`, `token_expired`, `invalid_token`, `missing_scope`.
        """
        is_key = policy.who == "program"
        credential = metadata.get("x-api-key") if is_key else _bearer(metadata.get("authorization"))
        if not credential:
            raise TicketError("unauthenticated")
        kind_and_digest = is_key, hashlib.sha256(credential.encode()).digest()
        known = self._verified.get(kind_and_digest)
        if known is None or known[1] <= time.time():
            known = await (self._verify_key if is_key else self._verify_token)(credential)
            self._remember(kind_and_digest, known)
        admit(policy, known[0])
        return known[0]

    async def close(self) -> None:
        """Give back the JWKS client."""
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
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in _ALGORITHMS:
                raise TicketError("invalid_token")
            claims = jwt.decode(
                token,
                await self._keys.key(header.get("kid")),
                algorithms=_ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise TicketError("token_expired") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TicketError("invalid_token") from error
        # PyJWT takes a number in quotes for one.
        expires_at = int(claims["exp"]) + self._leeway
        return _caller_of(claims, expires_at), min(expires_at, time.time() + _TOKEN_CACHE_SECONDS)


def _caller_of(claims: Mapping[str, Any], expires_at: float) -> Caller:
    subject, scope = claims["sub"], claims.get("scope", "")
    if not isinstance(scope, str) or not _is_claim(subject):
        raise TicketError("invalid_token")
    named = {name: claims.get(name) for name in ("tenant_id", "app_id", "actor_role")}
    if not all(value is None or _is_claim(value) for value in named.values()):
        raise TicketError("invalid_token")
    return Caller(
        subject=subject,
        scopes=frozenset(scope.split()),
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


_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH = 32  # 190 bits
_CHECKSUM_LENGTH = 6


def new_api_key(live: bool) -> str:
    """A fresh API key: prefix, 190 random bits, and a checksum that finds typing errors without a look-up."""
    start = f"itsm_sk_{'live' if live else 'test'}_" + "".join(secrets.choice(_BASE62) for _ in range(_RANDOM_LENGTH))
    return start + _checksum(start)


def hash_api_key(key: str) -> bytes:
    """What is stored of an API key: its SHA-256. A key's own randomness makes salt and stretching needless."""
    return hashlib.sha256(key.encode()).digest()


def is_well_formed(key: str) -> bool:
    """Whether a text can be an API key at all: prefix, length and checksum."""
    if not key.startswith(("itsm_sk_live_", "itsm_sk_test_")) or not key.isascii():
        return False
    return hmac.compare_digest(_checksum(key[:-_CHECKSUM_LENGTH]), key[-_CHECKSUM_LENGTH:])


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits
