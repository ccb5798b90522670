"""How the clock of a service level runs: which time counts, when a target is due, and how it stands.

The rules of contracts/helpdesk.md, SLA. Pure: instants in, instants out. Every instant is an aware datetime in UTC, and
every span is half-open. Whether an instant counts depends on one thing: which local time a wall clock shows then.

So when 02:00 becomes 03:00, local times that no clock shows do not count: of 01:30–03:30 an hour is left, of
02:15–02:45 nothing, and a bound in the gap is the instant of the jump. When 03:00 becomes 02:00, local times that are
shown twice count twice, and only while they are shown: of 02:30–03:30 counts the half hour before the jump, and then
from the second 02:30 on. (From the first 02:30 through to the end would count half an hour that clocks show as outside
the hours.)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

# How far ahead a due instant is searched: enough for a year's minutes in a calendar with forty hours a week.
HORIZON = timedelta(days=5 * 365)
_DAY = timedelta(days=1)
_DAY_MINUTES = 24 * 60
# No zone has ever changed its offset twice within 95 hours, and none within 167 since 1970.
_STEP = timedelta(days=3)

# A start and an end, as times since local midnight.
_Hours = tuple[timedelta, timedelta]


class Span(NamedTuple):
    """The time from one instant until before another."""

    start: datetime
    end: datetime


class Pause(NamedTuple):
    """Time that does not count; an open pause has no end yet."""

    start: datetime
    end: datetime | None


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
        return any(self._week)

    def hours_of(self, day: date) -> Sequence[_Hours]:
        """The hours of a local date as times since midnight, in order of their starts."""
        return () if day in self.holidays else self._week[day.weekday()]

    @cached_property
    def _week(self) -> Sequence[Sequence[_Hours]]:
        return [
            [(timedelta(minutes=start), timedelta(minutes=end)) for start, end in sorted(self.hours.get(weekday, ()))]
            for weekday in range(7)
        ]


@dataclass(frozen=True)
class Standing:
    """How one target of a ticket stands: a first response or a resolution.

    `paused` includes time outside business hours. `remaining` is None for a target that is never due.
    """

    counted: list[Span]
    paused: list[Span]
    elapsed: timedelta
    remaining: timedelta | None
    breached_at: datetime | None


def counted(start: datetime, end: datetime, pauses: Sequence[Pause], calendar: Calendar | None) -> list[Span]:
    """The spans in which time counts: outside pauses, and within business hours unless there is no calendar."""
    return _merged(_counted(Span(start, end), pauses, calendar))


def due_at(start: datetime, minutes: int, pauses: Sequence[Pause], calendar: Calendar | None) -> datetime | None:
    """The first instant at which that many minutes, at least one, have counted since the start.

    None if an open pause comes first, because it is unknown until the pause ends. None too if it is never due, or not
    before the HORIZON.
    """
    remaining = timedelta(minutes=minutes)
    for span in _counted(Span(start, start + HORIZON), pauses, calendar):
        length = span.end - span.start
        if remaining <= length:
            return span.start + remaining
        remaining -= length
    return None


def explain(
    start: datetime,
    due_at: datetime | None,
    pauses: Sequence[Pause],
    calendar: Calendar | None,
    *,
    met_at: datetime | None,
    now: datetime,
) -> Standing:
    """How a target stands that was met at `met_at`, or is not met by now.

    `due_at` takes only pauses into account that have ended: in an open one it stands still. A target met at the due
    instant is met in time; any later is a breach, even while no time counts.
    """
    until = now if met_at is None else met_at
    # Pauses after it was met do not matter.
    pauses = [pause for pause in pauses if pause.start < until]
    spans = counted(start, until, pauses, calendar)
    stopped_at = min((pause.start for pause in pauses if pause.end is None or pause.end > until), default=until)
    is_breached = due_at is not None and due_at < until and due_at <= stopped_at
    return Standing(
        counted=spans,
        paused=_merged(_clipped(Span(start, until), pauses)),
        elapsed=_length(spans),
        remaining=None if due_at is None else _length(counted(max(start, stopped_at), due_at, (), calendar)),
        breached_at=due_at if is_breached else None,
    )


def _length(spans: Iterable[Span]) -> timedelta:
    return sum((span.end - span.start for span in spans), timedelta())


def _counted(span: Span, pauses: Sequence[Pause], calendar: Calendar | None) -> Iterator[Span]:
    """What counts in a span, in order; lazy, so that a caller who has enough does not compute the rest."""
    unpaused = _without_pauses(span, pauses)
    if calendar is None:
        return unpaused
    if not calendar.ever_opens:
        return iter(())
    return (hours for part in unpaused for hours in _business_hours(part, calendar))


def _without_pauses(span: Span, pauses: Sequence[Pause]) -> Iterator[Span]:
    """A span without its pauses, in order."""
    at = span.start
    for pause in (*_clipped(span, pauses), Span(span.end, span.end)):
        if at < pause.start:
            yield Span(at, pause.start)
        at = max(at, pause.end)


def _clipped(span: Span, pauses: Sequence[Pause]) -> Iterator[Span]:
    """The parts of pauses within a span, in order of their starts."""
    for pause in sorted(pauses, key=attrgetter("start")):
        start, end = max(span.start, pause.start), span.end if pause.end is None else min(span.end, pause.end)
        # Concurrent transactions may stamp an end before a start: such a pause has no length.
        if start < end:
            yield Span(start, end)


def _business_hours(span: Span, calendar: Calendar) -> Iterator[Span]:
    """The business hours in a span, in order; hours that touch stay apart, those that overlap no longer do."""
    for part, offset in _by_offset(span, ZoneInfo(calendar.time_zone)):
        at = part.start
        day = (at + offset).date()
        midnight = datetime.combine(day, time(), UTC) - offset
        while midnight < part.end:
            for start, end in calendar.hours_of(day):
                hours = Span(max(at, midnight + start), min(part.end, midnight + end))
                if hours.start < hours.end:
                    yield hours
                    at = hours.end
            midnight += _DAY
            day += _DAY


def _by_offset(span: Span, zone: ZoneInfo) -> Iterator[tuple[Span, timedelta]]:
    """A span in parts within which the zone's offset from UTC does not change, each with that offset.

    Within such a part local times become instants by a subtraction, whatever hours or days the changes skip or repeat.
    """
    at = span.start
    while at < span.end:
        offset = _offset(at, zone)
        until = min(at + _STEP, span.end)
        if _offset(until, zone) != offset:
            until = _offset_change(at, until, zone)
        yield Span(at, until), offset
        at = until


def _offset_change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant at which the offset changes, between two with one change between them."""
    offset = _offset(before, zone)
    while after - before > timedelta.resolution:
        middle = before + (after - before) // 2
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    # Never None for a ZoneInfo; only its type says so.
    return at.astimezone(zone).utcoffset() or timedelta()


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Spans in order of their starts, joined where they touch or overlap."""
    merged: list[Span] = []
    for span in spans:
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged
