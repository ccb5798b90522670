"""contracts/helpdesk.md, List query: which texts a query finds, as PostgreSQL compares the terms of both."""

import re
import unicodedata
import zlib
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.search import MAX_CHARACTERS, index_terms, tsquery, tsvector, words

_ASKED = re.compile(r"'((?:[^']|'')+)'(:\*)?")


def finds(query: str, text: str) -> bool:
    """Whether a query finds a text: each of its terms is there, or the beginning of one."""
    asked = tsquery("@", query)
    if asked is None:
        return False
    terms = {*index_terms(text), "@"}
    return all(
        any(term.startswith(word) for term in terms) if may_go_on else word in terms
        for word, may_go_on in _ASKED.findall(asked)
    )


# A text, what finds it, and what does not.
TEXTS: dict[str, tuple[str, list[str], list[str]]] = {
    "an address of a page": ("500 on /login", ["login", "/login", "500", "log", "on login"], ["ogin", "501"]),
    "a slash": ("The printer/scanner jams.", ["printer", "scanner", "printer/scanner", "jams"], ["printer/jams"]),
    "a host": (
        "srv-db01.internal is down",
        ["srv", "db01", "internal", "srv-db01", "db01.internal", "srv-db01.internal", "SRV-DB01.INT", "(db01)"],
        ["srv-internal", "internal.db01", "01"],
    ),
    "a path": (
        "see /etc/nginx/nginx.conf, line 3",
        ["nginx.conf", "/etc/nginx", "/etc/nginx/nginx.conf", "etc", "conf", "line", "nginx/nginx"],
        ["etc/conf"],
    ),
    "a path of Windows": (
        r"C:\Users\Me\app.log",
        [r"c:\users", "users/me", "app.log", "log", "C:", r"\\Users"],
        [r"d:\users"],
    ),
    "a number": ("Like INC-0042.", ["0042", "INC-0042", "inc", "INC"], ["INC-42", "42", "INC-0043"]),
    "a version": ("since v1.2.3", ["v1.2.3", "2.3", "3", "v1"], ["3.2", "1.3", "v1.3"]),
    "a plain version": ("Python 1.2.3", ["1.2.3", "1.2", "2.3"], ["3.2.1", "1.3"]),
    "a sign": ("-5 degrees, call +49 30 1234-567", ["-5", "5", "+49", "49", "1234-567", "567"], ["6"]),
    "a URL": (
        "https://example.com/a/login?next=%2Fhome#top",
        ["example.com", "login", "next", "https://example.com", "top", "https://example.com/a/login?next=%2Fhome#top"],
        ["example.org"],
    ),
    "an address": (
        "from Jane.Doe@example.com:",
        ["jane", "doe", "jane.doe@example.com", "<jane.doe@example.com>", "@example.com", "doe@example"],
        ["jane@example"],
    ),
    "brackets": ("<nil> in foo.bar()", ["nil", "<nil>", "foo", "bar", "foo.bar()", "foo.bar"], ["foo.baz", "bar.foo"]),
    "an underscore": ("max_pool_size=5", ["pool", "max_pool_size", "size=5", "5"], ["max_size"]),
    "an apostrophe": ("Zoë's laptop", ["zoë", "Zoë's", "Zoë\u2019s", "ZOE\u0308"], ["zoe"]),
    "an accent for one": ("it´s down", ["it´s", "s", "it"], []),
    "a quote": ("it's \\ here", ["it's", "\\ here", "'' here"], ["it's gone"]),
    "C": ("Written in C", ["c"], ["C++", "C#"]),
    "cat": ("A cat", ["c"], ["C++", "C#"]),
    "C++": ("C++, not Java", ["C++", "c++", "C"], ["C#", "C+++"]),
    "C++ of a year": ("with C++11", ["C++", "C++11", "11"], ["C++12"]),
    "C#": ("C#/F# and g++-12", ["C#", "F#", "f", "g++", "12", "g++-12"], ["C++", "g#"]),
    "a hash": ("#vpn of issue#5", ["vpn", "5", "issue", "issue#5", "#vpn"], ["C#"]),
    "a plus": ("since nine, login", ["nine+login", "nine login+", "+nine"], ["nine+ten"]),
    "Han": ("東京都の天気", ["東京", "京都", "都の", "東京都の天気", "天", "気"], ["東都", "京東"]),
    "kana": ("ﾌﾟﾘﾝﾀーとスキャナ", ["プリンター", "スキャ", "とス", "プリンタ"], ["プタ"]),
    "mixed": ("VPNに接続できません。再起動", ["vpn", "接続", "VPNに接続", "再起動", "ません"], ["続接"]),
    "Thai": ("สวัสดีครับ", ["สวัส", "วัสดี", "ครับ", "ดี"], ["ครดี"]),
    "Lao": ("ສະບາຍດີ", ["ສະ", "ບາຍ", "ດີ"], ["ດີສະ"]),
    "Khmer": ("សួស្តី", ["សួ", "ស្តី"], ["តីសួ"]),
    "Myanmar": ("မင်္ဂလာပါ", ["လာ", "မင်္ဂ", "ပါ"], ["ပါမ"]),
    "Korean": ("로그인이 안 됩니다", ["로그인", "로그", "안", "\u1105\u1169\u1100\u1173"], ["그인"]),
    "Hindi": ("प्रिंटर काम नहीं करता", ["प्रिंटर", "काम", "नहीं"], ["रिंटर"]),
    "Arabic": ("لا يعمل الطابعة", ["الطابعة", "يعمل"], ["طابعة"]),
    "Greek": ("Ο ΧΡΉΣΤΗΣ δεν", ["χρήστης", "Χρήστησ"], ["χρηστης"]),
    "German": ("Straße gesperrt", ["STRASSE", "straße", "Strasse"], ["strase"]),
    "Turkish": ("İSTANBUL ve Iğdır, ısı", ["istanbul", "İstanbul", "IĞDIR", "ığdır", "isi"], ["stanbul"]),
    "forms of letters": ("ﬁle Ｆｕｌｌ №5 x²", ["file", "full", "no5", "x2"], ["fulls"]),
    "decomposed": ("Cafe\u0301 Zu\u0308rich", ["café", "ZÜRICH"], ["cafe", "zurich"]),
    "soft hyphens and joiners": ("log\u00adin to\u200bday \ufeffend", ["login", "today", "end"], ["in"]),
    "emoji": (
        "login🔥 👍🏽👩\u200d💻 ❤\ufe0f🇩🇪",
        ["🔥", "login", "👍", "👩\u200d💻", "❤", "🇩🇪", "👍🏻"],
        ["🎉", "👩🔥"],
    ),
    "spaces": ("a\u00a0b\tc\u3000d\u2003e\nf\x85g", ["b", "c", "d", "e", "f", "g"], ["bc"]),
    "a long word": ("x" * 100 + ".y", ["x" * 100, "x" * 64, "x" * 100 + ".y", "y"], ["x" * 64 + "y.z"]),
    "no words": ("!!! --- ...", [], ["!!!", "-", ".", "", " ", "\u0301"]),
}


