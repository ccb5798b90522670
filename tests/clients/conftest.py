"""One `tickets up` for the clients of all languages."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support import up

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[up.Up]:
    """A `tickets up` with demo data."""
    running = up.start(tmp_path_factory.mktemp("clients") / "data")
    yield running
    running.stop()


@pytest.fixture
def environment(running: up.Up) -> Mapping[str, str]:
    """What a program is told: see README.md."""
    return {
        **os.environ,
        "TICKETS_CREDENTIALS": str(running.data_dir / "credentials.json"),
        "TICKETS_SCENARIO": str(HERE / "scenario.json"),
    }
