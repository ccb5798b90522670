"""Indexes for what filters of helpdesk and handoff lists seldom find, and two fewer of what these serve as well.

Revision 0020, after 0019. The version before serves with it: it finds the same, slower by tags and by a status that is
rare.
"""

import sqlalchemy as sa
from alembic import op

from service.migrations.online import create_index, drop_index

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_HELPDESK, _HANDOFF = "helpdesk_tickets", "handoff_tickets"
_NEWEST = ("created_at DESC", "id DESC")
_RANK = "array_position(ARRAY['low'::text, 'medium'::text, 'high'::text, 'urgent'::text], priority)"
_ORDERS = {
    "newest": _NEWEST,
    "due": ("coalesce(due_at, '9999-12-31 23:59:59.999999+00'::timestamptz)", "id"),
    "priority": (f"{_RANK} DESC", "id DESC"),
}
_UNRESOLVED = "status <> 'resolved' AND status <> 'closed'"
_FACETS = (
    "array_to_tsvector(array_cat(tag_terms, array_remove(ARRAY['@' || tenant_id, 'status=' || status, 'type=' || type,"
    " 'category=' || category, 'sla_policy=' || sla_policy, 'source=' || source], NULL)))"
)
_TAGS = "array_to_tsvector(array_append(tag_terms, '@' || tenant_id))"


def upgrade() -> None:
    """Apply."""
    for name, order in _ORDERS.items():
        create_index(
            f"helpdesk_tickets_unresolved_{name}_idx",
            _HELPDESK,
            ["tenant_id", *(sa.text(part) for part in order)],
            postgresql_where=sa.text(_UNRESOLVED),
        )
    create_index(
        "helpdesk_tickets_facets_idx",
        _HELPDESK,
        [sa.text(_FACETS)],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 512},
    )
    create_index(
        "handoff_tickets_facets_idx",
        _HANDOFF,
        ["project_id", "priority", "request_type", "status", sa.text("(milestone_id IS NULL)")],
    )
    create_index(
        "handoff_tickets_shipped_idx",
        _HANDOFF,
        ["project_id", sa.text("(deploy_failed_at IS NULL)"), sa.text("(deployed_at IS NULL)")],
        postgresql_where=sa.text("merge_sha IS NOT NULL"),
    )
    create_index("handoff_roles_role_idx", "handoff_roles", ["project_id", "role"])
    drop_index("helpdesk_tickets_tags_idx", _HELPDESK)
    drop_index("helpdesk_tickets_status_newest_idx", _HELPDESK)


def downgrade() -> None:
    """Undo."""
    newest = [sa.text(part) for part in _NEWEST]
    op.create_index("helpdesk_tickets_status_newest_idx", _HELPDESK, ["tenant_id", "status", *newest])
    op.create_index("helpdesk_tickets_tags_idx", _HELPDESK, [sa.text(_TAGS)], postgresql_using="gin")
    op.drop_index("handoff_roles_role_idx", "handoff_roles")
    for name in ("handoff_tickets_shipped_idx", "handoff_tickets_facets_idx"):
        op.drop_index(name, _HANDOFF)
    for name in ("helpdesk_tickets_facets_idx", *(f"helpdesk_tickets_unresolved_{order}_idx" for order in _ORDERS)):
        op.drop_index(name, _HELPDESK)
