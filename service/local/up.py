"""`tickets up`: PostgreSQL, the service's processes and Envoy on one machine, started, watched and stopped together."""

import asyncio
import os
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service import migrations
from service.directory import METADATA
from service.local.claims import claim_folder, claim_port
from service.local.demo import (
    AUDIENCE,
    DATABASE_URL_FILE,
    ISSUER,
    DevelopmentKey,
    demo_credentials,
    encryption_key,
    write_page_credentials,
    write_private,
)
from service.local.envoy import Envoy, envoy_config
from service.local.gateway_traces import trace
from service.local.instance import Instance, forget_instance, log_files, write_instance
from service.local.postgres import EmbeddedPostgres
from service.local.processes import Child, pin, service_command
from service.local.progress import Progress
from service.local.rotation import keep_short
from service.local.sockets import socket_folder
from service.local.supervisor import supervise
from service.settings import Settings
from service.storage.database import Database
from service.storage.pooler import require_sessions
from service.vault import Vault
from service.vault_check import check_keys

MAX_WORKERS = 64
_HOST = "127.0.0.1"
_PAGE_FOLDER = "docs"  # what the page may read, in the data folder
_START_SECONDS = 60.0
# Whatever hangs, everything has stopped in less than ten seconds.
_DRAIN_SECONDS = 1.5
_GATEWAY_STOP_SECONDS = 0.5
_POSTGRES_STOP_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The options of `tickets up`."""

    data_dir: Path
    http_port: int
    grpc_port: int
    workers: int
    demo: bool
    # Keep each worker on a core of its own.
    pin: bool
    # What the environment says about the gateway, and about traces.
    settings: Settings


async def up(options: UpOptions) -> None:
    """Start everything, print where it listens, start again what exits, and stop everything at SIGINT or SIGTERM.

    Raises OSError for a port that is in use; SettingError for other encryption keys than the database's; RuntimeError
    for a data folder that is in use, and for a process that exits before everything answers.
    """
    running = asyncio.create_task(_run(options))
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:  # a second signal must not break off the stop
            stopped = True
            print("stopping", flush=True)
            running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await running
    except asyncio.CancelledError:
        print("stopped", flush=True)


async def _run(options: UpOptions) -> None:
    with ExitStack() as stack:
        for port in (options.http_port, options.grpc_port):
            stack.enter_context(claim_port(_HOST, port))
        options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        stack.enter_context(claim_folder(options.data_dir, options.data_dir / "lock"))
        progress = Progress()
        stack.callback(progress.end)
        progress.step("PostgreSQL")
        postgres = await _own_postgres(options, stack)
        url = os.environ["TICKETS_DATABASE_URL"] if postgres is None else postgres.url
        write_private(options.data_dir / DATABASE_URL_FILE, url.encode())
        settings = _settings(options, url)
        progress.step("the schema")
        await require_sessions(url)
        await asyncio.to_thread(migrations.upgrade, url)
        await _refuse_other_keys({**os.environ, **settings})
        sockets = _worker_sockets(options, stack)
        config = envoy_config(
            port=options.http_port,
            endpoints=sockets,
            host=_HOST,
            cors_origins=options.settings.cors_origins,
            docs=options.settings.docs,
            demo_folder=options.data_dir / _PAGE_FOLDER if _has_demo(options) else None,
        )
        trace(config, options.settings)
        gateway = Envoy(config, log_file=options.data_dir / "envoy.log")
        stack.callback(gateway.stop, _GATEWAY_STOP_SECONDS)
        # These are stopped first: the processes drain while the gateway still carries their answers.
        workers = [_Worker(options, settings, listen, number) for number, listen in enumerate(sockets)]
        stack.callback(_stop_workers, workers)
        progress.step("the service and the gateway")
        for worker in workers:
            await worker.start()
        gateway.start()
        await asyncio.to_thread(_wait_until_ready, gateway, workers)
        progress.step("demo data")
        await _print_ready(options, settings, progress)
        stack.callback(forget_instance, options.data_dir)
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_short(log_files(options.data_dir)))
            if postgres is not None:
                group.create_task(supervise(postgres.exited, partial(_launch, postgres)))
            for worker in workers:
                group.create_task(supervise(worker.exited, worker.start))
            group.create_task(supervise(gateway.exited, partial(_start_again, gateway)))


async def _refuse_other_keys(environment: Mapping[str, str]) -> None:
    """Raise SettingError when what others keep secret in this database could not be read."""
    keys, url = environment["TICKETS_ENCRYPTION_KEYS"], environment["TICKETS_DATABASE_URL"]
    settings = Settings(database_url=url, encryption_keys=keys, pool_size=1)
    vault, database = Vault(settings), Database(settings, METADATA)
    await database.open()
    try:
        await check_keys(database, vault)
    finally:
        await database.close()


class _Worker:
    """One process of the service."""

    def __init__(self, options: UpOptions, settings: dict[str, str], own_address: str, number: int) -> None:
        # One port is shared, for gRPC callers; each process has an address of its own, so that the gateway can balance
        # by request. That is a unix socket: a port picked for it could be taken, and shared, before it is bound.
        listen = f"{_HOST}:{options.grpc_port},{own_address}"
        self._environment = {**os.environ, **settings, "TICKETS_GRPC_LISTEN": listen}
        self._log_file = options.data_dir / "service.log"
        self._core = number if options.pin else None
        self.child: Child | None = None

    async def start(self) -> None:
        argv, environment = service_command("serve"), self._environment
        # It runs in the directory of the caller, whose settings may name files there.
        self.child = Child("service process", argv, self._log_file, env=environment, cwd=None)
        if self._core is not None:
            pin(self.child.pid, self._core)

    def exited(self) -> str | None:
        """How it exited, in one line; None while it runs."""
        return None if self.child is None else self.child.exited()


def _stop_workers(workers: Sequence[_Worker]) -> None:
    children = [worker.child for worker in workers if worker.child is not None]
    Child.stop_all(children, (signal.SIGTERM, _DRAIN_SECONDS + 2.5))


def _wait_until_ready(gateway: Envoy, workers: Sequence[_Worker]) -> None:
    def check_workers() -> None:
        for worker in workers:
            how = worker.exited()
            if how is not None:
                raise RuntimeError(how)

    gateway.wait_until_ready(_START_SECONDS, upstream=True, check=check_workers)


async def _start_again(gateway: Envoy) -> None:
    gateway.start()
    await asyncio.to_thread(gateway.wait_until_ready)


async def _own_postgres(options: UpOptions, stack: ExitStack) -> EmbeddedPostgres | None:
    """Start a PostgreSQL, unless the environment names one."""
    if "TICKETS_DATABASE_URL" in os.environ:
        return None
    postgres = EmbeddedPostgres(options.data_dir / "postgres")
    stack.callback(postgres.stop, _POSTGRES_STOP_SECONDS)
    postgres.claim()
    await _launch(postgres)
    await asyncio.to_thread(postgres.wait_until_ready)
    return postgres


async def _launch(postgres: EmbeddedPostgres) -> None:
    await asyncio.to_thread(postgres.clear_leftovers)
    postgres.launch()


def _worker_sockets(options: UpOptions, stack: ExitStack) -> list[str]:
    """Return an address for each worker, in a folder without the sockets of an earlier, killed run."""
    folder = (options.data_dir / "sockets").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    folder = stack.enter_context(socket_folder(folder, f"worker-{MAX_WORKERS}"))
    return [f"unix:{folder}/worker-{number}" for number in range(1, options.workers + 1)]


def _settings(options: UpOptions, database_url: str) -> dict[str, str]:
    """The service's settings beyond the caller's own: the database, and development keys unless the caller has some."""
    settings = {
        "TICKETS_DATABASE_URL": database_url,
        "TICKETS_RATE_LIMIT_FILE": str((options.data_dir / "limits" / "rate-limits").absolute()),
        "TICKETS_DRAIN_NOTICE_SECONDS": "0",  # everything stops together: no other process takes new calls
        "TICKETS_DRAIN_SECONDS": str(_DRAIN_SECONDS),
        # Nothing leaves this machine, and the development credentials are for plain gRPC.
        **dict.fromkeys(("TICKETS_TLS_CERT", "TICKETS_TLS_KEY", "TICKETS_TLS_CLIENT_CA"), ""),
    }
    if "TICKETS_REFLECTION" not in os.environ:
        settings["TICKETS_REFLECTION"] = "true"
    if "TICKETS_ENCRYPTION_KEYS" not in os.environ:
        settings["TICKETS_ENCRYPTION_KEYS"] = encryption_key(options.data_dir)
    if "TICKETS_JWKS" not in os.environ:
        key = DevelopmentKey(options.data_dir)
        key.make()
        settings |= {
            "TICKETS_JWKS": str(key.jwks.absolute()),
            "TICKETS_JWT_ISSUER": ISSUER,
            "TICKETS_JWT_AUDIENCE": AUDIENCE,
        }
    return settings


def _has_demo(options: UpOptions) -> bool:
    """Whether there is demo data: not where somebody else signs the tokens."""
    return options.demo and "TICKETS_JWKS" not in os.environ


async def _print_ready(options: UpOptions, settings: dict[str, str], progress: Progress) -> None:
    rest_url, target = f"http://{_HOST}:{options.http_port}", f"{_HOST}:{options.grpc_port}"
    if _has_demo(options):
        database = Settings(database_url=settings["TICKETS_DATABASE_URL"], pool_size=1)
        key = DevelopmentKey(options.data_dir)
        credentials = await demo_credentials(database, options.data_dir, key, target, rest_url)
        write_page_credentials(options.data_dir / _PAGE_FOLDER, credentials)
    write_instance(options.data_dir, Instance(os.getpid(), rest_url, target, options.workers))
    progress.end()
    print(summary(options, rest_url, target))
    print(f"ready: REST {rest_url}, gRPC {target}, data in {options.data_dir}; Ctrl-C stops", flush=True)


def summary(options: UpOptions, rest_url: str, target: str) -> str:
    """Where everything is, and what to paste into another shell."""
    folder = "" if options.data_dir == Path(".tickets") else f" --data-dir {shlex.quote(str(options.data_dir))}"
    rows = [
        ("REST", rest_url),
        ("gRPC", target),
        *([("page", f"{rest_url}/docs")] if options.settings.docs else []),
        ("logs", f"tickets logs{folder}"),
        ("checks", f"tickets status{folder}"),
    ]
    lines = [f"{name:6}  {words}" for name, words in rows]
    if _has_demo(options):
        lines += ["In another shell:", f'  eval "$(tickets env{folder})"', '  curl -sS $REST/api/v1/tickets -H "$ITSM"']
    return "\n".join(lines)
