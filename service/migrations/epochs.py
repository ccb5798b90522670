"""Begins an epoch of events (service/epochs.py) on a server that the database does not remember. No row is changed."""

import psycopg
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import OperationalError

from service.epochs import SERVER, SERVER_BITS, event_epochs
from service.migrations import breaking

# The first revision that knows epochs: an older version would write and read in the order of the first.
_REVISION = "0023"
# How long to wait for transactions that write. (Autovacuum, which runs after a restore, gives way after a second.)
LOCK_SECONDS = 10.0

# Those with transaction ids, and those whose ids a sequence gives.
_TABLES = text(
    "SELECT DISTINCT oid::regclass::text FROM pg_class JOIN pg_attribute ON attrelid = oid"
    " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND NOT attisdropped"
    " AND (atttypid = 'xid8'::regtype OR attidentity <> '') ORDER BY 1"
)
_SEQUENCES = text(
    "SELECT attrelid::regclass::text, quote_ident(attname), pg_get_serial_sequence(attrelid::regclass::text, attname)"
    " FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid"
    " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND attidentity <> ''"
)
_SUBSCRIPTIONS = text(
    "SELECT subname FROM pg_subscription JOIN pg_database ON pg_database.oid = subdbid"
    " WHERE datname = current_database() AND subenabled ORDER BY 1"
)
_STOP = "the database is on a new server, and the order of events can go on there once nothing else writes"


def define(connection: Connection, epoch: int) -> None:
    """Make the function of an epoch, or replace it: statements are planned anew with its text."""
    shifted = f"(id::text::bigint + {epoch << SERVER_BITS})::text::xid8" if epoch else "id"
    connection.execute(
        text(f"CREATE OR REPLACE FUNCTION in_epoch(id xid8) RETURNS xid8 STABLE PARALLEL SAFE RETURN {shifted}")
    )


def follow_server(connection: Connection) -> None:
    """Begin an epoch, unless the newest is of this server. Raises RuntimeError while others write."""
    server = connection.scalar(select(SERVER.c.system_identifier))
    newest = connection.execute(select(event_epochs).order_by(event_epochs.c.epoch.desc()).limit(1)).one()
    if newest.system_identifier != server:
        _refuse_subscriptions(connection)
        _lock_tables(connection)
        epoch = newest.epoch + 1
        connection.execute(insert(event_epochs).values(epoch=epoch, system_identifier=server))
        define(connection, epoch)
        breaking.mark_again(connection, _REVISION)
        _advance_sequences(connection)
    connection.commit()


def _refuse_subscriptions(connection: Connection) -> None:
    """Raise RuntimeError while events may still arrive from the server before."""
    names = list(connection.scalars(_SUBSCRIPTIONS))
    if names:
        raise RuntimeError(f"{_STOP}: drop the subscription {', '.join(names)}, once it has everything")


def _lock_tables(connection: Connection) -> None:
    """Keep others from writing until the transaction ends. Raises RuntimeError when one does not let go."""
    tables = ", ".join(connection.scalars(_TABLES))
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
    try:
        connection.execute(text(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE"))
    except OperationalError as error:
        if not isinstance(error.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
            raise
        connection.rollback()
        raise RuntimeError(f"{_STOP}: another session has an open transaction") from error


def _advance_sequences(connection: Connection) -> None:
    """Let ids go on after those there are: logical replication brings rows, and leaves sequences at their beginning."""
    for table, column, sequence in connection.execute(_SEQUENCES).all():
        newest = f"SELECT coalesce(max({column}), 0) FROM {table}"  # noqa: S608 - names from the catalog
        connection.execute(text(f"SELECT setval('{sequence}', greatest(({newest}), nextval('{sequence}')))"))
