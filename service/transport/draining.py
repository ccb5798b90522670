"""How a server stops, so that each call ends with its answer or with `unavailable`."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import grpc

from service.transport.admission import AdmissionControl
from service.watch import EventFeed

# Within which calls on their way have arrived, and callers have heard of the end.
_QUIET_SECONDS = 0.1
# For the answers to calls that are cut off, and for callers to fall silent before the end.
_FAILURE_SECONDS = 1.0


async def stop_server(
    server: grpc.aio.Server, admission: AdmissionControl, feeds: Iterable[EventFeed], seconds: float
) -> None:
    """Stop a server: calls in flight may finish for so many seconds, and what is left then fails as `unavailable`.

    gRPC itself answers CANCELLED, which no client retries: to a call that arrives between its end and the moment when
    the caller hears of it, and to those in flight at the end of the grace. So callers get no answers meanwhile, after
    which they would call again, and the calls are cancelled here, a little earlier.
    """
    with admission.holding():
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAILURE_SECONDS):
                await admission.wait_until_quiet(_QUIET_SECONDS)
        stopping = asyncio.ensure_future(server.stop(seconds + _FAILURE_SECONDS))
        await asyncio.sleep(_QUIET_SECONDS)
    for feed in feeds:
        feed.close()
    done, _ = await asyncio.wait([stopping], timeout=seconds)
    if not done:
        admission.cancel_all()
    await stopping
