"""What must be kept secret and read again: credentials of providers, secrets of webhooks. Encrypted at rest."""

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from service.errors import TicketError
from service.settings import Settings


class SealedError(Exception):
    """There is no key, or none of those that there are is the right one."""


class Vault:
    """Encrypts with the first key and decrypts with each, so that keys can be changed one after the other."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError for a key that is none; it does not say which, or what it is."""
        keys = [key.strip() for key in settings.encryption_keys.split(",") if key.strip()]
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys]) if keys else None
        except ValueError:
            raise ValueError("TICKETS_ENCRYPTION_KEYS holds a text that is no Fernet key") from None

    def seal(self, text: str) -> bytes:
        """The text, encrypted. Raises TicketError `unavailable` without a key."""
        if self._fernet is None:
            raise TicketError("unavailable", "Nothing can be kept secret here: TICKETS_ENCRYPTION_KEYS is not set")
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """The text that was sealed. Raises SealedError."""
        if self._fernet is None:
            raise SealedError
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise SealedError from None
