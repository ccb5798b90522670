"""`make bench`: the service, the peer and pgbench side by side, in interleaved rounds on one machine.

    python -m tests.benchmarks.bench [--quick] [--operations get,list] [--only peer,grpc] …

Prints a table; writes `results.json` and `benchmark.png` into `--output`. README.md beside this file says how to read
them.
"""

import contextlib
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from service.local.postgres import EmbeddedPostgres

from . import cpu, stack
from .about import OURS, about
from .checks import UnequalError, check
from .loads import Generators, Load, LoadError
from .operations import OPERATIONS, Operation
from .results import PEER, Measurement, Summary, summarize
from .rounds import Taker, take_turns

_CHECKED_TICKETS = 3
_PEER_VERSIONS = ("fastapi", "starlette", "uvicorn", "asyncpg", "uvloop", "httptools")


@dataclass(frozen=True)
class Contestant:
    """One of those that are compared."""

    name: str
    title: str
    load: Callable[[Operation, int, int], Load]
    # Whose CPU it uses.
    groups: cpu.Groups


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    operations: list[str]
    concurrencies: list[int]
    contestants: list[str]
    rounds: int
    seconds: int
    tickets: int
    workers: int
    # Releases of grpcio to compare instead of the peer; empty: the installed one.
    grpcio: list[str]
    unchecked: bool


def main(
    operations: Annotated[str, typer.Option(help="Comma separated.")] = ",".join(OPERATIONS),
    only: Annotated[
        str, typer.Option(help="Contestants, comma separated: peer, envoy, grpc, pgbench; also h2load, to check grpc.")
    ] = "peer,envoy,grpc,pgbench",
    concurrency: Annotated[str, typer.Option(help="Callers at once, comma separated.")] = "16,64",
    rounds: Annotated[int, typer.Option(min=1, help="How often each contestant has its turn.")] = 4,
    seconds: Annotated[int, typer.Option(min=1, help="How long each turn takes.")] = 2,
    tickets: Annotated[int, typer.Option(min=100, help="Tickets that the account has.")] = 100_000,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the service, and of the peer.")] = 2,
    grpcio: Annotated[
        str, typer.Option(help="Releases of grpcio, such as `1.73.1,1.76.0`: compares the service on each.")
    ] = "",
    output: Annotated[Path, typer.Option(help="Directory for the results.")] = Path("bench-results"),
    quick: Annotated[bool, typer.Option("--quick", help="One short round with 16 callers: does it all work?")] = False,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Go on although answers differ.")] = False,
) -> None:
    """Measure, print a table, and write results.json and benchmark.png."""
    plan = Plan(
        _names(operations, OPERATIONS),
        [16] if quick else [int(number) for number in concurrency.split(",")],
        _names(only, ("peer", "envoy", "grpc", "pgbench", "h2load")),
        1 if quick else rounds,
        1 if quick else seconds,
        tickets,
        workers,
        [release.strip() for release in grpcio.split(",") if release.strip()],
        unchecked,
    )
    started = time.monotonic()
    try:
        measurements, titles = run(plan)
    except (LoadError, UnequalError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
    summaries = summarize(measurements)
    _write(plan, measurements, summaries, titles, output)
    typer.echo(f"\nin {time.monotonic() - started:.0f} s; all of it in {output / 'results.json'}")


def run(plan: Plan) -> tuple[list[Measurement], dict[str, str]]:
    """Everything that the plan wants measured, and the contestants' titles."""
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="tickets-bench-") as name, contextlib.ExitStack() as running:
        directory = Path(name)
        _say("starting PostgreSQL and seeding")
        database = running.enter_context(stack.postgres(directory))
        build = _Builder(plan, directory, running, database)
        contestants = list(build.releases() if plan.grpcio else build.contestants())
        if build.urls:
            known = build.ids.read_text().split()[:_CHECKED_TICKETS]
            _check(plan, lambda: check(database.url, known, build.urls, build.target))
        for operation, concurrency in _cells(plan):
            stack.tidy(database.url)
            measurements += _cell(plan, database.url, contestants, OPERATIONS[operation], concurrency)
    return measurements, {contestant.name: contestant.title for contestant in contestants}


