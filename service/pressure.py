"""How long calls wait before this process takes them up.

gRPC keeps calls that were not taken up yet to itself, in order, and tells nobody how many there are. So the process
calls itself now and then, through the same queue, and looks how long that takes.
"""

import asyncio
import os
import random
import time
from collections import deque
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.settings import Settings

# Between probes: while nobody waits, and once somebody does.
_CALM_SECONDS = 0.2
_PRESSED_SECONDS = 0.02
_PROBES = 3
# From the setting on some calls are refused, from so many times it on all.
_ALL_REFUSED = 1.4
# A refusal costs half as much as an answer: callers who come back at once must not turn all the work into refusals.
_REFUSALS_PER_SECOND = 400
_REQUEST = health_pb2.HealthCheckRequest()


class Pressure:
    """The wait, as the last probes found it."""

    def __init__(self, settings: Settings) -> None:
        self._patience = settings.patience_seconds
        # Of this process alone, where other addresses may be shared.
        self.address = f"unix-abstract:tickets-{os.getpid()}-{id(self)}"
        # A queue that stands is in each of them; a hiccup of the machine is not.
        self._waits = deque((0.0,) * _PROBES, _PROBES)
        self._next_refusal = 0.0

    def is_too_high(self) -> bool:
        """Whether to refuse a call: the longer the wait, the more often, so that neither all leave nor all stay."""
        wait, patience = min(self._waits), self._patience
        if wait < patience or wait < patience * random.uniform(1, _ALL_REFUSED):  # noqa: S311 - guards nothing
            return False
        now = time.monotonic()
        if now < self._next_refusal:
            return False
        self._next_refusal = now + 1 / _REFUSALS_PER_SECOND
        return True

    async def watch(self) -> None:
        """Probe as long as the process serves."""
        loop = asyncio.get_running_loop()
        async with grpc.aio.insecure_channel(self.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while True:
                began = loop.time()
                with suppress(grpc.aio.AioRpcError):
                    await check(_REQUEST)
                wait = loop.time() - began
                self._waits.append(wait)
                await asyncio.sleep(_CALM_SECONDS if wait < self._patience else _PRESSED_SECONDS)
