"""The two doors of the helpdesk API: one line per operation in each."""

from tickets.helpdesk.v1 import rest_pb2_grpc, service_pb2, service_pb2_grpc

from service import rest, rpc
from service.database import Database
from service.helpdesk import operations


class TicketService(service_pb2_grpc.TicketServiceServicer):
    """The typed door."""

    def __init__(self, database: Database) -> None:
        self.database = database

    ListTickets = rpc.unary(operations.list_tickets, service_pb2.ListTicketsRequest, service_pb2.ListTicketsResponse)
    GetTicket = rpc.unary(
        operations.get_ticket, service_pb2.GetTicketRequest, service_pb2.GetTicketResponse, wrap="ticket"
    )
    CreateTicket = rpc.unary(
        operations.create_ticket, service_pb2.CreateTicketRequest, service_pb2.CreateTicketResponse, wrap="ticket"
    )
    UpdateTicket = rpc.unary(
        operations.update_ticket, service_pb2.UpdateTicketRequest, service_pb2.UpdateTicketResponse, wrap="ticket"
    )
    CloseTicket = rpc.unary(
        operations.close_ticket, service_pb2.CloseTicketRequest, service_pb2.CloseTicketResponse, wrap="ticket"
    )


class TicketRest(rest_pb2_grpc.TicketRestServicer):
    """The documented REST face."""

    def __init__(self, database: Database) -> None:
        self.database = database

    ListTickets = rest.unary(operations.list_tickets)
    GetTicket = rest.unary(operations.get_ticket)
    CreateTicket = rest.unary(operations.create_ticket, status=201)
    UpdateTicket = rest.unary(operations.update_ticket)
    CloseTicket = rest.unary(operations.close_ticket)
