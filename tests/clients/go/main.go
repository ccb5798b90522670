// The scenario of tests/clients, by the Go client.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	tickets "github.com/tickets-service/tickets/gen/go/client"
	itsmv1 "github.com/tickets-service/tickets/gen/go/tickets/itsm/v1"
)

type newTicket struct {
	Subject, Description string
	Priority             *string
	RequesterEmail       *string `json:"requester_email"`
	Metadata             json.RawMessage
}

type failure struct {
	Code, Reason, Message string
	Fields                []string
	MessageBegins         string `json:"message_begins"`
}

type scenario struct {
	Steps struct {
		Create struct {
			Ticket newTicket
			Expect map[string]*string
		}
		Repeat struct {
			Expect struct {
				Replayed string `json:"idempotent_replayed"`
			}
		}
		ReuseKey struct {
			Ticket newTicket
			Expect failure
		} `json:"reuse_key"`
		Pages struct {
			Create int
			Limit  int32
			Status string
			Expect struct {
				AtLeast int `json:"pages_at_least"`
			}
		}
		Clear struct {
			Mask   []string `json:"update_mask"`
			Expect map[string]*string
		}
		Invalid struct {
			Ticket newTicket
			Expect failure
		}
		NotFound struct {
			TicketID string `json:"ticket_id"`
			Expect   failure
		} `json:"not_found"`
		Watch struct {
			Status string
			Expect struct{ Type string }
		}
		Resume struct {
			Status string
			Expect struct{ Types []string }
		}
	}
}

