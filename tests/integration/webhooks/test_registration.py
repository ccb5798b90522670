"""Webhooks over both transports with the default settings: no private addresses, no encryption key."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import httpx2
import pytest
from support.system import Issuer, Program, World, run_service
from support.transports import Grpc, Rest
from support.webhook_lab import Account, Process

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port
from service.settings import Settings

Transport = Rest | Grpc

MANAGE = ("webhooks:manage",)
# The settings of an operator that sets nothing.
DEFAULTS = {name: Settings.model_fields[name].default for name in ("allow_private_targets", "encryption_keys")}
# Numbers, so that no resolver is needed.
PUBLIC, PRIVATE = "https://93.184.216.34/hook", "https://127.0.0.1/hook"
EVENTS = ["ticket.created"]


@pytest.fixture(scope="module")
async def transports(directory: Path, apart_url: str, issuer: Issuer) -> AsyncIterator[Mapping[str, Transport]]:
    with run_service(directory, apart_url, issuer, **DEFAULTS) as service:
        config = envoy_config(port=free_port(), endpoints=[service.target])
        with Envoy(config, log_file=directory / f"envoy-{uuid4()}.log") as envoy:
            envoy.wait_until_ready(upstream=True)
            async with (
                httpx2.AsyncClient(base_url=envoy.url, timeout=30) as client,
                grpc.aio.insecure_channel(service.target) as channel,
            ):
                yield {"rest": Rest(client), "grpc": Grpc(channel)}


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest, transports: Mapping[str, Transport]) -> Transport:
    return transports[request.param]


@pytest.fixture
async def program(apart: World) -> Program:
    return await apart.program(scopes=MANAGE)


@pytest.fixture
async def webhook(process: Process, program: Program) -> Any:
    """A webhook that was created while private addresses were allowed."""
    return await process.register(Account(UUID(program.account_id)), PRIVATE, EVENTS)


async def listed(transport: Transport, program: Program) -> list[tuple[Any, ...]]:
    """What a refusal must leave unchanged."""
    webhooks = (await transport.call("itsm.webhooks", program.credential)).succeeded()["webhooks"]
    return [(one["id"], one["url"], one["updated_at"]) for one in webhooks]


@pytest.mark.parametrize("operation", ["itsm.create_webhook", "itsm.update_webhook"])
@pytest.mark.parametrize(
    ("url", "why"),
    [
        (PRIVATE + "/private", "The address is refused: its host is not on the public Internet"),
        (PUBLIC.replace("https", "http"), "The address is refused: it is not an https address"),
    ],
)
async def test_an_address_that_may_not_be_called_is_a_400(
    transport: Transport, program: Program, webhook: Any, operation: str, url: str, why: str
) -> None:
    before = await listed(transport, program)
    is_new = operation == "itsm.create_webhook"
    path = {} if is_new else {"webhook_id": webhook["id"]}
    body = {"url": url, "events": EVENTS} if is_new else {"url": url}
    reply = await transport.call(operation, program.credential, path=path, body=body)
    reply.failed("url_refused", why)
    assert await listed(transport, program) == before


async def test_without_an_encryption_key_no_secret_is_made(
    transport: Transport, program: Program, webhook: Any
) -> None:
    before = await listed(transport, program)
    new = await transport.call("itsm.create_webhook", program.credential, body={"url": PUBLIC, "events": EVENTS})
    rotated = await transport.call("itsm.rotate_secret", program.credential, path={"webhook_id": webhook["id"]})
    for reply in (new, rotated):
        reply.failed("unavailable", "Webhooks are not available on this server")
    assert await listed(transport, program) == before


async def test_what_needs_neither_works(transport: Transport, program: Program, webhook: Any) -> None:
    path = {"webhook_id": webhook["id"]}
    for body in ({"url": PUBLIC}, {"is_active": False}):
        changed = (await transport.call("itsm.update_webhook", program.credential, path=path, body=body)).succeeded()
        assert {name: changed[name] for name in body} == body
    assert (await transport.call("itsm.delete_webhook", program.credential, path=path)).succeeded(204) == {}
