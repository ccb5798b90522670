"""A tenant's business hours on the local clock: how much of them lies before a local time, and when so much is over.

Local times are whole microseconds since the first midnight that a date can hold, a Monday's. Nothing here walks along
them: what is open before a time is that of the whole weeks, of the days of the last week and of the hours of the last
day, less that of the holidays before it; each is a sum that was added up once.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

_DAY_MINUTES = 24 * 60
_MINUTE = timedelta(minutes=1) // timedelta.resolution
_DAY = _DAY_MINUTES * _MINUTE


class _Day(NamedTuple):
    """The hours of a weekday, apart from each other and in order, and how much of them is over when each starts."""

    starts: Sequence[int]
    ends: Sequence[int]
    before: Sequence[int]
    total: int


_CLOSED = _Day((), (), (), 0)


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

    @property
    def ever_opens(self) -> bool:
        """Whether any weekday has hours."""
        return self._before_weekday[7] > 0

    def open_before(self, local: int) -> int:
        """How much is open before a local time."""
        number, time = divmod(local, _DAY)
        day = self._hours_of(number)
        if not day.total:
            return self._before_day(number)
        last = bisect_right(day.starts, time) - 1
        of_day = 0 if last < 0 else day.before[last] + min(time, day.ends[last]) - day.starts[last]
        return self._before_day(number) + of_day

    def reached(self, amount: int, after: int, until: int) -> int:
        """The first local time before which so much is open, of which some is open between the two given."""
        days = range(after // _DAY, until // _DAY + 1)
        number = days[bisect_left(days, amount, key=self._before_day) - 1]
        day, left = self._hours_of(number), amount - self._before_day(number)
        hours = bisect_left(day.before, left) - 1
        return number * _DAY + day.starts[hours] + left - day.before[hours]

    def hours_backwards(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The hours between two local times, the last ones first; apart from each other but for midnight."""
        for number in range(end // _DAY, start // _DAY - 1, -1):
            midnight, day = number * _DAY, self._hours_of(number)
            for opens, closes in zip(reversed(day.starts), reversed(day.ends), strict=True):
                one = max(start, midnight + opens), min(end, midnight + closes)
                if one[0] < one[1]:
                    yield one

    def _before_day(self, number: int) -> int:
        """How much is open before a day begins."""
        weeks, weekday = divmod(number, 7)
        before, holidays = self._before_weekday, self._holidays
        return weeks * before[7] + before[weekday] - self._on_holidays[bisect_left(holidays, number)]

    def _hours_of(self, number: int) -> _Day:
        return _CLOSED if number in self._closed else self._week[number % 7]

    @cached_property
    def _week(self) -> Sequence[_Day]:
        return [_day(self.hours.get(weekday, ())) for weekday in range(7)]

    @cached_property
    def _before_weekday(self) -> Sequence[int]:
        """How much of a week is open before each of its days, and in all of it."""
        return [*accumulate((day.total for day in self._week), initial=0)]

    @cached_property
    def _holidays(self) -> Sequence[int]:
        return sorted(day.toordinal() - 1 for day in self.holidays)

    @cached_property
    def _closed(self) -> frozenset[int]:
        return frozenset(self._holidays)

    @cached_property
    def _on_holidays(self) -> Sequence[int]:
        """How much would be open on the holidays before each, and on all of them."""
        return [*accumulate((self._week[number % 7].total for number in self._holidays), initial=0)]


def _day(hours: Sequence[tuple[int, int]]) -> _Day:
    """Of hours in any order, which may touch or overlap."""
    apart: list[tuple[int, int]] = []
    for start, end in sorted(hours):
        if apart and start <= apart[-1][1]:
            apart[-1] = apart[-1][0], max(apart[-1][1], end)
        else:
            apart.append((start, end))
    starts, ends = [start * _MINUTE for start, _ in apart], [end * _MINUTE for _, end in apart]
    lengths = (end - start for start, end in zip(starts, ends, strict=True))
    *before, total = accumulate(lengths, initial=0)
    return _Day(starts, ends, before, total)
