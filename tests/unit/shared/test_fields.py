"""Ids that sort by their time."""

import time
import uuid

import pytest

from service.numbering import uuid7


def test_an_id_says_its_time_and_no_two_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_645_557_742_000_999_999)
    made = [uuid7() for _ in range(1000)]
    assert len(set(made)) == len(made)
    # The time is the one of RFC 9562's example (A.6), whose id begins with it.
    assert {str(one)[:15] for one in made} == {"017f22e2-79b0-7"}
    assert {one.variant for one in made} == {uuid.RFC_4122}


def test_ids_sort_by_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    instants = [n * 1_000_000 for n in (1, 2, 1_700_000_000_000, 2**47)]
    made = []
    for instant in instants:
        monkeypatch.setattr(time, "time_ns", lambda instant=instant: instant)
        made.append(uuid7())
    assert made == sorted(made)
