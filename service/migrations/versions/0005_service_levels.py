"""service levels: policies, calendars, pauses, and the clock of each helpdesk ticket.

Revision 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TICKETS = "helpdesk_tickets"
_COLUMNS = ("sla_policy_given", "due_at_given", "first_response_due_at", "paused_at", "sla_told", "sla_look_at")


def upgrade() -> None:
    """Apply."""
    instant = sa.DateTime(timezone=True)
    now = sa.text("now()")
    for name in ("sla_policy_given", "due_at_given"):
        op.add_column(_TICKETS, sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False))
    for name in ("first_response_due_at", "paused_at", "sla_look_at"):
        op.add_column(_TICKETS, sa.Column(name, instant))
    op.add_column(_TICKETS, sa.Column("sla_told", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    # What there was until now was said by callers. Of what is overdue already nobody is told.
    op.execute(
        """UPDATE helpdesk_tickets SET
              sla_policy_given = sla_policy IS NOT NULL,
              due_at_given = due_at IS NOT NULL,
              paused_at = CASE WHEN status = 'pending' THEN updated_at END,
              sla_told = CASE WHEN due_at <= now() THEN ARRAY['resolution.due_soon', 'resolution.breached'] ELSE '{}' END,
              sla_look_at = CASE WHEN due_at > now() AND status NOT IN ('resolved', 'closed') THEN now() END
            WHERE sla_policy IS NOT NULL OR due_at IS NOT NULL OR status = 'pending'"""
    )
    op.create_index(
        "helpdesk_tickets_sla_idx",
        _TICKETS,
        ["sla_look_at"],
        postgresql_where=sa.text("sla_look_at IS NOT NULL AND NOT is_deleted"),
    )
    op.create_table(
        "helpdesk_pauses",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("started_at", instant, nullable=False),
        sa.Column("ended_at", instant, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "ticket_id"],
            ["helpdesk_tickets.tenant_id", "helpdesk_tickets.id"],
            name=op.f("helpdesk_pauses_tenant_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "ticket_id", "started_at", name=op.f("helpdesk_pauses_pkey")),
    )
    op.create_table(
        "helpdesk_sla_policies",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("applies_to", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("first_response_minutes", sa.Integer()),
        sa.Column("resolution_minutes", sa.Integer(), nullable=False),
        sa.Column("business_hours_only", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", instant, server_default=now, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_at", instant, server_default=now, nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "applies_to <@ ARRAY['incident'::text, 'service_request'::text, 'change'::text, 'problem'::text]",
            name=op.f("helpdesk_sla_policies_applies_to_check"),
        ),
        sa.CheckConstraint(
            "priority IN ('low', 'medium', 'high', 'urgent')", name=op.f("helpdesk_sla_policies_priority_check")
        ),
        sa.CheckConstraint("status IN ('active', 'inactive')", name=op.f("helpdesk_sla_policies_status_check")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("helpdesk_sla_policies_pkey")),
    )
    op.create_table(
        "helpdesk_active_sla_policies",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "policy_id"],
            ["helpdesk_sla_policies.tenant_id", "helpdesk_sla_policies.id"],
            name=op.f("helpdesk_active_sla_policies_tenant_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "priority", "type", name=op.f("helpdesk_active_sla_policies_pkey")),
    )
    op.create_table(
        "helpdesk_calendars",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("hours", sa.JSON(), nullable=False),
        sa.Column("holidays", sa.ARRAY(sa.Date()), nullable=False),
        sa.Column("updated_at", instant, server_default=now, nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("helpdesk_calendars_pkey")),
    )


def downgrade() -> None:
    """Undo."""
    for name in ("calendars", "active_sla_policies", "sla_policies", "pauses"):
        op.drop_table(f"helpdesk_{name}")
    op.drop_index("helpdesk_tickets_sla_idx", table_name=_TICKETS)
    for name in _COLUMNS:
        op.drop_column(_TICKETS, name)
