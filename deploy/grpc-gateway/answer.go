package main

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"

	"google.golang.org/grpc/codes"
)

const requestID = "X-Request-Id"

// failure is one that has no document of the service's.
type failure struct {
	status       int
	code, detail string
}

// The documented words; REST callers of another gateway read the same.
var (
	invalid          = failure{http.StatusBadRequest, "validation_error", "The request is not valid"}
	unauthenticated  = failure{http.StatusUnauthorized, "unauthenticated", "Missing authentication credentials"}
	forbidden        = failure{http.StatusForbidden, "forbidden", "You are not allowed to do this"}
	notFound         = failure{http.StatusNotFound, "not_found", "Not Found"}
	methodNotAllowed = failure{http.StatusMethodNotAllowed, "method_not_allowed", "Method Not Allowed"}
	tooSlow          = failure{http.StatusRequestTimeout, "deadline_exceeded", "The request did not arrive in time"}
	tooLarge         = failure{http.StatusRequestEntityTooLarge, "payload_too_large", "The request is too large"}
	compressed       = failure{http.StatusUnsupportedMediaType, "unsupported_media_type", "The body must not be compressed"}
	longHeaders      = failure{http.StatusRequestHeaderFieldsTooLarge, "payload_too_large", "The request headers are too large"}
	internal         = failure{http.StatusInternalServerError, "internal", "Internal error"}
	unavailable      = failure{http.StatusServiceUnavailable, "unavailable", "The service is currently unavailable"}
	deadlineExceeded = failure{http.StatusGatewayTimeout, "deadline_exceeded", "The request took too long"}
)

// failureOf is what the service could not say as a document, or what could not reach it.
func failureOf(code codes.Code) failure {
	switch code {
	case codes.InvalidArgument:
		return invalid
	case codes.Unauthenticated:
		return unauthenticated
	case codes.PermissionDenied:
		return forbidden
	case codes.Unimplemented:
		return notFound
	case codes.DeadlineExceeded:
		return deadlineExceeded
	case codes.Canceled, codes.ResourceExhausted, codes.Unavailable:
		return unavailable
	default:
		return internal
	}
}

var itsmPath = regexp.MustCompile(`^/api/v1([/?#%\\]|$)`)
var helpdeskPath = regexp.MustCompile(`^/api/v1/helpdesk([/?#%\\]|$)`)

// answer writes the status and headers that the service has sent beside the bytes of an answer.
type answer struct {
	http.ResponseWriter
	path                     string // as it was called, with its query
	isITSM, isHead, hasBegun bool
}

func newAnswer(w http.ResponseWriter, r *http.Request) *answer {
	w.Header().Set(requestID, requestIDOf(r))
	isITSM := itsmPath.MatchString(r.URL.Path) && !helpdeskPath.MatchString(r.URL.Path)
	return &answer{w, r.URL.RequestURI(), isITSM, r.Method == http.MethodHead, false}
}

// Unwrap is where flushes go.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader sends the status that the service has told, or else this one.
func (a *answer) WriteHeader(status int) {
	if a.hasBegun {
		return
	}
	a.hasBegun = true
	headers := a.Header()
	if sent, err := strconv.Atoi(headers.Get("X-Http-Status")); err == nil {
		status = sent
	}
	if length := headers.Get("X-Content-Length"); length != "" {
		headers.Set("Content-Length", length) // of what a GET would be answered
	}
	if headers.Get("Cache-Control") == "" {
		headers.Set("Cache-Control", "private, no-cache")
	}
	headers.Del("X-Http-Status")
	headers.Del("X-Content-Length")
	if status == http.StatusNoContent || status == http.StatusNotModified {
		headers.Del("Content-Type")
		headers.Del("Content-Length")
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(data []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if len(data) == 0 {
		return 0, nil
	}
	return a.ResponseWriter.Write(data)
}

// fail answers with a failure, in the form of the API whose path was called.
func (a *answer) fail(failed failure) {
	document := map[string]any{"error": failed.detail, "code": failed.code}
	challenge := `Bearer realm="tickets"`
	if failed == unavailable {
		document["retryAfter"] = 1
		a.Header().Set("Retry-After", "1")
	}
	if a.isITSM {
		document, challenge = map[string]any{"detail": failed.detail}, "ApiKey"
	}
	switch failed {
	case unauthenticated:
		a.Header().Set("WWW-Authenticate", challenge)
	case compressed:
		a.Header().Set("Accept-Encoding", "identity")
	}
	data, _ := json.Marshal(document)
	a.Header().Set("Content-Type", "application/json")
	a.Header().Set("Content-Length", strconv.Itoa(len(data)))
	a.WriteHeader(failed.status)
	_, _ = a.Write(data)
}
