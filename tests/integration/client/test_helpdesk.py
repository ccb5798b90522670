"""tickets.client, both clients against the service: the helpdesk API."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from support.clients import NOW, Clients, token
from support.system import Service, World
from tickets.client import ConflictError, NotFoundError, PermissionDeniedError, StaleError, ValidationError, helpdesk


async def test_helpdesk(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write", "agent")))
    due = datetime(2031, 5, 6, 7, 8, 9, 123456, UTC)
    tags = {"floor": 3, "parts": ["psu", None], "price": 1.25}
    made = await client.call(
        "helpdesk.create",
        title="VPN is down",
        priority="urgent",
        category="net",
        due_at=due,
        tags=tags,
        source_type="server",
    )
    assert isinstance(made, helpdesk.Ticket)
    assert (made.number, made.type, made.status, made.priority) == ("TKT-0001", "incident", "open", "urgent")
    assert (made.due_at, made.tags, made.source_type) == (due, tags, "server")
    assert (made.app_id, made.description, made.is_deleted) == (None, None, False)
    assert datetime.now(UTC) - made.created_at < timedelta(minutes=1)

    assert await client.call("helpdesk.get", "TKT-0001") == made
    changed = await client.call(
        "helpdesk.update", made.id, status="pending", due_at=None, category=None, tags=["a", "b"]
    )
    assert (changed.status, changed.due_at, changed.category, changed.tags) == ("pending", None, None, ["a", "b"])
    assert (changed.title, changed.priority) == (made.title, "urgent")
    closed = await client.call("helpdesk.close", made.id, resolution_note="Rebooted.")
    assert closed.status == "closed"
    assert closed.resolved_at is not None
    assert await client.collect("helpdesk.list") == [replace(closed, etag=None)]


async def test_helpdesk_lists(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write", "agent")))

    async def listed(**filters: Any) -> list[str]:
        return [ticket.title[-1] for ticket in await client.collect("helpdesk.list", page_size=1, **filters)]

    later, soon = datetime.now(UTC) + timedelta(days=2), datetime.now(UTC) + timedelta(days=1)
    await client.call("helpdesk.create", title="VPN A", priority="low", due_at=later, assigned_to_id="per_2")
    await client.call("helpdesk.create", title="VPN B", priority="urgent", due_at=soon, status="pending", tags=["hq"])
    past = await client.call("helpdesk.create", title="Printer C", category="Print, or not", due_at=NOW)
    members = {"source": "edr", "submitted_by_id": "per_3", "related_asset_id": "ast_1"}
    past = await client.call("helpdesk.update", past.id, **members)
    assert (past.source, past.submitted_by_id) == ("edr", "per_3")
    assert await listed() == ["C", "B", "A"]
    assert await listed(sort="due_at", status=None, team_id=[]) == ["C", "B", "A"]
    assert await listed(sort="-priority") == ["B", "C", "A"]
    assert await listed(status="open") == await listed(status=["open", "closed"]) == ["C", "A"]
    assert await listed(status=["open", "pending"], sort="created_at", q="vpn") == ["A", "B"]
    assert await listed(category="Print, or not") == await listed(q=past.number) == ["C"]
    assert await listed(assigned_to_id=["none", "per_2"], priority="low", type="incident") == ["A"]
    assert await listed(tag="hq", submitted_by_id="per_1") == ["B"]
    about = {"source": "edr", "number": [past.number], "related_asset_id": "ast_1", "sla_policy": None}
    assert await listed(**about) == ["C"]
    assert await listed(app_id="app_1") == await listed(related_vulnerability_id=["vul_1"]) == []
    assert await listed(created_after=past.created_at) == await listed(updated_since=past.updated_at) == ["C"]
    assert await listed(created_before=past.created_at, overdue=False) == ["B", "A"]
    assert await listed(sort="due_at", created_before=past.created_at, include_deleted=True) == ["B", "A"]
    with pytest.raises(ValidationError) as failure:
        await listed(sort="title")
    assert [issue.path for issue in failure.value.issues] == ["sort"]


async def test_helpdesk_lists_what_is_overdue(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write", "agent")))
    for status, due_at in (("open", NOW), ("open", None), ("closed", NOW)):
        await client.call("helpdesk.create", title="A", status=status, due_at=due_at)
    assert [ticket.number for ticket in await client.collect("helpdesk.list", overdue=True)] == ["TKT-0001"]


async def test_what_changed_meanwhile_is_not_overwritten(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write")))
    made = await client.call("helpdesk.create", title="A", category="net")
    assert made.etag is not None
    changed = await client.call("helpdesk.update", made.id, etag=made.etag, title="B", category=None)
    assert (changed.title, changed.category, changed.etag != made.etag) == ("B", None, True)
    for method, members in (("update", {"title": "C"}), ("close", {}), ("delete", {})):
        with pytest.raises(StaleError):
            await client.call(f"helpdesk.{method}", made.id, etag=made.etag, **members)
    assert await client.call("helpdesk.get", made.id) == changed

    deleted = await client.call("helpdesk.delete", made.id, etag=changed.etag)
    assert (deleted.is_deleted, deleted.deleted_by) == (True, "per_1")
    assert await client.collect("helpdesk.list") == []
    assert await client.collect("helpdesk.list", include_deleted=True) == [replace(deleted, etag=None)]
    with pytest.raises(NotFoundError):
        await client.call("helpdesk.get", made.id)
    assert await client.call("helpdesk.get", made.id, include_deleted=True) == deleted
    with pytest.raises(StaleError):
        await client.call("helpdesk.restore", made.id, etag=changed.etag)
    restored = await client.call("helpdesk.restore", made.id, etag=deleted.etag)
    assert await client.call("helpdesk.get", made.number) == restored
    closed = await client.call("helpdesk.close", made.id, etag=restored.etag)
    assert (closed.status, closed.deleted_at) == ("closed", None)


async def test_comments_and_history(clients: Clients, service: Service, world: World) -> None:
    tenant_id = f"ten_{uuid4().hex}"
    person = clients(service.target, token=token(world.person("read", "write", tenant_id=tenant_id)))
    agent = clients(service.target, token=token(world.person("read", "agent", tenant_id=tenant_id, sub="per_2")))
    made = await person.call("helpdesk.create", title="A")
    first = await person.call("helpdesk.comment", made.id, "Help")
    assert isinstance(first, helpdesk.Comment)
    assert (first.ticket_id, first.body, first.internal) == (made.id, "Help", False)
    assert (first.author_id, first.updated_at) == ("per_1", None)
    hidden = await agent.call("helpdesk.comment", made.number, "Again?", internal=True, idempotency_key="mine")
    assert await agent.call("helpdesk.comment", made.number, "Again?", internal=True, idempotency_key="mine") == hidden
    with pytest.raises(PermissionDeniedError):
        await person.call("helpdesk.comment", made.id, "Psst", internal=True)
    edited = await person.call("helpdesk.edit_comment", made.id, first.id, "Help!")
    assert edited == replace(first, body="Help!", updated_at=edited.updated_at)
    last = await agent.call("helpdesk.comment", made.id, "Done.")
    assert await agent.collect("helpdesk.comments", made.id, page_size=1) == [edited, hidden, last]
    assert await person.collect("helpdesk.comments", made.id) == [edited, last]

    history = await agent.collect("helpdesk.events", made.id, page_size=2)
    assert [event.version for event in history] == [1, 2, 3, 4, 5]
    assert (history[0].type, history[0].changes, history[0].tenant_id) == ("ticket.created", {}, tenant_id)
    assert [event.type.removeprefix("ticket.comment") for event in history[1:]] == ["ed", "ed", "_edited", "ed"]
    assert [event.actor for event in history] == ["per_1", "per_1", "per_2", "per_1", "per_2"]
    assert [event.version for event in await person.collect("helpdesk.events", made.number)] == [1, 2, 3, 4]


async def test_service_levels(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write", "agent")))
    promise: dict[str, Any] = {"name": "Fast", "description": "!", "priority": "high", "applies_to": ["change"]}
    promise |= {"first_response_minutes": 30, "resolution_minutes": 240}
    policy = await client.call("helpdesk.sla_policies.create", **promise, idempotency_key="mine")
    assert isinstance(policy, helpdesk.SlaPolicy)
    assert await client.call("helpdesk.sla_policies.create", **promise, idempotency_key="mine") == policy
    assert (policy.applies_to, policy.first_response_minutes, policy.status) == (("change",), 30, "active")
    with pytest.raises(ConflictError, match="already_exists"):
        await client.call("helpdesk.sla_policies.create", **promise)
    other = await client.call("helpdesk.sla_policies.create", name="Slow", priority="low", resolution_minutes=600)
    assert (other.description, other.applies_to, other.first_response_minutes) == (None, (), None)

    # Given, as neither priority nor type would bring it.
    made = await client.call("helpdesk.create", title="A", status="pending", sla_policy=policy.id)
    assert (made.sla_policy, made.due_at) == (policy.id, made.created_at + timedelta(minutes=240))
    sla = await client.call("helpdesk.sla", made.number)
    assert sla == helpdesk.TicketSla(
        ticket_id=made.id,
        policy=policy,
        time_zone=None,
        is_paused=True,
        as_of=sla.as_of,
        first_response=replace(
            sla.resolution, target_minutes=30, due_at=made.created_at + timedelta(minutes=30), remaining_seconds=1800
        ),
        resolution=helpdesk.SlaTarget(
            target_minutes=240,
            due_at=made.due_at,
            met_at=None,
            is_breached=False,
            breached_at=None,
            elapsed_seconds=0,
            remaining_seconds=14400,
            counted=(),
            paused=(helpdesk.Interval(start=made.created_at, end=None),),
        ),
    )

    calendar = await client.call("helpdesk.calendar.get")
    assert (calendar.time_zone, calendar.holidays, calendar.updated_at, calendar.updated_by) == ("UTC", (), None, None)
    assert calendar.hours[4] == helpdesk.BusinessHours(weekday="friday", start="09:00", end="17:00")
    night = {"weekday": "saturday", "start": "18:00", "end": "24:00"}
    changed = await client.call(
        "helpdesk.calendar.update", hours=[night, *calendar.hours[:1]], holidays=["2030-12-25", "2030-01-01"]
    )
    assert (changed.time_zone, changed.holidays) == ("UTC", ("2030-01-01", "2030-12-25"))
    assert [(hours.weekday, hours.end) for hours in changed.hours] == [("saturday", "24:00"), ("monday", "17:00")]
    moved = await client.call("helpdesk.calendar.update", time_zone="Europe/Berlin", hours=None, holidays=None)
    assert moved == await client.call("helpdesk.calendar.get")
    assert (moved.time_zone, moved.hours, moved.holidays) == ("Europe/Berlin", (), ())

    cleared = {"description": None, "applies_to": None, "first_response_minutes": None}
    becomes = await client.call("helpdesk.sla_policies.update", policy.id, business_hours_only=True, **cleared)
    assert (becomes.description, becomes.applies_to, becomes.first_response_minutes) == (None, (), None)
    assert (becomes.name, becomes.business_hours_only) == ("Fast", True)
    assert await client.call("helpdesk.sla_policies.get", policy.id) == becomes
    sla = await client.call("helpdesk.sla", made.id)
    assert (sla.policy, sla.time_zone, sla.first_response) == (becomes, "Europe/Berlin", None)

    assert await client.collect("helpdesk.sla_policies.list", page_size=1) == [other, becomes]
    assert await client.collect("helpdesk.sla_policies.list", status="inactive") == []
    with pytest.raises(NotFoundError):
        await client.call("helpdesk.sla_policies.get", "sla_0")


async def test_a_helpdesk_watch_streams_what_the_caller_may_see(
    clients: Clients, service: Service, world: World
) -> None:
    client = clients(service.target, token=token(world.person("read", "write")))
    watch = client.client.helpdesk.tickets.watch()
    begun = await client.next(watch)
    assert begun.event is None
    made = await client.call("helpdesk.create", title="A")
    while (response := await client.next(watch)).event is None:
        pass
    assert [response.event] == await client.collect("helpdesk.events", made.id)
    await client.close(watch)
    again = client.client.helpdesk.tickets.watch(cursor=begun.cursor)
    assert await client.next(again) == response
    await client.close(again)
