"""When an account's provider is left alone, and when it is tried again."""

from types import SimpleNamespace

import pytest

from service.itsm import breaker as code
from service.itsm.breaker import Breaker


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(code, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


# Each step: `+` and `-` are calls that end well and badly, `x` is one that is not allowed, `~` one that is and never
# says how it ended; a number lets so many seconds pass.
@pytest.mark.parametrize(
    "steps",
    [
        "+ + + + + + +",
        "- - - - + - - - - +",
        "- - - - - x x",
        "- - - - - 29 x 2 + + +",
        "- - - - - 31 - x 29 x 2 - x 31 + - - - - +",
        # One tries for all; who never says how it ended does not keep the others away for ever.
        "- - - - - 31 ~ x x 31 + +",
    ],
)
def test_a_breaker(clock: Clock, steps: str) -> None:
    breaker = Breaker()
    for n, step in enumerate(steps.split()):
        if step.isdigit():
            clock.now += int(step)
            continue
        assert breaker.allows() == (step != "x"), (n, step)
        if step in "+-":
            breaker.ended(well=step == "+")


def test_calls_that_were_allowed_before_count_too(clock: Clock) -> None:
    breaker = Breaker()
    assert all(breaker.allows() for _ in range(8))
    for _ in range(8):
        breaker.ended(well=False)
    assert not breaker.allows()
    # The last of them went well after all.
    breaker.ended(well=True)
    assert breaker.allows()
