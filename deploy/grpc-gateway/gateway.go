package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	handoff "github.com/tickets-service/tickets/gen/go/tickets/handoff/rest/v1"
	helpdesk "github.com/tickets-service/tickets/gen/go/tickets/helpdesk/rest/v1"
	itsm "github.com/tickets-service/tickets/gen/go/tickets/itsm/rest/v1"
)

// gateway is grpc-gateway with what the documents promise and it does not do by itself.
type gateway struct {
	mux    *runtime.ServeMux
	routes routes
}

func newGateway(connection *grpc.ClientConn) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, raw{&runtime.JSONPb{}}),
		runtime.SetQueryParameterParser(queries{}),
		runtime.WithIncomingHeaderMatcher(oneOf("X-Api-Key", "Idempotency-Key", "If-Match", "If-None-Match", "Accept", "Last-Event-Id")),
		runtime.WithOutgoingHeaderMatcher(oneOf("x-http-status", "x-content-length", "etag", "idempotent-replayed", "ratelimit",
			"ratelimit-policy", "retry-after", "www-authenticate", "cache-control", "x-accel-buffering")),
		runtime.WithOutgoingTrailerMatcher(oneOf()),
		runtime.WithMetadata(told),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
			w.(*answer).fail(failureOf(status.Code(err)))
		}),
		runtime.WithStreamErrorHandler(streamFailed),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithDisableChunkedEncoding(), // net/http does it where it is due
		runtime.WithWriteContentLength(),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		handoff.RegisterTicketRestHandler, helpdesk.RegisterTicketRestHandler, itsm.RegisterTicketRestHandler,
	} {
		if err := register(context.Background(), mux, connection); err != nil {
			return nil, err
		}
	}
	return gateway{mux, newRoutes(
		handoff.File_tickets_handoff_rest_v1_rest_proto, helpdesk.File_tickets_helpdesk_rest_v1_rest_proto,
		itsm.File_tickets_itsm_rest_v1_rest_proto,
	)}, nil
}

type answerKey struct{}

func (g gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := newAnswer(w, r)
	if refused := refusal(r); refused != nil {
		answer.fail(*refused)
		return
	}
	ctx := context.WithValue(r.Context(), answerKey{}, answer)
	r.URL.Path, r.URL.RawPath = plainPath(r.URL.Path), ""
	r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, ";", "%3B") // it is no separator
	verb := r.Method
	if verb == http.MethodHead {
		verb = http.MethodGet // to the mux; the service leaves out the body
	}
	found, allow := g.routes.find(verb, r.URL.Path)
	switch {
	case allow == "":
		answer.fail(notFound)
		return
	case found == nil:
		w.Header().Set("Allow", allow)
		answer.fail(methodNotAllowed)
		return
	}
	if failed := readBody(w, r); failed != nil {
		answer.fail(*failed)
		return
	}
	if found.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, found.timeout)
		defer cancel()
	}
	r.Method = verb
	g.mux.ServeHTTP(answer, r.WithContext(ctx))
}

// readBody has the whole body here before the service hears of the request: a slow sender holds nothing of it.
func readBody(w http.ResponseWriter, r *http.Request) *failure {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, isLarge := errors.AsType[*http.MaxBytesError](err); isLarge {
		return &tooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &tooSlow
	}
	if err != nil {
		return &invalid
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	// The time to read a request is over, and an answer may take longer. (A recorder of a test has no deadline.)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return nil
}

// told is what the service hears of a request beside its own headers. The path as it was called, under the name that Envoy
// gives it, is where it finds what no message can have: filters whose names are the callers' own, and what nobody knows.
// That this is no Envoy makes it send the headers of a 200 where gRPC for Go can read them.
func told(ctx context.Context, r *http.Request) metadata.MD {
	answer := ctx.Value(answerKey{}).(*answer)
	pairs := metadata.Pairs(
		"x-envoy-original-path", answer.path, "x-gateway", "grpc-gateway", "x-request-id", answer.Header().Get(requestID),
	)
	if answer.isHead {
		pairs.Set("x-http-method", http.MethodHead)
	}
	return pairs
}

// streamFailed breaks off what has begun, so that its reader sees that it is incomplete.
func streamFailed(ctx context.Context, err error) *status.Status {
	answer := ctx.Value(answerKey{}).(*answer)
	if answer.hasBegun {
		panic(http.ErrAbortHandler)
	}
	answer.fail(failureOf(status.Code(err)))
	return status.Convert(err)
}

// raw carries bodies as they are. (The runtime's own marshaler reads one as the protobuf JSON of an HttpBody.)
type raw struct{ runtime.Marshaler }

func (raw) NewDecoder(body io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(into any) error {
		data, err := io.ReadAll(body)
		*into.(**httpbody.HttpBody) = &httpbody.HttpBody{ContentType: "application/json", Data: data}
		return err
	})
}

func (raw) Marshal(message any) ([]byte, error) {
	body, _ := message.(*httpbody.HttpBody)
	return body.GetData(), nil
}

func (raw) ContentType(message any) string {
	body, _ := message.(*httpbody.HttpBody)
	return body.GetContentType()
}

// Delimiter is what comes between the messages of a stream: nothing, they are pieces of one document or whole lines.
func (raw) Delimiter() []byte { return nil }

// queries are the variables of a query, which are lists of the strings that were sent, by their documented names alone.
// The rest is the service's, which has the path.
type queries struct{}

func (queries) Parse(message proto.Message, values url.Values, _ *utilities.DoubleArray) error {
	fields := message.ProtoReflect().Descriptor().Fields()
	for name, given := range values {
		field := fields.ByName(protoreflect.Name(name))
		if field == nil || !field.IsList() { // a variable of the path is none of the query
			continue
		}
		list := message.ProtoReflect().Mutable(field).List()
		for _, value := range given {
			list.Append(protoreflect.ValueOfString(value))
		}
	}
	return nil
}

func oneOf(names ...string) runtime.HeaderMatcherFunc {
	return func(name string) (string, bool) {
		for _, known := range names {
			if strings.EqualFold(name, known) {
				return known, true
			}
		}
		return "", false
	}
}
