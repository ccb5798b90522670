"""Where the rows of each table would lie if PostgreSQL were spread over several machines, by an engine such as Citus.

Nothing here is used while there is one machine. It is the configuration that such an engine would get, and
`tests/architecture/test_distribution.py` checks tables and statements against it, so that they can be spread unchanged.
"""

from collections.abc import Mapping

# Each machine has the whole table: it is small, seldom written, and joined by everybody.
REFERENCE = None

# The column by whose value a row is on one machine, or REFERENCE. Tables of the same column lie together: all of an
# account, of a project or of a tenant is on one machine, and a statement that names the value runs there alone.
DISTRIBUTION: Mapping[str, str | None] = {
    "accounts": REFERENCE,
    "admin_keys": REFERENCE,
    "api_keys": REFERENCE,
    "breaking_revisions": REFERENCE,
    "event_epochs": REFERENCE,
    "itsm_totals_floor": REFERENCE,
    "projects": REFERENCE,
    "provider_links": REFERENCE,
    "purges": REFERENCE,
    "tenants": REFERENCE,
    "vault_check": REFERENCE,
    "itsm_day_recounts": "account_id",
    "itsm_day_totals": "account_id",
    "itsm_events": "account_id",
    "itsm_events_purged": "account_id",
    "itsm_keys": "account_id",
    "itsm_tickets": "account_id",
    "itsm_total_changes": "account_id",
    "itsm_totals": "account_id",
    "itsm_webhook_attempts": "account_id",
    "itsm_webhook_messages": "account_id",
    "itsm_webhooks": "account_id",
    "provider_deliveries": "account_id",
    "handoff_counters": "project_id",
    "handoff_deployments": "project_id",
    "handoff_events": "project_id",
    "handoff_events_purged": "project_id",
    "handoff_keys": "project_id",
    "handoff_roles": "project_id",
    "handoff_tickets": "project_id",
    "project_members": "project_id",
    "helpdesk_active_sla_policies": "tenant_id",
    "helpdesk_calendars": "tenant_id",
    "helpdesk_comments": "tenant_id",
    "helpdesk_counters": "tenant_id",
    "helpdesk_events": "tenant_id",
    "helpdesk_events_purged": "tenant_id",
    "helpdesk_keys": "tenant_id",
    "helpdesk_pauses": "tenant_id",
    "helpdesk_reclocks": "tenant_id",
    "helpdesk_sla_keys": "tenant_id",
    "helpdesk_sla_policies": "tenant_id",
    "helpdesk_tickets": "tenant_id",
}
