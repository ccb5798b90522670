"""Do writers wait for each other in a circle? Many change few tickets, crosswise, through two processes.

    python -m tests.benchmarks.deadlocks [--patches 100000] [--callers 128]

A circle would be undone by PostgreSQL after a second and counted there (`pg_stat_database.deadlocks`); the service may
have hidden it from its callers. `make bench` does it with 5,000 PATCHes at its end.
"""

import contextlib
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from service.local.processes import wait_for

from . import loads, seeds, stack
from .loads import Generators
from .operations import OPERATIONS
from .stack import Service

TICKETS = 8
CALLERS = 128
PATCHES = 5_000
_PROCESSES = 2
_NO_END_SECONDS = 600
# One account may have a quarter of them in flight.
_CALLS_IN_FLIGHT = "1024"

_COUNT = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True)
class Crossing:
    """What came of it."""

    patches: int
    callers: int
    seconds: float
    deadlocks: int

    def text(self) -> str:
        """For the terminal."""
        what = f"{self.patches:,} crosswise PATCHes of {TICKETS} tickets through {_PROCESSES} processes"
        return f"{self.deadlocks} deadlocks in {what}, {self.callers} callers, {self.seconds:.1f} s"


def cross(
    directory: Path,
    database_url: str,
    patches: int = PATCHES,
    callers: int = CALLERS,
    **settings: str,
) -> Crossing:
    """PATCH eight new tickets so many times, half of it through each process. Nobody else is connected after it.

    The processes are ended before deadlocks are counted: a connection tells of its own when it closes, at the latest.
    """
    account = seeds.itsm(database_url, TICKETS)
    ids = directory / "ids-deadlocks"
    seeds.write_ids(database_url, TICKETS, ids)
    generators = Generators(directory, account, ids)
    earlier = connections(database_url)
    before = count(database_url)
    settings = {"TICKETS_MAX_CONCURRENT_CALLS": _CALLS_IN_FLIGHT, **settings}
    with stack.service(directory, database_url, _PROCESSES, name="deadlocks", settings=settings) as service:
        seconds = _patch(generators, service, patches, callers)
    wait_for(lambda: connections(database_url) <= earlier, what="the service to disconnect", timeout=60)
    return Crossing(patches, callers, seconds, count(database_url) - before)


def _patch(generators: Generators, service: Service, patches: int, callers: int) -> float:
    """Each process has its half of the callers, with the tickets at random; how long it took them."""

    def load(number: int, endpoint: str) -> None:
        directory = generators.directory / f"deadlocks-{number}"
        directory.mkdir(exist_ok=True)
        planned = generators.grpc_plan(endpoint, OPERATIONS["patch"], callers // _PROCESSES, _NO_END_SECONDS)
        loads.grpc(directory, replace(planned, requests=patches // _PROCESSES))

    started = time.monotonic()
    with ThreadPoolExecutor(_PROCESSES) as running:
        list(running.map(load, range(_PROCESSES), service.endpoints))
    return time.monotonic() - started


def count(database_url: str) -> int:
    """How many deadlocks PostgreSQL has counted in this database."""
    return _number(database_url, _COUNT)


def connections(database_url: str) -> int:
    """How many are connected beside the one who asks."""
    return _number(database_url, _OTHERS)


def _number(database_url: str, asks: str) -> int:
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(asks).fetchone()
    return int(row[0]) if row else 0


def main(
    patches: Annotated[int, typer.Option(min=2, help="How many PATCHes.")] = PATCHES,
    callers: Annotated[int, typer.Option(min=2, help="How many at once.")] = CALLERS,
) -> None:
    """Print how many deadlocks there were; 1 where there was any."""
    with tempfile.TemporaryDirectory(prefix="tickets-bench-") as name, contextlib.ExitStack() as running:
        database = running.enter_context(stack.postgres(Path(name)))
        crossing = cross(Path(name), database.url, patches, callers)
    typer.echo(crossing.text())
    if crossing.deadlocks:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
