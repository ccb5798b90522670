"""Values for requests: such as a command allows, found from its model, and such as nobody expects."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from random import Random
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from service.itsm.commands import EventType
from service.jsontext import JsonText

_KEPT = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
# What no bound of a model shows: by the member's name. All addresses are of this machine, where nobody listens.
FORMS: Mapping[str, Sequence[str]] = {
    "requester_email": ("ada@example.com", "o'neil+x@corp.local", "ü@example.com"),
    "url": ("https://127.0.0.1:9/hook", "http://127.0.0.1:9"),
    "domain": ("http://127.0.0.1:9",),
    "number": ("TKT-0001", "TKT-10000"),
    "time_zone": ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"),
    "start": ("00:00", "09:30"),
    "end": ("17:00", "23:59", "24:00"),
    "merge_sha": ("9fceb02", "a.b-c_d"),
    "events": get_args(EventType),
    "slug": ("shop-1", "a"),
    "github_repo": ("ada/shop",),
    "idempotency-key": ("key-1", "key-2", "~" * 255),
    "if-match": ("*", '"1"', 'W/"2"', '"1", "2"'),
    "etag": ('"1"', '"2"', "*"),
    "q": ("login", "since nine"),
}
_WORDS = (
    "Login loops",
    "Since nine.\nIn every browser.",
    "Müller",
    "\u202eRTL\u202c",
    "e\u0301\u0323",
    "🎫👩‍👩‍👧",
    " x ",
    "%_\\'\"",
)
_OBJECTS: Sequence[Mapping[str, Any]] = (
    {},
    {"category": "Network"},
    {"floor": 3, "nested": {"a": [1, None, "x", 1.5]}},
    {"": "", "ключ": "значение", "\\u0000": "\\", "n": 10**30},
)
# Text that is no text of a person.
TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "\ufeff",
    "\u202e",
    "e" + "\u0301" * 300,
    "\U0010ffff",
    "\ufffd\uffff",
    "🎫" * 64,
    "x" * 65,
    "x" * 256,
    "x" * 5001,
    "é" * 70_000,
    "\t\r\n\x0b\x1b[0m\x7f\x85\u2028",
    "'; DROP TABLE itsm_tickets; --",
    "{{7*7}}${x}%s%n{0}",
    "../../etc/passwd",
    "<!--#exec-->",
    "null",
    "NaN",
    "-0",
    "1e5",
    "0x10",
    "٣",
    "9" * 400,
    "-9223372036854775809",
    "2147483648",
    "true",
    "me",
    "none",
    "a,b,,c",
    ",",
    "&=;#?",
    "00000000-0000-0000-0000-000000000000",
    "urn:uuid:01a20139-af25-72bc-a26c-14d6b397c063",
    "{01a20139-af25-72bc-a26c-14d6b397c063}",
    "01a20139af2572bca26c14d6b397c063",
    "tkt_00000000000000000000000000",
    "TKT-0001",
    "TKT-99999999999999999999",
    "HO-1-x",
    "HO-99999999999999999999-x",
    "#1",
    "1",
    "0",
    "-1",
)
DATES = (
    "2026-02-20",
    "2026-02-20T14:30:00Z",
    "2026-02-20T14:30:00.1234567Z",
    "2026-02-20 14:30:00+02:00",
    "2026-02-20T14:30:00 02:00",
    "2026-02-30T00:00:00Z",
    "2024-02-29T23:59:60Z",
    "0001-01-01T00:00:00+12:00",
    "9999-12-31T23:59:59-12:00",
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "2026-W08-5",
    "1700000000",
    "-1e9",
    "P1D",
    "now",
    "infinity",
    "2026-02-20T14:30:00+23:59:59",
    "2026-02-20T24:00:00Z",
)
# JSON values as text, and text that is none.
_JSON = (
    *("null", "true", "false", "0", "-1", "-0", "1.0", "1.50", "1e400", "1e-400", "1E+2", "2147483648"),
    *("9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" + "0" * 400, "1e99999999999999999999"),
    *("[]", "{}", "[null]", "[[]]", "[{}]", '{"":""}', '{"a":1,"a":2}', '["a","a"]', "[1,1.0]", '{"id":"x"}'),
    *('"\\u0000"', '{"\\u0000":1}', '["\\u0000"]', '"\\ud800"', '"\\udfff\\ud800"', '"\\ud83c\\udfab"', '"\\/\\b\\f"'),
    *("[" * depth + "]" * depth for depth in (99, 101, 5000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (99, 101, 5000)),
    *("NaN", "-Infinity", "undefined", "'x'", '"', "", "01", "+1", ".5", "1.", "0x1", "[1,]", "{,}", '"\t"', "/**/1"),
    "[" + ",".join("0" * 30_000) + "]",
    "[" + ",".join(["1.5"] * 6000) + "]",
    json.dumps({str(number): number for number in range(300)}),
    json.dumps({"x": "y" * 262_144}),
)


def odd_json(random: Random) -> str:
    """The text of a JSON value of any kind; now and then of none."""
    if random.random() < 0.5:
        return random.choice(_JSON)
    return json.dumps(odd_text(random), ensure_ascii=random.random() < 0.5)


def odd_text(random: Random) -> str:
    """Text of any kind, that UTF-8 can say."""
    kind = random.randrange(8)
    if kind == 0:
        return random.choice(DATES)
    if kind == 1:
        return "".join(chr(random.choice((0x20, 0x7E, 0xE9, 0x4E00, 0x1F600)) + random.randrange(64)) for _ in range(9))
    return mangled(random, random.choice((*DATES, *_WORDS))) if kind == 2 else random.choice(TEXTS)


def mangled(random: Random, text: str) -> str:
    """The text with something cut, doubled, swapped or put in."""
    at, to = sorted((random.randint(0, len(text)), random.randint(0, len(text))))
    piece = random.choice(("", text[at:to] * 2, text[at:to].swapcase(), "\0", "é", " ", "%", "-", "9", '"', "~"))
    return text[:at] + piece + text[to:]


def near_misses(random: Random, field: Any, name: str) -> list[Any]:
    """For a member that a model describes, values that are just not such as it allows, or just so."""
    value, (_, bounds) = _value(random, field, name), _kind_and_bounds(field)
    beyond, below = bounds.get("le", 2**63 - 1) + 1, bounds.get("ge", 0) - 1
    most, least = bounds.get("max_length", 100_000) + 1, bounds.get("min_length", 1) - 1
    if isinstance(value, str):
        beyond, below = "x" * most, " " * least
    elif isinstance(value, list):
        beyond, below = value[:1] * most, value[:least]
    return [
        None,
        f"{value}\0",
        "\ud800",
        "\u202e\U0010ffff\ufdd0",
        beyond,
        below,
        [value, value],
        {"a": value},
        10**400,
        value is not True,
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+12:00",
    ]


NEAR_MISSES = 12


CHANCES = (0.1, 0.4, 1.0)


def valid(
    random: Random,
    model: type[BaseModel],
    hints: Mapping[str, Sequence[str]],
    chances: Sequence[float] = CHANCES,
) -> dict[str, Any]:
    """A JSON object that a model may accept: what it requires, and by one of the chances what it does not.

    `hints` are values for members by name, for what only the caller knows.
    """
    members = {}
    chance = random.choice(chances)
    for name, field in model.model_fields.items():
        name = field.alias or name  # noqa: PLW2901 - as callers say it
        if field.is_required() or random.random() < chance:
            members[name] = random.choice(hints[name]) if hints.get(name) else _value(random, field, name)
    return members


def _value(random: Random, field: Any, name: str) -> Any:
    kind, bounds = _kind_and_bounds(field)
    if random.random() < 0.05 and _may_be_none(field):
        return None
    if name in FORMS and (kind is str or get_origin(kind) is Literal):
        return random.choice(FORMS[name])
    origin = get_origin(kind)
    if origin is Literal:
        return random.choice(get_args(kind))
    if origin is list:
        return _list(random, get_args(kind)[0], bounds, name)
    if origin is dict:
        return {f"m{number}": random.choice(_WORDS) for number in range(random.randint(1, 3))}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return valid(random, kind, {})
    return _PLAIN[kind](random, bounds)


def _list(random: Random, item: Any, bounds: Mapping[str, Any], name: str) -> list[Any]:
    least = bounds.get("min_length", 0)
    items = [_value(random, item, name) for _ in range(random.randint(least, least + 3))]
    # Most lists must not repeat themselves.
    return [one for at, one in enumerate(items) if one not in items[:at]][: bounds.get("max_length")]


@cache
def _kind_and_bounds(field: Any) -> tuple[Any, Mapping[str, Any]]:
    """The type without what it is annotated with, or of a union one that is not None; and all its bounds."""
    bounds: dict[str, Any] = {}
    kind = field
    while True:
        marks: Sequence[Any] = ()
        if isinstance(kind, FieldInfo):
            marks, kind = kind.metadata, kind.annotation
        elif get_origin(kind) is Annotated:
            kind, *marks = get_args(kind)
        elif get_origin(kind) in (Union, UnionType):
            kind = next(one for one in get_args(kind) if one is not NoneType)
        else:
            return kind, bounds
        _collect(marks, bounds)


def _collect(marks: Sequence[Any], bounds: dict[str, Any]) -> None:
    for mark in marks:
        if isinstance(mark, FieldInfo):
            _collect(mark.metadata, bounds)
        bounds |= {name: value for name in _KEPT if (value := getattr(mark, name, None)) is not None}


def _may_be_none(field: Any) -> bool:
    kind = field.annotation if isinstance(field, FieldInfo) else field
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return NoneType in get_args(kind)


def _text(random: Random, bounds: Mapping[str, Any]) -> str:
    least: int = bounds.get("min_length", 0)
    most: int = bounds.get("max_length", 300)
    if random.random() < 0.1:
        return "é" * random.choice((least, min(most, 3000)))
    return (random.choice(_WORDS) + "x" * least)[: min(most, 300)]


def _integer(random: Random, bounds: Mapping[str, Any]) -> int:
    least = bounds.get("ge", bounds.get("gt", -1) + 1)
    most = bounds.get("le", bounds.get("lt", 2**31) - 1)
    return random.choice((least, most, random.randint(least, min(most, least + 100))))


def _instant(random: Random, _: Mapping[str, Any]) -> str:
    instant = datetime.fromisoformat("2026-02-20T14:30:00") + timedelta(
        days=random.randint(-3000, 3000), microseconds=random.randint(0, 9)
    )
    return instant.isoformat() + random.choice(("", "Z", "+02:00", "-11:30"))


def _uuid(random: Random, _: Mapping[str, Any]) -> str:
    return str(UUID(int=random.getrandbits(128)))


_PLAIN: Mapping[Any, Callable[[Random, Mapping[str, Any]], Any]] = {
    str: _text,
    int: _integer,
    bool: lambda random, _: random.random() < 0.5,
    UUID: _uuid,
    datetime: _instant,
    date: lambda random, _: str(date(2026, 1, 1) + timedelta(days=random.randint(0, 3000))),
    JsonText: lambda random, _: random.choice(_OBJECTS),
}
