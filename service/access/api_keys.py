"""API keys: how they are made, recognised and stored."""

import hashlib
import hmac
import secrets
import zlib

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH = 32  # 190 bits
_CHECKSUM_LENGTH = 6
# How much of a key is shown: of its 190 random bits, the first 36.
_SHOWN_LENGTH = len("itsm_sk_live_") + 6


def new_api_key(live: bool) -> str:
    """A fresh API key: prefix, 190 random bits, and a checksum that finds typing errors without a look-up."""
    start = f"itsm_sk_{'live' if live else 'test'}_" + "".join(secrets.choice(_BASE62) for _ in range(_RANDOM_LENGTH))
    return start + _checksum(start)


def hash_api_key(key: str) -> bytes:
    """What is stored of an API key: its SHA-256. A key's own randomness makes salt and stretching needless."""
    return hashlib.sha256(key.encode()).digest()


def prefix_of(key: str) -> str:
    """The first characters of a key, by which people recognise it and nobody can guess the rest."""
    return key[:_SHOWN_LENGTH]


def is_well_formed(key: str) -> bool:
    """Whether a text can be an API key at all: prefix, length and checksum."""
    if not key.startswith(("itsm_sk_live_", "itsm_sk_test_")) or not key.isascii():
        return False
    return hmac.compare_digest(_checksum(key[:-_CHECKSUM_LENGTH]), key[-_CHECKSUM_LENGTH:])


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits
