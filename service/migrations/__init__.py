"""The database's schema, step by step (Alembic). Tables are declared in the dialects; a test compares the two.

A new step is written by `make migration m="What changes"`: read what it wrote before it is committed. It is a
transaction of its own, and runs while the version before serves: an index of a large table is built by `online.py`, and
what takes something away is a step of the release after the one that stops using it, marked by `breaking.py`.
"""

import time
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from service.migrations import epochs
from service.schema import wrong_encoding

# Any number, the same in every release: one process migrates at a time.
_LOCK = 7_303_014
_LOCK_PAUSE_SECONDS = 0.1
# While a step waits for a table's lock, every later statement on the table queues behind it. So it gives up soon, lets
# them pass, and tries again.
_TABLE_SECONDS = 1.0
_TABLE_PAUSE_SECONDS = 0.5
_TABLE_ATTEMPTS = 200
_OLDEST_SERVER = 15


def upgrade(database_url: str) -> str:
    """Bring a database to the newest schema; returns its revision. Safe to run from many places at once.

    Each revision is a transaction; one may leave it for what PostgreSQL does in none, such as an index that is made
    while the table is written to. Then, on a server that is new to the database, the order of events goes on there.
    Raises RuntimeError for a database that cannot hold the schema, and as `epochs.follow_server`.
    """
    engine = _engine(database_url)
    try:
        with engine.connect() as connection:
            _refuse_unfit(connection)
            _lock(connection)
            connection.execute(text(f"SET lock_timeout = '{_TABLE_SECONDS}s'"))
            connection.commit()
            _upgrade(connection)
            epochs.follow_server(connection)
            return MigrationContext.configure(connection).get_current_revision() or ""
    finally:
        engine.dispose()


def _refuse_unfit(connection: Connection) -> None:
    """Raise RuntimeError for a server that is too old, and for an encoding that cannot hold what callers send."""
    version = int(connection.scalar(text("SHOW server_version_num")) or 0) // 10_000
    if version < _OLDEST_SERVER:
        raise RuntimeError(f"the server is PostgreSQL {version}, and it must be {_OLDEST_SERVER} or newer")
    wrong = wrong_encoding(str(connection.scalar(text("SHOW server_encoding"))))
    if wrong is not None:
        raise RuntimeError(wrong)
    connection.commit()


def _upgrade(connection: Connection) -> None:
    for attempt in range(1, _TABLE_ATTEMPTS + 1):
        try:
            command.upgrade(config(connection), "head")
        except OperationalError as error:
            # The step is undone; those before it are committed.
            connection.rollback()
            if attempt == _TABLE_ATTEMPTS or not isinstance(error.orig, psycopg.errors.LockNotAvailable):
                raise
            time.sleep(_TABLE_PAUSE_SECONDS)
        else:
            return


def _lock(connection: Connection) -> None:
    """Take the lock, for as long as the connection is open.

    Asked for again and again: an index that is built online waits for statements that have begun before, and one that
    waits for this lock would be one of them.
    """
    while True:
        is_mine = connection.scalar(text(f"SELECT pg_try_advisory_lock({_LOCK})"))
        connection.commit()
        if is_mine:
            return
        time.sleep(_LOCK_PAUSE_SECONDS)


def revise(database_url: str, message: str, versions: Path | None = None) -> Path:
    """Write the next revision: what turns the schema of an upgraded database into the tables that are declared.

    Returns the file, in `versions` or among the others. It is numbered after the newest, and empty where nothing
    differs.
    """
    engine = _engine(database_url)
    try:
        with engine.begin() as connection:
            made = config(connection, versions)
            newest = ScriptDirectory.from_config(made).get_current_head() or "0"
            number = f"{int(newest) + 1:04}"
            command.revision(made, message, autogenerate=True, rev_id=number)
            revision = ScriptDirectory.from_config(made).get_revision(number)
            return Path(revision.path)
    finally:
        engine.dispose()


def config(connection: Connection, versions: Path | None = None) -> Config:
    """Alembic's configuration, on a connection that is open; `versions` is a folder of revisions to use instead."""
    made = Config()
    here = Path(__file__).parent
    made.set_main_option("script_location", str(here))
    made.set_main_option("version_locations", str(versions or here / "versions"))
    made.set_main_option("path_separator", "newline")
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    made.attributes["connection"] = connection
    return made


def _engine(database_url: str) -> Engine:
    # libpq reads the URL, as it does for the service: SQLAlchemy knows fewer forms.
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url, client_encoding="UTF8"))
