"""contracts/handoff.md at both transports: bulk changes, and deployment reports."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from support.handoff import Transport, changed, created, history, new_project, read, starts
from support.system import Credential, World
from support.transports import Reply


async def bulk(transport: Transport, who: Credential, project_id: str, headers: Any = None, **body: Any) -> Reply:
    return await transport.call("handoff.bulk", who, path={"project_id": project_id}, body=body, headers=headers)


async def report(transport: Transport, who: Credential, ticket: Any, headers: Any = None, **body: Any) -> Reply:
    path = {"project_id": ticket["project_id"], "ticket_id": ticket["id"]}
    return await transport.call(
        "handoff.deploy", who, path=path, body={"merge_sha": "9fceb02", **body}, headers=headers
    )


# Bulk


async def test_tickets_are_moved_one_by_one(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    one, two, three = [await created(transport, who, project_id) for _ in range(3)]
    foreign = await created(transport, who := await world.member(project_id), project_id)
    names = [one["id"], str(two["number"]), three["ticket_ref"], one["ticket_ref"], str(uuid4()), "no ticket"]
    moved = (await bulk(transport, who, project_id, action="move", stage="validation", ticket_ids=names)).succeeded()
    missing = [{"id": name, "error": "Ticket not found", "code": "not_found"} for name in names[4:]]
    assert moved == {"updated": 3, "errors": missing}
    for ticket in (one, two, three):
        after = await read(transport, who, ticket)
        assert after["stage"] == "validation"
        events = await history(transport, who, ticket)
        assert [event["changes"] for event in events[1:]] == [{"stage": {"from": "backlog", "to": "validation"}}]
    assert await read(transport, who, foreign) == foreign


async def test_a_bulk_close_reports_the_tickets_that_could_not_be_closed(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    fresh, begun, through = [await created(transport, who, project_id, roles=["qa", "backend"]) for _ in range(3)]
    await changed(transport, who, begun, role_status=starts("qa"))
    for role in ("qa", "backend"):
        await changed(transport, who, through, role_status={"role": role, "status": "skipped"}, stage="backlog")
    names = [fresh["id"], begun["id"], through["id"]]
    message = "Roles that are neither done nor skipped: qa"
    answer = (await bulk(transport, who, project_id, action="close", ticket_ids=names)).succeeded()
    assert answer["updated"] == 1
    assert answer["errors"] == [
        {"id": names[0], "error": f"{message}, backend", "code": "roles_incomplete"},
        {"id": names[1], "error": f"{message}, backend", "code": "roles_incomplete"},
    ]
    closing = {"skip_pending_roles": True, "resolution_note": "Cleaned up.", "resolution_type": "no_longer_relevant"}
    answer = (await bulk(transport, who, project_id, action="close", ticket_ids=names, **closing)).succeeded()
    assert answer == {"updated": 2, "errors": [{"id": names[1], "error": message, "code": "roles_incomplete"}]}
    after = await read(transport, who, fresh)
    assert (after["status"], after["stage"], after["resolved_at"]) == ("closed", "live", after["updated_at"])
    assert (after["resolution_note"], after["resolution_type"]) == ("Cleaned up.", "no_longer_relevant")
    assert [role["status"] for role in after["roles"]] == ["skipped", "skipped"]
    assert (await read(transport, who, begun))["roles"][1]["status"] == "pending"


async def test_a_ticket_that_is_closed_already_keeps_its_resolution(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    ticket = await created(transport, who, project_id)
    await changed(transport, who, ticket, role_status={"role": "backend", "status": "skipped"})
    closed = await changed(transport, who, ticket, resolution_type="duplicate", resolution_note="See 7.")
    answer = (await bulk(transport, who, project_id, action="close", ticket_ids=[ticket["id"]])).succeeded()
    assert answer == {"updated": 1, "errors": []}
    assert await read(transport, who, ticket) == closed


async def test_a_bulk_close_without_a_note_leaves_the_one_that_a_ticket_has(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    ticket = await created(transport, who, project_id)
    moving = {"action": "move", "stage": "up_next", "ticket_ids": [ticket["id"]], "resolution_note": "Known."}
    assert (await bulk(transport, who, project_id, **moving)).succeeded() == {"updated": 1, "errors": []}
    closing = {"action": "close", "ticket_ids": [ticket["id"]], "skip_pending_roles": True}
    assert (await bulk(transport, who, project_id, **closing)).succeeded() == {"updated": 1, "errors": []}
    after = await read(transport, who, ticket)
    assert (after["status"], after["resolution_note"], after["resolution_type"]) == ("closed", "Known.", "completed")


async def test_moving_tickets_to_in_progress_requires_a_note(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    ticket = await created(transport, who, project_id)
    move = {"action": "move", "stage": "in_progress", "ticket_ids": [ticket["id"]]}
    (await bulk(transport, who, project_id, **move)).failed("validation_error", paths=["work_started_note"])
    (await bulk(transport, who, project_id, **move, work_started_note="Sprint 4.")).succeeded()
    changes = (await history(transport, who, ticket))[-1]["changes"]
    assert changes["work_started_note"] == {"from": None, "to": "Sprint 4."}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"action": "move", "ticket_ids": ["1"]}, "stage"),
        ({"action": "close", "stage": "live", "ticket_ids": ["1"]}, "stage"),
        ({"action": "open", "ticket_ids": ["1"]}, "action"),
        ({"action": "close", "ticket_ids": []}, "ticket_ids"),
        ({"action": "close", "ticket_ids": ["1"] * 101}, "ticket_ids"),
        ({"action": "close", "ticket_ids": ["1"], "resolution_type": "fixed"}, "resolution_type"),
        (
            {"action": "move", "stage": "up_next", "ticket_ids": ["1"], "resolution_type": "duplicate"},
            "resolution_type",
        ),
    ],
)
async def test_a_bulk_change_that_breaks_a_bound_changes_nothing(
    transport: Transport, world: World, body: dict[str, Any], path: str
) -> None:
    project_id, who = await new_project(world)
    ticket = await created(transport, who, project_id)
    (await bulk(transport, who, project_id, **body)).failed("validation_error", paths=[path])
    assert await read(transport, who, ticket) == ticket


async def test_a_hundred_tickets_are_closed_together_and_only_once_under_a_key(
    transport: Transport, world: World
) -> None:
    project_id, who = await new_project(world)
    tickets = await asyncio.gather(*(created(transport, who, project_id) for _ in range(100)))
    body = {"action": "close", "skip_pending_roles": True, "ticket_ids": [ticket["id"] for ticket in tickets]}
    key = {"idempotency-key": "sweep"}
    first = await bulk(transport, who, project_id, key, **body)
    assert first.succeeded() == {"updated": 100, "errors": []}
    await changed(transport, who, tickets[0], status="open")
    again = await bulk(transport, who, project_id, key, **body)
    assert (again.succeeded(), again.headers["idempotent-replayed"]) == (first.body, "true")
    assert (await read(transport, who, tickets[0]))["status"] == "open"
    (await bulk(transport, who, project_id, key, **body | {"skip_pending_roles": False})).failed("idempotency_mismatch")
    assert len(await history(transport, who, tickets[50])) == 2


async def test_bulk_changes_in_opposite_orders_do_not_deadlock(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    ids = [(await created(transport, who, project_id))["id"] for _ in range(10)]
    for stage in ("up_next", "validation"):
        both = (
            bulk(transport, who, project_id, action="move", stage=stage, ticket_ids=order)
            for order in (ids, ids[::-1]) * 3
        )
        for reply in await asyncio.gather(*both):
            assert reply.succeeded() == {"updated": 10, "errors": []}


# Deployments


async def test_reports_set_stamps_and_a_later_success_clears_the_failure(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world, "triager")
    ticket = await created(transport, who, project_id)
    at = "2026-02-20T14:30:00Z"
    merged = (await report(transport, who, ticket, outcome="merged")).succeeded()["ticket"]
    assert [merged[name] for name in ("merge_sha", "deployed_at", "deploy_failed_at")] == ["9fceb02", None, None]
    failed = (await report(transport, who, ticket, outcome="failed", at=at)).succeeded()["ticket"]
    assert [failed[name] for name in ("deployed_at", "deploy_failed_at")] == [None, at]
    deployed = (await report(transport, who, ticket, outcome="deployed")).succeeded()["ticket"]
    assert deployed["deploy_failed_at"] is None
    assert deployed["deployed_at"] == deployed["updated_at"]
    assert await read(transport, who, ticket) == deployed
    assert [list(event["changes"]) for event in await history(transport, who, ticket)] == [
        [],
        ["merge_sha"],
        ["deploy_failed_at"],
        ["deployed_at", "deploy_failed_at"],
    ]


async def test_the_same_report_again_changes_nothing(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world, "owner")
    ticket = await created(transport, who, project_id)
    reports = [report(transport, who, ticket, outcome="deployed") for _ in range(6)]
    answers = [reply.succeeded() for reply in await asyncio.gather(*reports)]
    assert all(answer == answers[0] for answer in answers)
    assert len(await history(transport, who, ticket)) == 2
    key = {"idempotency-key": "ci-7"}
    first = (await report(transport, who, ticket, key, merge_sha="ab12", outcome="failed")).succeeded()
    again = await report(transport, who, ticket, key, merge_sha="ab12", outcome="failed")
    assert (again.succeeded(), again.headers["idempotent-replayed"]) == (first, "true")
    (await report(transport, who, ticket, key, outcome="failed")).failed("idempotency_mismatch")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"outcome": "rolled_back"}, "outcome"),
        ({"outcome": "merged", "merge_sha": ""}, "merge_sha"),
        ({"outcome": "merged", "merge_sha": "x" * 65}, "merge_sha"),
        ({"outcome": "merged", "merge_sha": "a b"}, "merge_sha"),
        ({"outcome": "deployed", "at": "9999-12-31T23:59:59Z"}, "at"),
    ],
)
async def test_a_report_that_breaks_a_bound_is_refused(
    transport: Transport, world: World, body: dict[str, str], path: str
) -> None:
    project_id, who = await new_project(world, "owner")
    ticket = await created(transport, who, project_id)
    (await report(transport, who, ticket, **body)).failed("validation_error", paths=[path])
    assert await read(transport, who, ticket) == ticket
