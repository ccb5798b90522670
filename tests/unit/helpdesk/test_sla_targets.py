"""contracts/helpdesk.md, SLA: when targets are due, which events are emitted and when, and how targets stand."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.helpdesk.sla.business_hours import Calendar
from service.helpdesk.sla.clock import Pause
from service.helpdesk.sla.targets import Policy, Terms, due_instants, given, schedule, standings

# A Monday; every instant here is minutes since then.
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
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
    "no target for the first response": (
        {},
        terms(Policy(None, 1, False)),
        {"first_response_due_at": None, "due_at": 1},
    ),
    "a response was given": ({"first_response_at": 5}, terms(), {"due_at": 240}),
    "a given instant stays": ({"due_at_given": True}, terms(), {"first_response_due_at": 20}),
    "also without a policy": ({"due_at_given": True}, terms(None), {"first_response_due_at": None}),
    "pauses that have ended": ({}, terms(pauses=[(5, 10), (100, 200)]), {"first_response_due_at": 25, "due_at": 345}),
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
def test_when_targets_are_due(case: str) -> None:
    members, under, expected = DUES[case]
    assert due_instants(ticket(**members), under, new_policy=False) == {
        name: at(minute) for name, minute in expected.items()
    }


# Minutes of a resolution, and when it is due soon.
SOONS = [(1, 1), (2, 2), (3, 3), (4, 3), (15, 12), (60, 45), (239, 180), (240, 180), (241, 181), (1000, 940)]


@pytest.mark.parametrize(("minutes", "soon"), SOONS)
def test_due_soon_is_an_hour_before_or_when_three_quarters_are_over(minutes: int, soon: int) -> None:
    events = schedule(ticket(due_at=minutes), terms(Policy(None, minutes, business_hours_only=False))).upcoming
    assert [(event.name, event.at) for event in events] == [
        ("resolution.due_soon", at(soon)),
        ("resolution.breached", at(minutes)),
    ]


@pytest.mark.parametrize(
    ("members", "under", "emitted", "upcoming"),
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
            id="met in time: no event",
        ),
        pytest.param(
            {"due_at": 240, "first_response_due_at": 20, "first_response_at": 21},
            terms(),
            [],
            ["first_response.breached@20", *SOON_AND_LATE],
            id="met late: breached, without a warning",
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
            id="emitted stays emitted when it is met",
        ),
        pytest.param(
            {"due_at": 240, "sla_emitted": ["resolution.due_soon"]},
            terms(Policy(None, 240, False), now=200),
            ["resolution.due_soon"],
            ["resolution.breached@240"],
            id="emitted is not emitted twice",
        ),
        pytest.param(
            {"due_at": 240, "sla_emitted": ["resolution.due_soon", "resolution.breached"]},
            terms(Policy(None, 240, False), now=100),
            [],
            SOON_AND_LATE,
            id="unless it moved into the future",
        ),
        pytest.param(
            {"due_at": 240},
            terms(Policy(None, 240, False), now=240),
            [],
            SOON_AND_LATE,
            id="a warning that nobody heard, while it is not past",
        ),
        pytest.param(
            {"due_at": 240},
            terms(Policy(None, 240, False), now=241),
            [],
            ["resolution.breached@240"],
            id="no warning of an instant that has passed",
        ),
        pytest.param(
            {"due_at": 240, "paused_at": 200},
            terms(Policy(None, 240, False), now=201),
            [],
            ["resolution.due_soon@180"],
            id="an open pause hides what comes after it",
        ),
        pytest.param(
            {"due_at": 240, "paused_at": 240},
            terms(Policy(None, 240, False), now=300),
            [],
            ["resolution.breached@240"],
            id="but not what is due as it begins",
        ),
        pytest.param(
            {"due_at": 240, "first_response_due_at": 20, "resolved_at": 21},
            terms(),
            [],
            ["first_response.breached@20"],
            id="resolved by a version without its pause",
        ),
        pytest.param(
            {"due_at": 270, "first_response_due_at": 20, "first_response_at": 30},
            terms(now=50, pauses=[(10, 40)]),
            [],
            ["resolution.due_soon@210", "resolution.breached@270"],
            id="a response while the clock stood still is in time",
        ),
        pytest.param(
            {"due_at": 250},
            terms(Policy(None, 240, False), pauses=[(170, 180)]),
            [],
            ["resolution.due_soon@190", "resolution.breached@250"],
            id="pauses that have ended move both",
        ),
        pytest.param(
            {"due_at": 100, "due_at_given": True},
            terms(Policy(None, 240, False), pauses=[(1, 5)]),
            [],
            ["resolution.due_soon@40", "resolution.breached@100"],
            id="a given instant stays where it is",
        ),
        pytest.param(
            {"due_at": 100, "due_at_given": True, "paused_at": 50},
            terms(now=60),
            [],
            ["resolution.due_soon@40"],
            id="but is not passed while the clock stands still",
        ),
        pytest.param(
            {"due_at": 100, "due_at_given": True},
            terms(now=300, pauses=[(50, 200)]),
            [],
            [],
            id="nor later when it was within a pause",
        ),
        pytest.param(
            {"due_at": 100, "due_at_given": True},
            terms(now=300, pauses=[(100, 200)]),
            [],
            ["resolution.breached@100"],
            id="unless the pause began with it",
        ),
        pytest.param({"due_at": -1, "due_at_given": True}, terms(now=1), [], [], id="given before the ticket existed"),
        pytest.param(
            {"due_at": 5, "due_at_given": True, "sla_emitted": given([], at(5), START + timedelta(minutes=6))},
            terms(now=9),
            ["resolution.over"],
            [],
            id="over when it was given",
        ),
        pytest.param(
            {"due_at": 240, "sla_emitted": ["resolution.over"]},
            terms(Policy(None, 240, False), now=300),
            [],
            ["resolution.breached@240"],
            id="until a policy says when it is due",
        ),
        pytest.param({"due_at_given": True}, terms(Policy(None, 240, False)), [], [], id="given as null"),
        pytest.param(
            {"due_at": 24 * 60 + 1},
            terms(Policy(None, 481, business_hours_only=True)),
            [],
            ["resolution.due_soon@421", "resolution.breached@1441"],
            id="an hour of business hours before",
        ),
    ],
)
def test_which_events_were_emitted_and_are_upcoming(
    members: dict[str, Any], under: Terms, emitted: list[str], upcoming: list[str]
) -> None:
    found = schedule(ticket(**members), under)
    minutes = [int((event.at - START).total_seconds()) // 60 for event in found.upcoming]
    assert found.emitted == emitted
    assert [f"{event.name}@{minute}" for event, minute in zip(found.upcoming, minutes, strict=True)] == upcoming


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
        "a resolution meets the first response too",
        "a response comes first",
        "a given instant has no minutes",
        "nor with a policy",
        "given as null",
        "never due",
    ],
)
def test_which_targets_a_ticket_has(members: dict[str, Any], policy: Policy | None, expected: dict[str, Any]) -> None:
    found = standings(ticket(**members), terms(policy, now=300))
    assert {name: target[1:] for name, (target, _) in found.items()} == {
        name: (minutes, at(due), at(met)) for name, (minutes, due, met) in expected.items()
    }


@pytest.mark.parametrize(
    ("emitted", "due", "expected"),
    [
        (["resolution.due_soon"], 9, ["resolution.due_soon", "resolution.over"]),
        (["resolution.over"], 9, ["resolution.over"]),
        (["resolution.over"], 10, []),
        (["resolution.over", "resolution.breached"], None, ["resolution.breached"]),
    ],
)
def test_a_given_instant_is_over_or_is_not(emitted: list[str], due: int | None, expected: list[str]) -> None:
    assert given(emitted, at(due), START + timedelta(minutes=10)) == expected


def test_standings_have_open_and_ended_pauses() -> None:
    under = terms(Policy(20, 240, False), now=300, pauses=[(10, 30)])
    row = ticket(due_at=200, due_at_given=True, first_response_due_at=40, paused_at=35)
    found = {name: standing for name, (_, standing) in standings(row, under).items()}
    assert found["first_response"].paused == [(at(10), at(30)), (at(35), at(300))]
    assert found["first_response"].elapsed == timedelta(minutes=15)
    assert found["first_response"].breached_at is None
    # A given instant stays where it is, and the time before it runs and stands still as for any target.
    assert (found["resolution"].paused, found["resolution"].elapsed) == (found["first_response"].paused, 15 * MINUTE)
    assert (found["resolution"].remaining, found["resolution"].breached_at) == (165 * MINUTE, None)


@pytest.mark.parametrize(
    ("due", "pauses", "breached"), [(200, [(10, 30)], 200), (20, [(10, 30)], None), (30, [(10, 30)], 30), (-9, [], 0)]
)
def test_a_given_instant_is_breached_unless_the_clock_stood_still(
    due: int, pauses: list[tuple[int, int]], breached: int | None
) -> None:
    _, found = standings(ticket(due_at=due, due_at_given=True), terms(None, now=300, pauses=pauses))["resolution"]
    assert (found.breached_at, found.remaining) == (at(breached), 0 * MINUTE)
