"""contracts/handoff.md, "Life of a ticket": the changes and the types of events."""

from typing import Any

import pytest
from support.handoff_rows import changed, role, ticket, to

from service.handoff import lifecycle
from service.storage.statement import Row


@pytest.mark.parametrize(
    ("before", "given", "expected"),
    [
        pytest.param(ticket(role()), {"title": "Login loops"}, {}, id="nothing"),
        pytest.param(
            ticket(role()),
            {"title": "New", "evidence": {"n": 1}},
            {"title": ("Login loops", "New"), "evidence": (None, {"n": 1})},
            id="texts",
        ),
        pytest.param(
            ticket(role()),
            {"stage": "in_progress", "work_started_note": "Now."},
            {"stage": ("backlog", "in_progress"), "work_started_note": (None, "Now.")},
            id="a note that the ticket does not keep",
        ),
        pytest.param(
            ticket(role(), stage="in_progress"),
            {"stage": "in_progress", "work_started_note": "Now."},
            {},
            id="a note without a move",
        ),
        pytest.param(
            ticket(role()),
            {"stage": "up_next", "work_started_note": "Now."},
            {"stage": ("backlog", "up_next")},
            id="a note with another move",
        ),
        pytest.param(
            ticket(role()),
            to("in_progress", agent_origin="agent-7", assignee_note="Mine."),
            {
                "stage": ("backlog", "in_progress"),
                "roles.backend.status": ("pending", "in_progress"),
                "roles.backend.work_started_note": (None, "Mine."),
                "roles.backend.agent_origin": (None, "agent-7"),
                "roles.backend.assignee_note": (None, "Mine."),
            },
            id="a role and the stage that it leads to",
        ),
        pytest.param(
            ticket(role(status="in_progress"), stage="validation"),
            to("done") | {"resolution_note": "Fine."},
            {
                "stage": ("validation", "live"),
                "status": ("open", "closed"),
                "resolution_type": (None, "completed"),
                "resolution_note": (None, "Fine."),
                "roles.backend.status": ("in_progress", "done"),
            },
            id="the last role done",
        ),
        pytest.param(
            ticket(role(), role("qa")),
            {"roles": ["qa", "backend"]},
            {"roles": (["backend", "qa"], ["qa", "backend"])},
            id="another order of roles",
        ),
        pytest.param(
            ticket(role(), role("qa")),
            {"roles": ["design"]},
            {"roles": (["backend", "qa"], ["design"])},
            id="another set of roles",
        ),
    ],
)
def test_an_event_has_exactly_the_differences(
    before: Row, given: dict[str, Any], expected: dict[str, tuple[Any, Any]]
) -> None:
    changes = lifecycle.diff(before, changed(before, **given), given.get("work_started_note"))
    assert changes == {name: {"from": old, "to": new} for name, (old, new) in expected.items()}


@pytest.mark.parametrize(
    ("was", "becomes", "expected"),
    [
        ("backlog", "validation", "ticket.updated"),
        ("validation", "live", "ticket.closed"),
        ("live", "up_next", "ticket.reopened"),
        ("live", "live", "ticket.updated"),
    ],
)
def test_the_type_of_an_event_is_whether_the_ticket_closed_or_reopened(was: str, becomes: str, expected: str) -> None:
    before = ticket(stage=was)
    assert lifecycle.event_type(before, changed(before, stage=becomes, title="New")) == expected


def test_a_new_role_that_starts_at_once_has_its_start_in_the_event() -> None:
    before = ticket(role())
    changes = lifecycle.diff(before, changed(before, roles=["backend", "qa"], **to("in_progress", "qa")))
    assert changes["roles"] == {"from": ["backend"], "to": ["backend", "qa"]}
    assert changes["roles.qa.status"]["to"] == "in_progress"
    assert changes["roles.qa.work_started_note"]["to"] == "Mine."


def test_a_ticket_that_was_read_without_its_texts_has_the_other_differences() -> None:
    short = {name: value for name, value in ticket().items() if name not in lifecycle.PLAIN}
    changes = lifecycle.diff(short, changed(short, stage="up_next"))
    assert changes == {"stage": {"from": "backlog", "to": "up_next"}}
