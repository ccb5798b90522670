"""The composition root: settings → database → operations → transports → a listening server, drained on SIGTERM."""

import asyncio
import gc
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tickets.admin.v1 import service_pb2 as admin_pb2
from tickets.admin.v1 import service_pb2_grpc as admin_grpc
from tickets.handoff.v1 import rest_pb2 as handoff_rest_pb2
from tickets.handoff.v1 import rest_pb2_grpc as handoff_rest_grpc
from tickets.handoff.v1 import service_pb2 as handoff_pb2
from tickets.handoff.v1 import service_pb2_grpc as handoff_grpc
from tickets.helpdesk.v1 import rest_pb2 as helpdesk_rest_pb2
from tickets.helpdesk.v1 import rest_pb2_grpc as helpdesk_rest_grpc
from tickets.helpdesk.v1 import service_pb2 as helpdesk_pb2
from tickets.helpdesk.v1 import service_pb2_grpc as helpdesk_grpc
from tickets.itsm.v1 import rest_pb2 as itsm_rest_pb2
from tickets.itsm.v1 import rest_pb2_grpc as itsm_rest_grpc
from tickets.itsm.v1 import service_pb2 as itsm_pb2
from tickets.itsm.v1 import service_pb2_grpc as itsm_grpc

import service.admin.servicers
import service.handoff.servicers
import service.handoff.tables
import service.helpdesk.servicers
import service.helpdesk.sla.notifier
import service.helpdesk.tables
import service.itsm.operations
import service.itsm.servicers
import service.itsm.tables
import service.webhooks.fan_out
from service import idempotency
from service.access.authenticator import Authenticator
from service.background import repeat
from service.directory import METADATA
from service.itsm.delivery.queue import Deliveries
from service.local.processes import run_to_completion
from service.outbound import Outbound
from service.settings import Settings
from service.storage.database import Database
from service.transport import rest, rpc
from service.transport.admission import CallsInHand
from service.transport.interceptor import CallInterceptor
from service.transport.metrics import Metrics
from service.transport.queue_probe import Pressure
from service.transport.rate_limits import Limits
from service.vault import Vault
from service.watch import News
from service.webhooks.sender import Sending

