"""Cursors of keyset pages: opaque texts, bound to the list that gave them."""

import base64
import binascii
import hashlib
from datetime import datetime

import orjson
from fastapi.exceptions import RequestValidationError

_CHECK_BYTES = 9


def encode(binding: str, created_at: datetime, ticket_id: str) -> str:
    """The cursor that goes on after this ticket."""
    position = orjson.dumps([created_at, ticket_id])
    return base64.urlsafe_b64encode(_check(binding, position) + position).decode().rstrip("=")


def decode(binding: str, cursor: str) -> tuple[datetime, str]:
    """The ticket that a list goes on after."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        check, position = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check == _check(binding, position):
            created_at, ticket_id = orjson.loads(position)
            return datetime.fromisoformat(created_at), ticket_id
    except (binascii.Error, ValueError):
        pass
    raise RequestValidationError([{"loc": ("query", "cursor"), "msg": "Not a cursor of this list", "type": "cursor"}])


def _check(binding: str, position: bytes) -> bytes:
    return hashlib.sha256(binding.encode() + b"\0" + position).digest()[:_CHECK_BYTES]