@pytest.mark.parametrize(("text", "found", "missed"), TEXTS.values(), ids=TEXTS)
def test_a_text_is_found_by_its_words(text: str, found: list[str], missed: list[str]) -> None:
    for form in ("NFC", "NFD"):
        written = unicodedata.normalize(form, text)
        assert [query for query in found if not finds(query, written)] == []
        assert [query for query in missed if finds(query, written)] == []


def test_all_words_must_be_there() -> None:
    assert finds("printer jams nine", "Since nine the printer jams")
    assert not finds("printer jams ten", "Since nine the printer jams")


GLUE = "/.@-_:<>=,;()[]{}'\"\\|&*%$!?~^`“”·…€"
SPACED = st.text(st.sampled_from("abcxyzABCéÉüßığİфЖक한글0159"), min_size=1, max_size=8)
ALONE = st.text(st.sampled_from("東京都天気のプリンタสวดีກຂរကြ🔥👍"), min_size=2, max_size=12)


@given(st.lists(SPACED, min_size=1, max_size=6), st.lists(st.sampled_from(GLUE), min_size=6, max_size=6), st.data())
def test_a_glued_word_is_found_by_its_parts_by_their_runs_and_as_a_whole(
    parts: list[str], glue: list[str], data: st.DataObject
) -> None:
    word = "".join(part + sign for part, sign in zip(parts, glue, strict=False))
    text = f"before {word} after"
    assert finds(word, text)
    for part in parts:
        assert finds(part, text)
        assert finds(part[: data.draw(st.integers(1, len(part)))], text)
    first = data.draw(st.integers(0, len(parts) - 1))
    assert finds("/".join(parts[first : data.draw(st.integers(first + 1, len(parts)))]), text)


