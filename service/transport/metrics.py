"""Prometheus metrics of one process: calls by method and outcome, those in flight, watches, work, the database.

A call adds to a list; the metric families are made when they are scraped. Beside them are those of counters.py.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from service.background import Background
from service.counters import REGISTRY
from service.event_lag import EventLag
from service.settings import SettingError
from service.storage import timings
from service.storage.database import Database
from service.storage.standby import OUT_SECONDS, Standby
from service.transport.admission import AdmissionControl
from service.watch import EventFeed

# Upper bounds of the histogram's buckets, in seconds.
_BOUNDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_NAMES = (*map(str, _BOUNDS), "+Inf")


class Metrics(Collector):
    """Counts calls as they end."""

    def __init__(
        self, admission: AdmissionControl, background: Background, event_lag: EventLag, database: Database
    ) -> None:
        self._admission = admission
        self._database = database
        self._background = background
        self._event_lag = event_lag
        self.feeds: Sequence[EventFeed] = ()
        # The number of calls in each bucket, and the sum of their seconds, by method and outcome.
        self._buckets: dict[tuple[str, str], list[int]] = {}
        self._seconds: dict[tuple[str, str], float] = {}

    def count(self, method: str, outcome: str, seconds: float) -> None:
        """Count a call that ended."""
        key = method, outcome
        buckets = self._buckets.get(key)
        if buckets is None:
            buckets = self._buckets[key] = [0] * len(_NAMES)
            self._seconds[key] = 0.0
        buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds[key] += seconds

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        took = HistogramMetricFamily(
            "tickets_request_duration_seconds", "Time that calls took, in seconds.", labels=("method", "outcome")
        )
        for key, buckets in list(self._buckets.items()):
            so_far, upto = 0, []
            for name, number in zip(_NAMES, buckets, strict=True):
                so_far += number
                upto.append((name, so_far))
            took.add_metric(key, upto, self._seconds[key])
        yield took
        yield GaugeMetricFamily("tickets_requests_in_flight", "Calls in flight.", value=len(self._admission))
        yield GaugeMetricFamily(
            "tickets_queue_wait_seconds",
            "How long calls queue before they are started.",
            value=self._admission.queue_seconds,
        )
        succeeded = GaugeMetricFamily(
            "tickets_background_last_success_timestamp_seconds",
            "When periodic work last succeeded, in seconds since 1970; 0 for never.",
            labels=("work",),
        )
        for work, at in list(self._background.last_success.items()):
            succeeded.add_metric((work,), at)
        yield succeeded
        yield GaugeMetricFamily(
            "tickets_events_behind_seconds",
            "For how long an open transaction has held back events from watches and webhooks.",
            value=self._event_lag.seconds(),
        )

        yield from self._of_watches()
        yield from self._of_database()
        yield _of_statements()

    def _of_watches(self) -> Iterator[Metric]:
        is_open = GaugeMetricFamily("tickets_watches_open", "Watches that are open.", labels=("api",))
        behind = GaugeMetricFamily(
            "tickets_watches_behind_seconds",
            "How long ago this process looked for events of the watches that are open.",
            labels=("api",),
        )
        for feed in self.feeds:
            is_open.add_metric((feed.name,), len(feed))
            behind.add_metric((feed.name,), feed.seconds_since_poll())
        yield from (is_open, behind)

    def _of_database(self) -> Iterator[Metric]:
        usage = self._database.usage()
        connections = GaugeMetricFamily(
            "tickets_database_connections", "Connections to the database, those of the lanes too.", labels=("state",)
        )
        connections.add_metric(("idle",), usage.idle)
        connections.add_metric(("in_use",), usage.in_use)
        yield connections
        yield GaugeMetricFamily("tickets_database_waiting", "Calls that wait for a connection.", value=usage.waiting)
        is_open = GaugeMetricFamily("tickets_lane_open", "Whether a lane has its connection.", labels=("lane",))
        waiting = GaugeMetricFamily("tickets_lane_waiting", "Statements that wait for a lane.", labels=("lane",))
        batches = CounterMetricFamily("tickets_lane_batches", "Batches that a lane has sent.", labels=("lane",))
        statements = CounterMetricFamily("tickets_lane_statements", "Statements in those batches.", labels=("lane",))
        left_out = CounterMetricFamily(
            "tickets_lane_left_out", "Statements that a lane left to the pool.", labels=("lane",)
        )
        lanes = self._database.lanes
        for name, lane in () if lanes is None else (("reads", lanes.reads), ("writes", lanes.writes)):
            is_open.add_metric((name,), lane.is_open)
            waiting.add_metric((name,), len(lane))
            batches.add_metric((name,), lane.batches)
            statements.add_metric((name,), lane.statements)
            left_out.add_metric((name,), lane.alone)
        yield from (is_open, waiting, batches, statements, left_out)
        yield from _of_standby(self._database.standby)

    def listen(self, address: str) -> Callable[[], None]:
        """Serve the metrics over HTTP, in a thread of its own; returns what ends it. Raises SettingError."""
        host, _, port = address.rpartition(":")
        registry = CollectorRegistry()
        registry.register(self)
        registry.register(REGISTRY)
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), registry)
        except OSError as error:
            raise SettingError(f"TICKETS_METRICS_LISTEN: cannot listen on {address}: {error.strerror}") from None

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return close


def _of_standby(standby: Standby | None) -> Iterator[Metric]:
    reads = 0 if standby is None else standby.reads
    yield CounterMetricFamily("tickets_standby_reads", "Reads that the standby answered.", value=reads)
    left = CounterMetricFamily(
        "tickets_standby_reads_left",
        "Reads that were left to the primary. The standby was behind, busy, lost, promoted, foreign (of another"
        " cluster or timeline), replaying what was in conflict, or out (left alone after one of these); the read failed"
        " there; or the primary was unasked, as it did not say where it is.",
        labels=("reason",),
    )
    for reason in OUT_SECONDS:
        left.add_metric((reason,), 0 if standby is None else standby.by_reason[reason])
    yield left
    behind = None if standby is None else standby.behind
    yield GaugeMetricFamily(
        "tickets_standby_behind_bytes",
        "How much of the primary's log the standby has not replayed; NaN while nobody knows.",
        value=math.nan if behind is None else behind,
    )


def _of_statements() -> Metric:
    took = SummaryMetricFamily(
        "tickets_statement_duration_seconds",
        "Time until statements were answered, with those on a lane also the wait for it.",
        labels=("statement",),
    )
    for name, number, seconds in timings.totals():
        took.add_metric((name,), number, seconds)
    return took
