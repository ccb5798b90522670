// A client that oapi-codegen makes of gen/openapi.json: see ../README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"
	openapi_types "github.com/oapi-codegen/runtime/types"
)

type credentials struct {
	RestURL       string    `json:"rest_url"`
	ItsmAPIKey    string    `json:"itsm_api_key"`
	HandoffToken  string    `json:"handoff_token"`
	HelpdeskToken string    `json:"helpdesk_token"`
	ProjectID     uuid.UUID `json:"handoff_project_id"`
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func check(step string, holds bool, seen []byte) {
	if !holds {
		fmt.Fprintf(os.Stderr, "%s: %s\n", step, seen)
		os.Exit(1)
	}
	fmt.Println("ok", step)
}

func client(url, header, value string) *ClientWithResponses {
	credential := func(_ context.Context, request *http.Request) error {
		request.Header.Set(header, value)
		return nil
	}
	return must(NewClientWithResponses(url, WithRequestEditorFn(credential)))
}

func pointer[T any](value T) *T { return &value }

func main() {
	var known credentials
	if err := json.Unmarshal(must(os.ReadFile(os.Getenv("TICKETS_CREDENTIALS"))), &known); err != nil {
		panic(err)
	}
	ctx := context.Background()
	handoff(ctx, client(known.RestURL, "Authorization", "Bearer "+known.HandoffToken), known.ProjectID)
	helpdesk(ctx, client(known.RestURL, "Authorization", "Bearer "+known.HelpdeskToken))
	itsm(ctx, client(known.RestURL, "X-API-Key", known.ItsmAPIKey))
}

func handoff(ctx context.Context, api *ClientWithResponses, project uuid.UUID) {
	new := HandoffNewTicket{Title: "Login fails", Description: "500 on /login", RequestType: pointer(HandoffNewTicketRequestTypeBug)}
	key := HandoffCreateTicketParams{IdempotencyKey: pointer(uuid.NewString())}
	made := must(api.HandoffCreateTicketWithResponse(ctx, project, &key, new))
	check("handoff create", made.JSON201 != nil && made.JSON201.Ticket.Status == HandoffTicketStatusOpen, made.Body)
	id := made.JSON201.Ticket.Id
	listed := must(api.HandoffListProjectTicketsWithResponse(ctx, project, &HandoffListProjectTicketsParams{Limit: pointer(1)}))
	check("handoff list", listed.JSON200 != nil && listed.JSON200.Tickets[0].Id == id, listed.Body)
	read := must(api.HandoffGetTicketWithResponse(ctx, project, id.String()))
	check("handoff read", read.JSON200 != nil && read.JSON200.Ticket.Title == new.Title, read.Body)
	change := HandoffTicketChanges{Title: pointer("Login fails again")}
	changed := must(api.HandoffUpdateTicketWithResponse(ctx, project, id.String(), nil, change))
	check("handoff change", changed.JSON200 != nil && changed.JSON200.Ticket.Title == *change.Title, changed.Body)
	missing := must(api.HandoffGetTicketWithResponse(ctx, project, uuid.NewString()))
	check("handoff error", missing.JSON404 != nil && missing.JSON404.Code == "not_found", missing.Body)
}

func helpdesk(ctx context.Context, api *ClientWithResponses) {
	made := must(api.HelpdeskCreateTicketWithResponse(ctx, nil, HelpdeskNewTicket{Title: "New laptop"}))
	check("helpdesk create", made.JSON201 != nil && made.JSON201.Description.IsNull(), made.Body)
	id := made.JSON201.Id
	listed := must(api.HelpdeskListTicketsWithResponse(ctx, &HelpdeskListTicketsParams{Limit: pointer(1)}))
	check("helpdesk list", listed.JSON200 != nil && listed.JSON200.Tickets[0].Id == id, listed.Body)
	read := must(api.HelpdeskGetTicketWithResponse(ctx, id, nil))
	check("helpdesk read", read.JSON200 != nil && read.JSON200.Number == made.JSON201.Number, read.Body)
	change := HelpdeskTicketChanges{Description: nullable.NewNullableWithValue("The old one is broken.")}
	changed := must(api.HelpdeskUpdateTicketWithResponse(ctx, id, nil, change))
	check("helpdesk change", changed.JSON200 != nil && changed.JSON200.Description.MustGet() == change.Description.MustGet(), changed.Body)
	missing := must(api.HelpdeskGetTicketWithResponse(ctx, "tkt_01M8D6R5N13A1TTMJS376D6V0D", nil))
	check("helpdesk error", missing.JSON404 != nil && missing.JSON404.Code == "not_found", missing.Body)
}

func itsm(ctx context.Context, api *ClientWithResponses) {
	new := ItsmNewTicket{Subject: "VPN is down", Description: "Since nine.", Metadata: nullable.NewNullableWithValue(map[string]any{"floor": 3})}
	made := must(api.ItsmCreateTicketWithResponse(ctx, nil, new))
	check("itsm create", made.JSON201 != nil && made.JSON201.Priority.IsNull() && made.JSON201.Metadata["floor"] == 3.0, made.Body)
	id := made.JSON201.Id
	var today ItsmStartDate
	if err := today.FromItsmStartDate1(openapi_types.Date{Time: made.JSON201.CreatedAt}); err != nil {
		panic(err)
	}
	listed := must(api.ItsmListTicketsWithResponse(ctx, &ItsmListTicketsParams{Limit: pointer(1), StartDate: &today}))
	check("itsm list", listed.JSON200 != nil && listed.JSON200.Tickets[0].Id == id && listed.JSON200.Total > 0, listed.Body)
	read := must(api.ItsmGetTicketWithResponse(ctx, id, nil))
	check("itsm read", read.JSON200 != nil && read.JSON200.CreatedAt.Equal(made.JSON201.CreatedAt), read.Body)
	change := ItsmTicketChanges{Priority: nullable.NewNullableWithValue(ItsmTicketChangesPriorityHigh)}
	changed := must(api.ItsmUpdateTicketWithResponse(ctx, id, nil, change))
	check("itsm change", changed.JSON200 != nil && string(changed.JSON200.Priority.MustGet()) == "high", changed.Body)
	cleared := must(api.ItsmUpdateTicketWithResponse(ctx, id, nil, ItsmTicketChanges{Priority: nullable.NewNullNullable[ItsmTicketChangesPriority]()}))
	check("itsm clear", cleared.JSON200 != nil && cleared.JSON200.Priority.IsNull(), cleared.Body)
	missing := must(api.ItsmGetTicketWithResponse(ctx, uuid.New(), nil))
	check("itsm error", missing.JSON404 != nil && must(missing.JSON404.Detail.AsDetailDetail0()) != "", missing.Body)
}
