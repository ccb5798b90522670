"""Keyset pages: an opaque cursor says where the next page begins, and is valid for the list that made it alone."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter

from service import jsontext
from service.errors import invalid
from service.storage.statement import Row

T = TypeVar("T")

_CHECK_BYTES = 9
# Where a page of a history begins: after a version.
_BY_VERSION: TypeAdapter[tuple[int]] = TypeAdapter(tuple[Annotated[int, Field(ge=0, lt=2**31)]])
# A page that grows beyond this is cut short: gRPC clients reject messages of more than 4 MiB by default.
PAGE_BYTES = 3 * 1024 * 1024
# A page of no more rows than this is read in a millisecond.
_SHORT = 50


def is_short(limit: int) -> bool:
    """Whether a page of this length is read in no time."""
    return limit <= _SHORT


def binding_of(*parts: Any) -> str:
    """The binding of a list: all that it depends on, such as its name, scope, filters and order, as one text."""
    return jsontext.dump(parts).decode()


def cut(
    rows: Sequence[Row], limit: int, binding: str, *keys: str, more: bool = False
) -> tuple[Sequence[Row], str | None]:
    """The page of `limit` rows and the cursor after it, given the rows of a query for one more.

    A page may be shorter, and then `more` says that it is not the last.

    `keys` are the columns that the list is ordered by.
    """
    if len(rows) <= limit and not more:
        return rows, None
    page = rows[:limit]
    return page, encode(binding, *(page[-1][key] for key in keys))


def encode(binding: str, *values: Any) -> str:
    """The cursor that goes on after the row whose keys have these values."""
    position = jsontext.dump(values)
    return _base64(_check(position, binding) + position)


def decode(cursor: str, binding: str, keys: TypeAdapter[T]) -> T:
    """The values of the keys that `cut` put into a cursor.

    Raises TicketError `validation_error` for text that is not a cursor of this list. The checksum only finds mistakes:
    who works one out for a position of their own choosing sees no more than the list's scope lets them.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        check, position = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        # Decoding is lenient: only the one text that encodes these bytes is a cursor.
        if _base64(raw) == cursor and check == _check(position, binding):
            return keys.validate_python(jsontext.parse(position))
    except (binascii.Error, ValueError):  # pydantic's ValidationError is a ValueError too
        pass
    message = "Input should be a cursor that this list or watch has given"
    raise invalid("query", "cursor", message, "cursor", cursor)


def version_after(cursor: str | None, binding: str) -> int:
    """The version after which a page of a history begins. Raises TicketError as `decode`."""
    if cursor is None:
        return 0
    (version,) = decode(cursor, binding, _BY_VERSION)
    return version


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _check(position: bytes, binding: str) -> bytes:
    return hashlib.sha256(binding.encode() + b"\0" + position).digest()[:_CHECK_BYTES]
