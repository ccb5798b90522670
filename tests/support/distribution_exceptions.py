"""What would not run on one machine as it is, by kind (`distribution.ADVICE`), each group with its reason.

The ways out are in `service/decisions/0070-statements-bind-what-they-would-be-spread-by.md`.
"""

from collections.abc import Collection, Mapping

_ONE_ROUND_TRIP = (
    "what is written together is one statement, and so one round trip: spread, it is a function where the scope lies"
)
_OWN_INSTANT = "the instant, the version and the transaction of a change are after those of the row itself"

EXCEPTIONS: Mapping[str, Mapping[str, Collection[str]]] = {
    "unbound": {
        "operators name a row by its id alone, and look through everybody's": [
            "admin.queries.REQUEUE_DELIVERY",
            "admin.queries.list_failing_webhooks",
            "admin.queries.list_page",
            "admin.queries.one",
        ],
        "metrics are of the whole database": [
            "backlog.LOOK",
            "backlog.UNQUEUED",
            "retention.look.DEAD",
            "retention.look.HELD",
        ],
        "what is old is found by walking all of a table, whoever's it is: spread, each machine walks what it has": [
            "retention.kinds.HELD._count",
            "retention.kinds.HELD._next",
            "retention.kinds.count",
            "retention.kinds.delete_events",
            "retention.kinds.delete_tickets",
            "retention.kinds.move_webhooks",
            "retention.kinds.plain",
        ],
        "a person's tickets are in all the projects that they are a member of": [
            "handoff.list_queries.conditions",
            "handoff.list_queries.list_tickets",
        ],
        "which scopes have work, asked without a lock": [
            "helpdesk.sla.clock_queries.DUE_ROUND",
            "itsm.day_queries.NEXT_RECOUNT",
            "itsm.day_queries.QUEUE_RECOUNTS",
            "watch.EventFeed",
            "webhooks.fan_out_queries.waiting_webhooks",
        ],
        "whose turn it is, of all tenants, is told by one queue": ["helpdesk.sla.clock_queries.TAKE_TURN"],
        "what is next of all scopes is taken, but for what others are at work on: looked for without a lock, all would"
        " find the same": [
            "handoff.keys.KEYS.expired",
            "helpdesk.keys.KEYS.expired",
            "helpdesk.keys.SLA_KEYS.expired",
            "itsm.keys.KEYS.expired",
            "itsm.delivery.queries.LEASE_DUE",
            "itsm.delivery.queries.POSTPONE",
            "itsm.delivery.queries.RENEW",
            "itsm.total_queries.MERGE",
            "itsm.total_queries.RAISE_FLOOR",
            "webhooks.message_queries.lease_due",
            "webhooks.message_queries.renew_leases",
        ],
        "once, after an update: the newest tickets without terms are taken, but for what others are at work on": [
            "handoff.servicers.Reindex",
            "helpdesk.servicers.Reindex",
            "reindex.Reindex",
        ],
    },
    "written": {
        "the merge is of the totals of several accounts": ["itsm.total_queries.MERGE"],
        "one step is of the rows of several scopes": [
            "itsm.day_queries.QUEUE_RECOUNTS",
            "retention.kinds.delete_events",
            "retention.kinds.delete_tickets",
        ],
    },
    "groups": {
        "metrics are of the whole database": ["backlog.LOOK"],
    },
    "insert": {
        "marks and recounts are written with what they are about, or a reader would find one without the other": [
            "itsm.day_queries.QUEUE_RECOUNTS",
            "retention.kinds.delete_events",
            "retention.kinds.delete_tickets",
        ],
        "both tables are everywhere": ["admin.queries.CREATE_PROJECT_WITH_ACCOUNT"],
        _ONE_ROUND_TRIP: [
            "handoff.change_queries.WRITE",
            "handoff.change_queries.WRITE_ONE",
            "handoff.queries.CREATE.keyed",
            "handoff.queries.CREATE.plain",
            "helpdesk.comment_queries.CREATE_COMMENT",
            "helpdesk.comment_queries.UPDATE_COMMENT",
            "helpdesk.queries.CREATE.keyed",
            "helpdesk.queries.CREATE.plain",
            "helpdesk.queries.DELETE",
            "helpdesk.queries.RESTORE",
            "helpdesk.queries.update_ticket",
            "helpdesk.sla.clock_queries.SET_CLOCKS",
            "itsm.delivery.queries.CREATE_DELIVERED.keyed",
            "itsm.delivery.queries.CREATE_DELIVERED.plain",
            "itsm.delivery.queries.CREATE_QUEUED.keyed",
            "itsm.delivery.queries.CREATE_QUEUED.plain",
            "itsm.delivery.queries.DELIVERED",
            "itsm.day_queries.RECOUNT",
            "itsm.queries.CREATE.keyed",
            "itsm.queries.CREATE.plain",
            "itsm.queries.update_ticket",
            "itsm.total_queries.MERGE",
            "webhooks.fan_out_queries.queue",
            "webhooks.message_queries.record_attempt",
        ],
    },
    "stable": {
        _OWN_INSTANT: [
            "handoff.change_queries.WRITE",
            "handoff.change_queries.WRITE_ONE",
            "helpdesk.comment_queries.CREATE_COMMENT",
            "helpdesk.comment_queries.UPDATE_COMMENT",
            "helpdesk.queries.DELETE",
            "helpdesk.queries.RESTORE",
            "helpdesk.queries.update_ticket",
            "helpdesk.sla.clock_queries.SET_CLOCKS",
            "helpdesk.sla.queries.SET_CALENDAR",
            "helpdesk.sla.queries.UPDATE_POLICY",
            "itsm.delivery.queries.DELIVERED",
            "itsm.queries.update_ticket",
            "itsm.webhooks.QUERIES.disable",
            "itsm.webhooks.QUERIES.rotate_secret",
            "webhooks.queries.update_webhook",
        ],
        "what is due, leased or used is told by the clock that wrote it, the database's": [
            "itsm.delivery.queries.CREATE_QUEUED.keyed",
            "itsm.delivery.queries.FAIL_DELIVERY",
            "itsm.delivery.queries.LEASE",
            "itsm.delivery.queries.LEASE_DUE",
            "itsm.delivery.queries.LEASE_NEXT",
            "itsm.delivery.queries.POSTPONE",
            "itsm.delivery.queries.TAKE_OVER",
            "webhooks.message_queries.record_attempt",
        ],
    },
    "text": {
        "it asks PostgreSQL for what it knows of itself, and no table of ours": [
            "retention.look.ESTIMATES",
            "storage.standby.IDENTITY",
        ],
        "what is taken is told by its place on disk": [
            "admin.keys.KEYS.expired",
            "handoff.keys.KEYS.expired",
            "helpdesk.keys.KEYS.expired",
            "helpdesk.keys.SLA_KEYS.expired",
            "itsm.keys.KEYS.expired",
            "itsm.total_queries.MERGE",
        ],
    },
}
