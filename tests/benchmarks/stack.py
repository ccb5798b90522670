"""What is compared, running: one PostgreSQL with its seed, the service behind Envoy, and the peer."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from service import migrations
from service.local.envoy import Envoy, envoy_config
from service.local.postgres import EmbeddedPostgres
from service.local.processes import free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
UNLIMITED = "999999999/999999999"
_LOOK_SECONDS = 0.05


def tidy(database_url: str) -> None:
    """Leave PostgreSQL nothing to do in the background: what was written before is no burden of what is timed next."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def settle(database_url: str) -> None:
    """Wait for what writes leave behind: whoever caused work pays for it, and versions that are read now stay.

    Those are totals that are not merged, and writes whose callers have left as their turn ended.
    """
    is_left = """
        SELECT EXISTS (SELECT FROM itsm_total_changes OFFSET 100 LIMIT 1)
            OR EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL)"""
    with psycopg.connect(database_url, autocommit=True) as connection:

        def settled() -> bool:
            return connection.execute(is_left).fetchone() == (False,)

        # The first look is not at once: a service learns a little later that its callers have left.
        time.sleep(_LOOK_SECONDS)
        wait_for(settled, what="writes to end, and totals to be merged", timeout=60, interval=_LOOK_SECONDS)


@contextlib.contextmanager
def postgres(directory: Path) -> Iterator[EmbeddedPostgres]:
    """A fresh PostgreSQL with the service's schema, durable as in production."""
    with EmbeddedPostgres(directory / "postgres") as server:
        migrations.upgrade(server.url)
        with psycopg.connect(server.url) as connection:
            # The peer has no search. The service would make the terms of its tickets, in the time of others.
            for api in ("itsm", "helpdesk", "handoff"):
                connection.execute(f"ALTER TABLE {api}_tickets ALTER COLUMN search_terms SET DEFAULT ''")
        yield server


@dataclass(frozen=True)
class Service:
    """The service's processes, and where they are reached."""

    shared: str
    endpoints: list[str]
    processes: list[psutil.Process]


@contextlib.contextmanager
def service(
    directory: Path,
    database_url: str,
    workers: int,
    *,
    name: str = "service",
    python: str = sys.executable,
    python_path: str = "",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """Run the service as `tickets up` does: each process with a port of its own, and one that all share.

    Logging is on, into a file; the limits are in force and never reached. `python_path` comes before what is installed
    for `python`. `settings` are more of TICKETS_*.
    """
    shared = f"{HOST}:{free_port()}"
    endpoints = [f"{HOST}:{free_port()}" for _ in range(workers)]
    given = {
        "TICKETS_DATABASE_URL": database_url,
        "TICKETS_RATE_LIMIT_READS": UNLIMITED,
        "TICKETS_RATE_LIMIT_WRITES": UNLIMITED,
        "TICKETS_RATE_LIMIT_FILE": str(directory / f"{name}-rate-limits"),
        "TICKETS_LOG_LEVEL": "info",
        "PYTHONPATH": python_path,
        # What is measured is what it can do; `overload` has the setting's default.
        "TICKETS_MAX_QUEUE_SECONDS": "10",
        # All calls are one caller's, of whom a process takes three sixteenths of these.
        "TICKETS_MAX_CONCURRENT_CALLS": "512",
        **(settings or {}),
    }
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                _process(
                    [python, "-m", "service", "serve"],
                    directory / f"{name}.log",
                    {**given, "TICKETS_GRPC_LISTEN": f"{shared},{endpoint}"},
                    endpoint,
                )
            )
            for endpoint in endpoints
        ]
        yield Service(shared, endpoints, processes)


@contextlib.contextmanager
def gateway(directory: Path, endpoints: list[str]) -> Iterator[tuple[str, list[psutil.Process]]]:
    """Envoy with one worker thread in front of the service: its URL and its process."""
    before = {process.pid for process in psutil.Process().children()}
    config = envoy_config(port=free_port(), endpoints=endpoints, limit_addresses=False)  # all callers have one
    with Envoy(config, log_file=directory / "envoy.log") as envoy:
        envoy.wait_until_ready(upstream=True)
        yield envoy.url, [process for process in psutil.Process().children() if process.pid not in before]


@contextlib.contextmanager
def peer(
    directory: Path, database_url: str, workers: int, settings: Mapping[str, str]
) -> Iterator[tuple[str, list[psutil.Process]]]:
    """The peer under uvicorn: its URL and the process that its workers are children of."""
    address = f"{HOST}:{free_port()}"
    host, _, port = address.partition(":")
    command = [sys.executable, "-m", "uvicorn", f"{__package__}.peer.app:app", "--host", host, "--port", port]
    command += ["--workers", str(workers), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning", "--backlog", "2048"]
    given = {**settings, "PEER_DATABASE_URL": database_url.replace("postgresql:", "postgresql+asyncpg:")}
    with _process(command, directory / "peer.log", given, address) as process:
        yield f"http://{address}", [process]


def postmaster(server: EmbeddedPostgres) -> psutil.Process:
    """The process that PostgreSQL's others are children of."""
    return psutil.Process(int((server.data_dir / "postmaster.pid").read_text().split()[0]))


def grpcio_overlay(directory: Path, release: str) -> str:
    """Install another release of grpcio beside the installed one: a PYTHONPATH that puts it first."""
    overlay = directory / f"grpcio-{release}"
    packages = [f"{name}=={release}" for name in ("grpcio", "grpcio-health-checking", "grpcio-reflection")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(overlay), *packages], check=True)
    # Generated code refuses a release older than the one that generated it, though these few calls are the same in all.
    generated = overlay / "generated"
    shutil.copytree(ROOT / "gen" / "python", generated)
    for path in generated.rglob("*_pb2_grpc.py"):
        path.write_text(re.sub(r"(GRPC_GENERATED_VERSION = )'.*'", rf"\1'{release}'", path.read_text()))
    return os.pathsep.join((str(overlay), str(generated)))


def newest_grpcio() -> tuple[str, str]:
    """The newest gRPC, as `make test-newest` has it: its release, and the Python of the environment that it is in."""
    subprocess.run(["make", "--silent", "newest"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    python = str(ROOT / ".venv-newest" / "bin" / "python")
    asks = "import importlib.metadata; print(importlib.metadata.version('grpcio'))"
    asked = subprocess.run([python, "-c", asks], capture_output=True, text=True, check=True)
    return asked.stdout.strip(), python


@contextlib.contextmanager
def _process(command: list[str], log: Path, settings: Mapping[str, str], address: str) -> Iterator[psutil.Process]:
    with log.open("ab") as output:
        running = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **settings}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for(lambda: _listens(running, address, log), what=f"{command[2]} to listen (see {log})", timeout=60)
        yield psutil.Process(running.pid)
    finally:
        running.terminate()
        running.wait(timeout=60)


def _listens(running: subprocess.Popen[bytes], address: str, log: Path) -> bool:
    if running.poll() is not None:
        raise RuntimeError(f"a process ended with {running.returncode}: see {log}\n{log.read_text()[-2000:]}")
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
