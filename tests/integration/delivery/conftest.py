"""What the tests of deliveries share."""

from collections.abc import AsyncIterator

import pytest
from support.provider_lab import Process, single_process
from support.system import World


@pytest.fixture
async def process(apart: World) -> AsyncIterator[Process]:
    async with single_process(apart) as process:
        yield process
