package tickets_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	tickets "github.com/tickets-service/tickets/gen/go/client"
	errorsv1 "github.com/tickets-service/tickets/gen/go/tickets/errors/v1"
	itsmv1 "github.com/tickets-service/tickets/gen/go/tickets/itsm/v1"
)

// held is the failure of a call that does not end by itself.
var held = errors.New("held")

// scripted fails its calls in turn, and keeps what it was sent.
type scripted struct {
	itsmv1.UnimplementedTicketServiceServer
	failures []error
	keys     []string
	cursors  []string
}

func (s *scripted) next(ctx context.Context) error {
	sent, _ := metadata.FromIncomingContext(ctx)
	s.keys = append(s.keys, sent.Get("idempotency-key")...)
	grpc.SetTrailer(ctx, metadata.Pairs("x-request-id", fmt.Sprint("request-", len(s.failures))))
	if len(s.failures) == 0 {
		return nil
	}
	failure := s.failures[0]
	s.failures = s.failures[1:]
	if failure == held {
		<-ctx.Done()
	}
	return failure
}

func (s *scripted) CreateTicket(ctx context.Context, request *itsmv1.CreateTicketRequest) (*itsmv1.CreateTicketResponse, error) {
	ticket := &itsmv1.Ticket{Subject: request.Subject, Description: request.Description}
	return &itsmv1.CreateTicketResponse{Ticket: ticket}, s.next(ctx)
}

func (s *scripted) GetTicket(ctx context.Context, request *itsmv1.GetTicketRequest) (*itsmv1.GetTicketResponse, error) {
	return &itsmv1.GetTicketResponse{Ticket: &itsmv1.Ticket{Id: request.TicketId}}, s.next(ctx)
}

func (s *scripted) ListTickets(ctx context.Context, request *itsmv1.ListTicketsRequest) (*itsmv1.ListTicketsResponse, error) {
	response := &itsmv1.ListTicketsResponse{Total: 5}
	for i := request.GetOffset(); i < min(5, request.GetOffset()+int64(request.GetLimit())); i++ {
		response.Tickets = append(response.Tickets, &itsmv1.Ticket{Id: fmt.Sprint(i)})
	}
	return response, s.next(ctx)
}

func (s *scripted) WatchTickets(request *itsmv1.WatchTicketsRequest, stream itsmv1.TicketService_WatchTicketsServer) error {
	s.cursors = append(s.cursors, request.GetCursor())
	if err := stream.Send(&itsmv1.WatchTicketsResponse{Cursor: request.GetCursor() + "+"}); err != nil {
		return err
	}
	return s.next(stream.Context())
}

func connect(t *testing.T, failures ...error) (*tickets.Client, *scripted) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, script := grpc.NewServer(grpc.MaxRecvMsgSize(8<<20)), &scripted{failures: failures}
	itsmv1.RegisterTicketServiceServer(server, script)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	client, err := tickets.New(listener.Addr().String(), tickets.WithoutTLS(), tickets.WithAPIKey("key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, script
}

func failure(code codes.Code, reason string, details ...protoadapt.MessageV1) error {
	own := &errorsv1.Error{
		Code: reason, Message: "No", Issues: []*errorsv1.Issue{{Path: "subject", Message: "is empty"}},
		FieldErrors: map[string]string{"subject": "is empty"},
	}
	sent, _ := status.New(code, "No").WithDetails(append(details, own)...)
	return sent.Err()
}

func after(wait time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)}
}

func TestAttemptsOfAWriteHaveOneKeyAndWaitAsAsked(t *testing.T) {
	away := failure(codes.Unavailable, "unavailable", after(50*time.Millisecond))
	client, script := connect(t, away, away)
	begun := time.Now()
	ticket, err := client.ITSM.Tickets.Create(t.Context(), &itsmv1.CreateTicketRequest{Subject: "a"})
	if err != nil || ticket.Subject != "a" {
		t.Fatal(ticket, err)
	}
	if time.Since(begun) < 100*time.Millisecond {
		t.Error("it did not wait")
	}
	if len(script.keys) != 3 || script.keys[0] == "" || len(slices.Compact(script.keys)) != 1 {
		t.Error(script.keys)
	}
}

