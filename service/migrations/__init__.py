"""The database's schema, step by step (Alembic). Tables are declared in the dialects; a test compares the two.

A new step, on a database that is at the newest one: `with engine.begin() as connection:
alembic.command.revision(config(connection), "what changes", autogenerate=True, rev_id="0002")`, and read what it wrote.
"""

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

# Any number, the same in every release: one process migrates at a time.
_LOCK = 7_303_014


def upgrade(database_url: str) -> str:
    """Bring a database to the newest schema; returns its revision. Safe to run from many places at once."""
    # libpq reads the URL, as it does for the service: SQLAlchemy knows fewer forms.
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url))
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            command.upgrade(config(connection), "head")
            return MigrationContext.configure(connection).get_current_revision() or ""
    finally:
        engine.dispose()


def config(connection: Connection) -> Config:
    """Alembic's configuration, on a connection that is open."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    made.attributes["connection"] = connection
    return made
