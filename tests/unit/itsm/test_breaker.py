"""Circuit breakers: when one opens, who gets the probe, how it closes, and what the registry keeps and reads."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.itsm.delivery.breaker import (
    FAILURES_TO_OPEN,
    IDLE_SECONDS,
    OPEN_SECONDS,
    PROBE_SECONDS,
    SLOW_SECONDS,
    Admission,
    Breakers,
)

ACCOUNT = uuid4()
URL, OTHER_URL = "https://one.example", "https://two.example"
# The time of a background attempt.
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


def admit(breakers: Breakers, seconds: float = LONG, url: str = URL, account_id: UUID = ACCOUNT) -> Admission:
    admission = breakers.admit(account_id, url, seconds)
    assert admission is not None
    return admission


def fail(breakers: Breakers, number: int, account_id: UUID = ACCOUNT, url: str = URL) -> None:
    for _ in range(number):
        breakers.failed(admit(breakers, url=url, account_id=account_id))


@pytest.fixture
def half_open(breakers: Breakers, clock: Clock) -> Breakers:
    fail(breakers, FAILURES_TO_OPEN)
    assert breakers.is_open(ACCOUNT)
    clock.now += OPEN_SECONDS
    assert not breakers.is_open(ACCOUNT)
    return breakers


# Each step: `+` and `-` are calls that succeed and fail, `x` is one that is not admitted, `~` one that is and whose end
# is never reported, `?` one that ends undecided; a number lets so many seconds pass.
@pytest.mark.parametrize(
    "steps",
    [
        "+ + + + + + +",
        "- - - - + - - - - +",
        "- - - - - x x",
        "- - - - - 29 x 2 + + +",
        "- - - - - 31 - x 29 x 2 - x 31 + - - - - +",
        # A probe whose end is never reported keeps others away for one period.
        "- - - - - 31 ~ x x 31 + +",
        "- - ? - - - x",
        "- - - - - 31 ? ? + - - - - +",
    ],
)
def test_a_breaker_opens_after_five_failures_in_a_row_and_closes_after_a_success(
    breakers: Breakers, clock: Clock, steps: str
) -> None:
    for n, step in enumerate(steps.split()):
        if step.isdigit():
            clock.now += int(step)
            continue
        admission = breakers.admit(ACCOUNT, URL, LONG)
        assert (admission is None) == (step == "x"), (n, step)
        if admission is not None and step != "~":
            {"+": breakers.succeeded, "-": breakers.failed, "?": breakers.undecided}[step](admission)


def test_calls_that_were_admitted_before_it_opened_count_too(breakers: Breakers) -> None:
    admissions = [admit(breakers) for _ in range(8)]
    for admission in admissions:
        breakers.failed(admission)
    assert breakers.is_open(ACCOUNT)
    breakers.succeeded(admissions[-1])
    assert not breakers.is_open(ACCOUNT)
    assert not admit(breakers).is_probe


def test_a_late_failure_does_not_lengthen_the_period(breakers: Breakers, clock: Clock) -> None:
    late = admit(breakers)
    fail(breakers, FAILURES_TO_OPEN)
    clock.now += OPEN_SECONDS - 1
    breakers.failed(late)
    clock.now += 1
    assert admit(breakers).is_probe


# The probe


@pytest.mark.parametrize("seconds", [0.05, SLOW_SECONDS, PROBE_SECONDS - 0.01])
def test_a_call_with_little_time_is_not_the_probe_and_leaves_it_to_the_next(
    half_open: Breakers, seconds: float
) -> None:
    assert half_open.admit(ACCOUNT, URL, seconds) is None
    assert not half_open.is_open(ACCOUNT)
    assert admit(half_open, PROBE_SECONDS).is_probe


def test_a_probe_without_an_answer_is_long_enough_to_count() -> None:
    assert PROBE_SECONDS > SLOW_SECONDS


def test_nobody_else_is_admitted_while_the_probe_is_in_flight(half_open: Breakers) -> None:
    probe = admit(half_open)
    assert half_open.admit(ACCOUNT, URL, LONG) is None
    assert half_open.open_accounts() == [ACCOUNT]
    half_open.succeeded(probe)
    assert half_open.open_accounts() == []
    assert not admit(half_open).is_probe


def test_an_undecided_probe_makes_the_next_call_the_probe_at_once(half_open: Breakers) -> None:
    half_open.undecided(admit(half_open))
    assert not half_open.is_open(ACCOUNT)
    assert half_open.open_accounts() == []
    assert admit(half_open).is_probe
    # One success is still needed: it is half-open, not closed.
    assert half_open.admit(ACCOUNT, URL, LONG) is None


def test_a_failed_probe_opens_it_for_a_whole_period_from_then(half_open: Breakers, clock: Clock) -> None:
    probe = admit(half_open)
    clock.now += 20
    half_open.failed(probe)
    clock.now += OPEN_SECONDS - 1
    assert half_open.open_accounts() == [ACCOUNT]
    assert half_open.admit(ACCOUNT, URL, LONG) is None
    clock.now += 1
    assert half_open.open_accounts() == []
    assert admit(half_open).is_probe


# Accounts and addresses


def test_each_account_has_a_breaker_of_its_own(breakers: Breakers) -> None:
    fail(breakers, FAILURES_TO_OPEN)
    other = uuid4()
    assert not admit(breakers, account_id=other).is_probe
    assert not breakers.is_open(other)
    assert breakers.open_accounts() == [ACCOUNT]


@pytest.mark.parametrize("failures", [FAILURES_TO_OPEN - 1, FAILURES_TO_OPEN])
def test_an_account_that_is_linked_elsewhere_starts_afresh(breakers: Breakers, failures: int) -> None:
    fail(breakers, failures)
    assert not admit(breakers, url=OTHER_URL).is_probe
    assert breakers.open_accounts() == []
    fail(breakers, FAILURES_TO_OPEN - 1, url=OTHER_URL)
    assert not breakers.is_open(ACCOUNT)
    fail(breakers, 1, url=OTHER_URL)
    assert breakers.is_open(ACCOUNT)


def test_late_ends_of_calls_to_the_address_before_do_not_count(half_open: Breakers) -> None:
    probe = admit(half_open)
    late = probe._replace(is_probe=False)
    fail(half_open, FAILURES_TO_OPEN, url=OTHER_URL)
    for end in (half_open.succeeded, half_open.failed, half_open.undecided):
        for admission in (probe, late):
            end(admission)
            assert half_open.is_open(ACCOUNT)
    assert half_open.admit(ACCOUNT, OTHER_URL, LONG) is None


@pytest.mark.parametrize("is_probe", [False, True])
def test_a_late_failure_at_the_address_before_does_not_open_it(half_open: Breakers, is_probe: bool) -> None:
    late = admit(half_open)._replace(is_probe=is_probe)
    fail(half_open, FAILURES_TO_OPEN - 1, url=OTHER_URL)
    half_open.failed(late)
    assert not half_open.is_open(ACCOUNT)
    fail(half_open, 1, url=OTHER_URL)
    assert half_open.is_open(ACCOUNT)


# What is kept, and what is read


def test_an_account_whose_calls_succeed_takes_no_memory(breakers: Breakers) -> None:
    breakers.succeeded(admit(breakers))
    breakers.undecided(admit(breakers))
    assert len(breakers) == 0
    fail(breakers, 1)
    assert len(breakers) == 1
    breakers.succeeded(admit(breakers))
    assert len(breakers) == 0


@pytest.mark.parametrize("failures", [1, FAILURES_TO_OPEN], ids=["closed", "half-open"])
def test_idle_breakers_are_forgotten(breakers: Breakers, clock: Clock, failures: int) -> None:
    for _ in range(1000):
        fail(breakers, failures, account_id=uuid4())
    clock.now += IDLE_SECONDS - 1
    fail(breakers, 1)
    assert len(breakers) == 1001
    clock.now += 1
    # A few at a time, by the background's looks.
    for _ in range(20):
        breakers.open_accounts()
    assert len(breakers) == 1
    clock.now += IDLE_SECONDS - 1
    fail(breakers, 1, account_id=uuid4())
    assert len(breakers) == 1


def test_failing_accounts_alone_keep_it_bounded(breakers: Breakers, clock: Clock) -> None:
    for _ in range(5000):
        clock.now += 1
        fail(breakers, 1, account_id=uuid4())
    assert len(breakers) <= IDLE_SECONDS


def test_a_breaker_in_use_is_not_forgotten(breakers: Breakers, clock: Clock) -> None:
    for _ in range(FAILURES_TO_OPEN):
        clock.now += IDLE_SECONDS - 1
        fail(breakers, 1)
    assert breakers.open_accounts() == [ACCOUNT]
    clock.now += OPEN_SECONDS
    breakers.open_accounts()
    assert admit(breakers).is_probe


class CountedDict(dict[UUID, Any]):
    """Counts the entries that are iterated over."""

    read = 0

    def __iter__(self) -> Iterator[UUID]:
        for key in super().__iter__():
            self.read += 1
            yield key

    def items(self) -> Any:
        raise AssertionError("reads all")

    keys = values = items


def test_no_call_reads_all_breakers(breakers: Breakers) -> None:
    breakers._failures = counted = CountedDict()
    for n in range(1000):
        fail(breakers, 1, account_id=UUID(int=n))
    fail(breakers, FAILURES_TO_OPEN)
    counted.read = 0
    assert breakers.open_accounts() == [ACCOUNT]
    assert breakers.is_open(ACCOUNT)
    assert breakers.admit(ACCOUNT, URL, LONG) is None
    fail(breakers, 1, account_id=UUID(int=7))
    # The oldest one, to see whether it is idle.
    assert counted.read <= 2
