"""What figures ought to be."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .results import Summary

# Throughput as a multiple of the peer's: what must be, and what is aimed at.
RATES: Mapping[tuple[str, str], tuple[float, float]] = {
    ("get", "envoy"): (1.85, 2.2),
    ("list", "envoy"): (10, 12),
    ("create", "envoy"): (2.4, 2.8),
    ("idempotent", "envoy"): (3.0, 3.5),
    ("patch", "envoy"): (2.7, 3.2),
    ("get", "grpc"): (2.7, 3.2),
    ("list", "grpc"): (12, 14),
    ("create", "grpc"): (3.3, 4.0),
    ("idempotent", "grpc"): (4.2, 5.0),
    ("patch", "grpc"): (3.7, 4.5),
}
# p99 as a multiple of the same turn's p50, with so many callers, of every operation.
TAIL = (2.2, 2.0)
CROWD = 64
OURS = ("envoy", "grpc")
# CPU for each request, in microseconds.
_POSTGRES_US: Mapping[str, float] = {"list": 100, "create": 100}
_APP_US: Mapping[str, float] = {"get": 290}
# To what the same operation costs of ITSM.
_CPU_TO_ITSM: Mapping[str, float] = {
    f"{api}.{kind}": 1.25 for api in ("helpdesk", "handoff") for kind in ("get", "create")
}
_WORKER_MIB = 120


@dataclass(frozen=True)
class Target:
    """What a figure ought to be."""

    words: str
    value: float
    bound: float
    at_least: bool = False

    def text(self) -> str:
        """For the terminal."""
        reached = self.value >= self.bound if self.at_least else self.value <= self.bound
        bound = f"{'at least' if self.at_least else 'at most'} {self.bound:g}"
        return f"{self.words}: {self.value:.2f}, {bound}: {'yes' if reached else 'NO'}"


def of_run(summaries: Sequence[Summary], workers_mib: Sequence[float]) -> Iterator[Target]:
    """The targets of a run beside those that its table has, with the most callers that it had."""
    most = max((one.concurrency for one in summaries), default=0)
    found = {(one.operation, one.contestant): one for one in summaries if one.concurrency == most}
    for (operation, contestant), one in found.items():
        if contestant not in OURS:
            continue
        what = f"{operation}, {contestant}, {most} callers"
        if operation in _POSTGRES_US:
            yield Target(f"PostgreSQL us, {what}", one.postgres_us, _POSTGRES_US[operation])
        if operation in _APP_US:
            yield Target(f"app us, {what}", one.app_us, _APP_US[operation])
        itsm = found.get((operation.rpartition(".")[2], contestant))
        if operation in _CPU_TO_ITSM and itsm is not None:
            ratio = one.cpu_total_us / itsm.cpu_total_us
            yield Target(f"CPU to that of ITSM, {what}", ratio, _CPU_TO_ITSM[operation])
    if workers_mib:
        yield Target("MiB, the largest worker after all of it", max(workers_mib), _WORKER_MIB)
