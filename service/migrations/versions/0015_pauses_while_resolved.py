"""pauses of helpdesk tickets while they were resolved: of those that were reopened, from their history.

Revision 0015, after 0014. Only of unresolved tickets that have an SLA: those are whose clocks run. The previous version
reads these pauses as any other.
"""

from service.migrations.online import fill

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# From each move into `resolved` or `closed` (or the creation) until the move back to work. The notifier sets the clocks of
# the tickets that got one.
PAUSES = """
WITH moves AS MATERIALIZED (
  SELECT events.tenant_id, events.ticket_id, events.version, events.created_at AS at, tickets.created_at AS first,
      events.changes->'status'->>'from' IN ('resolved', 'closed') AS was_resolved,
      events.changes->'status'->>'to' IN ('resolved', 'closed') AS is_resolved
    FROM helpdesk_tickets AS tickets
    JOIN helpdesk_events AS events ON events.tenant_id = tickets.tenant_id AND events.ticket_id = tickets.id
    WHERE (tickets.tenant_id, tickets.id) BETWEEN :first AND :last
      AND tickets.sla_policy IS NOT NULL AND tickets.resolved_at IS NULL
      AND events.type IN ('ticket.updated', 'ticket.closed', 'ticket.reopened')
      AND events.changes->'status' IS NOT NULL
),
times AS (
  SELECT tenant_id, ticket_id, was_resolved, at AS ended_at,
      lag(at, 1, first) OVER (PARTITION BY tenant_id, ticket_id ORDER BY version) AS started_at
    FROM moves WHERE was_resolved <> is_resolved
),
pauses AS (
  INSERT INTO helpdesk_pauses (tenant_id, ticket_id, started_at, ended_at)
    SELECT tenant_id, ticket_id, started_at, ended_at FROM times WHERE was_resolved
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, ticket_id
)
UPDATE helpdesk_tickets AS tickets SET sla_look_at = now()
  FROM (SELECT DISTINCT tenant_id, ticket_id FROM pauses) AS reopened
  WHERE tickets.tenant_id = reopened.tenant_id AND tickets.id = reopened.ticket_id
"""


def upgrade() -> None:
    """Apply."""
    fill("helpdesk_tickets", ["tenant_id", "id"], PAUSES)


def downgrade() -> None:
    """Undo: nothing, as the previous version counts the pauses too."""
