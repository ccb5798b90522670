"""What the growth benchmark stands on: its plan, its targets, and the database and processes it measures."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import cpu, grpc_load, loads, seeds, stack
from .loads import Generators, Load
from .rounds import Taker
from .targets import Target
from .tokens import Issuer

WORKERS = 2
CALLERS = 16
MIB = 1024 * 1024
TENANT = "ten_benchmark"


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    # Tickets of an account, the least first.
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    # Tickets of the account where size is not the question.
    tickets: int = 100_000
    callers: tuple[int, ...] = (1, 16, 64, 256)
    # Tickets of a tenant, and how many stand behind the deep page.
    depth: int = 1_000_000
    behind: int = 100
    crowd: int = 1_024
    # Calls after which memory is looked at; it should be flat from the second on.
    calls: tuple[int, ...] = (1_000, 10_000, 50_000, 100_000)
    rounds: int = 3
    seconds: int = 2
    # Of a turn in `callers`, which has many.
    callers_seconds: int = 1
    # Before a turn with many callers, for connections to be made; with a crowd, for the first to be sent away too.
    warm_up: float = 0.3
    crowd_warm_up: float = 1.5


QUICK = replace(
    Plan(),
    sizes=(1_000, 10_000),
    tickets=10_000,
    callers=(1, 16, 64),
    depth=10_000,
    calls=(500, 1_000, 2_000),
    rounds=1,
    seconds=1,
    crowd_warm_up=0.5,
)


@dataclass(frozen=True)
class Found:
    """What one section found: a table, and for the result file all of it."""

    table: list[list[str]]
    targets: list[Target]
    figures: Mapping[str, Any]
    failures: list[str]


class Ground:
    """A PostgreSQL with what sections need in it; each starts a service of its own beside it."""

    def __init__(self, directory: Path, running: contextlib.ExitStack) -> None:
        self.directory = directory
        self.database = running.enter_context(stack.postgres(directory))
        self.postmaster = stack.postmaster(self.database)
        self.issuer = Issuer(directory)
        self._accounts: dict[int, Generators] = {}

    def account(self, tickets: int) -> Generators:
        """Load for an account that began with so many tickets."""
        if tickets not in self._accounts:
            say(f"seeding {tickets:,} tickets")
            ids = self.directory / f"ids-{tickets}"
            seeds.write_ids(self.database.url, tickets, ids)
            account = seeds.itsm(self.database.url, tickets)
            self._accounts[tickets] = Generators(self.directory, account, ids)
        return self._accounts[tickets]

    @contextlib.contextmanager
    def service(self, name: str, **more: str) -> Iterator[stack.Service]:
        """The service, with nothing left to do in the database; `more` are settings."""
        settings = {
            **self.issuer.settings(),
            "TICKETS_DRAIN_NOTICE_SECONDS": "0",
            **more,
        }
        stack.tidy(self.database.url)
        with stack.service(self.directory, self.database.url, WORKERS, name=name, settings=settings) as service:
            yield service

    def complaints(self, name: str) -> list[str]:
        """What the service of this name logged beside calls and its coming and going: the first of it."""
        path = self.directory / f"{name}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        odd = [line for line in lines if '"level":"info"' not in line]
        return [f"{len(odd)} such lines in the log: {odd[0][:2000]}"] if odd else []

    def groups(self, service: stack.Service) -> cpu.Groups:
        """Whose CPU a call uses."""
        return {"app": service.processes, "postgres": [self.postmaster]}

    def taker(
        self,
        name: str,
        planned: grpc_load.Plan,
        groups: cpu.Groups | None = None,
        load: Callable[[Path, grpc_load.Plan], Load] = loads.grpc,
        refused: grpc_load.Refused = "obey",
    ) -> Taker:
        """One whose turn is as planned, of any length. No groups with a warm-up, whose CPU would count."""
        planned = replace(planned, refused=refused)
        return Taker(name, lambda seconds: load(self.directory, replace(planned, seconds=seconds)), groups or {})

    def settle(self) -> None:
        """Wait for what writes leave behind."""
        stack.settle(self.database.url)


def say(words: str) -> None:
    sys.stderr.write(f"· {words}\n")
