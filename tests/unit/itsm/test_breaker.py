"""When an account's provider is left alone, when it is tried again, and which of its failures count."""

import asyncio
import math
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from service.itsm.delivery import breaker as code
from service.itsm.delivery import provider_calls as asking
from service.itsm.delivery.breaker import Breaker
from service.itsm.delivery.provider_calls import Failure, call_provider
from service.providers.port import LinkBrokenError, RejectedError, UnavailableError


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


# What a provider does, what is made of it where nothing was done before, and whether the breaker counts it.
@pytest.mark.parametrize(
    ("error", "failure", "counts"),
    [
        (None, None, False),
        (RejectedError("No"), Failure("No", False, for_good=True), False),
        # It is there and says who is wrong.
        (LinkBrokenError("it answered 401"), Failure("it answered 401", False), False),
        (UnavailableError("it answered 503", done=None), Failure("it answered 503", True), True),
        (UnavailableError("it answered 429", done=False, retry_after=7), Failure("it answered 429", False, 7), True),
        # Who had little time to wait says nothing of the provider.
        (TimeoutError(), Failure("no answer in time", True), False),
        # What no adapter should raise, and what httpx raises of addresses that it cannot encode.
        (ZeroDivisionError(), Failure("internal", True), True),
        (UnicodeError("label empty or too long"), Failure("internal", True), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
@pytest.mark.parametrize("in_doubt", [False, True])
async def test_which_failures_count(
    error: Exception | None, failure: Failure | None, counts: bool, in_doubt: bool
) -> None:
    async def asked() -> str:
        if error is not None:
            raise error
        return "answer"

    breaker = Breaker()
    for _ in range(5):
        with capture_logs() as logs:
            answer = await call_provider(asked(), breaker, math.inf, in_doubt=in_doubt)
        if failure is None:
            assert answer == "answer"
        else:
            # What may have been done before may still be.
            is_open = failure.in_doubt or in_doubt
            assert answer == Failure(failure.why, is_open, failure.retry_after, failure.for_good)
        # What is a mistake of ours is for whoever reads the log.
        assert [line["outcome"] for line in logs] == ["internal"] * (failure is not None and failure.why == "internal")
    assert breaker.allows() != counts


async def test_who_does_not_answer_for_long_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_SLOW_SECONDS", 0.0)
    breaker = Breaker()
    now = asyncio.get_running_loop().time()
    for _ in range(5):
        answer = await call_provider(asyncio.Event().wait(), breaker, now, in_doubt=False)
        assert answer == Failure("no answer in time", in_doubt=True)
    assert not breaker.allows()
