"""How long calls queue before this process starts them.

gRPC queues calls that were not started yet, in order, and does not say how many there are. So the process calls itself
now and then, through the same queue: a call that starts together with such a probe has waited as long as the probe.
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

# Between probes while calls queue, and while none do.
_BUSY_SECONDS = 0.05
_IDLE_SECONDS = 0.1
# How many of the last probes must all have waited.
_PROBES = 3
_MAX_IN_FLIGHT = 50
# A probe that takes longer has waited for that long.
_PROBE_SECONDS = 10.0
# From the setting on some calls are rejected; from this many times it on, all are.
_REJECT_ALL = 1.4
# A rejection costs half as much as an answer: callers who retry at once must not turn all work into rejections.
_REJECTIONS_PER_SECOND = 800
_REQUEST = health_pb2.HealthCheckRequest()

_Check = Callable[..., Awaitable[Any]]


class QueueProbe:
    """The time in the queue, as the last probes that returned measured it.

    Those still in flight say nothing yet: the youngest has hardly waited, however long the queue.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_queue_seconds = settings.max_queue_seconds
        # This process alone listens here; other addresses may be shared.
        self.address = f"unix-abstract:tickets-{os.getpid()}-{id(self)}"
        self._waits = deque([0.0] * _PROBES, _PROBES)
        self._wait = 0.0
        self._next_rejection = 0.0

    @property
    def seconds(self) -> float:
        """How long calls queue, as far as is known."""
        return self._wait

    @property
    def is_long(self) -> bool:
        """Whether calls queue for longer than they should."""
        return self._wait >= self._max_queue_seconds

    def should_reject(self) -> bool:
        """Whether to reject a call: the longer the queue, the more often, so that neither all leave nor all stay."""
        wait, limit = self._wait, self._max_queue_seconds
        if wait < limit or wait < limit * random.uniform(1, _REJECT_ALL):  # noqa: S311 - guards nothing
            return False
        now = time.monotonic()
        if now < self._next_rejection:
            return False
        self._next_rejection = now + 1 / _REJECTIONS_PER_SECOND
        return True

    async def watch(self) -> None:
        """Probe as long as the process serves."""
        in_flight = set[asyncio.Task[None]]()
        async with grpc.aio.insecure_channel(self.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while True:
                if len(in_flight) < _MAX_IN_FLIGHT:
                    probe = asyncio.create_task(self._probe(check))
                    in_flight.add(probe)
                    probe.add_done_callback(in_flight.discard)
                await asyncio.sleep(_BUSY_SECONDS)
                if not in_flight and self._waits[-1] < _BUSY_SECONDS:
                    await asyncio.sleep(_IDLE_SECONDS - _BUSY_SECONDS)

    async def _probe(self, check: _Check) -> None:
        began = time.monotonic()
        with suppress(grpc.aio.AioRpcError):
            await check(_REQUEST, timeout=_PROBE_SECONDS)
        self._waits.append(time.monotonic() - began)
        # A standing queue shows in each of them; a hiccup of the machine does not.
        self._wait = min(self._waits)
