"""The services of the handoff API, typed and REST: one line per operation in each."""

from contextlib import AsyncExitStack

from tickets.handoff.rest.v1 import rest_pb2, rest_pb2_grpc
from tickets.handoff.v1 import ticket_service_pb2, ticket_service_pb2_grpc

from service.background import Periodic
from service.handoff import changes, index_terms, operations, tables
from service.operation import Dependencies
from service.reindex import Reindex
from service.transport import rest, rest_watch, rpc
from service.transport.dialect import Dialect, Service, Servicer, Started
from service.watch import EventFeed, WatchDependencies

_TEXTS = ("title", "description")
_REINDEX = Periodic("handoff_reindex", 1.0, Reindex(tables.tickets, _TEXTS, index_terms.search_terms).work)


class TicketService(Servicer, ticket_service_pb2_grpc.TicketServiceServicer):
    """The typed service."""

    ListTickets = rpc.unary(
        operations.list_tickets, ticket_service_pb2.ListTicketsRequest, ticket_service_pb2.ListTicketsResponse
    )
    CreateTicket = rpc.unary(
        operations.create_ticket, ticket_service_pb2.CreateTicketRequest, ticket_service_pb2.CreateTicketResponse
    )
    ListProjectTickets = rpc.unary(
        operations.list_project_tickets,
        ticket_service_pb2.ListProjectTicketsRequest,
        ticket_service_pb2.ListProjectTicketsResponse,
    )
    GetTicket = rpc.unary(
        operations.get_ticket, ticket_service_pb2.GetTicketRequest, ticket_service_pb2.GetTicketResponse
    )
    UpdateTicket = rpc.unary(
        changes.update_ticket, ticket_service_pb2.UpdateTicketRequest, ticket_service_pb2.UpdateTicketResponse
    )
    BulkUpdateTickets = rpc.unary(
        changes.bulk_update_tickets,
        ticket_service_pb2.BulkUpdateTicketsRequest,
        ticket_service_pb2.BulkUpdateTicketsResponse,
    )
    ReportDeployment = rpc.unary(
        changes.report_deployment,
        ticket_service_pb2.ReportDeploymentRequest,
        ticket_service_pb2.ReportDeploymentResponse,
    )
    ListTicketEvents = rpc.unary(
        operations.list_ticket_events,
        ticket_service_pb2.ListTicketEventsRequest,
        ticket_service_pb2.ListTicketEventsResponse,
    )
    WatchTickets = rpc.watch(
        operations.watch_tickets, ticket_service_pb2.WatchTicketsRequest, ticket_service_pb2.WatchTicketsResponse
    )


class TicketRest(Servicer, rest_pb2_grpc.TicketRestServicer):
    """The documented REST service."""

    ListTickets = rest.streamed_list(operations.list_tickets, "tickets", complete=True)
    CreateTicket = rest.unary(operations.create_ticket, status=201)
    ListProjectTickets = rest.streamed_list(operations.list_project_tickets, "tickets")
    GetTicket = rest.unary(operations.get_ticket)
    UpdateTicket = rest.unary(changes.update_ticket)
    BulkUpdateTickets = rest.unary(changes.bulk_update_tickets)
    ReportDeployment = rest.unary(changes.report_deployment)
    ListTicketEvents = rest.unary(operations.list_ticket_events)
    WatchTickets = rest_watch.watch(operations.watch_tickets)


def _start(shared: Dependencies, _stack: AsyncExitStack) -> Started:
    feed = EventFeed(shared.database, tables.events, shared.settings.max_watches)
    dependencies = WatchDependencies(settings=shared.settings, database=shared.database, vault=shared.vault, feed=feed)
    return Started(dependencies, feed, [_REINDEX])


DIALECT = Dialect(
    services=(
        Service(
            ticket_service_pb2.DESCRIPTOR.services_by_name["TicketService"],
            TicketService,
            ticket_service_pb2_grpc.add_TicketServiceServicer_to_server,
            rpc.Failures(),
        ),
        Service(
            rest_pb2.DESCRIPTOR.services_by_name["TicketRest"],
            TicketRest,
            rest_pb2_grpc.add_TicketRestServicer_to_server,
            rest.Failures(rest.error_body, lambda reason: reason.handoff_http or reason.http),
        ),
    ),
    start=_start,
)
