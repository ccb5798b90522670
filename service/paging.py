"""Keyset pages: an opaque cursor that says where the next page begins, good for the list that made it and no other."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

from service import jsontext
from service.database import Row
from service.errors import TicketError, invalid

_CHECK_BYTES = 9


def cut(rows: Sequence[Row], limit: int, binding: str, *keys: str) -> tuple[Sequence[Row], str | None]:
    """The page of `limit` rows and the cursor behind it, given the rows of a query for one more.

    `binding` is all that the list depends on (its name, filters and order); `keys` are the members it is ordered by.
    """
    if len(rows) <= limit:
        return rows, None
    position = jsontext.dump([rows[limit - 1][key] for key in keys])
    return rows[:limit], base64.urlsafe_b64encode(_check(position, binding) + position).decode().rstrip("=")


def position(cursor: str, binding: str) -> list[Any]:
    """The values that `cut` put into a cursor: times as RFC 3339, ids as text.

    Raises TicketError `validation_error` for text that is not a cursor of this list.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _not_a_cursor() from None
    check, position = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    if check != _check(position, binding):
        raise _not_a_cursor()
    values: list[Any] = jsontext.parse(position)
    return values


def _check(position: bytes, binding: str) -> bytes:
    return hashlib.sha256(binding.encode() + b"\0" + position).digest()[:_CHECK_BYTES]


def _not_a_cursor() -> TicketError:
    return invalid("query", "cursor", "Input should be the next_cursor of a page of this list", "cursor")
