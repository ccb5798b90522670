"""A whole system of its own (PostgreSQL, two workers, Envoy), and the faults that it must survive."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import psycopg

from service import migrations
from service.local.envoy import Envoy, envoy_config
from service.local.postgres import EmbeddedPostgres
from service.local.processes import free_port, wait_for
from support import prepared
from support.system import AUDIENCE, ENCRYPTION_KEY, ISSUER, Issuer, _listens

_START_SECONDS = 60.0
# How long a fault lasts that has no end of its own.
_FROZEN_SECONDS = 1.0


class Worker:
    """A process of the service, at the same addresses each time it is started."""

    def __init__(self, address: str, environment: Mapping[str, str], log: Path) -> None:
        self.address = address
        self._environment = environment
        self._log = log
        self.process: prepared.Started

    def start(self) -> None:
        """Start it."""
        self.process = prepared.serve(self._environment, self._log)

    async def listening(self) -> None:
        """Return when it listens."""
        what = f"the worker to listen (see {self._log})"
        await asyncio.to_thread(
            wait_for, lambda: _listens(self.address, self.process), what=what, timeout=_START_SECONDS
        )

    async def replace(self, number: signal.Signals) -> None:
        """End it by a signal, and start another in its place."""
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait, _START_SECONDS)
        self.start()
        await self.listening()


class Cluster:
    """The system. gRPC callers share one port of both workers; Envoy knows each by an address of its own."""

    def __init__(self, directory: Path, issuer: Issuer) -> None:
        # Without fsync: no machine crashes, and what a killed PostgreSQL has written the kernel keeps.
        self.postgres = EmbeddedPostgres(directory / "postgres", settings={"fsync": "off"})
        self._directory, self._issuer = directory, issuer
        self.target = f"127.0.0.1:{free_port()}"
        self.workers: Sequence[Worker] = ()
        self.envoy: Envoy

    @property
    def database_url(self) -> str:
        """The same before and after a restart."""
        return self.postgres.url

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Cluster"]:
        """Everything runs until the end of the block."""
        self.postgres.start()
        try:
            await asyncio.to_thread(migrations.upgrade, self.database_url)
            self.workers = [self._worker(number) for number in (1, 2)]
            for worker in self.workers:
                worker.start()
            config = envoy_config(port=free_port(), endpoints=[worker.address for worker in self.workers])
            self.envoy = Envoy(config, log_file=self._directory / "envoy.log")
            self.envoy.start()
            for worker in self.workers:
                await worker.listening()
            await self._gateway_ready()
            yield self
        finally:
            await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        if hasattr(self, "envoy"):
            self.envoy.stop(grace=1)
        for worker in self.workers:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.terminate()
        for worker in self.workers:
            worker.process.wait(_START_SECONDS)
        self.postgres.stop()

    def _worker(self, number: int) -> Worker:
        address = f"127.0.0.1:{free_port()}"
        settings = {
            "database_url": self.database_url,
            "grpc_listen": f"{self.target},{address}",
            "jwks": self._issuer.jwks,
            "jwt_issuer": ISSUER,
            "jwt_audience": AUDIENCE,
            "encryption_keys": ENCRYPTION_KEY,
            "allow_private_targets": True,
            "pool_size": 4,
            # Callers meet deadlines and limits too.
            "default_deadline_seconds": 3,
            "rate_limit_writes": "50/50",
            "rate_limit_file": self._directory / "rate-limits",
            # A busy test machine must not count as overload.
            "max_queue_seconds": 10,
            "drain_notice_seconds": 0.2,
            "drain_seconds": 5,
            "delivery_pause_seconds": 0.1,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKETS_")}
        environment |= {f"TICKETS_{name.upper()}": str(value) for name, value in settings.items()}
        return Worker(address, environment, self._directory / f"worker-{number}.log")

    async def _gateway_ready(self) -> None:
        await asyncio.to_thread(self.envoy.wait_until_ready, _START_SECONDS, upstream=True)

    # Faults. Each returns when what it broke is whole again.

    async def worker_killed(self, random: Random) -> None:
        """A worker dies."""
        await random.choice(self.workers).replace(signal.SIGKILL)

    async def worker_replaced(self, random: Random) -> None:
        """A worker is told to stop, as in a deployment."""
        await random.choice(self.workers).replace(signal.SIGTERM)

    async def worker_frozen(self, random: Random) -> None:
        """A worker gets no CPU, and goes on with what it was doing."""
        process = random.choice(self.workers).process
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(_FROZEN_SECONDS)
        process.send_signal(signal.SIGCONT)

    async def envoy_killed(self, _: Random) -> None:
        """The gateway dies."""
        await asyncio.to_thread(self.envoy.stop, grace=0)
        self.envoy.start()
        await self._gateway_ready()

    async def postgres_stopped(self, _: Random) -> None:
        """PostgreSQL stops at once, as by `pg_ctl stop -m immediate`: it recovers from its log when it starts."""
        await self._postgres_ended(signal.SIGQUIT)

    async def postgres_killed(self, _: Random) -> None:
        """PostgreSQL's first process dies, and leaves the others to themselves."""
        await self._postgres_ended(signal.SIGKILL)

    async def _postgres_ended(self, number: signal.Signals) -> None:
        pid_file = self.postgres.data_dir / "postmaster.pid"
        os.kill(int(pid_file.read_text().split()[0]), number)
        url = self.database_url
        await asyncio.to_thread(self.postgres.stop)
        await asyncio.to_thread(self.postgres.start)
        assert self.database_url == url, "the workers know the first address"

    async def connections_ended(self, _: Random) -> None:
        """PostgreSQL ends every connection of the workers."""
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tickets'"
        async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as connection:
            await connection.execute(sql)

    @property
    def faults(self) -> Sequence[Callable[[Random], Awaitable[None]]]:
        """All of them."""
        return (
            self.worker_killed,
            self.worker_replaced,
            self.worker_frozen,
            self.envoy_killed,
            self.postgres_stopped,
            self.postgres_killed,
            self.connections_ended,
        )
