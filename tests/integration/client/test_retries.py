"""tickets.client against a scripted server: which failures are retried, when, and what is raised in the end."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc import StatusCode
from support.clients import RESOURCES, TIMEOUT_SECONDS, Client, Clients, P
from support.scripted_server import CALLS, LIMITED, UNARY, UNAVAILABLE, Refusal, Server, make
from tickets.client import (
    ConflictError,
    DeadlineExceededError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    Retries,
    TicketsError,
    UnauthenticatedError,
    UnavailableError,
    ValidationError,
)
from tickets.client import client as client_module
from tickets.handoff.v1 import ticket_pb2 as handoff_ticket_pb2
from tickets.handoff.v1 import ticket_service_pb2 as handoff_pb2
from tickets.itsm.v1 import ticket_service_pb2 as itsm_pb2


def test_every_method_is_in_the_table() -> None:
    offered = {f"{prefix}.{name}" for prefix, kind in RESOURCES.items() for name in vars(kind) if name[0].islower()}
    assert offered == set(CALLS)
    responses = {response.DESCRIPTOR.full_name for _, _, response, _ in CALLS.values()}
    assert responses == {
        method.response.DESCRIPTOR.full_name for kind in RESOURCES.values() for method in kind.METHODS.values()
    }


@pytest.mark.parametrize("name", UNARY)
async def test_every_write_is_retried_under_one_key(
    client: Client, server: Server, sleeps: list[float], name: str
) -> None:
    _, _, response, safe = CALLS[name]
    server.scripts += [[UNAVAILABLE], [Refusal(StatusCode.DEADLINE_EXCEEDED)], [response]]
    await make(client, name)
    assert sleeps == [0.1, 0.2]
    [key, *others] = server.keys()
    assert (key is not None) == (safe == "key")
    assert others == [key, key]
    assert len({(seen.path, seen.request) for seen in server.seen}) == 1


@pytest.mark.parametrize("name", UNARY)
async def test_rate_limited_calls_are_retried(client: Client, server: Server, sleeps: list[float], name: str) -> None:
    server.scripts += [[LIMITED], [CALLS[name][2]]]
    await make(client, name)
    assert sleeps == [3.1]
    assert len(server.seen) == 2


async def test_every_write_has_a_key_of_its_own_or_the_callers(client: Client, server: Server) -> None:
    server.scripts += [[itsm_pb2.CreateTicketResponse()]] * 3
    await make(client, "itsm.create")
    await make(client, "itsm.create")
    await client.call("itsm.create", subject="A", description="B", idempotency_key="mine")
    first, second, third = server.keys()
    assert len({first, second, third}) == 3
    assert third == "mine"


async def test_retries_wait_as_long_as_the_service_asks(client: Client, server: Server, sleeps: list[float]) -> None:
    server.scripts += [
        [Refusal(StatusCode.UNAVAILABLE, "unavailable", 1.5)],
        [Refusal(StatusCode.UNAVAILABLE, retry_after=0.25)],
        [itsm_pb2.GetTicketResponse()],
    ]
    await make(client, "itsm.get")
    assert sleeps == [1.6, 0.45]


async def test_attempts_end(client: Client, server: Server, sleeps: list[float]) -> None:
    server.scripts += [[UNAVAILABLE]] * 9
    with pytest.raises(UnavailableError):
        await make(client, "itsm.get")
    assert len(server.seen) == 4
    assert sleeps == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("refusal", [LIMITED, Refusal(StatusCode.UNAVAILABLE, "unavailable", 2)])
async def test_a_wait_beyond_the_deadline_is_not_begun(
    client: Client, server: Server, sleeps: list[float], refusal: Refusal
) -> None:
    server.scripts += [[refusal]]
    with pytest.raises(RateLimitedError if refusal is LIMITED else UnavailableError) as failure:
        await client.call("itsm.get", P, timeout=2)
    assert (failure.value.retry_after, sleeps, len(server.seen)) == (refusal.retry_after, [], 1)


async def test_all_attempts_share_one_deadline(clients: Clients, server: Server) -> None:
    client = clients(server.target, timeout=30, retries=Retries(jitter=lambda _: 0.3))
    server.scripts += [[UNAVAILABLE], [UNAVAILABLE], [itsm_pb2.GetTicketResponse()], [itsm_pb2.GetTicketResponse()]]
    await client.call("itsm.get", P, timeout=4)
    await client.call("itsm.get", P)
    first, second, third, other = (seen.seconds_left for seen in server.seen)
    # On the wire a timeout is rounded up to a hundredth.
    assert 3 < first < 4.1
    assert second < first - 0.2
    assert third < second - 0.2
    assert 29 < other < 30.1


@pytest.mark.parametrize("seconds", [1e12, math.inf])
async def test_a_time_without_an_end_is_long(client: Client, server: Server, seconds: float) -> None:
    server.scripts += [[itsm_pb2.GetTicketResponse()]]
    await client.call("itsm.get", P, timeout=seconds)
    assert len(server.seen) == 1


async def test_a_call_without_a_response_ends(client: Client, server: Server, sleeps: list[float]) -> None:
    server.scripts += [[None]]
    with pytest.raises(DeadlineExceededError) as failure:
        await client.call("itsm.get", P, timeout=0.2)
    assert (failure.value.status, failure.value.reason) == (StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
    assert (len(server.seen), sleeps) == (1, [])


@pytest.mark.parametrize(
    ("refusal", "kind", "reason"),
    [
        (Refusal(StatusCode.NOT_FOUND), NotFoundError, "not_found"),
        (Refusal(StatusCode.ABORTED, "a_later_version"), ConflictError, "a_later_version"),
        (Refusal(StatusCode.ALREADY_EXISTS, "already_exists"), ConflictError, "already_exists"),
        (Refusal(StatusCode.INVALID_ARGUMENT, "payload_too_large"), ValidationError, "payload_too_large"),
        (Refusal(StatusCode.RESOURCE_EXHAUSTED), TicketsError, "resource_exhausted"),
        (Refusal(StatusCode.FAILED_PRECONDITION, "provider_rejected"), TicketsError, "provider_rejected"),
        (Refusal(StatusCode.FAILED_PRECONDITION, "roles_incomplete"), ConflictError, "roles_incomplete"),
        (Refusal(StatusCode.INTERNAL, "internal"), TicketsError, "internal"),
        (Refusal(StatusCode.UNIMPLEMENTED), TicketsError, "unimplemented"),
    ],
)
async def test_other_failures_are_raised_at_once(
    client: Client, server: Server, refusal: Refusal, kind: type[TicketsError], reason: str
) -> None:
    server.scripts += [[refusal]]
    with pytest.raises(TicketsError) as failure:
        await make(client, "itsm.get")
    error = failure.value
    assert (type(error), error.reason, error.status, error.message) == (kind, reason, refusal.status, "No")
    assert (error.issues, error.retry_after, error.request_id) == ((), None, None)
    assert isinstance(error.__cause__, grpc.RpcError)


async def test_a_server_that_does_not_listen(clients: Clients, sleeps: list[float]) -> None:
    with pytest.raises(UnavailableError) as failure:
        await make(clients("127.0.0.1:1"), "itsm.get")
    assert (failure.value.reason, len(sleeps)) == ("unavailable", 3)


async def test_unreadable_details_are_ignored(client: Client, server: Server) -> None:
    broken = Refusal(StatusCode.NOT_FOUND)
    object.__setattr__(broken, "trailing", lambda: (("grpc-status-details-bin", b"\xff\xff"),))
    server.scripts += [[broken]]
    with pytest.raises(NotFoundError, match="not_found: No"):
        await make(client, "itsm.get")


# Watches


def response(cursor: str, version: int | None = None) -> Message:
    event = None if version is None else handoff_ticket_pb2.TicketEvent(version=version, changes_json="{}")
    return handoff_pb2.WatchTicketsResponse(event=event, cursor=cursor)


async def test_a_watch_resumes_after_its_last_cursor(client: Client, server: Server, sleeps: list[float]) -> None:
    server.scripts += [
        [UNAVAILABLE],
        [response("a"), response("b", 1), Refusal(StatusCode.UNAVAILABLE, "unavailable", 1)],
        [UNAVAILABLE],
        [LIMITED],
        [response("c", 2)],  # and a proxy ends it
        [response("d", 3), Refusal(StatusCode.UNAUTHENTICATED, "token_expired")],
        [response("e", 4), Refusal(StatusCode.PERMISSION_DENIED, "forbidden")],
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
    assert sleeps == [0.1, 1.1, 0.2, 3.4, 0.1, 0.1]


@pytest.mark.parametrize("status", [StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.CANCELLED])
async def test_a_watch_resumes_after_a_break_and_not_after_the_services_own_word(
    client: Client, server: Server, status: StatusCode
) -> None:
    broken, own = Refusal(status), Refusal(status, "internal")
    server.scripts += [[broken], [response("a"), broken], [response("b"), own]]
    watch = client.client.handoff.tickets.watch(P)
    assert [(await client.next(watch)).cursor for _ in range(2)] == ["a", "b"]
    with pytest.raises(TicketsError) as failure:
        await client.next(watch)
    assert (failure.value.status, failure.value.reason) == (status, "internal")
    cursors = [handoff_pb2.WatchTicketsRequest.FromString(call.request).cursor for call in server.seen]
    assert cursors == ["", "", "a"]


async def test_a_watch_that_stays_broken_is_unavailable(client: Client, server: Server) -> None:
    server.scripts += [[response("a"), Refusal(StatusCode.INTERNAL)]]
    watch = client.client.handoff.tickets.watch(P, resume_timeout=0)
    await client.next(watch)
    with pytest.raises(UnavailableError, match="unavailable: No") as failure:
        await client.next(watch)
    assert isinstance(failure.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize("status", [StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.CANCELLED])
@pytest.mark.parametrize("name", ["itsm.get", "itsm.create"])
async def test_another_call_that_breaks_is_not_repeated(
    client: Client, server: Server, status: StatusCode, name: str
) -> None:
    server.scripts += [[Refusal(status)]]
    with pytest.raises(TicketsError) as failure:
        await make(client, name)
    assert (failure.value.status, len(server.seen)) == (status, 1)


async def test_a_watch_gives_up_after_its_patience(client: Client, server: Server, sleeps: list[float]) -> None:
    server.scripts += [[response("a"), UNAVAILABLE], [UNAVAILABLE], [Refusal(StatusCode.UNAVAILABLE, retry_after=60)]]
    watch = client.client.handoff.tickets.watch(P, resume_timeout=60)
    await client.next(watch)
    with pytest.raises(UnavailableError):
        await client.next(watch)
    assert sleeps == [0.1, 0.2]
    server.scripts += [[Refusal(StatusCode.UNAUTHENTICATED, "token_expired")]] * 2
    with pytest.raises(UnauthenticatedError):
        await client.next(client.client.handoff.tickets.watch(P))


async def test_a_watch_finds_out_that_its_peer_has_stalled(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    soon = ("keepalive_time_ms", "_timeout_ms")
    options = [(name, 100 if name.endswith(soon) else value) for name, value in client_module._OPTIONS]
    monkeypatch.setattr(client_module, "_OPTIONS", tuple(options))

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS, which HTTP/2 begins with
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(stall, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        client = clients(f"{host}:{port}")
        with pytest.raises(UnavailableError):
            await client.next(client.client.handoff.tickets.watch(P, resume_timeout=0))


async def test_a_watch_that_is_closed_ends_its_call(client: Client, server: Server) -> None:
    left = asyncio.Event()

    class Endless(Server):
        def service(self, details: Any) -> Any:
            async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
                context.add_done_callback(lambda _: left.set())
                yield response("a").SerializeToString()
                await asyncio.Event().wait()

            return grpc.unary_stream_rpc_method_handler(answer)

    server.service = Endless().service  # type: ignore[assignment, method-assign]  # another
    watch = client.client.handoff.tickets.watch(P)
    await client.next(watch)
    await client.close(watch)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await left.wait()
