"""The two doors of the handoff API: one line per operation in each."""

from tickets.handoff.v1 import rest_pb2_grpc, service_pb2, service_pb2_grpc

from service import rest, rpc
from service.database import Database
from service.handoff import operations


class TicketService(service_pb2_grpc.TicketServiceServicer):
    """The typed door."""

    def __init__(self, database: Database) -> None:
        self.database = database

    ListTickets = rpc.unary(operations.list_tickets, service_pb2.ListTicketsRequest, service_pb2.ListTicketsResponse)
    CreateTicket = rpc.unary(
        operations.create_ticket, service_pb2.CreateTicketRequest, service_pb2.CreateTicketResponse
    )


class TicketRest(rest_pb2_grpc.TicketRestServicer):
    """The documented REST face."""

    def __init__(self, database: Database) -> None:
        self.database = database

    ListTickets = rest.complete_list(operations.list_tickets, "tickets")
    CreateTicket = rest.unary(operations.create_ticket, status=201)
