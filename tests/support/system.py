"""The system under test as it runs, and the users, programs and projects that tests create in it."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import grpc
import jwt
import orjson
import psycopg
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.admin import operations as admin
from service.admin.direct import as_operator
from service.directory import METADATA
from service.local.processes import free_port, wait_for
from service.operation import Dependencies, Operation
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault
from support import prepared

ISSUER = "https://issuer.test"
AUDIENCE = "tickets-test"

Credential = Mapping[str, str]

# For these tests alone.
ENCRYPTION_KEY = "S0KuR0BlsTtXNoFqSJGvYzTFBmQOBBhHPNUgDPPrV6M="


class Issuer:
    """The issuer of tokens: one RSA and one EC key, and a JWKS with both."""

    def __init__(self, directory: Path) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.jwks = directory / "jwks.json"
        self._tokens: dict[tuple[str, str, str], str] = {}
        rsa_jwk = jwt.algorithms.RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True)
        ec_jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True)
        self.keys = [{**rsa_jwk, "kid": "rsa", "alg": "RS256"}, {**ec_jwk, "kid": "ec", "alg": "ES256"}]
        self.jwks.write_bytes(orjson.dumps({"keys": self.keys}))

    def token(self, sub: str, *, algorithm: str = "ES256", **claims: Any) -> str:
        """A signed token. Claims that are None are left out."""
        # Signing costs as much as half a call, and a token with the same claims is as good.
        known = algorithm, sub, repr(sorted(claims.items()))
        if known not in self._tokens:
            self._tokens[known] = self._sign(sub, algorithm, claims)
        return self._tokens[known]

    def _sign(self, sub: str, algorithm: str, claims: Mapping[str, Any]) -> str:
        now = int(time.time())
        all_claims = {"sub": sub, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 3600, **claims}
        payload = {name: value for name, value in all_claims.items() if value is not None}
        key, kid = (self.rsa, "rsa") if algorithm == "RS256" else (self.ec, "ec")
        return jwt.encode(payload, key, algorithm, headers={"kid": kid})

    def bearer(self, sub: str, **claims: Any) -> Credential:
        """The header with such a token."""
        return {"authorization": f"Bearer {self.token(sub, **claims)}"}


@dataclass(frozen=True)
class Service:
    """A process of the service."""

    target: str
    log: Path
    process: prepared.Started

    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines that it has logged so far."""
        return [orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]


class Metrics(NamedTuple):
    """Where a process and its gateway show their metrics."""

    service: str
    gateway: str


