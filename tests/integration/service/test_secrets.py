"""What is secret stays where it belongs: whatever is called and however it fails, no log and no answer has it in clear.

Each thing that is given to a service, or made by it, is a text that nothing else has. Then every place is searched.
"""

import asyncio
import json
import os
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx2
import psutil
import psycopg
import pytest
from grpc_health.v1 import health_pb2
from support.canaries import Canaries
from support.canary_calls import (
    API_KEY,
    EMAIL,
    KEY,
    META,
    QUOTED,
    REFUSED,
    REPLAYED,
    TEXT,
    TOKEN,
    WEBHOOK_SECRET,
    WEBHOOK_URL,
    WRONG,
    Calls,
    raw_requests,
    with_a_broken_database,
    without_database,
)
from support.emulators.http import Request, Response, Server
from support.provider_lab import until
from support.system import Issuer, Program, Service, World, health, run_service
from support.transports import Grpc, Rest
from support.webhook_lab import Receiver
from typer.testing import CliRunner

from service import migrations
from service.__main__ import app
from service.local.envoy import Envoy, envoy_config
from service.local.postgres import EmbeddedPostgres
from service.local.processes import free_port

pytestmark = pytest.mark.processes

PROVIDER, ENCRYPTION, PASSWORD = "provider credential", "encryption key", "database password"

# Where each may be, and is. (A database has what was written, never what was refused.)
STORED = {"the owner's answers", "the database"}
WHERE: Mapping[str, set[str]] = {
    API_KEY: set(),
    TOKEN: set(),
    WEBHOOK_SECRET: set(),
    PROVIDER: set(),
    ENCRYPTION: set(),
    PASSWORD: set(),
    WRONG: set(),
    KEY: {"the database"},
    REPLAYED: {"the database"},
    TEXT: STORED,
    META: STORED,
    EMAIL: STORED,
    WEBHOOK_URL: STORED,
    # An error says what it is about, to whoever sent it.
    REFUSED: {"the owner's answers"},
    # By a trigger, which stands for a bound that the service forgot. PostgreSQL quotes such a value in its log.
    QUOTED: {"PostgreSQL's log"},
}
# Something that is in each place, so that it was looked at.
CONTROLS = {
    "the service's log": b'"outcome":"internal"',
    "the gateway's log": b'"event":"gateway"',
    "PostgreSQL's log": b"terminating connection due to administrator command",
    "the metrics": b'outcome="unavailable"',
    "the owner's answers": b"Not with Basic ***",
    "others' answers": b"not_found",
    "the command's output": b"Not with Basic ***",
    "command lines": b"link-provider",
    "environments": b"LC_ALL=C",
    "the rate limits' file": b"\0",
    "the database": b"SCRAM-SHA-256",
}


class Provider(Server):
    """Takes a ticket, or refuses it, and then quotes the credential that it was called with."""

    def __init__(self) -> None:
        super().__init__(self._take)
        # Of the answers to come, instead of 201.
        self.refusals: list[int] = []

    def _take(self, request: Request) -> Response:
        if not self.refusals:
            return Response(201, {"ticket": {"id": len(self.requests)}})
        quoted = request.headers["authorization"]
        return Response(self.refusals.pop(0), {"description": f"Not with {quoted}", "message": "no"})


