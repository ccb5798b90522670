package tickets

import (
	"context"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/tickets-service/tickets/gen/go/tickets/helpdesk/v1"
)

// Helpdesk is the helpdesk API, of the caller's tenant.
type Helpdesk struct {
	Tickets     *HelpdeskTickets
	Comments    *HelpdeskComments
	SLAPolicies *SLAPolicies
	Calendar    *Calendar
}

// HelpdeskTickets are the tickets that the caller may see, each by its id or its number.
type HelpdeskTickets struct {
	session *session
	service pb.TicketServiceClient
	sla     pb.SlaServiceClient
}

// HelpdeskComments are the comments on tickets.
type HelpdeskComments struct{ service pb.CommentServiceClient }

// SLAPolicies say how soon tickets must be answered and resolved.
type SLAPolicies struct{ service pb.SlaServiceClient }

// Calendar says which time counts.
type Calendar struct{ service pb.SlaServiceClient }

func newHelpdesk(s *session) Helpdesk {
	sla := pb.NewSlaServiceClient(s)
	return Helpdesk{
		Tickets:     &HelpdeskTickets{s, pb.NewTicketServiceClient(s), sla},
		Comments:    &HelpdeskComments{pb.NewCommentServiceClient(s)},
		SLAPolicies: &SLAPolicies{sla},
		Calendar:    &Calendar{sla},
	}
}

// List yields tickets, newest first unless sorted, page after page.
func (r *HelpdeskTickets) List(ctx context.Context, request *pb.ListTicketsRequest, options ...grpc.CallOption) iter.Seq2[*pb.Ticket, error] {
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

// Get reads one ticket.
func (r *HelpdeskTickets) Get(ctx context.Context, request *pb.GetTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.GetTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Create creates a ticket.
func (r *HelpdeskTickets) Create(ctx context.Context, request *pb.CreateTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.CreateTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Update changes some members of a ticket.
func (r *HelpdeskTickets) Update(ctx context.Context, request *pb.UpdateTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.UpdateTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Close closes a ticket; a closed one stays as it is.
func (r *HelpdeskTickets) Close(ctx context.Context, request *pb.CloseTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.CloseTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Delete deletes a ticket, softly; a deleted one stays as it is.
func (r *HelpdeskTickets) Delete(ctx context.Context, request *pb.DeleteTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.DeleteTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Restore restores a deleted ticket; one that is not deleted stays as it is.
func (r *HelpdeskTickets) Restore(ctx context.Context, request *pb.RestoreTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.RestoreTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Events yields a ticket's history, oldest first; that of a deleted one too.
func (r *HelpdeskTickets) Events(ctx context.Context, request *pb.ListTicketEventsRequest, options ...grpc.CallOption) iter.Seq2[*pb.TicketEvent, error] {
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

// SLA tells how a ticket's SLA stands right now: what time counted, was paused and is left.
func (r *HelpdeskTickets) SLA(ctx context.Context, request *pb.GetTicketSlaRequest, options ...grpc.CallOption) (*pb.TicketSla, error) {
	response, err := r.sla.GetTicketSla(ctx, request, options...)
	return response.GetSla(), err
}

// Watch yields every change of the tickets that the caller may see as it happens, from now on or after a cursor, until the
// loop is left. The first message says where the watch begins; one without an event is a heartbeat.
func (r *HelpdeskTickets) Watch(
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

// List yields a ticket's comments, oldest first.
func (r *HelpdeskComments) List(ctx context.Context, request *pb.ListCommentsRequest, options ...grpc.CallOption) iter.Seq2[*pb.Comment, error] {
	return pages(request.Cursor, func(cursor *string) ([]*pb.Comment, *string, error) {
		page := proto.CloneOf(request)
		page.Cursor, page.Limit = cursor, pageSize(page.Limit)
		response, err := r.service.ListComments(ctx, page, options...)
		if err != nil {
			return nil, nil, err
		}
		return response.Comments, response.NextCursor, nil
	})
}

// Create comments on a ticket.
func (r *HelpdeskComments) Create(ctx context.Context, request *pb.CreateCommentRequest, options ...grpc.CallOption) (*pb.Comment, error) {
	response, err := r.service.CreateComment(ctx, request, options...)
	return response.GetComment(), err
}

// Update edits a comment of the caller's own.
func (r *HelpdeskComments) Update(ctx context.Context, request *pb.UpdateCommentRequest, options ...grpc.CallOption) (*pb.Comment, error) {
	response, err := r.service.UpdateComment(ctx, request, options...)
	return response.GetComment(), err
}

// List yields the tenant's policies, page after page.
func (r *SLAPolicies) List(ctx context.Context, request *pb.ListSlaPoliciesRequest, options ...grpc.CallOption) iter.Seq2[*pb.SlaPolicy, error] {
	return pages(request.Cursor, func(cursor *string) ([]*pb.SlaPolicy, *string, error) {
		page := proto.CloneOf(request)
		page.Cursor, page.Limit = cursor, pageSize(page.Limit)
		response, err := r.service.ListSlaPolicies(ctx, page, options...)
		if err != nil {
			return nil, nil, err
		}
		return response.SlaPolicies, response.NextCursor, nil
	})
}

// Get reads one policy.
func (r *SLAPolicies) Get(ctx context.Context, request *pb.GetSlaPolicyRequest, options ...grpc.CallOption) (*pb.SlaPolicy, error) {
	response, err := r.service.GetSlaPolicy(ctx, request, options...)
	return response.GetSlaPolicy(), err
}

// Create creates a policy.
func (r *SLAPolicies) Create(ctx context.Context, request *pb.CreateSlaPolicyRequest, options ...grpc.CallOption) (*pb.SlaPolicy, error) {
	response, err := r.service.CreateSlaPolicy(ctx, request, options...)
	return response.GetSlaPolicy(), err
}

// Update changes some members of a policy.
func (r *SLAPolicies) Update(ctx context.Context, request *pb.UpdateSlaPolicyRequest, options ...grpc.CallOption) (*pb.SlaPolicy, error) {
	response, err := r.service.UpdateSlaPolicy(ctx, request, options...)
	return response.GetSlaPolicy(), err
}

// Get reads the calendar.
func (r *Calendar) Get(ctx context.Context, request *pb.GetCalendarRequest, options ...grpc.CallOption) (*pb.Calendar, error) {
	response, err := r.service.GetCalendar(ctx, request, options...)
	return response.GetCalendar(), err
}

// Update changes some members of the calendar.
func (r *Calendar) Update(ctx context.Context, request *pb.UpdateCalendarRequest, options ...grpc.CallOption) (*pb.Calendar, error) {
	response, err := r.service.UpdateCalendar(ctx, request, options...)
	return response.GetCalendar(), err
}
