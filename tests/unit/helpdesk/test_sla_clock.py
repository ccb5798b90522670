"""contracts/helpdesk.md, SLA: which time counts, when a target is due, and how it stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import pytest

from service.helpdesk.sla.business_hours import Calendar
from service.helpdesk.sla.clock import Pause, Span, Standing, counted, due_at, explain

MINUTE = timedelta(minutes=1)
WORKDAYS = range(5)


def instant(text: str) -> datetime:
    """`2026-03-02 09:00`, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def bounds(text: str) -> tuple[str, str]:
    """Both ends of `2026-03-02 09:00/17:00` or `2026-03-02 09:00/2026-03-03 17:00`; the second may be missing."""
    start, end = text.split("/")
    return start, f"{start[:11]}{end}" if len(end) == len("17:00") else end


def spans(*texts: str) -> list[Span]:
    return [Span(instant(start), instant(end)) for start, end in map(bounds, texts)]


def pauses(*texts: str) -> list[Pause]:
    return [Pause(instant(start), instant(end) if end else None) for start, end in map(bounds, texts)]


def hours(text: str) -> list[tuple[int, int]]:
    """`09:00-12:00 13:00-24:00` in minutes since midnight."""
    clocks = [[clock.split(":") for clock in one.split("-")] for one in text.split()]
    return [(int(start[0]) * 60 + int(start[1]), int(end[0]) * 60 + int(end[1])) for start, end in clocks]


def calendar(zone: str, text: str, weekdays: Sequence[int] = range(7), holidays: Sequence[str] = ()) -> Calendar:
    return Calendar(zone, dict.fromkeys(weekdays, hours(text)), frozenset(map(date.fromisoformat, holidays)))


# 2026-03-02 is a Monday.
OFFICE = calendar("UTC", "09:00-17:00", WORKDAYS)
SHIFTS = calendar("UTC", "13:00-17:00 08:00-12:00", WORKDAYS)
BERLIN = "Europe/Berlin"  # 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC. 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC.


@dataclass(frozen=True)
class Case:
    """What counts between two instants. The spans and pauses are in UTC."""

    span: str
    expected: Sequence[str]
    calendar: Calendar | None = OFFICE
    pauses: Sequence[str] = ()


