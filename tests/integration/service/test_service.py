"""What holds around every call: request ids, deadlines, limits, health, drain, and what the log says."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx2
import pytest
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health_pb2
from prometheus_client.parser import text_string_to_metric_families
from support.locks import LockedTicket
from support.methods import METHODS
from support.system import Issuer, Program, Service, World, health, run_service
from support.transports import Grpc
from tickets.itsm.rest.v1 import rest_pb2, rest_pb2_grpc
from tickets.itsm.v1 import ticket_service_pb2, ticket_service_pb2_grpc

from service.local.postgres import EmbeddedPostgres
from service.local.processes import free_port, wait_for
from service.migrations import upgrade

pytestmark = pytest.mark.processes

TICKET = {"subject": "VPN is down", "description": "Since nine."}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def program(world: World) -> Program:
    return await world.program()


async def make_ticket(rpc: Grpc, program: Program) -> str:
    ticket_id: str = (await rpc.call("itsm.create", program.credential, body=TICKET)).succeeded(201)["id"]
    return ticket_id


@pytest.fixture
async def locked(world: World, rpc: Grpc, program: Program) -> Any:
    locked = LockedTicket(world, await make_ticket(rpc, program))
    yield locked
    locked.release()


async def until(check: Any, *, what: str) -> None:
    await asyncio.to_thread(wait_for, check, what=what, timeout=20)


# Request ids


async def logged(service: Service, request_ids: str, number: int) -> list[dict[str, Any]]:
    """The lines of so many calls whose ids begin so: they are written soon after the answers."""

    def lines() -> list[dict[str, Any]]:
        return [line for line in service.lines() if str(line.get("request_id", "")).startswith(request_ids)]

    await asyncio.to_thread(wait_for, lambda: len(lines()) >= number, what="the lines", timeout=10)
    return lines()


@pytest.mark.parametrize("given", ["abc-123", "r" * 128])
async def test_a_request_id_is_taken_over_and_given_back(
    rpc: Grpc, program: Program, service: Service, given: str
) -> None:
    reply = await rpc.call("itsm.list", program.credential, headers={"x-request-id": given})
    assert reply.headers["x-request-id"] == given
    assert await logged(service, given, 1)


@pytest.mark.parametrize("given", [None, "with space", "r" * 129])
async def test_a_request_without_a_good_id_gets_one(rpc: Grpc, program: Program, given: str | None) -> None:
    headers = {} if given is None else {"x-request-id": given}
    first = (await rpc.call("itsm.list", program.credential, headers=headers)).headers["x-request-id"]
    failed = await rpc.call("itsm.list", {}, headers=headers)
    assert len({first, failed.headers["x-request-id"], given}) == 3


# Deadlines


async def test_a_call_past_its_deadline_leaves_no_running_statement(
    channel: grpc.aio.Channel, program: Program, locked: LockedTicket, world: World
) -> None:
    ticket_id = world.rows("SELECT id FROM itsm_tickets WHERE account_id = %s", program.account_id)[0][0]
    request = ticket_service_pb2.UpdateTicketRequest(ticket_id=str(ticket_id), subject="Late")
    stub = ticket_service_pb2_grpc.TicketServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.UpdateTicket(request, timeout=0.5, metadata=tuple(program.credential.items()))
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: locked.waiting() == 0, what="the statement to be gone")
    locked.release()
    assert world.rows("SELECT subject FROM itsm_tickets WHERE id = %s", ticket_id) == [("VPN is down",)]


async def test_a_late_rest_answer_is_a_504_in_its_own_shape(
    channel: grpc.aio.Channel, program: Program, locked: LockedTicket, world: World
) -> None:
    ticket_id = world.rows("SELECT id FROM itsm_tickets WHERE account_id = %s", program.account_id)[0][0]
    body = HttpBody(data=b'{"subject": "Late"}')
    request = rest_pb2.TicketRestUpdateTicketRequest(ticket_id=str(ticket_id), body=body)
    call = rest_pb2_grpc.TicketRestStub(channel).UpdateTicket(
        request, timeout=0.5, metadata=tuple(program.credential.items())
    )
    assert (await call).data == b'{"detail":"The request took too long"}'
    assert ("x-http-status", "504") in [tuple(pair) for pair in await call.initial_metadata()]
    await until(lambda: locked.waiting() == 0, what="the statement to be gone")


async def test_a_caller_who_leaves_leaves_no_running_statement(
    channel: grpc.aio.Channel, program: Program, locked: LockedTicket, world: World
) -> None:
    ticket_id = world.rows("SELECT id FROM itsm_tickets WHERE account_id = %s", program.account_id)[0][0]
    request = ticket_service_pb2.UpdateTicketRequest(ticket_id=str(ticket_id), subject="Gone")
    stub = ticket_service_pb2_grpc.TicketServiceStub(channel)
    call = asyncio.ensure_future(stub.UpdateTicket(request, metadata=tuple(program.credential.items())))
    await until(lambda: locked.waiting() == 1, what="the statement to run")
    call.cancel()
    await until(lambda: locked.waiting() == 0, what="the statement to be gone")


# Bytes that are no message


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe", b"\0"])
async def test_bytes_that_are_no_message_are_invalid(rpc: Grpc, program: Program, data: bytes) -> None:
    invoke: Any = rpc.channel.unary_unary("/tickets.itsm.v1.TicketService/CreateTicket")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await invoke(data, metadata=tuple(program.credential.items()))
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_over_the_limit_is_too_large(rpc: Grpc, program: Program) -> None:
    bare = ticket_service_pb2.CreateTicketRequest(subject="a", description="x" * 2**19).ByteSize()
    most = 2**19 + 2**20 - bare
    for more in (0, 1):
        request = ticket_service_pb2.CreateTicketRequest(subject="a", description="x" * (most + more))
        assert request.ByteSize() == 2**20 + more
        reply = await rpc.send(METHODS["itsm.create"], request, program.credential)
        reply.failed("payload_too_large") if more else reply.succeeded(201)


async def test_text_in_a_message_may_hold_no_nul(rpc: Grpc, program: Program) -> None:
    request = ticket_service_pb2.CreateTicketRequest(subject="a\0b", description="c", metadata_json='{"a": "\\u0000"}')
    reply = await rpc.send(METHODS["itsm.create"], request, program.credential)
    reply.failed("validation_error", paths=["subject", "metadata"])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "12", "{'a': 1}", '{"a": NaN}', '{"a": "\\ud800"}'])
async def test_json_in_a_message_is_as_strict_as_a_body(rpc: Grpc, program: Program, text: str) -> None:
    request = ticket_service_pb2.CreateTicketRequest(subject="a", description="b", metadata_json=text)
    reply = await rpc.send(METHODS["itsm.create"], request, program.credential)
    assert [issue["path"].removesuffix("_json") for issue in reply.failed("validation_error")["issues"]] == ["metadata"]


async def test_a_mask_names_only_what_can_be_changed(rpc: Grpc, program: Program) -> None:
    ticket_id = await make_ticket(rpc, program)
    for path in ("id", "created_at", "external_provider", "metadata", "*", "ticket_id", "update_mask", ""):
        request = ticket_service_pb2.UpdateTicketRequest(ticket_id=ticket_id)
        request.update_mask.paths.append(path)
        reply = await rpc.send(METHODS["itsm.update"], request, program.credential)
        reply.failed("validation_error", paths=["update_mask"])


async def test_a_mask_decides_what_is_changed(rpc: Grpc, program: Program) -> None:
    ticket_id = await make_ticket(rpc, program)
    request = ticket_service_pb2.UpdateTicketRequest(ticket_id=ticket_id, subject="New", description="not named")
    request.update_mask.paths.append("subject")
    changed = (await rpc.send(METHODS["itsm.update"], request, program.credential)).succeeded()
    assert (changed["subject"], changed["description"]) == ("New", TICKET["description"])


@pytest.mark.parametrize("name", ["x-api-key", "authorization", "idempotency-key", "if-match"])
async def test_metadata_that_there_can_be_only_one_of_is_invalid_when_given_twice(
    rpc: Grpc, program: Program, name: str
) -> None:
    given = {**program.credential, name: program.credential.get(name, "a")}
    list_tickets: Any = rpc.channel.unary_unary("/tickets.itsm.v1.TicketService/ListTickets")
    assert await list_tickets(b"", metadata=tuple(given.items())) is not None
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await list_tickets(b"", metadata=(*given.items(), (name, given[name])))
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.value.details() == f"There is more than one {name}"


# RateLimits


@pytest.fixture
def small_limits(directory: Path, database_url: str, issuer: Issuer) -> Iterator[tuple[Service, Service]]:
    shared = {
        "rate_limit_reads": "1/5",
        "rate_limit_writes": "1/3",
        "rate_limit_file": directory / "shared-rate-limits",
    }
    with (
        run_service(directory, database_url, issuer, **shared) as first,
        run_service(directory, database_url, issuer, **shared) as second,
    ):
        yield first, second


async def test_one_bucket_holds_for_a_caller_across_processes(
    small_limits: tuple[Service, Service], world: World
) -> None:
    program, other = await world.program(), await world.program()
    async with (
        grpc.aio.insecure_channel(small_limits[0].target) as first,
        grpc.aio.insecure_channel(small_limits[1].target) as second,
    ):
        transports = [Grpc(first), Grpc(second)]
        replies = [await transports[n % 2].call("itsm.create", program.credential, body=TICKET) for n in range(12)]
        limited = [reply for reply in replies if reply.status != grpc.StatusCode.OK]
        assert [reply.status for reply in replies[:3]] == [grpc.StatusCode.OK] * 3
        # Twelve calls take less than the seconds that would refill nine tokens.
        assert limited
        for reply in limited:
            assert reply.failed("rate_limited")["retry_after"] >= 1
            retry: Any = reply.details["google.rpc.RetryInfo"]
            assert retry.retry_delay.seconds == reply.body["retry_after"]
        (await transports[0].call("itsm.list", program.credential)).succeeded()
        (await transports[1].call("itsm.create", other.credential, body=TICKET)).succeeded(201)
        # However a user's UUID is written, it is one user's bucket.
        sub = str(uuid4())
        forms = [world.issuer.bearer(form) for form in (sub, sub.upper(), f"{{{sub}}}", f"urn:uuid:{sub}")]
        lists = [await transports[n % 2].call("handoff.list", forms[n % 4]) for n in range(20)]
        assert sum(reply.status == grpc.StatusCode.RESOURCE_EXHAUSTED for reply in lists) > 5


# Overload


async def test_a_call_too_many_is_rejected_with_a_time_to_retry_and_the_one_in_flight_is_answered(
    directory: Path, database_url: str, issuer: Issuer, world: World
) -> None:
    program = await world.program()
    with run_service(directory, database_url, issuer, max_concurrent_calls=1) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            rpc = Grpc(channel)
            locked = LockedTicket(world, ticket_id := await make_ticket(rpc, program))
            patch = {"path": {"ticket_id": ticket_id}, "body": {"subject": "Done"}}
            in_hand = asyncio.ensure_future(rpc.call("itsm.update", program.credential, **patch))
            await until(lambda: locked.waiting() == 1, what="the call to be in flight")

            refused = await rpc.call("itsm.list", program.credential)
            assert refused.failed("unavailable")["retry_after"] == 1
            retry: Any = refused.details["google.rpc.RetryInfo"]
            assert retry.retry_delay.seconds == 1
            list_tickets = rest_pb2_grpc.TicketRestStub(channel).ListTickets
            call = list_tickets(rest_pb2.TicketRestListTicketsRequest(), metadata=tuple(program.credential.items()))
            assert (await call).data == b'{"detail":"The service is overloaded; retry later"}'
            headers = dict(tuple(await call.initial_metadata()))
            # The gateway does not try elsewhere: that would feed an overload.
            expected = {"x-http-status": "503", "retry-after": "1", "x-retry-safe": None}
            assert {name: headers.get(name) for name in expected} == expected

            locked.release()
            assert (await in_hand).succeeded()["subject"] == "Done"
            (await rpc.call("itsm.list", program.credential)).succeeded()


# The database goes away and comes back


async def test_without_its_database_the_service_says_so_and_recovers(directory: Path, issuer: Issuer) -> None:
    postgres = EmbeddedPostgres(directory / "fickle", settings={"fsync": "off"})
    await asyncio.to_thread(postgres.start)
    try:
        url = postgres.url
        upgrade(url)
        world = World(url, issuer)
        program = await world.program()
        await world.close()
        with run_service(directory, url, issuer) as service:
            async with grpc.aio.insecure_channel(service.target) as channel:
                rpc = Grpc(channel)
                assert health(service.target) == SERVING
                (await rpc.call("itsm.list", program.credential)).succeeded()
                await asyncio.to_thread(postgres.stop)
                reply = await rpc.call("itsm.list", program.credential)
                assert reply.failed("unavailable")["retry_after"] >= 1
                await until(lambda: health(service.target) == NOT_SERVING, what="health to tell")
                told = {"database", "background"}
                await until(lambda: told <= {line["event"] for line in away(service)}, what="the log to tell")
                await asyncio.to_thread(postgres.start)
                await until(lambda: health(service.target) == SERVING, what="health to recover")
                (await rpc.call("itsm.list", program.credential)).succeeded()
                # Each cause once a minute, however many wait for it and however often they ask.
                causes = [tuple(line.get(name) for name in ("event", "work", "error")) for line in away(service)]
                assert len(causes) == len(set(causes))
    finally:
        postgres.stop()


def away(service: Service) -> list[Any]:
    """What the log says of things that cannot be had, apart from the lines of calls."""
    return [line for line in service.lines() if line.get("outcome") == "unavailable" and line["event"] != "call"]


# The log


async def test_each_call_is_one_line_without_secrets_or_bodies(rpc: Grpc, program: Program, service: Service) -> None:
    secret = "only-in-the-body"
    for index in range(3):
        headers = {"x-request-id": f"{program.key_id}-{index}"}
        await rpc.call("itsm.create", program.credential, body={**TICKET, "subject": secret}, headers=headers)
    lines = await logged(service, program.key_id, 3)
    assert [line["outcome"] for line in lines] == ["ok"] * 3
    assert {line["method"] for line in lines} == {"/tickets.itsm.v1.TicketService/CreateTicket"}
    assert {line["caller"] for line in lines} == {program.key_id}
    log = service.log.read_text()
    assert secret not in log
    assert program.key not in log


# The metrics


async def test_each_call_is_counted_by_method_and_outcome(
    directory: Path, database_url: str, issuer: Issuer, world: World
) -> None:
    address, program = f"127.0.0.1:{free_port()}", await world.program()
    with run_service(directory, database_url, issuer, metrics_listen=address) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            rpc = Grpc(channel)
            for credential in (program.credential, program.credential, {}):
                await rpc.call("itsm.list", credential)
            async with httpx2.AsyncClient() as client:
                text = (await client.get(f"http://{address}/metrics")).text
    samples = {
        (sample.name, sample.labels.get("outcome"), sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("method") in (None, "/tickets.itsm.v1.TicketService/ListTickets")
    }
    assert samples["tickets_request_duration_seconds_count", "ok", None] == 2
    assert samples["tickets_request_duration_seconds_bucket", "ok", "30.0"] == 2
    assert samples["tickets_request_duration_seconds_count", "unauthenticated", None] == 1
    assert 0 < samples["tickets_request_duration_seconds_sum", "ok", None] < 60
    assert samples["tickets_requests_in_flight", None, None] == 0
    assert samples["tickets_database_waiting", None, None] == 0
    assert samples["tickets_lane_open", None, None] == 1
    assert samples["tickets_lane_waiting", None, None] == 0
    assert samples["tickets_lane_left_out_total", None, None] == 0
    assert samples["tickets_events_behind_seconds", None, None] >= 0