class System:
    """PostgreSQL, a process of the service and a gateway, with secrets of their own."""

    def __init__(self, directory: Path, issuer: Issuer, stack: ExitStack) -> None:
        self.canaries = Canaries()
        self.directory = directory
        self.password = self.canaries.new(PASSWORD)
        keys = self.canaries.new_key(ENCRYPTION), self.canaries.new_key(ENCRYPTION)
        self.secrets = {"TICKETS_ENCRYPTION_KEYS": ",".join(keys)}
        with pytest.MonkeyPatch.context() as environment:
            # As an operator's shell has them, who starts it all.
            environment.setenv("TICKETS_DATABASE_URL", f"postgresql://app:{self.password}@127.0.0.1/tickets")
            environment.setenv("TICKETS_DATABASE_READ_URL", f"postgresql://app:{self.password}@127.0.0.1/tickets")
            environment.setenv("TICKETS_ENCRYPTION_KEYS", self.secrets["TICKETS_ENCRYPTION_KEYS"])
            self.postgres = self._postgres(stack)
            self.url = self._with_password(self.postgres)
            migrations.upgrade(self.url)
            self.secrets["TICKETS_DATABASE_URL"] = self.url
            self.metrics = f"127.0.0.1:{free_port()}"
            self.service = self._service(issuer, stack)
            config = envoy_config(port=free_port(), endpoints=[self.service.target])
            self.gateway = stack.enter_context(Envoy(config, log_file=directory / "envoy.log"))
        self.gateway.wait_until_ready(upstream=True)
        self.world = World(self.postgres.url, issuer)

    def _postgres(self, stack: ExitStack) -> EmbeddedPostgres:
        access = self.directory / "pg_hba.conf"
        access.write_text("local all app scram-sha-256\nlocal all all trust\n")
        access.chmod(0o644)
        settings = {"fsync": "off", "hba_file": str(access)}
        return stack.enter_context(EmbeddedPostgres(self.directory / "postgres", settings=settings))

    def _with_password(self, postgres: EmbeddedPostgres) -> str:
        """The URL of a role that needs the password."""
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{self.password}'")
            connection.execute("ALTER DATABASE tickets OWNER TO app")
        return postgres.url_for("tickets", "app").replace("//app@", f"//app:{self.password}@")

    def _service(self, issuer: Issuer, stack: ExitStack) -> Service:
        settings = {
            "encryption_keys": self.secrets["TICKETS_ENCRYPTION_KEYS"],
            "database_read_url": self.url,  # which is no standby, so the log says what is wrong with it
            "metrics_listen": self.metrics,
            "rate_limit_file": self.directory / "rate-limits",
        }
        return stack.enter_context(run_service(self.directory, self.url, issuer, **settings))

    async def recovered(self) -> None:
        """Return when the service has its database again."""
        serving = health_pb2.HealthCheckResponse.SERVING
        await until(lambda: health(self.service.target) == serving, what="the service to recover")
        await asyncio.to_thread(self.gateway.wait_until_ready, upstream=True)

    def command(self, *arguments: str, **environment: str) -> bytes:
        """What a command of an operator prints."""
        runner = CliRunner(env={**self.secrets, **environment})
        result = runner.invoke(app, arguments)
        return f"{result.stdout}{result.stderr}{result.exception!r}".encode()


