"""What is compared, running: the service by gRPC and through Envoy, the peer, PostgreSQL alone; or grpcio releases."""

import contextlib
import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.local.postgres import EmbeddedPostgres

from . import cpu, stack
from .apis import APIS
from .loads import Generators, Load
from .operations import Operation
from .results import PEER
from .rounds import Taker
from .seeds import Account
from .tokens import Issuer

NAMES = (PEER, "envoy", "grpc", "pgbench", "h2load")
_NEWEST = "newest"


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    apis: list[str]
    operations: list[str]
    concurrencies: list[int]
    contestants: list[str]
    rounds: int
    seconds: int
    tickets: int
    workers: int
    # Releases of grpcio to compare instead of the peer; empty: the installed one.
    grpcio: list[str]
    # How many crosswise PATCHes to look for deadlocks with.
    deadlocks: int
    unchecked: bool


@dataclass(frozen=True)
class Contestant:
    """One of those that are compared."""

    name: str
    title: str
    load: Callable[[Operation, int, int], Load]
    # Whose CPU it uses.
    groups: cpu.Groups
    # What comes before a turn.
    prepare: Callable[[Operation, int], None] = lambda *_: None

    def takes_part(self, operation: Operation) -> bool:
        """Whether it can do this operation."""
        if self.name == "pgbench":
            return operation.sql is not None
        return self.name != "h2load" or not (operation.fresh_key or operation.conditions)

    def taker(self, operation: Operation, concurrency: int) -> Taker:
        """Its turns with this operation."""
        load = functools.partial(self.load, operation, concurrency)
        return Taker(self.name, load, self.groups, functools.partial(self.prepare, operation))


class Builder:
    """Starts what the contestants need, with tickets of their own in each API."""

    def __init__(self, plan: Plan, directory: Path, running: contextlib.ExitStack, database: EmbeddedPostgres) -> None:
        self._plan = plan
        self._directory = directory
        self._running = running
        self._database = database
        self._postmaster = stack.postmaster(database)
        self.issuer = Issuer(directory)
        for name in plan.apis:
            APIS[name].write_ids(database.url, plan.tickets, self.ids(name))
        self.ours = self._seeded()
        # Whose answers are compared, and for whom, by API.
        self.urls: dict[str, dict[str, tuple[str, Account]]] = {}
        self.services: list[stack.Service] = []

    def ids(self, api: str) -> Path:
        """The file of an API's ids."""
        return self._directory / f"ids-{api}"

    def _seeded(self) -> Mapping[str, Generators]:
        """Load for a contestant's own accounts."""
        url = self._database.url
        return {
            name: Generators(
                self._directory, APIS[name].seed(url, self._plan.tickets, self.issuer), self.ids(name), url
            )
            for name in self._plan.apis
        }

    def contestants(self) -> Iterator[Contestant]:
        """The service over both transports, the peer, and PostgreSQL alone."""
        wanted, postgres = self._plan.contestants, [self._postmaster]
        service = self._service("service")
        url, envoy = self._running.enter_context(stack.gateway(self._directory, service.endpoints))
        peer_url, peer = self._running.enter_context(
            stack.peer(self._directory, self._database.url, self._plan.workers, self.issuer.peer_settings())
        )
        ours, theirs = self.ours, self._seeded()
        self.urls = {
            name: {"service": (url, ours[name].account), PEER: (peer_url, theirs[name].account)} for name in ours
        }
        groups = {"app": service.processes, "postgres": postgres}
        everyone = (
            Contestant(
                PEER,
                "FastAPI + SQLAlchemy + asyncpg",
                lambda operation, *what: theirs[operation.api].wrk(peer_url, operation, *what),
                {"app": peer, "postgres": postgres},
                _prepare(theirs),
            ),
            Contestant(
                "envoy",
                "tickets: REST through Envoy",
                lambda operation, *what: ours[operation.api].wrk(url, operation, *what),
                {"app": service.processes, "envoy": envoy, "postgres": postgres},
                _prepare(ours),
            ),
            Contestant(
                "grpc",
                "tickets: gRPC straight",
                lambda operation, *what: ours[operation.api].grpc(service.shared, operation, *what),
                groups,
                _prepare(ours),
            ),
            Contestant(
                "h2load",
                "tickets: gRPC, h2load",
                lambda operation, *what: ours[operation.api].h2load(service.shared, operation, *what),
                groups,
            ),
            Contestant("pgbench", "the SQL alone (pgbench)", self._sql_alone, {"postgres": postgres}),
        )
        yield from (one for one in everyone if one.name in wanted)

    def releases(self) -> Iterator[Contestant]:
        """The service on each release of grpcio, the installed one first, over each transport that is wanted."""
        installed = importlib.metadata.version("grpcio")
        for release in dict.fromkeys((installed, *self._plan.grpcio)):
            python, python_path, name = sys.executable, "", release
            if release == _NEWEST:
                name, python = stack.newest_grpcio()
            elif release != installed:
                python_path = stack.grpcio_overlay(self._directory, release)
            yield from self._release(name, python, python_path)

    def _release(self, release: str, python: str, python_path: str) -> Iterator[Contestant]:
        service = self._service(f"grpcio-{release}", python, python_path)
        groups = {"app": service.processes, "postgres": [self._postmaster]}
        if "grpc" in self._plan.contestants:
            yield Contestant(
                f"grpc {release}",
                f"gRPC straight, grpcio {release}",
                lambda operation, *what: self.ours[operation.api].grpc(service.shared, operation, *what),
                groups,
                _prepare(self.ours),
            )
        if "envoy" in self._plan.contestants:
            url, envoy = self._running.enter_context(stack.gateway(self._directory, service.endpoints))
            yield Contestant(
                f"envoy {release}",
                f"REST through Envoy, grpcio {release}",
                lambda operation, *what: self.ours[operation.api].wrk(url, operation, *what),
                {**groups, "envoy": envoy},
                _prepare(self.ours),
            )

    def _service(self, name: str, python: str = sys.executable, python_path: str = "") -> stack.Service:
        service = self._running.enter_context(
            stack.service(
                self._directory,
                self._database.url,
                self._plan.workers,
                name=name,
                python=python,
                python_path=python_path,
                settings=self.issuer.settings(),
            )
        )
        self.services.append(service)
        return service

    def _sql_alone(self, operation: Operation, concurrency: int, seconds: int) -> Load:
        # Beside the running server's binary: of the same release.
        program = str(Path(self._postmaster.exe()).with_name("pgbench"))
        # It does in half the time many times as many.
        half = max(1, seconds // 2)
        return self.ours[operation.api].pgbench(program, self._database.url, operation, concurrency, half)


def _prepare(generators: Mapping[str, Generators]) -> Callable[[Operation, int], None]:
    return lambda operation, seconds: generators[operation.api].prepare(operation, seconds)
