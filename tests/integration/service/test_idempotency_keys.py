"""contracts/errors.md, Retries: every write takes an idempotency key, whichever API and transport it comes through."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import psycopg
import pytest
from support.system import World
from support.transports import Grpc, Rest
from support.writes import Write, served_writes, writes

from service.admin.keys import KEYS
from service.directory import METADATA
from service.settings import Settings
from service.storage.database import Database

pytestmark = pytest.mark.usefixtures("quiet_postgres")

Transport = Rest | Grpc
Stage = Callable[[Transport, str, str], Awaitable[Write]]

WRITES = sorted(served_writes())
# AdminService is served over gRPC alone.
CALLS = [(name, api, method) for api, method in WRITES for name in ("rest", "grpc") if (api, name) != ("admin", "rest")]
each_write = pytest.mark.parametrize(
    ("transport", "api", "method"), CALLS, indirect=["transport"], ids=[".".join(call) for call in CALLS]
)


@pytest.fixture(scope="module")
def stages() -> dict[tuple[str, ...], dict[str, Write]]:
    return {}


@pytest.fixture
def stage(request: pytest.FixtureRequest, world: World, stages: dict[tuple[str, ...], dict[str, Write]]) -> Stage:
    """A write on a stage that it shares with the other writes of its API, and not with other tests."""

    async def write(transport: Transport, api: str, method: str) -> Write:
        place = request.function.__name__, transport.name, api
        if place not in stages:
            stages[place] = await writes(world, transport, api)
        return stages[place][method]

    return write


@each_write
async def test_the_same_key_does_a_write_once(transport: Transport, stage: Stage, api: str, method: str) -> None:
    write = await stage(transport, api, method)
    untouched = write.state()
    for invalid in ("", "x" * 256):
        (await write.send(invalid)).failed("validation_error", paths=["idempotency-key"])
    assert write.state() == untouched

    # An operator's keys are one set for all tests.
    key = str(uuid4())
    first = await write.send(key)
    first.succeeded(write.status)
    assert "idempotent-replayed" not in first.headers
    if write.meanwhile is not None:
        await write.meanwhile()
    after = write.state()

    again = await write.send(key)
    assert again.succeeded(write.status) == first.body
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers.get("etag") == first.headers.get("etag")
    (await write.send(key, other=True)).failed(
        "idempotency_mismatch", "Idempotency key reused with a different payload"
    )
    assert write.state() == after

    without = await write.send()
    if write.unkeyed in ("", "same"):
        without.succeeded(write.status)
    else:
        without.failed(write.unkeyed)
    assert (write.state() == after) == bool(write.unkeyed)


@each_write
async def test_two_requests_at_once_under_a_key_do_a_write_once(
    transport: Transport, stage: Stage, api: str, method: str
) -> None:
    write = await stage(transport, api, method)
    key = str(uuid4())
    one, other = await asyncio.gather(write.send(key), write.send(key))
    assert one.succeeded(write.status) == other.succeeded(write.status)
    assert sorted("idempotent-replayed" in reply.headers for reply in (one, other)) == [False, True]


async def test_every_write_has_a_case(rpc: Grpc, world: World) -> None:
    cases = {(api, name) for api in ("handoff", "helpdesk", "itsm", "admin") for name in await writes(world, rpc, api)}
    assert cases == served_writes()


async def test_all_expired_keys_are_forgotten_in_one_turn_however_many_there_are(apart_url: str) -> None:
    row = "INSERT INTO admin_keys SELECT 'nobody', n::text, '', '{{}}', now() {} FROM generate_series(1, {}) AS n"
    count = "SELECT count(*) FROM admin_keys"
    database = Database(Settings(database_url=apart_url, pool_size=1), METADATA)
    await database.open()
    async with await psycopg.AsyncConnection.connect(apart_url, autocommit=True) as connection:
        await connection.execute(row.format("- interval '1 second'", 20_001))
        await connection.execute("INSERT INTO admin_keys VALUES ('nobody', 'new', '', '{}')")
        await KEYS.purge(database.without_lock_timeout())
        assert await (await connection.execute(count)).fetchone() == (1,)
    await database.close()
