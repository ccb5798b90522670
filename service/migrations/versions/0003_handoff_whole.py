"""handoff tickets whole: search, deployments, events that can be followed.

Revision 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

from service.storage.database import Xid8

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SCOPES = {"handoff": ["project_id"], "helpdesk": ["tenant_id"], "itsm": ["account_id", "live"]}


def upgrade() -> None:
    """Apply."""
    for dialect, scope in _SCOPES.items():
        # Of tickets that are there already: this transaction, later than any that wrote them.
        op.add_column(
            f"{dialect}_tickets",
            sa.Column("transaction_id", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        )
        op.drop_constraint(f"{dialect}_events_pkey", f"{dialect}_events", type_="primary")
        op.create_primary_key(f"{dialect}_events_pkey", f"{dialect}_events", [*scope, "transaction_id", "id"])
    for name in ("actor_role", "actor_id", "agent_origin"):
        op.add_column("handoff_events", sa.Column(name, sa.Text()))
    op.add_column("projects", sa.Column("github_repo", sa.Text()))
    op.drop_column("handoff_tickets", "github_issue_url")
    op.create_table(
        "handoff_deployments",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("ticket_id", sa.Uuid(), nullable=False),
        sa.Column("merge_sha", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('merged', 'deployed', 'failed')", name=op.f("handoff_deployments_outcome_check")
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "ticket_id"],
            ["handoff_tickets.project_id", "handoff_tickets.id"],
            name=op.f("handoff_deployments_project_id_fkey"),
        ),
        sa.PrimaryKeyConstraint(
            "project_id", "ticket_id", "merge_sha", "outcome", name=op.f("handoff_deployments_pkey")
        ),
    )
    newest_first: tuple[sa.ColumnElement[str], ...] = (
        sa.literal_column("created_at DESC"),
        sa.literal_column("id DESC"),
    )
    op.create_index(
        "handoff_tickets_open_idx",
        "handoff_tickets",
        ["project_id", *newest_first],
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index(
        "handoff_tickets_milestone_idx",
        "handoff_tickets",
        ["project_id", "milestone_id", *newest_first],
        postgresql_where=sa.text("milestone_id IS NOT NULL"),
    )
    op.create_index(
        "handoff_tickets_changed_idx", "handoff_tickets", ["project_id", sa.text("coalesce(updated_at, created_at)")]
    )
    words = "to_tsvector('simple'::regconfig, title || ' ' || description)"
    op.create_index(
        "handoff_tickets_words_idx",
        "handoff_tickets",
        [sa.text(f"({words} || array_to_tsvector(ARRAY[' ' || CAST(project_id AS TEXT)]))")],
        postgresql_using="gin",
    )
    op.create_index(
        "handoff_roles_assignee_idx",
        "handoff_roles",
        ["project_id", "assignee_user_id"],
        postgresql_where=sa.text("assignee_user_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("handoff_roles_assignee_idx", table_name="handoff_roles")
    for name in ("words", "changed", "milestone", "open"):
        op.drop_index(f"handoff_tickets_{name}_idx", table_name="handoff_tickets")
    op.drop_table("handoff_deployments")
    op.add_column("handoff_tickets", sa.Column("github_issue_url", sa.Text()))
    op.drop_column("projects", "github_repo")
    for name in ("agent_origin", "actor_id", "actor_role"):
        op.drop_column("handoff_events", name)
    for dialect, scope in _SCOPES.items():
        op.drop_constraint(f"{dialect}_events_pkey", f"{dialect}_events", type_="primary")
        op.create_primary_key(f"{dialect}_events_pkey", f"{dialect}_events", [*scope, "id"])
        op.drop_column(f"{dialect}_tickets", "transaction_id")
