"""The calls of one owner queue behind each other (deploy/README.md, Fairness), at both transports."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.handoff_watch import Watch, transports_of
from support.locks import LockedTicket
from support.system import Issuer, Program, Service, World, run_service
from support.transports import Grpc, Rest
from tickets.itsm.v1.ticket_service_pb2 import GetTicketRequest, GetTicketResponse

from service.local.processes import wait_for

pytestmark = pytest.mark.processes

TICKET = {"subject": "VPN is down", "description": "Since nine."}
POOL = 5
# Of one account at once, or one while its calls are slow; one of another finds a connection.
WRITES = 2
# Of one account; of one of its keys three quarters of that.
CALLS = 8
TIMEOUT = 20

Transport = Rest | Grpc


@pytest.fixture(scope="module")
def narrow(directory: Path, database_url: str, issuer: Issuer) -> Iterator[Service]:
    """A service in which one account has two places for reads, two for writes, eight calls and two watches."""
    settings = {"pool_size": POOL, "max_concurrent_calls": 4 * CALLS, "max_watches": 20}
    with run_service(directory, database_url, issuer, **settings) as service:
        yield service


@pytest.fixture(params=["rest", "grpc"])
async def narrow_transport(
    narrow: Service, directory: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Transport]:
    if request.param == "grpc":
        async with grpc.aio.insecure_channel(narrow.target) as channel:
            yield Grpc(channel)
        return
    async with transports_of(narrow.target, directory) as (rest, _):
        yield rest


class Busy:
    """An account with as many writes in flight as it may have, all of which wait for a locked row."""

    def __init__(self, world: World, transport: Transport) -> None:
        self._world, self._transport = world, transport
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Busy":
        self.program = await self._world.program()
        self.other_key = await self._world.program(account_id=self.program.account_id)
        self.ticket_id = str((await self._call("itsm.create", self.program, body=TICKET)).succeeded(201)["id"])
        # Both keys are known from now on: no write has to wait for that, and comes after a call that was made later.
        (await self._call("itsm.list", self.other_key)).succeeded()
        self.locked = LockedTicket(self._world, self.ticket_id)
        self._stack.callback(self.locked.release)
        self.writes = [self._write(key) for key in (self.program, self.other_key) for _ in range(CALLS // 2)]
        await asyncio.to_thread(wait_for, self._some_wait, what="writes to wait", timeout=TIMEOUT)
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._stack.aclose()
        for reply in await asyncio.gather(*self.writes):
            reply.succeeded()

    def _some_wait(self) -> bool:
        return 1 <= self.locked.waiting() <= WRITES

    def _write(self, key: Program) -> "asyncio.Future[Any]":
        change = {"path": {"ticket_id": self.ticket_id}, "body": {"subject": "Done"}}
        return asyncio.ensure_future(self._call("itsm.update", key, **change))

    async def _call(self, name: str, key: Program, **sections: Any) -> Any:
        return await self._transport.call(name, key.credential, **sections)


async def test_an_account_whose_writes_wait_holds_up_nobody(narrow_transport: Transport, world: World) -> None:
    other = await world.program()
    async with Busy(world, narrow_transport) as busy, asyncio.timeout(TIMEOUT):
        for _ in range(3):
            created = await narrow_transport.call("itsm.create", other.credential, body=TICKET)
            path = {"ticket_id": created.succeeded(201)["id"]}
            change = {"path": path, "body": {"status": "closed"}}
            (await narrow_transport.call("itsm.update", other.credential, **change)).succeeded()
            (await narrow_transport.call("itsm.get", other.credential, path=path)).succeeded()
        # Of all its writes no more have reached the database.
        assert 1 <= busy.locked.waiting() <= WRITES


async def test_a_call_too_many_of_an_account_is_refused_alone(narrow_transport: Transport, world: World) -> None:
    other = await world.program()
    async with Busy(world, narrow_transport) as busy, asyncio.timeout(TIMEOUT):
        reply = await narrow_transport.call("itsm.list", busy.program.credential)
        reply.failed("rate_limited", message="You have too many calls open at once")
        if reply.transport == "rest":
            assert reply.headers["retry-after"] == "1"
        (await narrow_transport.call("itsm.list", other.credential)).succeeded()
    (await narrow_transport.call("itsm.list", busy.program.credential)).succeeded()


class Silent:
    """Calls at the service's own port whose messages come when they are sent, or never."""

    def __init__(self, narrow: Service) -> None:
        self._channel = grpc.aio.insecure_channel(narrow.target)
        self._calls: list[Any] = []

    async def __aenter__(self) -> "Silent":
        return self

    async def __aexit__(self, *_: Any) -> None:
        for call in self._calls:
            call.cancel()
        await self._channel.close()

    @property
    def transport(self) -> Grpc:
        """For calls that arrive after these."""
        return Grpc(self._channel)

    def open(self, method: str, key: Program) -> Any:
        path = f"/tickets.itsm.v1.TicketService/{method}"
        metadata = tuple(key.credential.items())
        call: Any = self._channel.stream_unary(path)(metadata=metadata)
        self._calls.append(call)
        return call


