"""What the gateway adds: native gRPC untouched, its own errors in each API's shape, deadlines, draining workers."""

import asyncio
import copy
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx2
import psycopg
import pytest
from support.methods import METHODS
from support.system import Issuer, Service, World, run_service
from support.transports import Grpc, Reply, rest_reply
from tickets.helpdesk.v1 import sla_pb2, sla_service_pb2
from tickets.itsm.v1 import ticket_service_pb2

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port

TICKET = {"subject": "VPN is down", "description": "Since nine."}


@contextmanager
def gateway(directory: Path, *endpoints: str, deadline: str | None = None) -> Iterator[Envoy]:
    """A gateway for one test; `deadline` is how long the service may take, as `grpc-timeout` has it."""
    config = envoy_config(port=free_port(), endpoints=endpoints)
    if deadline is not None:
        config = copy.deepcopy(config)  # the YAML's anchors are shared objects
        for route in _routes(config):
            for header in route.get("request_headers_to_add", []):
                if header["header"]["key"] == "grpc-timeout":
                    header["header"]["value"] = deadline
    with Envoy(config, log_file=directory / "envoy-of-a-test.log") as envoy:
        yield envoy


def _routes(config: Any) -> Any:
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return manager["route_config"]["virtual_hosts"][0]["routes"]


# Native gRPC


