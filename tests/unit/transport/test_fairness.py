"""Fairness among callers: who runs at once, who waits, and in which turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from service.access.policy import Caller
from service.errors import TicketError
from service.operation import Answer
from service.settings import Settings
from service.transport import fairness as module
from service.transport.fairness import CallPlace, Fairness
from service.transport.interceptor import CallInterceptor
from service.transport.rate_limits import RateLimits

PLACES = 3
# So short that no call becomes slow by the time that passes between others.
GAP = 0.00001
SETTINGS = Settings(max_concurrent_calls=64)


class Clock:
    """The time that fairness sees."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_MAX_PLACES", PLACES)
    monkeypatch.setattr(module, "_CROWD_GAP_SECONDS", GAP)
    monkeypatch.setattr(module, "_CROWD_SECONDS", 30 * GAP)
    return clock


@pytest.fixture
def fairness(clock: Clock) -> Fairness:
    return Fairness(SETTINGS)


def account() -> Caller:
    return Caller(str(uuid4()), frozenset(), account_id=uuid4())


def another_key(caller: Caller) -> Caller:
    return Caller(str(uuid4()), frozenset(), account_id=caller.account_id)


class Calls:
    """Calls that run until they are ended."""

    def __init__(self, fairness: Fairness, clock: Clock) -> None:
        self._fairness, self._clock = fairness, clock
        self.running: list[str] = []
        self._places: dict[str, CallPlace] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._messages: dict[str, asyncio.Future[bytes]] = {}
        self._unsent = set[str]()

    async def begin(self, caller: Caller, *names: str, kind: module.Kind = "read") -> None:
        """Some time passes before each."""
        for name in names:
            self._clock.now += 2 * GAP
            await self.crowd(caller, name, kind=kind)

    async def crowd(self, caller: Caller, *names: str, kind: module.Kind = "read") -> None:
        """At the same moment."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._run(name, CallPlace(self._fairness, kind, caller)))
            await _turn()

    async def silent(self, caller: Caller, *names: str) -> None:
        """Without their messages."""
        self._unsent |= set(names)
        await self.begin(caller, *names)

    async def send(self, name: str) -> None:
        """The message of a call that came without."""
        self._messages[name].set_result(b"")
        await _turn()

    async def until(self, name: str) -> None:
        """Wait until a call runs."""
        async with asyncio.timeout(10):
            while name not in self.running:  # noqa: ASYNC110 - a call that begins sets no event
                await asyncio.sleep(0)

    async def _run(self, name: str, place: CallPlace) -> None:
        message = self._messages[name] = asyncio.get_running_loop().create_future()
        if name not in self._unsent:
            message.set_result(b"")
        await place.take()
        await place.read(message)
        self._places[name] = place
        self.running.append(name)

    async def end(self, *names: str) -> None:
        for name in names:
            self.running.remove(name)
            self._places.pop(name).end()
            await _turn()


async def _turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.fixture
async def calls(fairness: Fairness, clock: Clock) -> AsyncIterator[Calls]:
    calls = Calls(fairness, clock)
    yield calls
    for task in calls.tasks.values():
        task.cancel()


async def test_some_calls_of_an_owner_run_at_once_and_the_others_begin_as_those_end(calls: Calls) -> None:
    await calls.begin(account(), "a", "b", "c", "d", "e")
    assert calls.running == ["a", "b", "c"]
    await calls.end("b")
    assert calls.running == ["a", "c", "d"]


async def test_who_waits_holds_up_nobody_else(calls: Calls) -> None:
    await calls.begin(account(), "a", "b", "c", "d", "e")
    await calls.begin(account(), "other")
    assert calls.running[-1] == "other"


async def test_reads_do_not_wait_behind_writes(calls: Calls) -> None:
    owner = account()
    await calls.begin(owner, *"abcdef", kind="write")
    await calls.begin(owner, "read")
    assert calls.running == ["a", "b", "c", "read"]


async def test_the_callers_of_an_owner_take_turns(calls: Calls) -> None:
    one = account()
    other = another_key(one)
    await calls.begin(one, "1", "2", "3", "4", "5", "6")
    await calls.begin(other, "x", "y")
    await calls.end("1", "2", "3", "4")
    assert calls.running == ["x", "5", "y"]


async def test_slow_calls_leave_one_place_while_others_call(calls: Calls, clock: Clock) -> None:
    slow, quick = account(), account()
    await calls.begin(slow, "a")
    clock.now += 0.5
    await calls.end("a")
    await calls.begin(quick, "0")
    await calls.end("0")
    await calls.begin(slow, "b", "c")
    assert calls.running == ["b"]
    # Those of quick ones are as many as ever.
    await calls.begin(quick, "1", "2", "3")
    assert calls.running == ["b", "1", "2", "3"]


@pytest.mark.parametrize(("seconds", "at_once"), [(0.001, 3), (0.002, 2), (0.004, 1)])
async def test_the_longer_calls_take_the_fewer_run_at_once_while_others_call(
    calls: Calls, clock: Clock, seconds: float, at_once: int
) -> None:
    one = account()
    await calls.begin(account(), "other")
    await calls.begin(one, "a")
    clock.now += seconds
    await calls.end("a")
    await calls.begin(one, "b", "c", "d", "e")
    assert calls.running == ["other", "b", "c", "d"][: at_once + 1]


async def test_a_slow_call_is_forgotten(calls: Calls, clock: Clock) -> None:
    slow = account()
    await calls.begin(slow, "a")
    clock.now += 0.5
    await calls.end("a")
    clock.now += 60
    await calls.begin(account(), "other")
    await calls.begin(slow, "b", "c", "d")
    assert calls.running == ["other", "b", "c", "d"]


async def test_who_calls_alone_has_all_places_however_slow(calls: Calls, clock: Clock) -> None:
    slow = account()
    await calls.begin(slow, "a")
    clock.now += 5
    await calls.end("a")
    await calls.begin(slow, "b", "c", "d")
    assert calls.running == ["b", "c", "d"]


async def test_a_place_given_back_early_is_the_next_ones(calls: Calls) -> None:
    await calls.begin(account(), "a", "b", "c", "d")
    calls._places["a"].give_back()
    await _turn()
    assert calls.running == ["a", "b", "c", "d"]
    await calls.end("a", "b", "c", "d")
    assert calls.running == []


async def test_a_call_that_is_cancelled_as_it_waits_leaves_the_queue(calls: Calls) -> None:
    await calls.begin(account(), *"abcde")
    calls.tasks["d"].cancel()
    await _turn()
    await calls.end("a")
    assert calls.running == ["b", "c", "e"]


async def test_a_call_that_is_cancelled_as_its_place_comes_passes_it_on(calls: Calls) -> None:
    await calls.begin(account(), *"abcde")
    calls.running.remove("a")
    calls._places.pop("a").end()  # the place is d's, which has not run since
    calls.tasks["d"].cancel()
    await _turn()
    assert calls.running == ["b", "c", "e"]


async def test_of_a_crowd_none_begins_before_all_have_come(calls: Calls, clock: Clock) -> None:
    one = account()
    await calls.begin(account(), "other")
    await calls.crowd(one, *"abcdefg")
    await calls.end("a", "b")
    await calls.crowd(one, "h")
    # The next ones, "d" and "e", are held back; somebody else's call behind them is not.
    await calls.crowd(account(), "behind")
    assert calls.running == ["other", "c", "behind"]
    clock.now += 2 * GAP
    await calls.until("e")
    assert calls.running == ["other", "c", "behind", "d", "e"]


async def test_a_few_that_come_together_are_not_held_back(calls: Calls) -> None:
    await calls.begin(account(), "other")
    await calls.crowd(account(), *"abcdef")
    await calls.end("a", "b")
    assert calls.running == ["other", "c", "d", "e"]


async def test_calls_that_come_as_fast_as_others_end_are_not_held_back(calls: Calls) -> None:
    one = account()
    await calls.begin(account(), "other")
    await calls.crowd(one, *"abcd")
    for ends, comes in zip("abcdefghi", "efghijklm", strict=True):
        await calls.end(ends)
        await calls.crowd(one, comes)
    assert calls.running == ["other", "j", "k", "l"]


async def test_a_crowd_without_an_end_is_held_back_for_a_moment_only(calls: Calls, clock: Clock) -> None:
    one = account()
    await calls.begin(account(), "other")
    for number in range(80):
        clock.now += GAP / 2
        await calls.crowd(one, str(number))
    await calls.end("0")
    assert calls.running == ["other", "1", "2", "3"]


async def test_the_crowd_of_one_who_calls_alone_is_not_held_back(calls: Calls, clock: Clock) -> None:
    one = account()
    await calls.begin(one, "0")
    await calls.end("0")
    clock.now += 5
    await calls.crowd(one, *"abcdefghi")
    await calls.end("a", "b")
    assert calls.running == ["c", "d", "e"]


async def test_a_call_whose_message_does_not_come_leaves_its_place_to_the_next(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MESSAGE_SECONDS", 0)
    one = account()
    await calls.silent(one, "a", "b", "c")
    await calls.begin(one, "d", "e", "f")
    await calls.until("f")
    # Its message comes, and it has its turn after those that have run meanwhile.
    await calls.send("b")
    assert calls.running == ["d", "e", "f"]
    await calls.end("e")
    assert calls.running == ["d", "f", "b"]


async def test_a_slow_sender_does_not_make_its_owner_slow(
    calls: Calls, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MESSAGE_SECONDS", 0)
    one = account()
    await calls.silent(one, "a", "b", "c")
    clock.now += 0.5
    await calls.begin(account(), "other")
    await calls.begin(one, "d", "e", "f")
    await calls.until("f")
    await calls.end("d", "e", "f")
    await calls.begin(one, "g", "h", "i")
    assert calls.running == ["other", "g", "h", "i"]


@asynccontextmanager
async def _open(fairness: Fairness, count: Callable[[CallPlace], None], *callers: Caller) -> AsyncIterator[None]:
    places = [CallPlace(fairness, "read", caller) for caller in callers]
    for place in places:
        count(place)
    yield
    for place in places:
        place.end()


@pytest.mark.parametrize(
    ("count", "of_owner", "of_caller", "retry_after"),
    [(CallPlace.count_call, 16, 12, 1), (CallPlace.count_stream, 4, 4, 5)],
    ids=["calls", "complete lists"],
)
async def test_an_owner_and_a_caller_have_so_many_at_once(
    fairness: Fairness, count: Callable[[CallPlace], None], of_owner: int, of_caller: int, retry_after: int
) -> None:
    one = account()
    for callers in ([one] * of_caller, [one, another_key(one)] * (of_owner // 2)):
        async with _open(fairness, count, *callers):
            with pytest.raises(TicketError, match="too many") as failure:
                count(CallPlace(fairness, "read", one))
            assert (failure.value.reason, failure.value.retry_after) == ("rate_limited", retry_after)
            async with _open(fairness, count, account()):
                pass
    async with _open(fairness, count, one):
        pass


async def test_who_has_few_calls_among_many_is_told_from_who_has_many(fairness: Fairness) -> None:
    one, other, third = account(), account(), account()

    def are_many(caller: Caller) -> bool:
        return CallPlace(fairness, "read", caller).has_average_share()

    async with _open(fairness, CallPlace.count_call, one, other):
        assert (are_many(one), are_many(other), are_many(third)) == (True, True, False)
        async with _open(fairness, CallPlace.count_call, one, one):
            assert (are_many(one), are_many(other)) == (True, False)


async def test_who_has_used_up_the_rate_hears_of_it_in_turn(calls: Calls, fairness: Fairness, tmp_path: Path) -> None:
    """A refusal costs as much as a short call: many of them must not go before the calls of others."""
    settings = Settings(rate_limit_reads="1/1", rate_limit_file=str(tmp_path / "limits"))
    limits, who = RateLimits(settings), account()
    line: Any = SimpleNamespace(answer=Answer())
    idle: Any = SimpleNamespace(look=None, write=None, reject_if_queued=lambda _: None)
    authenticator: Any = SimpleNamespace(suspensions=idle, key_uses=idle)
    interceptor = CallInterceptor(settings, authenticator, limits, idle, fairness, idle, {}, idle)
    limits.take("read", who, Answer())
    await calls.begin(who, "a", "b", "c")
    refused = asyncio.create_task(interceptor._turn(CallPlace(fairness, "read", who), line))
    await _turn()
    assert not refused.done()
    await calls.end("a")
    with pytest.raises(TicketError, match="Too many requests"):
        await refused
