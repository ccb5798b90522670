"""The composition root: settings → database → dialects → a listening server, drained on SIGTERM."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module
from typing import NamedTuple

import grpc
import structlog
from grpc_health.v1 import health_pb2

from service import backlog
from service.background import Background, cancel, keep
from service.directory import METADATA
from service.event_lag import EventLag
from service.operation import Dependencies
from service.retention import keys, purge
from service.schema import Schema
from service.settings import Settings
from service.storage.opening import open_database
from service.transport.admission import AdmissionControl
from service.transport.dialect import Dialect, Started
from service.transport.draining import stop_server
from service.transport.health import Health, register_health
from service.transport.interceptor import CallInterceptor, call_interceptor
from service.transport.listening import listen
from service.transport.metrics import Metrics
from service.transport.queue_probe import QueueProbe
from service.transport.tuning import freeze_gc, keep_memory_private, server_options, use_batch_scheduler
from service.vault import Vault
from service.vault_check import log_other_keys
from service.watch import EventFeed

# Each dialect is a folder; this is where it is named.
DIALECTS: Sequence[Dialect] = [
    import_module(f"service.{name}.servicers").DIALECT for name in ("handoff", "helpdesk", "itsm", "admin")
]
# Every service that is served, for reflection and for the test of the policy table.
DESCRIPTORS = (
    *(service.descriptor for dialect in DIALECTS for service in dialect.services),
    health_pb2.DESCRIPTOR.services_by_name["Health"],
)

_log = structlog.get_logger()


class Running(NamedTuple):
    """A server that listens, its health, its calls, and the feeds of the dialects whose tickets can be watched."""

    server: grpc.aio.Server
    health: Health
    admission: AdmissionControl
    feeds: Sequence[EventFeed]


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then calls in flight finish while new ones go elsewhere."""
    keep_memory_private()
    use_batch_scheduler()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        running = await start(settings, stack)
        freeze_gc()
        _log.info("serving", addresses=settings.grpc_listen)
        await stop.wait()
        _log.info("draining")
        await running.health.drain()
        # A proxy asks for health once a second; a call that reached a stopped server could not be repeated safely.
        await asyncio.sleep(settings.drain_notice_seconds)
        await stop_server(running.server, running.admission, running.feeds, settings.drain_seconds)
    _log.info("stopped")


async def start(settings: Settings, stack: AsyncExitStack) -> Running:
    """Start a server and its background work; the stack closes what it opens."""
    database = open_database(settings, METADATA, stack)
    await database.open()
    stack.push_async_callback(database.close)
    background, probe = Background(database), QueueProbe(settings)
    admission, event_lag = AdmissionControl(settings.max_concurrent_calls, probe), EventLag(database)
    schema = Schema(database, admission.set_serving)
    metrics = Metrics(admission, background, event_lag, database)
    if settings.metrics_listen:
        stack.callback(metrics.listen(settings.metrics_listen))
    failures = {service.descriptor.full_name: service.failures for dialect in DIALECTS for service in dialect.services}
    interceptor = call_interceptor(settings, database, admission, metrics, failures, stack)
    server = grpc.aio.server(options=server_options(settings))
    server.add_generic_rpc_handlers((interceptor,))
    shared = Dependencies(settings=settings, database=database, vault=Vault(settings))
    dialects = _start_dialects(shared, interceptor, stack)
    names = [descriptor.full_name for descriptor in DESCRIPTORS]
    health = register_health(interceptor, schema.is_ready, names, with_reflection=settings.reflection)
    listen(server, settings, probe.address)
    await health.look()
    feeds = metrics.feeds = [dialect.feed for dialect in dialects if dialect.feed is not None]
    for feed in feeds:
        feed.attach(event_lag, interceptor.suspensions)
    await server.start()
    of_dialects = [work for dialect in dialects for work in dialect.periodic]
    periodic = [keys.PERIODIC, backlog.PERIODIC, *purge.periodic(settings), *interceptor.periodic, *of_dialects]
    schema.works += [partial(log_other_keys, database, shared.vault), partial(keep, event_lag.follow)]
    schema.works += [
        *(partial(keep, feed.poll) for feed in feeds),
        *(partial(background.repeat, it) for it in periodic),
    ]
    for work in (admission.cancel_overdue, probe.watch, health.follow, schema.work_while_it_fits):
        stack.push_async_callback(cancel, asyncio.create_task(keep(work)))
    return Running(server, health, admission, feeds)


def _start_dialects(shared: Dependencies, interceptor: CallInterceptor, stack: AsyncExitStack) -> Sequence[Started]:
    """Start every dialect, and register its services."""
    started = []
    for dialect in DIALECTS:
        started.append(dialect.start(shared, stack))
        for service in dialect.services:
            service.register(service.servicer(started[-1].dependencies), interceptor)
    return started
