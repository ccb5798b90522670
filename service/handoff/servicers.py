"""The two transports of the handoff API: one line per operation in each."""

from tickets.handoff.v1 import rest_pb2_grpc, service_pb2, service_pb2_grpc

from service.handoff import changes, operations
from service.storage.database import Database
from service.transport import rest, rpc
from service.watch import News


class TicketService(service_pb2_grpc.TicketServiceServicer):
    """The typed transport."""

    def __init__(self, database: Database, news: News) -> None:
        self.database = database
        self.news = news

    ListTickets = rpc.unary(operations.list_tickets, service_pb2.ListTicketsRequest, service_pb2.ListTicketsResponse)
    CreateTicket = rpc.unary(
        operations.create_ticket, service_pb2.CreateTicketRequest, service_pb2.CreateTicketResponse
    )
    ListProjectTickets = rpc.unary(
        operations.list_project_tickets, service_pb2.ListProjectTicketsRequest, service_pb2.ListProjectTicketsResponse
    )
    GetTicket = rpc.unary(operations.get_ticket, service_pb2.GetTicketRequest, service_pb2.GetTicketResponse)
    UpdateTicket = rpc.unary(changes.update_ticket, service_pb2.UpdateTicketRequest, service_pb2.UpdateTicketResponse)
    BulkUpdateTickets = rpc.unary(
        changes.bulk_update_tickets, service_pb2.BulkUpdateTicketsRequest, service_pb2.BulkUpdateTicketsResponse
    )
    ReportDeployment = rpc.unary(
        changes.report_deployment, service_pb2.ReportDeploymentRequest, service_pb2.ReportDeploymentResponse
    )
    ListTicketEvents = rpc.unary(
        operations.list_ticket_events, service_pb2.ListTicketEventsRequest, service_pb2.ListTicketEventsResponse
    )
    WatchTickets = rpc.watch(
        operations.watch_tickets, service_pb2.WatchTicketsRequest, service_pb2.WatchTicketsResponse
    )


class TicketRest(rest_pb2_grpc.TicketRestServicer):
    """The documented REST face."""

    def __init__(self, database: Database, news: News) -> None:
        self.database = database
        self.news = news

    ListTickets = rest.complete_list(operations.list_tickets, "tickets")
    CreateTicket = rest.unary(operations.create_ticket, status=201)
    ListProjectTickets = rest.complete_list(operations.list_project_tickets, "tickets")
    GetTicket = rest.unary(operations.get_ticket)
    UpdateTicket = rest.unary(changes.update_ticket)
    BulkUpdateTickets = rest.unary(changes.bulk_update_tickets)
    ReportDeployment = rest.unary(changes.report_deployment)
    ListTicketEvents = rest.unary(operations.list_ticket_events)
    WatchTickets = rest.watch(operations.watch_tickets)
