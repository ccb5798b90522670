"""How long calls wait before this process takes them up.

gRPC keeps calls that were not taken up yet to itself, in order, and tells nobody how many there are. So the process
calls itself now and then, through the same queue, and looks how long that takes.
"""

import asyncio
import os
import random
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_PROBE_SECONDS = 0.02
# From the first on some calls are refused, from the second on all.
_PATIENCE_SECONDS = (0.08, 0.11)
# A refusal costs half as much as an answer: callers who come back at once must not turn all the work into refusals.
_REFUSALS_PER_SECOND = 400
_REQUEST = health_pb2.HealthCheckRequest()


class Pressure:
    """The wait, as of the last probe."""

    def __init__(self) -> None:
        # Of this process alone, where other addresses may be shared.
        self.address = f"unix-abstract:tickets-{os.getpid()}-{id(self)}"
        self._last_wait = 0.0
        self._next_refusal = 0.0

    def is_too_high(self) -> bool:
        """Whether to refuse a call: the longer the wait, the more often, so that neither all leave nor all stay."""
        some, every = _PATIENCE_SECONDS
        if self._last_wait < some or self._last_wait < random.uniform(some, every):  # noqa: S311 - guards nothing
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
                since = loop.time()
                probe = asyncio.ensure_future(check(_REQUEST))
                while not (await asyncio.wait([probe], timeout=_PROBE_SECONDS))[0]:
                    self._last_wait = max(self._last_wait, loop.time() - since)
                self._last_wait = 0.0 if probe.exception() else loop.time() - since
                await asyncio.sleep(_PROBE_SECONDS)
