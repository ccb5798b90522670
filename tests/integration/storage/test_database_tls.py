"""`sslmode=verify-full` (deploy/README.md): the service talks to the database it means, encrypted, and to no other."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from support.authority import Authority, write_pair
from support.tls_front import TlsFront

from service.directory import METADATA
from service.settings import Settings
from service.storage.database import Database

NAME = "db.test"
AUTHORITY, OTHERS = Authority("ours"), Authority("others")


@pytest.fixture(scope="module")
async def front(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> AsyncIterator[TlsFront]:
    front = TlsFront(database_url, write_pair(tmp_path_factory.mktemp("database") / "own", AUTHORITY.pair(NAME)))
    async with front.listening():
        yield front


def url_of(front: TlsFront, folder: Path, authority: Authority, *, name: str = NAME, mode: str = "verify-full") -> str:
    """By the name, at the address of this machine."""
    signer = folder / "ca.pem"
    signer.write_bytes(authority.cert)
    place = f"host={name} hostaddr=127.0.0.1 port={front.port} user=postgres dbname={front.database}"
    return f"{place} sslmode={mode} sslrootcert={signer}"


async def test_the_service_reaches_the_database_that_it_means_encrypted(front: TlsFront, tmp_path: Path) -> None:
    before = front.connections
    url = url_of(front, tmp_path, AUTHORITY)
    assert await asyncio.to_thread(rows, url) == [(1,)]
    database = Database(Settings(database_url=url, pool_size=4), METADATA)
    await database.open()
    try:
        assert await database.answers()
    finally:
        await database.close()
    assert front.connections > before + 1


@pytest.mark.parametrize(
    ("authority", "name", "mode", "words"),
    [
        (OTHERS, NAME, "verify-full", "certificate verify failed"),
        (AUTHORITY, "other.test", "verify-full", 'does not match host name "other.test"'),
        (AUTHORITY, NAME, "disable", "server closed the connection"),
    ],
)
async def test_a_database_that_is_another_or_a_way_in_plain_is_refused(
    front: TlsFront, tmp_path: Path, authority: Authority, name: str, mode: str, words: str
) -> None:
    url = url_of(front, tmp_path, authority, name=name, mode=mode)
    with pytest.raises(psycopg.OperationalError, match=words):
        await asyncio.to_thread(rows, url)
    database = Database(Settings(database_url=url, pool_size=4), METADATA)
    await database.open()
    try:
        assert not await database.answers()
    finally:
        await database.close()


def rows(url: str) -> list[tuple[int]]:
    """What `tickets migrate` and `admin` use."""
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchall()
