"""Typed requests with something wrong in their fields, and bytes that are hardly messages at all."""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from google.protobuf.message import Message

from support.fuzz import Endpoint, Party
from support.fuzz_requests import sections
from support.fuzz_values import CHANCES, odd_json, odd_text

_TIMESTAMP, _MASK = "google.protobuf.Timestamp", "google.protobuf.FieldMask"
_SECONDS = (0, 1, -1, 1771597800, -62135596800, -62135596801, 253402300799, 253402300800, 2**63 - 1, -(2**63))
_NANOS = (0, 1, 999, 1000, 999_999_999, 1_000_000_000, -1, 2**31 - 1, -(2**31))


_ODDS = (0, 0.02, 0.1, 0.1, 0.2, 0.5)


def odd_message(
    random: Random,
    endpoint: Endpoint,
    party: Party,
    odds: Sequence[float] = _ODDS,
    chances: Sequence[float] = CHANCES,
) -> tuple[Message, list[tuple[str, str]]]:
    """A typed request and its metadata; of its fields as many are odd as one of `odds` says."""
    given = sections(random, endpoint, party, chances)
    values = {name: value for section in ("path", "query", "body") for name, value in given.get(section, {}).items()}
    message: Message = endpoint.typed.input_type._concrete_class()
    _fill(random, message, values, random.choice(odds))
    metadata = {**party.credential(random, endpoint.api)}
    metadata |= given.get("header", {})
    if any(odds) and random.random() < 0.1:
        # What a library lets through: printable ASCII.
        odd = "".join(chr(random.randint(0x20, 0x7E)) for _ in range(random.choice((0, 1, 20, 256, 1001)))).strip()
        metadata[random.choice(("idempotency-key", "if-match", "x-request-id", "authorization"))] = odd
    return message, list(metadata.items())


def near_misses(endpoint: Endpoint) -> Sequence[tuple[str, int]]:
    """All near misses of a typed method: field, and which."""
    fields = endpoint.typed.input_type.fields
    return [(field.name, which) for field in fields for which in range(len(_near(field)))]


def near_miss(
    random: Random, endpoint: Endpoint, party: Party, miss: tuple[str, int]
) -> tuple[Message, list[tuple[str, str]]]:
    """A valid request, but for one field, and its metadata."""
    message, _ = odd_message(random, endpoint, party, odds=[0], chances=[0])
    field = message.DESCRIPTOR.fields_by_name[miss[0]]
    message.ClearField(miss[0])
    _put(message, field, _near(field)[miss[1]])
    return message, list(party.credentials[endpoint.api][0].items())


def _near(field: Any) -> Sequence[Any]:
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        return [{"\0": "x"}, {"x": "\0"}, {"": ""}, {"x" * 300: ""}, dict.fromkeys(map(str, range(11)), "x")]
    if field.enum_type is not None:
        return _INT32
    if field.message_type is not None and field.message_type.full_name == _TIMESTAMP:
        stamp = field.message_type._concrete_class
        return [stamp(seconds=seconds) for seconds in _SECONDS[4:]] + [stamp(nanos=nanos) for nanos in _NANOS[5:7]]
    if field.message_type is not None:
        return [field.message_type._concrete_class()]
    if field.name.endswith("_json"):
        return ["", "null", "1", '"\\u0000"', '{"\\u0000":1}', '["\\ud800"]', '{"a":1e400}', "[1,]", "\0"]
    if field.cpp_type == _STRING:
        return ["", " ", "a\0b", "x" * 256, "x" * 70_000, "\u202e\U0010ffff\ufdd0", "9" * 400]
    return _INT64 if field.cpp_type == _LONG else _INT32 if field.cpp_type == _INTEGER else []


def _fill(random: Random, message: Message, values: Mapping[str, Any], odd: float) -> None:
    for field in message.DESCRIPTOR.fields:
        name = field.name.removesuffix("_json")
        if field.message_type is not None and field.message_type.full_name == _MASK:
            _mask(random, message, field.name, odd)
        elif random.random() < odd:
            _put(message, field, _odd(random, field))
        elif values.get(name) is not None:
            _put(message, field, _as_field(random, field, values[name]))


