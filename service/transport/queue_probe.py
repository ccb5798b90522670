"""How long calls wait before this process takes them up.

gRPC keeps calls that were not taken up yet to itself, in order, and tells nobody how many there are. So the process
calls itself now and then, through the same queue: who is taken up together with such a probe has waited as long as it.
"""

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.settings import Settings

# Between probes while calls wait, and while nobody does.
_BUSY_SECONDS = 0.02
_CALM_SECONDS = 0.1
# As many of the last probes must have waited.
_PROBES = 3
_MOST_OUT = 50
# From the setting on some calls are refused, from so many times it on all.
_ALL_REFUSED = 1.4
# A refusal costs half as much as an answer: callers who come back at once must not turn all the work into refusals.
_REFUSALS_PER_SECOND = 800
_REQUEST = health_pb2.HealthCheckRequest()

_Check = Callable[[health_pb2.HealthCheckRequest], Awaitable[Any]]


class QueueProbe:
    """The wait, as the last probes that came back found it.

    Those still out say nothing yet: the youngest has hardly waited, however long the queue.
    """

    def __init__(self, settings: Settings) -> None:
        self._patience = settings.max_queue_seconds
        # Of this process alone, where other addresses may be shared.
        self.address = f"unix-abstract:tickets-{os.getpid()}-{id(self)}"
        self._waits = deque([0.0] * _PROBES, _PROBES)
        self._wait = 0.0
        self._next_refusal = 0.0

    def is_too_high(self) -> bool:
        """Whether to refuse a call: the longer the wait, the more often, so that neither all leave nor all stay."""
        wait, patience = self._wait, self._patience
        if wait < patience or wait < patience * random.uniform(1, _ALL_REFUSED):  # noqa: S311 - guards nothing
            return False
        now = time.monotonic()
        if now < self._next_refusal:
            return False
        self._next_refusal = now + 1 / _REFUSALS_PER_SECOND
        return True

    async def watch(self) -> None:
        """Probe as long as the process serves."""
        out = set[asyncio.Task[None]]()
        async with grpc.aio.insecure_channel(self.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while True:
                if len(out) < _MOST_OUT:
                    probe = asyncio.create_task(self._probe(check))
                    out.add(probe)
                    probe.add_done_callback(out.discard)
                await asyncio.sleep(_BUSY_SECONDS)
                if not out and self._waits[-1] < _BUSY_SECONDS:
                    await asyncio.sleep(_CALM_SECONDS - _BUSY_SECONDS)

    async def _probe(self, check: _Check) -> None:
        began = time.monotonic()
        with suppress(grpc.aio.AioRpcError):
            await check(_REQUEST)
        self._waits.append(time.monotonic() - began)
        # A queue that stands is in each of them; a hiccup of the machine is not.
        self._wait = min(self._waits)
