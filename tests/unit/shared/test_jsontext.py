"""JSON text in and out: strict, exact, and equal where the values are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jsontext import (
    MAX_DEPTH,
    MAX_EXACT_NUMBERS,
    MAX_VALUES,
    JsonText,
    TooManyValuesError,
    digest,
    dump,
    parse,
    parse_request,
)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":12345678901234567890123}',
        '{"a":0.1000000000000000055511151231257827}',
        '{"a":1.10}',
        '{"a":-0.0}',
        '{"a":-0}',
        '{"a":1E+400}',
        '{"a":1e5,"b":1E5,"c":0.0000001,"d":100.0e-2}',
        '{"a":9007199254740993}',
        '{"b":1,"a":2}',
        '{"a":"1.5e3 and 12345678901234567890"}',
        '["é","\\u0000","\\"\\\\"]',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
    ],
)
def test_what_was_read_is_written_as_it_was(text: str) -> None:
    assert dump(parse(text.encode())).decode() == text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b"{'a':1}",
        b"{a:1}",
        b"[NaN]",
        b"[Infinity, 1.5]",
        b"[-Infinity]",
        b"[01]",
        b"[1.]",
        b"[.5]",
        b"[+1]",
        b"[0x10]",
        b'["\\ud800"]',
        b'["\\ud800", 1.5]',
        b'{"\\udfff": 1.5}',
        b'["\xff"]',
        b'["\xff", 1.5]',
        b"\xef\xbb\xbf{}",
        b"\xef\xbb\xbf[1.5]",
        b'["\n"]',
        b'["\n", 1.5]',
        b"[1] [2]",
        b"[1.5] [2]",
        b"[1e99999999999999999999]",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b"[1.5, " + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"]",
        b"[" * 100_000,
        b"[1.5," * 100_000,
    ],
    ids=lambda text: repr(text[:16]),
)
def test_what_is_not_strict_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_every_value_survives_the_way_through(value: Any) -> None:
    text = json.dumps(value)
    assert json.loads(dump(parse(text.encode()))) == value


@given(values)
def test_equal_values_have_equal_digests_however_they_are_written(value: Any) -> None:
    plain = parse(json.dumps(value).encode())
    spaced = parse(json.dumps(value, indent=2, ensure_ascii=False).encode())
    assert digest(plain) == digest(spaced)


@pytest.mark.parametrize(
    "texts",
    [
        ["1", "1.0", "1e0", "10e-1", "0.1E1"],
        ["100", "1e2", "100.00", "1.0e+2"],
        ["0", "-0", "0.0", "-0.0", "0e5"],
        ["-1500000000000000000000", "-1.5e21", "-15e20"],
        ["0.5", "5e-1", "0.50", "00.5"[1:]],
        ['{"a":1,"b":2}', '{"b":2,"a":1}', ' {"b" : 2.0, "a" : 1 } '],
    ],
    ids=str,
)
def test_one_value_written_in_many_ways_has_one_digest(texts: list[str]) -> None:
    assert len({digest(parse(text.encode())) for text in texts}) == 1
    assert len({JsonText(text) for text in texts}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", '"1"'),
        ("1", "true"),
        ("0", "false"),
        ("0", "null"),
        ("1", "-1"),
        ("1", "10"),
        ("[]", "{}"),
        ("[1,2]", "[2,1]"),
        ('{"a":null}', "{}"),
        ("12345678901234567890123", "12345678901234567890124"),
        ("0.1", "0.10000000000000000001"),
        ("1e400", "1e401"),
        ("1e999999999", "2e999999999"),
    ],
)
def test_different_values_have_different_digests(one: str, other: str) -> None:
    assert digest(parse(one.encode())) != digest(parse(other.encode()))
    assert JsonText(one) != JsonText(other)


def test_a_stored_text_is_sent_as_it_is() -> None:
    assert dump({"a": JsonText('{"n": 1.10}')}) == b'{"a":{"n": 1.10}}'


LONG = b"x" * 5000


@pytest.mark.parametrize(
    "text",
    [
        b'["' + LONG + b'"' + b",1" * (MAX_VALUES - 2) + b"]",
        b"[" + b",".join([b"[]", b"{}"] * (MAX_VALUES // 2)) + b"]",
        b"[" + b",".join([b"1.5"] * MAX_EXACT_NUMBERS) + b"]",
        # What is said within strings counts for nothing.
        b'["' + b"1.5,[{" * MAX_VALUES + b'"]',
        b'["' + b'\\",\\\\\\",' * MAX_VALUES + b'"]',
        b"{" + b",".join(b'"%d":"%d"' % (n, n) for n in range(MAX_VALUES)) + b"}",
    ],
    ids=["values", "empty ones", "exact numbers", "text", "text with escapes", "members"],
)
def test_a_request_may_hold_so_many_values(text: bytes) -> None:
    assert parse_request(text) == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        b'["' + LONG + b'"' + b",1" * MAX_VALUES + b"]",
        b"[" + b",".join([b"[1]"] * (MAX_VALUES // 2 + 1)) + b"]",
        b"{" + b",".join(b'"%d":{}' % n for n in range(MAX_VALUES + 1)) + b"}",
        b"[" + b",".join([b"1.5"] * (MAX_EXACT_NUMBERS + 1)) + b"]",
        b"[" + b",".join([b"-0"] * (MAX_EXACT_NUMBERS + 1)) + b"]",
        b'["\\\\",' + b",".join([b"1"] * (MAX_VALUES + 1)) + b"]",
        b"[" + b",".join([b'"x"'] * (3 * MAX_VALUES)) + b"]",
    ],
    ids=["values", "arrays", "members", "fractions", "negative zeros", "after an escaped backslash", "strings"],
)
def test_a_request_with_more_values_is_refused(text: bytes) -> None:
    with pytest.raises(TooManyValuesError, match="more than"):
        parse_request(text)


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
@pytest.mark.parametrize("pair", [b"[]", b"{}"], ids=["arrays", "objects"])
@pytest.mark.parametrize("filling", [b"", LONG], ids=["short", "long"])
def test_depth_counts_brackets_outside_of_strings(depth: int, pair: bytes, filling: bytes) -> None:
    opening, closing = (b"[", b"]") if pair == b"[]" else (b'{"[{":', b"}")
    text = opening * depth + b'"[[[{{{\\"[' + filling + b'"' + closing * depth
    if depth > MAX_DEPTH:
        with pytest.raises(ValueError, match="nested deeper"):
            parse(text)
    else:
        parse(text)
