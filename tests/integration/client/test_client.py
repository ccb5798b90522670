"""tickets.client, both clients and all APIs: pages, failures, credentials, channels and types."""

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, assert_type
from uuid import uuid4

import grpc
import pytest
from grpc import StatusCode
from support.clients import NEW, NOW, RESOURCES, TIMEOUT_SECONDS, Client, Clients, P, token
from support.handoff import new_project
from support.system import Program, Service, World
from tickets.client import (
    AsyncTicketsClient,
    ConflictError,
    Issue,
    NotFoundError,
    PermissionDeniedError,
    Retries,
    StaleError,
    TicketsClient,
    TicketsError,
    UnauthenticatedError,
    ValidationError,
    handoff,
    helpdesk,
    itsm,
)

from service.local.processes import wait_for


async def test_lists_go_over_all_pages(clients: Clients, service: Service, world: World) -> None:
    project_id, who = await new_project(world)
    person, program = world.person("read", "write"), await world.program()
    board, desk = clients(service.target, token=token(who)), clients(service.target, token=token(person))
    itsm_client = clients(service.target, api_key=program.key)
    for n in range(5):
        await board.call("handoff.create", project_id, **NEW)
        await desk.call("helpdesk.create", title="VPN")
        await itsm_client.call("itsm.create", subject=str(n), description="d")
    for size in (2, 5, 100):
        numbers = [ticket.number for ticket in await desk.collect("helpdesk.list", page_size=size)]
        assert numbers == ["TKT-0005", "TKT-0004", "TKT-0003", "TKT-0002", "TKT-0001"]
        subjects = [ticket.subject for ticket in await itsm_client.collect("itsm.list", page_size=size)]
        assert subjects == ["4", "3", "2", "1", "0"]
        for listed in (
            await board.collect("handoff.list", page_size=size),
            await board.collect("handoff.list_project", project_id, page_size=size),
        ):
            assert [ticket.number for ticket in listed] == [5, 4, 3, 2, 1]


async def test_failures_are_exceptions_by_reason(clients: Clients, service: Service, world: World) -> None:
    client, key = clients(service.target, token=token(world.person("read", "write"))), str(uuid4())
    made = await client.call("helpdesk.create", title="A", idempotency_key=key)
    assert await client.call("helpdesk.get", made.id) == made

    failed = dict[str | None, str]()

    async def fails(kind: type[TicketsError], reason: str, method: str, *args: str, **members: str) -> TicketsError:
        with pytest.raises(kind) as failure:
            await client.call(method, *args, **members)
        error = failure.value
        assert (type(error), error.reason, bool(error.message)) == (kind, reason, True)
        failed[error.request_id] = reason
        return error

    await fails(NotFoundError, "not_found", "helpdesk.get", "TKT-9999")
    await fails(ConflictError, "idempotency_mismatch", "helpdesk.create", title="Other", idempotency_key=key)
    await fails(PermissionDeniedError, "forbidden", "helpdesk.update", made.id, team_id="grp_1")
    invalid = await fails(ValidationError, "validation_error", "helpdesk.create", title="", category="x" * 256)
    assert [issue.path for issue in invalid.issues] == ["title", "category"]
    first, second = "title: Field required (and 1 more)", "category: String should have at most 255 characters"
    assert str(invalid) == f"validation_error: {first}; {second}"

    def logged() -> dict[str | None, str]:
        lines = (line for line in service.lines() if line.get("request_id") in failed)
        return {line["request_id"]: line["outcome"] for line in lines}

    await asyncio.to_thread(
        wait_for, lambda: logged() == failed, what="the log to have every failure", timeout=TIMEOUT_SECONDS
    )


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
            await client.call("itsm.create", subject="s", description="d")
        assert failure.value.reason == reason or options == {"api_key": "x"}
    fresh = iter([program.key, "x"])
    client = clients(service.target, api_key=lambda: next(fresh), token="not for this")
    assert await client.collect("itsm.list") == []
    with pytest.raises(UnauthenticatedError):
        await client.collect("itsm.list")


async def test_the_token_may_come_from_a_coroutine(service: Service, world: World) -> None:
    async def fetch() -> str:
        return token(world.person("read"))

    async with AsyncTicketsClient(service.target, token=fetch) as client:
        assert [ticket async for ticket in client.helpdesk.tickets.list()] == []


async def test_an_asynchronous_client_may_be_made_before_there_is_a_loop(service: Service, world: World) -> None:
    person = token(world.person("read"))

    def use() -> list[Any]:
        client = AsyncTicketsClient(service.target, token=person)

        async def lists() -> list[Any]:
            return await Client(client).collect("helpdesk.list")

        async def last() -> list[Any]:
            async with client:
                return await lists()

        return [asyncio.run(lists()), asyncio.run(last())]

    assert await asyncio.to_thread(use) == [[], []]
    # One that is never used has nothing to close.
    await AsyncTicketsClient(service.target).close()


async def test_a_channel_of_the_callers_stays_open(service: Service, world: World) -> None:
    person = token(world.person("read"))
    with grpc.insecure_channel(service.target) as channel:
        for _ in range(2):
            with TicketsClient(channel, token=person) as client:
                assert await Client(client).collect("helpdesk.list") == []
    async with grpc.aio.insecure_channel(service.target) as aio_channel:
        for _ in range(2):
            async with AsyncTicketsClient(aio_channel, token=person) as aio_client:
                assert await Client(aio_client).collect("helpdesk.list") == []


# What needs no server


