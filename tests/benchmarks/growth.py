"""What becomes of the service when there is more of something: tickets, callers, pages, calls behind it.

    python -m tests.benchmarks.growth [--quick] [--only size,callers,depth,overload,memory]

Prints a table for each and writes `growth.json` into `--output`. README.md beside this file says what is in them.
"""

import contextlib
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from psycopg.rows import dict_row
from tests.system import AUDIENCE, ISSUER, Issuer
from tickets.helpdesk.v1 import service_pb2 as helpdesk_pb2

from service import jsontext, paging
from service.settings import Settings

from . import cpu, grpc_load, loads, stack
from .about import OURS, about
from .loads import Generators, Load, LoadError
from .operations import OPERATIONS
from .results import Measurement, Spread, Summary, summarize
from .rounds import Taker, take_turns

_WORKERS = 2
_CALLERS = 16
_PAGE = 20
_MIXED = ("get", "list", "create", "patch", "idempotent")
# Calls of one operation before the next has its turn.
_STRETCH = 1_000
_NO_END_SECONDS = 600
_MIB = 1024 * 1024

_TENANT = "ten_benchmark"
_HELPDESK_TICKETS = """
INSERT INTO helpdesk_tickets
    (tenant_id, id, number, title, description, type, status, priority, submitted_by_id, tags, source, source_type,
    created_at, created_by, updated_at, updated_by)
SELECT %(tenant)s, 'tkt_' || lpad(n::text, 26, '0'), n, 'Laptop ' || n || ' does not wake up',
    repeat('It stays dark after lunch. ', 6), 'incident', 'open', 'medium', 'per_' || n %% 1000, '["hardware"]', 'edm',
    'api', at, 'seed', at, 'seed'
FROM generate_series(1, %(tickets)s) AS n,
    LATERAL (SELECT timestamptz '2026-01-01T00:00:00Z' + (n - %(tickets)s) * interval '1 second' AS at)
"""
_PLACE = """
SELECT created_at, id FROM helpdesk_tickets WHERE tenant_id = %s ORDER BY created_at DESC, id DESC OFFSET %s LIMIT 2
"""


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


