"""Traces: one tree from the edge to the row and on to the provider, and what becomes of it in the background."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Any
from uuid import uuid4

import grpc
import httpx2
import pytest
from support.authority import Authority
from support.collector import Collector, Received
from support.provider_lab import create, get, linked, until
from support.system import Issuer, Service, World, run_service
from support.transports import Grpc, Rest
from support.webhook_lab import Receiver

from service.local.envoy import Envoy, envoy_config
from service.local.gateway_traces import trace
from service.local.processes import free_port
from service.settings import Settings

SUBJECT = "A subject that no span repeats"


@dataclass(frozen=True)
class Lab:
    """A gateway and a process that trace every call whose caller has not decided it."""

    collector: Collector
    service: Service
    rest: Rest
    rpc: Grpc

    async def line(self, request_id: str) -> dict[str, Any]:
        """The log line of a call."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.service.lines() if line.get("request_id") == request_id]

        await until(lambda: bool(found()), what="the log line")
        return found()[0]

    async def spans(self, trace_id: str, *names: str) -> dict[str, Received]:
        """The spans of a trace by their names, once these are among them."""

        def found() -> dict[str, Received]:
            return {span.name: span for span in self.collector.of(trace_id)}

        await until(lambda: set(names) <= set(found()), what=f"{names} (there are {list(found())})")
        return found()


@pytest.fixture(scope="module")
async def lab(directory: Path, apart_url: str, issuer: Issuer) -> AsyncIterator[Lab]:
    ours = Authority("ours")
    ca = directory / f"collector-{uuid4()}.pem"
    ca.write_bytes(ours.cert)
    async with Collector().listening(ours.pair("127.0.0.1")) as collector:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")  # milliseconds
            traced = {"otlp_endpoint": collector.target, "otlp_ca": str(ca), "trace_sample_ratio": 1}
            with run_service(directory, apart_url, issuer, **traced) as service:
                config = envoy_config(port=free_port(), endpoints=[service.target])
                trace(config, Settings.model_validate(traced))
                at_once = config["layered_runtime"]["layers"][0]["static_layer"]
                at_once["tracing.opentelemetry.min_flush_spans"] = 1
                with Envoy(config, log_file=directory / f"envoy-{uuid4()}.log") as envoy:
                    envoy.wait_until_ready(upstream=True)
                    async with (
                        httpx2.AsyncClient(base_url=envoy.url, timeout=30) as client,
                        grpc.aio.insecure_channel(service.target) as channel,
                    ):
                        yield Lab(collector, service, Rest(client), Grpc(channel))


def headers(*, sampled: bool) -> tuple[str, dict[str, str]]:
    """A caller's trace, and the headers that carry it and an id of the request."""
    trace_id = secrets.token_hex(16)
    traceparent = f"00-{trace_id}-{secrets.token_hex(8)}-{sampled:02x}"
    return trace_id, {"traceparent": traceparent, "x-request-id": str(uuid4())}


async def test_edge_service_database_and_provider_are_one_tree(lab: Lab, apart: World) -> None:
    async with linked(apart) as (program, desk):
        trace_id, sent = headers(sampled=True)
        body = {"subject": SUBJECT, "description": "Since nine."}
        reply = await lab.rest.call("itsm.create", program.credential, body=body, headers=sent)
        reply.succeeded(201)
    operation = "tickets.itsm.rest.v1.TicketRest/CreateTicket"
    spans = await lab.spans(trace_id, "POST gateway", operation, "POST provider", "SELECT provider_links")
    edge, call, provider = spans["POST gateway"], spans[operation], spans["POST provider"]
    assert edge.parent == sent["traceparent"].split("-")[2]
    assert (edge.kind, call.kind, provider.kind) == ("SERVER", "SERVER", "CLIENT")
    assert (edge.service, call.service) == ("tickets-gateway", "tickets")
    assert call.instance == f"{gethostname()}:{lab.service.process.pid}"
    assert call.parent == edge.id
    assert call.attributes["rpc.method"] == "CreateTicket"
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.attributes["tickets.request_id"] == edge.attributes["tickets.request_id"] == sent["x-request-id"]
    assert provider.attributes["http.response.status_code"] == 201
    statements = [span for span in spans.values() if span.attributes.get("db.system.name") == "postgresql"]
    assert {span.parent for span in (provider, *statements)} == {call.id}
    assert desk.requests[-1].headers["traceparent"] == f"00-{trace_id}-{provider.id}-01"
    assert (await lab.line(sent["x-request-id"]))["trace_id"] == trace_id
    for secret in (SUBJECT, program.key, program.key_id, "authorization", "Since nine"):
        assert secret.encode() not in lab.collector.raw


