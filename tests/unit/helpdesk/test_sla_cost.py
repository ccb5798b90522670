"""contracts/helpdesk.md, SLA: a computation is cheap for every calendar that is accepted, counted in lines that run."""

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from types import FrameType
from typing import Any

import pytest

from service import jsontext
from service.helpdesk.commands import CalendarMembers, UpdateCalendar
from service.helpdesk.sla.business_hours import Calendar
from service.helpdesk.sla.clock import LISTED, LONGEST_SEARCH, Pause, due_at, elapsed, explain
from service.helpdesk.sla.terms import calendar_columns, calendar_of

START = datetime(2026, 3, 2, 16, 7, tzinfo=UTC)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
A_YEAR = 525_600


def hours(weekday: str, start: int, end: int) -> dict[str, str]:
    """In minutes since midnight."""
    return {
        "weekday": weekday,
        **{name: f"{at // 60:02}:{at % 60:02}" for name, at in (("start", start), ("end", end))},
    }


# At the bounds of commands.py: the most intervals, the most holidays, the fewest minutes, zones that change most often.
CALENDARS: Mapping[str, dict[str, Any]] = {
    "a minute a week": {"hours": [hours("monday", 0, 1)]},
    "a hundred minutes of one day": {"hours": [hours("friday", 14 * n, 14 * n + 1) for n in range(100)]},
    "a hundred intervals": {"hours": [hours(WEEKDAYS[n % 7], 96 * (n // 7), 96 * (n // 7) + 90) for n in range(100)]},
    "around the clock": {"hours": [hours(weekday, 0, 1440) for weekday in WEEKDAYS]},
    "a thousand holidays in a row": {"holidays": [str(date(2026, 3, 3) + timedelta(days=n)) for n in range(1000)]},
    "every other day a holiday": {"holidays": [str(date(2026, 3, 3) + timedelta(days=2 * n)) for n in range(1000)]},
    "four changes of the offset a year": {"time_zone": "Africa/Casablanca"},
    "never": {"hours": []},
}


def calendar(members: dict[str, Any]) -> Calendar:
    """The calendar that a PATCH with these members makes."""
    body = UpdateCalendar.model_validate({"body": members}).body
    columns = calendar_columns(body)
    return calendar_of({**columns, "holidays": jsontext.text([str(day) for day in columns["holidays"]])})


def lines(computation: Callable[[], object]) -> int:
    """How many lines of service/helpdesk/sla run in a computation."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        if "helpdesk/sla" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        computation()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("case", CALENDARS)
def test_a_computation_takes_few_steps_whatever_the_calendar_and_the_target(case: str) -> None:
    counting = calendar(CALENDARS[case])
    # What is added up once for a calendar, and for the years of a zone.
    assert lines(lambda: due_at(START, 1, (), counting)) < 20_000
    for minutes in (1, 250, 10_000, A_YEAR):
        assert lines(lambda: due_at(START, minutes, (), counting)) < 100  # noqa: B023 - called at once
    assert lines(lambda: elapsed(START, START + LONGEST_SEARCH, (), counting)) < 100


def test_a_pause_adds_a_few_steps() -> None:
    counting = calendar(CALENDARS["a hundred intervals"])
    pauses = [Pause(at, at + timedelta(days=1)) for at in (START + timedelta(days=2 * n) for n in range(100))]
    due_at(START, 1, (), counting)
    assert lines(lambda: due_at(START, A_YEAR, pauses, counting)) < 100 * 100


def test_of_years_of_intervals_only_the_last_are_looked_at() -> None:
    counting = calendar(CALENDARS["a hundred intervals"])
    due_at(START, 1, (), counting)

    def standing() -> int:
        found = explain(START, None, (), counting, met_at=None, now=START + LONGEST_SEARCH)
        return len(found.counted)

    assert standing() == LISTED
    assert lines(standing) < 20 * LISTED


def test_bounds_of_a_calendar_are_those_that_are_tried_here() -> None:
    for name, most in (("hours", 100), ("holidays", 1000)):
        bounds = [getattr(part, "max_length", None) for part in CalendarMembers.model_fields[name].metadata]
        assert most in bounds