@contextmanager
def run_service(directory: Path, database_url: str, issuer: Issuer, **settings: Any) -> Iterator[Service]:
    """Run one process of the service until the block ends; `settings` are TICKETS_* in lower case.

    It listens on a port, and on the addresses in `sockets`.
    """
    target = f"127.0.0.1:{free_port()}"
    given = {
        "database_url": database_url,
        "grpc_listen": ",".join([target, *settings.pop("sockets", [])]),
        "jwks": issuer.jwks,
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "rate_limit_reads": "100000/100000",
        "rate_limit_writes": "100000/100000",
        "drain_notice_seconds": 0,
        # One account may have a quarter of these.
        "max_concurrent_calls": 1024,
        # A busy test machine must not count as overload.
        "max_queue_seconds": 10,
        # Tests hold rows for as long as they need.
        "lock_timeout_seconds": 30,
        "encryption_keys": ENCRYPTION_KEY,
        "allow_private_targets": True,
        "delivery_pause_seconds": 0.1,
        "rate_limit_file": directory / f"rate-limits-{uuid4()}",
        **settings,
    }
    log = directory / f"service-{uuid4()}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKETS_")}
    environment |= {f"TICKETS_{name.upper()}": str(value) for name, value in given.items()}
    process = prepared.serve(environment, log)
    try:
        wait_for(lambda: _listens(target, process), what=f"the service to listen (see {log})", timeout=30)
        yield Service(target, log, process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _listens(target: str, process: prepared.Started) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the service exited with {process.returncode}")
    host, _, port = target.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def health(target: str) -> int:
    """The health status that a service reports."""
    with grpc.insecure_channel(target) as channel:
        status: int = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status
        return status


@dataclass(frozen=True)
class Program:
    """A program of a customer account, with its API key."""

    account_id: str
    key_id: str
    key: str

    @property
    def credential(self) -> Credential:
        """The header with its key."""
        return {"x-api-key": self.key}


class World:
    """Creates what a test needs, new in each test, so that no test sees another's tickets."""

    def __init__(self, database_url: str, issuer: Issuer) -> None:
        self.database_url = database_url
        self.issuer = issuer
        self._settings = Settings(
            database_url=database_url, pool_size=1, encryption_keys=ENCRYPTION_KEY, allow_private_targets=True
        )
        self._database: Database | None = None
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    async def operate(self, operation: Operation[Any], **body: Any) -> Any:
        """Run an operator's operation."""
        if self._database is None:
            self._database = Database(self._settings, METADATA)
            await self._database.open()
        vault = Vault(self._settings)
        dependencies = Dependencies(settings=self._settings, database=self._database, vault=vault)
        return await as_operator(dependencies, operation, body)

    async def close(self) -> None:
        """Close the connection that operations ran on."""
        if self._database is not None:
            await self._database.close()
        if self._connection is not None:
            self._connection.close()

    async def program(
        self, *, scopes: tuple[str, ...] = ("tickets:read", "tickets:write"), account_id: str | None = None, **key: Any
    ) -> Program:
        """Create a program with an API key, in a new account unless one is named."""
        if account_id is None:
            account_id = str((await self.operate(admin.create_account, name="An account"))["account"]["id"])
        made = await self.operate(admin.create_api_key, account_id=account_id, scopes=list(scopes), **key)
        return Program(account_id, str(made["api_key"]["id"]), made["key"])

    async def project(self, **project: Any) -> str:
        """Create a project; returns its id."""
        given = {"name": "Shop", "slug": f"shop-{uuid4().hex[:12]}", **project}
        return str((await self.operate(admin.create_project, **given))["project"]["id"])

    async def member(
        self, project_id: str, role: str = "member", user_id: str | None = None, **claims: Any
    ) -> Credential:
        """Add a user to the project, a new one unless named; returns the credential."""
        user_id = user_id or str(uuid4())
        await self.operate(admin.add_member, project_id=project_id, user_id=user_id, role=role)
        return self.issuer.bearer(user_id, **claims)

    def person(self, *scopes: str, tenant_id: str | None = None, sub: str = "per_1", **claims: Any) -> Credential:
        """A user of a tenant (a new one unless named) with these helpdesk scopes, such as `read`, `write`, `agent`."""
        scope = " ".join(f"helpdesk:{name}" for name in scopes)
        return self.issuer.bearer(sub, tenant_id=tenant_id or f"ten_{uuid4().hex}", scope=scope, **claims)

    async def settled(self) -> None:
        """Return when every transaction so far has ended: a watch that begins then emits no event from before."""
        [(now,)] = self.rows("SELECT pg_current_xact_id()::text::bigint")
        ended = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > %s"
        await asyncio.to_thread(
            wait_for, lambda: self.rows(ended, now) == [(True,)], what="earlier transactions to end", timeout=20
        )

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Query the database directly."""
        return self._execute(sql, parameters).fetchall()

    def run(self, sql: str, *parameters: Any) -> None:
        """Change the database directly, to simulate what time or an accident would do."""
        self._execute(sql, parameters)

    def _execute(self, sql: str, parameters: Sequence[Any]) -> "psycopg.Cursor[tuple[Any, ...]]":
        """Run one statement on a connection that stays: a new one takes as long as a whole call of the service."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.database_url, autocommit=True)
        try:
            return self._connection.execute(sql, parameters or None)
        except psycopg.OperationalError:
            # A test has stopped or restarted the server in between.
            self._connection.close()
            self._connection = psycopg.connect(self.database_url, autocommit=True)
            return self._connection.execute(sql, parameters or None)
