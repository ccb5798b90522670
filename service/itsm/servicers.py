"""The two transports of the ITSM API: one line per operation in each."""

from tickets.itsm.v1 import rest_pb2_grpc, service_pb2, service_pb2_grpc

from service.itsm import operations, webhooks
from service.itsm.delivery.queue import Deliveries
from service.outbound import Outbound
from service.storage.database import Database
from service.transport import rest, rpc
from service.vault import Vault
from service.watch import News


class _Door:
    """What both transports run their use cases with."""

    def __init__(
        self, database: Database, deliveries: Deliveries, news: News, vault: Vault, outbound: Outbound
    ) -> None:
        self.database = database
        self.deliveries = deliveries
        self.news = news
        self.vault = vault
        self.outbound = outbound


class TicketService(_Door, service_pb2_grpc.TicketServiceServicer):
    """The typed transport."""

    CreateTicket = rpc.unary(
        operations.create_ticket, service_pb2.CreateTicketRequest, service_pb2.CreateTicketResponse, wrap="ticket"
    )
    GetTicket = rpc.unary(
        operations.get_ticket, service_pb2.GetTicketRequest, service_pb2.GetTicketResponse, wrap="ticket"
    )
    ListTickets = rpc.unary(operations.list_tickets, service_pb2.ListTicketsRequest, service_pb2.ListTicketsResponse)
    UpdateTicket = rpc.unary(
        operations.update_ticket, service_pb2.UpdateTicketRequest, service_pb2.UpdateTicketResponse, wrap="ticket"
    )
    ListTicketEvents = rpc.unary(
        operations.list_ticket_events, service_pb2.ListTicketEventsRequest, service_pb2.ListTicketEventsResponse
    )
    WatchTickets = rpc.watch(
        operations.watch_tickets, service_pb2.WatchTicketsRequest, service_pb2.WatchTicketsResponse
    )
    CreateWebhook = rpc.unary(
        webhooks.create_webhook, service_pb2.CreateWebhookRequest, service_pb2.CreateWebhookResponse, wrap="webhook"
    )
    ListWebhooks = rpc.unary(webhooks.list_webhooks, service_pb2.ListWebhooksRequest, service_pb2.ListWebhooksResponse)
    UpdateWebhook = rpc.unary(
        webhooks.update_webhook, service_pb2.UpdateWebhookRequest, service_pb2.UpdateWebhookResponse, wrap="webhook"
    )
    DeleteWebhook = rpc.unary(
        webhooks.delete_webhook, service_pb2.DeleteWebhookRequest, service_pb2.DeleteWebhookResponse
    )
    RotateWebhookSecret = rpc.unary(
        webhooks.rotate_secret,
        service_pb2.RotateWebhookSecretRequest,
        service_pb2.RotateWebhookSecretResponse,
        wrap="webhook",
    )
    ListWebhookDeliveries = rpc.unary(
        webhooks.list_deliveries, service_pb2.ListWebhookDeliveriesRequest, service_pb2.ListWebhookDeliveriesResponse
    )
    ReplayWebhookDelivery = rpc.unary(
        webhooks.replay_delivery,
        service_pb2.ReplayWebhookDeliveryRequest,
        service_pb2.ReplayWebhookDeliveryResponse,
        wrap="delivery",
    )


class TicketRest(_Door, rest_pb2_grpc.TicketRestServicer):
    """The documented REST face."""

    CreateTicket = rest.unary(operations.create_ticket, status=201)
    GetTicket = rest.unary(operations.get_ticket)
    ListTickets = rest.unary(operations.list_tickets, members_of="metadata")
    UpdateTicket = rest.unary(operations.update_ticket)
    ListTicketEvents = rest.unary(operations.list_ticket_events)
    WatchTickets = rest.watch(operations.watch_tickets, failure=rest.detail_body)
    CreateWebhook = rest.unary(webhooks.create_webhook, status=201)
    ListWebhooks = rest.unary(webhooks.list_webhooks)
    UpdateWebhook = rest.unary(webhooks.update_webhook)
    DeleteWebhook = rest.unary(webhooks.delete_webhook, status=204)
    RotateWebhookSecret = rest.unary(webhooks.rotate_secret)
    ListWebhookDeliveries = rest.unary(webhooks.list_deliveries)
    ReplayWebhookDelivery = rest.unary(webhooks.replay_delivery, status=202)