@given(ALONE, ALONE, st.data())
def test_in_scripts_without_spaces_every_run_is_found(text: str, other: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(text) - 1))
    run = text[first : data.draw(st.integers(first + 1, len(text)))]
    assert finds(run, f"vpn{text}。")
    assume(not {*pairwise(other)} <= {*pairwise(text)})
    assert not finds(other, text)


# Not letters whose upper case has a lower case that is another letter.
LETTERS = st.text(
    st.characters(exclude_categories=["Cs", "Cn", "Co"]).filter(lambda c: c.upper().casefold() == c.casefold()),
    max_size=20,
)


@given(LETTERS)
def test_case_and_form_make_no_difference(text: str) -> None:
    forms = {form: index_terms(unicodedata.normalize(form, text)) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    assert forms == dict.fromkeys(forms, index_terms(text))
    assert index_terms(text.casefold()) == index_terms(text)


@given(st.text(max_size=200).filter(lambda text: "\0" not in text))
def test_any_text_makes_terms_that_postgresql_takes_and_finds_itself(text: str) -> None:
    terms = index_terms(text)
    for term in terms:
        assert 0 < len(term.encode()) < 2047
        assert not re.search(r"['\\\s]", term)
    if len(terms) <= 60:
        assert finds(text, text) == bool(words(text))


@pytest.mark.parametrize("unit", ["東", "a/", "ab ", "\ufdfa", "\u0301", "a+#", "𐐨𐐨𐐨."])
def test_the_terms_of_a_long_text_are_bounded(unit: str) -> None:
    distinct = "".join(f"{n:x}{unit}" for n in range(30_000))
    for text in (unit * 100_000, distinct):
        vector = tsvector("@", text)
        # PostgreSQL takes one MiB of terms; the quotes and spaces around them are not part of it.
        assert len(vector.encode()) - 3 * vector.count(" ") < 2**20
        assert index_terms(text) == index_terms(text[:MAX_CHARACTERS])


def test_a_query_asks_for_a_bounded_number_of_terms() -> None:
    for text in ("東京" * 100, "".join(chr(0x4E00 + n) for n in range(200)), "\ufdfa" * 200):
        asked = tsquery("@", text)
        assert asked is not None
        assert asked.count("&") <= 64


def test_a_scope_is_quoted_and_tells_whether_the_texts_changed() -> None:
    assert tsvector("@it's \\", "Login", "") == f"'login' '@it''s \\\\':{zlib.crc32(b'Login') % 16_383 + 1}".replace(
        str(zlib.crc32(b"Login") % 16_383 + 1), str(zlib.crc32(b"Login\0") % 16_383 + 1)
    )
    assert tsvector("@", "Login") != tsvector("@", "LOGIN")
    assert tsvector("@", "!") == f"'@':{zlib.crc32(b'!') % 16_383 + 1}"
    assert tsquery("@it's", "a/b c") == "'a.b':* & 'c':* & '@it''s'"
    assert tsquery("@", "!") is None
