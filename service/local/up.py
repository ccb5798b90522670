"""`tickets up`: PostgreSQL, the service's processes and Envoy on one machine, started, watched and stopped together."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from service import migrations
from service.local.demo import AUDIENCE, ISSUER, DevelopmentKey, demo_credentials, encryption_key, write_private
from service.local.envoy import Envoy, envoy_config
from service.local.postgres import EmbeddedPostgres
from service.local.processes import free_port, kill_with_parent
from service.operation import View
from service.settings import Settings

DATABASE_URL_FILE = "database-url"
_HOST = "127.0.0.1"
_RESTART_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, and where."""

    data_dir: Path
    http_port: int
    grpc_port: int
    workers: int
    demo: bool


async def up(plan: Plan) -> None:
    """Start everything, say so, and stop everything at SIGINT or SIGTERM. Raises OSError for a port that is taken."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for port in (plan.http_port, plan.grpc_port):
        _require_free(port)
    plan.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        settings = _settings(plan, _database_url(plan, stack))
        migrations.upgrade(settings["TICKETS_DATABASE_URL"])
        ports = [free_port() for _ in range(plan.workers)]
        gateway = Envoy(
            envoy_config(port=plan.http_port, endpoints=[f"{_HOST}:{port}" for port in ports]),
            log_file=plan.data_dir / "envoy.log",
        )
        stack.callback(gateway.stop)
        # Entered last, so left first: the processes drain while the gateway still carries their answers.
        workers = [await stack.enter_async_context(_Worker(plan, settings, port)) for port in ports]
        gateway.start()
        await asyncio.to_thread(gateway.wait_until_ready, upstream=True)
        await _say_ready(plan, settings)
        watching = [asyncio.create_task(worker.watch()) for worker in workers]
        await stop.wait()
        for task in watching:
            task.cancel()
        print("stopping", flush=True)
    print("stopped", flush=True)


class _Worker:
    """One process of the service. One that dies is started again; the others go on meanwhile."""

    def __init__(self, plan: Plan, settings: dict[str, str], port: int) -> None:
        # One port is shared, for gRPC callers; one is the process's own, so that the gateway can balance by request.
        listen = f"{_HOST}:{plan.grpc_port},{_HOST}:{port}"
        self._environment = {**os.environ, **settings, "TICKETS_GRPC_LISTEN": listen}
        self._log = plan.data_dir / "service.log"
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> "_Worker":
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()

    async def watch(self) -> None:
        """Start the process again whenever it ends."""
        while True:
            code = await self._process.wait()
            print(f"a service process ended with {code}; starting another", file=sys.stderr, flush=True)
            await asyncio.sleep(_RESTART_SECONDS)
            await self._start()

    async def _start(self) -> None:
        # Owner only, and nobody's orphan.
        log_file = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(log_file, "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "service",
                "serve",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop it in our order
                preexec_fn=kill_with_parent(signal.SIGTERM),
            )


def _require_free(port: int) -> None:
    # The service shares its port between processes, so it would share it with a stranger without a word.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise OSError(f"port {port} is in use") from error


def _database_url(plan: Plan, stack: AsyncExitStack) -> str:
    url = os.environ.get("TICKETS_DATABASE_URL")
    if url is None:
        postgres = EmbeddedPostgres(plan.data_dir / "postgres")
        stack.callback(postgres.stop)
        postgres.start()
        url = postgres.url
    write_private(plan.data_dir / DATABASE_URL_FILE, url.encode())
    return url


def _settings(plan: Plan, database_url: str) -> dict[str, str]:
    """The environment of the service: what the caller set, and keys for development unless they named some."""
    settings = {
        "TICKETS_DATABASE_URL": database_url,
        "TICKETS_RATE_LIMIT_FILE": str((plan.data_dir / "rate-limits").absolute()),
        "TICKETS_DRAIN_NOTICE_SECONDS": "0",  # everything stops together: there is nobody to take over
    }
    if "TICKETS_ENCRYPTION_KEYS" not in os.environ:
        settings["TICKETS_ENCRYPTION_KEYS"] = encryption_key(plan.data_dir)
    if "TICKETS_JWKS" not in os.environ:
        key = DevelopmentKey(plan.data_dir)
        key.make()
        settings |= {
            "TICKETS_JWKS": str(key.jwks.absolute()),
            "TICKETS_JWT_ISSUER": ISSUER,
            "TICKETS_JWT_AUDIENCE": AUDIENCE,
        }
    return settings


async def _say_ready(plan: Plan, settings: dict[str, str]) -> None:
    rest_url, target = f"http://{_HOST}:{plan.http_port}", f"{_HOST}:{plan.grpc_port}"
    if plan.demo and "TICKETS_JWKS" not in os.environ:
        database = Settings(database_url=settings["TICKETS_DATABASE_URL"], pool_size=1)
        key = DevelopmentKey(plan.data_dir)
        print(examples(await demo_credentials(database, plan.data_dir, key, target, rest_url)))
    print(f"ready: REST {rest_url}, gRPC {target}, data in {plan.data_dir}; Ctrl-C stops", flush=True)


def examples(credentials: View) -> str:
    """Lines to paste: a create and a list of each API, over REST and over gRPC."""
    c = credentials
    helpdesk, handoff, itsm = (
        f"Authorization: Bearer {c['helpdesk_token']}",
        f"Authorization: Bearer {c['handoff_token']}",
        f"X-API-Key: {c['itsm_api_key']}",
    )
    rest, grpc = c["rest_url"], f"http://{c['grpc_target']}"
    project = c["handoff_project_id"]
    new_handoff = '"title": "Login fails", "description": "500 on /login", "request_type": "bug"'
    lines = [
        "# ITSM",
        _curl(f"{rest}/api/v1/tickets", itsm, '{"subject": "VPN is down", "description": "Since 9 o\\u0027clock"}'),
        _curl(f"{rest}/api/v1/tickets?status=open", itsm),
        _buf(f"{grpc}/tickets.itsm.v1.TicketService/CreateTicket", itsm, '{"subject": "VPN", "description": "Down"}'),
        _buf(f"{grpc}/tickets.itsm.v1.TicketService/ListTickets", itsm, "{}"),
        "# Helpdesk",
        _curl(f"{rest}/api/v1/helpdesk/tickets", helpdesk, '{"title": "New laptop", "type": "service_request"}'),
        _curl(f"{rest}/api/v1/helpdesk/tickets", helpdesk),
        _buf(f"{grpc}/tickets.helpdesk.v1.TicketService/CreateTicket", helpdesk, '{"title": "New laptop"}'),
        _buf(f"{grpc}/tickets.helpdesk.v1.TicketService/ListTickets", helpdesk, "{}"),
        "# Handoff",
        _curl(f"{rest}/api/projects/{project}/tickets", handoff, f"{{{new_handoff}}}"),
        _curl(f"{rest}/api/tickets?slim=1", handoff),
        _buf(
            f"{grpc}/tickets.handoff.v1.TicketService/CreateTicket",
            handoff,
            f'{{"project_id": "{project}", {new_handoff.replace("bug", "REQUEST_TYPE_BUG")}}}',
        ),
        _buf(f"{grpc}/tickets.handoff.v1.TicketService/ListTickets", handoff, "{}"),
    ]
    return "\n".join(lines)


def _curl(url: str, header: str, body: str | None = None) -> str:
    data = "" if body is None else f" -H 'Content-Type: application/json' -d '{body}'"
    return f"curl -sS '{url}' -H '{header}'{data}"


def _buf(url: str, header: str, body: str) -> str:
    return f"buf curl --protocol grpc --http2-prior-knowledge -H '{header}' -d '{body}' '{url}'"
