package tickets

import (
	"context"
	"errors"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// pageSize is the limit of a page, where the caller has not set one.
func pageSize(limit *int32) *int32 {
	if limit == nil {
		return new(int32(100))
	}
	return limit
}

// pages are the items of a list, page after page. `read` reads the page at a position, and says where the next one is:
// nil on the last. A failure is the last that is yielded.
func pages[Item, Position any](
	first *Position, read func(at *Position) (items []Item, next *Position, err error),
) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for at := first; ; {
			items, next, err := read(at)
			if err != nil {
				var none Item
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == nil {
				return
			}
			at = next
		}
	}
}

// watch is what a watch sends; it resumes after the last cursor when the service goes away or the token has expired.
// Anything else that ends it, and a service that does not come back in time, is the last that is yielded.
func watch[Response any, Message interface {
	*Response
	GetCursor() string
}](
	ctx context.Context, s *session, first *string,
	open func(ctx context.Context, cursor *string) (grpc.ServerStreamingClient[Response], error),
) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		attempt, cursor := 0, first
		var giveUp time.Time
		for {
			stream, err := open(ctx, cursor)
			for err == nil {
				var received *Response
				if received, err = stream.Recv(); err != nil {
					break
				}
				message := Message(received)
				attempt, cursor = 0, new(message.GetCursor())
				if !yield(message, nil) {
					return
				}
			}
			if attempt++; attempt == 1 {
				giveUp = time.Now().Add(s.resumeTimeout)
			}
			err = ended(ctx, s, err)
			pause := wait(err, attempt)
			if !mayResume(err, attempt) || time.Now().Add(pause).After(giveUp) || !sleep(ctx, pause) {
				yield(nil, err)
				return
			}
		}
	}
}

// ended is why a watch has ended: one never does by itself. Where it broke on the way, the service is unavailable.
func ended(ctx context.Context, s *session, err error) error {
	failed, isOurs := errors.AsType[*Error](err)
	if !isOurs {
		return &Error{Reason: ErrUnavailable, Message: "The watch ended", Status: codes.Unavailable, cause: err}
	}
	if failed.isBreak() && ctx.Err() == nil && !s.isClosed() {
		return &Error{Reason: ErrUnavailable, Message: failed.Message, Status: codes.Unavailable, cause: failed.cause}
	}
	return err
}

// isBreak tells whether a stream broke on the way: a proxy resets it when the process behind it has died, and gRPC has
// these words for that. The service's own failures with such a status have details.
func (e *Error) isBreak() bool {
	switch e.Status {
	case codes.Internal, codes.Unknown, codes.Canceled:
		return !e.isOwn
	default:
		return false
	}
}

// mayResume tells whether a watch resumes after an error; of an expired token it tries once whether there is a fresh one.
func mayResume(err error, attempt int) bool {
	if errors.Is(err, ErrTokenExpired) {
		return attempt == 1
	}
	failed, _ := errors.AsType[*Error](err)
	return failed.Status == codes.Unavailable || failed.Status == codes.ResourceExhausted && failed.RetryAfter > 0
}
