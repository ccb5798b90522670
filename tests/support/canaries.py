"""Texts that are recognised wherever they turn up, in whatever form."""

from base64 import b64encode
from collections.abc import Iterator
from uuid import uuid4

_MARK = "canary"


class Canaries:
    """Those of one run, by what they stand for."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def new(self, kind: str) -> str:
        """A text that nothing else has."""
        return self.note(kind, _MARK + uuid4().hex)

    def new_key(self, kind: str) -> str:
        """The same, as a Fernet key."""
        return self.note(kind, f"{_MARK}{uuid4().hex}AAAAA=")

    def note(self, kind: str, text: str) -> str:
        """Take a text that somebody else has made."""
        self._texts.setdefault(kind, []).append(text)
        return text

    def is_in(self, kind: str, data: bytes) -> bool:
        """Whether any text of a kind is somewhere in the data: plain, in hexadecimal, or in base 64."""
        return any(form in data for text in self._texts[kind] for form in _forms(text))


def _forms(text: str) -> Iterator[bytes]:
    plain = text.encode()
    yield plain
    yield plain.hex().encode()
    # Up to the last three bytes: what follows may be encoded with them.
    yield b64encode(plain[: len(plain) // 3 * 3])
