"""contracts/helpdesk.md, Life: what a move from one status to another does to `resolved_at`."""

from datetime import UTC, datetime
from typing import get_args

import pytest

from service.helpdesk.commands import Status
from service.helpdesk.lifecycle import resolved_at

BEFORE, NOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
EFFECTS = {"stamp": NOW, "clear": None, "keep": BEFORE}
# The columns are moves to open, in_progress, pending, resolved, closed. From None: a ticket that is being created.
RULES: dict[Status | None, tuple[str, str, str, str, str]] = {
    None: ("clear", "clear", "clear", "stamp", "stamp"),
    "open": ("keep", "clear", "clear", "stamp", "stamp"),
    "in_progress": ("clear", "keep", "clear", "stamp", "stamp"),
    "pending": ("clear", "clear", "keep", "stamp", "stamp"),
    "resolved": ("clear", "clear", "clear", "keep", "keep"),
    "closed": ("clear", "clear", "clear", "keep", "keep"),
}


def test_the_table_is_complete() -> None:
    assert set(RULES) == {None, *get_args(Status)}


@pytest.mark.parametrize(
    ("was", "becomes", "effect"),
    [
        (was, becomes, effect)
        for was, effects in RULES.items()
        for becomes, effect in zip(("open", "in_progress", "pending", "resolved", "closed"), effects, strict=True)
    ],
)
def test_a_move_between_statuses_decides_resolved_at(was: Status | None, becomes: Status, effect: str) -> None:
    assert resolved_at(was, becomes, BEFORE, NOW) == EFFECTS[effect]
