"""The services of the helpdesk API, typed and REST: one line per operation in each."""

from contextlib import AsyncExitStack

from tickets.helpdesk.rest.v1 import rest_pb2, rest_pb2_grpc
from tickets.helpdesk.v1 import (
    comment_service_pb2,
    comment_service_pb2_grpc,
    sla_service_pb2,
    sla_service_pb2_grpc,
    ticket_service_pb2,
    ticket_service_pb2_grpc,
)

from service.background import Periodic
from service.helpdesk import comments, index_terms, operations, tables
from service.helpdesk.sla import notifier, reclock
from service.helpdesk.sla import operations as sla
from service.operation import Dependencies
from service.reindex import Reindex
from service.transport import rest, rest_watch, rpc
from service.transport.dialect import Dialect, Service, Servicer, Started
from service.watch import EventFeed, WatchDependencies

_EMIT_DUE_EVENTS = Periodic("helpdesk_sla_events", 5.0, notifier.emit_due_events)
_RECLOCK = Periodic("helpdesk_sla_reclock", 1.0, reclock.reclock)
_TEXTS = ("title", "description")
_REINDEX = Periodic("helpdesk_reindex", 1.0, Reindex(tables.tickets, _TEXTS, index_terms.search_terms).work)


class TicketService(Servicer, ticket_service_pb2_grpc.TicketServiceServicer):
    """The typed service of tickets."""

    ListTickets = rpc.unary(
        operations.list_tickets, ticket_service_pb2.ListTicketsRequest, ticket_service_pb2.ListTicketsResponse
    )
    GetTicket = rpc.unary(
        operations.get_ticket, ticket_service_pb2.GetTicketRequest, ticket_service_pb2.GetTicketResponse, wrap="ticket"
    )
    CreateTicket = rpc.unary(
        operations.create_ticket,
        ticket_service_pb2.CreateTicketRequest,
        ticket_service_pb2.CreateTicketResponse,
        wrap="ticket",
    )
    UpdateTicket = rpc.unary(
        operations.update_ticket,
        ticket_service_pb2.UpdateTicketRequest,
        ticket_service_pb2.UpdateTicketResponse,
        wrap="ticket",
    )
    CloseTicket = rpc.unary(
        operations.close_ticket,
        ticket_service_pb2.CloseTicketRequest,
        ticket_service_pb2.CloseTicketResponse,
        wrap="ticket",
    )
    DeleteTicket = rpc.unary(
        operations.delete_ticket,
        ticket_service_pb2.DeleteTicketRequest,
        ticket_service_pb2.DeleteTicketResponse,
        wrap="ticket",
    )
    RestoreTicket = rpc.unary(
        operations.restore_ticket,
        ticket_service_pb2.RestoreTicketRequest,
        ticket_service_pb2.RestoreTicketResponse,
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


class CommentService(Servicer, comment_service_pb2_grpc.CommentServiceServicer):
    """The typed service of comments."""

    CreateComment = rpc.unary(
        comments.create_comment,
        comment_service_pb2.CreateCommentRequest,
        comment_service_pb2.CreateCommentResponse,
        wrap="comment",
    )
    UpdateComment = rpc.unary(
        comments.update_comment,
        comment_service_pb2.UpdateCommentRequest,
        comment_service_pb2.UpdateCommentResponse,
        wrap="comment",
    )
    ListComments = rpc.unary(
        comments.list_comments, comment_service_pb2.ListCommentsRequest, comment_service_pb2.ListCommentsResponse
    )


class SlaService(Servicer, sla_service_pb2_grpc.SlaServiceServicer):
    """The typed service of service levels."""

    GetTicketSla = rpc.unary(
        sla.get_ticket_sla, sla_service_pb2.GetTicketSlaRequest, sla_service_pb2.GetTicketSlaResponse, wrap="sla"
    )
    ListSlaPolicies = rpc.unary(
        sla.list_sla_policies, sla_service_pb2.ListSlaPoliciesRequest, sla_service_pb2.ListSlaPoliciesResponse
    )
    GetSlaPolicy = rpc.unary(
        sla.get_sla_policy, sla_service_pb2.GetSlaPolicyRequest, sla_service_pb2.GetSlaPolicyResponse, wrap="sla_policy"
    )
    CreateSlaPolicy = rpc.unary(
        sla.create_sla_policy,
        sla_service_pb2.CreateSlaPolicyRequest,
        sla_service_pb2.CreateSlaPolicyResponse,
        wrap="sla_policy",
    )
    UpdateSlaPolicy = rpc.unary(
        sla.update_sla_policy,
        sla_service_pb2.UpdateSlaPolicyRequest,
        sla_service_pb2.UpdateSlaPolicyResponse,
        wrap="sla_policy",
    )
    GetCalendar = rpc.unary(
        sla.get_calendar, sla_service_pb2.GetCalendarRequest, sla_service_pb2.GetCalendarResponse, wrap="calendar"
    )
    UpdateCalendar = rpc.unary(
        sla.update_calendar,
        sla_service_pb2.UpdateCalendarRequest,
        sla_service_pb2.UpdateCalendarResponse,
        wrap="calendar",
    )


class TicketRest(Servicer, rest_pb2_grpc.TicketRestServicer):
    """The documented REST face."""

    ListTickets = rest.unary(operations.list_tickets)
    GetTicket = rest.unary(operations.get_ticket)
    CreateTicket = rest.unary(operations.create_ticket, status=201)
    UpdateTicket = rest.unary(operations.update_ticket)
    CloseTicket = rest.unary(operations.close_ticket)
    DeleteTicket = rest.unary(operations.delete_ticket)
    RestoreTicket = rest.unary(operations.restore_ticket)
    CreateComment = rest.unary(comments.create_comment, status=201)
    UpdateComment = rest.unary(comments.update_comment)
    ListComments = rest.unary(comments.list_comments)
    ListTicketEvents = rest.unary(operations.list_ticket_events)
    GetTicketSla = rest.unary(sla.get_ticket_sla)
    ListSlaPolicies = rest.unary(sla.list_sla_policies)
    GetSlaPolicy = rest.unary(sla.get_sla_policy)
    CreateSlaPolicy = rest.unary(sla.create_sla_policy, status=201)
    UpdateSlaPolicy = rest.unary(sla.update_sla_policy)
    GetCalendar = rest.unary(sla.get_calendar)
    UpdateCalendar = rest.unary(sla.update_calendar)
    WatchTickets = rest_watch.watch(operations.watch_tickets)


def _start(shared: Dependencies, _stack: AsyncExitStack) -> Started:
    feed = EventFeed(shared.database, tables.events, shared.settings.max_watches)
    dependencies = WatchDependencies(settings=shared.settings, database=shared.database, vault=shared.vault, feed=feed)
    return Started(dependencies, feed, [_EMIT_DUE_EVENTS, _RECLOCK, _REINDEX])


DIALECT = Dialect(
    services=(
        Service(
            ticket_service_pb2.DESCRIPTOR.services_by_name["TicketService"],
            TicketService,
            ticket_service_pb2_grpc.add_TicketServiceServicer_to_server,
            rpc.Failures(),
        ),
        Service(
            comment_service_pb2.DESCRIPTOR.services_by_name["CommentService"],
            CommentService,
            comment_service_pb2_grpc.add_CommentServiceServicer_to_server,
            rpc.Failures(),
        ),
        Service(
            sla_service_pb2.DESCRIPTOR.services_by_name["SlaService"],
            SlaService,
            sla_service_pb2_grpc.add_SlaServiceServicer_to_server,
            rpc.Failures(),
        ),
        Service(
            rest_pb2.DESCRIPTOR.services_by_name["TicketRest"],
            TicketRest,
            rest_pb2_grpc.add_TicketRestServicer_to_server,
            rest.Failures(rest.error_body, lambda reason: reason.http),
        ),
    ),
    start=_start,
)
