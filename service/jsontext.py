"""JSON text in and out: strict, numbers exact.

orjson refuses what JSON is not (trailing commas, NaN, lone surrogates, bad UTF-8), but reads every number as a 64-bit
integer or a double. Text that holds any other number takes the slower, exact way.
"""

import hashlib
import json
import re
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, Self

import orjson

JsonValue = Any

MAX_DEPTH = 100
# What one request may hold: reading a value takes a fraction of a microsecond, and an exact number more than one.
MAX_VALUES = 20_000
MAX_EXACT_NUMBERS = 5_000
# A text of this length cannot hold enough of either to matter.
_SHORT = 4096

# A fraction, an exponent, a negative zero, or more digits than a double or a 64-bit integer keeps. (Written so that its
# first character is of one class: three times as fast.)
_NEEDS_EXACT = re.compile(rb"[-0-9](?:(?<=-)0|(?<=[0-9])(?:[.eE]|[0-9]{15}))")
_EXACT_INT_DIGITS = 18
# Every bracket becomes a square one, and everything else goes.
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class TooManyValuesError(ValueError):
    """A text holds more values than a request may."""


class _Number(Decimal):
    """A number that remembers how it was written."""

    def __new__(cls, text: str) -> Self:
        """The number that the text says. Raises decimal.InvalidOperation for one beyond all bounds."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str


class JsonText:
    """A JSON text that is stored and sent as it is; equal to one that says an equal value (`1.0` is `1`)."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonText) and (other.text == self.text or other._digest() == self._digest())

    def __hash__(self) -> int:
        return hash(self._digest())

    def _digest(self) -> bytes:
        # A view nests what a request held some levels deeper.
        return digest(parse(self.text.encode(), 2 * MAX_DEPTH))

    def __repr__(self) -> str:
        return f"JsonText({self.text!r})"


def parse(raw: bytes, max_depth: int = MAX_DEPTH) -> JsonValue:
    """The value of a JSON text; numbers that neither a double nor 64 bits hold exactly are Decimal.

    Raises ValueError for text that is not strict JSON (RFC 8259) or nests deeper than that.
    """
    return _parse(raw, _bare(raw), max_depth)


def parse_request(raw: bytes) -> JsonValue:
    """The value of a JSON text of a caller. Raises ValueError as `parse`, and TooManyValuesError."""
    if len(raw) <= _SHORT:
        return parse(raw)
    # A member has a name and a value: no more strings than two for each. What is plainly too much is refused first,
    # without looking for where its strings begin and end.
    if raw.count(b'"') - raw.count(b'\\"') > 4 * MAX_VALUES:
        raise _too_many_values()
    bare = _without_strings(raw)
    if bare.count(b",") >= MAX_VALUES:
        raise _too_many_values()
    if _count_values(bare) > MAX_VALUES:
        if _depth_over(bare, MAX_DEPTH):
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        raise _too_many_values()
    if next(islice(_NEEDS_EXACT.finditer(bare), MAX_EXACT_NUMBERS, None), None):
        raise TooManyValuesError(f"more than {MAX_EXACT_NUMBERS:,} numbers with a fraction or very many digits")
    return _parse(raw, bare, MAX_DEPTH)


def _too_many_values() -> TooManyValuesError:
    return TooManyValuesError(f"more than {MAX_VALUES:,} values")


def _parse(raw: bytes, bare: bytes, max_depth: int) -> JsonValue:
    value = _parse_exact(raw) if _NEEDS_EXACT.search(bare) else orjson.loads(raw)
    # Only a text with that many brackets can nest that deep.
    if bare.count(b"[") + bare.count(b"{") > max_depth and _depth_over(_without_strings(raw), max_depth):
        raise ValueError(f"nested deeper than {max_depth} levels")
    return value


def _count_values(bare: bytes) -> int:
    """One for each comma, and one more in each array or object that is not empty; white space may make it more."""
    return bare.count(b",") + bare.count(b"[") + bare.count(b"{") - bare.count(b"[]") - bare.count(b"{}")


def _bare(raw: bytes) -> bytes:
    """What to look through for what is not text. A short one is looked through whole: that is sooner done."""
    return raw if len(raw) <= _SHORT else _without_strings(raw)


def _without_strings(raw: bytes) -> bytes:
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b" ".join(raw.split(b'"')[::2])


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


def _depth_over(bare: bytes, limit: int) -> bool:
    brackets = bare.translate(_SQUARE, _NO_BRACKETS)
    too_deep = b"[" * (limit + 1)
    for _ in range(limit):
        if not brackets or too_deep in brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)
