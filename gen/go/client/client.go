// Package tickets is a client of the Tickets service: every call of its handoff, helpdesk and ITSM APIs over gRPC.
//
//	client, err := tickets.New("tickets.example.com:443", tickets.WithAPIKey("itsm_sk_live_…"))
//	ticket, err := client.ITSM.Tickets.Create(ctx, &itsmv1.CreateTicketRequest{Subject: "…", Description: "…"})
//
// Requests and results are the generated messages. Lists and watches are iterators. Writes are safe to retry, and are
// retried. A call that fails returns an [*Error].
package tickets

import (
	"context"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Client makes calls over one connection. Goroutines may share it.
type Client struct {
	Handoff  Handoff
	Helpdesk Helpdesk
	ITSM     ITSM
	opened   *grpc.ClientConn
}

// Option is a setting of a client.
type Option func(*settings)

// Secret returns a credential, a fresh one where the last has expired. It is called for each attempt.
type Secret func(context.Context) (string, error)

type settings struct {
	token, apiKey Secret
	timeout       time.Duration
	resumeTimeout time.Duration
	attempts      int
	transport     credentials.TransportCredentials
	dial          []grpc.DialOption
}

// WithToken sets the bearer token, of the handoff and helpdesk APIs.
func WithToken(token string) Option { return WithTokenFrom(constant(token)) }

// WithTokenFrom sets where bearer tokens come from.
func WithTokenFrom(token Secret) Option { return func(s *settings) { s.token = token } }

// WithAPIKey sets the API key, of the ITSM API.
func WithAPIKey(key string) Option { return WithAPIKeyFrom(constant(key)) }

// WithAPIKeyFrom sets where API keys come from.
func WithAPIKeyFrom(key Secret) Option { return func(s *settings) { s.apiKey = key } }

// WithTimeout sets the time of a call whose context has no deadline, all attempts together: 10 seconds unless set. Each
// page of a list is a call.
func WithTimeout(timeout time.Duration) Option { return func(s *settings) { s.timeout = timeout } }

// WithResumeTimeout sets how long a watch tries to resume before it fails: 60 seconds unless set.
func WithResumeTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.resumeTimeout = timeout }
}

// WithAttempts sets how many attempts a call has in all: 4 unless set.
func WithAttempts(attempts int) Option { return func(s *settings) { s.attempts = attempts } }

// WithoutTLS sends everything, credentials too, as plain text: for a service on this machine.
func WithoutTLS() Option { return WithTransportCredentials(insecure.NewCredentials()) }

// WithTransportCredentials sets how connections are secured: TLS and the system's certificates unless set.
func WithTransportCredentials(transport credentials.TransportCredentials) Option {
	return func(s *settings) { s.transport = transport }
}

// WithDialOptions adds options of gRPC's own to the connection.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

// New makes a client of the service at an address. It connects at the first call.
func New(address string, options ...Option) (*Client, error) {
	made := made(options)
	dial := append([]grpc.DialOption{
		grpc.WithTransportCredentials(made.transport),
		// A page of large tickets is larger than gRPC's four megabytes.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		// While there are calls, pings find a peer that has stalled, for which a watch would wait for ever. The service
		// permits two a second.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	}, made.dial...)
	opened, err := grpc.NewClient(address, dial...)
	if err != nil {
		return nil, err
	}
	client := newClient(&session{opened, made})
	client.opened = opened
	return client, nil
}

// NewOver makes a client over a connection of your own, which stays yours to close. A page of large tickets may be larger
// than the 4 MiB that gRPC receives unless it is told otherwise (grpc.MaxCallRecvMsgSize).
func NewOver(connection grpc.ClientConnInterface, options ...Option) *Client {
	return newClient(&session{connection, made(options)})
}

// Close closes the connection that New has opened. Calls in flight are cancelled.
func (c *Client) Close() error {
	if c.opened == nil {
		return nil
	}
	return c.opened.Close()
}

func newClient(s *session) *Client {
	return &Client{Handoff: newHandoff(s), Helpdesk: newHelpdesk(s), ITSM: newITSM(s)}
}

func made(options []Option) settings {
	made := settings{
		timeout: 10 * time.Second, resumeTimeout: time.Minute, attempts: 4, transport: credentials.NewTLS(nil),
	}
	for _, option := range options {
		option(&made)
	}
	return made
}

func constant(secret string) Secret {
	return func(context.Context) (string, error) { return secret, nil }
}
