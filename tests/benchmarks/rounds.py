"""What is compared takes turns: what disturbs the machine disturbs all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from . import cpu
from .loads import Load, LoadError
from .results import Measurement

_WARM_UP_SECONDS = 1


@dataclass(frozen=True)
class Taker:
    """One of those that take turns."""

    name: str
    # Loads it for so many seconds.
    load: Callable[[int], Load]
    # Whose CPU it uses.
    groups: cpu.Groups
    # What comes before a turn of so many seconds, and is no part of it.
    prepare: Callable[[int], None] = lambda _: None


def _load(taker: Taker, seconds: int) -> Load:
    try:
        return taker.load(seconds)
    except LoadError as error:
        raise LoadError(f"{taker.name}: {error}") from None


def take_turns(
    operation: str,
    concurrency: int,
    takers: Sequence[Taker],
    *,
    rounds: int,
    seconds: int,
    settle: Callable[[], None] | None = None,
) -> Iterator[Measurement]:
    """A warm-up, then each in turn, round after round. `settle` waits for work that requests leave behind."""
    for taker in takers:
        taker.prepare(_WARM_UP_SECONDS)
        _load(taker, _WARM_UP_SECONDS)
    if settle:
        settle()
    for number in range(rounds):
        # There and back: nobody always comes first, or always after the same one.
        for taker in takers if number % 2 == 0 else reversed(takers):
            taker.prepare(seconds)
            before = cpu.seconds(taker.groups)
            load = _load(taker, seconds)
            if settle:
                settle()
            used = cpu.per_request(before, cpu.seconds(taker.groups), load.requests)
            yield Measurement(
                operation,
                concurrency,
                taker.name,
                number,
                load.requests,
                round(load.rate, 1),
                load.p50_ms,
                load.p99_ms,
                used,
                load.generator_us,
                load.shed,
                load.failed,
                load.first_failure,
            )
