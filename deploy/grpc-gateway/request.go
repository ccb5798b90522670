package main

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

var (
	plainID      = regexp.MustCompile(`^[\w\-.~:/+=@]{1,128}$`)
	unplain      = regexp.MustCompile(`[^\w\-.~:/+=@]+`)
	slashes      = regexp.MustCompile(`/+`)
	escapedSlash = regexp.MustCompile(`(?i)%(2f|5c)`)
	unprintable  = regexp.MustCompile(`[^\x20-\x7e]`)
)

// requestIDOf is the caller's, short and plain, as it goes into logs and rows; or else a new one.
func requestIDOf(r *http.Request) string {
	given := r.Header.Get(requestID)
	if plainID.MatchString(given) {
		return given
	}
	given = unplain.ReplaceAllString(given, "-")
	if given = given[:min(len(given), 128)]; strings.Trim(given, "-") == "" {
		return rand.Text()
	}
	return given
}

// plainPath takes several slashes for one, and a path with one at its end for the path.
func plainPath(path string) string {
	path = slashes.ReplaceAllString(path, "/")
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}

// refusal is why a request goes no further; nil when it does. Credentials that are no plain text are none.
func refusal(r *http.Request) *failure {
	size := len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value)
		}
	}
	if size > 16<<10 {
		return &longHeaders
	}
	if !isText(r) {
		return &invalid
	}
	for _, name := range []string{"Authorization", "X-Api-Key", "Idempotency-Key", "If-Match"} {
		if given := r.Header.Values(name); len(given) > 1 {
			return &invalid // which of them counts?
		} else if len(given) == 0 || !unprintable.MatchString(given[0]) {
			continue
		} else if name == "Idempotency-Key" || name == "If-Match" {
			return &invalid // without it the request would be another
		}
		r.Header.Del(name)
	}
	r.Header.Del("Grpc-Timeout")
	isRead := r.Method == http.MethodGet || r.Method == http.MethodHead
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !isRead && !strings.EqualFold(coding, "identity") {
		return &compressed
	}
	return nil
}

// isText tells whether path and query are what a protobuf string can have, without slashes that are none.
func isText(r *http.Request) bool {
	query, err := url.QueryUnescape(r.URL.RawQuery)
	text := r.URL.Path + query
	return err == nil && utf8.ValidString(text) && !strings.Contains(text, "\x00") &&
		!strings.Contains(r.RequestURI, `\`) && !escapedSlash.MatchString(r.URL.EscapedPath())
}
