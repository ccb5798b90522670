"""The issuer of the benchmark's bearer tokens, with the JWKS that the service and the peer verify them by."""

import json
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://issuer.benchmark"
AUDIENCE = "tickets-benchmark"
_KID = "benchmark"
_SECONDS = 12 * 3600


class Issuer:
    """One EC key, made anew for each run."""

    def __init__(self, directory: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.jwks = directory / "jwks.json"
        public = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self.jwks.write_text(json.dumps({"keys": [{**public, "kid": _KID, "alg": "ES256"}]}))

    def bearer(self, sub: str, **claims: str) -> tuple[str, str]:
        """The header with a token that holds for as long as any run."""
        now = int(time.time())
        payload = {"sub": sub, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + _SECONDS, **claims}
        return "authorization", f"Bearer {jwt.encode(payload, self._key, 'ES256', headers={'kid': _KID})}"

    def settings(self) -> dict[str, str]:
        """What the service needs to verify its tokens."""
        return {"TICKETS_JWKS": str(self.jwks), "TICKETS_JWT_ISSUER": ISSUER, "TICKETS_JWT_AUDIENCE": AUDIENCE}

    def peer_settings(self) -> dict[str, str]:
        """What the peer needs."""
        return {"PEER_JWKS": str(self.jwks), "PEER_JWT_ISSUER": ISSUER, "PEER_JWT_AUDIENCE": AUDIENCE}
