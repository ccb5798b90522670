package tickets

import (
	"context"
	"crypto/rand"
	"io"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	firstBackoff   = 100 * time.Millisecond
	longestBackoff = 5 * time.Second
)

// IdempotencyKey is the key of a write, 1–255 printable characters. Without it each call has a new one: give one that
// you keep where the write may be repeated after your program has been restarted.
func IdempotencyKey(key string) grpc.CallOption { return idempotencyKey{key: key} }

type idempotencyKey struct {
	grpc.EmptyCallOption
	key string
}

// session is a connection that adds to each call its credentials, its idempotency key, a deadline and retries. The
// generated clients run on it as on any other.
type session struct {
	connection grpc.ClientConnInterface
	settings
}

// Invoke makes a call with one response. All its attempts have one idempotency key and one deadline.
func (s *session) Invoke(ctx context.Context, method string, request, response any, options ...grpc.CallOption) error {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	if key, has := keyOf(method, options); has {
		ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", key)
	}
	for attempt := 1; ; attempt++ {
		err := s.attempt(ctx, method, request, response, options)
		if err == nil || attempt >= s.attempts || !mayRetry(err) || !sleep(ctx, wait(err, attempt)) {
			return err
		}
	}
}

func (s *session) attempt(ctx context.Context, method string, request, response any, options []grpc.CallOption) error {
	ctx, err := s.withCredentials(ctx)
	if err != nil {
		return err
	}
	var trailer metadata.MD
	// With a copy: other attempts append to the same options.
	options = append(slices.Clip(options), grpc.Trailer(&trailer))
	return failure(s.connection.Invoke(ctx, method, request, response, options...), trailer)
}

// NewStream makes a call with a stream of responses. It has no deadline of its own, and is not retried here.
func (s *session) NewStream(
	ctx context.Context, description *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, err := s.withCredentials(ctx)
	if err != nil {
		return nil, err
	}
	opened, err := s.connection.NewStream(ctx, description, method, options...)
	if err != nil {
		return nil, failure(err, nil)
	}
	return stream{opened}, nil
}

func (s *session) withCredentials(ctx context.Context) (context.Context, error) {
	if s.token != nil {
		token, err := s.token(ctx)
		if err != nil {
			return nil, err
		}
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	if s.apiKey != nil {
		key, err := s.apiKey(ctx)
		if err != nil {
			return nil, err
		}
		ctx = metadata.AppendToOutgoingContext(ctx, "x-api-key", key)
	}
	return ctx, nil
}

// isClosed tells whether the connection was closed, by Close or by its owner.
func (s *session) isClosed() bool {
	connection, tells := s.connection.(interface{ GetState() connectivity.State })
	return tells && connection.GetState() == connectivity.Shutdown
}

// stream fails with an *Error, as calls do.
type stream struct{ grpc.ClientStream }

func (s stream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	if err == nil || err == io.EOF {
		return err
	}
	return failure(err, s.Trailer())
}

// keyOf is the idempotency key of a call: the one that was given, or a new one for a write. One that is given and empty
// is sent too, so that the service refuses it: without a key a write would be retried, and maybe done twice.
func keyOf(method string, options []grpc.CallOption) (key string, has bool) {
	for _, option := range options {
		if given, ok := option.(idempotencyKey); ok {
			return given.key, true
		}
	}
	if isRead(method) {
		return "", false
	}
	return rand.Text(), true
}

// isRead tells whether the protos say of a method, such as /tickets.itsm.v1.TicketService/GetTicket, that it is a read.
func isRead(method string) bool {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return false
	}
	options, _ := found.Options().(*descriptorpb.MethodOptions)
	return options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// wait is what the service asked for, and anything up to a backoff that doubles with each attempt.
func wait(err error, attempt int) time.Duration {
	backoff := min(longestBackoff, time.Duration(float64(firstBackoff)*math.Pow(2, float64(min(attempt-1, 20)))))
	return retryAfter(err) + mathrand.N(backoff)
}

// sleep tells whether the context lasts longer, and then waits.
func sleep(ctx context.Context, wait time.Duration) bool {
	if deadline, has := ctx.Deadline(); has && time.Until(deadline) <= wait {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}
