"""the words by which ITSM tickets are found by their metadata.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TICKETS = "itsm_tickets"

# As service/itsm/index_terms.py makes them.
WORDS = r"""UPDATE itsm_tickets SET metadata_words = (
      SELECT array_agg(encode(substring(sha256(
          convert_to(account_id::text || CASE WHEN live THEN 'live' ELSE 'test' END || name, 'UTF8')
          || '\x00'::bytea || convert_to(value #>> '{}', 'UTF8')
        ) FROM 1 FOR 16), 'hex')::uuid ORDER BY place)
      FROM json_each(metadata) WITH ORDINALITY member (name, value, place)
      WHERE place <= 1000 AND char_length(name) BETWEEN 1 AND 255
        AND json_typeof(value) IN ('string', 'number', 'boolean')
    ) WHERE metadata::text <> '{}'"""


def upgrade() -> None:
    """Apply."""
    op.add_column(_TICKETS, sa.Column("metadata_words", sa.ARRAY(sa.Uuid())))
    op.execute(WORDS)
    op.create_index(
        "itsm_tickets_metadata_idx",
        _TICKETS,
        ["metadata_words"],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 256},
        postgresql_where=sa.text("metadata_words IS NOT NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("itsm_tickets_metadata_idx", table_name=_TICKETS)
    op.drop_column(_TICKETS, "metadata_words")
