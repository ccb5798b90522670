"""The load generators: wrk for HTTP/1.1, our bytes on sockets for gRPC, h2load to check those, pgbench for the SQL.

Each keeps `concurrency` requests in flight for some seconds. A single failed request fails the run: the rate of
failures says nothing about the rate of answers. (Only where calls may be refused on purpose failures are told.)
"""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from .grpc_load import Plan
from .operations import Named, Operation, pgbench_script
from .seeds import Account
from .stack import ROOT

# -I: nothing but the standard library, so that it starts at once.
_GRPC_LOAD = (sys.executable, "-I", str(Path(__file__).with_name("grpc_load.py")))
_REST_LOAD = (sys.executable, "-m", f"{__package__}.rest_load")
# A second: more than any contestant does.
_MOST_UPDATES = 15_000
_PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}


class LoadError(Exception):
    """A generator failed, or a request did."""


@dataclass(frozen=True)
class Load:
    """What a generator saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    # CPU of the generator itself.
    generator_us: float
    # Calls that were refused with a time to come back, where that is no failure; not among the requests.
    shed: int = 0
    # WatchMessages only where calls may be refused; elsewhere one that fails is a LoadError.
    failed: int = 0
    first_failure: str = ""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Generators:
    """Where the load's parts are, and whom the requests are for."""

    directory: Path
    account: Account
    # A file of the tickets' ids, one a line.
    ids: Path
    # Where updates find out which version a ticket has.
    database_url: str = ""

    def prepare(self, operation: Operation, seconds: int) -> None:
        """Before a turn, and no part of it: read the versions of the tickets that it will name."""
        if not operation.conditions:
            return
        given = {"scope": self.account.scope, "rows": seconds * _MOST_UPDATES}
        with psycopg.connect(self.database_url) as connection:
            rows = connection.execute(operation.conditions, given).fetchall()
        self._named(operation).write_text("".join(f"{ticket_id}\t{condition}\n" for ticket_id, condition in rows))
        self._messages(operation, ((str(ticket_id), condition) for ticket_id, condition in rows))

    def wrk(self, url: str, operation: Operation, concurrency: int, seconds: int) -> Load:
        """HTTP/1.1, keep-alive, one thread."""
        bodies = self._file("bodies", "\n".join(operation.bodies)) if operation.bodies else "-"
        ids = str(self._named(operation)) if operation.names_ticket else "-"
        fresh = f"{uuid.uuid4().hex}-" if operation.fresh_key else "-"
        command = [_found("wrk"), "-t1", f"-c{concurrency}", f"-d{seconds}s", "--timeout", "30s"]
        command += ["-s", str(Path(__file__).with_name("wrk.lua")), url, "--"]
        command += [operation.verb, operation.path.replace("{scope}", self.account.scope), *self.account.header]
        printed, used = _run([*command, bodies, ids, fresh, operation.condition_header or "-"])
        return _load(json.loads(printed.splitlines()[-1]), used)

    def grpc(self, target: str, operation: Operation, concurrency: int, seconds: int) -> Load:
        """gRPC: `concurrency` connections with one call in flight each, as wrk does it."""
        return grpc(self.directory, self.grpc_plan(target, operation, concurrency, seconds))

    def grpc_plan(self, target: str, operation: Operation, concurrency: int, seconds: int) -> Plan:
        """What `grpc` does."""
        return Plan(
            target=target,
            path=operation.rpc,
            metadata=dict([self.account.header]),
            bodies=[message.hex() for message in self._bodies(operation)],
            concurrency=concurrency,
            seconds=seconds,
            ids=str(self._messages(operation)) if operation.names_ticket else "",
            once=bool(operation.conditions),
            fresh=f"{uuid.uuid4().hex}-" if operation.fresh_key else "",
        )

    def _bodies(self, operation: Operation) -> list[bytes]:
        """The parts of typed requests that name no ticket."""
        scope = b""
        if operation.request is not None and not operation.names_ticket:
            scope = operation.request(Named(self.account.scope)).SerializeToString()
        return [scope + message.SerializeToString() for message in operation.messages]

    def _named(self, operation: Operation) -> Path:
        """The file of the tickets that an operation names by REST."""
        return self.directory / f"{operation.name}-{self.account.scope}.tickets" if operation.conditions else self.ids

    def _messages(self, operation: Operation, tickets: Iterable[tuple[str, str]] = ()) -> Path:
        """The file of the same as typed messages, in hex. Without `tickets` it is made once, of the ids."""
        path = self.directory / f"{operation.name}-{self.account.scope}.messages"
        known = [*tickets]
        if operation.request is not None and (known or not path.exists()):
            known = known or [(line, "") for line in self.ids.read_text().split()]
            named = (Named(self.account.scope, *ticket) for ticket in known)
            path.write_text("".join(f"{operation.request(one).SerializeToString().hex()}\n" for one in named))
        return path

    def h2load(self, target: str, operation: Operation, concurrency: int, seconds: int) -> Load:
        """Send gRPC by h2load: one constant request, so no fresh keys, and one ticket where a ticket is named.

        Blind to `grpc-status`, and reports no percentiles that it could be compared by.
        """
        if operation.fresh_key or operation.conditions:
            raise LoadError("h2load sends the same request always")
        body = self._bodies(operation)[0]
        if operation.names_ticket:
            with self._messages(operation).open() as messages:
                body = bytes.fromhex(messages.readline()) + body
        path = self.directory / "message"
        path.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
        command = [_found("h2load"), f"-c{concurrency}", "-m1", f"-D{seconds}", "-d", str(path)]
        for header in ("te: trailers", "content-type: application/grpc", ": ".join(self.account.header)):
            command += ["-H", header]
        printed, used = _run([*command, f"http://{target}{operation.rpc}"])
        done = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed", printed)
        if done is None:
            raise LoadError(f"h2load said: {printed}")
        result = {"requests": int(done[1]), "seconds": seconds, "failed": int(done[3]), "p50_ms": 0, "p99_ms": 0}
        return _load(result, used)

    def pgbench(self, program: str, database_url: str, operation: Operation, concurrency: int, seconds: int) -> Load:
        """The operation's SQL and nothing else: what PostgreSQL itself can do on this machine."""
        script = pgbench_script(operation, self.account.scope, self.account.tickets)
        log = self.directory / "pgbench-log"
        command = [program, "-n", "-M", "prepared", "-c", str(concurrency), "-j", "2", "-T", f"{seconds}"]
        command += ["-f", self._file("pgbench.sql", script), "-l", "--log-prefix", str(log), database_url]
        try:
            printed, used = _run(command)
            # Each line: client, its how-manieth transaction, microseconds, …
            logs = self.directory.glob(f"{log.name}.*")
            times = sorted(int(line.split()[2]) for path in logs for line in path.read_text().splitlines())
        finally:
            for path in self.directory.glob(f"{log.name}.*"):
                path.unlink()
        rate = re.search(r"tps = ([\d.]+)", printed)
        failed = re.search(r"number of failed transactions: (\d+)", printed)
        if rate is None or failed is None:
            raise LoadError(f"pgbench said: {printed}")
        result = {
            "requests": len(times),
            "seconds": len(times) / float(rate[1]),
            "failed": int(failed[1]),
            "p50_ms": times[len(times) // 2] / 1000,
            "p99_ms": times[len(times) * 99 // 100] / 1000,
        }
        return _load(result, used)

    def _file(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)


def grpc(directory: Path, plan: Plan) -> Load:
    """gRPC, as planned."""
    return _planned(_GRPC_LOAD, directory, plan)


def rest(directory: Path, plan: Plan) -> Load:
    """GET over HTTP/1.1, as planned."""
    return _planned(_REST_LOAD, directory, plan)


def _planned(program: Sequence[str], directory: Path, plan: Plan) -> Load:
    path = directory / "plan.json"
    path.write_text(json.dumps(asdict(plan)))
    printed, _ = _run([*program, str(path)])
    result = json.loads(printed)
    return _load(result, result["cpu_seconds"], tolerant=plan.refused != "fail")


def _load(result: Mapping[str, Any], used: float, *, tolerant: bool = False) -> Load:
    requests = int(result["requests"])
    if (result["failed"] and not tolerant) or not requests:
        raise LoadError(f"{result['failed']} of {requests} requests failed: {result.get('first_failure', '')}")
    return Load(
        requests,
        float(result["seconds"]),
        float(result["p50_ms"]),
        float(result["p99_ms"]),
        round(used * 1e6 / requests, 1),
        int(result.get("shed", 0)),
        int(result["failed"]),
        str(result.get("first_failure", "")),
    )


def _run(command: list[str]) -> tuple[str, float]:
    """What a command printed, and the CPU seconds it used."""
    before = os.times()
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    after = os.times()
    if finished.returncode != 0:
        raise LoadError(
            f"{command[0]} ended with {finished.returncode}: {finished.stdout[-500:]}{finished.stderr[-2000:]}"
        )
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return finished.stdout, used


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise LoadError(f"no {program}: apt-get install {_PACKAGES[program]}")
    return path
