"""How the clock of a service level runs: which time counts, when a target is due, and how it stands.

The rules of contracts/helpdesk.md, SLA. Pure: instants in, instants out. Every instant is an aware datetime in UTC, and
every span is half-open. What counts is decided by one question: what does a clock on the wall show at that instant?

So when 02:00 becomes 03:00, hours that no wall shows do not count: of 01:30–03:30 an hour is left, of 02:15–02:45
nothing, and a bound in the gap is the instant of the jump. When 03:00 becomes 02:00, hours that are shown twice count
twice, and only while they are shown: of 02:30–03:30 counts the half hour before the jump, and from the second 02:30 on.
(From the first 02:30 through to the end would count half an hour that the wall shows outside the hours.)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

# How far ahead a due instant is looked for: enough for a year's minutes in a calendar with forty hours a week.
HORIZON = timedelta(days=5 * 365)
_DAY = timedelta(days=1)
_DAY_MINUTES = 24 * 60
# No zone ever had two jumps of its clocks within 95 hours, and none within 167 since 1970.
_STEP = timedelta(days=3)

# From one time since midnight to another.
_Hours = tuple[timedelta, timedelta]


class Span(NamedTuple):
    """The time from one instant until before another."""

    start: datetime
    end: datetime


class Pause(NamedTuple):
    """Time that does not count; one that has no end yet is open."""

    start: datetime
    end: datetime | None


@dataclass(frozen=True)
class Calendar:
    """When a tenant does business.

    `hours` has for a weekday, 0 is Monday, any number of (start, end) in minutes since midnight on the wall: 24:00 is
    1440, and hours through midnight are those of two weekdays. They may touch or overlap. `holidays` are closed whole.
    Raises ValueError: no such weekday or hours.
    """

    time_zone: str
    hours: Mapping[int, Sequence[tuple[int, int]]]
    holidays: frozenset[date] = frozenset()

    def __post_init__(self) -> None:
        for weekday, hours in self.hours.items():
            if weekday not in range(7):
                raise ValueError(f"No weekday: {weekday}")
            for start, end in hours:
                if not 0 <= start < end <= _DAY_MINUTES:
                    raise ValueError(f"No hours of a day: {start}–{end}")

    @property
    def ever_opens(self) -> bool:
        """Whether any weekday has hours."""
        return any(self._week)

    def hours_of(self, day: date) -> Sequence[_Hours]:
        """The hours of a local date as times since midnight, in the order of their starts."""
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

    `paused` is told as it was, inside and outside business hours. `left` is None where it is never due.
    """

    counted: list[Span]
    paused: list[Span]
    elapsed: timedelta
    left: timedelta | None
    breached_at: datetime | None


def counted(start: datetime, end: datetime, pauses: Sequence[Pause], calendar: Calendar | None) -> list[Span]:
    """The spans in which time counts: outside pauses, and within business hours unless there is no calendar."""
    return _merged(_counted(Span(start, end), pauses, calendar))


def due_at(start: datetime, minutes: int, pauses: Sequence[Pause], calendar: Calendar | None) -> datetime | None:
    """The first instant at which that many minutes, at least one, have counted since the start.

    None if an open pause comes before: nobody can know it until the pause ends. None too if it is never, or not before
    the HORIZON.
    """
    left = timedelta(minutes=minutes)
    for span in _counted(Span(start, start + HORIZON), pauses, calendar):
        length = span.end - span.start
        if left <= length:
            return span.start + left
        left -= length
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
    """How a target stands that was met at an instant, or is not met until now.

    `due_at` is when it is due if no pause is counted but those that are over: in an open one it stands still. Whoever
    meets it at the due instant is in time; any later is a breach, even while no time counts.
    """
    until = now if met_at is None else met_at
    # What came after it was met has no say.
    pauses = [pause for pause in pauses if pause.start < until]
    spans = counted(start, until, pauses, calendar)
    still_since = min((pause.start for pause in pauses if pause.end is None or pause.end > until), default=until)
    is_breached = due_at is not None and due_at < until and due_at <= still_since
    return Standing(
        counted=spans,
        paused=_merged(_clipped(Span(start, until), pauses)),
        elapsed=_length(spans),
        left=None if due_at is None else _length(counted(max(start, still_since), due_at, (), calendar)),
        breached_at=due_at if is_breached else None,
    )


def _length(spans: Iterable[Span]) -> timedelta:
    return sum((span.end - span.start for span in spans), timedelta())


def _counted(span: Span, pauses: Sequence[Pause], calendar: Calendar | None) -> Iterator[Span]:
    """What counts in a span, in order and piece by piece, so that whoever has enough need not see the rest."""
    running = _running(span, pauses)
    if calendar is None:
        return running
    if not calendar.ever_opens:
        return iter(())
    return (opened for run in running for opened in _opened(run, calendar))


def _running(span: Span, pauses: Sequence[Pause]) -> Iterator[Span]:
    """What pauses leave of a span."""
    at = span.start
    for pause in (*_clipped(span, pauses), Span(span.end, span.end)):
        if at < pause.start:
            yield Span(at, pause.start)
        at = max(at, pause.end)


def _clipped(span: Span, pauses: Sequence[Pause]) -> Iterator[Span]:
    """Those parts of pauses that lie in a span, in the order of their starts."""
    for pause in sorted(pauses, key=attrgetter("start")):
        start, end = max(span.start, pause.start), span.end if pause.end is None else min(span.end, pause.end)
        # Transactions that overlap may stamp an end before a start: such a pause has no length.
        if start < end:
            yield Span(start, end)


def _opened(span: Span, calendar: Calendar) -> Iterator[Span]:
    """The business hours in a span, in order; hours that touch stay two, those that overlap do so no longer."""
    for stretch, ahead in _stretches(span, ZoneInfo(calendar.time_zone)):
        at = stretch.start
        day = (at + ahead).date()
        midnight = datetime.combine(day, time(), UTC) - ahead
        while midnight < stretch.end:
            for start, end in calendar.hours_of(day):
                opened = Span(max(at, midnight + start), min(stretch.end, midnight + end))
                if opened.start < opened.end:
                    yield opened
                    at = opened.end
            midnight += _DAY
            day += _DAY


def _stretches(span: Span, zone: ZoneInfo) -> Iterator[tuple[Span, timedelta]]:
    """A span in parts within which clocks do not jump, each with how far the wall is ahead of UTC.

    In such a part local times become instants by a subtraction, whatever hours or days jumps left out or repeated.
    """
    at = span.start
    while at < span.end:
        ahead = _ahead(at, zone)
        until = min(at + _STEP, span.end)
        if _ahead(until, zone) != ahead:
            until = _jump(at, until, zone)
        yield Span(at, until), ahead
        at = until


def _jump(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant at which clocks jump, between two with one jump between them."""
    ahead = _ahead(before, zone)
    while after - before > timedelta.resolution:
        middle = before + (after - before) // 2
        if _ahead(middle, zone) == ahead:
            before = middle
        else:
            after = middle
    return after


def _ahead(at: datetime, zone: ZoneInfo) -> timedelta:
    # Only the type says that a zone may not know.
    return at.astimezone(zone).utcoffset() or timedelta()


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Spans that come in the order of their starts, those in one that touch or overlap."""
    merged: list[Span] = []
    for span in spans:
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged
