"""service.client, both of its clients: against the service, and against a server that fails as it is told to."""

import asyncio
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, assert_type
from uuid import uuid4

import grpc
import pytest
from board import place
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from system import Credential, Program, Service, World
from tickets.errors.v1 import error_pb2
from tickets.handoff.v1 import service_pb2 as handoff_pb2
from tickets.handoff.v1 import ticket_pb2 as handoff_ticket_pb2
from tickets.helpdesk.v1 import service_pb2 as helpdesk_pb2
from tickets.helpdesk.v1 import ticket_pb2 as helpdesk_ticket_pb2
from tickets.itsm.v1 import service_pb2 as itsm_pb2

from service.client import (
    AsyncTicketsClient,
    ConflictError,
    DeadlineExceededError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    Retries,
    StaleError,
    TicketsClient,
    TicketsError,
    UnauthenticatedError,
    UnavailableError,
    ValidationError,
    handoff,
    helpdesk,
    itsm,
)
from service.client.wire import Asynchronous, Blocking
from service.processes import wait_for

PATIENCE = 20.0
NEW = {"title": "Login loops", "description": "Since nine.", "request_type": "bug"}
_END = object()

Clients = Callable[..., "Client"]


class Client:
    """A client of either kind, called in one form: the blocking one in a thread of its own."""

    def __init__(self, client: TicketsClient | AsyncTicketsClient) -> None:
        self.client: Any = client

    def method(self, name: str) -> Any:
        """A method by its name, such as `helpdesk.calendar.get`, or `helpdesk.get`, which is one of the tickets."""
        api, *resource, method = name.split(".")
        return attrgetter(".".join((api, *(resource or ["tickets"]), method)))(self.client)

    async def one(self, name: str, /, *args: Any, **members: Any) -> Any:
        """The answer of a method."""
        async with asyncio.timeout(PATIENCE):
            return await self._run(partial(self.method(name), *args, **members))

    async def many(self, name: str, /, *args: Any, **members: Any) -> list[Any]:
        """All answers of a method."""
        answers, items = self.method(name)(*args, **members), []
        while (item := await self.next(answers)) is not _END:
            items.append(item)
        return items

    async def next(self, answers: Any) -> Any:
        """The next answer."""
        async with asyncio.timeout(PATIENCE):
            step: Any = next if isinstance(self.client, TicketsClient) else anext
            return await self._run(partial(step, answers, _END))

    async def close(self, answers: Any) -> None:
        """Take no more answers."""
        await self._run(answers.close if isinstance(self.client, TicketsClient) else answers.aclose)

    async def _run(self, step: Callable[[], Any]) -> Any:
        return await (asyncio.to_thread(step) if isinstance(self.client, TicketsClient) else step())


@pytest.fixture(params=[TicketsClient, AsyncTicketsClient])
async def clients(request: pytest.FixtureRequest) -> AsyncIterator[Clients]:
    """Makes clients of one kind; they are closed in the end."""
    async with AsyncExitStack() as stack:

        def make(target: str, **options: Any) -> Client:
            client = request.param(target, **options)
            if isinstance(client, AsyncTicketsClient):
                stack.push_async_exit(client)
            else:
                stack.enter_context(client)
            return Client(client)

        yield make


def token(credential: Credential) -> str:
    return credential["authorization"].removeprefix("Bearer ")


# Against the service


