"""The standard health service, which serves while the database answers and its schema fits; and reflection."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

_LOOK_SECONDS = 1.0
# The name of the process itself, for supervisors that would restart it: it does not depend on the database.
LIVE = "live"


class _Servicer(health.aio.HealthServicer):  # type: ignore[misc]  # its package has no types
    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """The status of a name; the process itself serves for as long as it answers, also while it drains."""
        if request.service == LIVE:
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        return await super().Check(request, context)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - gRPC's name
        """Reject it: anybody may call it, and one watcher that does not read would block every change of the status.

        Callers then assume SERVING, as gRPC's health checking protocol says.
        """
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Health is not watched here: call Check")


class Health:
    """The status of each service of the process, and of all of them under the empty name."""

    def __init__(self, is_ready: Callable[[], Awaitable[bool]], services: Sequence[str]) -> None:
        self.servicer = _Servicer()
        self._is_ready = is_ready
        self._names = ("", *services)
        self._serving: bool | None = None

    async def look(self) -> None:
        """Ask whether calls can be served, and set the statuses when that has changed."""
        serving = await self._is_ready()
        if serving != self._serving:
            status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
            for name in self._names:
                await self.servicer.set(name, status)
            self._serving = serving

    async def follow(self) -> None:
        """Look again and again, as long as the process serves."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.look()

    async def drain(self) -> None:
        """Report NOT_SERVING from now on, whatever the database does; the process is still live."""
        await self.servicer.enter_graceful_shutdown()


def register_health(
    server: Any, is_ready: Callable[[], Awaitable[bool]], services: Sequence[str], *, with_reflection: bool
) -> Health:
    """Register the health of these services at a server, and their reflection if that is wanted."""
    served = Health(is_ready, services)
    health_pb2_grpc.add_HealthServicer_to_server(served.servicer, server)
    if with_reflection:
        reflects = reflection.aio.ReflectionServicer([*services, reflection.SERVICE_NAME])
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflects, server)
    return served