def _mask(random: Random, message: Any, name: str, odd: float) -> None:
    if random.random() < 0.4:
        names = [field.name for field in message.DESCRIPTOR.fields]
        paths = [random.choice(names) if random.random() > odd else odd_text(random)[:300] for _ in range(3)]
        inner = (
            [f"{random.choice(names)}.{random.choice((*names, 'role', 'status', ''))}"] if random.random() < odd else []
        )
        getattr(message, name).paths.extend([*paths, *inner])


def _put(message: Any, field: Any, value: Any) -> None:
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        getattr(message, field.name).extend(value if isinstance(value, list) else [value])
    elif field.message_type is not None:
        getattr(message, field.name).MergeFrom(value)
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, value)


def _as_field(random: Random, field: Any, value: Any) -> Any:
    if field.is_repeated and isinstance(value, list):
        return [_one(random, field, one) for one in value]
    return value if field.is_repeated else _one(random, field, value)


def _one(random: Random, field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        known = field.enum_type.values_by_name.get(prefix + str(value).upper())
        return known.number if known else 0
    if field.name.endswith("_json"):
        return json.dumps(value)
    if field.message_type is None:
        # A list in one text, as in a query.
        return ",".join(map(str, value)) if isinstance(value, list) else value
    inner = field.message_type._concrete_class()
    if field.message_type.full_name == _TIMESTAMP:
        inner.seconds = random.choice(_SECONDS[:4])
    else:
        _fill(random, inner, value, 0)
    return inner


def _odd(random: Random, field: Any) -> Any:
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {odd_text(random)[:300]: odd_text(random)[:300] for _ in range(random.choice((1, 2, 11)))}
    if field.is_repeated:
        return [_odd_one(random, field) for _ in range(random.choice((0, 1, 1, 2, 120)))]
    return _odd_one(random, field)


def _odd_one(random: Random, field: Any) -> Any:
    if field.enum_type is not None:
        return random.choice((0, 1, 2, 99, -1, 2**31 - 1, -(2**31)))
    if field.message_type is not None:
        inner = field.message_type._concrete_class()
        if field.message_type.full_name == _TIMESTAMP:
            inner.seconds, inner.nanos = random.choice(_SECONDS), random.choice(_NANOS)
        else:
            _fill(random, inner, {}, 0.5)
        return inner
    if field.name.endswith("_json"):
        return odd_json(random).encode("utf-8", "replace").decode()
    return _SCALARS[field.cpp_type](random, field)


_INT32 = (0, 1, -1, 100, 101, 2**31 - 1, -(2**31))
_INT64 = (*_INT32, 2**63 - 1, -(2**63))
_INTEGER, _LONG, _STRING = 1, 2, 9
_SCALARS: Mapping[int, Any] = {
    1: lambda random, _: random.choice(_INT32),
    2: lambda random, _: random.choice(_INT64),
    3: lambda random, _: random.choice(_INT32[:4:3]),
    4: lambda random, _: random.choice((0, 1, 2**64 - 1)),
    5: lambda random, _: random.choice((0.0, -0.0, 1e308, float("nan"), float("inf"))),
    6: lambda random, _: random.choice((0.0, 1e38, float("nan"))),
    7: lambda random, _: random.random() < 0.5,
    9: lambda random, _: odd_text(random),
}


def mangled_bytes(random: Random, message: bytes) -> bytes:
    """The encoding of a message, cut, altered or replaced."""
    content = bytearray(message or b"\x0a\x01x")
    kind, at = random.randrange(7), random.randrange(len(content))
    if kind == 0:
        return random.randbytes(random.choice((1, 2, 8, 64, 1000)))
    if kind == 1:
        return bytes(content[:at])
    if kind == 2:
        # Groups and fields that nobody knows, deep or large.
        return bytes(content) + random.choice(
            (b"\x0b" * 200, b"\xfb\xff\xff\xff\x0f", b"\x12\xff\xff\xff\xff\x0f", b"\x08" + b"\xff" * 11)
        )
    if kind == 3:
        return bytes(content) * random.choice((2, 3))
    for _ in range(random.choice((1, 1, 2, 8))):
        at = random.randrange(len(content))
        content[at : at + random.randint(0, 2)] = random.randbytes(random.randint(0, 3))
        content = content or bytearray(b"\0")
    return bytes(content)
