"""When a failed delivery is retried, when it no longer is, and how long an attempt may take."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from service.access.policy import Caller
from service.directory import METADATA
from service.itsm.delivery import attempt, queue
from service.itsm.delivery.attempt import MAX_ATTEMPTS, MAX_PAUSE_SECONDS, failure_row
from service.itsm.delivery.deadline import Deadline
from service.itsm.delivery.provider_calls import Failure
from service.itsm.delivery.queue import Deliveries
from service.operation import Call
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault

FIRST = 2.0
HOUR = 3600.0
IN_DOUBT = Failure("no answer in time", in_doubt=True)
NOT_DONE = Failure("the provider answered 429", in_doubt=False)

# What is drawn of a range: one of its ends.
Draw = Callable[[float, float], float]


@pytest.fixture(params=[min, max], ids=["shortest", "longest"])
def draw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Draw:
    drawn: Draw = request.param
    monkeypatch.setattr(attempt, "random", SimpleNamespace(uniform=drawn))
    return drawn


def row(failure: Failure, attempts: int = 1) -> dict[str, Any]:
    return failure_row(failure, attempts, FIRST)


@pytest.mark.parametrize(
    ("attempts", "pause"),
    [
        (1, FIRST),
        (2, 2 * FIRST),
        (3, 4 * FIRST),
        (11, 1024 * FIRST),
        # 4096 seconds would be more.
        (12, HOUR),
        (79, HOUR),
        # More processes than attempts may have died during one.
        (5000, HOUR),
    ],
)
def test_pauses_double_up_to_an_hour(draw: Draw, attempts: int, pause: float) -> None:
    # A search takes its time to know a ticket that may exist: that pause is never shortened.
    assert row(IN_DOUBT, attempts)["pause"] == pause
    # Others end at any time between half and the whole, so that not all retries come at once.
    assert row(NOT_DONE, attempts)["pause"] == pause * draw(0.5, 1)


@pytest.mark.parametrize("in_doubt", [True, False])
@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [(None, FIRST), (0.0, FIRST), (0.5, FIRST), (90.0, 90.0), (HOUR, HOUR), (HOUR + 1, HOUR), (math.inf, HOUR)],
)
def test_a_provider_asks_for_a_pause_of_up_to_an_hour(
    monkeypatch: pytest.MonkeyPatch, retry_after: float | None, pause: float, in_doubt: bool
) -> None:
    monkeypatch.setattr(attempt, "random", SimpleNamespace(uniform=max))
    assert row(Failure("the provider answered 429", in_doubt, retry_after))["pause"] == pause


def test_the_pause_that_a_provider_asks_for_is_not_shortened(draw: Draw) -> None:
    assert row(Failure("the provider answered 429", False, 90.0))["pause"] == 90.0
    # Nor does it shorten a longer one.
    assert row(Failure("the provider answered 429", True, 90.0), attempts=8)["pause"] == 128 * FIRST


@pytest.mark.parametrize("in_doubt", [True, False])
@pytest.mark.parametrize(
    ("attempts", "permanent", "state"),
    [(1, False, "queued"), (79, False, "queued"), (80, False, "dead"), (81, False, "dead"), (1, True, "dead")],
)
def test_a_delivery_is_dead_after_too_many_failures_or_a_permanent_one(
    attempts: int, permanent: bool, state: str, in_doubt: bool
) -> None:
    written = row(Failure("No", in_doubt, permanent=permanent), attempts)
    assert (written["state"], written["in_doubt"]) == (state, in_doubt)


def test_the_last_attempt_comes_two_to_three_days_after_the_first() -> None:
    settings = Settings()
    pauses = [min(settings.delivery_pause_seconds * 2.0**n, MAX_PAUSE_SECONDS) for n in range(MAX_ATTEMPTS)]
    days = sum(pauses[:-1]) / 86400
    assert 2 < 0.75 * days < days < 3.5


@pytest.mark.parametrize(
    ("message", "written"), [("No", "No"), ("\0N\0o\0", "No"), ("Größe 📦", "Größe 📦"), ("\0", "")]
)
def test_an_error_is_recorded_without_nul_characters(message: str, written: str) -> None:
    assert row(Failure(message, in_doubt=False))["last_error"] == written


# How long an attempt may take while a caller waits


@pytest.fixture(scope="module")
async def deliveries() -> AsyncIterator[Deliveries]:
    settings = Settings(delivery_pause_seconds=FIRST)
    deliveries = Deliveries(settings, Database(settings, METADATA), Vault(settings))
    yield deliveries
    await deliveries.close()


@pytest.mark.parametrize(
    ("caller_seconds", "seconds"),
    [
        (math.inf, 5.0),
        (60.0, 5.0),
        (5.5, 5.0),
        # Half a second of the caller's own time is reserved.
        (5.25, 4.75),
        (1.5, 1.0),
        # There is no time for an attempt at all.
        (0.5, 0.0),
        (0.25, -0.25),
        (-1.0, -1.5),
    ],
)
async def test_an_attempt_takes_five_seconds_or_as_long_as_its_caller_waits(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch, caller_seconds: float, seconds: float
) -> None:
    now = 1000.0
    monkeypatch.setattr(queue, "_now", lambda: now)
    caller = Caller("key", frozenset(), UUID(int=1), True, True)
    call = Call(("tickets.itsm.v1", "CreateTicket"), "r-1", None, caller, until=now + caller_seconds)
    with deliveries._deadline_for(call) as deadline:
        assert deadline == now + seconds


def test_a_lease_outlasts_every_call_of_a_provider_by_five_seconds() -> None:
    assert queue._lease(queue._CALLER_SECONDS)["lease_seconds"] == queue._CALLER_SECONDS + 5
    assert queue._lease_end(1000.0) + 5 == 1000.0 + queue._BACKGROUND_LEASE_SECONDS
    # What a process had leased when it died is found by another, which looks once a second, within ten seconds.
    assert queue._BACKGROUND_LEASE_SECONDS + 1 < 10


async def test_a_call_goes_on_as_long_as_its_lease_is_renewed() -> None:
    now = asyncio.get_running_loop().time()
    deadline = Deadline(now + 20, now + 3)
    assert deadline.at == now + 3
    async with deadline.limit():
        deadline.extend(now + 5)
        assert deadline.at == now + 5
        # It has an end all the same.
        deadline.extend(now + 30)
        assert deadline.at == now + 20
    is_over = False
    try:
        async with deadline.limit():
            deadline.extend(now)
            await asyncio.Event().wait()
    except TimeoutError:
        is_over = True
    assert is_over
    # Too late.
    deadline.extend(now + 1)
