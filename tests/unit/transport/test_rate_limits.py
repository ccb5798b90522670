"""The token bucket: burst, refill, truthful waiting times, and no caller who pays for another."""

from collections.abc import Callable
from pathlib import Path

import pytest

from service.access.policy import Caller
from service.errors import TicketError
from service.settings import Settings
from service.transport import rate_limits as limits
from service.transport.rate_limits import RateLimits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr("service.transport.rate_limits.time.monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def make(path: Path, reads: str = "2/4", writes: str = "1/1") -> RateLimits:
    return RateLimits(Settings(rate_limit_reads=reads, rate_limit_writes=writes, rate_limit_file=str(path / "limits")))


def caller(subject: str, **claims: str) -> Caller:
    return Caller(subject, frozenset(), tenant_id=claims.get("tenant_id"), app_id=claims.get("app_id"))


def refused(bucket: RateLimits, who: Caller) -> int | None:
    """How long the caller is asked to wait; None when the token was had."""
    try:
        bucket.take("read", who)
    except TicketError as error:
        return error.retry_after
    return None


def test_a_burst_passes_and_then_the_rate_holds(tmp_path: Path, clock: Callable[[float], None]) -> None:
    bucket, who = make(tmp_path), caller("a")
    assert [refused(bucket, who) for _ in range(5)] == [None] * 4 + [1]
    clock(0.5)
    assert [refused(bucket, who) for _ in range(2)] == [None, 1]
    clock(3600)
    assert [refused(bucket, who) for _ in range(5)] == [None] * 4 + [1]


def test_a_caller_that_waits_as_long_as_asked_gets_through(tmp_path: Path, clock: Callable[[float], None]) -> None:
    bucket, who = make(tmp_path, reads="1/1"), caller("a")
    assert refused(bucket, who) is None
    for _ in range(5):
        wait = refused(bucket, who)
        assert wait is not None
        clock(wait)
        assert refused(bucket, who) is None


def test_reads_and_writes_and_callers_have_buckets_of_their_own(tmp_path: Path, clock: Callable[[float], None]) -> None:
    bucket = make(tmp_path, reads="1/1")
    callers = [
        caller("a"),
        caller("b"),
        caller("a", tenant_id="t"),
        caller("a", tenant_id="t", app_id="x"),
        caller("a", tenant_id="t", app_id="y"),
    ]
    for who in callers:
        bucket.take("write", who)
        assert refused(bucket, who) is None
        assert refused(bucket, who) == 1


def test_buckets_are_shared_by_all_who_open_the_file(tmp_path: Path, clock: Callable[[float], None]) -> None:
    first, second, who = make(tmp_path), make(tmp_path), caller("a")
    assert [refused(bucket, who) for bucket in (first, second, first, second, first)] == [None] * 4 + [1]


def test_a_large_burst_is_taken_by_the_handful_and_none_is_had_twice(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    first, second, who = make(tmp_path, reads="1/1000"), make(tmp_path, reads="1/1000"), caller("a")
    assert refused(second, who) is None
    passed = sum(refused(first, who) is None for _ in range(1100))
    # What the other process holds of it, a hundredth of the burst, is not lost for the caller.
    assert passed == 990
    assert [refused(second, who) for _ in range(10)] == [None] * 9 + [1]


def test_idle_buckets_give_way_to_busy_ones(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_GROUPS", 1)
    bucket = make(tmp_path, reads="1/1")
    busy = caller("busy")
    assert refused(bucket, busy) is None
    for n in range(100):
        clock(0.001)
        assert refused(bucket, caller(f"stranger {n}")) is None
        clock(0.001)
        assert refused(bucket, busy) == 1


def test_a_clock_that_began_anew_does_no_harm(tmp_path: Path, clock: Callable[[float], None]) -> None:
    bucket, who = make(tmp_path, reads="1/1"), caller("a")
    assert refused(bucket, who) is None
    clock(-500)
    assert refused(bucket, who) is None
    assert refused(bucket, who) == 1
