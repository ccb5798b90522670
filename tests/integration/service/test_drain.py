"""How a process stops under load: each call ends with its answer, or with `unavailable`."""

import asyncio
import json
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from google.api.httpbody_pb2 import HttpBody
from support.handoff_watch import service_in_process
from support.locks import LockedTicket
from support.system import Credential, Issuer, Program, Service, World, run_service
from support.transports import Grpc, Reply, Rest
from support.watches import ITSM
from tickets.itsm.rest.v1.rest_pb2 import TicketRestUpdateTicketRequest
from tickets.itsm.rest.v1.rest_pb2_grpc import TicketRestStub

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port, wait_for

pytestmark = pytest.mark.processes

TICKET = {"subject": "VPN is down", "description": "Since nine."}
CALLERS = 8

Transport = Rest | Grpc

# All callers are one account: as many calls at once as they make, and places beside those that wait for the locked row.
ONE_ACCOUNT = {"max_concurrent_calls": 1024, "pool_size": 20}


class Load:
    """Callers that call again as soon as they are answered, and how their calls ended."""

    def __init__(self, program: Program, member: Credential, held: str) -> None:
        self.ends = Counter[tuple[str, str, str]]()
        self._program = program
        self._member = member
        self._held = held
        self._ended = False

    def start(self, group: asyncio.TaskGroup, name: str, transport: Transport) -> None:
        kinds: dict[str, Callable[[Any], Awaitable[str]]] = {
            "read": self._read,
            "write": self._write,
            "wait": self._wait,
            "watch": self._watch,
        }
        if isinstance(transport, Rest):
            kinds["list"] = self._list
        for kind, call in kinds.items():
            for _ in range(CALLERS if kind in ("read", "write") else 2):
                group.create_task(self._repeat((name, kind), partial(call, transport)))

    def is_under_way(self) -> bool:
        return all(self.ends[name, "read", "answered"] > 20 for name in ("rest", "straight", "through the gateway"))

    def end(self) -> None:
        """Let each caller end its call."""
        self._ended = True

    async def _repeat(self, what: tuple[str, str], call: Callable[[], Awaitable[str]]) -> None:
        while not self._ended:
            self.ends[(*what, await call())] += 1
            await asyncio.sleep(0)

    async def _read(self, transport: Transport) -> str:
        return _end(await transport.call("itsm.list", self._program.credential))

    async def _write(self, transport: Transport) -> str:
        return _end(await transport.call("itsm.create", self._program.credential, body=TICKET))

    async def _wait(self, transport: Transport) -> str:
        """A change of a ticket that someone else holds."""
        path, body = {"ticket_id": self._held}, {"subject": "Late"}
        return _end(await transport.call("itsm.update", self._program.credential, path=path, body=body))

    async def _watch(self, transport: Transport) -> str:
        async with ITSM.watching(transport, self._program.credential) as stream:
            async for message in stream:
                if isinstance(message, Reply):
                    return _end(message)
        return "broken off"

    async def _list(self, transport: Rest) -> str:
        """A complete list, which is a stream."""
        reply = await transport.client.get("/api/tickets", headers=self._member)
        if reply.status_code != 200:
            return str(reply.status_code)
        return "answered" if reply.text.endswith("]}") else "broken off"


def _end(reply: Reply) -> str:
    """How a call ended: `answered`, `unavailable` as documented, `not connected`, or by another status."""
    if reply.status in (200, 201, grpc.StatusCode.OK) and "code" not in reply.body and "detail" not in reply.body:
        return "answered"
    if reply.status == grpc.StatusCode.UNAVAILABLE and not reply.details:
        return "not connected"  # gRPC's own words: the process listens no more
    if reply.status in (200, 503, grpc.StatusCode.UNAVAILABLE):
        if reply.status != 200:  # the last line of a watch that had begun
            reply.failed("unavailable")
            assert "retry-after" in reply.headers or "google.rpc.RetryInfo" in reply.details
        return "unavailable"
    return f"{reply.status}: {reply.body}"


async def locked_ticket(world: World, program: Program, rpc: Grpc) -> LockedTicket:
    made = await rpc.call("itsm.create", program.credential, body=TICKET)
    return LockedTicket(world, made.succeeded(201)["id"])


async def member_of_a_long_list(world: World) -> Credential:
    project_id = await world.project()
    world.run(
        "INSERT INTO handoff_tickets (project_id, number, source, title, description, request_type, priority, blocking,"
        " actor_role, actor_id) SELECT %s, n, 'portal', 'Title', 'Since nine.', 'bug', 'low', false, 'user', 'x'"
        " FROM generate_series(1, 1000) AS n",
        project_id,
    )
    return await world.member(project_id)