CASES: Mapping[str, Case] = {
    "all hours": Case("2026-03-02 09:30/2026-03-04 10:00", ["2026-03-02 09:30/2026-03-04 10:00"], None),
    "no time": Case("2026-03-02 09:30/09:30", [], None),
    "an end before the start": Case("2026-03-02 09:30/09:00", [], None),
    "seconds": Case(
        "2026-03-02 16:59:59.999999/2026-03-03 09:00:00.000001",
        ["2026-03-02 16:59:59.999999/2026-03-02 17:00", "2026-03-03 09:00/2026-03-03 09:00:00.000001"],
    ),
    "business hours": Case(
        "2026-03-05 16:00/2026-03-09 10:00",
        ["2026-03-05 16:00/17:00", "2026-03-06 09:00/17:00", "2026-03-09 09:00/10:00"],
    ),
    "outside business hours": Case("2026-03-06 17:00/2026-03-09 09:00", []),
    "several intervals a day, in any order": Case(
        "2026-03-02 11:00/2026-03-03 09:00",
        ["2026-03-02 11:00/12:00", "2026-03-02 13:00/17:00", "2026-03-03 08:00/09:00"],
        SHIFTS,
    ),
    "intervals that touch or overlap": Case(
        "2026-03-02 00:00/23:00",
        ["2026-03-02 08:00/14:00", "2026-03-02 15:00/18:00"],
        calendar("UTC", "10:00-14:00 08:00-10:00 09:00-11:00 09:00-09:30 15:00-17:00 15:00-18:00"),
    ),
    "through midnight": Case(
        "2026-03-02 12:00/2026-03-04 12:00",
        ["2026-03-02 22:00/2026-03-03 06:00", "2026-03-03 22:00/2026-03-04 06:00"],
        calendar("UTC", "22:00-24:00 00:00-06:00"),
    ),
    "round the clock": Case(
        "2026-03-01 12:00/2026-03-09 12:00", ["2026-03-01 12:00/2026-03-09 12:00"], calendar("UTC", "00:00-24:00")
    ),
    "holidays": Case(
        "2026-03-02 16:00/2026-03-05 10:00",
        ["2026-03-02 16:00/17:00", "2026-03-05 09:00/10:00"],
        replace(OFFICE, holidays=frozenset({date(2026, 3, 3), date(2026, 3, 4)})),
    ),
    "a holiday is a local date": Case(
        "2026-03-01 12:00/2026-03-04 12:00",
        ["2026-03-01 12:00/15:00", "2026-03-02 15:00/2026-03-04 12:00"],
        calendar("Asia/Tokyo", "00:00-24:00", holidays=["2026-03-02"]),
    ),
    "no hours": Case("2026-03-02 00:00/2026-04-02 00:00", [], Calendar("UTC", {0: [], 1: ()})),
    "a pause": Case(
        "2026-03-02 09:00/12:00", ["2026-03-02 09:00/10:00", "2026-03-02 11:00/12:00"], None, ["2026-03-02 10:00/11:00"]
    ),
    "a pause in business hours": Case(
        "2026-03-02 09:00/23:00",
        ["2026-03-02 09:00/10:00", "2026-03-02 11:00/17:00"],
        pauses=["2026-03-02 10:00/11:00"],
    ),
    "a pause at an end of business hours": Case(
        "2026-03-02 00:00/2026-03-03 23:00",
        ["2026-03-02 09:00/17:00", "2026-03-03 09:00/17:00"],
        pauses=["2026-03-02 17:00/2026-03-03 09:00"],
    ),
    "a pause across ends of business hours": Case(
        "2026-03-02 00:00/2026-03-03 23:00",
        ["2026-03-02 09:00/16:30", "2026-03-03 10:15/17:00"],
        pauses=["2026-03-02 16:30/2026-03-03 10:15"],
    ),
    "a pause outside business hours": Case(
        "2026-03-02 00:00/23:00", ["2026-03-02 09:00/17:00"], pauses=["2026-03-02 18:00/19:00"]
    ),
    "a pause before the start and one across the end": Case(
        "2026-03-02 10:00/12:00",
        ["2026-03-02 10:30/11:30"],
        pauses=["2026-03-02 09:00/10:30", "2026-03-02 11:30/13:00", "2026-03-02 14:00/15:00", "2026-03-01 14:00/15:00"],
    ),
    "pauses that overlap, in any order": Case(
        "2026-03-02 09:00/17:00",
        ["2026-03-02 09:00/10:00", "2026-03-02 13:00/17:00"],
        pauses=["2026-03-02 12:00/13:00", "2026-03-02 11:00/11:30", "2026-03-02 10:00/12:30"],
    ),
    "pauses without length, and with less": Case(
        "2026-03-02 09:00/17:00",
        ["2026-03-02 09:00/17:00"],
        pauses=["2026-03-02 10:00/10:00", "2026-03-02 12:00/11:00"],
    ),
    "an open pause": Case(
        "2026-03-02 09:00/2026-03-05 17:00", ["2026-03-02 09:00/10:00"], pauses=["2026-03-02 10:00/"]
    ),
    "an open pause over others": Case(
        "2026-03-02 09:00/2026-03-05 17:00",
        ["2026-03-02 09:00/10:00"],
        pauses=["2026-03-02 12:00/13:00", "2026-03-02 10:00/"],
    ),
    "the year ends": Case(
        "2027-12-31 12:00/2028-01-01 12:00",
        ["2027-12-31 22:00/2028-01-01 07:00"],
        calendar("America/New_York", "17:00-24:00 00:00-02:00"),
    ),
    "a leap day": Case(
        "2028-02-28 12:00/2028-03-01 10:00",
        ["2028-02-28 12:00/17:00", "2028-02-29 09:00/17:00", "2028-03-01 09:00/10:00"],
    ),
    "no leap day": Case(
        "2026-02-27 12:00/2026-03-02 10:00",
        ["2026-02-27 12:00/17:00", "2026-03-02 09:00/10:00"],
    ),
    "offsets of three quarters of an hour": Case(
        "2026-03-02 00:00/2026-03-03 00:00", ["2026-03-02 03:15/11:15"], calendar("Asia/Kathmandu", "09:00-17:00")
    ),
    # Clocks go forward.
    "hours around a gap": Case(
        "2026-03-28 12:00/2026-03-29 12:00", ["2026-03-29 00:30/01:30"], calendar(BERLIN, "01:30-03:30")
    ),
    "hours that start in a gap": Case(
        "2026-03-28 12:00/2026-03-29 12:00", ["2026-03-29 01:00/01:30"], calendar(BERLIN, "02:30-03:30")
    ),
    "hours that end in a gap": Case(
        "2026-03-28 12:00/2026-03-29 12:00", ["2026-03-29 00:30/01:00"], calendar(BERLIN, "01:30-02:30")
    ),
    "hours that a gap swallows": Case(
        "2026-03-28 12:00/2026-03-30 12:00", ["2026-03-30 00:15/00:45"], calendar(BERLIN, "02:15-02:45")
    ),
    "hours on both sides of a gap": Case(
        "2026-03-28 12:00/2026-03-29 12:00", ["2026-03-29 00:30/01:30"], calendar(BERLIN, "01:30-02:15 02:45-03:30")
    ),
    "a day after a gap at midnight": Case(
        "2026-03-28 12:00/2026-03-29 12:00",
        ["2026-03-28 21:00/22:30"],
        calendar("Asia/Beirut", "23:00-24:00 00:00-01:30"),
    ),
    "a gap of half an hour": Case(
        "2026-10-03 00:00/2026-10-04 00:00", ["2026-10-03 15:00/16:00"], calendar("Australia/Lord_Howe", "01:30-03:00")
    ),
    # Clocks go back.
    "hours around a fold": Case(
        "2026-10-24 12:00/2026-10-25 12:00", ["2026-10-24 23:30/2026-10-25 02:30"], calendar(BERLIN, "01:30-03:30")
    ),
    "hours that start in a fold": Case(
        "2026-10-24 12:00/2026-10-25 12:00",
        ["2026-10-25 00:30/01:00", "2026-10-25 01:30/02:30"],
        calendar(BERLIN, "02:30-03:30"),
    ),
    "hours that end in a fold": Case(
        "2026-10-24 12:00/2026-10-25 12:00",
        ["2026-10-24 23:30/2026-10-25 00:30", "2026-10-25 01:00/01:30"],
        calendar(BERLIN, "01:30-02:30"),
    ),
    "hours within a fold": Case(
        "2026-10-24 12:00/2026-10-25 12:00",
        ["2026-10-25 00:15/00:45", "2026-10-25 01:15/01:45"],
        calendar(BERLIN, "02:15-02:45"),
    ),
    "all of a fold": Case(
        "2026-10-24 12:00/2026-10-25 12:00", ["2026-10-25 00:00/02:00"], calendar(BERLIN, "02:00-03:00")
    ),
    "a start in the second pass of a fold": Case(
        "2026-10-25 01:20/12:00", ["2026-10-25 01:20/01:45"], calendar(BERLIN, "02:15-02:45")
    ),
    "a fold at midnight, back into yesterday": Case(
        "2026-10-24 12:00/2026-10-25 12:00",
        ["2026-10-24 20:30/21:00", "2026-10-24 21:30/22:30"],
        calendar("Asia/Beirut", "23:30-24:00 00:00-00:30"),
    ),
    "a fold that starts today twice": Case(
        "2010-11-06 12:00/2010-11-07 12:00",
        ["2010-11-07 02:30/02:31", "2010-11-07 03:30/04:00"],
        calendar("America/St_Johns", "00:00-00:30"),
    ),
    "a fold of half an hour": Case(
        "2026-04-04 00:00/2026-04-05 00:00",
        ["2026-04-04 14:45/15:00", "2026-04-04 15:15/16:00"],
        calendar("Australia/Lord_Howe", "01:45-02:30"),
    ),
    "clocks that went back after a week": Case(
        "2000-10-07 16:00/2000-10-20 16:00",
        ["2000-10-11 12:00/13:00", "2000-10-18 13:00/14:00"],
        calendar("America/Boa_Vista", "09:00-10:00", [2]),
    ),
    # Samoa went from Thursday 2011-12-29 to Saturday.
    "a day that did not exist": Case(
        "2011-12-29 12:00/2011-12-31 12:00",
        ["2011-12-29 19:00/2011-12-30 03:00", "2011-12-30 19:00/2011-12-31 03:00"],
        calendar("Pacific/Apia", "09:00-17:00"),
    ),
    "hours of a day that did not exist": Case(
        "2011-12-25 00:00/2012-01-07 00:00",
        ["2012-01-05 19:00/2012-01-06 03:00"],
        calendar("Pacific/Apia", "09:00-17:00", [4]),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_counts(case: Case) -> None:
    start, end = map(instant, bounds(case.span))
    assert counted(start, end, pauses(*case.pauses), case.calendar) == spans(*case.expected)


@pytest.mark.parametrize(
    "hours", [{7: [(0, 60)]}, {-1: [(0, 60)]}, {0: [(60, 60)]}, {0: [(120, 60)]}, {0: [(0, 1441)]}, {0: [(-1, 60)]}]
)
def test_there_are_seven_weekdays_of_24_hours(hours: Mapping[int, Sequence[tuple[int, int]]]) -> None:
    with pytest.raises(ValueError, match=r"^Not "):
        Calendar("UTC", hours)


# Due

WEEKLY = calendar(BERLIN, "09:00-10:00", [0])


@dataclass(frozen=True)
class Due:
    """When a number of minutes has counted since a start."""

    start: str
    minutes: int
    expected: str | None
    calendar: Calendar | None = OFFICE
    pauses: Sequence[str] = ()


DUES: Mapping[str, Due] = {
    "plain minutes": Due("2026-03-02 09:30:15.25", 45, "2026-03-02 10:15:15.25", None),
    "plain minutes of years": Due("2026-03-02 00:00", 60 * 24 * 1461, "2030-03-02 00:00", None),
    "within a day": Due("2026-03-02 10:00", 60, "2026-03-02 11:00"),
    "before the day begins": Due("2026-03-02 03:00", 60, "2026-03-02 10:00"),
    "just when a day ends": Due("2026-03-02 16:00", 60, "2026-03-02 17:00"),
    "just after a weekend": Due("2026-03-06 16:00", 61, "2026-03-09 09:01"),
    "a start that is not a whole minute": Due("2026-03-06 16:59:30", 1, "2026-03-09 09:00:30"),
    "over a break": Due("2026-03-02 11:00", 120, "2026-03-02 14:00", SHIFTS),
    "over intervals that overlap": Due(
        "2026-03-02 00:00", 181, "2026-03-03 08:01", calendar("UTC", "08:00-10:00 09:00-11:00 09:15-09:30")
    ),
    "over holidays": Due(
        "2026-12-31 16:30", 60, "2027-01-04 09:30", calendar("UTC", "09:00-17:00", WORKDAYS, ["2027-01-01"])
    ),
    "over a pause": Due("2026-03-02 09:00", 60, "2026-03-02 11:00", OFFICE, ["2026-03-02 09:30/10:30"]),
    "just when a pause begins": Due("2026-03-02 09:00", 30, "2026-03-02 09:30", OFFICE, ["2026-03-02 09:30/10:30"]),
    "before a pause": Due("2026-03-02 09:00", 60, "2026-03-02 10:00", OFFICE, ["2026-03-02 10:30/11:30"]),
    "over a pause through the night": Due(
        "2026-03-02 16:00", 60, "2026-03-03 10:00", OFFICE, ["2026-03-02 16:30/2026-03-03 09:30"]
    ),
    "over a pause at night": Due("2026-03-02 16:00", 90, "2026-03-03 09:30", OFFICE, ["2026-03-02 18:00/19:00"]),
    "before an open pause": Due("2026-03-02 09:00", 60, "2026-03-02 10:00", OFFICE, ["2026-03-02 10:00/"]),
    "not before an open pause": Due("2026-03-02 09:00", 61, None, OFFICE, ["2026-03-02 10:00/"]),
    "an open pause of all hours": Due("2026-03-02 09:00", 61, None, None, ["2026-03-02 10:00/"]),
    "over a gap": Due("2026-03-29 00:00", 120, "2026-03-29 02:00", calendar(BERLIN, "00:00-12:00")),
    "over a gap in hours that begin in it": Due(
        "2026-03-29 00:00", 60, "2026-03-29 02:00", calendar(BERLIN, "02:30-12:00")
    ),
    "over a fold": Due("2026-10-24 22:00", 240, "2026-10-25 02:00", calendar(BERLIN, "00:00-03:00")),
    "over a day that did not exist": Due(
        "2011-12-30 02:00", 120, "2011-12-30 20:00", calendar("Pacific/Apia", "09:00-17:00")
    ),
    "years of one hour a week": Due("2026-01-01 00:00", 60 * 200, "2029-10-29 09:00", WEEKLY),
    "no hours": Due("2026-03-02 09:00", 1, None, Calendar("UTC", {})),
    "beyond the horizon": Due("2026-03-02 09:00", 60 * 10_000, None, WEEKLY),
    "beyond the horizon at all hours": Due("2026-03-02 09:00", 60 * 24 * 366 * 20, None, None),
}


@pytest.mark.parametrize("due", DUES.values(), ids=DUES)
def test_when_a_target_is_due(due: Due) -> None:
    found = due_at(instant(due.start), due.minutes, pauses(*due.pauses), due.calendar)
    assert found == (due.expected and instant(due.expected))


# Standing


@dataclass(frozen=True)
class StandingCase:
    """How a target of two hours from Monday 2026-03-02 16:00 stands. It is due as if there were no open pause."""

    now: str
    elapsed: int
    remaining: int
    due: str | None
    breached: bool = False
    met: str | None = None
    pauses: Sequence[str] = ()


STANDINGS: Mapping[str, StandingCase] = {
    "at once": StandingCase("2026-03-02 16:00", 0, 120, "2026-03-03 10:00"),
    "under way": StandingCase("2026-03-02 16:20", 20, 100, "2026-03-03 10:00"),
    "at night": StandingCase("2026-03-02 23:00", 60, 60, "2026-03-03 10:00"),
    "at the due instant": StandingCase("2026-03-03 10:00", 120, 0, "2026-03-03 10:00"),
    "breached": StandingCase("2026-03-03 10:00:01", 120, 0, "2026-03-03 10:00", breached=True),
    "breached long ago": StandingCase("2026-03-04 10:00", 600, 0, "2026-03-03 10:00", breached=True),
    "met": StandingCase("2026-03-09 10:00", 90, 30, "2026-03-03 10:00", met="2026-03-03 09:30"),
    "met at the due instant": StandingCase("2026-03-09 10:00", 120, 0, "2026-03-03 10:00", met="2026-03-03 10:00"),
    "met late": StandingCase("2026-03-09 10:00", 150, 0, "2026-03-03 10:00", breached=True, met="2026-03-03 10:30"),
    "in an open pause": StandingCase("2026-03-06 10:00", 30, 90, "2026-03-03 10:00", pauses=["2026-03-02 16:30/"]),
    "after a pause": StandingCase(
        "2026-03-03 10:00", 75, 45, "2026-03-03 10:45", pauses=["2026-03-02 16:30/2026-03-03 09:15"]
    ),
    "breached before an open pause": StandingCase(
        "2026-03-06 10:00", 180, 0, "2026-03-03 10:00", breached=True, pauses=["2026-03-03 11:00/"]
    ),
    "met in an open pause": StandingCase(
        "2026-03-06 10:00", 30, 90, "2026-03-03 10:00", met="2026-03-03 09:30", pauses=["2026-03-02 16:30/"]
    ),
    "met before a pause, which no longer matters": StandingCase(
        "2026-03-06 10:00", 30, 90, "2026-03-03 10:00", met="2026-03-02 16:30", pauses=["2026-03-02 16:30/"]
    ),
}


@pytest.mark.parametrize("case", STANDINGS.values(), ids=STANDINGS)
def test_how_a_target_stands(case: StandingCase) -> None:
    start, met_at = instant("2026-03-02 16:00"), None if case.met is None else instant(case.met)
    stops, due = pauses(*case.pauses), None if case.due is None else instant(case.due)
    assert due_at(start, 120, [stop for stop in stops if stop.end is not None], OFFICE) == due
    standing = explain(start, due, stops, OFFICE, met_at=met_at, now=instant(case.now))
    assert standing.breached_at == (due if case.breached else None)
    assert standing.remaining is not None
    assert (standing.elapsed // MINUTE, standing.remaining // MINUTE) == (case.elapsed, case.remaining)


def test_a_target_that_is_never_due_has_no_remaining_time_and_is_never_breached() -> None:
    start, never = instant("2026-03-02 16:00"), Calendar("UTC", {})
    assert due_at(start, 1, (), never) is None
    standing = explain(start, None, (), never, met_at=None, now=instant("2040-01-01 00:00"))
    assert (standing.counted, standing.remaining, standing.breached_at) == ([], None, None)


def test_counted_and_paused_spans_are_in_order_and_merged() -> None:
    stops = pauses("2026-03-03 12:00/", "2026-03-02 16:30/18:00", "2026-03-02 17:00/2026-03-03 10:00")
    due = instant("2026-03-03 14:30")
    assert explain(
        instant("2026-03-02 16:00"), due, stops, OFFICE, met_at=None, now=instant("2026-03-03 13:00")
    ) == Standing(
        counted=spans("2026-03-02 16:00/16:30", "2026-03-03 10:00/12:00"),
        paused=spans("2026-03-02 16:30/2026-03-03 10:00", "2026-03-03 12:00/13:00"),
        elapsed=timedelta(hours=2, minutes=30),
        remaining=timedelta(hours=2, minutes=30),
        breached_at=None,
    )
