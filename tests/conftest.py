"""The system under test: a real PostgreSQL, a process of the service, and a real Envoy in front of it."""

import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import httpx2
import pytest
import structlog
import support.clauses  # noqa: F401 - before any statement is built
from hypothesis import settings
from support.http1 import Http1Transport
from support.provider_lab import own_database
from support.system import Issuer, Metrics, Service, World, run_service
from support.transports import Grpc, Rest
from support.webhook_lab import Machine, Process, Receiver

from service import migrations
from service.local.envoy import Envoy, envoy_config
from service.local.postgres import EmbeddedPostgres
from service.local.processes import free_port
from service.transport import logs

# gRPC would start its threads anew in each child that a test forks, and one that runs Python there crashes the child.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# How long an example takes depends on what else the machine does.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# Thousands of test items live as long as the session, so the collector must not look through them again and again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _own_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo the logging that a command has configured within a test: the stream it writes to ends with the test."""
    monkeypatch.setattr(logs, "_KEEPS_LOGGERS", False)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="session")
def postgres(directory: Path) -> Iterator[EmbeddedPostgres]:
    # The data need not survive a crash of the machine.
    settings = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    with EmbeddedPostgres(directory / "postgres", settings=settings) as server:
        yield server


@pytest.fixture(scope="session")
def database_url(postgres: EmbeddedPostgres) -> str:
    migrations.upgrade(postgres.url)
    return postgres.url


@pytest.fixture
def quiet_postgres(postgres: EmbeddedPostgres) -> Iterator[None]:
    """What a test calls is no error to PostgreSQL: its log would quote the statement and what callers sent."""
    begin = postgres.log_file.stat().st_size
    yield
    with postgres.log_file.open("rb") as log:
        log.seek(begin)
        # A statement that the service itself cancels quotes nothing.
        errors = [line for line in log if b"ERROR:" in line and b"canceling statement due to user request" not in line]
        assert errors == []


@pytest.fixture(scope="session")
def issuer(directory: Path) -> Issuer:
    return Issuer(directory)


@pytest.fixture(scope="session")
def service(directory: Path, database_url: str, issuer: Issuer, metrics: Metrics) -> Iterator[Service]:
    with run_service(directory, database_url, issuer, metrics_listen=metrics.service) as running:
        yield running


@pytest.fixture(scope="session")
def metrics() -> Metrics:
    return Metrics(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")


@pytest.fixture(scope="session")
def gateway_url(directory: Path, service: Service, metrics: Metrics) -> Iterator[str]:
    port = int(metrics.gateway.rpartition(":")[2])
    config = envoy_config(port=free_port(), endpoints=[service.target], admin_port=free_port(), metrics_port=port)
    with Envoy(config, log_file=directory / "envoy.log") as envoy:
        envoy.wait_until_ready(upstream=True)
        yield envoy.url


@pytest.fixture(scope="session")
async def client(gateway_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    # One account may have 48 calls at once in a process.
    transport = Http1Transport(max_connections=60)
    async with httpx2.AsyncClient(base_url=gateway_url, timeout=30, transport=transport) as client:
        yield client


@pytest.fixture(scope="session")
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(service.target) as channel:
        yield channel


@pytest.fixture(scope="session")
async def world(database_url: str, issuer: Issuer) -> AsyncIterator[World]:
    world = World(database_url, issuer)
    yield world
    await world.close()


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest, client: httpx2.AsyncClient, channel: grpc.aio.Channel) -> Rest | Grpc:
    """REST, then gRPC: a test that takes this fixture runs once over each."""
    return Rest(client) if request.param == "rest" else Grpc(channel)


@pytest.fixture
def rest(client: httpx2.AsyncClient) -> Rest:
    return Rest(client)


@pytest.fixture
def rpc(channel: grpc.aio.Channel) -> Grpc:
    return Grpc(channel)


@pytest.fixture(scope="module")
def apart_url(database_url: str) -> Iterator[str]:
    with own_database(database_url) as url:
        yield url


@pytest.fixture(scope="module")
async def apart(apart_url: str, issuer: Issuer) -> AsyncIterator[World]:
    """A world without a running service: deliveries happen only when a test makes them."""
    world = World(apart_url, issuer)
    yield world
    await world.close()


@pytest.fixture(scope="module")
def machine(apart_url: str) -> Machine:
    # No service runs on its database, so only the test sends anything.
    return Machine(apart_url)


@pytest.fixture
async def process(machine: Machine) -> AsyncIterator[Process]:
    async with machine.process() as process:
        yield process
        machine.rows("DELETE FROM itsm_webhooks")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with receiver.listening():
        yield receiver
