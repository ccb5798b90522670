"""How long calls wait before this process takes them up.

gRPC keeps calls that were not taken up yet to itself, in order, and tells nobody how many there are. So the process
calls itself now and then, through the same queue, and looks how long that takes.
"""

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.settings import Settings

_LOOK_SECONDS = 0.02
# Between probes while nobody waits.
_CALM_SECONDS = 0.1
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
        self._probes = deque((_Probe(0.0, 0.0) for _ in range(_PROBES)), _PROBES)
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
        loop = asyncio.get_running_loop()
        probes, out = self._probes, set[asyncio.Task[None]]()
        async with grpc.aio.insecure_channel(self.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while True:
                now = loop.time()
                # A queue that stands is in each of them; a hiccup of the machine is not.
                self._wait = min(probe.wait(now) for probe in probes)
                is_calm = probes[-1].ended is not None and now - probes[-1].began < _CALM_SECONDS
                if probes[0].ended is not None and not is_calm:
                    probes.append(_Probe(now))
                    task = asyncio.create_task(probes[-1].run(check))
                    out.add(task)
                    task.add_done_callback(out.discard)
                await asyncio.sleep(_LOOK_SECONDS)


@dataclass(slots=True)
class _Probe:
    """One call of the process to itself; by the loop's clock. One that is still out has waited since it began."""

    began: float
    ended: float | None = None

    def wait(self, now: float) -> float:
        return (now if self.ended is None else self.ended) - self.began

    async def run(self, check: Callable[[health_pb2.HealthCheckRequest], Awaitable[Any]]) -> None:
        with suppress(grpc.aio.AioRpcError):
            await check(_REQUEST)
        self.ended = asyncio.get_running_loop().time()
