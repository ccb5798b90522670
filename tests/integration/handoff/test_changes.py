"""contracts/handoff.md at both transports: reading and changing one ticket, its lifecycle, its roles."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from support.handoff import MEMBERS, Transport, change, changed, filed, has_members, history, member_of, read, starts
from support.methods import METHODS
from support.system import World
from support.transports import Grpc
from tickets.handoff.v1 import ticket_service_pb2

MILESTONE = "2c1d8a51-3f3c-4f0e-9a52-6d6f3b0d5a11"


# Reading


@pytest.mark.parametrize("name", ["id", "number", "ticket_ref"])
async def test_a_ticket_is_found_by_id_number_and_reference(transport: Transport, world: World, name: str) -> None:
    who, ticket = await filed(transport, world)
    path = {"project_id": ticket["project_id"], "ticket_id": str(ticket[name])}
    found = (await transport.call("handoff.get", who, path=path)).succeeded()["ticket"]
    assert found == ticket
    assert has_members(transport, found, MEMBERS)


@pytest.mark.parametrize("ticket_id", ["2", "0", "01", "-1", "x", "HO-1-other", "ho-1", MILESTONE, "9" * 30, "é"])
async def test_any_other_reference_is_not_found(transport: Transport, world: World, ticket_id: str) -> None:
    who, ticket = await filed(transport, world)
    other = await member_of(world, await world.project())
    for operation in ("get", "events", "update"):
        body = {"title": "x"} if operation == "update" else None
        path = {"project_id": ticket["project_id"], "ticket_id": ticket_id}
        (await transport.call(f"handoff.{operation}", who, path=path, body=body)).failed(
            "not_found", "Ticket not found"
        )
        (await transport.call(f"handoff.{operation}", other, path=path, body=body)).failed("forbidden")


# Editing

EDITS: Mapping[str, Any] = {
    "title": "  Other title ",
    "description": "Other text.",
    "request_type": "decision_needed",
    "priority": "high",
    "blocking": True,
    "evidence": {"steps": [1, 2.5, None]},
    "suggested_resolution": "Turn it off.",
    "implementation_notes": "And on.",
    "milestone_id": MILESTONE,
    "github_issue_number": 17,
}
CLEARABLE = ("evidence", "suggested_resolution", "implementation_notes", "milestone_id", "github_issue_number")


async def test_only_the_given_members_change(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    for name, value in EDITS.items():
        after = await changed(transport, who, ticket, **{name: value})
        assert after[name] == (value.strip() if isinstance(value, str) else value)
        stamps = {"updated_at", name, "category", "severity", "suggested_backend_change"}
        assert {key: after[key] for key in after if key not in stamps} == {
            key: ticket[key] for key in ticket if key not in stamps
        }
        assert after["updated_at"] > (ticket["updated_at"] or ticket["created_at"])
        assert await read(transport, who, ticket) == after
        ticket = after
    cleared = await changed(transport, who, ticket, **dict.fromkeys(CLEARABLE))
    assert [cleared[name] for name in CLEARABLE] == [None] * len(CLEARABLE)


@pytest.mark.parametrize(
    ("change_", "path"),
    [
        ({"title": " "}, "title"),
        ({"title": "x" * 141}, "title"),
        ({"description": ""}, "description"),
        ({"suggested_resolution": "x" * 5001}, "suggested_resolution"),
        ({"priority": "urgent"}, "priority"),
        ({"stage": "done"}, "stage"),
        ({"milestone_id": "none"}, "milestone_id"),
        ({"roles": ["qa", "qa"]}, "roles"),
        ({"github_issue_number": 0}, "github_issue_number"),
        ({"work_started_note": " "}, "work_started_note"),
        ({"role_status": {"role": "qa", "status": "begun"}}, "role_status.status"),
        ({"stage": "in_progress"}, "work_started_note"),
        ({"stage": "live", "status": "open"}, "status"),
        ({"stage": "backlog", "status": "closed"}, "status"),
        ({"resolution_type": "duplicate"}, "resolution_type"),
        ({"resolution_type": "duplicate", "resolution_note": "Twice."}, "resolution_type"),
        ({"role_status": starts("qa")}, "role_status.role"),
        ({"role_status": {"role": "backend", "status": "in_progress"}}, "role_status.work_started_note"),
    ],
)
async def test_a_change_that_breaks_a_bound_changes_nothing(
    transport: Transport, world: World, change_: dict[str, Any], path: str
) -> None:
    who, ticket = await filed(transport, world)
    (
        await change(transport, who, ticket, priority="high", **change_)
        if "priority" not in change_
        else await change(transport, who, ticket, **change_)
    ).failed("validation_error", paths=[path])
    assert await read(transport, who, ticket) == ticket
    assert len(await history(transport, who, ticket)) == 1


@pytest.mark.parametrize("path", ["title.", "role_status.", "role_status.x", "number", "x" * 20_000])
async def test_a_mask_that_names_no_member_is_refused(rpc: Grpc, world: World, path: str) -> None:
    who, ticket = await filed(rpc, world)
    request = ticket_service_pb2.UpdateTicketRequest(
        project_id=ticket["project_id"], ticket_id=ticket["id"], title="New"
    )
    request.update_mask.paths.append(path)
    (await rpc.send(METHODS["handoff.update"], request, who)).failed("validation_error", paths=["update_mask"])
    assert await read(rpc, who, ticket) == ticket


async def test_a_change_that_changes_nothing_leaves_no_trace(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    same = {"title": ticket["title"], "stage": "backlog", "status": "open", "roles": ["backend"], "evidence": None}
    assert await changed(transport, who, ticket, **same) == ticket
    assert ticket["updated_at"] is None
    assert len(await history(transport, who, ticket)) == 1


async def test_updated_at_is_an_optimistic_lock(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    (await change(transport, who, ticket, title="a", updated_at="2026-02-20T14:30:00Z")).failed("stale")
    # Never changed: null.
    first = await changed(transport, who, ticket, title="a", updated_at=None)
    (await change(transport, who, ticket, title="b", updated_at=None)).failed("stale")
    second = await changed(transport, who, first, title="b", updated_at=first["updated_at"])
    (await change(transport, who, first, title="c", updated_at=first["updated_at"])).failed("stale")
    assert await read(transport, who, ticket) == second


# The lifecycle of a ticket


async def test_a_ticket_moves_through_the_stages_and_back(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    for stage in ("up_next", "in_progress", "validation", "backlog", "in_progress"):
        note = {"work_started_note": "Now."} if stage == "in_progress" else {}
        ticket = await changed(transport, who, ticket, stage=stage, **note)
        assert (ticket["stage"], ticket["status"]) == (stage, "open")
    (await change(transport, who, ticket, stage="live")).failed("roles_incomplete")
    (await change(transport, who, ticket, status="closed")).failed("roles_incomplete")
    assert await read(transport, who, ticket) == ticket


@pytest.mark.parametrize("closing", [{"status": "closed"}, {"stage": "live"}])
async def test_closing_sets_the_resolution_and_leaving_live_clears_it(
    transport: Transport, world: World, closing: dict[str, str]
) -> None:
    who, ticket = await filed(transport, world)
    ticket = await changed(
        transport, who, ticket, role_status={"role": "backend", "status": "skipped"}, stage="validation"
    )
    assert ticket["status"] == "open"
    closed = await changed(transport, who, ticket, **closing, resolution_note="Both.", resolution_type="duplicate")
    assert (closed["status"], closed["stage"], closed["resolved_at"]) == ("closed", "live", closed["updated_at"])
    assert (closed["resolution_note"], closed["resolution_type"]) == ("Both.", "duplicate")
    amended = await changed(transport, who, ticket, resolution_note=None)
    assert (amended["resolution_note"], amended["resolution_type"]) == (None, "duplicate")
    assert amended["resolved_at"] == closed["resolved_at"]
    reopened = await changed(transport, who, ticket, status="open")
    assert (reopened["status"], reopened["stage"]) == ("open", "backlog")
    assert [reopened[name] for name in ("resolved_at", "resolution_note", "resolution_type")] == [None] * 3
    # A note may come before the ticket closes, and stays.
    noted = await changed(transport, who, ticket, resolution_note="Known since May.")
    assert (noted["status"], noted["resolution_note"]) == ("open", "Known since May.")
    again = await changed(transport, who, ticket, **closing)
    assert (again["resolution_type"], again["resolution_note"]) == ("completed", "Known since May.")
    # A role that is added reopens it.
    added = await changed(transport, who, ticket, roles=["backend", "qa"])
    assert (added["status"], added["stage"], added["resolution_note"]) == ("open", "backlog", None)


async def test_the_first_role_to_start_moves_the_ticket_and_the_last_to_finish_closes_it(
    transport: Transport, world: World
) -> None:
    who, ticket = await filed(transport, world, roles=["qa", "backend"])
    user_id = str(uuid4())
    ticket = await changed(
        transport, who, ticket, role_status=starts("backend", agent_origin="agent-7", assignee_user_id=user_id)
    )
    assert (ticket["stage"], ticket["status"]) == ("in_progress", "open")
    qa, backend = ticket["roles"]
    assert (qa["status"], qa["started_at"]) == ("pending", None)
    assert (backend["status"], backend["started_at"]) == ("in_progress", ticket["updated_at"])
    assert (backend["work_started_note"], backend["agent_origin"]) == ("On it.", "agent-7")
    assert backend["assignee_user_id"] == user_id
    ticket = await changed(transport, who, ticket, role_status={"role": "backend", "status": "done"})
    assert ticket["status"] == "open"
    assert ticket["roles"][1]["completed_at"] == ticket["updated_at"]
    ticket = await changed(
        transport, who, ticket, role_status={"role": "qa", "status": "skipped"}, resolution_note="Fine."
    )
    assert (ticket["stage"], ticket["status"], ticket["resolved_at"]) == ("live", "closed", ticket["updated_at"])
    assert (ticket["resolution_type"], ticket["resolution_note"]) == ("completed", "Fine.")
    assert ticket["roles"][0]["completed_at"] is None
    # A role that goes back reopens the ticket.
    ticket = await changed(transport, who, ticket, role_status={"role": "backend", "status": "pending"})
    assert (ticket["stage"], ticket["status"], ticket["resolved_at"]) == ("backlog", "open", None)
    stamps = ("started_at", "completed_at", "work_started_note", "agent_origin")
    assert [ticket["roles"][1][name] for name in stamps] == [None] * 4
    assert ticket["roles"][1]["assignee_user_id"] == user_id


async def test_a_role_is_blocked_and_unblocked(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    blocked = {"role": "backend", "status": "pending", "blocking_reason": "No access.", "assignee_note": "Mine."}
    ticket = await changed(transport, who, ticket, role_status=blocked)
    assert (ticket["roles"][0]["blocking_reason"], ticket["roles"][0]["assignee_note"]) == ("No access.", "Mine.")
    unblocked = {"role": "backend", "status": "pending", "blocking_reason": None}
    ticket = await changed(transport, who, ticket, role_status=unblocked)
    assert (ticket["roles"][0]["blocking_reason"], ticket["roles"][0]["assignee_note"]) == (None, "Mine.")
    assert ticket["roles"][0]["updated_at"] == ticket["updated_at"]


@pytest.mark.parametrize(
    ("first", "then"), [((), "done"), (("skipped",), "done"), (("in_progress", "done"), "skipped")]
)
async def test_no_other_transition_of_a_role_is_allowed(
    transport: Transport, world: World, first: tuple[str, ...], then: str
) -> None:
    who, ticket = await filed(transport, world, roles=["backend", "qa"])
    for status in first:
        ticket = await changed(transport, who, ticket, role_status=starts() | {"status": status})
    reply = await change(transport, who, ticket, role_status={"role": "backend", "status": then})
    reply.failed("invalid_transition", f"A role that is {(first or ('pending',))[-1]} cannot become {then}")
    assert await read(transport, who, ticket) == ticket


async def test_a_refused_close_names_the_unfinished_roles(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world, roles=["qa", "design", "backend"])
    ticket = await changed(transport, who, ticket, role_status=starts("design"))
    ticket = await changed(transport, who, ticket, role_status={"role": "design", "status": "done"})
    reply = await change(transport, who, ticket, status="closed")
    reply.failed("roles_incomplete", "Roles that are neither done nor skipped: qa, backend")


async def test_replacing_the_roles_keeps_the_state_of_those_that_stay(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world, roles=["qa", "backend"])
    ticket = await changed(transport, who, ticket, role_status=starts("backend"))
    qa, backend = ticket["roles"]
    ticket = await changed(transport, who, ticket, roles=["backend", "design"])
    assert [role["role"] for role in ticket["roles"]] == ["backend", "design"]
    assert ticket["roles"][0] == backend
    assert ticket["roles"][1]["status"] == "pending"
    assert await read(transport, who, ticket) == ticket
    ticket = await changed(transport, who, ticket, roles=["qa"])
    assert ticket["roles"][0]["id"] != qa["id"]
    ticket = await changed(transport, who, ticket, roles=[])
    assert (await changed(transport, who, ticket, status="closed"))["roles"] == []