async def test_helpdesk(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write", "agent")))
    due = datetime(2031, 5, 6, 7, 8, 9, 123456, UTC)
    tags = {"floor": 3, "parts": ["psu", None], "price": 1.25}
    made = await client.one(
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

    assert await client.one("helpdesk.get", "TKT-0001") == made
    changed = await client.one(
        "helpdesk.update", made.id, status="pending", due_at=None, category=None, tags=["a", "b"]
    )
    assert (changed.status, changed.due_at, changed.category, changed.tags) == ("pending", None, None, ["a", "b"])
    assert (changed.title, changed.priority) == (made.title, "urgent")
    closed = await client.one("helpdesk.close", made.id, resolution_note="Rebooted.")
    assert closed.status == "closed"
    assert closed.resolved_at is not None
    assert await client.many("helpdesk.list") == [replace(closed, etag=None)]


async def test_helpdesk_lists(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write")))

    async def listed(**filters: Any) -> list[str]:
        return [ticket.title[-1] for ticket in await client.many("helpdesk.list", page_size=1, **filters)]

    later, soon = datetime.now(UTC) + timedelta(days=2), datetime.now(UTC) + timedelta(days=1)
    await client.one("helpdesk.create", title="VPN A", priority="low", due_at=later, assigned_to_id="per_2")
    await client.one("helpdesk.create", title="VPN B", priority="urgent", due_at=soon, status="pending", tags=["hq"])
    past = await client.one("helpdesk.create", title="Printer C", category="Print, or not", due_at=NOW)
    assert await listed() == ["C", "B", "A"]
    assert await listed(sort="due_at", status=None, team_id=[]) == ["C", "B", "A"]
    assert await listed(sort="-priority") == ["B", "C", "A"]
    assert await listed(status="open") == await listed(status=["open", "closed"]) == ["C", "A"]
    assert await listed(status=["open", "pending"], sort="created_at", q="vpn") == ["A", "B"]
    assert await listed(category="Print, or not") == await listed(q=past.number) == ["C"]
    assert await listed(assigned_to_id=["none", "per_2"], priority="low", type="incident") == ["A"]
    assert await listed(tag="hq", submitted_by_id="per_1") == ["B"]
    assert await listed(created_after=past.created_at) == await listed(updated_since=past.updated_at) == ["C"]
    assert await listed(created_before=past.created_at, overdue=False) == ["B", "A"]
    assert await listed(sort="due_at", created_before=past.created_at, include_deleted=True) == ["B", "A"]
    with pytest.raises(ValidationError) as failure:
        await listed(sort="title")
    assert [issue.path for issue in failure.value.issues] == ["sort"]


async def test_helpdesk_lists_what_is_overdue(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write")))
    for status, due_at in (("open", NOW), ("open", None), ("closed", NOW)):
        await client.one("helpdesk.create", title="A", status=status, due_at=due_at)
    assert [ticket.number for ticket in await client.many("helpdesk.list", overdue=True)] == ["TKT-0001"]


async def test_what_changed_meanwhile_is_not_overwritten(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write")))
    made = await client.one("helpdesk.create", title="A", category="net")
    assert made.etag is not None
    changed = await client.one("helpdesk.update", made.id, etag=made.etag, title="B", category=None)
    assert (changed.title, changed.category, changed.etag != made.etag) == ("B", None, True)
    for method, members in (("update", {"title": "C"}), ("close", {}), ("delete", {})):
        with pytest.raises(StaleError):
            await client.one(f"helpdesk.{method}", made.id, etag=made.etag, **members)
    assert await client.one("helpdesk.get", made.id) == changed

    deleted = await client.one("helpdesk.delete", made.id, etag=changed.etag)
    assert (deleted.is_deleted, deleted.deleted_by) == (True, "per_1")
    assert await client.many("helpdesk.list") == []
    assert await client.many("helpdesk.list", include_deleted=True) == [replace(deleted, etag=None)]
    with pytest.raises(NotFoundError):
        await client.one("helpdesk.get", made.id)
    assert await client.one("helpdesk.get", made.id, include_deleted=True) == deleted
    with pytest.raises(StaleError):
        await client.one("helpdesk.restore", made.id, etag=changed.etag)
    restored = await client.one("helpdesk.restore", made.id, etag=deleted.etag)
    assert await client.one("helpdesk.get", made.number) == restored
    closed = await client.one("helpdesk.close", made.id, etag=restored.etag)
    assert (closed.status, closed.deleted_at) == ("closed", None)


async def test_comments_and_history(clients: Clients, service: Service, world: World) -> None:
    tenant_id = f"ten_{uuid4().hex}"
    person = clients(service.target, token=token(world.person("read", "write", tenant_id=tenant_id)))
    agent = clients(service.target, token=token(world.person("read", "agent", tenant_id=tenant_id, sub="per_2")))
    made = await person.one("helpdesk.create", title="A")
    first = await person.one("helpdesk.comment", made.id, "Help")
    assert isinstance(first, helpdesk.Comment)
    assert (first.ticket_id, first.body, first.internal) == (made.id, "Help", False)
    assert (first.author_id, first.updated_at) == ("per_1", None)
    hidden = await agent.one("helpdesk.comment", made.number, "Again?", internal=True, idempotency_key="mine")
    assert await agent.one("helpdesk.comment", made.number, "Again?", internal=True, idempotency_key="mine") == hidden
    with pytest.raises(PermissionDeniedError):
        await person.one("helpdesk.comment", made.id, "Psst", internal=True)
    edited = await person.one("helpdesk.edit_comment", made.id, first.id, "Help!")
    assert edited == replace(first, body="Help!", updated_at=edited.updated_at)
    last = await agent.one("helpdesk.comment", made.id, "Done.")
    assert await agent.many("helpdesk.comments", made.id, page_size=1) == [edited, hidden, last]
    assert await person.many("helpdesk.comments", made.id) == [edited, last]

    history = await agent.many("helpdesk.events", made.id, page_size=2)
    assert [event.version for event in history] == [1, 2, 3, 4, 5]
    assert (history[0].type, history[0].changes, history[0].tenant_id) == ("ticket.created", {}, tenant_id)
    assert [event.type.removeprefix("ticket.comment") for event in history[1:]] == ["ed", "ed", "_edited", "ed"]
    assert [event.actor for event in history] == ["per_1", "per_1", "per_2", "per_1", "per_2"]
    assert [event.version for event in await person.many("helpdesk.events", made.number)] == [1, 2, 4, 5]


async def test_service_levels(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write", "agent")))
    promise: dict[str, Any] = {"name": "Fast", "description": "!", "priority": "high", "applies_to": ["change"]}
    promise |= {"first_response_minutes": 30, "resolution_minutes": 240}
    policy = await client.one("helpdesk.sla_policies.create", **promise, idempotency_key="mine")
    assert isinstance(policy, helpdesk.SlaPolicy)
    assert await client.one("helpdesk.sla_policies.create", **promise, idempotency_key="mine") == policy
    assert (policy.applies_to, policy.first_response_minutes, policy.status) == (("change",), 30, "active")
    with pytest.raises(ConflictError, match="already_exists"):
        await client.one("helpdesk.sla_policies.create", **promise)
    other = await client.one("helpdesk.sla_policies.create", name="Slow", priority="low", resolution_minutes=600)
    assert (other.description, other.applies_to, other.first_response_minutes) == (None, (), None)

    # Given, as neither priority nor type would bring it.
    made = await client.one("helpdesk.create", title="A", status="pending", sla_policy=policy.id)
    assert (made.sla_policy, made.due_at) == (policy.id, made.created_at + timedelta(minutes=240))
    sla = await client.one("helpdesk.sla", made.number)
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

    calendar = await client.one("helpdesk.calendar.get")
    assert (calendar.time_zone, calendar.holidays, calendar.updated_at, calendar.updated_by) == ("UTC", (), None, None)
    assert calendar.hours[4] == helpdesk.BusinessHours(weekday="friday", start="09:00", end="17:00")
    night = {"weekday": "saturday", "start": "18:00", "end": "24:00"}
    changed = await client.one(
        "helpdesk.calendar.update", hours=[night, *calendar.hours[:1]], holidays=["2030-12-25", "2030-01-01"]
    )
    assert (changed.time_zone, changed.holidays) == ("UTC", ("2030-01-01", "2030-12-25"))
    assert [(hours.weekday, hours.end) for hours in changed.hours] == [("saturday", "24:00"), ("monday", "17:00")]
    moved = await client.one("helpdesk.calendar.update", time_zone="Europe/Berlin", hours=None, holidays=None)
    assert moved == await client.one("helpdesk.calendar.get")
    assert (moved.time_zone, moved.hours, moved.holidays) == ("Europe/Berlin", (), ())

    cleared = {"description": None, "applies_to": None, "first_response_minutes": None}
    becomes = await client.one("helpdesk.sla_policies.update", policy.id, business_hours_only=True, **cleared)
    assert (becomes.description, becomes.applies_to, becomes.first_response_minutes) == (None, (), None)
    assert (becomes.name, becomes.business_hours_only) == ("Fast", True)
    assert await client.one("helpdesk.sla_policies.get", policy.id) == becomes
    sla = await client.one("helpdesk.sla", made.id)
    assert (sla.policy, sla.time_zone, sla.first_response) == (becomes, "Europe/Berlin", None)

    assert await client.many("helpdesk.sla_policies.list", page_size=1) == [other, becomes]
    assert await client.many("helpdesk.sla_policies.list", status="inactive") == []
    with pytest.raises(NotFoundError):
        await client.one("helpdesk.sla_policies.get", "sla_0")


async def test_itsm(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, api_key=(await world.program()).key)
    # Without a zone it is UTC; with another one it is the same instant.
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=1)
    made = await client.one(
        "itsm.create",
        subject="Printer",
        description="Jams",
        priority="low",
        requester_email="a@example.com",
        metadata={"n": 2**60},
    )
    assert isinstance(made, itsm.Ticket)
    assert (made.status, made.metadata, made.external_provider) == ("open", {"n": 2**60}, None)
    assert await client.one("itsm.get", made.id) == made
    changed = await client.one("itsm.update", made.id, status="resolved", priority=None, requester_email=None)
    assert (changed.status, changed.priority, changed.requester_email) == ("resolved", None, None)
    assert changed.metadata == made.metadata
    assert await client.many("itsm.list", status="resolved", start_date=before) == [changed]
    assert await client.many("itsm.list", status="open") == []
    assert await client.many("itsm.list", status=None, end_date=before) == []


async def test_itsm_webhooks(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, api_key=(await world.program(scopes=("webhooks:manage",))).key)
    made = await client.one("itsm.webhooks.create", url="https://127.0.0.1:9/hook", events=["ticket.closed"])
    assert (made.events, made.is_active, made.disabled_reason, made.failing_since) == (
        ("ticket.closed",),
        True,
        None,
        None,
    )
    assert made.secret.startswith("whsec_")
    assert made.secret not in repr(made)
    changed = await client.one("itsm.webhooks.update", made.id, is_active=False, events="ticket.created")
    assert (changed.is_active, changed.events, changed.url, changed.secret) == (
        False,
        ("ticket.created",),
        made.url,
        None,
    )
    assert await client.many("itsm.webhooks.list") == [changed]
    rotated = await client.one("itsm.webhooks.rotate_secret", made.id)
    assert rotated.secret not in (None, made.secret)
    assert await client.many("itsm.webhooks.deliveries", made.id) == []
    with pytest.raises(NotFoundError):
        await client.one("itsm.webhooks.replay", made.id, "dlv_0")
    assert await client.one("itsm.webhooks.delete", made.id) is None
    assert await client.many("itsm.webhooks.list") == []


async def test_handoff(clients: Clients, service: Service, world: World) -> None:
    project_id, who = await place(world, "triager")
    client = clients(service.target, token=token(who))
    made = await client.one(
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
    assert await client.one("handoff.get", project_id, made.ticket_ref) == made

    starts = {"role": "backend", "status": "in_progress", "work_started_note": "Looking.", "blocking_reason": "No key."}
    started = await client.one("handoff.update", project_id, "1", updated_at=None, evidence=None, role_status=starts)
    assert (started.stage, started.evidence, started.roles[0].blocking_reason) == ("in_progress", None, "No key.")
    done = {"role": "backend", "status": "done", "blocking_reason": None}
    unblocked = await client.one("handoff.update", project_id, made.id, role_status=done)
    assert (unblocked.roles[0].status, unblocked.roles[0].blocking_reason) == ("done", None)

    closing = await client.one(
        "handoff.bulk",
        project_id,
        action="close",
        ticket_ids=["1", "9"],
        skip_pending_roles=True,
        resolution_type="duplicate",
    )
    assert (closing.updated, [(e.id, e.code) for e in closing.errors]) == (1, [("9", "not_found")])
    at = datetime(2026, 2, 3, tzinfo=UTC)
    deployed = await client.one(
        "handoff.report_deployment", project_id, "1", merge_sha="9fceb02", outcome="deployed", at=at, actor_role="ci"
    )
    assert (deployed.merge_sha, deployed.deployed_at, deployed.resolution_type) == ("9fceb02", at, "duplicate")

    history = await client.many("handoff.events", project_id, made.id, page_size=2)
    assert [event.version for event in history] == [1, 2, 3, 4, 5]
    assert history[1].changes["evidence"] == {"from": {"b": 1, "a": None}, "to": None}
    assert (history[4].actor_role, history[0].type) == ("ci", "ticket.created")

    [listed] = await client.many(
        "handoff.list", slim=True, project_id=project_id, status="closed", stage=["live", "backlog"]
    )
    assert (listed.id, listed.description, listed.summary) == (made.id, None, "Since nine.")
    found = await client.many("handoff.list_project", project_id, ship="deployed", q="loops")
    assert [ticket.id for ticket in found] == [made.id]
    assert await client.many("handoff.list_project", project_id, milestone=str(uuid4())) == []


async def test_lists_go_over_all_pages(clients: Clients, service: Service, world: World) -> None:
    project_id, who = await place(world)
    person, program = world.person("read", "write"), await world.program()
    board, desk = clients(service.target, token=token(who)), clients(service.target, token=token(person))
    itsm_client = clients(service.target, api_key=program.key)
    for n in range(5):
        await board.one("handoff.create", project_id, **NEW)
        await desk.one("helpdesk.create", title="VPN")
        await itsm_client.one("itsm.create", subject=str(n), description="d")
    for size in (2, 5, 100):
        numbers = [ticket.number for ticket in await desk.many("helpdesk.list", page_size=size)]
        assert numbers == ["TKT-0005", "TKT-0004", "TKT-0003", "TKT-0002", "TKT-0001"]
        subjects = [ticket.subject for ticket in await itsm_client.many("itsm.list", page_size=size)]
        assert subjects == ["4", "3", "2", "1", "0"]
        for listed in (
            await board.many("handoff.list", page_size=size),
            await board.many("handoff.list_project", project_id, page_size=size),
        ):
            assert [ticket.number for ticket in listed] == [5, 4, 3, 2, 1]


async def test_tickets_created_while_pages_are_read_double_none(
    clients: Clients, service: Service, world: World
) -> None:
    client = clients(service.target, api_key=(await world.program()).key)
    for n in range(5):
        await client.one("itsm.create", subject=str(n), description="d")
    tickets = client.client.itsm.tickets.list(page_size=2)
    seen = [(await client.next(tickets)).subject]
    for _ in range(3):
        await client.one("itsm.create", subject="new", description="d")
    while (ticket := await client.next(tickets)) is not _END:
        seen.append(ticket.subject)
    assert seen == ["4", "3", "2", "1", "0"]


async def test_a_watch_tells_what_happens_from_where_it_begins(
    clients: Clients, service: Service, world: World
) -> None:
    project_id, who = await place(world)
    client = clients(service.target, token=token(who))
    watch = client.client.handoff.tickets.watch(project_id)
    begun = await client.next(watch)
    assert begun.event is None
    made = await client.one("handoff.create", project_id, **NEW)
    while (told := await client.next(watch)).event is None:
        pass
    assert (told.event.ticket_id, told.event.type, told.event.version) == (made.id, "ticket.created", 1)
    await client.close(watch)
    again = client.client.handoff.tickets.watch(project_id, cursor=begun.cursor)
    assert await client.next(again) == told
    await client.close(again)


async def test_a_helpdesk_watch_tells_what_the_caller_may_see(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, token=token(world.person("read", "write")))
    watch = client.client.helpdesk.tickets.watch()
    begun = await client.next(watch)
    assert begun.event is None
    made = await client.one("helpdesk.create", title="A")
    while (told := await client.next(watch)).event is None:
        pass
    assert [told.event] == await client.many("helpdesk.events", made.id)
    await client.close(watch)
    again = client.client.helpdesk.tickets.watch(cursor=begun.cursor)
    assert await client.next(again) == told
    await client.close(again)


async def test_an_itsm_watch_tells_what_the_key_may_see(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, api_key=(await world.program()).key)
    watch = client.client.itsm.tickets.watch()
    begun = await client.next(watch)
    assert begun.event is None
    made = await client.one("itsm.create", subject="A", description="B", metadata={"floor": 3})
    while (told := await client.next(watch)).event is None:
        pass
    assert [told.event] == await client.many("itsm.events", made.id)
    await client.close(watch)
    again = client.client.itsm.tickets.watch(cursor=begun.cursor)
    assert await client.next(again) == told
    await client.close(again)
    for floor, found in (("3", [made]), ("4", [])):
        assert await client.many("itsm.list", metadata={"floor": floor}) == found


async def test_failures_are_exceptions_by_reason(clients: Clients, service: Service, world: World) -> None:
    client, key = clients(service.target, token=token(world.person("read", "write"))), str(uuid4())
    made = await client.one("helpdesk.create", title="A", submitted_by_id="per_another", idempotency_key=key)
    assert await client.one("helpdesk.get", made.id) == made

    failed = dict[str | None, str]()

    async def fails(kind: type[TicketsError], reason: str, method: str, *args: str, **members: str) -> TicketsError:
        with pytest.raises(kind) as failure:
            await client.one(method, *args, **members)
        error = failure.value
        assert (type(error), error.reason, bool(error.message)) == (kind, reason, True)
        failed[error.request_id] = reason
        return error

    await fails(NotFoundError, "not_found", "helpdesk.get", "TKT-9999")
    await fails(ConflictError, "idempotency_mismatch", "helpdesk.create", title="Other", idempotency_key=key)
    await fails(PermissionDeniedError, "forbidden", "helpdesk.update", made.id, title="Mine")
    invalid = await fails(ValidationError, "validation_error", "helpdesk.create", title="", category="x" * 256)
    assert [issue.path for issue in invalid.issues] == ["title", "category"]
    assert str(invalid).endswith("; category: String should have at most 255 characters")

    def logged() -> dict[str | None, str]:
        lines = (line for line in service.lines() if line.get("request_id") in failed)
        return {line["request_id"]: line["outcome"] for line in lines}

    await asyncio.to_thread(
        wait_for, lambda: logged() == failed, what="the log to have every failure", timeout=PATIENCE
    )


async def test_stale_and_other_conflicts(clients: Clients, service: Service, world: World) -> None:
    project_id, who = await place(world)
    client = clients(service.target, token=token(who))
    made = await client.one("handoff.create", project_id, **NEW)
    moved = await client.one("handoff.update", project_id, made.id, stage="up_next", updated_at=None)
    with pytest.raises(StaleError):
        await client.one("handoff.update", project_id, made.id, stage="backlog", updated_at=None)
    with pytest.raises(ConflictError) as failure:
        await client.one("handoff.update", project_id, made.id, status="closed", updated_at=moved.updated_at)
    assert (type(failure.value), failure.value.reason) == (ConflictError, "roles_incomplete")


async def test_credentials(clients: Clients, service: Service, world: World) -> None:
    program: Program = await world.program(scopes=("tickets:read",))
    for options, kind, reason in (
        ({}, UnauthenticatedError, "unauthenticated"),
        ({"token": "x"}, UnauthenticatedError, "unauthenticated"),
        ({"api_key": "x"}, UnauthenticatedError, "unauthenticated"),
        ({"api_key": program.key}, PermissionDeniedError, "missing_scope"),
    ):
        client = clients(service.target, **options)
        with pytest.raises(kind) as failure:
            await client.one("itsm.create", subject="s", description="d")
        assert failure.value.reason == reason or options == {"api_key": "x"}
    fresh = iter([program.key, "x"])
    client = clients(service.target, api_key=lambda: next(fresh), token="not for this")
    assert await client.many("itsm.list") == []
    with pytest.raises(UnauthenticatedError):
        await client.many("itsm.list")


async def test_a_coroutine_may_give_the_token(service: Service, world: World) -> None:
    async def give() -> str:
        return token(world.person("read"))

    async with AsyncTicketsClient(service.target, token=give) as client:
        assert [ticket async for ticket in client.helpdesk.tickets.list()] == []


async def test_a_channel_that_was_given_stays_open(service: Service, world: World) -> None:
    person = token(world.person("read"))
    with grpc.insecure_channel(service.target) as channel:
        for _ in range(2):
            with TicketsClient(channel, token=person) as client:
                assert await Client(client).many("helpdesk.list") == []
    async with grpc.aio.insecure_channel(service.target) as aio_channel:
        for _ in range(2):
            async with AsyncTicketsClient(aio_channel, token=person) as aio_client:
                assert await Client(aio_client).many("helpdesk.list") == []


# Against a server that does as it is told


@dataclass(frozen=True)
class Refusal:
    """How a call ends that fails: details are the service's own unless there is no reason."""

    status: StatusCode
    reason: str = ""
    retry_after: float | None = None

    def trailing(self) -> tuple[tuple[str, bytes], ...]:
        status = status_pb2.Status(code=self.status.value[0], message="No")
        if self.retry_after is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(self.retry_after * 1000))
            status.details.add().Pack(retry)
        if self.reason:
            status.details.add().Pack(error_pb2.Error(message="No", code=self.reason))
        return (("grpc-status-details-bin", status.SerializeToString()),) if status.details else ()


UNAVAILABLE = Refusal(StatusCode.UNAVAILABLE, "unavailable")
LIMITED = Refusal(StatusCode.RESOURCE_EXHAUSTED, "rate_limited", 3)


@dataclass(frozen=True)
class Seen:
    """A call as the server saw it."""

    path: str
    request: bytes
    metadata: dict[str, str | bytes]
    seconds_left: float


class Server(grpc.GenericRpcHandler):
    """Answers each call with the next script: messages, and a refusal where it ends so. None is no end."""

    def __init__(self) -> None:
        self.scripts = deque[Sequence[Message | Refusal | None]]()
        self.seen = list[Seen]()
        self.target = self.secure_target = ""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
            metadata = dict(context.invocation_metadata())
            self.seen.append(Seen(handler_call_details.method, request, metadata, context.time_remaining()))
            for step in self.scripts.popleft():
                if step is None:
                    await asyncio.Event().wait()
                elif isinstance(step, Refusal):
                    await context.abort(step.status, "No", step.trailing())
                else:
                    yield step.SerializeToString()

        # One answer of a stream and the one of a unary call look the same.
        return grpc.unary_stream_rpc_method_handler(answer)

    def keys(self) -> list[Any]:
        return [seen.metadata.get("idempotency-key") for seen in self.seen]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    serving, handler = grpc.aio.server(), Server()
    serving.add_generic_rpc_handlers((handler,))
    handler.target = f"127.0.0.1:{serving.add_insecure_port('127.0.0.1:0')}"
    local = serving.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    handler.secure_target = f"127.0.0.1:{local}"
    await serving.start()
    yield handler
    await serving.stop(None)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients would have slept."""
    slept = list[float]()

    async def sleep(self: Any, seconds: float) -> None:
        slept.append(round(seconds, 3))

    monkeypatch.setattr(Blocking, "sleep", sleep)
    monkeypatch.setattr(Asynchronous, "sleep", sleep)
    return slept


@pytest.fixture
def client(clients: Clients, server: Server, naps: list[float]) -> Client:
    return clients(server.target, token="t", api_key="k", retries=Retries(jitter=lambda most: most))


P = "00000000-0000-0000-0000-000000000001"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
# Every call: its arguments, what it is answered, and what makes it safe to repeat.
CALLS: dict[str, tuple[tuple[str, ...], dict[str, Any], Message, str]] = {
    "helpdesk.list": ((), {}, helpdesk_pb2.ListTicketsResponse(), "read"),
    "helpdesk.get": (("1",), {}, helpdesk_pb2.GetTicketResponse(), "read"),
    "helpdesk.create": ((), {"title": "A"}, helpdesk_pb2.CreateTicketResponse(), "key"),
    "helpdesk.update": (("1",), {"title": "A"}, helpdesk_pb2.UpdateTicketResponse(), ""),
    "helpdesk.close": (("1",), {}, helpdesk_pb2.CloseTicketResponse(), "key"),
    "helpdesk.delete": (("1",), {}, helpdesk_pb2.DeleteTicketResponse(), ""),
    "helpdesk.restore": (("1",), {}, helpdesk_pb2.RestoreTicketResponse(), ""),
    "helpdesk.comment": (("1", "A"), {}, helpdesk_pb2.CreateCommentResponse(), "key"),
    "helpdesk.edit_comment": (("1", "2", "A"), {}, helpdesk_pb2.UpdateCommentResponse(), ""),
    "helpdesk.comments": (("1",), {}, helpdesk_pb2.ListCommentsResponse(), "read"),
    "helpdesk.events": (("1",), {}, helpdesk_pb2.ListTicketEventsResponse(), "read"),
    "helpdesk.sla": (("1",), {}, helpdesk_pb2.GetTicketSlaResponse(), "read"),
    "helpdesk.sla_policies.list": ((), {}, helpdesk_pb2.ListSlaPoliciesResponse(), "read"),
    "helpdesk.sla_policies.get": (("1",), {}, helpdesk_pb2.GetSlaPolicyResponse(), "read"),
    "helpdesk.sla_policies.create": (
        (),
        {"name": "A", "priority": "low", "resolution_minutes": 1},
        helpdesk_pb2.CreateSlaPolicyResponse(),
        "key",
    ),
    "helpdesk.sla_policies.update": (("1",), {"name": "A"}, helpdesk_pb2.UpdateSlaPolicyResponse(), ""),
    "helpdesk.calendar.get": ((), {}, helpdesk_pb2.GetCalendarResponse(), "read"),
    "helpdesk.calendar.update": ((), {"holidays": []}, helpdesk_pb2.UpdateCalendarResponse(), ""),
    "helpdesk.watch": ((), {}, helpdesk_pb2.WatchTicketsResponse(), "watch"),
    "itsm.create": ((), {"subject": "A", "description": "B"}, itsm_pb2.CreateTicketResponse(), "key"),
    "itsm.get": ((P,), {}, itsm_pb2.GetTicketResponse(), "read"),
    "itsm.list": ((), {}, itsm_pb2.ListTicketsResponse(), "read"),
    "itsm.update": ((P,), {"status": "open"}, itsm_pb2.UpdateTicketResponse(), ""),
    "itsm.events": ((P,), {}, itsm_pb2.ListTicketEventsResponse(), "read"),
    "itsm.watch": ((), {}, itsm_pb2.WatchTicketsResponse(), "watch"),
    "itsm.webhooks.create": (
        (),
        {"url": "https://example.com", "events": ["ticket.created"]},
        itsm_pb2.CreateWebhookResponse(),
        "",
    ),
    "itsm.webhooks.list": ((), {}, itsm_pb2.ListWebhooksResponse(), "read"),
    "itsm.webhooks.update": (("1",), {"is_active": True}, itsm_pb2.UpdateWebhookResponse(), ""),
    "itsm.webhooks.delete": (("1",), {}, itsm_pb2.DeleteWebhookResponse(), ""),
    "itsm.webhooks.rotate_secret": (("1",), {}, itsm_pb2.RotateWebhookSecretResponse(), ""),
    "itsm.webhooks.deliveries": (("1",), {}, itsm_pb2.ListWebhookDeliveriesResponse(), "read"),
    "itsm.webhooks.replay": (("1", "2"), {}, itsm_pb2.ReplayWebhookDeliveryResponse(), ""),
    "handoff.list": ((), {}, handoff_pb2.ListTicketsResponse(), "read"),
    "handoff.list_project": ((P,), {}, handoff_pb2.ListProjectTicketsResponse(), "read"),
    "handoff.get": ((P, "1"), {}, handoff_pb2.GetTicketResponse(), "read"),
    "handoff.create": ((P,), NEW, handoff_pb2.CreateTicketResponse(), "key"),
    "handoff.update": ((P, "1"), {"title": "A"}, handoff_pb2.UpdateTicketResponse(), "key"),
    "handoff.bulk": ((P,), {"action": "close", "ticket_ids": "1"}, handoff_pb2.BulkUpdateTicketsResponse(), "key"),
    "handoff.report_deployment": (
        (P, "1"),
        {"merge_sha": "a", "outcome": "merged"},
        handoff_pb2.ReportDeploymentResponse(),
        "key",
    ),
    "handoff.events": ((P, "1"), {}, handoff_pb2.ListTicketEventsResponse(), "read"),
    "handoff.watch": ((P,), {}, handoff_pb2.WatchTicketsResponse(), "watch"),
}
UNARY = [name for name, (_, _, _, safe) in CALLS.items() if safe != "watch"]
LISTS = ("list", "list_project", "events", "comments", "deliveries")
# By what the names of their methods begin with.
RESOURCES: dict[str, Any] = {
    "helpdesk": helpdesk.Tickets,
    "helpdesk.sla_policies": helpdesk.SlaPolicies,
    "helpdesk.calendar": helpdesk.TenantCalendar,
    "itsm": itsm.Tickets,
    "itsm.webhooks": itsm.Webhooks,
    "handoff": handoff.Tickets,
}


async def make(client: Client, name: str) -> Any:
    """One of the CALLS, to its end."""
    args, members, _, _ = CALLS[name]
    return await (client.many if name.endswith(LISTS) else client.one)(name, *args, **members)


def test_every_method_is_in_the_table() -> None:
    offered = {f"{prefix}.{name}" for prefix, kind in RESOURCES.items() for name in vars(kind) if name[0].islower()}
    assert offered == set(CALLS)
    answers = {answer.DESCRIPTOR.full_name for _, _, answer, _ in CALLS.values()}
    assert answers == {
        method.response.DESCRIPTOR.full_name for kind in RESOURCES.values() for method in kind.METHODS.values()
    }


@pytest.mark.parametrize("name", UNARY)
async def test_only_what_is_safe_is_repeated(client: Client, server: Server, naps: list[float], name: str) -> None:
    _, _, answer, safe = CALLS[name]
    server.scripts += [[UNAVAILABLE], [Refusal(StatusCode.DEADLINE_EXCEEDED)], [answer]]
    if safe:
        await make(client, name)
        assert naps == [0.1, 0.2]
    else:
        with pytest.raises(UnavailableError):
            await make(client, name)
        assert naps == []
    [key, *others] = server.keys()
    assert (key is not None) == (safe == "key")
    assert others == ([key, key] if safe else [])
    assert len({(seen.path, seen.request) for seen in server.seen}) == 1


@pytest.mark.parametrize("name", UNARY)
async def test_what_was_refused_before_it_began_is_repeated(
    client: Client, server: Server, naps: list[float], name: str
) -> None:
    server.scripts += [[LIMITED], [CALLS[name][2]]]
    await make(client, name)
    assert naps == [3.1]
    assert len(server.seen) == 2


async def test_every_write_has_a_key_of_its_own_or_the_callers(client: Client, server: Server) -> None:
    server.scripts += [[itsm_pb2.CreateTicketResponse()]] * 3
    await make(client, "itsm.create")
    await make(client, "itsm.create")
    await client.one("itsm.create", subject="A", description="B", idempotency_key="mine")
    first, second, third = server.keys()
    assert len({first, second, third}) == 3
    assert third == "mine"


async def test_the_service_says_how_long_to_wait(client: Client, server: Server, naps: list[float]) -> None:
    server.scripts += [
        [Refusal(StatusCode.UNAVAILABLE, "unavailable", 1.5)],
        [Refusal(StatusCode.UNAVAILABLE, retry_after=0.25)],
        [itsm_pb2.GetTicketResponse()],
    ]
    await make(client, "itsm.get")
    assert naps == [1.6, 0.45]


async def test_attempts_end(client: Client, server: Server, naps: list[float]) -> None:
    server.scripts += [[UNAVAILABLE]] * 9
    with pytest.raises(UnavailableError):
        await make(client, "itsm.get")
    assert len(server.seen) == 4
    assert naps == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("refusal", [LIMITED, Refusal(StatusCode.UNAVAILABLE, "unavailable", 2)])
async def test_a_wait_beyond_the_deadline_is_not_begun(
    client: Client, server: Server, naps: list[float], refusal: Refusal
) -> None:
    server.scripts += [[refusal]]
    with pytest.raises(RateLimitedError if refusal is LIMITED else UnavailableError) as failure:
        await client.one("itsm.get", P, timeout=2)
    assert (failure.value.retry_after, naps, len(server.seen)) == (refusal.retry_after, [], 1)


async def test_all_attempts_share_one_deadline(clients: Clients, server: Server) -> None:
    client = clients(server.target, timeout=30, retries=Retries(jitter=lambda _: 0.3))
    server.scripts += [[UNAVAILABLE], [UNAVAILABLE], [itsm_pb2.GetTicketResponse()], [itsm_pb2.GetTicketResponse()]]
    await client.one("itsm.get", P, timeout=4)
    await client.one("itsm.get", P)
    first, second, third, other = (seen.seconds_left for seen in server.seen)
    # On the wire a timeout is rounded up to a hundredth.
    assert 3 < first < 4.1
    assert second < first - 0.2
    assert third < second - 0.2
    assert 29 < other < 30.1


async def test_a_call_that_is_not_answered_ends(client: Client, server: Server, naps: list[float]) -> None:
    server.scripts += [[None]]
    with pytest.raises(DeadlineExceededError) as failure:
        await client.one("itsm.get", P, timeout=0.2)
    assert (failure.value.status, failure.value.reason) == (StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
    assert (len(server.seen), naps) == (1, [])


@pytest.mark.parametrize(
    ("refusal", "kind", "reason"),
    [
        (Refusal(StatusCode.NOT_FOUND), NotFoundError, "not_found"),
        (Refusal(StatusCode.ABORTED, "a_later_version"), ConflictError, "a_later_version"),
        (Refusal(StatusCode.ALREADY_EXISTS, "already_exists"), ConflictError, "already_exists"),
        (Refusal(StatusCode.INVALID_ARGUMENT, "payload_too_large"), ValidationError, "payload_too_large"),
        (Refusal(StatusCode.RESOURCE_EXHAUSTED), TicketsError, "resource_exhausted"),
        (Refusal(StatusCode.FAILED_PRECONDITION, "provider_rejected"), TicketsError, "provider_rejected"),
        (Refusal(StatusCode.INTERNAL, "internal"), TicketsError, "internal"),
        (Refusal(StatusCode.UNIMPLEMENTED), TicketsError, "unimplemented"),
    ],
)
async def test_failures_of_every_kind_are_told_at_once(
    client: Client, server: Server, refusal: Refusal, kind: type[TicketsError], reason: str
) -> None:
    server.scripts += [[refusal]]
    with pytest.raises(TicketsError) as failure:
        await make(client, "itsm.get")
    error = failure.value
    assert (type(error), error.reason, error.status, error.message) == (kind, reason, refusal.status, "No")
    assert (error.issues, error.retry_after, error.request_id) == ((), None, None)
    assert isinstance(error.__cause__, grpc.RpcError)


async def test_nobody_listens(clients: Clients, naps: list[float]) -> None:
    with pytest.raises(UnavailableError) as failure:
        await make(clients("127.0.0.1:1"), "itsm.get")
    assert (failure.value.reason, len(naps)) == ("unavailable", 3)


async def test_details_that_nobody_can_read_are_left_alone(client: Client, server: Server) -> None:
    broken = Refusal(StatusCode.NOT_FOUND)
    object.__setattr__(broken, "trailing", lambda: (("grpc-status-details-bin", b"\xff\xff"),))
    server.scripts += [[broken]]
    with pytest.raises(NotFoundError, match="not_found: No"):
        await make(client, "itsm.get")


async def test_metadata(clients: Clients, server: Server) -> None:
    server.scripts += [[itsm_pb2.GetTicketResponse()]]
    await make(clients(server.target, token="t", api_key=lambda: "k", user_agent="mine/1.0"), "itsm.get")
    metadata = server.seen[0].metadata
    assert (metadata["authorization"], metadata["x-api-key"]) == ("Bearer t", "k")
    assert str(metadata["user-agent"]).startswith("mine/1.0")


async def test_secure_channels(clients: Clients, server: Server, naps: list[float]) -> None:
    server.scripts += [[itsm_pb2.GetTicketResponse()]]
    await make(clients(server.secure_target, secure=grpc.local_channel_credentials()), "itsm.get")
    with pytest.raises(UnavailableError):  # TLS, to a server that has none
        await make(clients(server.target, secure=True), "itsm.get")
    assert len(server.seen) == 1


async def test_a_page_is_read_when_it_is_needed(client: Client, server: Server, naps: list[float]) -> None:
    pages = [
        handoff_pb2.ListTicketsResponse(tickets=[handoff_ticket_pb2.Ticket(number=n)] * 2, next_cursor=cursor)
        for n, cursor in ((1, "a"), (2, "b"), (3, ""))
    ]
    server.scripts += [[pages[0]], [UNAVAILABLE], [pages[1]], [pages[2]]]
    tickets = client.client.handoff.tickets.list(page_size=2, project_id=P, priority=None)
    assert server.seen == []
    assert [(await client.next(tickets)).number for _ in range(2)] == [1, 1]
    assert len(server.seen) == 1
    assert [(await client.next(tickets)).number for _ in range(4)] == [2, 2, 3, 3]
    assert await client.next(tickets) is _END
    requests = [handoff_pb2.ListTicketsRequest.FromString(seen.request) for seen in server.seen]
    assert requests == [
        handoff_pb2.ListTicketsRequest(limit=2, project_id=P, cursor=cursor) for cursor in (None, "a", "a", "b")
    ]


async def test_a_filter_is_one_word_or_several(client: Client, server: Server) -> None:
    server.scripts += [[helpdesk_pb2.ListTicketsResponse()]]
    several: dict[str, Any] = {"priority": ("low", "high"), "team_id": ["a", "b"], "type": []}
    await client.many("helpdesk.list", status="in_progress", category="net", tag=None, **several)
    assert helpdesk_pb2.ListTicketsRequest.FromString(server.seen[0].request) == helpdesk_pb2.ListTicketsRequest(
        limit=100,
        status=[helpdesk_ticket_pb2.STATUS_IN_PROGRESS],
        category=["net"],
        priority=[helpdesk_ticket_pb2.PRIORITY_LOW, helpdesk_ticket_pb2.PRIORITY_HIGH],
        team_id=["a", "b"],
    )


async def test_a_condition_is_no_change(client: Client, server: Server) -> None:
    server.scripts += [[helpdesk_pb2.UpdateTicketResponse()]]
    await client.one("helpdesk.update", "1", etag='"3"', title="A", category=None)
    sent = helpdesk_pb2.UpdateTicketRequest.FromString(server.seen[0].request)
    assert (sent.etag, list(sent.update_mask.paths)) == ('"3"', ["title", "category"])


async def test_a_list_by_offset_ends_at_the_total(client: Client, server: Server) -> None:
    def page(*ids: str, total: int) -> list[Message]:
        tickets = [{"id": id_, "created_at": {"seconds": 7}} for id_ in ids]
        return [itsm_pb2.ListTicketsResponse(tickets=tickets, total=total)]  # type: ignore[arg-type]  # messages as dicts

    server.scripts += [page("e", "d", total=4), page("d", "c", total=5), page("b", total=5)]
    assert [ticket.id for ticket in await client.many("itsm.list", page_size=2)] == list("edcb")
    offsets = [itsm_pb2.ListTicketsRequest.FromString(seen.request).offset for seen in server.seen]
    assert offsets == [0, 2, 4]
    # The total may say more than there is.
    server.scripts += [page("e", total=4), page(total=4)]
    assert len(await client.many("itsm.list")) == 1


def told(cursor: str, version: int | None = None) -> Message:
    event = None if version is None else handoff_ticket_pb2.TicketEvent(version=version, changes_json="{}")
    return handoff_pb2.WatchTicketsResponse(event=event, cursor=cursor)


async def test_a_watch_goes_on_behind_its_last_cursor(client: Client, server: Server, naps: list[float]) -> None:
    server.scripts += [
        [UNAVAILABLE],
        [told("a"), told("b", 1), Refusal(StatusCode.UNAVAILABLE, "unavailable", 1)],
        [UNAVAILABLE],
        [LIMITED],
        [told("c", 2)],  # and a proxy ends it
        [told("d", 3), Refusal(StatusCode.UNAUTHENTICATED, "token_expired")],
        [told("e", 4), Refusal(StatusCode.PERMISSION_DENIED, "forbidden")],
    ]
    watch = client.client.handoff.tickets.watch(P)
    seen = [await client.next(watch) for _ in range(5)]
    assert [(item.cursor, item.event and item.event.version) for item in seen] == [
        ("a", None), ("b", 1), ("c", 2), ("d", 3), ("e", 4),
    ]  # fmt: skip
    with pytest.raises(PermissionDeniedError):
        await client.next(watch)
    cursors = [handoff_pb2.WatchTicketsRequest.FromString(call.request).cursor for call in server.seen]
    assert cursors == ["", "", "b", "b", "b", "c", "d"]
    assert naps == [0.1, 1.1, 0.2, 3.4, 0.1, 0.1]


async def test_a_watch_gives_up_in_the_end(client: Client, server: Server, naps: list[float]) -> None:
    server.scripts += [[told("a"), UNAVAILABLE], [UNAVAILABLE], [Refusal(StatusCode.UNAVAILABLE, retry_after=60)]]
    watch = client.client.handoff.tickets.watch(P, patience=60)
    await client.next(watch)
    with pytest.raises(UnavailableError):
        await client.next(watch)
    assert naps == [0.1, 0.2]
    server.scripts += [[Refusal(StatusCode.UNAUTHENTICATED, "token_expired")]] * 2
    with pytest.raises(UnauthenticatedError):
        await client.next(client.client.handoff.tickets.watch(P))


async def test_a_watch_that_is_closed_ends_its_call(client: Client, server: Server) -> None:
    left = asyncio.Event()

    class Told(Server):
        def service(self, details: Any) -> Any:
            async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
                context.add_done_callback(lambda _: left.set())
                yield told("a").SerializeToString()
                await asyncio.Event().wait()

            return grpc.unary_stream_rpc_method_handler(answer)

    server.service = Told().service  # type: ignore[assignment, method-assign]  # another
    watch = client.client.handoff.tickets.watch(P)
    await client.next(watch)
    await client.close(watch)
    async with asyncio.timeout(PATIENCE):
        await left.wait()


# What needs no server


def test_the_wait_is_anything_up_to_a_doubling_limit() -> None:
    failed = TicketsError("unavailable", "", status=StatusCode.UNAVAILABLE, retry_after=2.0)
    for attempt, most in ((1, 0.1), (2, 0.2), (7, 5.0), (10_000, 5.0)):
        waits = [Retries().wait(failed, attempt) - 2 for _ in range(200)]
        assert all(-1e-9 <= wait <= most + 1e-9 for wait in waits)
        assert max(waits) - min(waits) > most / 2


def test_what_no_request_can_hold_is_told_without_one() -> None:
    with TicketsClient("127.0.0.1:1") as client:
        tickets: Any = client.helpdesk.tickets
        with pytest.raises(
            ValueError, match="status: 'opened' is none of open, in_progress, pending, resolved, closed"
        ):
            tickets.update("1", status="opened")
        with pytest.raises(TypeError, match="no member 'statuss'"):
            tickets.update("1", statuss="open")
        with pytest.raises(TypeError, match="no member 'update_mask'"):
            tickets.update("1", update_mask=["status"])
        with pytest.raises(ValueError, match="Out of range float"):
            tickets.create(title="A", tags={"n": float("nan")})
        calendar: Any = client.helpdesk.calendar
        with pytest.raises(ValueError, match="weekday: 'mon' is none of monday, tuesday"):
            calendar.update(hours=[{"weekday": "mon", "start": "09:00", "end": "17:00"}])
        with pytest.raises(TypeError, match="BusinessHours has no member 'day'"):
            calendar.update(hours=[{"day": "monday"}])


def test_the_client_needs_nothing_of_the_server() -> None:
    script = """
import sys, service.client
ours = {name for name in sys.modules if name.startswith("service")} - {"service"}
assert all(name.startswith("service.client") for name in ours), ours
strangers = {name.partition(".")[0] for name in sys.modules} & {"sqlalchemy", "psycopg", "pydantic", "orjson", "httpx"}
assert not strangers, strangers
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_methods_say_what_they_do() -> None:
    for kind in RESOURCES.values():
        for name in vars(kind):
            if name[0].islower():
                assert getattr(kind, name).__doc__
    with TicketsClient("127.0.0.1:1") as client:
        assert client.itsm.tickets.get.__name__ == "get"


if TYPE_CHECKING:

    def blocking_calls_are_typed(client: TicketsClient) -> None:
        assert_type(client.helpdesk.tickets.get("TKT-0001"), helpdesk.Ticket)
        assert_type(client.itsm.tickets.create(subject="A", description="B", priority=None), itsm.Ticket)
        assert_type(client.handoff.tickets.bulk(P, action="close", ticket_ids=["1"]), handoff.BulkResult)
        assert_type([ticket.stage for ticket in client.handoff.tickets.list()], list[handoff.Stage])
        client.helpdesk.tickets.update("1", description=None, due_at=NOW)
        client.helpdesk.tickets.update("1", title=None)  # type: ignore[arg-type]
        client.helpdesk.tickets.update("1", status="opened")  # type: ignore[arg-type]
        client.helpdesk.tickets.update("1", statuss="open")  # type: ignore[call-arg]
        client.helpdesk.tickets.list(status="open", type=["change"], sort="due_at", category=["a"], q=None)
        client.helpdesk.tickets.list(status="opened")  # type: ignore[arg-type]
        client.helpdesk.tickets.list(sort="title")  # type: ignore[arg-type]
        assert_type(client.helpdesk.tickets.comment("1", "A", internal=True), helpdesk.Comment)
        assert_type([event.changes for event in client.helpdesk.tickets.events("1")], list[dict[str, Any]])
        client.helpdesk.tickets.create(description="No title")  # type: ignore[call-arg]
        client.handoff.tickets.update(P, "1", role_status={"role": "qa"})  # type: ignore[typeddict-item]
        assert_type(client.helpdesk.tickets.sla("1"), helpdesk.TicketSla)
        assert_type(list(client.helpdesk.sla_policies.list(status="active")), list[helpdesk.SlaPolicy])
        client.helpdesk.sla_policies.create(name="A", priority="low")  # type: ignore[call-arg]
        client.helpdesk.sla_policies.update("1", applies_to=None, first_response_minutes=None, description=None)
        client.helpdesk.sla_policies.update("1", resolution_minutes=None)  # type: ignore[arg-type]
        hours = client.helpdesk.calendar.get().hours
        client.helpdesk.calendar.update(hours=[*hours, {"weekday": "monday", "start": "09:00", "end": "12:00"}])
        client.helpdesk.calendar.update(time_zone=None)  # type: ignore[arg-type]

    async def asynchronous_calls_are_typed(client: AsyncTicketsClient) -> None:
        assert_type(await client.helpdesk.tickets.get("TKT-0001"), helpdesk.Ticket)
        assert_type([ticket.stage async for ticket in client.handoff.tickets.list()], list[handoff.Stage])
        assert_type([told.event async for told in client.handoff.tickets.watch(P)], list[handoff.TicketEvent | None])
        assert_type([told async for told in client.helpdesk.tickets.watch(cursor=None)], list[helpdesk.Watched])
        assert_type([event async for event in client.itsm.tickets.events(P)], list[itsm.TicketEvent])
        client.itsm.tickets.list(metadata={"floor": 3})  # type: ignore[dict-item]
        await client.helpdesk.tickets.get(1)  # type: ignore[arg-type]
        assert_type(await client.helpdesk.calendar.update(holidays=None), helpdesk.Calendar)
        assert_type([policy async for policy in client.helpdesk.sla_policies.list()], list[helpdesk.SlaPolicy])
