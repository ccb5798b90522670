"""All who use one database must be able to open what the others encrypted (deploy/README.md)."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from cryptography.fernet import Fernet

from service.directory import METADATA
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault
from service.vault_check import OtherKeysError, check_keys

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


def vault(keys: str) -> Vault:
    return Vault(Settings(encryption_keys=keys))


@pytest.fixture
async def database(apart_url: str) -> AsyncIterator[Database]:
    database = Database(Settings(database_url=apart_url, pool_size=2), METADATA)
    await database.open()
    yield database
    await database.close()


async def test_keys_are_changed_one_after_the_other_and_others_are_refused(database: Database) -> None:
    # The first are two at once.
    await asyncio.gather(check_keys(database, vault(OLD)), check_keys(database, vault(OLD)))
    with pytest.raises(OtherKeysError):
        await check_keys(database, vault(OTHER))
    for keys in (OLD, f"{OLD},{NEW}", f"{NEW},{OLD}", NEW):
        await check_keys(database, vault(keys))
    with pytest.raises(OtherKeysError):
        await check_keys(database, vault(OLD))
