"""Who signs tokens and who tells the keys: tokens of any kind, a source of keys, and a clock that tests move."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from support.system import AUDIENCE, ISSUER, Credential, Issuer

Forge = Callable[[Issuer], str]

STRANGER = rsa.generate_private_key(65537, 2048)


def bearer(token: str, scheme: str = "Bearer") -> Credential:
    return {"authorization": f"{scheme} {token}"}


def claims(**changed: Any) -> dict[str, Any]:
    """The claims of a good token with these changes; what is None is left out."""
    now = int(time.time())
    good = {"sub": str(uuid4()), "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 3600}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def token_of(**changed: Any) -> Forge:
    """A token that the issuer signed, of claims with these changes."""
    return lambda issuer: jwt.encode(claims(**changed), issuer.ec, "ES256", headers={"kid": "ec"})


def later(claim: str, seconds: int) -> Forge:
    """A token with this claim so many seconds from the moment it is made."""

    def forge(issuer: Issuer) -> str:
        return token_of(**{claim: int(time.time()) + seconds})(issuer)

    return forge


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


# As a JWKS tells it, but for its kid.
KEY = jwt.algorithms.RSAAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True)


def jwks(*kids: str, more: Sequence[Any] = ()) -> bytes:
    return json.dumps({"keys": [*({**KEY, "kid": kid} for kid in kids), *more]}).encode()


class KeySource:
    """A web server that answers a JWKS, and counts how often it is asked."""

    def __init__(self, *kids: str) -> None:
        self.kids = kids
        self.status = 200
        self.fetches = 0
        # Instead of the JWKS, or beside its keys.
        self.body: bytes | None = None
        self.more: list[Any] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.fetches += 1
                body = jwks(*source.kids, more=source.more) if source.body is None else source.body
                self.send_response(source.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"


@contextmanager
def key_source(*kids: str) -> Iterator[KeySource]:
    source = KeySource(*kids)
    thread = threading.Thread(target=source.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield source
    finally:
        source.server.shutdown()
        source.server.server_close()
        thread.join()


class Clock:
    """The time as credentials and keys see it: it stands (nearly) still until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        monkeypatch.setattr("service.access.jwks.time", SimpleNamespace(monotonic=self.look))
        monkeypatch.setattr("service.access.authenticator.time", SimpleNamespace(time=self.look))

    def look(self) -> float:
        self.now += 1e-5
        return self.now

    def datetime(self) -> Any:
        return SimpleNamespace(now=lambda tz: datetime.fromtimestamp(self.now, tz))
