"""When the offset of a time zone changes: each year of a zone is searched once in a process, and kept.

Instants and offsets are whole microseconds; instants since the first that a datetime can hold.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

ORIGIN = datetime.min.replace(tzinfo=UTC)
MICROSECOND = timedelta.resolution
_SECOND = timedelta(seconds=1) // MICROSECOND
_POSIX_EPOCH = (datetime.fromtimestamp(0, UTC) - ORIGIN) // MICROSECOND
# In seconds. No zone has changed its offset twice within 167 hours since 1970, and no ticket is older.
_STEP = 6 * 24 * 60 * 60


class Stretch(NamedTuple):
    """The time from one instant until before another, within which a zone's offset from UTC does not change.

    Within it local times become instants by a subtraction, whatever hours or days the changes skip or repeat.
    """

    start: int
    end: int
    offset: int


def stretches(time_zone: str, years: range) -> list[Stretch]:
    """The time of these years, in order."""
    found: list[Stretch] = []
    for year in years:
        first, *others = _stretches_of_year(time_zone, year)
        if found and found[-1].offset == first.offset:
            first = Stretch(found.pop().start, first.end, first.offset)
        found += (first, *others)
    return found


@lru_cache(maxsize=8192)
def _stretches_of_year(time_zone: str, year: int) -> Sequence[Stretch]:
    # In POSIX time: a change is at a whole second, and there is no faster way to ask a zone.
    zone = ZoneInfo(time_zone)
    start, last = (
        int(datetime(year, 1, 1, tzinfo=UTC).timestamp()),
        int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp()) - 1,
    )
    offset = _offset(start, zone)
    found: list[Stretch] = []
    at = start
    while at < last:
        until = min(at + _STEP, last)
        if _offset(until, zone) != offset:
            until = _offset_change(at, until, zone)
            found.append(_stretch(start, until, offset))
            start, offset = until, _offset(until, zone)
        at = until
    return [*found, _stretch(start, last + 1, offset)]


def _stretch(start: int, end: int, offset: timedelta) -> Stretch:
    return Stretch(_POSIX_EPOCH + start * _SECOND, _POSIX_EPOCH + end * _SECOND, offset // MICROSECOND)


def _offset_change(before: int, after: int, zone: ZoneInfo) -> int:
    """The second at which the offset changes, between two with one change between them."""
    offset = _offset(before, zone)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(at: int, zone: ZoneInfo) -> timedelta:
    # Never None for a ZoneInfo; only its type says so.
    return datetime.fromtimestamp(at, zone).utcoffset() or timedelta()
