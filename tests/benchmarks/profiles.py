"""Where the service's time goes: py-spy on one of its processes under load.

    python -m tests.benchmarks.profiles [--operations get,create] [--transports grpc,envoy] [--native]

Needs `pip install py-spy`, and root where ptrace is restricted. Prints for each operation and transport the functions
with the largest shares of what was sampled: by themselves, and with all that they call. Waiting is not counted. What C
extensions do (gRPC's core, uvloop, pydantic, libpq) counts for the Python function that called them unless
`--native`.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Annotated

import psutil
import typer

from . import stack
from .apis import APIS, OPERATIONS
from .loads import Generators
from .tokens import Issuer

_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>.*?)(:\d+)?\)$")
# What stands below every stack.
_START = re.compile(
    r"<frozen|\(typer/|\(service/__main__|uvloop/__init__|asyncio/runners|libc\.so|^thread \(|/bin/python"
)
# Where threads wait: gRPC's poller, the event loop.
_WAITING = ("Thread.run (threading.py)", "epoll_wait (libc.so.6)", "epoll_pwait (libc.so.6)")
_SITE_PACKAGES = re.compile(r".*(site-packages|lib/python3\.\d+)/")


def main(
    operations: Annotated[str, typer.Option(help="Comma separated: `get`, `helpdesk.get`.")] = "get,create",
    transports: Annotated[str, typer.Option(help="grpc, envoy, or both.")] = "grpc,envoy",
    concurrency: Annotated[int, typer.Option(help="Callers at once.")] = 16,
    seconds: Annotated[int, typer.Option(help="How long each is sampled.")] = 8,
    tickets: Annotated[int, typer.Option(help="Tickets that the account has.")] = 100_000,
    top: Annotated[int, typer.Option(help="How many functions to print.")] = 35,
    native: Annotated[bool, typer.Option("--native", help="Look into C extensions too; slower.")] = False,
) -> None:
    """Profile the service under load."""
    with tempfile.TemporaryDirectory(prefix="tickets-bench-") as name, contextlib.ExitStack() as running:
        directory = Path(name)
        database = running.enter_context(stack.postgres(directory))
        wanted, issuer = [OPERATIONS[name] for name in operations.split(",")], Issuer(directory)
        loads = {}
        for api in {operation.api for operation in wanted}:
            APIS[api].write_ids(database.url, tickets, directory / f"ids-{api}")
            account = APIS[api].seed(database.url, tickets, issuer)
            loads[api] = Generators(directory, account, directory / f"ids-{api}", database.url)
        stack.tidy(database.url)
        service = running.enter_context(stack.service(directory, database.url, 2, settings=issuer.settings()))
        url, _ = running.enter_context(stack.gateway(directory, service.endpoints))
        for operation in wanted:
            generators = loads[operation.api]
            for transport in transports.split(","):
                load, target = (generators.wrk, url) if transport == "envoy" else (generators.grpc, service.shared)
                generators.prepare(operation, 2)
                load(target, operation, concurrency, 2)
                generators.prepare(operation, seconds + 3)
                loading = threading.Thread(target=load, args=(target, operation, concurrency, seconds + 3))
                loading.start()
                before = _threads(service.processes[0])
                stacks = _sample(service.processes[0].pid, seconds, directory / "stacks", native=native)
                after = _threads(service.processes[0])
                loading.join()
                typer.echo(f"\n{operation.title} by {transport}\n{_tops(stacks, top)}")
                used = sorted(((after[name] - before.get(name, 0), name) for name in after), reverse=True)
                typer.echo("CPU by thread, of the time sampled")
                typer.echo("\n".join(f"  {cpu / seconds:6.1%}  {name}" for cpu, name in used if cpu / seconds > 0.005))


def _sample(pid: int, seconds: int, output: Path, *, native: bool) -> Counter[tuple[str, ...]]:
    """Stacks of functions, outermost first, and how often each was seen."""
    beside = str(Path(sys.executable).parent)
    program = shutil.which("py-spy", path=os.pathsep.join((beside, os.environ["PATH"]))) or "py-spy"
    command = [program, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", "200", "--threads"]
    command += ["--format", "raw", "--output", str(output), *(["--native"] if native else ["--nonblocking"])]
    subprocess.run(command, check=True, capture_output=True)
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in output.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        functions = tuple(map(_function, frames.split(";")))
        if functions[-1] not in _WAITING:
            stacks[functions] += int(count)
    return stacks


def _threads(process: psutil.Process) -> dict[str, float]:
    """CPU seconds of each thread: those of gRPC's core run no Python and are in no stack."""
    comm = "/proc/{}/task/{}/comm"
    return {
        f"{Path(comm.format(process.pid, thread.id)).read_text().strip()} {thread.id}": (
            thread.user_time + thread.system_time
        )
        for thread in process.threads()
    }


def _function(frame: str) -> str:
    match = _FRAME.match(frame)
    if match is None:
        return frame
    if frame.startswith("0x"):  # stripped: no more is known than the library
        return f"({_SITE_PACKAGES.sub('', match['file'])})"
    return f"{match['function']} ({_SITE_PACKAGES.sub('', match['file']).removeprefix(f'{stack.ROOT}/')})"


def _tops(stacks: Counter[tuple[str, ...]], top: int) -> str:
    alone: Counter[str] = Counter()
    together: Counter[str] = Counter()
    for functions, count in stacks.items():
        alone[functions[-1]] += count
        for function in {function for function in functions if not _START.search(function)}:
            together[function] += count
    total = stacks.total()
    lines = [f"{total} samples", "    self  function"]
    lines += [f"  {count / total:6.1%}  {function}" for function, count in alone.most_common(top)]
    places: Counter[str] = Counter()
    for function, count in alone.items():
        places[function.rpartition("(")[2].rstrip(")")] += count
    lines += ["    self  file or library"]
    lines += [f"  {count / total:6.1%}  {place}" for place, count in places.most_common(top)]
    lines += ["   total  function"]
    lines += [f"  {count / total:6.1%}  {function}" for function, count in together.most_common(2 * top)]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