def test_backoff_doubles_and_has_full_jitter() -> None:
    failed = TicketsError("unavailable", "", status=StatusCode.UNAVAILABLE, retry_after=2.0)
    for attempt, most in ((1, 0.1), (2, 0.2), (7, 5.0), (10_000, 5.0)):
        waits = [Retries().wait(failed, attempt) - 2 for _ in range(200)]
        assert all(-1e-9 <= wait <= most + 1e-9 for wait in waits)
        assert max(waits) - min(waits) > most / 2


def _pickled(error: TicketsError) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - its own


@pytest.mark.parametrize("kind", [TicketsError, *TicketsError.__subclasses__(), StaleError])
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, _pickled])
def test_errors_can_be_copied_and_pickled(kind: type[TicketsError], again: Callable[[TicketsError], Any]) -> None:
    error = kind(
        "stale",
        "title: No",
        status=StatusCode.ABORTED,
        issues=(Issue("title", "No"),),
        retry_after=1.5,
        request_id="1",
    )
    error.add_note("Seen by a worker")
    same = again(error)
    assert (type(same), same.args, vars(same), str(same)) == (kind, error.args, vars(error), str(error))


def test_members_that_no_request_can_hold_raise_before_any_call() -> None:
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
        with pytest.raises(TypeError, match="a page_size and no limit"):
            tickets.list(limit=10)
        with pytest.raises(ValueError, match="Out of range float"):
            tickets.create(title="A", tags={"n": float("nan")})
        for member, value in {"title": 5, "team_id": ["a"], "priority": ["low"]}.items():
            with pytest.raises((TypeError, ValueError), match=member):
                tickets.create(**{"title": "A", member: value})
        with pytest.raises(TypeError, match="created_after takes no str"):
            tickets.list(created_after="2026-01-01")
        with pytest.raises(TypeError, match="category takes no int"):
            tickets.list(category=[5])
        with pytest.raises(TypeError, match="category takes no bytes"):
            tickets.list(category=b"net")
        with pytest.raises(TypeError, match="category takes no float"):
            tickets.list(category=0.5)
        with pytest.raises(TypeError, match=r"^id takes no NoneType$"):
            tickets.get(None)
        with pytest.raises(TypeError, match="title takes no NoneType"):
            tickets.create(title=None)
        with pytest.raises(TypeError, match="title takes no bytes"):
            tickets.create(title=b"VPN")
        itsm_tickets: Any = client.itsm.tickets
        for value in (3, b"3"):
            with pytest.raises(TypeError, match=f"metadata takes no {type(value).__name__}"):
                list(itsm_tickets.list(metadata={"floor": value}))
        with pytest.raises(TypeError, match="project_id takes no NoneType"):
            next(client.handoff.tickets.watch(None))  # type: ignore[arg-type]  # what is tested
        calendar: Any = client.helpdesk.calendar
        with pytest.raises(ValueError, match="weekday: 'mon' is none of monday, tuesday"):
            calendar.update(hours=[{"weekday": "mon", "start": "09:00", "end": "17:00"}])
        with pytest.raises(TypeError, match="BusinessHours has no member 'day'"):
            calendar.update(hours=[{"day": "monday"}])


@pytest.mark.parametrize("odd", ["a\nb", "é", "\0", "a\x7f"])
def test_text_that_no_metadata_can_hold_raises_without_the_secrets(odd: str) -> None:
    for name in ("token", "api_key", "idempotency_key"):
        secrets = {"token": "secret-token", "api_key": "secret-key"}
        given: dict[str, Any] = {**secrets, name: secrets.get(name, "") + odd}
        key = given.pop("idempotency_key", None)
        with (
            TicketsClient("127.0.0.1:1", **given) as client,
            pytest.raises(ValueError, match=f"^{name}: it has characters that are not printable ASCII$"),
        ):
            client.itsm.tickets.create(subject="A", description="B", idempotency_key=key)


def test_the_client_imports_nothing_of_the_server() -> None:
    # tests/packaging runs it where nothing else is installed.
    script = """
import sys, tickets.client
imported = {name.partition(".")[0] for name in sys.modules}
server = imported & {"service", "sqlalchemy", "psycopg", "pydantic", "orjson", "httpx2"}
assert not server, server
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
        client.handoff.tickets.list(stage="live", slim=None, priority=None)
        client.handoff.tickets.list_project(P, stage=["live", "backlog"], ship="merged")
        client.handoff.tickets.list_project(P, stage=None, ship=["merged"])
        client.handoff.tickets.list(stage="dead")  # type: ignore[arg-type]
        client.handoff.tickets.update(P, "1", roles="qa")
        client.itsm.webhooks.create(url="https://example.com", events="ticket.created")
        client.helpdesk.sla_policies.create(name="A", priority="low", resolution_minutes=1, applies_to="change")
        client.helpdesk.tickets.list(overdue=None, include_deleted=None)
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
        assert_type(
            [response.event async for response in client.handoff.tickets.watch(P)], list[handoff.TicketEvent | None]
        )
        assert_type(
            [response async for response in client.helpdesk.tickets.watch(cursor=None)], list[helpdesk.WatchResponse]
        )
        assert_type([event async for event in client.itsm.tickets.events(P)], list[itsm.TicketEvent])
        client.itsm.tickets.list(metadata={"floor": 3})  # type: ignore[dict-item]
        await client.helpdesk.tickets.get(1)  # type: ignore[arg-type]
        assert_type(await client.helpdesk.calendar.update(holidays=None), helpdesk.Calendar)
        assert_type([policy async for policy in client.helpdesk.sla_policies.list()], list[helpdesk.SlaPolicy])
