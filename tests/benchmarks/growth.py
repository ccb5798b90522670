"""What becomes of the service when there is more of something: tickets, callers, pages, calls behind it.

    python -m tests.benchmarks.growth [--quick] [--only size,dates,callers,depth,overload,memory] [--sizes 10000,…]

Prints a table for each and writes `growth.json` into `--output`. README.md beside this file says what is in them.
"""

import contextlib
import json
import math
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from psycopg.rows import dict_row
from tickets.helpdesk.v1 import ticket_service_pb2 as helpdesk_pb2

from service import jsontext, paging
from service.settings import Settings

from . import growth_itsm, grpc_load, loads, stack
from .about import OURS, about
from .growth_ground import CALLERS, MIB, QUICK, TENANT, WORKERS, Found, Ground, Plan, say
from .loads import LoadError
from .operations import OPERATIONS
from .results import Measurement, Spread, Summary, summarize
from .rounds import take_turns
from .seeds import HELPDESK_TICKETS
from .targets import Target

_PAGE = 20
_MIXED = ("get", "list", "create", "patch", "idempotent")
# Calls of one operation before the next has its turn.
_STRETCH = 1_000
_NO_END_SECONDS = 600

_PLACE = """
SELECT created_at, id FROM helpdesk_tickets WHERE tenant_id = %s ORDER BY created_at DESC, id DESC OFFSET %s LIMIT 2
"""


def main(
    only: Annotated[str, typer.Option(help="Sections, comma separated.")] = "size,dates,callers,depth,overload,memory",
    sizes: Annotated[str, typer.Option(help="Tickets of ITSM accounts, comma separated.")] = "",
    output: Annotated[Path, typer.Option(help="Directory for the results.")] = Path("bench-results"),
    quick: Annotated[bool, typer.Option("--quick", help="Small and short: does it all work?")] = False,
) -> None:
    """Measure, print tables, and write growth.json."""
    names = [name.strip() for name in only.split(",")]
    strangers = [name for name in names if name not in _SECTIONS]
    if strangers:
        raise typer.BadParameter(f"{', '.join(strangers)}: known are {', '.join(_SECTIONS)}")
    plan = QUICK if quick else Plan()
    if sizes:
        plan = replace(plan, sizes=tuple(sorted(int(size) for size in sizes.split(","))))
    result: dict[str, Any] = {"about": about(OURS), "plan": asdict(plan), "sections": {}}
    started = time.monotonic()
    failures = []
    _allow_connections()
    with tempfile.TemporaryDirectory(prefix="tickets-bench-") as directory, contextlib.ExitStack() as running:
        ground = Ground(Path(directory), running)
        for name in names:
            say(name)
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
            say(operation.title)
            stack.tidy(ground.database.url)
            takers = [
                ground.taker(name, generators.grpc_plan(service.shared, operation, CALLERS, 0), ground.groups(service))
                for name, generators in accounts.items()
            ]
            settle = None if operation.verb == "GET" else ground.settle
            measurements += take_turns(
                operation.title, CALLERS, takers, rounds=plan.rounds, seconds=plan.seconds, settle=settle
            )
    summaries = summarize(measurements, least)
    targets = [
        Target(
            f"CPU of {title}, {most} to {least}",
            _median(_of(summaries, OPERATIONS[title].title, most).cpu_ratio),
            ratio,
        )
        for title, ratio in {"list": 1.3, "create": 1.15, "patch": 1.15}.items()
    ]
    return _found(measurements, summaries, targets)


def _callers(ground: Ground, plan: Plan) -> Found:
    """The same operations for more callers at once."""
    generators = ground.account(plan.tickets)
    measurements: list[Measurement] = []
    with ground.service("callers") as service:
        for operation in (OPERATIONS[name] for name in ("get", "list", "create")):
            say(operation.title)
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
    return _found(measurements, summarize(measurements, f"{CALLERS} at once"), [])