async def test_a_call_that_waits_has_not_read_its_message(narrow: Service, world: World) -> None:
    other = await world.program()
    async with Silent(narrow) as silent, asyncio.timeout(TIMEOUT):
        async with Busy(world, silent.transport) as busy:
            # One of the calls that its account may have is free again, for the call that ends without a message.
            busy.writes.pop().cancel()
            listing = "itsm.list", busy.program.credential
            while (await silent.transport.call(*listing)).status != grpc.StatusCode.OK:
                pass
            call = silent.open("UpdateTicket", busy.other_key)
            await call.done_writing()
            for _ in range(2):
                (await silent.transport.call("itsm.list", other.credential)).succeeded()
            assert not call.done()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["GetTicket", "CreateTicket"])
async def test_who_never_sends_a_message_holds_up_nobody(narrow: Service, world: World, method: str) -> None:
    one, other = await world.program(), await world.program()
    other_key = await world.program(account_id=one.account_id)
    async with Silent(narrow) as silent, asyncio.timeout(TIMEOUT):
        # More than its account has places.
        for _ in range(CALLS * 3 // 4):
            silent.open(method, one)
        for who in (other, other_key):
            (await silent.transport.call("itsm.create", who.credential, body=TICKET)).succeeded(201)
            (await silent.transport.call("itsm.list", who.credential)).succeeded()


async def test_a_message_that_comes_late_is_as_good_as_any(narrow: Service, world: World) -> None:
    program = await world.program()
    async with Silent(narrow) as silent, asyncio.timeout(TIMEOUT):
        created = await silent.transport.call("itsm.create", program.credential, body=TICKET)
        ticket_id = created.succeeded(201)["id"]
        late = silent.open("GetTicket", program)
        for _ in range(3):
            (await silent.transport.call("itsm.list", program.credential)).succeeded()
        await late.write(GetTicketRequest(ticket_id=ticket_id).SerializeToString())
        assert GetTicketResponse.FromString(await late).ticket.subject == TICKET["subject"]


async def test_a_watch_too_many_of_a_user_is_refused_alone(narrow_transport: Transport, world: World) -> None:
    project_id = await world.project()
    one, other = await world.member(project_id), await world.member(project_id)
    async with Watch(narrow_transport, one, project_id) as watch:
        await watch.message()
        async with Watch(narrow_transport, one, project_id) as too_many:
            await too_many.refused("rate_limited", message="You have too many watches open at once")
        async with Watch(narrow_transport, other, project_id) as theirs:
            await theirs.message()


BODIES = {
    "values": [0] * 20_001,
    "exact numbers": [0.5] * 5_001,
}


@pytest.mark.parametrize("values", BODIES.values(), ids=BODIES)
async def test_a_request_with_very_many_values_is_too_large(transport: Transport, world: World, values: Any) -> None:
    program = await world.program()
    body = {**TICKET, "metadata": {"values": values}}
    (await transport.call("itsm.create", program.credential, body=body)).failed("payload_too_large")
    assert (await transport.call("itsm.list", program.credential)).succeeded()["total"] == 0


async def test_an_offset_beyond_the_end_is_an_empty_page(transport: Transport, world: World) -> None:
    program = await world.program()
    for _ in range(2):
        (await transport.call("itsm.create", program.credential, body=TICKET)).succeeded(201)
    for query, number in (({"offset": 1}, 1), ({"offset": 2}, 0), ({"offset": 10**9}, 0), ({"offset": 0}, 2)):
        for more in ({}, {"status": "open"}, {"start_date": "2020-01-01T00:00:00Z"}):
            page = (await transport.call("itsm.list", program.credential, query={**query, **more})).succeeded()
            assert (len(page["tickets"]), page["total"]) == (number, 2)


async def test_errors_do_not_repeat_a_long_input(rest: Rest, world: World) -> None:
    program = await world.program()
    body = {"subject": "s" * 100_000, "metadata": {"a": "b" * 100_000}}
    reply = await rest.call("itsm.create", program.credential, body=body)
    shown = {tuple(issue["loc"]): issue["input"] for issue in reply.failed("validation_error")["detail"]}
    assert shown == {("body", "subject"): "s" * 1000, ("body", "description"): None}


@pytest.mark.parametrize("api", ["handoff", "helpdesk", "itsm"])
async def test_a_search_has_few_words(transport: Transport, world: World, api: str) -> None:
    words = " ".join(f"w{n}" for n in range(21))
    sections: dict[str, Any] = {}
    if api == "helpdesk":
        who, call = world.person("read"), "helpdesk.list"
    elif api == "itsm":
        who, call = (await world.program()).credential, "itsm.list"
    else:
        project_id = await world.project()
        who, call = await world.member(project_id), "handoff.project"
        sections["path"] = {"project_id": project_id}
    reply = await transport.call(call, who, query={"q": words}, **sections)
    reply.failed("validation_error")
    assert "at most 20 words" in str(reply.body)
    (await transport.call(call, who, query={"q": words[:-4] + " w1 W2"}, **sections)).succeeded()
