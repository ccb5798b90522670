"""`make bench`: the service, the peer and pgbench side by side, in interleaved rounds on one machine.

    python -m tests.benchmarks.bench [--quick] [--api helpdesk,handoff] [--operations get,list] [--only peer,grpc] …

Prints a table; writes `results.json` and `benchmark.png` into `--output`. README.md beside this file says how to read
them.
"""

import contextlib
import functools
import json
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from . import checks_bearer, deadlocks, stack, targets
from .about import OURS, about
from .apis import APIS, OPERATIONS
from .checks import UnequalError
from .contestants import NAMES, Builder, Contestant, Plan
from .deadlocks import Crossing
from .loads import LoadError
from .operations import Operation
from .results import PEER, Measurement, Summary, summarize
from .rounds import take_turns
from .targets import Target

_CHECKED_TICKETS = 3
_KINDS = tuple(dict.fromkeys(operation.kind for operation in OPERATIONS.values()))
_PEER_VERSIONS = ("fastapi", "starlette", "uvicorn", "asyncpg", "uvloop", "httptools", "pyjwt")
_QUICK_TICKETS = 20_000
_MIB = 1024 * 1024


@dataclass
class Found:
    """What a run found."""

    measurements: list[Measurement] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    # Resident memory of the service's processes when all of it is done.
    workers_mib: list[float] = field(default_factory=list)
    crossing: Crossing | None = None
    # What was found wrong when all was measured: it is told after the tables, which are worth having.
    failures: list[str] = field(default_factory=list)


