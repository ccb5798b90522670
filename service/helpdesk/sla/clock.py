"""How the clock of a service level runs: which time counts, when a target is due, and how it stands.

The rules of contracts/helpdesk.md, SLA. Pure: instants in, instants out. Every instant is an aware datetime in UTC, and
every span is half-open. Whether an instant counts depends on one thing: which local time a wall clock shows then.

So when 02:00 becomes 03:00, local times that no clock shows do not count: of 01:30–03:30 an hour is left, of
02:15–02:45 nothing, and a bound in the gap is the instant of the jump. When 03:00 becomes 02:00, local times that are
shown twice count twice, and only while they are shown: of 02:30–03:30 counts the half hour before the jump, and then
from the second 02:30 on. (From the first 02:30 through to the end would count half an hour that clocks show as outside
the hours.)

A computation takes a few steps for each pause, and none for the days or hours in between: it costs about the same for
every calendar and every target that is accepted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import NamedTuple

from service.helpdesk.sla.business_hours import Calendar, Timeline
from service.helpdesk.sla.offsets import MICROSECOND, ORIGIN

# How far ahead a due instant is searched: enough for a year's minutes in a calendar with forty hours a week.
LONGEST_SEARCH = timedelta(days=5 * 365)
# How many spans are listed: the last ones.
LISTED = 1000


class Span(NamedTuple):
    """The time from one instant until before another."""

    start: datetime
    end: datetime


class Pause(NamedTuple):
    """Time that does not count; an open pause has no end yet."""

    start: datetime
    end: datetime | None


@dataclass(frozen=True)
class Standing:
    """How one target of a ticket stands, a first response or a resolution; of its spans the last that are listed.

    `paused` includes time outside business hours. `remaining` is None for a target that is never due.
    """

    counted: list[Span]
    paused: list[Span]
    elapsed: timedelta
    remaining: timedelta | None
    breached_at: datetime | None


def elapsed(start: datetime, end: datetime, pauses: Sequence[Pause], calendar: Calendar | None) -> timedelta:
    """How much time counts between two instants."""
    span = Span(start, end)
    parts = _without_pauses(span, pauses)
    if calendar is None:
        return sum((part.end - part.start for part in parts), timedelta())
    before = _timeline(span, calendar).open_before
    return sum(before(_at(part.end)) - before(_at(part.start)) for part in parts) * MICROSECOND


def counted(
    start: datetime, end: datetime, pauses: Sequence[Pause], calendar: Calendar | None, *, last: int | None = None
) -> list[Span]:
    """The spans in which time counts: outside pauses, and within business hours unless there is no calendar.

    The `last` ones alone, or all.
    """
    found: list[Span] = []
    for span in _counted_backwards(Span(start, end), pauses, calendar):
        if found and span.end == found[-1].start:
            found[-1] = Span(span.start, found[-1].end)
        elif len(found) == last:
            break
        else:
            found.append(span)
    return found[::-1]


def due_at(start: datetime, minutes: int, pauses: Sequence[Pause], calendar: Calendar | None) -> datetime | None:
    """The first instant at which that many minutes, at least one, have counted since the start.

    None if an open pause comes first, because it is unknown until the pause ends. None too if it is never due, or not
    before the LONGEST_SEARCH.
    """
    span = Span(start, start + LONGEST_SEARCH)
    parts = _without_pauses(span, pauses)
    remaining = timedelta(minutes=minutes)
    if calendar is not None:
        return _due_within_hours(parts, remaining // MICROSECOND, _timeline(span, calendar))
    for part in parts:
        length = part.end - part.start
        if remaining <= length:
            return part.start + remaining
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
    instant is met in time; any later is a breach, even outside business hours, but not if the due instant is within a
    pause.
    """
    until = now if met_at is None else met_at
    # Pauses after it was met do not matter.
    pauses = [pause for pause in pauses if pause.start < until]
    stopped_at = min((pause.start for pause in pauses if pause.end is None or pause.end > until), default=until)
    breached_at = None
    if due_at is not None and due_at < until and ran_at(due_at, pauses):
        # A caller may have given an instant before the ticket existed.
        breached_at = max(start, due_at)
    return Standing(
        counted=counted(start, until, pauses, calendar, last=LISTED),
        paused=_merged(_clipped(Span(start, until), pauses))[-LISTED:],
        elapsed=elapsed(start, until, pauses, calendar),
        remaining=None if due_at is None else elapsed(max(start, stopped_at), due_at, (), calendar),
        breached_at=breached_at,
    )


def ran_at(at: datetime, pauses: Sequence[Pause]) -> bool:
    """Whether the clock ran until an instant or from it on: it did not within a pause."""
    return not any(pause.start < at and (pause.end is None or at < pause.end) for pause in pauses)


def _due_within_hours(parts: Iterable[Span], remaining: int, timeline: Timeline) -> datetime | None:
    """The instant before which this many microseconds of the parts are open."""
    for part in parts:
        before, after = (timeline.open_before(_at(bound)) for bound in part)
        if remaining <= after - before:
            return _instant(timeline.reached(before + remaining))
        remaining -= after - before
    return None


def _counted_backwards(span: Span, pauses: Sequence[Pause], calendar: Calendar | None) -> Iterator[Span]:
    """What counts in a span, the last first; lazy, so that a caller who has enough does not compute the rest."""
    parts = reversed([*_without_pauses(span, pauses)])
    if calendar is None:
        yield from parts
        return
    timeline = _timeline(span, calendar)
    for part in parts:
        for opens, closes in timeline.backwards(_at(part.start), _at(part.end)):
            yield Span(_instant(opens), _instant(closes))


def _timeline(span: Span, calendar: Calendar) -> Timeline:
    return calendar.timeline(range(span.start.year, span.end.year + 1))


def _at(instant: datetime) -> int:
    """An instant as business_hours.py counts it."""
    return (instant - ORIGIN) // MICROSECOND


def _instant(at: int) -> datetime:
    return ORIGIN + at * MICROSECOND


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


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Spans in order of their starts, joined where they touch or overlap."""
    merged: list[Span] = []
    for span in spans:
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged
