"""Marks a revision that the version before cannot serve. What only adds to the schema needs no mark.

A change that takes something away is two releases: the first stops using it, the second takes it away and marks that
step, so that processes of versions that still use it stop serving and say why.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import insert

_REVISIONS = sa.table("breaking_revisions", sa.column("revision", sa.Text))


def mark(revision: str) -> None:
    """Note in the database that code which does not know this revision cannot serve it; first in `upgrade`."""
    op.execute(_REVISIONS.insert().values(revision=revision))


def mark_again(connection: sa.Connection, revision: str) -> None:
    """Note it outside of a revision: what older code cannot serve may begin later. It may be noted already."""
    connection.execute(insert(_REVISIONS).values(revision=revision).on_conflict_do_nothing())


def unmark(revision: str) -> None:
    """Take the note back; last in `downgrade`."""
    op.execute(_REVISIONS.delete().where(_REVISIONS.c.revision == revision))
