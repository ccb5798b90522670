"""The check that all processes of a database have its encryption keys: a row that each must be able to decrypt."""

import structlog
from sqlalchemy import Boolean, CheckConstraint, Column, LargeBinary, Table, bindparam, select, true, update
from sqlalchemy.dialects.postgresql import insert

from service.directory import METADATA
from service.errors import TicketError
from service.settings import SettingError
from service.storage.database import Database
from service.storage.scope import EVERYONE, shared
from service.storage.statement import Statement
from service.vault import SealedError, Vault

_log = structlog.get_logger()

_TEXT = "the encryption keys fit"

_check = Table(
    "vault_check",
    METADATA,
    Column("id", Boolean, primary_key=True, server_default=true()),
    Column("sealed", LargeBinary, nullable=False),
    CheckConstraint("id", name="one_row"),
    info=shared("one row for the whole database, that holds nothing of a caller's"),
)
_scope = EVERYONE("the keys are those of all processes")
_sealed = bindparam("sealed", type_=LargeBinary)
_MAKE = Statement(insert(_check).values(sealed=_sealed).on_conflict_do_nothing().returning(_check.c.id), scope=_scope)
_GET = Statement(select(_check.c.sealed), scope=_scope)
_SEAL_AGAIN = Statement(update(_check).values(sealed=_sealed).returning(_check.c.sealed), scope=_scope)


class OtherKeysError(SettingError):
    """None of the configured keys is one that the secrets in this database were encrypted with."""


async def check_keys(database: Database, vault: Vault) -> None:
    """The first process that checks seals the row; all others open it, and seal it with their first key.

    Raises OtherKeysError, and TicketError when the database cannot be had.
    """
    if not vault.has_keys:
        return
    sealed = {"sealed": vault.seal(_TEXT)}
    found = await database.one(_GET, {})
    if found is None:
        await database.one(_MAKE, sealed, commit=True)
        found = await database.one(_GET, {}) or {}  # the row that another process has sealed meanwhile, if one has
    try:
        vault.open(found["sealed"])
    except SealedError:
        raise OtherKeysError("TICKETS_ENCRYPTION_KEYS: none of them encrypted the secrets in this database") from None
    await database.one(_SEAL_AGAIN, sealed, commit=True)


async def log_other_keys(database: Database, vault: Vault) -> None:
    """Log it when this process has other keys; everything without secrets works all the same."""
    try:
        await check_keys(database, vault)
    except OtherKeysError as error:
        _log.error("vault", outcome="other keys", reason=str(error))
    except TicketError as error:
        _log.warning("vault", outcome=error.reason)
