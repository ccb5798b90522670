"""A tenant's business hours: how much of them lies before a time, and when a given part of them is over.

Times are whole microseconds: instants since the first that a datetime can hold, local ones since the midnight then, a
Monday's. Nothing here walks along them. What is open before a local time is that of the whole weeks and of the last
week's hours, less that of the holidays before it; each is a sum that was added up once, and so is what is open before
each change of the zone's offset.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import accumulate

from service.helpdesk.sla.offsets import stretches

_DAY_MINUTES = 24 * 60
_MINUTE = timedelta(minutes=1) // timedelta.resolution
_DAY = _DAY_MINUTES * _MINUTE
_WEEK = 7 * _DAY


@dataclass(frozen=True)
class Calendar:
    """A tenant's business hours.

    `hours` maps a weekday, 0 is Monday, to any number of (start, end) in minutes since local midnight: 24:00 is 1440,
    and hours through midnight are given on both weekdays. They may touch or overlap. On `holidays` no time counts.
    Raises ValueError for a weekday or hours that do not exist.
    """

    time_zone: str
    hours: Mapping[int, Sequence[tuple[int, int]]]
    holidays: frozenset[date] = frozenset()

    def __post_init__(self) -> None:
        for weekday, hours in self.hours.items():
            if weekday not in range(7):
                raise ValueError(f"Not a weekday: {weekday}")
            for start, end in hours:
                if not 0 <= start < end <= _DAY_MINUTES:
                    raise ValueError(f"Not hours of a day: {start}–{end}")

    def timeline(self, years: range) -> "Timeline":
        """The hours of these years as instants; kept, as targets mostly begin in few years."""
        kept = self._timelines
        if years not in kept:
            kept[years] = Timeline(self, years)
        return kept[years]

    def open_before(self, local: int) -> int:
        """How much is open before a local time."""
        day = local // _DAY
        index = bisect_left(self._holidays, day)
        of_week = self._week.open_before(local)
        if index < len(self._holidays) and self._holidays[index] == day:
            of_week = self._week.open_before(day * _DAY)
        return of_week - self._on_holidays[index]

    def reached(self, amount: int) -> int:
        """The first local time before which this much is open, at least something."""
        return self._week.reached(amount + self._on_holidays[bisect_left(self._before_holidays, amount)])

    def backwards(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The hours between two local times, the last ones first; apart from each other but for midnight."""
        for opens, closes in self._week.backwards(start, end):
            if opens // _DAY not in self._closed:
                yield max(start, opens), min(end, closes)

    @cached_property
    def _timelines(self) -> dict[range, "Timeline"]:
        return {}

    @cached_property
    def _week(self) -> "_Week":
        return _Week(self.hours)

    @cached_property
    def _holidays(self) -> Sequence[int]:
        return sorted(self._closed)

    @cached_property
    def _closed(self) -> frozenset[int]:
        return frozenset(day.toordinal() - 1 for day in self.holidays)

    @cached_property
    def _on_holidays(self) -> Sequence[int]:
        """How much would be open on the holidays before each, and on all of them."""
        before = [self._week.open_before(weekday * _DAY) for weekday in range(8)]
        weekdays = (day % 7 for day in self._holidays)
        return [*accumulate((before[weekday + 1] - before[weekday] for weekday in weekdays), initial=0)]

    @cached_property
    def _before_holidays(self) -> Sequence[int]:
        """How much is open before each holiday."""
        return [
            self._week.open_before(day * _DAY) - lost
            for day, lost in zip(self._holidays, self._on_holidays, strict=False)
        ]


class _Week:
    """The hours of every week, as if there were no holidays."""

    def __init__(self, hours: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        apart = [
            ((weekday * _DAY_MINUTES + start) * _MINUTE, (weekday * _DAY_MINUTES + end) * _MINUTE)
            for weekday in range(7)
            for start, end in _apart(hours.get(weekday, ()))
        ]
        self._hours = apart
        self._starts = [start for start, _ in apart]
        # How much of a week is open before each of its hours, and in all of it.
        *self._before, self._total = accumulate((end - start for start, end in apart), initial=0)

    def open_before(self, local: int) -> int:
        weeks, time = divmod(local, _WEEK)
        last = bisect_right(self._starts, time) - 1
        if last < 0:
            return weeks * self._total
        start, end = self._hours[last]
        return weeks * self._total + self._before[last] + min(time, end) - start

    def reached(self, amount: int) -> int:
        """The first time before which this much is open."""
        weeks, less = divmod(amount - 1, self._total)
        last = bisect_right(self._before, less) - 1
        return weeks * _WEEK + self._starts[last] + less + 1 - self._before[last]

    def backwards(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The hours of which some is between two times, the last ones first."""
        for week in range(end // _WEEK, start // _WEEK - 1, -1):
            monday = week * _WEEK
            for opens, closes in reversed(self._hours):
                if start < monday + closes and monday + opens < end:
                    yield monday + opens, monday + closes


class Timeline:
    """The business hours of some years as instants, whatever hours or days the zone's changes skip or repeat."""

    def __init__(self, calendar: Calendar, years: range) -> None:
        self._calendar = calendar
        self._stretches = stretches(calendar.time_zone, years)
        self._starts = [start for start, _, _ in self._stretches]
        # How much is open before each stretch, and what that differs by from what is open before its local time.
        self._before: list[int] = []
        self._differences: list[int] = []
        before = 0
        for start, end, offset in self._stretches:
            difference = before - calendar.open_before(start + offset)
            self._before.append(before)
            self._differences.append(difference)
            before = calendar.open_before(end + offset) + difference

    def open_before(self, at: int) -> int:
        """How much is open before an instant, of these years."""
        index = bisect_right(self._starts, at) - 1
        return self._calendar.open_before(at + self._stretches[index].offset) + self._differences[index]

    def reached(self, amount: int) -> int:
        """The first instant before which this much is open; it must be within these years."""
        index = bisect_left(self._before, amount) - 1
        return self._calendar.reached(amount - self._differences[index]) - self._stretches[index].offset

    def backwards(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The hours between two instants, the last ones first; apart from each other but for midnights and changes."""
        for first, last, offset in reversed(self._stretches):
            lower, upper = max(start, first) + offset, min(end, last) + offset
            if lower < upper:
                for opens, closes in self._calendar.backwards(lower, upper):
                    yield opens - offset, closes - offset


def _apart(hours: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """The hours of a day, which may touch or overlap, apart from each other and in order."""
    apart: list[tuple[int, int]] = []
    for start, end in sorted(hours):
        if apart and start <= apart[-1][1]:
            apart[-1] = apart[-1][0], max(apart[-1][1], end)
        else:
            apart.append((start, end))
    return apart