async def linked(system: System, calls: Calls, provider: Provider) -> tuple[Program, bytes, bytes]:
    """Link an account to a provider by the command; also its output, and every command line while it runs."""
    program, credential = await calls.program(), system.canaries.new(PROVIDER)
    system.canaries.note(PROVIDER, b64encode(f"{credential}:X".encode()).decode())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "admin", "link-provider", "--account", program.account_id),
        *("--provider", "freshservice", "--url", provider.url, "--options", '{"default_email": "a@example.com"}'),
        env={**os.environ, **system.secrets, "TICKETS_ALLOW_PRIVATE_TARGETS": "true"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    # It waits for the credential.
    lines = command_lines()
    output, _ = await process.communicate(credential.encode())
    assert json.loads(output)["provider"] == "freshservice", output
    return program, output, lines


async def through_the_provider(calls: Calls, program: Program, provider: Provider) -> None:
    """Tickets that the provider takes, rejects, and refuses for the credential's sake."""
    # The last one stays on its way, with what the provider said.
    for refusals in ([], [400], [500], [401] * 1000):
        provider.refusals = list(refusals)
        body = {"subject": calls.text(), "description": calls.text()}
        await calls.call("itsm.create", program.credential, body=body)


def command_lines() -> bytes:
    """Those of every process."""
    return b"\n".join(" ".join(one.info["cmdline"] or ()).encode() for one in psutil.process_iter(["cmdline"]))


def environments() -> bytes:
    """Those of the processes that a service does not need: PostgreSQL and the gateway."""
    found = []
    for process in psutil.process_iter(["name", "cmdline", "environ"]):
        if process.info["name"].startswith(("postgres", "envoy")) or "envoy" in str(process.info["cmdline"]):
            found.append("\0".join(f"{name}={value}" for name, value in (process.info["environ"] or {}).items()))
    return "\n".join(found).encode()


def refused_commands(system: System) -> bytes:
    """What commands print that fail."""
    password, account = system.canaries.new(PASSWORD), "7b0a3c9e-51d8-4a6e-8f0c-0b8f6f1f2a33"
    outputs = []
    unreadable = f"postgresql://app:{password}%@127.0.0.1/tickets"
    for url in (
        unreadable,
        system.postgres.url_for("tickets", "app").replace("//app@", f"//app:{password}@"),
        f"postgresql://app:{password}@127.0.0.1:{free_port()}/tickets",
        f"postgresql://app:{password}@[::1/tickets",
        f"postgresql://app:{password}@127.0.0.1/tickets?nope=1",
        f"app:{password}@127.0.0.1/tickets",
        f"host=127.0.0.1 password='{password}",
    ):
        outputs.append(system.command("migrate", TICKETS_DATABASE_URL=url))
    # Others read it in the same place.
    for arguments in (["serve"], ["admin", "create-account"]):
        outputs.append(system.command(*arguments, TICKETS_DATABASE_URL=unreadable))
    link = ["admin", "link-provider", "--account", account, "--provider", "zendesk", "--url", "http://127.0.0.1"]
    for key in ("", system.canaries.new(ENCRYPTION)):
        outputs.append(system.command(*link, TICKETS_ENCRYPTION_KEYS=key))
    outputs.append(system.command(*link))
    outputs.append(system.command("admin", "deliveries"))
    return b"\n".join(outputs)


class Traces:
    """What is left of all calls, by place."""

    def __init__(self, canaries: Canaries, places: Mapping[str, bytes]) -> None:
        self.places = places
        self._canaries = canaries

    def where(self, kind: str) -> set[str]:
        """The places that have a canary of a kind."""
        return {place for place, data in self.places.items() if self._canaries.is_in(kind, data)}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[System]:
    with ExitStack() as stack:
        yield System(tmp_path_factory.mktemp("secrets"), issuer, stack)


@pytest.fixture(scope="module")
async def traces(system: System) -> Traces:
    receiver, provider = Receiver(), Provider()
    # The first message of each transport fails.
    receiver.planned["/hook"] = [Response(500), Response(200), Response(500)]
    async with (
        httpx2.AsyncClient(base_url=system.gateway.url, timeout=30) as client,
        grpc.aio.insecure_channel(system.service.target) as channel,
        receiver.listening(),
        provider.listening(),
    ):
        each = [Calls(transport, system.world, system.canaries) for transport in (Rest(client), Grpc(channel))]
        for calls in each:
            await calls.all(receiver.url + "/hook")
        program, output, lines = await linked(system, each[0], provider)
        for calls in each:
            await through_the_provider(calls, program, provider)
        await raw_requests(client, each[0])
        await without_database(each, system.password)
        await system.recovered()
        for calls in each:
            await with_a_broken_database(calls)
        metrics = (await client.get(f"http://{system.metrics}/metrics")).content
        output += await asyncio.to_thread(refused_commands, system)
    await system.world.close()
    answers = {"the owner's answers": [one.own for one in each], "others' answers": [one.others for one in each]}
    return Traces(
        system.canaries,
        {
            **{place: repr(replies).encode() for place, replies in answers.items()},
            **left_behind(system),
            "the metrics": metrics,
            "the command's output": output,
            "command lines": lines,
        },
    )


def dump(url: str) -> bytes:
    """The rows of all tables, and of the one with the roles and their passwords."""
    tables = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    found: list[bytes] = []
    with psycopg.connect(url) as connection:
        for (table,) in [*connection.execute(tables).fetchall(), ("pg_authid",)]:
            with connection.cursor().copy(f"COPY {table} TO STDOUT") as rows:
                found.extend(bytes(row) for row in rows)
    return b"".join(found)


def left_behind(system: System) -> dict[str, bytes]:
    return {
        "the service's log": system.service.log.read_bytes(),
        "the gateway's log": (system.directory / "envoy.log").read_bytes(),
        "PostgreSQL's log": system.postgres.log_file.read_bytes(),
        "environments": environments(),
        "the rate limits' file": (system.directory / "rate-limits").read_bytes(),
        "the database": dump(system.postgres.url),
    }


@pytest.mark.parametrize("kind", WHERE)
def test_what_is_secret_is_found_nowhere_and_what_is_stored_where_it_belongs(traces: Traces, kind: str) -> None:
    assert traces.where(kind) == WHERE[kind]


@pytest.mark.parametrize("place", CONTROLS)
def test_each_place_was_looked_at(traces: Traces, place: str) -> None:
    assert CONTROLS[place] in traces.places[place]
    assert traces.places.keys() == CONTROLS.keys()
