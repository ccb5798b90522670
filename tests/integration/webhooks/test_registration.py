"""Webhooks at both transports with the usual settings: no private addresses, no key to keep secrets with."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from support.system import Issuer, Program, World, run_service
from support.transports import Grpc, Reply, Rest
from support.webhook_lab import Account, Process

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port
from service.settings import Settings

Door = Rest | Grpc

MANAGE = ("webhooks:manage",)
# As one who sets nothing has them.
USUAL = {name: Settings.model_fields[name].default for name in ("allow_private_targets", "encryption_keys")}
# Numbers, so that nobody has to be asked for them.
PUBLIC, PRIVATE = "https://93.184.216.34/hook", "https://127.0.0.1/hook"
EVENTS = ["ticket.created"]


@pytest.fixture(scope="module")
async def transports(directory: Path, apart_url: str, issuer: Issuer) -> AsyncIterator[Mapping[str, Door]]:
    with run_service(directory, apart_url, issuer, **USUAL) as service:
        config = envoy_config(port=free_port(), endpoints=[service.target])
        with Envoy(config, log_file=directory / f"envoy-{uuid4()}.log") as envoy:
            envoy.wait_until_ready(upstream=True)
            async with (
                httpx.AsyncClient(base_url=envoy.url, timeout=30) as client,
                grpc.aio.insecure_channel(service.target) as channel,
            ):
                yield {"rest": Rest(client), "grpc": Grpc(channel)}


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest, transports: Mapping[str, Door]) -> Door:
    return transports[request.param]


@pytest.fixture
async def program(apart: World) -> Program:
    return await apart.program(scopes=MANAGE)


@pytest.fixture
async def webhook(process: Process, program: Program) -> Any:
    """One that was registered while more was allowed."""
    return await process.register(Account(UUID(program.account_id)), PRIVATE, EVENTS)


async def listed(transport: Door, program: Program) -> list[tuple[Any, ...]]:
    """What a refusal must leave as it was."""
    webhooks = (await transport.call("itsm.webhooks", program.credential)).succeeded()["webhooks"]
    return [(one["id"], one["url"], one["updated_at"]) for one in webhooks]


def problems(reply: Reply) -> Any:
    """The problems of a refusal, as the transport itself says them."""
    if reply.transport == "rest":
        return reply.body["detail"]
    bad = reply.details["google.rpc.BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    return [(violation.field, violation.description) for violation in bad.field_violations]


@pytest.mark.parametrize("operation", ["itsm.create_webhook", "itsm.update_webhook"])
@pytest.mark.parametrize(
    ("url", "why"),
    [
        (PRIVATE + "/private", "It cannot be called: its host is not on the public Internet"),
        (PUBLIC.replace("https", "http"), "It cannot be called: it is no https address"),
    ],
)
async def test_an_address_that_may_not_be_called_is_told_by_its_path(
    transport: Door, program: Program, webhook: Any, operation: str, url: str, why: str
) -> None:
    before = await listed(transport, program)
    is_new = operation == "itsm.create_webhook"
    path = {} if is_new else {"webhook_id": webhook["id"]}
    body = {"url": url, "events": EVENTS} if is_new else {"url": url}
    reply = await transport.call(operation, program.credential, path=path, body=body)
    reply.failed("validation_error", paths=["url"])
    of_rest = [{"type": "url_refused", "loc": ["body", "url"], "msg": why, "input": url}]
    assert problems(reply) == (of_rest if transport.name == "rest" else [("url", why)])
    assert await listed(transport, program) == before


async def test_where_no_secret_can_be_kept_none_is_made(transport: Door, program: Program, webhook: Any) -> None:
    before = await listed(transport, program)
    new = await transport.call("itsm.create_webhook", program.credential, body={"url": PUBLIC, "events": EVENTS})
    rotated = await transport.call("itsm.rotate_secret", program.credential, path={"webhook_id": webhook["id"]})
    for reply in (new, rotated):
        reply.failed("unavailable", "Secrets cannot be stored at the moment")
    assert await listed(transport, program) == before


async def test_what_needs_neither_goes_on(transport: Door, program: Program, webhook: Any) -> None:
    path = {"webhook_id": webhook["id"]}
    for body in ({"url": PUBLIC}, {"is_active": False}):
        changed = (await transport.call("itsm.update_webhook", program.credential, path=path, body=body)).succeeded()
        assert {name: changed[name] for name in body} == body
    assert (await transport.call("itsm.delete_webhook", program.credential, path=path)).succeeded(204) == {}
