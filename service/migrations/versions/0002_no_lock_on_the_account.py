"""no lock on the account for each ticket.

Revision 0002, after 0001.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.drop_constraint("itsm_tickets_account_id_fkey", "itsm_tickets", type_="foreignkey")


def downgrade() -> None:
    """Undo."""
    op.create_foreign_key("itsm_tickets_account_id_fkey", "itsm_tickets", "accounts", ["account_id"], ["id"])
