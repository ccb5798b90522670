"""What was measured, and what it comes to: medians over rounds, ratios round by round."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PEER = "peer"


@dataclass(frozen=True)
class Measurement:
    """One contestant doing one operation for one round."""

    operation: str
    # 0 where it is what contestants differ in.
    concurrency: int
    contestant: str
    round: int
    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    # Server CPU for each request, in microseconds, by group of processes.
    cpu_us: dict[str, float]
    # The load generator's own.
    generator_us: float
    # Calls that were refused with a time to come back; not among the requests.
    shed: int = 0
    failed: int = 0
    first_failure: str = ""

    @property
    def cpu_total_us(self) -> float:
        """Server CPU for each request, all processes together."""
        return sum(self.cpu_us.values())


@dataclass(frozen=True)
class Spread:
    """A median, and between what it lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of some values."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int) -> str:
        """For a table."""
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}-{self.high:.{digits}f}]"


@dataclass(frozen=True)
class Summary:
    """One contestant doing one operation, all rounds together."""

    operation: str
    concurrency: int
    contestant: str
    rate: Spread
    p50_ms: Spread
    p99_ms: Spread
    # To the peer in the same round, or to another; none when that one did not take part.
    rate_ratio: Spread | None
    p50_ratio: Spread | None
    p99_ratio: Spread | None
    # p99 as a multiple of p50, in the same turn; none where no latencies were taken.
    tail: Spread | None
    cpu_ratio: Spread | None
    cpu_us: dict[str, float]
    generator_us: float
    # Of one round; failures are those of all.
    shed: float
    failed: int

    @property
    def cpu_total_us(self) -> float:
        """Server CPU for each request, all processes together."""
        return sum(self.cpu_us.values())

    @property
    def postgres_us(self) -> float:
        """PostgreSQL's CPU for each request."""
        return self.cpu_us.get("postgres", 0)

    @property
    def app_us(self) -> float:
        """CPU of the contestant's own processes for each request."""
        return self.cpu_us.get("app", 0)

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        return {**asdict(self), "cpu_total_us": round(self.cpu_total_us, 1)}


def summarize(measurements: Iterable[Measurement], base: str = PEER) -> list[Summary]:
    """A summary for each operation, concurrency and contestant, in the order of measurement; ratios are to `base`."""
    groups: dict[tuple[str, int, str], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.operation, one.concurrency, one.contestant), []).append(one)
    return [
        Summary(
            *where,
            rate=Spread.of([one.rate for one in rounds]),
            p50_ms=Spread.of([one.p50_ms for one in rounds]),
            p99_ms=Spread.of([one.p99_ms for one in rounds]),
            rate_ratio=_ratio(rounds, groups.get((*where[:2], base)), lambda one: one.rate),
            p50_ratio=_ratio(rounds, groups.get((*where[:2], base)), lambda one: one.p50_ms),
            p99_ratio=_ratio(rounds, groups.get((*where[:2], base)), lambda one: one.p99_ms),
            tail=Spread.of([one.p99_ms / one.p50_ms for one in rounds]) if all(one.p50_ms for one in rounds) else None,
            cpu_ratio=_ratio(rounds, groups.get((*where[:2], base)), lambda one: one.cpu_total_us),
            cpu_us={name: round(statistics.median(one.cpu_us[name] for one in rounds), 1) for name in rounds[0].cpu_us},
            generator_us=statistics.median(one.generator_us for one in rounds),
            shed=statistics.median(one.shed for one in rounds),
            failed=sum(one.failed for one in rounds),
        )
        for where, rounds in groups.items()
    ]


def _ratio(
    ours: list[Measurement], bases: list[Measurement] | None, value: Callable[[Measurement], float]
) -> Spread | None:
    if not bases:
        return None
    theirs = {one.round: value(one) for one in bases}
    ratios = [value(one) / theirs[one.round] for one in ours if theirs.get(one.round)]
    return Spread.of(ratios) if ratios else None
