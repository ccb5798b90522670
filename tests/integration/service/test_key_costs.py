"""An idempotency key costs a write one statement at most, and a lock; a write without a key costs it nothing."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from support.system import AUDIENCE, ENCRYPTION_KEY, ISSUER, Issuer, World
from support.transports import Grpc
from support.writes import Write, served_writes, writes

from service.local.processes import free_port
from service.operation import CALL
from service.server import start
from service.settings import Settings
from service.storage.statement import Statement

# Of a statement about a key; API keys are none.
KEY = re.compile(rb"\b(itsm|helpdesk|helpdesk_sla|handoff|admin)_keys\b|advisory")
# Of a statement that only locks.
LOCK = re.compile(rb"SELECT \w+\.id\s.*FOR UPDATE", re.DOTALL)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The statements that calls of a service in this process send; not those of its background work."""
    statements, send = list[bytes](), Statement.send

    def record(self: Statement, *arguments: Any) -> None:
        if CALL.get(None) is not None:
            statements.append(self.sql)
        send(self, *arguments)

    monkeypatch.setattr(Statement, "send", record)
    return statements


@pytest.fixture
async def in_process(tmp_path: Path, database_url: str, issuer: Issuer) -> AsyncIterator[Grpc]:
    target = f"127.0.0.1:{free_port()}"
    settings = Settings(
        database_url=database_url,
        grpc_listen=target,
        jwks=str(issuer.jwks),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        max_queue_seconds=10,
        encryption_keys=ENCRYPTION_KEY,
        allow_private_targets=True,
        rate_limit_file=str(tmp_path / "rate-limits"),
        log_level="error",
    )
    async with AsyncExitStack() as stack:
        running = await start(settings, stack)
        async with grpc.aio.insecure_channel(target) as channel:
            yield Grpc(channel)
        await running.server.stop(5)


async def test_a_key_costs_a_statement_at_most_and_a_lock(in_process: Grpc, world: World, sent: list[bytes]) -> None:
    async def statements(write: Write, key: str | None) -> list[bytes]:
        sent.clear()
        (await write.send(key)).succeeded(write.status)
        return sent.copy()

    costs = dict[str, tuple[int, int]]()
    for api in sorted({api for api, _ in served_writes()}):
        plain, keyed = [await writes(world, in_process, api) for _ in range(2)]
        for method, write in plain.items():
            without, under = await statements(write, None), await statements(keyed[method], str(uuid4()))
            # A change of one ticket without a key locks nothing beforehand (row_version.py).
            under = [sql for sql in under if not LOCK.fullmatch(sql)]
            assert [sql for sql in without if KEY.search(sql)] == []
            costs[f"{api}.{method}"] = len(without), len(under)
    assert {name: cost for name, cost in costs.items() if cost[1] > cost[0] + 1} == {}
