"""contracts/handoff.md, "Life of a ticket": the stamps of deployment reports, in any order of arrival."""

from copy import deepcopy
from datetime import datetime, timedelta
from itertools import permutations

import hypothesis
import pytest
from hypothesis import strategies as st
from support.handoff_rows import NOW, OUTCOMES, THEN, differences, ticket

from service.handoff import lifecycle


def instant(hour: int | None) -> datetime | None:
    return None if hour is None else THEN + timedelta(hours=hour)


@pytest.mark.parametrize(
    ("was", "outcome", "hour", "expected"),
    [
        # `deployed_at` and `deploy_failed_at` before, the report, and both after.
        ((None, None), "merged", 1, (None, None)),
        ((None, None), "deployed", 1, (1, None)),
        ((None, None), "failed", 1, (None, 1)),
        ((1, None), "merged", 2, (1, None)),
        ((None, 1), "merged", 2, (None, 1)),
        # A later success clears the failure; a later failure does not undo the success.
        ((None, 1), "deployed", 2, (2, None)),
        ((1, 2), "deployed", 3, (3, None)),
        ((1, None), "failed", 2, (1, 2)),
        ((1, None), "deployed", 2, (2, None)),
        ((None, 1), "failed", 2, (None, 2)),
        # Reports that arrive late.
        ((None, 2), "deployed", 1, (1, 2)),
        ((2, None), "failed", 1, (2, None)),
        ((2, None), "deployed", 1, (2, None)),
        ((None, 2), "failed", 1, (None, 2)),
        ((1, 3), "deployed", 2, (2, 3)),
        ((1, 3), "failed", 2, (1, 3)),
    ],
)
def test_the_latest_outcome_decides_over_the_stamps(
    was: tuple[int | None, int | None], outcome: str, hour: int, expected: tuple[int | None, int | None]
) -> None:
    before = ticket(stage="live", merge_sha="a", deployed_at=instant(was[0]), deploy_failed_at=instant(was[1]))
    kept, at = deepcopy(before), THEN + timedelta(hours=9)
    after = lifecycle.deployed(before, "a", outcome, THEN + timedelta(hours=hour), at)
    assert before == kept
    stamps = {"deployed_at": instant(expected[0]), "deploy_failed_at": instant(expected[1])}
    assert after == before | stamps | ({"updated_at": at} if was != expected else {})
    assert lifecycle.diff(before, after) == differences(before, after)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_report_sets_merge_sha(outcome: str) -> None:
    before = ticket(stage="validation")
    after = lifecycle.deployed(before, "9fceb02", outcome, THEN, NOW)
    assert (after["merge_sha"], after["updated_at"]) == ("9fceb02", NOW)
    assert (after["stage"], after["status"]) == ("validation", "open")
    assert lifecycle.deployed(after, "9fceb02", outcome, THEN, NOW + timedelta(hours=1)) == after
    assert lifecycle.diff(before, after)["merge_sha"] == {"from": None, "to": "9fceb02"}


@hypothesis.given(outcomes=st.lists(st.sampled_from(OUTCOMES), max_size=5))
def test_reports_leave_the_same_stamps_in_any_order(outcomes: list[str]) -> None:
    reports = list(enumerate(outcomes))
    successes = [hour for hour, outcome in reports if outcome == "deployed"]
    failures = [hour for hour, outcome in reports if outcome == "failed"]
    deployed = max(successes, default=None)
    failed = max((hour for hour in failures if deployed is None or hour > deployed), default=None)
    for order in permutations(reports):
        after = ticket()
        for hour, outcome in order:
            after = lifecycle.deployed(after, "a", outcome, THEN + timedelta(hours=hour), NOW)
        assert (after["deployed_at"], after["deploy_failed_at"]) == (instant(deployed), instant(failed))
