"""Stops a server so that each call ends with its answer or with `unavailable`."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import grpc

from service.transport.admission import AdmissionControl
from service.watch import EventFeed

# Long enough for calls that were sent to arrive, and for callers to learn that the server stops.
_QUIET_SECONDS = 0.1
# For the answers to calls that are cancelled at the end, and for callers to stop sending before it.
_FAILURE_SECONDS = 1.0


async def stop_server(
    server: grpc.aio.Server, admission: AdmissionControl, feeds: Iterable[EventFeed], seconds: float
) -> None:
    """Stop a server: calls in flight have `seconds` to finish, and what is left then fails as `unavailable`.

    gRPC itself answers CANCELLED, which no client retries, to calls that arrive after the server has stopped and before
    their caller knows, and to those in flight at the end of the grace period. So answers are held back while the server
    stops (a caller that waits sends no more calls), and calls are cancelled here, a little earlier.
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
