"""The outcome of a call to a provider, and what it means to the breaker."""

import asyncio
import math
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from service.itsm.delivery import provider_calls as code
from service.itsm.delivery.breaker import FAILURES_TO_OPEN, OPEN_SECONDS, Breakers
from service.itsm.delivery.deadline import Deadline
from service.itsm.delivery.provider_calls import Failure, call_provider
from service.providers.port import LinkBrokenError, RejectedError, UnavailableError

ACCOUNT = uuid4()
URL = "https://desk.example"
LONG = 20.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    return Breakers(clock)


def now() -> float:
    return asyncio.get_running_loop().time()


def never() -> "asyncio.Future[str]":
    """A provider that does not answer."""
    return asyncio.get_running_loop().create_future()


async def call(
    breakers: Breakers, request: "asyncio.Future[str]", deadline: float, *, in_doubt: bool = False
) -> str | Failure:
    admission = breakers.admit(ACCOUNT, URL, LONG)
    assert admission is not None
    return await call_provider(request, breakers, admission, Deadline(deadline), in_doubt=in_doubt)


# How a call ends, the failure where nothing was in doubt before, and whether the breaker counts it.
@pytest.mark.parametrize(
    ("error", "failure", "counts"),
    [
        (None, None, False),
        (RejectedError("No"), Failure("No", False, permanent=True), False),
        # The provider is there, and says that the link is wrong.
        (LinkBrokenError("the provider answered 401"), Failure("the provider answered 401", False), False),
        (
            UnavailableError("the provider answered 503", in_doubt=True),
            Failure("the provider answered 503", True),
            True,
        ),
        (
            UnavailableError("the provider answered 429", in_doubt=False, retry_after=7),
            Failure("the provider answered 429", False, 7),
            True,
        ),
        # A caller with little time: it does not show whether the provider works.
        (TimeoutError(), Failure("no answer in time", True), False),
        # What no adapter should raise, and what the HTTP client raises for addresses that it cannot encode.
        (ZeroDivisionError(), Failure("internal", True), True),
        (UnicodeError("label empty or too long"), Failure("internal", True), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
@pytest.mark.parametrize("in_doubt", [False, True])
async def test_how_a_call_ends(
    breakers: Breakers, error: Exception | None, failure: Failure | None, counts: bool, in_doubt: bool
) -> None:
    for _ in range(FAILURES_TO_OPEN):
        request = never()
        if error is None:
            request.set_result("answer")
        else:
            request.set_exception(error)
        with capture_logs() as logs:
            answer = await call(breakers, request, math.inf, in_doubt=in_doubt)
        if failure is None:
            assert answer == "answer"
        else:
            # An earlier attempt that may have been carried out stays in doubt.
            still = failure.in_doubt or in_doubt
            assert answer == Failure(failure.message, still, failure.retry_after, failure.permanent)
        # A mistake of ours is logged.
        assert [line["outcome"] for line in logs] == ["internal"] * (
            failure is not None and failure.message == "internal"
        )
    assert breakers.is_open(ACCOUNT) == counts


async def test_a_provider_that_does_not_answer_for_long_counts_as_failing(
    breakers: Breakers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "SLOW_SECONDS", 0.0)
    for _ in range(FAILURES_TO_OPEN):
        assert await call(breakers, never(), now()) == Failure("no answer in time", in_doubt=True)
    assert breakers.is_open(ACCOUNT)


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_probe_that_ends_early_leaves_the_probe_to_the_next_call(
    breakers: Breakers, clock: Clock, monkeypatch: pytest.MonkeyPatch, is_slow: bool, is_cancelled: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(code, "SLOW_SECONDS", 0.0)
        for _ in range(FAILURES_TO_OPEN):
            await call(breakers, never(), now())
    clock.now += OPEN_SECONDS
    if is_slow:
        monkeypatch.setattr(code, "SLOW_SECONDS", 0.0)
    if is_cancelled:
        task = asyncio.ensure_future(call(breakers, never(), math.inf))
        await asyncio.sleep(0)
        assert breakers.is_open(ACCOUNT)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    else:
        await call(breakers, never(), now())
    assert breakers.is_open(ACCOUNT) == is_slow
    assert (breakers.admit(ACCOUNT, URL, LONG) is None) == is_slow
