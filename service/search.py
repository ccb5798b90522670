"""Search: the index terms of a text, and the terms that a query looks for. Pure.

A text is read as a reader sees it. Letter case, and how a character is encoded (composed, decomposed, full width, as a
ligature), make no difference. Spaces end a word. What else is no letter and no digit glues the parts of a word
together: `srv-db01.internal` is the word of `srv`, `db01` and `internal`. In scripts without spaces each character is a
part of its own, and so is an emoji.

A term is a part together with the one that follows it in its word, and the last part alone (`srv.db01`,
`db01.internal`, `internal`). So there are as many terms as parts, and they know what stands side by side. A query asks
for the pairs of each of its words, and the last of them may be the beginning of a term: `db01` finds `db01.internal`.
"""

import re
import zlib
from collections.abc import Iterable
from unicodedata import category, normalize

# The characters of a text that are indexed; what follows is not found, as each term costs time and space.
MAX_CHARACTERS = 65_536
# A longer part is found by its beginning. Two of them make a term; PostgreSQL takes up to 2,046 bytes.
_MAX_PART = 64
# How many terms of a query are looked up in the index. Only a long run without spaces has more.
_MAX_QUERY_TERMS = 64
# The largest position in a tsvector.
_MAX_POSITION = 16_383
# How many characters are cached: those of some languages, and not all of Unicode.
_MAX_REMEMBERED = 32_768

# Scripts without spaces between words. Korean has spaces.
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x312F),  # radicals, kana, Bopomofo
    (0x31A0, 0x31FF),  # more of them
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA980, 0xA9FF),  # Javanese, more of Myanmar
    (0xAA60, 0xAADF),  # more of Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Han
    (0x16FE0, 0x1B2FF),  # Tangut, more kana
    (0x20000, 0x3FFFF),  # Han
)

# `C++` and `C#` end with what would else be glue. A single plus is a space, as forms encode it.
_SIGNS = re.compile(r"(?<=[^ .+#])(\+\++|#+(?![^ .+#]))|(?<!\+)(\+)(?!\+)|[+#]+")
# Normalized, an accent that stands alone is a combining one behind a space.
_LONE_ACCENTS = re.compile(r"(?<![^ .])[\u0300-\u036f\u3099\u309a]+")
_GLUES = re.compile(r"\.\.+")
_TERMS = re.compile(rf"([^ .]{{1,{_MAX_PART}}})[^ .]*(?=(\.[^ .]{{1,{_MAX_PART}}})?)")


def _read(character: str) -> str:
    """What a reader sees of a folded character: itself, a space, glue, a part of its own, or nothing."""
    kind = category(character)
    if kind == "Cf" or "\ufe00" <= character <= "\ufe0f" or "\U0001f3fb" <= character <= "\U0001f3ff":
        return ""  # soft hyphens and joiners; variants and skin colours of emoji
    if kind[0] == "Z" or kind == "Cc":
        return " "
    if kind[0] in "PS" and kind != "So":
        return character if character in "+#" else "."
    is_alone = kind == "So" or any(first <= ord(character) <= last for first, last in _WITHOUT_SPACES)
    return f".{character}." if is_alone else character


class _Reading(dict[int, str]):
    """`_read` of each code point."""

    def __missing__(self, code: int) -> str:
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        self[code] = read = _read(chr(code))
        return read


_reading = _Reading()
_READING_ASCII = bytes(ord(_read(chr(code).lower())) for code in range(128)) + bytes(128)


def _folded(text: str) -> str:
    """A text without what makes no difference between characters."""
    # Folded letters may be composed again. The four i of Turkish are one, whichever language a text is in.
    folded = normalize("NFKC", normalize("NFKC", text).casefold())
    return folded.replace("i\u0307", "i").replace("ı", "i")


def _words(text: str) -> str:
    """A text as folded words with a space between them, and a dot between their parts."""
    text = text[:MAX_CHARACTERS]
    if text.isascii():
        read = text.encode().translate(_READING_ASCII).decode()
    else:
        read = _LONE_ACCENTS.sub("", _folded(text)[:MAX_CHARACTERS].translate(_reading))
    if "+" in read or "#" in read:
        read = _SIGNS.sub(_sign, read)
    return _GLUES.sub(".", read) if ".." in read else read


def _sign(found: re.Match[str]) -> str:
    if found[1]:
        return found[1] + "."
    return " " if found[2] else "."


def words(text: str) -> list[str]:
    """The words of a text, in the form in which they are compared."""
    return [bare for word in _words(text).split() if (bare := word.strip("."))]


def _terms(words: str) -> list[str]:
    return [part + following for part, following in _TERMS.findall(words)]


def index_terms(*texts: str) -> dict[str, None]:
    """The terms by which texts are found, each once, in order."""
    return {term: None for text in texts for term in _terms(_words(text))}


def tsvector(scope: str, *texts: str, constant: str = "") -> str:
    """The terms of texts, and that of their scope, as PostgreSQL writes a tsvector.

    The scope has a checksum of the texts for its position, which nothing searches: a change of the texts always shows.
    `constant` is a text that never changes.
    """
    texts = tuple(text[:MAX_CHARACTERS] for text in texts)
    checksum = zlib.crc32("\0".join(texts).encode()) % _MAX_POSITION + 1
    # Quotes and backslashes are glue, so no term of a text has one.
    joined = "' '".join(index_terms(*texts, constant))
    return (f"'{joined}' " if joined else "") + f"{_quoted(scope)}:{checksum}"


def tsquery(scope: str, text: str) -> str | None:
    """What asks PostgreSQL for every word of a text, or words that begin so, within a scope; None without a word."""
    asked = _asked(text)
    return " & ".join([*asked, _quoted(scope)]) if asked else None


def tsqueries(scope: str, text: str) -> list[str]:
    """The same in parts: one for each word."""
    return [f"{term} & {_quoted(scope)}" for term in _asked(text)]


def _asked(text: str) -> list[str]:
    asked = dict[str, None]()
    for word in words(text):
        terms = _terms(word)
        *pairs, last = terms[:-1] or terms
        asked |= dict.fromkeys(f"'{pair}'" for pair in pairs)
        asked[f"'{last}':*"] = None
    return list(asked)[:_MAX_QUERY_TERMS]


def any_of_each(*groups: Iterable[str]) -> str:
    """What asks PostgreSQL for one term of each group at least, as they are."""
    return " & ".join(f"({' | '.join(map(_quoted, group))})" for group in groups)


def _quoted(term: str) -> str:
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"