# Every service that is served, for reflection and for the test of the policy table.
SERVICES = (
    handoff_pb2.DESCRIPTOR.services_by_name["TicketService"],
    handoff_rest_pb2.DESCRIPTOR.services_by_name["TicketRest"],
    helpdesk_pb2.DESCRIPTOR.services_by_name["TicketService"],
    helpdesk_rest_pb2.DESCRIPTOR.services_by_name["TicketRest"],
    itsm_pb2.DESCRIPTOR.services_by_name["TicketService"],
    itsm_rest_pb2.DESCRIPTOR.services_by_name["TicketRest"],
    admin_pb2.DESCRIPTOR.services_by_name["AdminService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
)

# How the failures of each REST service leave; everything else is typed.
_REST_DOORS = {
    "tickets.handoff.v1.TicketRest": rest.Failures(rest.error_body, lambda reason: reason.handoff_http or reason.http),
    "tickets.helpdesk.v1.TicketRest": rest.Failures(rest.error_body, lambda reason: reason.http),
    "tickets.itsm.v1.TicketRest": rest.Failures(rest.detail_body, lambda reason: reason.itsm_http),
}

# Messages beyond our own limit are refused in our words; this one only bounds what is read to find that out.
_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_MAX_METADATA_BYTES = 64 * 1024
_HEALTH_SECONDS = 1.0
_COLLECT_AFTER = (20_000, 20, 50)
_MERGE_TOTALS_SECONDS = 0.5
_PURGE_KEYS_SECONDS = 60.0
_TELL_SLA_SECONDS = 5.0
_DELIVER_SECONDS = 1.0
_POSTPONE_SECONDS = 30.0
_FAN_OUT_SECONDS = 0.5
_SEND_SECONDS = 0.5

_log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then calls in flight finish while new ones go elsewhere."""
    run_to_completion()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        server, healthy, news = await start(settings, stack)
        _spare_the_collector()
        _log.info("serving", addresses=settings.grpc_listen)
        await stop.wait()
        _log.info("draining")
        await healthy.enter_graceful_shutdown()
        # A proxy asks for health once a second; a call that reached a stopped server could not be repeated safely.
        await asyncio.sleep(settings.drain_notice_seconds)
        for one in news:
            one.close()
        await server.stop(settings.drain_seconds)
    _log.info("stopped")


def _spare_the_collector() -> None:
    """What is there by now stays for good, and a call leaves few cycles: looking for them less often is enough."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def start(
    settings: Settings, stack: AsyncExitStack
) -> tuple[grpc.aio.Server, health.aio.HealthServicer, Sequence[News]]:
    """A listening server, its health and its watches; the stack gives back what they hold."""
    database = Database(settings, METADATA)
    await database.open()
    stack.push_async_callback(database.close)
    authenticator = Authenticator(settings, database)
    stack.push_async_callback(authenticator.close)
    limits = Limits(settings)
    stack.callback(limits.close)
    vault = Vault(settings)
    deliveries = Deliveries(settings, database, vault)
    stack.push_async_callback(deliveries.close)
    outbound = Outbound(settings)
    stack.push_async_callback(outbound.close)
    pressure = Pressure(settings)
    calls = CallsInHand(settings.max_calls, pressure)
    metrics = Metrics(calls)
    if settings.metrics_listen:
        stack.callback(metrics.listen(settings.metrics_listen))

    server = grpc.aio.server(
        interceptors=[CallInterceptor(settings, authenticator, limits, calls, metrics, _REST_DOORS, rpc.Failures())],
        options=[
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
            # Above what the gateway lets in (32 KiB), so that it is the one to refuse, in the API's own shape.
            ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA_BYTES),
            # A proxy keeps its connections; pings find the dead ones.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    handoff_news = News(database, service.handoff.tables.events, settings.max_watches)
    helpdesk_news = News(database, service.helpdesk.tables.events, settings.max_watches)
    itsm_news = News(database, service.itsm.tables.events, settings.max_watches)
    handoff, helpdesk, itsm = service.handoff.servicers, service.helpdesk.servicers, service.itsm.servicers
    handoff_grpc.add_TicketServiceServicer_to_server(handoff.TicketService(database, handoff_news), server)
    handoff_rest_grpc.add_TicketRestServicer_to_server(handoff.TicketRest(database, handoff_news), server)
    helpdesk_grpc.add_TicketServiceServicer_to_server(helpdesk.TicketService(database, helpdesk_news), server)
    helpdesk_rest_grpc.add_TicketRestServicer_to_server(helpdesk.TicketRest(database, helpdesk_news), server)
    told = (database, deliveries, itsm_news, vault, outbound)
    itsm_grpc.add_TicketServiceServicer_to_server(itsm.TicketService(*told), server)
    itsm_rest_grpc.add_TicketRestServicer_to_server(itsm.TicketRest(*told), server)
    operators = service.admin.servicers.AdminService(database, vault, settings)
    admin_grpc.add_AdminServiceServicer_to_server(operators, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection(
        [*(descriptor.full_name for descriptor in SERVICES), reflection.SERVICE_NAME], server
    )
    for address in (*settings.grpc_listen.split(","), pressure.address):
        if server.add_insecure_port(address.strip()) == 0:
            raise OSError(f"cannot listen on {address}")
    await _tell_health(healthy, await database.answers())
    await server.start()
    for work in (
        calls.watch(),
        pressure.watch(),
        handoff_news.watch(),
        helpdesk_news.watch(),
        itsm_news.watch(),
        _watch_health(healthy, database),
        repeat(_MERGE_TOTALS_SECONDS, service.itsm.operations.merge_totals, database),
        repeat(_DELIVER_SECONDS, deliveries.work, database),
        repeat(_POSTPONE_SECONDS, deliveries.postpone, database),
        repeat(_FAN_OUT_SECONDS, service.webhooks.fan_out.fan_out, database),
        repeat(_SEND_SECONDS, Sending(settings, vault, outbound).work, database),
        repeat(_TELL_SLA_SECONDS, service.helpdesk.sla.notifier.emit_due_events, database),
        repeat(_PURGE_KEYS_SECONDS, idempotency.purge, database),
    ):
        stack.push_async_callback(_cancelled, asyncio.create_task(work))
    return server, healthy, (handoff_news, helpdesk_news, itsm_news)


async def _watch_health(healthy: health.aio.HealthServicer, database: Database) -> None:
    told = None
    while True:
        answers = await database.answers()
        if answers != told:
            await _tell_health(healthy, answers)
            told = answers
        await asyncio.sleep(_HEALTH_SECONDS)


async def _tell_health(healthy: health.aio.HealthServicer, serving: bool) -> None:
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", *(descriptor.full_name for descriptor in SERVICES)):
        await healthy.set(name, status)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
