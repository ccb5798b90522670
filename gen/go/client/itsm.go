package tickets

import (
	"context"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/tickets-service/tickets/gen/go/tickets/itsm/v1"
)

// ITSM is the ITSM API, of the account whose API key is used.
type ITSM struct {
	Tickets  *ITSMTickets
	Webhooks *Webhooks
}

// ITSMTickets are the account's tickets.
type ITSMTickets struct {
	session *session
	service pb.TicketServiceClient
}

// Webhooks are addresses that are notified of events.
type Webhooks struct{ service pb.WebhookServiceClient }

func newITSM(s *session) ITSM {
	return ITSM{Tickets: &ITSMTickets{s, pb.NewTicketServiceClient(s)}, Webhooks: &Webhooks{pb.NewWebhookServiceClient(s)}}
}

// List yields the account's tickets, newest first, page after page. Pages are counted from the newest ticket, so that one
// that is created meanwhile makes the last of a page come again on the next.
func (r *ITSMTickets) List(ctx context.Context, request *pb.ListTicketsRequest, options ...grpc.CallOption) iter.Seq2[*pb.Ticket, error] {
	return pages(request.Offset, func(offset *int64) ([]*pb.Ticket, *int64, error) {
		page := proto.CloneOf(request)
		page.Offset, page.Limit = offset, pageSize(page.Limit)
		response, err := r.service.ListTickets(ctx, page, options...)
		if err != nil {
			return nil, nil, err
		}
		next := page.GetOffset() + int64(len(response.Tickets))
		if len(response.Tickets) == 0 || next >= response.Total {
			return response.Tickets, nil, nil
		}
		return response.Tickets, &next, nil
	})
}

// Get reads one ticket.
func (r *ITSMTickets) Get(ctx context.Context, request *pb.GetTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.GetTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Create creates a ticket.
func (r *ITSMTickets) Create(ctx context.Context, request *pb.CreateTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.CreateTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Update changes some members of a ticket.
func (r *ITSMTickets) Update(ctx context.Context, request *pb.UpdateTicketRequest, options ...grpc.CallOption) (*pb.Ticket, error) {
	response, err := r.service.UpdateTicket(ctx, request, options...)
	return response.GetTicket(), err
}

// Events yields a ticket's history, oldest first.
func (r *ITSMTickets) Events(ctx context.Context, request *pb.ListTicketEventsRequest, options ...grpc.CallOption) iter.Seq2[*pb.TicketEvent, error] {
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

// Watch yields every change of the account's tickets as it happens, from now on or after a cursor, until the
// loop is left. The first message says where the watch begins; one without an event is a heartbeat.
func (r *ITSMTickets) Watch(
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

// List returns the account's webhooks, oldest first, without secrets.
func (r *Webhooks) List(ctx context.Context, options ...grpc.CallOption) ([]*pb.Webhook, error) {
	response, err := r.service.ListWebhooks(ctx, &pb.ListWebhooksRequest{}, options...)
	return response.GetWebhooks(), err
}

// Create registers an address. The secret is in the answer, this once.
func (r *Webhooks) Create(ctx context.Context, request *pb.CreateWebhookRequest, options ...grpc.CallOption) (*pb.Webhook, error) {
	response, err := r.service.CreateWebhook(ctx, request, options...)
	return response.GetWebhook(), err
}

// Update changes some members of a webhook.
func (r *Webhooks) Update(ctx context.Context, request *pb.UpdateWebhookRequest, options ...grpc.CallOption) (*pb.Webhook, error) {
	response, err := r.service.UpdateWebhook(ctx, request, options...)
	return response.GetWebhook(), err
}

// Delete deletes a webhook with its queue and its log.
func (r *Webhooks) Delete(ctx context.Context, request *pb.DeleteWebhookRequest, options ...grpc.CallOption) error {
	_, err := r.service.DeleteWebhook(ctx, request, options...)
	return err
}

// RotateSecret makes another secret; the old one signs beside it for a day.
func (r *Webhooks) RotateSecret(ctx context.Context, request *pb.RotateWebhookSecretRequest, options ...grpc.CallOption) (*pb.Webhook, error) {
	response, err := r.service.RotateWebhookSecret(ctx, request, options...)
	return response.GetWebhook(), err
}

// Deliveries returns the last 100 attempts to deliver to a webhook, newest first.
func (r *Webhooks) Deliveries(
	ctx context.Context, request *pb.ListWebhookDeliveriesRequest, options ...grpc.CallOption,
) ([]*pb.WebhookDelivery, error) {
	response, err := r.service.ListWebhookDeliveries(ctx, request, options...)
	return response.GetDeliveries(), err
}

// Replay queues the message of a delivery again, as it was.
func (r *Webhooks) Replay(ctx context.Context, request *pb.ReplayWebhookDeliveryRequest, options ...grpc.CallOption) (*pb.WebhookDelivery, error) {
	response, err := r.service.ReplayWebhookDelivery(ctx, request, options...)
	return response.GetDelivery(), err
}
