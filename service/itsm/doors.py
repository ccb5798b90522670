"""The two doors of the ITSM API: one line per operation in each."""

from tickets.itsm.v1 import rest_pb2_grpc, service_pb2, service_pb2_grpc

from service import rest, rpc
from service.database import Database
from service.itsm import operations
from service.itsm.deliveries import Deliveries
from service.watch import News


class TicketService(service_pb2_grpc.TicketServiceServicer):
    """The typed door."""

    def __init__(self, database: Database, deliveries: Deliveries, news: News) -> None:
        self.database = database
        self.deliveries = deliveries
        self.news = news

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


class TicketRest(rest_pb2_grpc.TicketRestServicer):
    """The documented REST face."""

    def __init__(self, database: Database, deliveries: Deliveries, news: News) -> None:
        self.database = database
        self.deliveries = deliveries
        self.news = news

    CreateTicket = rest.unary(operations.create_ticket, status=201)
    GetTicket = rest.unary(operations.get_ticket)
    ListTickets = rest.unary(operations.list_tickets, members_of="metadata")
    UpdateTicket = rest.unary(operations.update_ticket)
    ListTicketEvents = rest.unary(operations.list_ticket_events)
    WatchTickets = rest.watch(operations.watch_tickets, failure=rest.detail_body)