func TestEachWriteHasItsKeyAndAReadHasNone(t *testing.T) {
	client, script := connect(t)
	calls := client.ITSM.Tickets
	for _, options := range [][]grpc.CallOption{nil, nil, {tickets.IdempotencyKey("mine")}} {
		if _, err := calls.Create(t.Context(), &itsmv1.CreateTicketRequest{}, options...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := calls.Get(t.Context(), &itsmv1.GetTicketRequest{}); err != nil {
		t.Fatal(err)
	}
	if len(script.keys) != 3 || script.keys[0] == script.keys[1] || script.keys[2] != "mine" {
		t.Error(script.keys)
	}
}

func TestAnEmptyKeyIsSentSoThatItIsRefused(t *testing.T) {
	client, script := connect(t)
	if _, err := client.ITSM.Tickets.Create(t.Context(), &itsmv1.CreateTicketRequest{}, tickets.IdempotencyKey("")); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(script.keys, []string{""}) {
		t.Errorf("%q", script.keys)
	}
}

func TestAnAnswerMayBeLargerThanWhatGRPCReceivesByDefault(t *testing.T) {
	client, _ := connect(t)
	ticket, err := client.ITSM.Tickets.Create(t.Context(), &itsmv1.CreateTicketRequest{
		Subject: "a", Description: strings.Repeat("x", 5<<20),
	})
	if err != nil || len(ticket.Description) != 5<<20 {
		t.Fatal(err)
	}
}

func TestAFailureSaysWhatTheServiceSaid(t *testing.T) {
	client, script := connect(t, failure(codes.InvalidArgument, "validation_error"), errors.New("not reached"))
	_, err := client.ITSM.Tickets.Create(t.Context(), &itsmv1.CreateTicketRequest{})
	failed, ok := errors.AsType[*tickets.Error](err)
	if !ok || !errors.Is(err, tickets.ErrValidation) || errors.Is(err, tickets.ErrNotFound) {
		t.Fatal(err)
	}
	if failed.Message != "No" || failed.FieldErrors["subject"] != "is empty" || failed.Issues[0].Path != "subject" ||
		failed.RequestID != "request-2" || failed.Status != codes.InvalidArgument || status.Code(err) != codes.InvalidArgument {
		t.Errorf("%+v", failed)
	}
	if len(script.failures) != 1 {
		t.Error("it was repeated")
	}
}

func TestACallEndsBeforeAWaitThatIsLongerThanItsTime(t *testing.T) {
	client, _ := connect(t, failure(codes.ResourceExhausted, "rate_limited", after(time.Hour)))
	_, err := client.ITSM.Tickets.Get(t.Context(), &itsmv1.GetTicketRequest{})
	failed, _ := errors.AsType[*tickets.Error](err)
	if !errors.Is(err, tickets.ErrRateLimited) || failed.RetryAfter != time.Hour {
		t.Error(err)
	}
}

func TestAFailureOfTheConnectionHasAReasonToo(t *testing.T) {
	client, _ := connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.ITSM.Tickets.Get(ctx, &itsmv1.GetTicketRequest{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nowhere, _ := tickets.New("127.0.0.1:1", tickets.WithoutTLS(), tickets.WithAttempts(1))
	if _, err := nowhere.ITSM.Tickets.Get(t.Context(), &itsmv1.GetTicketRequest{}); !errors.Is(err, tickets.ErrUnavailable) {
		t.Error(err)
	}
}

func TestAListIsReadPageAfterPage(t *testing.T) {
	client, _ := connect(t)
	request, calls, ids := &itsmv1.ListTicketsRequest{Limit: new(int32(2))}, 0, ""
	list := client.ITSM.Tickets.List(t.Context(), request, grpc.OnFinish(func(error) { calls++ }))
	for range 2 { // an iterator may be used again
		for ticket, err := range list {
			if err != nil {
				t.Fatal(err)
			}
			ids += ticket.Id
		}
	}
	if ids != "0123401234" || calls != 6 || !proto.Equal(request, &itsmv1.ListTicketsRequest{Limit: new(int32(2))}) {
		t.Error(ids, calls, request)
	}
}

func TestAListEndsWithItsFailure(t *testing.T) {
	client, _ := connect(t, nil, failure(codes.PermissionDenied, "forbidden"))
	seen, failures := 0, 0
	for _, err := range client.ITSM.Tickets.List(t.Context(), &itsmv1.ListTicketsRequest{Limit: new(int32(3))}) {
		if seen++; err != nil {
			failures++
		}
	}
	if seen != 4 || failures != 1 {
		t.Error(seen, failures)
	}
}

func TestAWatchResumesAfterItsLastCursor(t *testing.T) {
	away, expired := failure(codes.Unavailable, "unavailable"), failure(codes.Unauthenticated, "token_expired")
	client, script := connect(t, away, nil, expired, failure(codes.PermissionDenied, "forbidden"))
	cursors, ended := []string{}, error(nil)
	for message, err := range client.ITSM.Tickets.Watch(t.Context(), &itsmv1.WatchTicketsRequest{Cursor: new("a")}) {
		if ended = err; err == nil {
			cursors = append(cursors, message.Cursor)
		}
	}
	if !slices.Equal(cursors, []string{"a+", "a++", "a+++", "a++++"}) || !errors.Is(ended, tickets.ErrForbidden) {
		t.Error(cursors, ended)
	}
	if !slices.Equal(script.cursors, []string{"a", "a+", "a++", "a+++"}) {
		t.Error(script.cursors)
	}
}

func TestAWatchResumesAfterABreakAndNotAfterTheServicesOwnWord(t *testing.T) {
	for _, code := range []codes.Code{codes.Internal, codes.Unknown, codes.Canceled} {
		client, script := connect(t, status.Error(code, "RST_STREAM"), failure(code, "internal"))
		var ended error
		for _, err := range client.ITSM.Tickets.Watch(t.Context(), &itsmv1.WatchTicketsRequest{Cursor: new("a")}) {
			ended = err
		}
		failed, _ := errors.AsType[*tickets.Error](ended)
		if failed == nil || failed.Status != code || failed.Reason != tickets.ErrInternal {
			t.Error(ended)
		}
		if !slices.Equal(script.cursors, []string{"a", "a+"}) {
			t.Error(code, script.cursors)
		}
	}
}

func TestAnotherCallThatBreaksIsNotRepeated(t *testing.T) {
	broken := status.Error(codes.Internal, "RST_STREAM")
	client, script := connect(t, broken, broken)
	_, err := client.ITSM.Tickets.Create(t.Context(), &itsmv1.CreateTicketRequest{})
	if !errors.Is(err, tickets.ErrInternal) || len(script.failures) != 1 {
		t.Error(err, script.failures)
	}
}

func TestAWatchEndsWithItsContextAndWithItsClient(t *testing.T) {
	for _, end := range []string{"context", "client"} {
		client, script := connect(t, held, held)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var ended error
		for _, err := range client.ITSM.Tickets.Watch(ctx, &itsmv1.WatchTicketsRequest{}) {
			if ended = err; err != nil {
				break
			} else if end == "context" {
				cancel()
			} else {
				client.Close()
			}
		}
		if !errors.Is(ended, context.Canceled) || len(script.cursors) != 1 {
			t.Error(end, ended, script.cursors)
		}
	}
}

// A bubble's time goes on when all in it wait: half a minute takes none.
func TestAWatchFindsOutThatItsPeerHasStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				go io.Copy(io.Discard, theirs)
				theirs.Write(make([]byte, 3)) // an empty SETTINGS, which HTTP/2 begins with
				theirs.Write([]byte{4, 0, 0, 0, 0, 0})
			}()
			return ours, nil
		})
		client, err := tickets.New("passthrough:///stalled", tickets.WithoutTLS(), tickets.WithDialOptions(stalled), tickets.WithResumeTimeout(0))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		begun := time.Now()
		for _, err = range client.ITSM.Tickets.Watch(t.Context(), &itsmv1.WatchTicketsRequest{}) {
		}
		if waited := time.Since(begun); !errors.Is(err, tickets.ErrUnavailable) || waited != 30*time.Second {
			t.Error(err, waited)
		}
	})
}
