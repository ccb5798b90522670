"""contracts/helpdesk.md, SLA: which time counts, against an oracle that checks the local time of every minute."""

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import compress, count, pairwise
from random import Random
from zoneinfo import ZoneInfo

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from service.helpdesk.sla.business_hours import Calendar
from service.helpdesk.sla.clock import LONGEST_SEARCH, Pause, Span, counted, due_at, elapsed, explain

MINUTE = timedelta(minutes=1)
# Days around which the offset of a zone changes, or does not.
PLACES = [
    ("UTC", "2028-02-29"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Africa/Casablanca", "2026-03-22"),
    ("America/Boa_Vista", "2000-10-08"),
    ("America/Caracas", "2016-05-01"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/St_Johns", "2010-03-14"),
    ("America/St_Johns", "2010-11-07"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Antarctica/Troll", "2026-10-25"),
    ("Antarctica/Vostok", "1994-01-31"),
    ("Antarctica/Vostok", "1994-11-01"),
    ("Asia/Beirut", "2026-03-29"),
    ("Asia/Beirut", "2026-10-25"),
    ("Asia/Gaza", "2040-10-17"),
    ("Asia/Kathmandu", "1986-01-01"),
    ("Asia/Kathmandu", "2026-01-01"),
    ("Asia/Pyongyang", "2018-05-04"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Europe/Dublin", "2039-03-27"),
    ("Europe/Dublin", "2039-10-30"),
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Apia", "2012-04-01"),
    ("Pacific/Kiritimati", "1995-01-01"),
    ("Pacific/Kwajalein", "1993-08-21"),
]
DAY = 24 * 60
# Histories are within so many days before and after the day of a place.
BEFORE, AFTER = 2, 9


def midnight(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


@dataclass(frozen=True)
class History:
    """A target and its pauses. Times are in minutes since `first`."""

    zone: str
    day: str
    hours: Mapping[int, Sequence[tuple[int, int]]] | None
    holidays: Sequence[str]
    start: int
    end: int
    pauses: Sequence[tuple[int, int | None]]
    minutes: int
    met: int | None

    @property
    def first(self) -> datetime:
        return midnight(self.day) - timedelta(days=BEFORE)

    @property
    def calendar(self) -> Calendar | None:
        if self.hours is None:
            return None
        return Calendar(self.zone, self.hours, frozenset(map(date.fromisoformat, self.holidays)))

    @property
    def ever_opens(self) -> bool:
        return self.hours is None or any(self.hours.values())

    def at(self, minute: int) -> datetime:
        return self.first + minute * MINUTE


def some_history(random: Random) -> History:
    """Mostly short ones around the days of a place."""
    zone, day = random.choice(PLACES)
    length = random.randint(0, random.choice((600, 2 * DAY, 2 * DAY, 8 * DAY)))
    start = random.randint(0, random.choice((DAY, 3 * DAY)))
    end = start + length
    stops = [some_pause(random, start, end) for _ in range(random.choice((0, 0, 1, 2, 4)))]
    return History(
        zone=zone,
        day=day,
        hours=None if random.randint(0, 9) == 0 else some_week(random),
        holidays=[
            str(date.fromisoformat(day) + timedelta(days=random.randint(-3, 3)))
            for _ in range(random.choice((0, 0, 1, 2)))
        ],
        start=start,
        end=end,
        pauses=stops,
        minutes=random.randint(1, random.choice((10, 300, 2000, 10_000))),
        met=random.choice((None, random.randint(start, end))),
    )


def some_pause(random: Random, start: int, end: int) -> tuple[int, int | None]:
    begin = random.randint(start - 300, end + 300)
    return begin, None if random.randint(0, 7) == 0 else begin + random.randint(-2, random.choice((5, 300, 3000)))


def some_week(random: Random) -> Mapping[int, Sequence[tuple[int, int]]]:
    """The same hours on all days, or others on each; often few, and often at night, when clocks jump."""
    days = [
        [some_hours(random) for _ in range(random.choice((0, 1, 1, 2, 3)))] for _ in range(random.choice((1, 1, 3)))
    ]
    return {weekday: random.choice(days) for weekday in range(7)}


def some_hours(random: Random) -> tuple[int, int]:
    start = random.choice((0, random.randint(0, 240), random.randint(0, DAY - 1)))
    end = random.choice((DAY, random.randint(start + 1, min(start + 90, DAY)), random.randint(start + 1, DAY)))
    return start, end


@cache
def walls(zone: str, day: str) -> Sequence[int]:
    """What the wall shows at each minute at which a place is known: minutes since two local days before the first."""
    first = midnight(day) - timedelta(days=BEFORE)
    origin, there = first.toordinal() - 2, ZoneInfo(zone)
    shown = ((first + minute * MINUTE).astimezone(there) for minute in range((BEFORE + AFTER) * DAY))
    return array("i", ((wall.toordinal() - origin) * DAY + wall.hour * 60 + wall.minute for wall in shown))


def open_walls(history: History) -> bytes:
    """Whether business is open, for each of the minutes that a wall can show."""
    week = [bytearray(DAY) for _ in range(7)]
    for weekday, hours in (history.hours or {}).items():
        for start, end in hours:
            week[weekday][start:end] = b"\1" * (end - start)
    local = history.first.date() - timedelta(days=2)
    days = (local + timedelta(days=number) for number in range(BEFORE + AFTER + 4))
    return b"".join(bytes(DAY) if str(day) in history.holidays else week[day.weekday()] for day in days)


def paused_minutes(history: History) -> bytearray:
    """Whether each minute of a history is paused."""
    length = history.end - history.start
    paused = bytearray(length)
    for start, end in history.pauses:
        lower = min(max(start - history.start, 0), length)
        upper = length if end is None else min(max(end - history.start, lower), length)
        paused[lower:upper] = b"\1" * (upper - lower)
    return paused


def counted_minutes(history: History) -> bytes:
    """Whether each minute of a history counts."""
    paused = paused_minutes(history)
    if history.hours is None:
        return bytes(not pause for pause in paused)
    is_open = open_walls(history)
    shown = walls(history.zone, history.day)[history.start : history.end]
    return bytes(is_open[wall] and not pause for wall, pause in zip(shown, paused, strict=True))


def runs(history: History, minutes: bytes | bytearray) -> list[Span]:
    """The spans of the minutes that are set."""
    found = re.finditer(b"\1+", minutes)
    return [Span(history.at(history.start + run.start()), history.at(history.start + run.end())) for run in found]


def check(history: History) -> None:
    """What the clock says of a history is what its minutes say, one by one."""
    minutes = counted_minutes(history)
    start, end, calendar = history.at(history.start), history.at(history.end), history.calendar
    stops = [Pause(history.at(begin), None if end is None else history.at(end)) for begin, end in history.pauses]
    assert counted(start, end, stops, calendar) == runs(history, minutes), history
    assert counted(start, end, stops, calendar, last=2) == runs(history, minutes)[-2:], history
    assert elapsed(start, end, stops, calendar) == sum(minutes) * MINUTE, history

    which = list(compress(count(history.start + 1), minutes))
    reached = history.at(which[history.minutes - 1]) if history.minutes <= len(which) else None
    found = due_at(start, history.minutes, stops, calendar)
    if reached is not None:
        assert found == reached, history
    elif any(stop.end is None and stop.start <= end for stop in stops) or not (
        history.hours is None or any(history.hours.values())
    ):
        assert found is None, history
    elif found is None:
        # A minute a week adds up to 260 before the LONGEST_SEARCH.
        assert history.minutes > 225 or any(stop.end is None for stop in stops), history
    else:
        assert found > end, history

    until = history.end if history.met is None else history.met
    now, met_at = history.at(until), None if history.met is None else history.at(until)
    # As in a ticket's history no pause lasts into another, what is over ends where the one begins that is not.
    lasting = min(
        (stop.start for stop in stops if stop.start < now and (stop.end is None or stop.end > now)), default=now
    )
    over = [Pause(stop.start, min(stop.end or lasting, lasting)) for stop in stops if stop.start < lasting]
    due = due_at(start, history.minutes, over, calendar)
    standing = explain(start, due, stops, calendar, met_at=met_at, now=end)
    length = until - history.start
    is_breached = reached is not None and reached < now
    assert standing.counted == runs(history, minutes[:length]), history
    assert standing.paused == runs(history, paused_minutes(history)[:length]), history
    assert standing.elapsed == sum(minutes[:length]) * MINUTE, history
    assert standing.breached_at == (reached if is_breached else None), history
    if due is not None:
        assert standing.remaining == max(history.minutes - sum(minutes[:length]), 0) * MINUTE, history


@settings(max_examples=500)
@hypothesis.given(random=st.randoms(use_true_random=False))
def test_every_minute_counts_if_its_local_time_is_open(random: Random) -> None:
    check(some_history(random))


@pytest.mark.long
def test_every_minute_of_100_000_histories_counts_if_its_local_time_is_open() -> None:
    for number in range(100_000):
        check(some_history(Random(number)))  # noqa: S311 - the same histories in every run


@settings(max_examples=200)
@hypothesis.given(
    random=st.randoms(use_true_random=False),
    start=st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1)),  # noqa: DTZ001  (hypothesis takes no others)
    minutes=st.integers(1, 100_000),
)
def test_the_time_counted_until_a_due_instant_is_the_target(random: Random, start: datetime, minutes: int) -> None:
    """Years ahead too, and from any microsecond on."""
    at = start.replace(tzinfo=UTC)
    zone, _ = random.choice(PLACES)
    opening = Calendar(zone, some_week(random))
    stops = [
        Pause(at + begin * MINUTE, None if end is None else at + end * MINUTE)
        for begin, end in (some_pause(random, 0, 5000) for _ in range(random.randint(0, 3)))
    ]
    due = due_at(at, minutes, stops, opening)
    before = counted(at, at + LONGEST_SEARCH if due is None else due, stops, opening)
    total = sum((span.end - span.start for span in before), timedelta())
    assert elapsed(at, at + LONGEST_SEARCH if due is None else due, stops, opening) == total
    if due is None:
        assert total < minutes * MINUTE
    else:
        assert total == minutes * MINUTE
        assert before[-1].end == due
    assert all(one.end < other.start for one, other in pairwise(before))