_QUICK = replace(
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
class Target:
    """What a figure ought to be."""

    words: str
    value: float
    bound: float
    at_least: bool = False

    def text(self) -> str:
        """For the terminal."""
        reached = self.value >= self.bound if self.at_least else self.value <= self.bound
        bound = f"{'at least' if self.at_least else 'at most'} {self.bound:g}"
        return f"{self.words}: {self.value:.2f}, {bound}: {'yes' if reached else 'NO'}"


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
            _say(f"seeding {tickets:,} tickets")
            ids = self.directory / f"ids-{tickets}"
            stack.write_ids(self.database.url, tickets, ids)
            account = stack.seed(self.database.url, tickets)
            self._accounts[tickets] = Generators(self.directory, account, ids)
        return self._accounts[tickets]

    @contextlib.contextmanager
    def service(self, name: str, **more: str) -> Iterator[stack.Service]:
        """The service, with nothing left to do in the database; `more` are settings."""
        settings = {
            "TICKETS_JWKS": str(self.issuer.jwks),
            "TICKETS_JWT_ISSUER": ISSUER,
            "TICKETS_JWT_AUDIENCE": AUDIENCE,
            "TICKETS_DRAIN_NOTICE_SECONDS": "0",
            **more,
        }
        stack.tidy(self.database.url)
        with stack.service(self.directory, self.database.url, _WORKERS, name=name, settings=settings) as service:
            yield service

    def complaints(self, name: str) -> list[str]:
        """What the service of this name logged beside calls and its coming and going: the first of it."""
        path = self.directory / f"{name}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        odd = [line for line in lines if '"level":"info"' not in line]
        return [f"{len(odd)} such lines in the log: {odd[0][:2000]}"] if odd else []

    def groups(self, service: stack.Service) -> cpu.Groups:
        """Whose CPU a call uses."""
        return {"app": service.local.processes, "postgres": [self.postmaster]}

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


def main(
    only: Annotated[str, typer.Option(help="Sections, comma separated.")] = "size,callers,depth,overload,memory",
    output: Annotated[Path, typer.Option(help="Directory for the results.")] = Path("bench-results"),
    quick: Annotated[bool, typer.Option("--quick", help="Small and short: does it all work?")] = False,
) -> None:
    """Measure, print tables, and write growth.json."""
    names = [name.strip() for name in only.split(",")]
    strangers = [name for name in names if name not in _SECTIONS]
    if strangers:
        raise typer.BadParameter(f"{', '.join(strangers)}: known are {', '.join(_SECTIONS)}")
    plan = _QUICK if quick else Plan()
    result: dict[str, Any] = {"about": about(OURS), "plan": asdict(plan), "sections": {}}
    started = time.monotonic()
    failures = []
    _allow_connections()
    with tempfile.TemporaryDirectory(prefix="tickets-bench-") as directory, contextlib.ExitStack() as running:
        ground = Ground(Path(directory), running)
        for name in names:
            _say(name)
            began = time.monotonic()
            try:
                found = _SECTIONS[name](ground, plan)
            except (LoadError, TimeoutError) as error:
                found = Found([], [], {}, [str(error)])
            found.failures.extend(ground.complaints(name))
            _show(name, found, time.monotonic() - began)
            failures += found.failures
            result["sections"][name] = asdict(found)
    output.mkdir(parents=True, exist_ok=True)
    (output / "growth.json").write_text(json.dumps(result, indent=1) + "\n")
    typer.echo(f"\nin {time.monotonic() - started:.0f} s; all of it in {output / 'growth.json'}")
    if failures:
        raise typer.Exit(1)


def _size(ground: Ground, plan: Plan) -> Found:
    """The same operations on accounts of different sizes."""
    accounts = {f"{tickets:,} tickets": ground.account(tickets) for tickets in plan.sizes}
    least, most = f"{plan.sizes[0]:,} tickets", f"{plan.sizes[-1]:,} tickets"
    measurements: list[Measurement] = []
    with ground.service("size") as service:
        for operation in (OPERATIONS[name] for name in ("get", "list", "create", "patch")):
            _say(operation.title)
            stack.tidy(ground.database.url)
            takers = [
                ground.taker(name, generators.grpc_plan(service.shared, operation, _CALLERS, 0), ground.groups(service))
                for name, generators in accounts.items()
            ]
            settle = None if operation.verb == "GET" else ground.settle
            measurements += take_turns(
                operation.title, _CALLERS, takers, rounds=plan.rounds, seconds=plan.seconds, settle=settle
            )
    summaries = summarize(measurements, least)
    ratio = _of(summaries, OPERATIONS["list"].title, most).cpu_ratio
    return _found(measurements, summaries, [Target(f"CPU of LIST, {most} to {least}", _median(ratio), 1.3)])


def _callers(ground: Ground, plan: Plan) -> Found:
    """The same operations for more callers at once."""
    generators = ground.account(plan.tickets)
    measurements: list[Measurement] = []
    with ground.service("callers") as service:
        for operation in (OPERATIONS[name] for name in ("get", "list", "create")):
            _say(operation.title)
            takers = [
                ground.taker(
                    f"{callers} at once",
                    replace(generators.grpc_plan(service.shared, operation, callers, 0), warm_up=plan.warm_up),
                )
                for callers in plan.callers
            ]
            settle = None if operation.verb == "GET" else ground.settle
            measurements += take_turns(
                operation.title, 0, takers, rounds=plan.rounds, seconds=plan.callers_seconds, settle=settle
            )
    return _found(measurements, summarize(measurements, f"{_CALLERS} at once"), [])


def _depth(ground: Ground, plan: Plan) -> Found:
    """The first page of a tenant's helpdesk tickets, and one of the last."""
    _say(f"seeding {plan.depth:,} helpdesk tickets")
    with psycopg.connect(ground.database.url) as connection:
        connection.execute(_HELPDESK_TICKETS, {"tenant": _TENANT, "tickets": plan.depth})
    pages = {
        "first page": helpdesk_pb2.ListTicketsRequest(limit=_PAGE),
        "deep page": helpdesk_pb2.ListTicketsRequest(limit=_PAGE, cursor=_cursor(ground, plan.depth - plan.behind)),
    }
    token = ground.issuer.token("per_benchmark", tenant_id=_TENANT, scope="helpdesk:read")
    with ground.service("depth") as service:
        planned = grpc_load.Plan(
            target=service.shared,
            path="/tickets.helpdesk.v1.TicketService/ListTickets",
            metadata={"authorization": f"Bearer {token}"},
            bodies=[],
            concurrency=_CALLERS,
            seconds=0,
        )
        takers = [
            ground.taker(name, replace(planned, bodies=[page.SerializeToString().hex()]), ground.groups(service))
            for name, page in pages.items()
        ]
        title = f"helpdesk LIST {_PAGE} of {plan.depth:,}"
        measurements = list(take_turns(title, _CALLERS, takers, rounds=plan.rounds + 1, seconds=plan.seconds))
    summaries = summarize(measurements, "first page")
    deep = _of(summaries, title, "deep page")
    ratios = {"CPU": deep.cpu_ratio, "p50": deep.p50_ratio}
    targets = [Target(f"{name}, deep page to first", _median(ratio), 1.2) for name, ratio in ratios.items()]
    return _found(measurements, summaries, targets)


def _cursor(ground: Ground, rows: int) -> str:
    """The cursor behind so many rows, as the service makes it; it would refuse any other."""
    binding = jsontext.dump(["helpdesk tickets", "-created_at", {"tenant_id": _TENANT}]).decode()
    with psycopg.connect(ground.database.url, row_factory=dict_row) as connection:
        last_and_next = connection.execute(_PLACE, [_TENANT, rows - 1]).fetchall()
    _, cursor = paging.cut(last_and_next, 1, binding, "created_at", "id")
    if cursor is None:
        raise LoadError(f"there are not more than {rows} helpdesk tickets")
    return cursor


def _overload(ground: Ground, plan: Plan) -> Found:
    """More callers than the service takes, who wait when they are told to, and who do not."""
    generators, operation = ground.account(plan.tickets), OPERATIONS["get"]
    few, obeying = f"{_CALLERS} at once", f"{plan.crowd:,}, obeying"
    crowds: Mapping[str, tuple[int, grpc_load.Refused]] = {
        few: (_CALLERS, "obey"),
        "64 at once": (64, "obey"),
        obeying: (plan.crowd, "obey"),
        f"{plan.crowd:,}, insisting": (plan.crowd, "insist"),
    }
    patience = str(Settings.model_fields["max_queue_seconds"].default)
    measurements: list[Measurement] = []
    with (
        ground.service("overload", TICKETS_MAX_QUEUE_SECONDS=patience) as service,
        stack.gateway(ground.directory, service.endpoints) as (url, _),
    ):
        by_grpc = generators.grpc_plan(service.shared, operation, 0, 0)
        by_rest = replace(by_grpc, target=url.removeprefix("http://"), path=operation.path)
        for door, load, planned in (("gRPC", loads.grpc, by_grpc), ("Envoy", loads.rest, by_rest)):
            title = f"{operation.title}, {door}"
            _say(title)
            takers = []
            for name, (callers, refused) in crowds.items():
                warm_up = plan.crowd_warm_up if callers == plan.crowd else plan.warm_up
                wanted = replace(planned, concurrency=callers, warm_up=warm_up)
                takers.append(ground.taker(name, wanted, load=load, refused=refused))
            measurements += take_turns(title, 0, takers, rounds=plan.rounds, seconds=plan.seconds)
    summaries = summarize(measurements, few)
    targets = []
    for title in dict.fromkeys(one.operation for one in summaries):
        crowd = _of(summaries, title, obeying)
        best = max(one.rate.median for one in summaries if one.operation == title)
        targets += [
            Target(f"{title}: p99 of who is admitted, {obeying} to {few}", _median(crowd.p99_ratio), 10),
            Target(f"{title}: requests/s, {obeying} to the best", crowd.rate.median / best, 0.8, at_least=True),
        ]
    return _found(measurements, summaries, targets)


def _memory(ground: Ground, plan: Plan) -> Found:
    """Resident memory of each process after more and more calls."""
    generators = ground.account(plan.tickets)
    sizes: list[list[float]] = []
    done, shed = 0, []
    with ground.service("memory") as service:
        for calls in plan.calls:
            shed.append(0)
            while done < calls:
                stretch = min(_STRETCH, (calls - done) // len(_MIXED))
                for operation in (OPERATIONS[name] for name in _MIXED):
                    planned = generators.grpc_plan(service.shared, operation, _CALLERS, _NO_END_SECONDS)
                    load = loads.grpc(ground.directory, replace(planned, requests=stretch, refused="obey"))
                    if load.failed:
                        raise LoadError(f"{load.failed} of {load.requests} requests failed: {load.first_failure}")
                    shed[-1] += load.shed
                done += stretch * len(_MIXED)
            ground.settle()
            sizes.append([round(process.memory_info().rss / _MIB, 1) for process in service.local.processes])
    table = [["calls", *(f"worker {number} MiB" for number in range(1, _WORKERS + 1)), "shed"]]
    table += [
        [f"{calls:,}", *map(str, each), str(refused or "")]
        for calls, each, refused in zip(plan.calls, sizes, shed, strict=True)
    ]
    grown = max(after - before for before, after in zip(sizes[1], sizes[-1], strict=True))
    targets = [
        Target("MiB, the largest", max(map(max, sizes)), 120),
        Target(f"MiB more after {plan.calls[-1]:,} calls than after {plan.calls[1]:,}", grown, 4),
    ]
    return Found(table, targets, {"calls": plan.calls, "rss_mib": sizes, "shed": shed}, [])


_SECTIONS: Mapping[str, Callable[[Ground, Plan], Found]] = {
    "size": _size,
    "callers": _callers,
    "depth": _depth,
    "overload": _overload,
    "memory": _memory,
}


def _of(summaries: Sequence[Summary], operation: str, contestant: str) -> Summary:
    return next(one for one in summaries if (one.operation, one.contestant) == (operation, contestant))


def _median(ratio: Spread | None) -> float:
    return ratio.median if ratio else math.nan


def _found(measurements: Sequence[Measurement], summaries: Sequence[Summary], targets: list[Target]) -> Found:
    """The table of some summaries; columns that nothing is in are left out."""
    heads = ["", "", "requests/s", "p50 ms", "p99 ms", "CPU us", "x rate", "x p50", "x p99", "x CPU", "shed", "failed"]
    heads += ["load us"]
    rows = [heads]
    for one in summaries:
        ratios = (one.rate_ratio, one.p50_ratio, one.p99_ratio, one.cpu_ratio)
        cpu_us = " + ".join(f"{name} {used:.0f}" for name, used in one.cpu_us.items())
        row = [one.operation, one.contestant, one.rate.text(0), one.p50_ms.text(1), one.p99_ms.text(1)]
        row += [f"{one.cpu_total_us:.0f} = {cpu_us}" if cpu_us else ""]
        row += [f"{ratio.median:.2f}" if ratio else "" for ratio in ratios]
        row += [f"{one.shed:.0f}" if one.shed else "", str(one.failed) if one.failed else ""]
        rows.append([*row, f"{one.generator_us:.0f}"])
    used = [any(cells) for cells in zip(*rows[1:], strict=True)]
    table = [[cell for cell, wanted in zip(row, used, strict=True) if wanted] for row in rows]
    figures = {"summary": [one.as_json() for one in summaries], "measurements": [asdict(one) for one in measurements]}
    return Found(table, targets, figures, [one.first_failure for one in measurements if one.failed])


def _show(name: str, found: Found, seconds: float) -> None:
    typer.echo(f"\n{name} (in {seconds:.0f} s)")
    widths = [max(map(len, column)) for column in zip(*found.table, strict=True)]
    for row in found.table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for target in found.targets:
        typer.echo(target.text())
    for failure in found.failures:
        typer.echo(f"FAILED: {failure}")


def _allow_connections() -> None:
    """As many files as the system lets us have open: us, and those we start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _say(words: str) -> None:
    sys.stderr.write(f"· {words}\n")


if __name__ == "__main__":
    typer.run(main)
