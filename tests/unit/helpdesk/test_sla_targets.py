"""contracts/helpdesk.md, SLA: what a policy makes due, which events are told and when, and what is shown."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.helpdesk.sla.clock import Calendar, Pause
from service.helpdesk.sla.targets import Policy, Terms, dues, outlook, standings

# A Monday; every instant here is minutes since then.
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
OFFICE = Calendar("UTC", {day: [(9 * 60, 17 * 60)] for day in range(5)})
PLAIN = Policy(20, 240, business_hours_only=False)
SOON_AND_LATE = ["resolution.due_soon@180", "resolution.breached@240"]


def at(minute: int | None) -> datetime | None:
    return None if minute is None else START + timedelta(minutes=minute)


def terms(policy: Policy | None = PLAIN, now: int = 0, pauses: Sequence[tuple[int, int]] = ()) -> Terms:
    over = [Pause(START + timedelta(minutes=start), at(end)) for start, end in pauses]
    return Terms(START + timedelta(minutes=now), policy, OFFICE, over)


def ticket(**members: Any) -> dict[str, Any]:
    """A ticket's row, with minutes for instants."""
    names = ("created_at", "first_response_at", "resolved_at", "due_at", "first_response_due_at", "paused_at")
    stamps = {"created_at": 0} | {name: members.pop(name) for name in names if name in members}
    row = {"due_at_given": False, "sla_emitted": [], **members}
    return row | {name: at(stamps.get(name)) for name in names}


DUES: Mapping[str, tuple[dict[str, Any], Terms, dict[str, int | None]]] = {
    "no policy": ({}, terms(None), {"first_response_due_at": None, "due_at": None}),
    "both": ({}, terms(), {"first_response_due_at": 20, "due_at": 240}),
    "no response is promised": ({}, terms(Policy(None, 1, False)), {"first_response_due_at": None, "due_at": 1}),
    "a response was given": ({"first_response_at": 5}, terms(), {"due_at": 240}),
    "a given instant stays": ({"due_at_given": True}, terms(), {"first_response_due_at": 20}),
    "one without a policy too": ({"due_at_given": True}, terms(None), {"first_response_due_at": None}),
    "pauses that are over": ({}, terms(pauses=[(5, 10), (100, 200)]), {"first_response_due_at": 25, "due_at": 345}),
    "an open one does not count yet": ({"paused_at": 5}, terms(), {"first_response_due_at": 20, "due_at": 240}),
    "business hours": (
        {},
        terms(Policy(480, 481, business_hours_only=True)),
        {"first_response_due_at": 480, "due_at": 24 * 60 + 1},
    ),
    "all hours, whatever the calendar": (
        {},
        terms(Policy(480, 481, business_hours_only=False)),
        {"first_response_due_at": 480, "due_at": 481},
    ),
}


@pytest.mark.parametrize("case", DUES)
def test_what_is_due_when(case: str) -> None:
    members, under, expected = DUES[case]
    assert dues(ticket(**members), under, anew=False) == {name: at(minute) for name, minute in expected.items()}


# Policy minutes of a resolution, and when it is due soon.
SOONS = [(1, 1), (2, 2), (3, 3), (4, 3), (15, 12), (60, 45), (239, 180), (240, 180), (241, 181), (1000, 940)]


@pytest.mark.parametrize(("minutes", "soon"), SOONS)
def test_due_soon_is_an_hour_before_or_when_three_quarters_are_over(minutes: int, soon: int) -> None:
    news = outlook(ticket(due_at=minutes), terms(Policy(None, minutes, business_hours_only=False))).ahead
    assert [(event.name, event.at) for event in news] == [
        ("resolution.due_soon", at(soon)),
        ("resolution.breached", at(minutes)),
    ]


