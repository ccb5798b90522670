"""Secrets and signatures: as the Standard Webhooks specification has them, and of the body alone."""

import base64
import hashlib
import hmac
import secrets as random

_PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """A fresh secret: `whsec_` and the base64 of a key."""
    return _PREFIX + base64.b64encode(random.token_bytes(_SECRET_BYTES)).decode()


def body_signature(body: bytes, secret: str) -> str:
    """A signature of the body alone, keyed with the secret as it is shown: `sha256=` and the hex HMAC."""
    return f"sha256={hmac.digest(secret.encode(), body, hashlib.sha256).hex()}"


def signature_headers(message_id: str, timestamp: int, body: bytes, secrets: list[str]) -> dict[str, str]:
    """The headers of a message: its id, the time of the attempt (Unix seconds), and a signature by each secret."""
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    keys = [base64.b64decode(secret.removeprefix(_PREFIX)) for secret in secrets]
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
