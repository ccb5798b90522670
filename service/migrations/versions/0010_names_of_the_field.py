"""Columns and indexes whose names misled: in doubt, emitted, index terms.

Revision 0010, after 0009.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("provider_deliveries", "maybe_done", "in_doubt"),
    ("provider_deliveries", "is_kept", "has_ticket"),
    ("provider_deliveries", "asked_url", "attempted_url"),
    ("helpdesk_tickets", "sla_told", "sla_emitted"),
    ("helpdesk_tickets", "tag_words", "tag_terms"),
    ("itsm_tickets", "metadata_words", "metadata_terms"),
)
_INDEXES = ("handoff_tickets", "helpdesk_tickets")


def upgrade() -> None:
    """Apply. Only names change: no row is written."""
    for table, old, new in _COLUMNS:
        op.alter_column(table, old, new_column_name=new)
    for table in _INDEXES:
        op.execute(f"ALTER INDEX {table}_words_idx RENAME TO {table}_terms_idx")


def downgrade() -> None:
    """Undo."""
    for table in _INDEXES:
        op.execute(f"ALTER INDEX {table}_terms_idx RENAME TO {table}_words_idx")
    for table, old, new in _COLUMNS:
        op.alter_column(table, new, new_column_name=old)
