"""When a delivery that failed is tried again, when it is not any more, and how long a provider is asked."""

import math
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from service.access.policy import Caller
from service.directory import METADATA
from service.itsm.delivery import queue as code
from service.itsm.delivery.provider_calls import Failure
from service.itsm.delivery.queue import Deliveries
from service.operation import Call
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault

FIRST = 2.0
HOUR = 3600.0
UNKNOWN = Failure("no answer in time", in_doubt=True)
NOT_DONE = Failure("it answered 429", in_doubt=False)


@pytest.fixture(scope="module")
async def deliveries() -> AsyncIterator[Deliveries]:
    settings = Settings(delivery_pause_seconds=FIRST)
    deliveries = Deliveries(settings, Database(settings, METADATA), Vault(settings))
    yield deliveries
    await deliveries.close()


# What is drawn of a range: one of its ends.
Draw = Callable[[float, float], float]


@pytest.fixture(params=[min, max], ids=["shortest", "longest"])
def draw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Draw:
    drawn: Draw = request.param
    monkeypatch.setattr(code, "random", SimpleNamespace(uniform=drawn))
    return drawn


def row(deliveries: Deliveries, failure: Failure, attempts: int = 1) -> dict[str, Any]:
    return deliveries._failure_row({"attempts": attempts}, failure)


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
        # Of more processes than attempts that died at it.
        (5000, HOUR),
    ],
)
def test_pauses_double_up_to_an_hour(deliveries: Deliveries, draw: Draw, attempts: int, pause: float) -> None:
    # A search needs its time to know a ticket that may be there: none of it is given away.
    assert row(deliveries, UNKNOWN, attempts)["pause"] == pause
    # What is certainly not there is tried at any time between half and whole, so that not all are at the same.
    assert row(deliveries, NOT_DONE, attempts)["pause"] == pause * draw(0.5, 1)


@pytest.mark.parametrize("in_doubt", [True, False])
@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [(None, FIRST), (0.0, FIRST), (0.5, FIRST), (90.0, 90.0), (HOUR, HOUR), (HOUR + 1, HOUR), (math.inf, HOUR)],
)
def test_a_provider_says_when_within_an_hour(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch, retry_after: float | None, pause: float, in_doubt: bool
) -> None:
    monkeypatch.setattr(code, "random", SimpleNamespace(uniform=max))
    assert row(deliveries, Failure("it answered 429", in_doubt, retry_after))["pause"] == pause


def test_what_a_provider_says_is_not_shortened(deliveries: Deliveries, draw: Draw) -> None:
    assert row(deliveries, Failure("it answered 429", False, 90.0))["pause"] == 90.0
    # Nor is a pause that is longer already.
    assert row(deliveries, Failure("it answered 429", True, 90.0), attempts=8)["pause"] == 128 * FIRST


@pytest.mark.parametrize("in_doubt", [True, False])
@pytest.mark.parametrize(
    ("attempts", "for_good", "state"),
    [(1, False, "queued"), (79, False, "queued"), (80, False, "dead"), (81, False, "dead"), (1, True, "dead")],
)
def test_what_fails_too_often_or_for_good_is_dead(
    deliveries: Deliveries, attempts: int, for_good: bool, state: str, in_doubt: bool
) -> None:
    written = row(deliveries, Failure("No", in_doubt, for_good=for_good), attempts)
    assert (written["state"], written["in_doubt"]) == (state, in_doubt)


def test_the_last_attempt_comes_two_to_three_days_after_the_first() -> None:
    settings = Settings()
    pauses = [min(settings.delivery_pause_seconds * 2.0**n, code._LONGEST_PAUSE) for n in range(code._MOST_ATTEMPTS)]
    days = sum(pauses[:-1]) / 86400
    assert 2 < 0.75 * days < days < 3.5


@pytest.mark.parametrize(("why", "written"), [("No", "No"), ("\0N\0o\0", "No"), ("Größe 📦", "Größe 📦"), ("\0", "")])
def test_an_error_is_written_without_what_a_database_takes_for_its_end(
    deliveries: Deliveries, why: str, written: str
) -> None:
    assert row(deliveries, Failure(why, in_doubt=False))["last_error"] == written


# How long a provider is asked while somebody waits


@pytest.mark.parametrize(
    ("patience", "seconds"),
    [
        (math.inf, 5.0),
        (60.0, 5.0),
        (5.5, 5.0),
        # Half a second is kept back of the caller's own time.
        (5.25, 4.75),
        (1.5, 1.0),
        # There is no time to ask it at all.
        (0.5, 0.0),
        (0.25, -0.25),
        (-1.0, -1.5),
    ],
)
async def test_a_provider_is_asked_for_five_seconds_or_as_long_as_its_caller_waits(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch, patience: float, seconds: float
) -> None:
    now = 1000.0
    monkeypatch.setattr(code, "_now", lambda: now)
    caller = Caller("key", frozenset(), UUID(int=1), True, True)
    call = Call(("tickets.itsm.v1", "CreateTicket"), "r-1", None, caller, until=now + patience)
    with deliveries._waiting_for(call) as until:
        assert until == now + seconds


async def test_a_lease_is_longer_than_anybody_asks() -> None:
    for seconds in (code._WAIT_SECONDS, code._PATIENT_SECONDS):
        assert code._lease(seconds)["lease_seconds"] == seconds + 5
