"""Encryption at rest of what must be read again: credentials of providers, secrets of webhooks."""

import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from service.errors import TicketError
from service.settings import SettingError, Settings

_log = structlog.get_logger()


class SealedError(Exception):
    """No configured key decrypts the text."""


class Vault:
    """Encrypts with the first key and decrypts with each, so that keys can be changed one after the other."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingError for a key that is malformed, without quoting it."""
        keys = [key.strip() for key in settings.encryption_keys.split(",") if key.strip()]
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys]) if keys else None
        except ValueError:
            raise SettingError("TICKETS_ENCRYPTION_KEYS: not a comma-separated list of Fernet keys") from None

    @property
    def has_keys(self) -> bool:
        """Whether there is any."""
        return self._fernet is not None

    def seal(self, text: str) -> bytes:
        """The text, encrypted. Raises TicketError `unavailable` without a key."""
        if self._fernet is None:
            _log.error("vault", outcome="unavailable", reason="TICKETS_ENCRYPTION_KEYS is not set")
            # Callers never hear of an operator's setting.
            raise TicketError("unavailable", "Secrets cannot be stored at the moment")
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """The text that was sealed. Raises SealedError."""
        if self._fernet is None:
            raise SealedError
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise SealedError from None