@asynccontextmanager
async def gateway_to(service: Service, directory: Path) -> AsyncIterator[httpx2.AsyncClient]:
    config = envoy_config(port=free_port(), endpoints=[service.target])
    with Envoy(config, log_file=directory / "draining-envoy.log") as envoy:
        await asyncio.to_thread(envoy.wait_until_ready, upstream=True)
        async with httpx2.AsyncClient(base_url=envoy.url, timeout=30) as client:
            yield client


async def until(check: Callable[[], bool], *, what: str) -> None:
    await asyncio.to_thread(wait_for, check, what=what, timeout=30)


def is_connectable(target: str) -> bool:
    host, _, port = target.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


async def test_a_write_that_is_answered_late_as_answers_are_held_back_is_answered_as_it_ended(
    directory: Path, database_url: str, issuer: Issuer, world: World
) -> None:
    program = await world.program()
    async with (
        service_in_process(directory, database_url, issuer, default_deadline_seconds=1) as (target, running),
        grpc.aio.insecure_channel(target) as channel,
    ):
        locked, admission = await locked_ticket(world, program, Grpc(channel)), running.admission
        # To a gateway of another name the headers of every answer are sent before its message.
        metadata = (*program.credential.items(), ("x-gateway", "another"))
        body = HttpBody(data=b'{"subject": "Done"}')
        request = TicketRestUpdateTicketRequest(ticket_id=locked.ticket_id, body=body)
        call = TicketRestStub(channel).UpdateTicket(request, metadata=metadata, timeout=20)
        await until(lambda: locked.waiting() == 1, what="the call to be in flight")
        loop, deadline = asyncio.get_running_loop(), max(admission._until.values())
        with admission.holding():
            locked.release()
            await until(lambda: loop.time() > deadline + 0.2, what="the deadline to pass")
        assert json.loads((await call).data)["subject"] == "Done"
        assert ("etag", '"2"') in [*(await call.initial_metadata() or ())]


async def test_calls_in_flight_finish_while_new_ones_go_elsewhere(
    directory: Path, database_url: str, issuer: Issuer, world: World
) -> None:
    program = await world.program()
    with run_service(directory, database_url, issuer) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            rpc = Grpc(channel)
            locked = await locked_ticket(world, program, rpc)
            path, body = {"ticket_id": locked.ticket_id}, {"subject": "Done"}
            patch = asyncio.ensure_future(rpc.call("itsm.update", program.credential, path=path, body=body))
            try:
                await until(lambda: locked.waiting() == 1, what="the call to be in flight")
                service.process.send_signal(signal.SIGTERM)
                await until(lambda: not is_connectable(service.target), what="the service to take no new ones")
                async with grpc.aio.insecure_channel(service.target) as late:
                    refused = (await Grpc(late).call("itsm.list", program.credential)).status
                    assert refused == grpc.StatusCode.UNAVAILABLE
            finally:
                locked.release()  # an open transaction would hold up everybody's watches
            assert (await patch).succeeded()["subject"] == "Done"
        assert await asyncio.to_thread(service.process.wait, 30) == 0


async def test_every_call_of_a_process_that_stops_under_load_ends_with_its_answer_or_unavailable(
    directory: Path, database_url: str, issuer: Issuer, world: World
) -> None:
    program, member = await world.program(), await member_of_a_long_list(world)
    with run_service(directory, database_url, issuer, drain_seconds=1, **ONE_ACCOUNT) as service:
        async with (
            gateway_to(service, directory) as client,
            grpc.aio.insecure_channel(service.target) as straight,
            grpc.aio.insecure_channel(client.base_url.netloc.decode()) as through_gateway,
            asyncio.TaskGroup() as group,
        ):
            locked = await locked_ticket(world, program, Grpc(straight))
            load = Load(program, member, locked.ticket_id)
            try:
                load.start(group, "rest", Rest(client))
                load.start(group, "straight", Grpc(straight))
                load.start(group, "through the gateway", Grpc(through_gateway))
                await until(load.is_under_way, what="calls to be answered")
                service.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(service.process.wait, 30) == 0
            finally:
                locked.release()
            load.end()
    others = {end for end in load.ends if end[2] not in ("answered", "unavailable", "not connected")}
    # A list that is broken off has begun: its status has left.
    assert {end[:2] for end in others} <= {("rest", "list")}, load.ends
    assert load.ends["straight", "wait", "unavailable"] >= 2  # they waited until the process ended them