def _depth(ground: Ground, plan: Plan) -> Found:
    """The first page of a tenant's helpdesk tickets, and one of the last."""
    say(f"seeding {plan.depth:,} helpdesk tickets")
    with psycopg.connect(ground.database.url) as connection:
        connection.execute(HELPDESK_TICKETS, {"tenant": TENANT, "tickets": plan.depth})
    pages = {
        "first page": helpdesk_pb2.ListTicketsRequest(limit=_PAGE),
        "deep page": helpdesk_pb2.ListTicketsRequest(limit=_PAGE, cursor=_cursor(ground, plan.depth - plan.behind)),
    }
    bearer = ground.issuer.bearer("per_benchmark", tenant_id=TENANT, scope="helpdesk:read_all")
    with ground.service("depth") as service:
        planned = grpc_load.Plan(
            target=service.shared,
            path="/tickets.helpdesk.v1.TicketService/ListTickets",
            metadata=dict([bearer]),
            bodies=[],
            concurrency=CALLERS,
            seconds=0,
        )
        takers = [
            ground.taker(name, replace(planned, bodies=[page.SerializeToString().hex()]), ground.groups(service))
            for name, page in pages.items()
        ]
        title = f"helpdesk LIST {_PAGE} of {plan.depth:,}"
        measurements = list(take_turns(title, CALLERS, takers, rounds=plan.rounds + 1, seconds=plan.seconds))
    summaries = summarize(measurements, "first page")
    deep = _of(summaries, title, "deep page")
    ratios = {"CPU": deep.cpu_ratio, "p50": deep.p50_ratio}
    targets = [Target(f"{name}, deep page to first", _median(ratio), 1.2) for name, ratio in ratios.items()]
    return _found(measurements, summaries, targets)


def _cursor(ground: Ground, rows: int) -> str:
    """The cursor behind so many rows, as the service makes it; it would refuse any other."""
    binding = jsontext.dump(["helpdesk tickets", "-created_at", {"tenant_id": TENANT}]).decode()
    with psycopg.connect(ground.database.url, row_factory=dict_row) as connection:
        last_and_next = connection.execute(_PLACE, [TENANT, rows - 1]).fetchall()
    _, cursor = paging.cut(last_and_next, 1, binding, "created_at", "id")
    if cursor is None:
        raise LoadError(f"there are not more than {rows} helpdesk tickets")
    return cursor


def _overload(ground: Ground, plan: Plan) -> Found:
    """More callers than the service takes, who wait when they are told to, and who do not."""
    generators, operation = ground.account(plan.tickets), OPERATIONS["get"]
    few, obeying = f"{CALLERS} at once", f"{plan.crowd:,}, obeying"
    crowds: Mapping[str, tuple[int, grpc_load.Refused]] = {
        few: (CALLERS, "obey"),
        "64 at once": (64, "obey"),
        obeying: (plan.crowd, "obey"),
        f"{plan.crowd:,}, insisting": (plan.crowd, "insist"),
    }
    default = {name: str(Settings.model_fields[name].default) for name in ("max_queue_seconds", "max_concurrent_calls")}
    limits = {f"TICKETS_{name.upper()}": value for name, value in default.items()}
    measurements: list[Measurement] = []
    with (
        ground.service("overload", **limits) as service,
        stack.gateway(ground.directory, service.endpoints) as (url, _),
    ):
        by_grpc = generators.grpc_plan(service.shared, operation, 0, 0)
        by_rest = replace(by_grpc, target=url.removeprefix("http://"), path=operation.path, ids=str(generators.ids))
        for transport, load, planned in (("gRPC", loads.grpc, by_grpc), ("Envoy", loads.rest, by_rest)):
            title = f"{operation.title}, {transport}"
            say(title)
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
                    planned = generators.grpc_plan(service.shared, operation, CALLERS, _NO_END_SECONDS)
                    load = loads.grpc(ground.directory, replace(planned, requests=stretch, refused="obey"))
                    if load.failed:
                        raise LoadError(f"{load.failed} of {load.requests} requests failed: {load.first_failure}")
                    shed[-1] += load.shed
                done += stretch * len(_MIXED)
            ground.settle()
            sizes.append([round(process.memory_info().rss / MIB, 1) for process in service.processes])
    table = [["calls", *(f"worker {number} MiB" for number in range(1, WORKERS + 1)), "shed"]]
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
    "dates": growth_itsm.dates,
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


if __name__ == "__main__":
    typer.run(main)
