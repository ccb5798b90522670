"""The token bucket: burst, refill, truthful waiting times, and no caller who pays for another."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from service.access.policy import Caller
from service.errors import TicketError
from service.operation import Answer
from service.settings import SettingError, Settings
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
        bucket.take("read", who, Answer())
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
        bucket.take("write", who, Answer())
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


# The file: nobody but the service's user could have made it or can write to it.


def refusal(file: Path) -> str:
    with pytest.raises(SettingError) as refused:
        RateLimits(Settings(rate_limit_file=str(file)))
    return str(refused.value)


def test_the_directory_and_the_file_are_made_for_the_user_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        make(tmp_path / "a" / "b").close()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / "limits").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o720, 0o702], ids=oct)
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    assert "TICKETS_RATE_LIMIT_FILE" in refusal(tmp_path / "shared" / "limits")
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_file_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "limits").touch()
    (tmp_path / "limits").chmod(0o606)
    assert "TICKETS_RATE_LIMIT_FILE" in refusal(tmp_path / "limits")


def test_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "real" / "limits").touch(0o600)
    (tmp_path / "directory").symlink_to(tmp_path / "real")
    (tmp_path / "file").symlink_to(tmp_path / "real" / "limits")
    refusal(tmp_path / "directory" / "limits")
    refusal(tmp_path / "file")
    assert (tmp_path / "real" / "limits").stat().st_size == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, 65534, 65534)
    assert str(theirs) in refusal(theirs / "limits")
    (tmp_path / "limits").touch(0o600)
    os.chown(tmp_path / "limits", 65534, 65534)
    assert str(tmp_path / "limits") in refusal(tmp_path / "limits")


def test_what_another_user_made_first_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.transport.rate_limits.os.geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert str(tmp_path) in refusal(tmp_path / "limits")


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"RUNTIME_DIRECTORY": "{}/run:{}/more", "XDG_RUNTIME_DIR": "{}/user"}, "run"),
        ({"XDG_RUNTIME_DIR": "{}/user", "XDG_CACHE_HOME": "{}/cache"}, "user"),
        ({"XDG_CACHE_HOME": "{}/cache"}, "cache"),
        ({}, "home/.cache"),
    ],
    ids=["systemd", "session", "cache", "home"],
)
def test_without_a_setting_it_lies_in_a_directory_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "TICKETS_RATE_LIMIT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("{}", str(tmp_path)))
    RateLimits(Settings()).close()
    assert (tmp_path / place / "tickets" / "rate-limits").stat().st_size > 0
    assert stat.S_IMODE((tmp_path / place / "tickets").stat().st_mode) == 0o700


def told(bucket: RateLimits, who: Caller) -> tuple[str, str]:
    """What the answer to a read says: what is left, and the policy."""
    answer = Answer()
    with suppress(TicketError):
        bucket.take("read", who, answer)
    return answer.rate_limit["ratelimit"], answer.rate_limit["ratelimit-policy"]


def test_an_answer_says_what_is_left_and_when_all_is_again(tmp_path: Path, clock: Callable[[float], None]) -> None:
    bucket, who, policy = make(tmp_path), caller("a"), '"read";q=4;w=2'
    left = [f'"read";r={left};t={seconds}' for left, seconds in ((3, 1), (2, 1), (1, 2), (0, 2))]
    assert [told(bucket, who) for _ in range(4)] == [(words, policy) for words in left]
    # One that is refused: when it may come back, as in Retry-After.
    assert told(bucket, who) == ('"read";r=0;t=1', policy)
    clock(3600)
    assert told(bucket, who) == (left[0], policy)


def test_what_is_left_counts_what_a_process_has_taken_in_advance(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    first, second, who = make(tmp_path, reads="100/1000"), make(tmp_path, reads="100/1000"), caller("a")
    assert [told(first, who)[0] for _ in range(11)] == [f'"read";r={left};t=1' for left in range(999, 988, -1)]
    assert told(second, who)[0] == '"read";r=979;t=1'