async def test_the_edge_tells_no_query(lab: Lab, apart: World) -> None:
    program = await apart.program()
    trace_id, sent = headers(sampled=True)
    query = {"search": "private"}
    (await lab.rest.call("itsm.list", program.credential, query=query, headers=sent)).succeeded()
    await lab.spans(trace_id, "GET gateway", "tickets.itsm.rest.v1.TicketRest/ListTickets")
    assert b"private" not in lab.collector.raw


async def test_what_its_caller_does_not_sample_makes_no_span_and_keeps_its_trace(lab: Lab, apart: World) -> None:
    async with linked(apart) as (program, desk):
        for transport in (lab.rest, lab.rpc):
            trace_id, sent = headers(sampled=False)
            body = {"subject": SUBJECT, "description": "Since nine."}
            reply = await transport.call("itsm.create", program.credential, body=body, headers=sent)
            reply.succeeded(201)
            version, given, _, flags = desk.requests[-1].headers["traceparent"].split("-")
            assert (version, given, flags) == ("00", trace_id, "00")
            assert (await lab.line(sent["x-request-id"]))["trace_id"] == trace_id
            assert lab.collector.of(trace_id) == []


@pytest.mark.parametrize("given", [{}, {"traceparent": "00-0-0-01"}])
async def test_without_a_trace_the_service_begins_one(lab: Lab, apart: World, given: dict[str, str]) -> None:
    program = await apart.program()
    request_id = uuid4().hex
    sent = {**given, "x-request-id": request_id}
    path = {"ticket_id": str(uuid4())}
    (await lab.rpc.call("itsm.get", program.credential, path=path, headers=sent)).failed("not_found")
    trace_id = (await lab.line(request_id))["trace_id"]
    call = (await lab.spans(trace_id, "tickets.itsm.v1.TicketService/GetTicket"))[
        "tickets.itsm.v1.TicketService/GetTicket"
    ]
    assert (call.parent, call.attributes["rpc.grpc.status_code"], call.attributes["error.type"]) == ("", 5, "not_found")
    assert not call.has_failed  # of a server only its own faults are errors


async def test_a_delivery_in_the_background_is_linked_by_its_request_id(lab: Lab, apart: World) -> None:
    async with linked(apart) as (program, desk):
        desk.faults = ["503"]
        trace_id, sent = headers(sampled=True)
        body = {"subject": SUBJECT, "description": "Since nine."}
        ticket = (await lab.rest.call("itsm.create", program.credential, body=body, headers=sent)).succeeded(201)
        spans = await lab.spans(trace_id, "POST provider")
        assert spans["POST provider"].has_failed
        await until(lambda: len(desk.requests) > 1, what="another attempt")
        later = desk.requests[-1].headers["traceparent"].split("-")[1]
        delivery = (await lab.spans(later, "delivery"))["delivery"]
        assert (later != trace_id, delivery.parent) == (True, "")
        assert delivery.attributes["tickets.request_id"] == sent["x-request-id"]
        assert (await get(lab.rest, program, ticket))["id"] == ticket["id"]


async def test_a_message_to_a_webhook_carries_its_trace(lab: Lab, apart: World, receiver: Receiver) -> None:
    program = await apart.program(scopes=("webhooks:manage", "tickets:read", "tickets:write"))
    body = {"url": f"{receiver.url}/hook", "events": ["ticket.created"]}
    (await lab.rest.call("itsm.create_webhook", program.credential, body=body)).succeeded(201)
    (await create(lab.rest, program)).succeeded(201)
    await until(lambda: bool(receiver.requests), what="the message")
    [message] = receiver.requests
    _, trace_id, sender, flags = message.headers["traceparent"].split("-")
    spans = await lab.spans(trace_id, "webhook message", "POST webhook")
    assert (spans["POST webhook"].id, flags) == (sender, "01")
    assert spans["webhook message"].attributes["tickets.event_id"] == message.headers["webhook-id"]
