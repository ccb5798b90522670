"""helpdesk lists in every order, search, comments, events that can be followed.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NEWEST = ("created_at DESC", "id DESC")
_RANK = "array_position(ARRAY['low'::text, 'medium'::text, 'high'::text, 'urgent'::text], priority)"
_ORDERS = {
    "newest": _NEWEST,
    "changed": ("updated_at DESC", "id DESC"),
    "due": ("coalesce(due_at, '9999-12-31 23:59:59.999999+00'::timestamptz)", "id"),
    "priority": (f"{_RANK} DESC", "id DESC"),
}
_FILTERS = ("status", "assigned_to_id", "team_id", "submitted_by_id")
_OF_APP = sa.text("app_id IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "helpdesk_tickets",
        sa.Column("tag_words", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    )
    op.execute(
        """UPDATE helpdesk_tickets SET tag_words = CASE json_typeof(tags)
             WHEN 'array' THEN ARRAY(SELECT '#' || left(word, 500) FROM json_array_elements_text(tags) AS word)
             ELSE ARRAY(SELECT '#' || left(word, 500) FROM json_object_keys(tags) AS word) END
           WHERE tags::text <> '[]'"""
    )
    for name in ("newest", "app_newest"):
        op.drop_index(f"helpdesk_tickets_{name}_idx", table_name="helpdesk_tickets")
    for name, order in _ORDERS.items():
        columns = [sa.text(part) for part in order]
        op.create_index(f"helpdesk_tickets_{name}_idx", "helpdesk_tickets", ["tenant_id", *columns])
        op.create_index(
            f"helpdesk_tickets_app_{name}_idx",
            "helpdesk_tickets",
            ["tenant_id", "app_id", *columns],
            postgresql_where=_OF_APP,
        )
    for name in _FILTERS:
        op.create_index(
            f"helpdesk_tickets_{name}_newest_idx",
            "helpdesk_tickets",
            ["tenant_id", name, *(sa.text(part) for part in _NEWEST)],
        )
    op.create_index(
        "helpdesk_tickets_words_idx",
        "helpdesk_tickets",
        [
            sa.text(
                "((to_tsvector('simple'::regconfig, title || ' ' || coalesce(description, ''))"
                " || array_to_tsvector(tag_words)) || array_to_tsvector(ARRAY['@' || tenant_id]))"
            )
        ],
        postgresql_using="gin",
    )
    op.create_table(
        "helpdesk_comments",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("internal", sa.Boolean(), nullable=False),
        sa.Column("author_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["tenant_id", "ticket_id"],
            ["helpdesk_tickets.tenant_id", "helpdesk_tickets.id"],
            name=op.f("helpdesk_comments_tenant_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "ticket_id", "id", name=op.f("helpdesk_comments_pkey")),
    )
    op.create_index("helpdesk_comments_oldest_idx", "helpdesk_comments", ["tenant_id", "ticket_id", "created_at", "id"])
    op.add_column("helpdesk_events", sa.Column("app_id", sa.Text()))
    op.execute(
        "UPDATE helpdesk_events SET app_id = helpdesk_tickets.app_id FROM helpdesk_tickets"
        " WHERE helpdesk_tickets.tenant_id = helpdesk_events.tenant_id"
        " AND helpdesk_tickets.id = helpdesk_events.ticket_id AND helpdesk_tickets.app_id IS NOT NULL"
    )
    op.add_column(
        "helpdesk_events", sa.Column("internal", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )


def downgrade() -> None:
    """Undo."""
    op.drop_column("helpdesk_events", "internal")
    op.drop_column("helpdesk_events", "app_id")
    op.drop_table("helpdesk_comments")
    op.drop_index("helpdesk_tickets_words_idx", table_name="helpdesk_tickets")
    for name in _FILTERS:
        op.drop_index(f"helpdesk_tickets_{name}_newest_idx", table_name="helpdesk_tickets")
    for name in _ORDERS:
        op.drop_index(f"helpdesk_tickets_{name}_idx", table_name="helpdesk_tickets")
        op.drop_index(f"helpdesk_tickets_app_{name}_idx", table_name="helpdesk_tickets")
    newest = [sa.text(part) for part in _NEWEST]
    listed = sa.text("NOT is_deleted")
    op.create_index("helpdesk_tickets_newest_idx", "helpdesk_tickets", ["tenant_id", *newest], postgresql_where=listed)
    op.create_index(
        "helpdesk_tickets_app_newest_idx",
        "helpdesk_tickets",
        ["tenant_id", "app_id", *newest],
        postgresql_where=sa.text("NOT is_deleted AND app_id IS NOT NULL"),
    )
    op.drop_column("helpdesk_tickets", "tag_words")
