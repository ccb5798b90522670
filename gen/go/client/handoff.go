package tickets

import (
	"context"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/tickets-service/tickets/gen/go/tickets/handoff/v1"
)

// Handoff is the handoff API.
type Handoff struct {
	Tickets *HandoffTickets
}

// HandoffTickets are the tickets of projects, each by its id, number or reference.
type HandoffTickets struct {
	session *session
	service pb.TicketServiceClient
}

func newHandoff(s *session) Handoff {
	return Handoff{Tickets: &HandoffTickets{s, pb.NewTicketServiceClient(s)}}
}

// List yields the tickets of all projects that the caller is a member of, page after page.
func (r *HandoffTickets) List(ctx context.Context, request *pb.ListTicketsRequest, options ...grpc.CallOption) iter.Seq2[*pb.Ticket, error] {
	return pages(request.Cursor, func(cursor *string) ([]*pb.Ticket, *string, error) {
		page := proto.CloneOf(request)
		page.Cursor, page.Limit = cursor, pageSize(page.Limit)
		response, err := r.service.ListTickets(ctx, page, options...)
		if err != nil {
			return nil, nil, err
		}
		return response.Tickets, response.NextCursor, nil
	})
}

// ListProject yields the tickets of one project, page after page.
func (r *HandoffTickets) ListProject(ctx context.Context, request *pb.ListProjectTicketsRequest, options ...grpc.CallOption) iter.Seq2[*pb.Ticket, error] {
	return pages(request.Cursor, func(cursor *string) ([]*pb.Ticket, *string, error) {
		page := proto.CloneOf(request)
		page.Cursor, page.Limit = cursor, pageSize(page.Limit)
		if cursor != nil {
			page.Offset = nil // it was for the first page
		}
		response, err := r.service.ListProjectTickets(ctx, page, options...)
		if err != nil {
			return nil, nil, err
		}
		return response.Tickets, response.NextCursor, nil
	})
}

// Get reads one ticket.
func (r *HandoffTickets) Get(ctx context.Context, request *pb.GetTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.GetTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Create creates a ticket.
func (r *HandoffTickets) Create(ctx context.Context, request *pb.CreateTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.CreateTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Update changes some members of a ticket, its stage, or one of its roles.
func (r *HandoffTickets) Update(ctx context.Context, request *pb.UpdateTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.UpdateTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Bulk moves or closes many tickets, each by itself: the response says which could not be.
func (r *HandoffTickets) Bulk(ctx context.Context, request *pb.BulkUpdateTicketsRequest, options ...grpc.CallOption) (*pb.BulkUpdateTicketsResponse, error) {
	return r.service.BulkUpdateTickets(ctx, request, options...)
}

// ReportDeployment reports the outcome of a ticket's commit: merged, deployed or failed.
func (r *HandoffTickets) ReportDeployment(ctx context.Context, request *pb.ReportDeploymentRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.ReportDeployment(ctx, request, options...)
	return response.GetTicket(), err
}

// Events yields a ticket's history, oldest first.
func (r *HandoffTickets) Events(ctx context.Context, request *pb.ListTicketEventsRequest, options ...grpc.CallOption) iter.Seq2[*pb.TicketEvent, error] {
	return pages(request.Cursor, func(cursor *string) ([]*pb.TicketEvent, *string, error) {
		page := proto.CloneOf(request)
		page.Cursor, page.Limit = cursor, pageSize(page.Limit)
		response, err := r.service.ListTicketEvents(ctx, page, options...)
		if err != nil {
			return nil, nil, err
		}
		return response.Events, response.NextCursor, nil
	})
}

// Watch yields every change of a project's tickets as it happens, from now on or after a cursor, until the
// loop is left. The first message says where the watch begins; one without an event is a heartbeat.
func (r *HandoffTickets) Watch(
	ctx context.Context, request *pb.WatchTicketsRequest, options ...grpc.CallOption,
) iter.Seq2[*pb.WatchTicketsResponse, error] {
	return watch(ctx, r.session, request.Cursor, func(ctx context.Context, cursor *string) (
		grpc.ServerStreamingClient[pb.WatchTicketsResponse], error,
	) {
		from := proto.CloneOf(request)
		from.Cursor = cursor
		return r.service.WatchTickets(ctx, from, options...)
	})
}
