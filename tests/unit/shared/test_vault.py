"""Secrets at rest: encrypted, readable through a change of keys, and in no text that people see."""

from base64 import urlsafe_b64encode

import pytest
from structlog.testing import capture_logs

from service.errors import TicketError
from service.providers.port import Link
from service.settings import Settings
from service.vault import SealedError, Vault

OLD, NEW = (urlsafe_b64encode(byte * 32).decode() for byte in (b"o", b"n"))
SECRET = "schlüssel:🔑"


def vault(keys: str) -> Vault:
    return Vault(Settings(encryption_keys=keys))


def test_what_is_sealed_is_not_to_be_seen_and_opens_again() -> None:
    sealed = vault(OLD).seal(SECRET)
    assert SECRET.encode() not in sealed
    assert vault(OLD).open(sealed) == SECRET
    # Equal secrets do not look equal.
    assert vault(OLD).seal(SECRET) != sealed


def test_keys_are_changed_one_after_the_other() -> None:
    before = vault(OLD).seal(SECRET)
    # Spaces and a comma too many do no harm.
    both = vault(f"{NEW}, {OLD},")
    assert both.open(before) == SECRET
    after = both.seal(SECRET)
    assert vault(NEW).open(after) == SECRET
    for keys, sealed in ((NEW, before), (OLD, after)):
        with pytest.raises(SealedError):
            vault(keys).open(sealed)


@pytest.mark.parametrize("sealed", [b"", b"nonsense", b"\xff\x00", SECRET.encode()])
def test_what_was_never_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(SealedError):
        vault(OLD).open(sealed)


@pytest.mark.parametrize("keys", ["", " ", ",", " , "])
def test_without_a_key_nothing_is_stored_and_only_the_log_names_the_setting(keys: str) -> None:
    with capture_logs() as logs, pytest.raises(TicketError) as failure:
        vault(keys).seal(SECRET)
    assert failure.value.args == ("unavailable", "Secrets cannot be stored at the moment")
    assert [line["reason"] for line in logs] == ["TICKETS_ENCRYPTION_KEYS is not set"]
    with pytest.raises(SealedError):
        vault(keys).open(vault(OLD).seal(SECRET))


@pytest.mark.parametrize("wrong", ["nonsense", OLD[:-1], "é" * 44])
def test_a_malformed_key_is_refused_without_being_quoted(wrong: str) -> None:
    with pytest.raises(ValueError, match="TICKETS_ENCRYPTION_KEYS") as raised:
        vault(f"{OLD},{wrong}")
    assert wrong not in str(raised.value)
    assert OLD not in str(raised.value)
    assert raised.value.__suppress_context__


def test_no_repr_shows_a_secret() -> None:
    link = Link("freshservice", "https://acme.freshservice.com", SECRET, {})
    for thing in (Settings(encryption_keys=OLD), vault(OLD), link):
        assert not any(secret in repr(thing) for secret in (OLD, SECRET))
