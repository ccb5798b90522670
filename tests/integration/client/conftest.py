"""The two clients, against the running service or a server that answers as a test tells it to."""

from collections.abc import AsyncIterator

import pytest
from support.clients import KINDS, Client, Clients, open_clients
from support.scripted_server import Server, serving, without_sleep
from tickets.client import Retries


@pytest.fixture(params=KINDS)
async def clients(request: pytest.FixtureRequest) -> AsyncIterator[Clients]:
    """Makes clients of one kind: blocking, or asynchronous."""
    async with open_clients(request.param) as clients:
        yield clients


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients would have slept."""
    return without_sleep(monkeypatch)


@pytest.fixture
def client(clients: Clients, server: Server, sleeps: list[float]) -> Client:
    return clients(server.target, token="t", api_key="k", retries=Retries(jitter=lambda most: most))
