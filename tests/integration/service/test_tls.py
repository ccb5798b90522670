"""What is promised of TLS (deploy/README.md): who gets in by which certificate, and that new ones need no restart."""

import asyncio
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import grpc
import httpx2
import pytest
from cryptography import x509
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import prepared
from support.authority import Authority, Files, Pair, write_pair
from support.system import Issuer, Service, World, run_service
from support.transports import Grpc, Rest

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port, wait_for
from service.local.tls import GatewayTls, write_secrets

pytestmark = pytest.mark.processes

HEALTH = Path(__file__).parents[3] / "deploy" / "image" / "health.py"
NAME = "tickets.test"
# What a name resolves to is not what is tested.
BY_NAME = (("grpc.ssl_target_name_override", NAME),)


@dataclass
class Ground:
    """Who signs, and the folders with the certificates that are in use."""

    folder: Path
    authority: Authority
    others: Authority
    service: Files
    gateway: Files
    edge: Files
    client_ca: Path
    client: Pair

    def credentials(self, client: Pair | None) -> grpc.ChannelCredentials:
        key, cert = (None, None) if client is None else (client.key, client.cert)
        return grpc.ssl_channel_credentials(self.authority.cert, key, cert)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("tls")
    authority, others = Authority("ours"), Authority("others")
    client_ca = folder / "client-ca.pem"
    client_ca.write_bytes(authority.cert)
    return Ground(
        folder,
        authority,
        others,
        write_pair(folder / "service", authority.pair(NAME)),
        write_pair(folder / "gateway", authority.pair("gateway.test")),
        write_pair(folder / "edge", authority.pair("localhost", "127.0.0.1")),
        client_ca,
        authority.pair("somebody.test"),
    )