@pytest.mark.parametrize(
    ("members", "under", "told", "ahead"),
    [
        pytest.param({}, terms(None), [], [], id="no policy"),
        pytest.param(
            {"due_at": 240, "first_response_due_at": 20},
            terms(),
            [],
            ["first_response.due_soon@15", "first_response.breached@20", *SOON_AND_LATE],
            id="both targets, in the order of their instants",
        ),
        pytest.param(
            {"due_at": 240, "first_response_due_at": 20, "first_response_at": 15},
            terms(),
            [],
            SOON_AND_LATE,
            id="what was met in time is not told",
        ),
        pytest.param(
            {"due_at": 240, "first_response_due_at": 20, "first_response_at": 21},
            terms(),
            [],
            ["first_response.breached@20", *SOON_AND_LATE],
            id="what was met late is, without a warning",
        ),
        pytest.param(
            {"due_at": 240, "first_response_due_at": 20, "first_response_at": 20},
            terms(),
            [],
            SOON_AND_LATE,
            id="met at the due instant is in time",
        ),
        pytest.param(
            {"due_at": 240, "first_response_due_at": 20, "resolved_at": 17},
            terms(),
            [],
            [],
            id="a resolution ends both",
        ),
        pytest.param(
            {"due_at": 240, "resolved_at": 200, "sla_emitted": ["resolution.due_soon"]},
            terms(Policy(None, 240, False), now=200),
            ["resolution.due_soon"],
            [],
            id="what was told stays told when it is met",
        ),
        pytest.param(
            {"due_at": 240, "sla_emitted": ["resolution.due_soon"]},
            terms(Policy(None, 240, False), now=200),
            ["resolution.due_soon"],
            ["resolution.breached@240"],
            id="what was told is not told twice",
        ),
        pytest.param(
            {"due_at": 240, "sla_emitted": ["resolution.due_soon", "resolution.breached"]},
            terms(Policy(None, 240, False), now=100),
            [],
            SOON_AND_LATE,
            id="but when it lies ahead again",
        ),
        pytest.param(
            {"due_at": 240, "paused_at": 200},
            terms(Policy(None, 240, False), now=300),
            [],
            ["resolution.due_soon@180"],
            id="an open pause hides what comes behind it",
        ),
        pytest.param(
            {"due_at": 240, "paused_at": 240},
            terms(Policy(None, 240, False), now=300),
            [],
            SOON_AND_LATE,
            id="and not what is due as it begins",
        ),
        pytest.param(
            {"due_at": 250},
            terms(Policy(None, 240, False), pauses=[(170, 180)]),
            [],
            ["resolution.due_soon@190", "resolution.breached@250"],
            id="pauses that are over move both",
        ),
        pytest.param(
            {"due_at": 100, "due_at_given": True, "paused_at": 10},
            terms(Policy(None, 240, False), pauses=[(1, 5)]),
            [],
            ["resolution.due_soon@40", "resolution.breached@100"],
            id="a given instant goes by the clock on the wall",
        ),
        pytest.param({"due_at_given": True}, terms(Policy(None, 240, False)), [], [], id="given is that there is none"),
        pytest.param(
            {"due_at": 24 * 60 + 1},
            terms(Policy(None, 481, business_hours_only=True)),
            [],
            ["resolution.due_soon@421", "resolution.breached@1441"],
            id="an hour of business hours before",
        ),
    ],
)
def test_what_is_told_and_what_is_to_be(
    members: dict[str, Any], under: Terms, told: list[str], ahead: list[str]
) -> None:
    news = outlook(ticket(**members), under)
    minutes = [int((event.at - START).total_seconds()) // 60 for event in news.ahead]
    assert news.told == told
    assert [f"{event.name}@{minute}" for event, minute in zip(news.ahead, minutes, strict=True)] == ahead


@pytest.mark.parametrize(
    ("members", "policy", "expected"),
    [
        ({}, None, {}),
        ({"due_at": 240}, Policy(None, 240, False), {"resolution": (240, 240, None)}),
        (
            {"due_at": 240, "first_response_due_at": 20, "resolved_at": 9},
            PLAIN,
            {"first_response": (20, 20, 9), "resolution": (240, 240, 9)},
        ),
        (
            {"due_at": 240, "first_response_due_at": 20, "first_response_at": 7, "resolved_at": 9},
            PLAIN,
            {"first_response": (20, 20, 7), "resolution": (240, 240, 9)},
        ),
        ({"due_at": 77, "due_at_given": True}, None, {"resolution": (None, 77, None)}),
        ({"due_at": 77, "due_at_given": True}, Policy(None, 240, False), {"resolution": (None, 77, None)}),
        ({"due_at_given": True}, Policy(None, 240, False), {}),
        ({}, Policy(None, 240, False), {"resolution": (240, None, None)}),
    ],
    ids=[
        "no policy",
        "one target",
        "a resolution ends the wait for a response",
        "a response comes first",
        "a given instant has no minutes",
        "nor with a policy",
        "none is given",
        "never due",
    ],
)
def test_which_targets_a_ticket_has(members: dict[str, Any], policy: Policy | None, expected: dict[str, Any]) -> None:
    found = standings(ticket(**members), terms(policy, now=300))
    assert {name: promise[1:] for name, (promise, _) in found.items()} == {
        name: (minutes, at(due), at(met)) for name, (minutes, due, met) in expected.items()
    }


def test_the_open_pause_and_those_that_are_over_are_in_the_standing_and_no_pause_where_it_was_given() -> None:
    under = terms(Policy(20, 240, False), now=300, pauses=[(10, 30)])
    row = ticket(due_at=200, due_at_given=True, first_response_due_at=40, paused_at=35)
    found = {name: standing for name, (_, standing) in standings(row, under).items()}
    assert found["first_response"].paused == [(at(10), at(30)), (at(35), at(300))]
    assert found["first_response"].elapsed == timedelta(minutes=15)
    assert found["first_response"].breached_at is None
    assert found["resolution"].paused == []
    assert (found["resolution"].elapsed, found["resolution"].breached_at) == (timedelta(minutes=300), at(200))
