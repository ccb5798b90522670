"""contracts/handoff.md: after any sequence of changes the ticket and its history are as lifecycle.py predicts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.handoff import ALIASES, Transport, change, created, history, new_project, read
from support.system import World

from service.errors import TicketError
from service.handoff import lifecycle
from service.handoff.commands import ResolutionType, Stage

TIMES = {"created_at", "updated_at", "resolved_at", "deployed_at", "deploy_failed_at", "started_at", "completed_at"}
LONG_AGO = datetime(2026, 2, 20, 14, 30, tzinfo=UTC)
USER = "7b0a3c9e-51d8-4a6e-8f0c-0b8f6f1f2a33"

notes = st.sampled_from(["Now.", "Then."])
maybe_note = st.fixed_dictionaries({}, optional={"work_started_note": notes})
names = st.sampled_from(["backend", "qa", "design"])
role_sets = st.lists(names, unique=True)
resolutions = st.fixed_dictionaries(
    {},
    optional={
        "resolution_type": st.sampled_from([None, *get_args(ResolutionType)]),
        "resolution_note": st.none() | notes,
    },
)
said = st.fixed_dictionaries(
    {},
    optional={
        "assignee_note": st.none() | notes,
        "assignee_user_id": st.sampled_from([None, USER]),
        "blocking_reason": st.none() | notes,
        "agent_origin": st.sampled_from([None, "agent-7"]),
    },
)
begins = st.builds(
    lambda name, note, more: {"role": name, "status": "in_progress", **note, **more},
    names,
    st.fixed_dictionaries({"work_started_note": notes}) | maybe_note,
    said,
)
ends = st.builds(
    lambda name, status, more: {"role": name, "status": status, **more},
    names,
    st.sampled_from(["done", "done", "skipped", "pending"]),
    said,
)
role_changes = st.fixed_dictionaries({"role_status": begins | ends})
edits = st.fixed_dictionaries(
    {},
    optional={
        "title": st.sampled_from(["Login loops", "Login spins"]),
        "priority": st.sampled_from(["low", "medium"]),
        "evidence": st.sampled_from([None, {"n": [1, None]}]),
        "milestone_id": st.sampled_from([None, USER]),
    },
)
moves = st.builds(lambda stage, note: {"stage": stage, **note}, st.sampled_from(get_args(Stage)), maybe_note)
openings = st.builds(
    lambda status, resolution: {"status": status, **resolution},
    st.sampled_from(["open", "closed", "closed"]),
    resolutions,
)
sets = st.fixed_dictionaries({"roles": role_sets})
# Closes most tickets in one change.
closings = st.builds(
    lambda name, resolution: {"roles": [name], "role_status": {"role": name, "status": "skipped"}, **resolution},
    names,
    resolutions,
)
bodies = st.one_of(
    closings,
    role_changes,
    role_changes,
    role_changes,
    moves,
    openings,
    resolutions,
    edits,
    sets,
    st.lists(st.one_of(role_changes, moves, openings, edits, sets), min_size=2, max_size=3).map(
        lambda parts: {name: value for part in parts for name, value in part.items()}
    ),
)
# The `updated_at` of a change: current, stale or none.
locks = st.sampled_from([None, None, None, "current", "stale"])


def row(ticket: Mapping[str, Any]) -> dict[str, Any]:
    """A ticket as lifecycle.py expects it: instants as datetime."""
    parsed = {
        name: datetime.fromisoformat(value) if name in TIMES and value is not None else value
        for name, value in ticket.items()
    }
    if "roles" in ticket:
        parsed["roles"] = [row(role) for role in ticket["roles"]]
    return parsed


def refusal(before: dict[str, Any], given: Mapping[str, Any]) -> TicketError | None:
    """The failure with which lifecycle.py refuses a change, if it does."""
    try:
        lifecycle.changed(before, given, LONG_AGO)
    except TicketError as error:
        return error
    return None


def expected_row(before: dict[str, Any], given: Mapping[str, Any], answered: dict[str, Any]) -> dict[str, Any]:
    """The ticket that lifecycle.py makes, with the instant and the ids of new roles from the answer."""
    after = lifecycle.changed(before, given, answered["updated_at"] or LONG_AGO)
    ids = {role["role"]: role["id"] for role in answered["roles"]}
    known = {role["id"] for role in before["roles"]}
    for role in after["roles"]:
        if role["id"] not in known:
            role["id"] = ids[role["role"]]
            assert role["id"] not in known
    return after | {alias: after[name] for alias, name in ALIASES.items() if alias in after}


@settings(
    max_examples=12,
    # Each example has its own project and ticket, so that the fixtures carry nothing from one to the next.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(roles=role_sets.filter(bool), steps=st.lists(st.tuples(bodies, locks), min_size=10, max_size=15))
async def test_any_changes_leave_the_predicted_ticket_and_history(
    transport: Transport, world: World, roles: list[str], steps: list[tuple[dict[str, Any], str | None]]
) -> None:
    project_id, who = await new_project(world, "owner")
    ticket = await created(transport, who, project_id, roles=roles)
    events: list[tuple[str, Any]] = [("ticket.created", {})]
    for body, lock in steps:
        updated_at: Mapping[str | None, dict[str, Any]] = {
            None: {},
            "current": {"updated_at": ticket["updated_at"]},
            "stale": {"updated_at": LONG_AGO.isoformat()},
        }
        reply = await change(transport, who, ticket, **body, **updated_at[lock])
        found = await read(transport, who, ticket)
        before, after = row(ticket), row(found)
        refused = TicketError("stale") if lock == "stale" else refusal(before, body)
        if refused is not None:
            reply.failed(refused.reason, refused.message, paths=[issue.path for issue in refused.issues])
            assert found == ticket
            continue
        assert reply.succeeded()["ticket"] == found
        expected = expected_row(before, body, after)
        assert after == expected
        if after != before:
            assert after["updated_at"] > (before["updated_at"] or before["created_at"])
            events.append(
                (
                    lifecycle.event_type(before, expected),
                    lifecycle.diff(before, expected, body.get("work_started_note")),
                )
            )
        ticket = found
    found_events = await history(transport, who, ticket)
    assert [event["version"] for event in found_events] == list(range(1, len(events) + 1))
    assert [(event["type"], event["changes"]) for event in found_events] == events
