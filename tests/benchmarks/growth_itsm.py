"""Lists of ITSM accounts of different sizes: by date, far from their beginning, and what that costs others."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from tickets.itsm.v1 import ticket_service_pb2

from . import grpc_load, loads
from .growth_ground import CALLERS, Found, Ground, Plan, say
from .loads import Generators, Load
from .operations import OPERATIONS
from .results import Measurement, summarize
from .rounds import Taker, take_turns
from .targets import Target

_LIST = OPERATIONS["list"]
# The newest of a seed.
_NEWEST = datetime(2026, 1, 1, tzinfo=UTC)
_NEIGHBOUR = "GET of another account"
# What goes on beside it, by so many callers of the largest account.
_FIRST, _FAR = "beside first pages", "beside far pages"
_BESIDE = {_FIRST: "all", _FAR: "offset of half"}
_BESIDE_CALLERS = 8


def dates(ground: Ground, plan: Plan) -> Found:
    """Lists of all, by date, and far from the beginning, one caller at a time; and GET beside those that go far."""
    accounts = {tickets: ground.account(tickets) for tickets in plan.sizes}
    least, most = plan.sizes[0], plan.sizes[-1]
    measurements: list[Measurement] = []
    with ground.service("dates") as service:
        for name, requests in _lists(plan.sizes).items():
            say(name)
            takers = [
                ground.taker(f"{tickets:,}", _plan(accounts[tickets], service.shared, requests[tickets], 1))
                for tickets in plan.sizes
            ]
            measurements += take_turns(name, 1, takers, rounds=plan.rounds, seconds=plan.seconds)
        say(_NEIGHBOUR)
        get = replace(accounts[least].grpc_plan(service.shared, OPERATIONS["get"], CALLERS, 0), refused="obey")
        lists = _lists(plan.sizes)
        takers = [ground.taker("alone", get)]
        for beside, name in _BESIDE.items():
            other = replace(_plan(accounts[most], service.shared, lists[name][most], 1), concurrency=_BESIDE_CALLERS)
            takers.append(Taker(beside, partial(_beside, ground, get, other), {}))
        measurements += take_turns(_NEIGHBOUR, CALLERS, takers, rounds=plan.rounds + 1, seconds=plan.seconds)
    summaries = summarize(measurements, f"{least:,}")
    to_alone, to_first = (
        {one.contestant: one.p99_ratio for one in summarize(measurements, base)}[_FAR] for base in ("alone", _FIRST)
    )
    table = [["", "tickets", "p50 ms", "p99 ms"]]
    table += [[one.operation, one.contestant, one.p50_ms.text(2), one.p99_ms.text(2)] for one in summaries]
    targets = [
        Target(f"{one.operation} of {one.contestant}: p50 ms", one.p50_ms.median, 5)
        for one in summaries
        if one.contestant == f"{most:,}"
    ]
    for words, ratio in (("alone", to_alone), (_FIRST, to_first)):
        if ratio is not None:
            targets.append(Target(f"{_NEIGHBOUR}: p99, {_FAR} to {words}", ratio.median, 1.1))
    figures = {"summary": [one.as_json() for one in summaries], "measurements": [asdict(one) for one in measurements]}
    return Found(table, targets, figures, [one.first_failure for one in measurements if one.failed])


def _lists(sizes: Sequence[int]) -> Mapping[str, Mapping[int, ticket_service_pb2.ListTicketsRequest]]:
    """What is asked of each size. A second lies between two tickets; a range is the middle third."""
    request = ticket_service_pb2.ListTicketsRequest
    days = {tickets: max(1, tickets // 86_400 // 3) for tickets in sizes}
    odd = timedelta(hours=7, minutes=13)
    return {
        "all": {tickets: request() for tickets in sizes},
        "by days": {
            tickets: request(start_date=_before(2 * days[tickets]), end_date=_before(days[tickets]))
            for tickets in sizes
        },
        "by times of day": {
            tickets: request(start_date=_before(2 * days[tickets], odd), end_date=_before(days[tickets], -odd))
            for tickets in sizes
        },
        "offset of half": {tickets: request(offset=tickets // 2) for tickets in sizes},
        "offset of 9 in 10": {tickets: request(offset=tickets * 9 // 10) for tickets in sizes},
    }


def _before(days: int, more: timedelta = timedelta(0)) -> Timestamp:
    instant = Timestamp()
    instant.FromDatetime(_NEWEST - timedelta(days=days) + more)
    return instant


def _plan(
    generators: Generators, target: str, request: ticket_service_pb2.ListTicketsRequest, concurrency: int
) -> grpc_load.Plan:
    planned = generators.grpc_plan(target, _LIST, concurrency, 0)
    return replace(planned, bodies=[request.SerializeToString().hex()], refused="obey")


def _beside(ground: Ground, planned: grpc_load.Plan, other: grpc_load.Plan, seconds: int) -> Load:
    """A load while another one goes on."""
    with _going_on(ground.directory / "other", replace(other, seconds=seconds + 1)):
        return loads.grpc(ground.directory, replace(planned, seconds=seconds))


@contextmanager
def _going_on(directory: Path, planned: grpc_load.Plan) -> Iterator[None]:
    directory.mkdir(exist_ok=True)
    other = threading.Thread(target=loads.grpc, args=(directory, planned))
    other.start()
    yield
    other.join()
