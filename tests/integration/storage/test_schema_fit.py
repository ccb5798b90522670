"""Which databases a version serves: at its own revision, or ahead by steps that only add."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from support.provider_lab import empty_database, own_database

from service import migrations, schema
from service.directory import METADATA
from service.migrations import breaking
from service.settings import Settings
from service.storage.database import Database

KNOWN = schema.known_revisions()
NEWEST = KNOWN[-1]


async def looked_at(url: str) -> str | None:
    database = Database(Settings(database_url=url, pool_size=1), METADATA)
    await database.open()
    try:
        return await schema.look(database)
    finally:
        await database.close()


@contextmanager
def connected(url: str) -> Iterator[MigrationContext]:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with engine.begin() as connection:
        yield MigrationContext.configure(connection)
    engine.dispose()


def test_the_revisions_it_knows_are_those_of_alembic(database_url: str) -> None:
    with connected(database_url) as context:
        assert context.connection is not None
        script = ScriptDirectory.from_config(migrations.config(context.connection))
    assert [*KNOWN] == sorted(revision.revision for revision in script.walk_revisions())


async def test_an_empty_database_is_not_served_before_it_is_migrated(database_url: str) -> None:
    with empty_database(database_url) as url:
        for _ in range(2):  # the second time, its statements are prepared
            assert await looked_at(url) == (
                f"the database has no tables yet, and this version needs revision {NEWEST}: run `tickets migrate`"
            )
        await asyncio.to_thread(migrations.upgrade, url)
        assert await looked_at(url) is None


async def test_a_database_that_is_behind_is_not_served(database_url: str) -> None:
    with empty_database(database_url) as url:
        with connected(url) as context:
            assert context.connection is not None
            command.upgrade(migrations.config(context.connection), "0003")
        expected = f"the database is at revision 0003, and this version needs {NEWEST}: run `tickets migrate`"
        assert await looked_at(url) == expected


async def test_a_database_that_is_ahead_is_served_until_a_step_takes_something_away(database_url: str) -> None:
    with own_database(database_url) as url:

        def go_to(revision: str, mark: bool) -> None:
            with connected(url) as context, Operations.context(context):
                if mark:
                    breaking.mark(revision)
                assert context.connection is not None
                context.connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")

        go_to("9998", mark=False)
        assert await looked_at(url) is None
        go_to("9999", mark=True)
        assert await looked_at(url) == (
            "the database is at revision 9999, and since 9999 only newer versions can serve it:"
            f" this one knows {NEWEST} and those before"
        )
        # What is marked counts for those who do not know it.
        assert schema.misfit([*KNOWN, "9998", "9999"], "9999", ["9999"]) is None
        with connected(url) as context, Operations.context(context):
            breaking.unmark("9999")
        assert await looked_at(url) is None


async def test_a_database_of_another_encoding_is_not_served(database_url: str) -> None:
    with latin(database_url) as url:
        expected = "the database's encoding is LATIN1, and it must be UTF8: make one with ENCODING 'UTF8'"
        assert await looked_at(url) == expected
        # Before it has made anything.
        with pytest.raises(RuntimeError, match=re.escape(expected)):
            await asyncio.to_thread(migrations.upgrade, url)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall() == []


@contextmanager
def latin(database_url: str) -> Iterator[str]:
    options = "ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE latin {options}")
        yield database_url.replace("/tickets?", "/latin?")
        connection.execute("DROP DATABASE latin WITH (FORCE)")


UNMARKED = re.compile(r"op\.(drop_column|drop_table|rename_table)\(|new_column_name=|SET NOT NULL")


def is_well_marked(revision: str) -> bool:
    """Whether a revision's text takes nothing away, or is marked."""
    upgrade = revision.partition("def upgrade")[2].partition("def downgrade")[0]
    return "breaking.mark(revision)" in upgrade or not UNMARKED.search(upgrade)


def test_a_step_that_takes_something_away_is_marked() -> None:
    """As the version before would fail on what is there no more."""
    drops = 'def upgrade() -> None:\n    op.drop_column("projects", "slug")\n'
    assert not is_well_marked(drops)
    assert is_well_marked(drops.replace(" op", " breaking.mark(revision)\n    op"))
    versions = Path(migrations.__file__).parent / "versions"
    later = [path for path in versions.glob("[0-9]*.py") if path.name >= "0017"]  # before that nothing was looked at
    assert [path.name for path in later if not is_well_marked(path.read_text())] == []