func main() {
	credentials, told := map[string]string{}, scenario{}
	read(os.Getenv("TICKETS_CREDENTIALS"), &credentials)
	read(os.Getenv("TICKETS_SCENARIO"), &told)
	client, err := tickets.New(credentials["grpc_target"], tickets.WithoutTLS(), tickets.WithAPIKey(credentials["itsm_api_key"]))
	check(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run(ctx, client.ITSM.Tickets, told)
}

func run(ctx context.Context, calls *tickets.ITSMTickets, told scenario) {
	steps := told.Steps

	key := tickets.IdempotencyKey(fmt.Sprint("scenario-", time.Now().UnixNano()))
	first, err := calls.Create(ctx, creation(steps.Create.Ticket), key)
	check(err)
	looksLike(first, steps.Create.Expect)
	ok("create")

	var trailer metadata.MD
	again, err := calls.Create(ctx, creation(steps.Create.Ticket), key, grpc.Trailer(&trailer))
	check(err)
	same("id", again.Id, first.Id)
	same("idempotent-replayed", strings.Join(trailer.Get("idempotent-replayed"), ","), steps.Repeat.Expect.Replayed)
	ok("repeat")

	_, err = calls.Create(ctx, creation(steps.ReuseKey.Ticket), key)
	fails(err, steps.ReuseKey.Expect)
	ok("reuse_key")

	pages(ctx, calls, told, first.Id)
	ok("pages")

	changed, err := calls.Update(ctx, &itsmv1.UpdateTicketRequest{
		TicketId: first.Id, UpdateMask: &fieldmaskpb.FieldMask{Paths: steps.Clear.Mask},
	})
	check(err)
	looksLike(changed, steps.Clear.Expect)
	ok("clear")

	_, err = calls.Create(ctx, creation(steps.Invalid.Ticket))
	fails(err, steps.Invalid.Expect)
	ok("invalid")

	_, err = calls.Get(ctx, &itsmv1.GetTicketRequest{TicketId: steps.NotFound.TicketID})
	fails(err, steps.NotFound.Expect)
	ok("not_found")

	seen := watched(ctx, calls, &itsmv1.WatchTicketsRequest{}, first.Id, func() { move(ctx, calls, first.Id, steps.Watch.Status) })
	same("type", seen.Event.Type, steps.Watch.Expect.Type)
	ok("watch")

	move(ctx, calls, first.Id, steps.Resume.Status)
	next := watched(ctx, calls, &itsmv1.WatchTicketsRequest{Cursor: &seen.Cursor}, first.Id, func() {})
	same("version", next.Event.Version, seen.Event.Version+1)
	same("one of the types", slices.Contains(steps.Resume.Expect.Types, next.Event.Type), true)
	ok("resume")
}

func pages(ctx context.Context, calls *tickets.ITSMTickets, told scenario, first string) {
	pages, missing := told.Steps.Pages, map[string]bool{first: true}
	for range pages.Create {
		made, err := calls.Create(ctx, creation(told.Steps.Create.Ticket))
		check(err)
		missing[made.Id] = true
	}
	read := 0
	request := &itsmv1.ListTicketsRequest{Limit: &pages.Limit, Status: status(pages.Status)}
	for ticket, err := range calls.List(ctx, request, grpc.OnFinish(func(error) { read++ })) {
		check(err)
		delete(missing, ticket.Id)
		if len(missing) == 0 {
			break
		}
	}
	same("tickets not seen", len(missing), 0)
	same("enough pages", read >= pages.Expect.AtLeast, true)
}

// watched is the first message about a ticket; `begun` is called when the watch has begun.
func watched(
	ctx context.Context, calls *tickets.ITSMTickets, from *itsmv1.WatchTicketsRequest, id string, begun func(),
) *itsmv1.WatchTicketsResponse {
	isFirst := true
	for message, err := range calls.Watch(ctx, from) {
		check(err)
		if isFirst {
			begun()
			isFirst = false
		}
		if message.GetEvent().GetTicketId() == id {
			return message
		}
	}
	panic("a watch ends only with a failure")
}

func move(ctx context.Context, calls *tickets.ITSMTickets, id, to string) {
	_, err := calls.Update(ctx, &itsmv1.UpdateTicketRequest{TicketId: id, Status: status(to)})
	check(err)
}

func creation(told newTicket) *itsmv1.CreateTicketRequest {
	request := &itsmv1.CreateTicketRequest{
		Subject: told.Subject, Description: told.Description, RequesterEmail: told.RequesterEmail,
	}
	if told.Priority != nil {
		request.Priority = itsmv1.Priority(itsmv1.Priority_value["PRIORITY_"+strings.ToUpper(*told.Priority)]).Enum()
	}
	if told.Metadata != nil {
		request.MetadataJson = new(string(told.Metadata))
	}
	return request
}

func status(word string) *itsmv1.Status {
	return itsmv1.Status(itsmv1.Status_value["STATUS_"+strings.ToUpper(word)]).Enum()
}

// looksLike compares what is expected of some members; null is absent.
func looksLike(ticket *itsmv1.Ticket, expected map[string]*string) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(ticket)
	check(err)
	members := map[string]any{}
	check(json.Unmarshal(text, &members))
	for name, value := range expected {
		got, has := members[name]
		if value == nil {
			same(name+" is there", has, false)
			continue
		}
		word, _ := got.(string)
		if name == "status" || name == "priority" {
			word = strings.ToLower(strings.TrimPrefix(word, strings.ToUpper(name)+"_"))
		}
		same(name, word, *value)
	}
}

func fails(err error, expected failure) {
	failed, is := errors.AsType[*tickets.Error](err)
	if !is {
		check(fmt.Errorf("it did not fail as expected: %w", err))
	}
	same("code", codeWord(failed), expected.Code)
	same("reason", string(failed.Reason), expected.Reason)
	if expected.Message != "" {
		same("message", failed.Message, expected.Message)
	}
	same("how the message begins", strings.HasPrefix(failed.Message, expected.MessageBegins), true)
	for _, field := range expected.Fields {
		same("a problem with "+field, failed.FieldErrors[field] != "", true)
	}
	same("request id", failed.RequestID != "", true)
}

func codeWord(failed *tickets.Error) string {
	words := map[string]string{
		"AlreadyExists": "ALREADY_EXISTS", "InvalidArgument": "INVALID_ARGUMENT", "NotFound": "NOT_FOUND",
	}
	return words[failed.Status.String()]
}

func read(path string, into any) {
	text, err := os.ReadFile(path)
	check(err)
	check(json.Unmarshal(text, into))
}

func ok(step string) { fmt.Println("ok " + step) }

func same[T comparable](what string, got, expected T) {
	if got != expected {
		check(fmt.Errorf("%s: %v instead of %v", what, got, expected))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
