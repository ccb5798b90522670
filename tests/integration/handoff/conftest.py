"""What the tests of watches share."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import structlog
from support.handoff import Transport
from support.handoff_watch import service_in_process, transports_of
from support.system import Issuer


@pytest.fixture
async def frequent_heartbeats(
    directory: Path, database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sequence[Transport]]:
    """The transports of a service in this process that sends a heartbeat twice a second."""
    monkeypatch.setattr("service.watch._HEARTBEAT_SECONDS", 0.5)
    # An earlier test may have left the logger a file that is closed by now.
    structlog.reset_defaults()
    monkeypatch.setattr("service.transport.interceptor._log", structlog.get_logger())
    async with (
        service_in_process(directory, database_url, issuer) as (target, _),
        transports_of(target, directory) as transports,
    ):
        yield transports
