package tickets

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	errorsv1 "github.com/tickets-service/tickets/gen/go/tickets/errors/v1"
)

// Reason is the stable name of a failure: errors.Is(err, tickets.ErrNotFound).
type Reason string

func (r Reason) Error() string { return string(r) }

// The reasons. Later versions of the service may have more.
const (
	ErrUnauthenticated     Reason = "unauthenticated"      // there are no credentials
	ErrTokenExpired        Reason = "token_expired"        // the token was valid once
	ErrInvalidToken        Reason = "invalid_token"        // the token or the key is not valid
	ErrReconnectRequired   Reason = "reconnect_required"   // GitHub no longer accepts the project's link
	ErrForbidden           Reason = "forbidden"            // the caller may not do this
	ErrMissingScope        Reason = "missing_scope"        // the credential lacks a scope
	ErrSuspended           Reason = "suspended"            // the API key, the account or the tenant is suspended
	ErrNotFound            Reason = "not_found"            // there is no such thing, or it is not the caller's
	ErrValidation          Reason = "validation_error"     // the request is not valid: see Issues
	ErrCursorExpired       Reason = "cursor_expired"       // events after a watch's cursor were deleted: list, and watch without it
	ErrPayloadTooLarge     Reason = "payload_too_large"    // the request is too large
	ErrUnknownEvent        Reason = "unknown_event"        // no webhook can subscribe to such an event
	ErrURLRefused          Reason = "url_refused"          // no webhook may have this address
	ErrProviderRejected    Reason = "provider_rejected"    // the external provider said no
	ErrRolesIncomplete     Reason = "roles_incomplete"     // a role is neither done nor skipped
	ErrInvalidTransition   Reason = "invalid_transition"   // the ticket's state forbids it
	ErrStale               Reason = "stale"                // the ticket has changed since it was read
	ErrIdempotencyMismatch Reason = "idempotency_mismatch" // the key was used with another request
	ErrAlreadyExists       Reason = "already_exists"       // there is one already
	ErrRateLimited         Reason = "rate_limited"         // the caller is too fast: wait for RetryAfter
	ErrUnavailable         Reason = "unavailable"          // the service is away or overloaded; a write may have happened
	ErrDeadlineExceeded    Reason = "deadline_exceeded"    // it took too long; a write may have happened
	ErrInternal            Reason = "internal"             // the service's log has the cause, under RequestID
)

// Issue is one problem with one member of a request; Path is dotted, such as title or roles.1.
type Issue struct{ Path, Message string }

// Error is a call that failed.
type Error struct {
	// Reason is stable. Of a failure that names none it is the status in snake case.
	Reason Reason
	// Message is for people; never match on it.
	Message string
	// Status is gRPC's word for the kind of failure.
	Status codes.Code
	// Issues are what is wrong with the request, in order; at most 20.
	Issues []Issue
	// FieldErrors has the first problem of each path.
	FieldErrors map[string]string
	// RetryAfter is how long to wait before another attempt. Zero when the service did not say.
	RetryAfter time.Duration
	// RequestID finds the call in the service's log.
	RequestID string
	// isOwn tells that the service has said all this, and not a proxy or gRPC.
	isOwn bool
	cause error
}

func (e *Error) Error() string { return string(e.Reason) + ": " + e.Message }

// Unwrap returns gRPC's own error, so that status.FromError finds it.
func (e *Error) Unwrap() error { return e.cause }

// Is tells whether the target is the reason; or context.Canceled or context.DeadlineExceeded, where that was the end.
func (e *Error) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Status == codes.Canceled
	case context.DeadlineExceeded:
		return e.Status == codes.DeadlineExceeded
	default:
		return target == e.Reason
	}
}

// failure makes an *Error of gRPC's.
func failure(err error, trailer metadata.MD) error {
	if err == nil {
		return nil
	}
	sent, _ := status.FromError(err)
	made := &Error{Reason: reasonOf(sent.Code()), Message: sent.Message(), Status: sent.Code(), cause: err}
	for _, detail := range sent.Details() {
		switch detail := detail.(type) {
		case *errorsv1.Error:
			made.Reason, made.Message, made.FieldErrors = Reason(detail.Code), detail.Message, detail.FieldErrors
			made.isOwn = true
			for _, issue := range detail.Issues {
				made.Issues = append(made.Issues, Issue{issue.Path, issue.Message})
			}
		case *errdetails.RetryInfo:
			made.RetryAfter = detail.RetryDelay.AsDuration()
		}
	}
	if id := trailer.Get("x-request-id"); len(id) > 0 {
		made.RequestID = id[0]
	}
	return made
}

// reasonOf is the reason of a failure of gRPC itself, or of a proxy: DeadlineExceeded is deadline_exceeded.
func reasonOf(code codes.Code) Reason {
	var word strings.Builder
	for i, letter := range code.String() {
		if i > 0 && unicode.IsUpper(letter) {
			word.WriteByte('_')
		}
		word.WriteRune(unicode.ToLower(letter))
	}
	return Reason(word.String())
}

func retryAfter(err error) time.Duration {
	if failed, ok := errors.AsType[*Error](err); ok {
		return failed.RetryAfter
	}
	return 0
}

// mayRetry tells whether another attempt may do better: a write is not done twice, as its attempts have one key.
func mayRetry(err error) bool {
	failed, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	switch failed.Status {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	case codes.ResourceExhausted:
		return failed.RetryAfter > 0
	default:
		return false
	}
}