class _Builder:
    """Starts what the contestants need."""

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        running: contextlib.ExitStack,
        database: EmbeddedPostgres,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._running = running
        self._database = database
        self._postmaster = stack.postmaster(database)
        self.ids = directory / "ids"
        stack.write_ids(database.url, plan.tickets, self.ids)
        self._account = stack.seed(database.url, plan.tickets)
        self._ours = Generators(directory, self._account, self.ids)
        # Whose answers are compared, and for whom.
        self.urls: dict[str, tuple[str, stack.Account]] = {}
        self.target = ""

    def contestants(self) -> Iterator[Contestant]:
        """The service over both transports, the peer, and PostgreSQL alone."""
        wanted, postgres = self._plan.contestants, [self._postmaster]
        service = self._running.enter_context(stack.service(self._directory, self._database.url, self._plan.workers))
        url, envoy = self._running.enter_context(stack.gateway(self._directory, service.endpoints))
        peer_url, peer = self._running.enter_context(
            stack.peer(self._directory, self._database.url, self._plan.workers)
        )
        account = stack.seed(self._database.url, self._plan.tickets)
        self.urls, self.target = {"service": (url, self._account), "peer": (peer_url, account)}, service.shared
        groups = {"app": service.processes, "postgres": postgres}
        ours, theirs = self._ours, Generators(self._directory, account, self.ids)
        everyone = (
            Contestant(
                PEER,
                "FastAPI + SQLAlchemy + asyncpg",
                lambda *what: theirs.wrk(peer_url, *what),
                {"app": peer, "postgres": postgres},
            ),
            Contestant(
                "envoy",
                "tickets: REST through Envoy",
                lambda *what: ours.wrk(url, *what),
                {"app": service.processes, "envoy": envoy, "postgres": postgres},
            ),
            Contestant("grpc", "tickets: gRPC straight", lambda *what: ours.grpc(service.shared, *what), groups),
            Contestant("h2load", "tickets: gRPC, h2load", lambda *what: ours.h2load(service.shared, *what), groups),
            Contestant(
                "pgbench",
                "the SQL alone (pgbench)",
                lambda operation, callers, seconds: ours.pgbench(
                    # It does in half the time many times as many.
                    self._pgbench(),
                    self._database.url,
                    operation,
                    callers,
                    max(1, seconds // 2),
                ),
                {"postgres": postgres},
            ),
        )
        yield from (one for one in everyone if one.name in wanted)

    def releases(self) -> Iterator[Contestant]:
        """The service on each release of grpcio, over each transport that is wanted."""
        for release in self._plan.grpcio:
            _say(f"installing grpcio {release}")
            yield from self._release(release, stack.grpcio_overlay(self._directory, release))

    def _release(self, release: str, python_path: str) -> Iterator[Contestant]:
        name = f"grpcio-{release}"
        service = self._running.enter_context(
            stack.service(self._directory, self._database.url, self._plan.workers, name=name, python_path=python_path)
        )
        groups = {"app": service.processes, "postgres": [self._postmaster]}
        if "grpc" in self._plan.contestants:
            yield Contestant(
                f"grpc {release}",
                f"gRPC straight, grpcio {release}",
                lambda *what: self._ours.grpc(service.shared, *what),
                groups,
            )
        if "envoy" in self._plan.contestants:
            url, envoy = self._running.enter_context(stack.gateway(self._directory, service.endpoints))
            yield Contestant(
                f"envoy {release}",
                f"REST through Envoy, grpcio {release}",
                lambda *what: self._ours.wrk(url, *what),
                {**groups, "envoy": envoy},
            )

    def _pgbench(self) -> str:
        # Beside the running server's binary: of the same release.
        return str(Path(self._postmaster.exe()).with_name("pgbench"))


def _cells(plan: Plan) -> Iterator[tuple[str, int]]:
    return ((operation, concurrency) for operation in plan.operations for concurrency in plan.concurrencies)


def _cell(
    plan: Plan, database_url: str, contestants: Sequence[Contestant], operation: Operation, concurrency: int
) -> Iterator[Measurement]:
    """One operation with so many callers."""
    _say(f"{operation.title}, {concurrency} callers")
    takers = [
        Taker(one.name, functools.partial(one.load, operation, concurrency), one.groups)
        for one in contestants
        if not (one.name == "h2load" and operation.fresh_key)
    ]
    settle = None if operation.verb == "GET" else functools.partial(stack.settle, database_url)
    return take_turns(operation.name, concurrency, takers, rounds=plan.rounds, seconds=plan.seconds, settle=settle)


def _check(plan: Plan, compare: Callable[[], int]) -> None:
    try:
        _say(f"{compare()} requests: equal answers, equal rows")
    except UnequalError as error:
        if not plan.unchecked:
            raise
        typer.echo(f"NOT EQUAL:\n{error}", err=True)


def _write(
    plan: Plan, measurements: list[Measurement], summaries: list[Summary], titles: dict[str, str], output: Path
) -> None:
    from . import report  # noqa: PLC0415 - matplotlib takes a second, and the load is over by now

    output.mkdir(parents=True, exist_ok=True)
    where = about((*OURS, *_PEER_VERSIONS))
    result = {
        "about": where,
        "plan": asdict(plan),
        "summary": [one.as_json() for one in summaries],
        "measurements": [asdict(one) for one in measurements],
    }
    (output / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    typer.echo(report.table(summaries, titles))
    if {PEER, "envoy", "grpc"} <= set(titles):
        machine = f"{where['cpus']} CPUs, {where['cpu']}; {where['at'][:10]}, {where['commit']}"
        how = f"medians of {plan.rounds} rounds of {plan.seconds} s (lines: least to most)"
        caption = f"{plan.tickets:,} tickets, {plan.workers} workers each, {how}; {machine}"
        report.plot(summaries, titles, output / "benchmark.png", caption)


def _names(given: str, known: Collection[str]) -> list[str]:
    names = [name.strip() for name in given.split(",")]
    strangers = [name for name in names if name not in known]
    if strangers:
        raise typer.BadParameter(f"{', '.join(strangers)}: known are {', '.join(known)}")
    return names


def _say(words: str) -> None:
    sys.stderr.write(f"· {words}\n")


if __name__ == "__main__":
    typer.run(main)