async def test_native_grpc_passes_untouched(gateway_url: str, world: World) -> None:
    program = await world.program()
    async with grpc.aio.insecure_channel(gateway_url.removeprefix("http://")) as channel:
        rpc = Grpc(channel)
        (await rpc.call("itsm.create", program.credential, body=TICKET)).succeeded(201)
        # A failure keeps its status, message and details.
        (await rpc.call("itsm.create", program.credential, body={})).failed(
            "validation_error", "subject: Field required (and 1 more)", paths=["subject", "description"]
        )
        nothing: Any = channel.unary_unary("/tickets.itsm.v1.TicketService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await nothing(b"")
        assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_client_that_takes_eight_kilobytes_of_metadata_reads_every_failure(
    service: Service, gateway_url: str, world: World
) -> None:
    later: Any = 77  # a number of a later version
    hours = [sla_pb2.BusinessHours(weekday=later)] * 30
    names = {f"{number:>03}{'k' * 300}": "v" for number in range(30)}
    limit = [("grpc.max_metadata_size", 8192), ("grpc.absolute_max_metadata_size", 8192)]  # as those in Java
    for target in (service.target, gateway_url.removeprefix("http://")):
        async with grpc.aio.insecure_channel(target, limit) as channel:
            rpc, program = Grpc(channel), await world.program()
            request: Any = sla_service_pb2.UpdateCalendarRequest(hours=hours)
            reply = await rpc.send(METHODS["helpdesk.update_calendar"], request, world.person("agent"))
            assert len(reply.failed("validation_error")["issues"]) > 10
            listing = ticket_service_pb2.ListTicketsRequest(metadata=names)
            reply = await rpc.send(METHODS["itsm.list"], listing, program.credential)
            assert reply.failed("validation_error")["issues"]


async def test_without_a_service_native_grpc_is_unavailable(directory: Path) -> None:
    with gateway(directory, f"127.0.0.1:{free_port()}") as envoy:
        async with grpc.aio.insecure_channel(envoy.url.removeprefix("http://")) as channel:
            reply = await Grpc(channel).call("itsm.list", {})
    assert reply.status == grpc.StatusCode.UNAVAILABLE
    assert "{" not in reply.body["error"]


# Errors of its own

UNAVAILABLE = [
    ("itsm", "/api/v1/tickets", {"detail": "The service is currently unavailable"}),
    (
        "helpdesk",
        "/api/v1/helpdesk/tickets",
        {"error": "The service is currently unavailable", "code": "unavailable", "retryAfter": 1},
    ),
    (
        "handoff",
        "/api/tickets",
        {"error": "The service is currently unavailable", "code": "unavailable", "retryAfter": 1},
    ),
]


async def test_without_a_service_every_api_answers_503_in_its_shape(directory: Path) -> None:
    with gateway(directory, f"127.0.0.1:{free_port()}") as envoy:
        async with httpx2.AsyncClient(base_url=envoy.url) as client:
            for api, path, body in UNAVAILABLE:
                reply = rest_reply(api, await client.get(path))
                assert (reply.status, reply.body, reply.headers["retry-after"]) == (503, body, "1")
            # Whoever starts a gateway again, because it is dead, does not; who sends it callers sends them elsewhere.
            assert [(await client.get(path)).status_code for path in PROBES] == [200, 503]


PROBES = ("/healthz", "/readyz")


async def test_probes_are_answered_by_the_gateway_itself(client: httpx2.AsyncClient, service: Service) -> None:
    for path in PROBES:
        for method in ("GET", "HEAD"):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["x-request-id"]
            # Nothing of how it is answered.
            assert not [name for name in answer.headers if name.startswith("x-envoy")]
    assert (await client.get("/readyz/x")).status_code == 404


async def test_what_takes_too_long_is_a_504_in_the_apis_shape(directory: Path, service: Any, world: World) -> None:
    program = await world.program()
    person = world.person("read", "write")
    async with httpx2.AsyncClient() as client:
        with gateway(directory, service.target, deadline="1S") as envoy:
            envoy.wait_until_ready(upstream=True)
            tickets = f"{envoy.url}/api/v1/tickets"
            helpdesk_url = f"{envoy.url}/api/v1/helpdesk/tickets"
            itsm = (await client.post(tickets, json=TICKET, headers=program.credential)).json()
            helpdesk = (await client.post(helpdesk_url, json={"title": "Late"}, headers=person)).json()
            with psycopg.connect(world.database_url) as holder:
                holder.execute("SELECT 1 FROM itsm_tickets WHERE id = %s FOR UPDATE", [itsm["id"]])
                holder.execute("SELECT 1 FROM helpdesk_tickets WHERE id = %s FOR UPDATE", [helpdesk["id"]])
                late = await asyncio.gather(
                    client.patch(f"{tickets}/{itsm['id']}", json={}, headers=program.credential),
                    client.patch(f"{helpdesk_url}/{helpdesk['id']}", json={}, headers=person),
                )
    rest_reply("itsm", late[0]).failed("deadline_exceeded", "The request took too long")
    rest_reply("helpdesk", late[1]).failed("deadline_exceeded", "The request took too long")


# Requests and answers


@pytest.mark.parametrize("given", ["abc-123", None])
async def test_the_request_id_comes_back_once(client: httpx2.AsyncClient, given: str | None) -> None:
    for path in ("/api/v1/tickets", "/nowhere"):
        response = await client.get(path, headers={} if given is None else {"x-request-id": given})
        ids = response.headers.get_list("x-request-id")
        assert len(ids) == 1
        assert ids[0]
        assert given in (None, ids[0])


async def test_an_id_in_the_path_wins_over_any_in_body_or_query(client: httpx2.AsyncClient, world: World) -> None:
    person, path = world.person("read", "write"), "/api/v1/helpdesk/tickets"
    first, second = [(await client.post(path, json={"title": name}, headers=person)).json() for name in ("a", "b")]
    body = {"id": second["id"], "title": "c"}
    response = await client.patch(f"{path}/{first['id']}", json=body, headers=person)
    assert (response.json()["id"], response.json()["title"]) == (first["id"], "c")
    # In a query the helpdesk knows no such name; another API ignores it.
    refused = await client.patch(f"{path}/{first['id']}?id={second['id']}", json=body, headers=person)
    assert (refused.status_code, refused.json()["fieldErrors"]) == (400, {"id": "Unknown query parameter"})
    who, path = (await world.program()).credential, "/api/v1/tickets"
    first, second = [(await client.post(path, json={**TICKET, "subject": name}, headers=who)).json() for name in "ab"]
    response = await client.get(f"{path}/{first['id']}?ticket_id={second['id']}&id={second['id']}", headers=who)
    assert response.json() == first


async def test_a_close_needs_no_body(client: httpx2.AsyncClient, world: World) -> None:
    person = world.person("read", "write")
    made = (await client.post("/api/v1/helpdesk/tickets", json={"title": "a"}, headers=person)).json()
    response = await client.post(f"/api/v1/helpdesk/tickets/{made['number']}/close", headers=person)
    assert (response.status_code, response.json()["status"]) == (200, "closed")


async def test_query_parameters_unknown_or_repeated_do_no_harm(client: httpx2.AsyncClient, world: World) -> None:
    program = await world.program()
    response = await client.get("/api/v1/tickets?x=1&limit=2&y&limit=3&body.data=z", headers=program.credential)
    assert response.status_code == 200
    assert response.json()["limit"] == 3


async def test_a_plus_in_a_query_stays_a_plus(client: httpx2.AsyncClient, world: World) -> None:
    program = await world.program()
    await client.post("/api/v1/tickets", json=TICKET, headers=program.credential)
    response = await client.get("/api/v1/tickets?start_date=2020-01-01T00:00:00+02:00", headers=program.credential)
    assert response.json()["total"] == 1


# Workers that drain


async def test_a_worker_that_drains_costs_no_request(
    directory: Path, database_url: str, issuer: Issuer, service: Service, world: World
) -> None:
    program = await world.program()
    with (
        run_service(directory, database_url, issuer, drain_notice_seconds=2) as leaving,
        gateway(directory, leaving.target, service.target) as envoy,
    ):
        envoy.wait_until_ready(upstream=True)
        async with httpx2.AsyncClient(base_url=envoy.url, timeout=30) as client:
            answered = await _ask_until_gone(client, program.credential, leaving)
    assert {reply.status for reply in answered} == {200, 201}
    created = sum(reply.status == 201 for reply in answered)
    assert world.rows("SELECT count(*) FROM itsm_tickets WHERE account_id = %s", program.account_id) == [(created,)]


async def _ask_until_gone(client: httpx2.AsyncClient, credential: Any, leaving: Any) -> list[Reply]:
    """Let eight callers read and write without pause before, while and after a worker drains."""
    replies: list[Reply] = []
    busy, gone = asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        replies.append(rest_reply("itsm", await client.get("/api/v1/tickets?limit=1", headers=credential)))
        replies.append(rest_reply("itsm", await client.post("/api/v1/tickets", json=TICKET, headers=credential)))

    async def caller() -> None:
        for _ in range(5):
            await ask()
        busy.set()
        while not gone.is_set():
            await ask()
        for _ in range(5):
            await ask()

    async def end() -> None:
        await busy.wait()
        leaving.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(leaving.process.wait, 30) == 0
        gone.set()

    await asyncio.gather(end(), *(caller() for _ in range(8)))
    return replies