def main(
    api: Annotated[str, typer.Option(help="APIs, comma separated: itsm, helpdesk, handoff.")] = "itsm",
    operations: Annotated[str, typer.Option(help="Comma separated.")] = ",".join(_KINDS),
    only: Annotated[
        str, typer.Option(help="Contestants, comma separated: peer, envoy, grpc, pgbench; also h2load, to check grpc.")
    ] = "peer,envoy,grpc,pgbench",
    concurrency: Annotated[str, typer.Option(help="Callers at once, comma separated.")] = "16,64",
    rounds: Annotated[int, typer.Option(min=1, help="How often each contestant has its turn.")] = 4,
    seconds: Annotated[int, typer.Option(min=1, help="How long each turn takes.")] = 2,
    tickets: Annotated[int, typer.Option(min=1000, help="Tickets that each account has.")] = 100_000,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the service, and of the peer.")] = 2,
    grpcio: Annotated[
        str,
        typer.Option(help="Releases of grpcio, such as `1.76.0` or `newest`: compares the service on the locked one."),
    ] = "",
    crosswise: Annotated[
        int, typer.Option("--deadlocks", min=0, help="So many crosswise PATCHes of eight tickets at the end.")
    ] = deadlocks.PATCHES,
    output: Annotated[Path, typer.Option(help="Directory for the results.")] = Path("bench-results"),
    quick: Annotated[bool, typer.Option("--quick", help="One short round, 16 callers, few tickets.")] = False,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Go on although answers differ.")] = False,
) -> None:
    """Measure, print a table, and write results.json and benchmark.png."""
    apis, kinds = _names(api, APIS), _names(operations, _KINDS)
    plan = Plan(
        apis,
        [name for name, one in OPERATIONS.items() if one.api in apis and one.kind in kinds],
        [16] if quick else [int(number) for number in concurrency.split(",")],
        _names(only, NAMES),
        1 if quick else rounds,
        1 if quick else seconds,
        min(tickets, _QUICK_TICKETS) if quick else tickets,
        workers,
        [release.strip() for release in grpcio.split(",") if release.strip()],
        crosswise,
        unchecked,
    )
    started = time.monotonic()
    try:
        found = run(plan)
    except (LoadError, UnequalError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
    _write(plan, found, output)
    typer.echo(f"\nin {time.monotonic() - started:.0f} s; all of it in {output / 'results.json'}")
    if found.failures:
        raise typer.Exit(1)


def run(plan: Plan) -> Found:
    """Everything that the plan wants measured."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="tickets-bench-") as name, contextlib.ExitStack() as running:
        directory = Path(name)
        _say("starting PostgreSQL and seeding")
        database = running.enter_context(stack.postgres(directory))
        # Those who are compared end before deadlocks are looked for.
        with contextlib.ExitStack() as contesting:
            build = Builder(plan, directory, contesting, database)
            contestants = list(build.releases() if plan.grpcio else build.contestants())
            found.titles = {contestant.name: contestant.title for contestant in contestants}
            _check(plan, build, database.url)
            for operation, concurrency in _cells(plan):
                stack.tidy(database.url)
                found.measurements += _cell(plan, database.url, contestants, operation, concurrency)
            with _told(found):
                _check_numbers(build, database.url)
            processes = [process for service in build.services for process in service.processes]
            found.workers_mib = [round(process.memory_info().rss / _MIB, 1) for process in processes]
        if plan.deadlocks:
            _say(f"{plan.deadlocks:,} crosswise PATCHes")
            with _told(found):
                found.crossing = deadlocks.cross(directory, database.url, plan.deadlocks)
                found.failures += [found.crossing.text()] if found.crossing.deadlocks else []
    return found


@contextlib.contextmanager
def _told(found: Found) -> Iterator[None]:
    """What fails in here is told at the end."""
    try:
        yield
    except (LoadError, UnequalError) as error:
        found.failures.append(str(error))


def _cells(plan: Plan) -> Iterator[tuple[Operation, int]]:
    return ((OPERATIONS[name], concurrency) for name in plan.operations for concurrency in plan.concurrencies)


def _cell(
    plan: Plan, database_url: str, contestants: Sequence[Contestant], operation: Operation, concurrency: int
) -> Iterator[Measurement]:
    """One operation with so many callers."""
    _say(f"{operation.title}, {concurrency} callers")
    takers = [one.taker(operation, concurrency) for one in contestants if one.takes_part(operation)]
    settle = None if operation.verb == "GET" else functools.partial(stack.settle, database_url)
    return take_turns(operation.name, concurrency, takers, rounds=plan.rounds, seconds=plan.seconds, settle=settle)


def _check(plan: Plan, build: Builder, database_url: str) -> None:
    """Equal answers and rows; and of the APIs with numbers for people, that they are counted without gaps."""
    for name, urls in build.urls.items():
        known = build.ids(name).read_text().split()[:_CHECKED_TICKETS]
        try:
            compared = APIS[name].check(database_url, known, urls, build.services[0].shared)
            _say(f"{name}: {compared} requests: equal answers, equal rows")
            for url, _ in urls.values():
                _check_parallel_creates(name, build, database_url, url)
        except UnequalError as error:
            if not plan.unchecked:
                raise
            typer.echo(f"NOT EQUAL:\n{error}", err=True)


def _check_parallel_creates(name: str, build: Builder, database_url: str, url: str) -> None:
    api = APIS[name]
    if api.numbered is not None:
        create = api.operations[f"{name}.create"]
        account = api.seed(database_url, 0, build.issuer)
        body = json.loads(create.bodies[0])
        checks_bearer.check_parallel_creates(database_url, *api.numbered, url, account, create.path, body)


def _check_numbers(build: Builder, database_url: str) -> None:
    """Whatever the load was, numbers have no gaps after it."""
    for name, urls in build.urls.items():
        numbered = APIS[name].numbered
        for _, account in urls.values():
            if numbered is not None:
                checks_bearer.check_numbers(database_url, *numbered, account)


def _write(plan: Plan, found: Found, output: Path) -> None:
    from . import report  # noqa: PLC0415 - matplotlib takes a second, and the load is over by now

    output.mkdir(parents=True, exist_ok=True)
    where = about((*OURS, *_PEER_VERSIONS))
    summaries = _summaries(found)
    due = list(targets.of_run(summaries, found.workers_mib))
    result = {
        "about": where,
        "plan": asdict(plan),
        "summary": [one.as_json() for one in summaries],
        "targets": [asdict(one) for one in due],
        "workers_mib": found.workers_mib,
        "deadlocks": found.crossing and asdict(found.crossing),
        "failures": found.failures,
        "measurements": [asdict(one) for one in found.measurements],
    }
    (output / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    typer.echo(report.table(summaries, found.titles, "peer" if not plan.grpcio else "locked"))
    _tell(where, due, found)
    if {PEER, "envoy", "grpc"} <= set(found.titles):
        _plot(report, plan, where, summaries, found, output)


def _plot(
    report: Any, plan: Plan, where: dict[str, str], summaries: Sequence[Summary], found: Found, output: Path
) -> None:
    """A picture for each API."""
    machine = f"{where['cpus']} CPUs, {where['cpu']}; Python {where['python']} ({where['python_build']})"
    how = f"medians of {plan.rounds} rounds of {plan.seconds} s (lines: least to most)"
    caption = f"{plan.tickets:,} tickets, {plan.workers} workers each, {how};\n{machine}; {where['at'][:10]}"
    for name in plan.apis:
        of_api = [one for one in summaries if OPERATIONS[one.operation].api == name]
        picture = "benchmark.png" if name == "itsm" else f"benchmark-{name}.png"
        if of_api:
            report.plot(of_api, found.titles, output / picture, f"{caption}, {where['commit']}")


def _tell(where: dict[str, str], due: Sequence[Target], found: Found) -> None:
    """What the table does not have."""
    typer.echo("")
    for target in due:
        typer.echo(target.text())
    typer.echo(f"workers after all of it: {', '.join(f'{mib:.0f}' for mib in found.workers_mib)} MiB")
    if found.crossing is not None:
        typer.echo(found.crossing.text())
    python = f"Python {where['python']} ({where['python_build']})"
    typer.echo(f"{python}, grpcio {where['grpcio']}; load {where['load_average']}")
    for failure in found.failures:
        typer.echo(f"FAILED: {failure}")


def _summaries(found: Found) -> list[Summary]:
    """Ratios are to the peer; or over each transport to the locked release of grpcio, which is the first."""
    first = {name.partition(" ")[0]: name for name in reversed(found.titles) if " " in name}
    if not first:
        return summarize(found.measurements)
    summaries: list[Summary] = []
    for transport, base in first.items():
        summaries += summarize([one for one in found.measurements if one.contestant.split(" ")[0] == transport], base)
    return summaries


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
