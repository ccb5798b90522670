"""JSON text in and out: strict, numbers exact.

orjson refuses what JSON is not (trailing commas, NaN, lone surrogates, bad UTF-8), but reads every number as a 64-bit
integer or a double. Text that holds any other number takes the slower, exact way.
"""

import hashlib
import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Self

import orjson

JsonValue = Any

MAX_DEPTH = 100

# A fraction, an exponent, a negative zero, or more digits than a double or a 64-bit integer keeps. (Written so that its
# first character is of one class: three times as fast.)
_NEEDS_EXACT = re.compile(rb"[-0-9](?:(?<=-)0|(?<=[0-9])(?:[.eE]|[0-9]{15}))")
_EXACT_INT_DIGITS = 18


class _Number(Decimal):
    """A number that remembers how it was written."""

    def __new__(cls, text: str) -> Self:
        """The number that the text says. Raises decimal.InvalidOperation for one beyond all bounds."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str


class JsonText:
    """A JSON text that is stored and sent as it is."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonText) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"JsonText({self.text!r})"


def parse(raw: bytes, max_depth: int = MAX_DEPTH) -> JsonValue:
    """The value of a JSON text; numbers that neither a double nor 64 bits hold exactly are Decimal.

    Raises ValueError for text that is not strict JSON (RFC 8259) or nests deeper than that.
    """
    value = _parse_exact(raw) if _NEEDS_EXACT.search(raw) else orjson.loads(raw)
    # Only a text with that many brackets can nest that deep.
    if raw.count(b"[") + raw.count(b"{") > max_depth and _depth_over(value, max_depth):
        raise ValueError(f"nested deeper than {max_depth} levels")
    return value


def dump(value: JsonValue) -> bytes:
    """The JSON bytes of a value: times in UTC with a Z, numbers as exact as they are."""
    return orjson.dumps(value, default=_default, option=orjson.OPT_UTC_Z)


def text(value: JsonValue) -> JsonText:
    """The JSON text of a value, for a column."""
    return JsonText(dump(value).decode())


def digest(value: JsonValue) -> bytes:
    """A SHA-256 that is the same for equal JSON values, however they were written (`1.0` is `1`, members unordered)."""
    return hashlib.sha256(
        orjson.dumps(value, default=_canonical, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)
    ).digest()


def _parse_exact(raw: bytes) -> JsonValue:
    try:
        value = json.loads(raw.decode(), parse_float=_Number, parse_int=_integer, parse_constant=_refuse)
        orjson.dumps(value, default=_default)  # refuses lone surrogates, as orjson.loads does
    except (UnicodeDecodeError, RecursionError, TypeError, InvalidOperation) as error:
        raise ValueError("not a JSON text that can be kept") from error
    return value


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) <= _EXACT_INT_DIGITS and text != "-0" else _Number(text)


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _default(value: object) -> object:
    if isinstance(value, JsonText):
        return orjson.Fragment(value.text)
    if isinstance(value, _Number):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _canonical(value: object) -> object:
    if not isinstance(value, Decimal):
        return _default(value)
    sign, digits, exponent = value.as_tuple()
    significant = "".join(map(str, digits)).lstrip("0")
    stripped = significant.rstrip("0")
    if not stripped:
        return 0
    scale = int(exponent) + len(significant) - len(stripped)
    if scale >= 0 and len(stripped) + scale <= _EXACT_INT_DIGITS:
        return int(stripped) * 10**scale * (-1 if sign else 1)
    return orjson.Fragment(f"{'-' if sign else ''}{stripped}E{scale}")


def _depth_over(value: JsonValue, limit: int) -> bool:
    layer = [value]
    for _ in range(limit):
        layer = [
            child
            for item in layer
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not layer:
            return False
    return any(isinstance(item, dict | list) for item in layer)