@pytest.fixture(scope="module")
def own(ground: Ground, directory: Path, database_url: str, issuer: Issuer) -> Iterator[Service]:
    """A service with TLS that asks for certificates, and a unix socket."""
    settings: dict[str, Any] = {
        "sockets": [f"unix:{ground.folder}/plain"],
        "tls_cert": ground.service.cert,
        "tls_key": ground.service.key,
        "tls_client_ca": ground.client_ca,
    }
    with run_service(directory, database_url, issuer, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(ground: Ground, own: Service, directory: Path) -> Iterator[tuple[Envoy, int]]:
    """An Envoy with a certificate of its own on both sides, and its admin port.

    Beside the service's cluster it has three that reach nothing: without a certificate, with a stranger's, and one that
    looks for a service of another name.
    """
    stranger = write_pair(ground.folder / "stranger", ground.others.pair("x.test"))
    sides = {
        "": towards(ground, ground.gateway, cert=str(ground.edge.cert), key=str(ground.edge.key)),
        "none": towards(ground, None),
        "stranger": towards(ground, stranger),
        "elsewhere": towards(ground, ground.gateway, service_name="elsewhere.test"),
    }
    port, admin = free_port(), free_port()
    configs = {}
    for name, tls in sides.items():
        secrets = ground.folder / f"sds{name}"
        secrets.mkdir()
        write_secrets(tls, secrets)
        configs[name] = envoy_config(
            port=port, endpoints=[own.target], admin_port=admin, tls=tls, secrets_folder=PurePosixPath(secrets)
        )
    config = configs.pop("")
    for name, other in configs.items():
        config["static_resources"]["clusters"].append({**other["static_resources"]["clusters"][0], "name": name})
    with Envoy(config, log_file=directory / "tls-envoy.log") as envoy:
        envoy.wait_until_ready(upstream=True)
        yield envoy, admin


def towards(ground: Ground, client: Files | None, **more: str) -> GatewayTls:
    """An Envoy that knows the service, and is known to it by these files."""
    files = {} if client is None else {"service_cert": str(client.cert), "service_key": str(client.key)}
    return GatewayTls(**{"service_ca": str(ground.client_ca), "service_name": NAME, **files, **more})


@pytest.fixture(params=["rest", "grpc"])
async def by_edge(
    request: pytest.FixtureRequest, ground: Ground, gateway: tuple[Envoy, int]
) -> AsyncIterator[Rest | Grpc]:
    """Either way through the gateway, which is known by its certificate."""
    envoy, _ = gateway
    if request.param == "rest":
        verify = ssl.create_default_context(cadata=ground.authority.cert.decode())
        async with httpx2.AsyncClient(base_url=envoy.url, verify=verify) as client:
            yield Rest(client)
    else:
        async with grpc.aio.secure_channel(envoy.url.removeprefix("https://"), ground.credentials(None)) as channel:
            yield Grpc(channel)


async def test_a_call_goes_through_two_ways_that_are_encrypted(by_edge: Rest | Grpc, world: World) -> None:
    program = await world.program()
    (await by_edge.call("itsm.list", program.credential)).succeeded()


async def test_who_has_the_right_certificate_gets_in(ground: Ground, own: Service, world: World) -> None:
    program = await world.program()
    async with grpc.aio.secure_channel(own.target, ground.credentials(ground.client), BY_NAME) as channel:
        (await Grpc(channel).call("itsm.list", program.credential)).succeeded()


@pytest.mark.parametrize("who", ["nobody", "stranger", "in plain"])
async def test_who_has_none_or_a_wrong_one_is_refused(ground: Ground, own: Service, world: World, who: str) -> None:
    program = await world.program()
    if who == "in plain":
        channel = grpc.aio.insecure_channel(own.target)
    else:
        credentials = ground.credentials(ground.others.pair("x.test") if who == "stranger" else None)
        channel = grpc.aio.secure_channel(own.target, credentials, BY_NAME)
    async with channel:
        reply = await Grpc(channel).call("itsm.list", program.credential)
        assert (reply.status, reply.details) == (grpc.StatusCode.UNAVAILABLE, {})


def clusters(admin: int) -> dict[str, Any]:
    """Of each cluster, the state of its one host; none while it has not been asked for its health."""
    found = httpx2.get(f"http://127.0.0.1:{admin}/clusters?format=json").json()["cluster_statuses"]
    return {cluster["name"]: cluster["host_statuses"][0]["health_status"] for cluster in found}


def test_a_gateway_reaches_the_service_that_it_means_by_the_right_certificate_alone(
    gateway: tuple[Envoy, int],
) -> None:
    _, admin = gateway

    def refused() -> set[str]:
        return {name for name, health in clusters(admin).items() if "failed_active_health_check" in health}

    wait_for(lambda: refused() == {"none", "stranger", "elsewhere"}, what="all three to be refused", timeout=10)


def health_of(environment: dict[str, str]) -> tuple[int, str, str]:
    """What `tickets-health` says with the settings of the service."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("TICKETS_")}
    done = subprocess.run(
        [sys.executable, "-I", str(HEALTH)], env={**given, **environment}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_the_health_check_of_containers_asks_by_tls_or_at_a_unix_socket(ground: Ground, own: Service) -> None:
    files = {"TICKETS_TLS_CERT": str(ground.service.cert), "TICKETS_TLS_KEY": str(ground.service.key)}
    for environment in (
        {**files, "TICKETS_HEALTH_TARGET": own.target},
        {**files, "TICKETS_GRPC_LISTEN": f"{own.target}, unix:{ground.folder}/plain"},
    ):
        assert health_of(environment) == (0, "SERVING\n", "")
    code, _, words = health_of({"TICKETS_HEALTH_TARGET": own.target})
    assert (code, words) == (1, f"{own.target} '': UNAVAILABLE\n")


def own_sockets(pid: int) -> set[str]:
    """Where a process listens for itself."""
    names = (line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines())
    return {name for name in names if name.startswith(f"@tickets-{pid}-")}


async def test_the_process_calls_itself_in_plain(own: Service) -> None:
    [address] = own_sockets(own.process.pid)
    async with grpc.aio.insecure_channel(f"unix-abstract:{address.removeprefix('@')}") as channel:
        answer: Message = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="live"))
        assert answer == health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


# Renewal


def serial_at(address: str, ground: Ground, client: Files | None = None) -> int:
    """Which certificate a new connection meets; the connection is as good as a client needs it."""
    context = ssl.create_default_context(cadata=ground.authority.cert.decode())
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    if client is not None:
        context.load_cert_chain(*client)
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as encrypted,
    ):
        der = encrypted.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_a_new_certificate_of_the_service_needs_no_restart_and_a_broken_one_is_not_taken(
    ground: Ground, own: Service
) -> None:
    pid = own.process.pid
    renewed = ground.authority.pair(NAME)
    write_pair(ground.folder / "service", renewed)
    wait_for(lambda: serial_at(own.target, ground, ground.gateway) == renewed.serial, what="the new one", timeout=10)

    def said(outcome: str) -> list[str]:
        found = [line for line in own.lines() if line["event"] == "certificate" and line["outcome"] == outcome]
        return [str(line.get("reason", line.get("serial"))) for line in found]

    assert said("renewed")[-1] == f"{renewed.serial:x}"
    broken = Pair(ground.authority.pair(NAME).cert, renewed.key)
    write_pair(ground.folder / "service", broken)

    def is_said() -> bool:
        assert serial_at(own.target, ground, ground.gateway) == renewed.serial
        return said("the one before stays") != []

    wait_for(is_said, what="a line about it", timeout=10)
    ground.service.cert.parent.joinpath("..data/tls.crt").write_bytes(b"-----BEGIN")
    wait_for(lambda: is_said() and len(said("the one before stays")) == 2, what="a line about that", timeout=10)
    cert, key = ground.service
    assert said("the one before stays") == [
        f"TICKETS_TLS_KEY: {key}: is not the key of {cert}",
        f"TICKETS_TLS_CERT: {cert}: is no certificate in PEM",
    ]
    good = ground.authority.pair(NAME)
    write_pair(ground.folder / "service", good)
    wait_for(lambda: serial_at(own.target, ground, ground.gateway) == good.serial, what="a good one", timeout=10)
    assert own.process.pid == pid
    assert own.process.poll() is None


async def test_who_signs_clients_is_read_again_too(ground: Ground, own: Service) -> None:
    stranger = ground.credentials(ground.others.pair("x.test"))

    async def gets_in() -> bool:
        async with grpc.aio.secure_channel(own.target, stranger, BY_NAME) as channel:
            try:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                return False
        return True

    for signers, expected in ((ground.authority.cert + ground.others.cert, True), (ground.authority.cert, False)):
        ground.client_ca.write_bytes(signers)
        async with asyncio.timeout(10):
            while await gets_in() != expected:
                pass


def rotations_failed(admin: int) -> int:
    """How often the gateway found a pair of its own that is none."""
    [line] = httpx2.get(f"http://127.0.0.1:{admin}/stats?filter=sds.edge.key_rotation_failed").text.splitlines()
    return int(line.rpartition(":")[2])


async def test_a_new_certificate_of_the_gateway_needs_no_restart_and_a_broken_one_is_not_taken(
    ground: Ground, gateway: tuple[Envoy, int]
) -> None:
    envoy, admin = gateway
    address = envoy.url.removeprefix("https://")
    before = serial_at(address, ground)
    renewed = ground.authority.pair("localhost", "127.0.0.1")
    # A connection that is open goes on.
    async with grpc.aio.secure_channel(address, ground.credentials(None)) as channel:
        await channel.channel_ready()
        write_pair(ground.folder / "edge", renewed)
        wait_for(lambda: serial_at(address, ground) == renewed.serial, what="the new one", timeout=10)
        assert before != renewed.serial
        assert channel.get_state() == grpc.ChannelConnectivity.READY
        assert rotations_failed(admin) == 0
        write_pair(ground.folder / "edge", Pair(ground.authority.pair("localhost").cert, renewed.key))
        wait_for(lambda: rotations_failed(admin) == 1, what="the gateway to count it", timeout=10)
        assert serial_at(address, ground) == renewed.serial
    assert envoy.exited() is None


# Settings


@pytest.mark.parametrize("missing", ["tls_key", "tls_cert"])
def test_a_process_with_wrong_files_exits_with_one_line(
    ground: Ground, directory: Path, database_url: str, tmp_path: Path, missing: str
) -> None:
    files = {"tls_cert": str(ground.edge.cert), "tls_key": str(ground.edge.key)}
    del files[missing]
    given = {name: value for name, value in os.environ.items() if not name.startswith("TICKETS_")}
    given |= {f"TICKETS_{name.upper()}": value for name, value in files.items()}
    given |= {"TICKETS_DATABASE_URL": database_url, "TICKETS_GRPC_LISTEN": f"127.0.0.1:{free_port()}"}
    given["TICKETS_RATE_LIMIT_FILE"] = str(directory / "limits-of-tls")
    log = tmp_path / "log"
    assert prepared.serve(given, log).wait(30) == 2
    [other] = files
    assert log.read_text() == f"TICKETS_{missing.upper()}: must be set, as TICKETS_{other.upper()} is\n"
