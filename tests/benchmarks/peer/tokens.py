"""Bearer tokens: who calls, verified with PyJWT, or verified in the last minutes."""

import hashlib
import os
import time
from pathlib import Path
from typing import Annotated, Any

import jwt
from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .errors import ApiError

_CACHE_SECONDS = 300.0
_CACHE_SIZE = 10_000
_REQUIRED = ["exp", "iss", "aud", "sub"]
_ALGORITHMS = ["ES256", "RS256"]

_issuer, _audience = os.environ.get("PEER_JWT_ISSUER"), os.environ.get("PEER_JWT_AUDIENCE")
_jwks = os.environ.get("PEER_JWKS")
_keys = {key.key_id: key for key in jwt.PyJWKSet.from_json(Path(_jwks).read_text()).keys} if _jwks else {}
_known: dict[bytes, tuple[dict[str, Any], float]] = {}
_bearer = HTTPBearer(auto_error=False)


async def _claims(given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> dict[str, Any]:
    if given is None:
        raise ApiError(401, "unauthenticated", "Missing authentication credentials")
    token = given.credentials
    digest = hashlib.sha256(token.encode()).digest()
    known = _known.get(digest)
    if known is None or known[1] <= time.time():
        claims = _verify(token)
        known = _known[digest] = claims, min(claims["exp"], time.time() + _CACHE_SECONDS)
        if len(_known) > _CACHE_SIZE:
            del _known[next(iter(_known))]
    return known[0]


def _verify(token: str) -> dict[str, Any]:
    try:
        key = _keys[jwt.get_unverified_header(token)["kid"]]
        return jwt.decode(token, key, _ALGORITHMS, options={"require": _REQUIRED}, issuer=_issuer, audience=_audience)
    except jwt.ExpiredSignatureError as error:
        raise ApiError(401, "token_expired", "The token has expired") from error
    except (jwt.PyJWTError, KeyError) as error:
        raise ApiError(401, "invalid_token", "The token is not valid") from error


Claims = Annotated[dict[str, Any], Depends(_claims)]
