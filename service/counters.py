"""What happens seldom, or is looked up now and then, as prometheus_client's own counters and gauges.

What every call counts is a plain number instead (transport/metrics.py, storage/timings.py): these cost a lock each.
"""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)

# A family more for each counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client has no types there
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

SHED: Final = Counter(
    "tickets_requests_shed",
    "Calls refused before they began. Of the process: not_serving, in_flight, queue, calls, lists, watches; of their"
    " caller: share, rate.",
    ["reason"],
    registry=REGISTRY,
)
TURN_WAIT: Final = Summary(
    "tickets_turn_wait_seconds", "Time that calls waited for others of their owner.", registry=REGISTRY
)
CHANGES_REPEATED: Final = Counter(
    "tickets_changes_repeated",
    "Changes that began again with a lock, as their ticket had changed since it was read.",
    registry=REGISTRY,
)
DELIVERY_ATTEMPTS: Final = Counter(
    "tickets_delivery_attempts",
    "Attempts at deliveries to providers: succeeded, failed (there is another), dead (the last one), not_linked.",
    ["outcome"],
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS: Final = Counter(
    "tickets_webhook_attempts",
    "Attempts to send messages to webhooks: succeeded, failed.",
    ["outcome"],
    registry=REGISTRY,
)
PURGED_ROWS: Final = Counter(
    "tickets_purged_rows", "Rows deleted because they were older than they are kept.", ["kind"], registry=REGISTRY
)
WEBHOOKS_MISSED: Final = Counter(
    "tickets_webhooks_missed_events",
    "Webhooks whose next events or messages were deleted before they were sent.",
    registry=REGISTRY,
)
BREAKERS_OPEN: Final = Gauge(
    "tickets_provider_breakers_open", "Accounts whose provider is not called for now.", registry=REGISTRY
)
SCHEMA: Final = Info("tickets_schema", "The revision of the database, and the one that is needed.", registry=REGISTRY)
SCHEMA_SERVED: Final = Gauge(
    "tickets_schema_served", "Whether the database has a schema that this process can serve.", registry=REGISTRY
)
CERTIFICATE_EXPIRY: Final = Gauge(
    "tickets_certificate_expiry_timestamp_seconds",
    "Until when the certificate that new connections get is valid, in seconds since 1970; none without TLS.",
    ["file"],
    registry=REGISTRY,
)
# Every series is there from the start: one that appears with its first count has no rate yet.
for _counter, _outcomes in (
    (DELIVERY_ATTEMPTS, ("succeeded", "failed", "dead", "not_linked")),
    (WEBHOOK_ATTEMPTS, ("succeeded", "failed")),
    (SHED, ("not_serving", "in_flight", "queue", "calls", "lists", "watches", "share", "rate")),
):
    for _outcome in _outcomes:
        _counter.labels(_outcome)
