"""tickets.client, both clients against the service: the handoff API."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from support.clients import NEW, Clients, token
from support.handoff import new_project
from support.system import Service, World
from tickets.client import ConflictError, StaleError, handoff


async def test_handoff(clients: Clients, service: Service, world: World) -> None:
    project_id, who = await new_project(world, "triager")
    client = clients(service.target, token=token(who))
    made = await client.call(
        "handoff.create",
        project_id,
        **NEW,
        roles=["backend", "qa"],
        priority="high",
        blocking=True,
        evidence={"b": 1, "a": None},
    )
    assert isinstance(made, handoff.Ticket)
    assert (made.number, made.stage, made.blocking, made.evidence) == (1, "backlog", True, {"b": 1, "a": None})
    assert [(role.role, role.status) for role in made.roles] == [("backend", "pending"), ("qa", "pending")]
    assert (made.updated_at, made.summary) == (None, None)
    assert await client.call("handoff.get", project_id, made.ticket_ref) == made

    starts = {"role": "backend", "status": "in_progress", "work_started_note": "Looking.", "blocking_reason": "No key."}
    started = await client.call("handoff.update", project_id, "1", updated_at=None, evidence=None, role_status=starts)
    assert (started.stage, started.evidence, started.roles[0].blocking_reason) == ("in_progress", None, "No key.")
    done = {"role": "backend", "status": "done", "blocking_reason": None}
    unblocked = await client.call("handoff.update", project_id, made.id, role_status=done)
    assert (unblocked.roles[0].status, unblocked.roles[0].blocking_reason) == ("done", None)

    closing = await client.call(
        "handoff.bulk",
        project_id,
        action="close",
        ticket_ids=["1", "9"],
        skip_pending_roles=True,
        resolution_type="duplicate",
    )
    assert (closing.updated, [(e.id, e.code) for e in closing.errors]) == (1, [("9", "not_found")])
    at = datetime(2026, 2, 3, tzinfo=UTC)
    deployed = await client.call(
        "handoff.report_deployment", project_id, "1", merge_sha="9fceb02", outcome="deployed", at=at, actor_role="ci"
    )
    assert (deployed.merge_sha, deployed.deployed_at, deployed.resolution_type) == ("9fceb02", at, "duplicate")

    history = await client.collect("handoff.events", project_id, made.id, page_size=2)
    assert [event.version for event in history] == [1, 2, 3, 4, 5]
    assert history[1].changes["evidence"] == {"from": {"b": 1, "a": None}, "to": None}
    assert (history[4].actor_role, history[0].type) == ("ci", "ticket.created")

    [listed] = await client.collect(
        "handoff.list", slim=True, project_id=project_id, status="closed", stage=["live", "backlog"]
    )
    assert (listed.id, listed.description, listed.summary) == (made.id, None, "Since nine.")
    found = await client.collect("handoff.list_project", project_id, ship="deployed", q="loops")
    assert [ticket.id for ticket in found] == [made.id]
    assert await client.collect("handoff.list_project", project_id, milestone=str(uuid4())) == []


async def test_a_watch_streams_changes_and_resumes(clients: Clients, service: Service, world: World) -> None:
    project_id, who = await new_project(world)
    client = clients(service.target, token=token(who))
    watch = client.client.handoff.tickets.watch(project_id)
    begun = await client.next(watch)
    assert begun.event is None
    made = await client.call("handoff.create", project_id, **NEW)
    while (response := await client.next(watch)).event is None:
        pass
    assert (response.event.ticket_id, response.event.type, response.event.version) == (made.id, "ticket.created", 1)
    await client.close(watch)
    again = client.client.handoff.tickets.watch(project_id, cursor=begun.cursor)
    assert await client.next(again) == response
    await client.close(again)


async def test_stale_and_other_conflicts(clients: Clients, service: Service, world: World) -> None:
    project_id, who = await new_project(world)
    client = clients(service.target, token=token(who))
    made = await client.call("handoff.create", project_id, **NEW)
    moved = await client.call("handoff.update", project_id, made.id, stage="up_next", updated_at=None)
    with pytest.raises(StaleError):
        await client.call("handoff.update", project_id, made.id, stage="backlog", updated_at=None)
    with pytest.raises(ConflictError) as failure:
        await client.call("handoff.update", project_id, made.id, status="closed", updated_at=moved.updated_at)
    assert (type(failure.value), failure.value.reason) == (ConflictError, "roles_incomplete")
