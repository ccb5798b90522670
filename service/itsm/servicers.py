"""The services of the ITSM API, typed and REST: one line per operation in each."""

from contextlib import AsyncExitStack

from tickets.itsm.rest.v1 import rest_pb2, rest_pb2_grpc
from tickets.itsm.v1 import ticket_service_pb2, ticket_service_pb2_grpc, webhook_service_pb2, webhook_service_pb2_grpc

from service.background import Periodic
from service.itsm import index_terms, operations, queries, tables, webhooks
from service.itsm.delivery.queue import Deliveries
from service.itsm.dependencies import ItsmDependencies
from service.operation import Dependencies
from service.outbound import Outbound
from service.reindex import Reindex
from service.transport import rest, rest_watch, rpc
from service.transport.dialect import Dialect, Service, Servicer, Started
from service.watch import EventFeed
from service.webhooks.fan_out import FanOut
from service.webhooks.sender import Sender


class TicketService(Servicer, ticket_service_pb2_grpc.TicketServiceServicer):
    """The typed service of tickets."""

    CreateTicket = rpc.unary(
        operations.create_ticket,
        ticket_service_pb2.CreateTicketRequest,
        ticket_service_pb2.CreateTicketResponse,
        wrap="ticket",
    )
    GetTicket = rpc.unary(
        operations.get_ticket, ticket_service_pb2.GetTicketRequest, ticket_service_pb2.GetTicketResponse, wrap="ticket"
    )
    ListTickets = rpc.unary(
        operations.list_tickets, ticket_service_pb2.ListTicketsRequest, ticket_service_pb2.ListTicketsResponse
    )
    UpdateTicket = rpc.unary(
        operations.update_ticket,
        ticket_service_pb2.UpdateTicketRequest,
        ticket_service_pb2.UpdateTicketResponse,
        wrap="ticket",
    )
    ListTicketEvents = rpc.unary(
        operations.list_ticket_events,
        ticket_service_pb2.ListTicketEventsRequest,
        ticket_service_pb2.ListTicketEventsResponse,
    )
    WatchTickets = rpc.watch(
        operations.watch_tickets, ticket_service_pb2.WatchTicketsRequest, ticket_service_pb2.WatchTicketsResponse
    )


class WebhookService(Servicer, webhook_service_pb2_grpc.WebhookServiceServicer):
    """The typed service of webhooks."""

    CreateWebhook = rpc.unary(
        webhooks.create_webhook,
        webhook_service_pb2.CreateWebhookRequest,
        webhook_service_pb2.CreateWebhookResponse,
        wrap="webhook",
    )
    ListWebhooks = rpc.unary(
        webhooks.list_webhooks, webhook_service_pb2.ListWebhooksRequest, webhook_service_pb2.ListWebhooksResponse
    )
    UpdateWebhook = rpc.unary(
        webhooks.update_webhook,
        webhook_service_pb2.UpdateWebhookRequest,
        webhook_service_pb2.UpdateWebhookResponse,
        wrap="webhook",
    )
    DeleteWebhook = rpc.unary(
        webhooks.delete_webhook, webhook_service_pb2.DeleteWebhookRequest, webhook_service_pb2.DeleteWebhookResponse
    )
    RotateWebhookSecret = rpc.unary(
        webhooks.rotate_secret,
        webhook_service_pb2.RotateWebhookSecretRequest,
        webhook_service_pb2.RotateWebhookSecretResponse,
        wrap="webhook",
    )
    ListWebhookDeliveries = rpc.unary(
        webhooks.list_deliveries,
        webhook_service_pb2.ListWebhookDeliveriesRequest,
        webhook_service_pb2.ListWebhookDeliveriesResponse,
    )
    ReplayWebhookDelivery = rpc.unary(
        webhooks.replay_delivery,
        webhook_service_pb2.ReplayWebhookDeliveryRequest,
        webhook_service_pb2.ReplayWebhookDeliveryResponse,
        wrap="delivery",
    )


class TicketRest(Servicer, rest_pb2_grpc.TicketRestServicer):
    """The documented REST face."""

    CreateTicket = rest.unary(operations.create_ticket, status=201)
    GetTicket = rest.unary(operations.get_ticket)
    ListTickets = rest.unary(operations.list_tickets, members_of="metadata")
    UpdateTicket = rest.unary(operations.update_ticket)
    ListTicketEvents = rest.unary(operations.list_ticket_events)
    WatchTickets = rest_watch.watch(operations.watch_tickets, failure=rest.detail_body)
    CreateWebhook = rest.unary(webhooks.create_webhook, status=201)
    ListWebhooks = rest.unary(webhooks.list_webhooks)
    UpdateWebhook = rest.unary(webhooks.update_webhook)
    DeleteWebhook = rest.unary(webhooks.delete_webhook, status=204)
    RotateWebhookSecret = rest.unary(webhooks.rotate_secret)
    ListWebhookDeliveries = rest.unary(webhooks.list_deliveries)
    ReplayWebhookDelivery = rest.unary(webhooks.replay_delivery, status=202)


def _start(shared: Dependencies, stack: AsyncExitStack) -> Started:
    settings, database, vault = shared.settings, shared.database, shared.vault
    feed = EventFeed(database, tables.events, settings.max_watches)
    deliveries = Deliveries(settings, database, vault)
    stack.push_async_callback(deliveries.close)
    outbound = Outbound(settings)
    stack.push_async_callback(outbound.close)
    dependencies = ItsmDependencies(
        settings=settings, database=database, vault=vault, feed=feed, deliveries=deliveries, outbound=outbound
    )
    periodic = [
        Periodic("itsm_totals", 0.5, operations.merge_totals),
        Periodic("itsm_days", 10.0, operations.recount_days),
        Periodic("itsm_reindex", 1.0, Reindex(tables.tickets, queries.TEXTS, index_terms.search_terms).work),
        Periodic("itsm_deliveries", 1.0, deliveries.work),
        Periodic("itsm_delivery_order", 30.0, deliveries.postpone),
        Periodic("itsm_webhook_fan_out", 0.5, FanOut(webhooks.SOURCE).queue_messages),
        Periodic("itsm_webhook_messages", 0.5, Sender(webhooks.SOURCE, settings, vault, outbound).send_due),
    ]
    return Started(dependencies, feed, periodic)


DIALECT = Dialect(
    services=(
        Service(
            ticket_service_pb2.DESCRIPTOR.services_by_name["TicketService"],
            TicketService,
            ticket_service_pb2_grpc.add_TicketServiceServicer_to_server,
            rpc.Failures(),
        ),
        Service(
            webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"],
            WebhookService,
            webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server,
            rpc.Failures(),
        ),
        Service(
            rest_pb2.DESCRIPTOR.services_by_name["TicketRest"],
            TicketRest,
            rest_pb2_grpc.add_TicketRestServicer_to_server,
            rest.Failures(rest.detail_body, lambda reason: reason.itsm_http, rest.API_KEY),
        ),
    ),
    start=_start,
)
