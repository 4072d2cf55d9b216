// Package sidecar is the client of session-sidecar.
//
//	client, err := sidecar.New("") // SESSION_SIDECAR_TARGET, else 127.0.0.1:50151; connects at its first call
//	created, err := client.Create(ctx, sidecar.CreateOptions{Subject: "ada"})
//	answer, err := client.Touch(ctx, created.ID, sidecar.TouchOptions{Activity: sidecar.ActivityUser})
//	if answer.Allowed() { … }
//
// Touch and Check answer [*Live], [*Ended], [*Unknown] or [*Unreachable]; the other verbs answer, or return an error of this package.
// Whatever is said of units, bounds and defaults in the .proto holds here too; a duration of 0 is one that is not given.
package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"session-sidecar/internal/renew"
	pb "session-sidecar/proto/sessionsidecar/v1"
)

const (
	// DefaultTarget is where a Client connects to if nothing else is said.
	DefaultTarget = "127.0.0.1:50151"
	// DefaultDeadline is how long a call of a Client takes at most, connecting included.
	DefaultDeadline = 250 * time.Millisecond
)

type settings struct {
	target    string
	tenant    string
	fail      Fail
	deadline  time.Duration
	logger    *slog.Logger
	dial      []grpc.DialOption
	files     credentialFiles
	scheduler renew.Scheduler
}

// Option is a setting of a client.
type Option func(*settings)

// WithTenant sets the tenant of all calls. Default: "".
func WithTenant(tenant string) Option { return func(s *settings) { s.tenant = tenant } }

// WithFail sets what answers allow while nobody knows, and nothing else. Default: FailClosed.
func WithFail(fail Fail) Option { return func(s *settings) { s.fail = fail } }

// WithDeadline sets how long a call takes at most, connecting included; over 0. A context with an earlier deadline wins. Default:
// DefaultDeadline, of an Admin 10 s.
func WithDeadline(deadline time.Duration) Option { return func(s *settings) { s.deadline = deadline } }

// WithLogger sets who is told, in one warning each, that the sidecar no longer answers, that it does again, that a watch was cut off
// and that a hold could not be renewed. Default: slog.Default().
func WithLogger(logger *slog.Logger) Option { return func(s *settings) { s.logger = logger } }

// WithDialOptions adds options of gRPC for each connection, such as an interceptor. Only for New and NewAdmin: a copy made by With
// keeps its connection.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial[:len(s.dial):len(s.dial)], options...) }
}

// WithScheduler is for the fake, whose own clock renews holds.
func WithScheduler(scheduler renew.Scheduler) Option {
	return func(s *settings) { s.scheduler = scheduler }
}

func (s *settings) log() *slog.Logger {
	if s.logger != nil {
		return s.logger
	}
	return slog.Default()
}

func (s *settings) check() error {
	if s.deadline <= 0 {
		return invalid("deadline", "must be over 0")
	}
	return nil
}

// caller carries out calls over one connection.
type caller struct {
	settings
	credentials []grpc.DialOption
	conn        *grpc.ClientConn
	away        *atomic.Bool
}

func newCaller(target string, deadline time.Duration, options []Option) (*caller, error) {
	c := &caller{settings: settings{target: targetOf(target), deadline: deadline, scheduler: renew.Timers{}}, away: new(atomic.Bool)}
	c.files = filesOfEnvironment()
	for _, option := range options {
		option(&c.settings)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	var err error
	if c.credentials, err = c.files.credentials(c.target); err != nil {
		return nil, err
	}
	conn, err := c.open()
	if err != nil {
		return nil, err
	}
	c.conn = conn
	return c, nil
}

func (c *caller) with(options []Option) (*caller, error) {
	changed := *c
	for _, option := range options {
		option(&changed.settings)
	}
	return &changed, changed.check()
}

// targetOf is where to connect: in gRPC's words, or https://HOST:PORT.
func targetOf(given string) string {
	if given == "" {
		given = os.Getenv("SESSION_SIDECAR_TARGET")
	}
	if given == "" {
		given = DefaultTarget
	}
	if strings.HasPrefix(given, "unix:") {
		return given
	}
	for _, scheme := range []string{"http://", "tcp://"} {
		given = strings.TrimPrefix(given, scheme)
	}
	return strings.TrimRight(given, "/")
}

// open makes a connection, which connects when it is first used.
func (c *caller) open() (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		// The sidecar is beside us: http_proxy is not meant, its name has no TXT records, and it is back soon after a restart.
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
	}
	return grpc.NewClient(strings.TrimPrefix(c.target, https), slices.Concat(options, c.credentials, c.dial)...)
}

// Target is where it connects to: in gRPC's words, or https://HOST:PORT.
func (c *caller) Target() string { return c.target }

// Conn is its connection, for the generated stubs: what this client has no words for. Such calls have the deadline of their context.
func (c *caller) Conn() grpc.ClientConnInterface { return c.conn }

// Close closes the connection. Calls after it return ErrClosed. Copies made by With share the connection.
func (c *caller) Close() error { return c.conn.Close() }

// A connection that broke may be taken for whole for a moment more.
var pauses = []time.Duration{5 * time.Millisecond, 20 * time.Millisecond}

// call carries out one call, again if its connection was lost and `again` says that nobody would notice. It answers a failure of the
// wire, or an error that is none: the caller's context was cancelled, the client is closed, the request is not Unicode.
func call[Q proto.Message, R any](
	ctx context.Context, c *caller, again bool, invoke func(context.Context, Q, ...grpc.CallOption) (R, error), request Q,
) (R, *failure, error) {
	limited, cancel := context.WithTimeout(ctx, c.deadline)
	defer cancel()
	rest := pauses
	if !again || c.away.Load() { // Of a sidecar that is away nobody expects an answer.
		rest = nil
	}
	for {
		answer, err := invoke(limited, request)
		if err == nil {
			c.heard(nil)
			return answer, nil, nil
		}
		f := decode(err)
		switch {
		case context.Cause(ctx) != nil && errors.Is(ctx.Err(), context.Canceled):
			return answer, nil, ctx.Err()
		case errors.Is(err, grpc.ErrClientConnClosing):
			return answer, nil, ErrClosed
		case status.Code(err) == codes.Internal && notUnicode(request.ProtoReflect()) != "":
			return answer, nil, invalid(notUnicode(request.ProtoReflect()), "is not valid UTF-8")
		}
		if deadline, _ := limited.Deadline(); f.lostConnection() && len(rest) > 0 && time.Until(deadline) > rest[0] {
			time.Sleep(rest[0])
			rest = rest[1:]
			continue
		}
		if f.code != "DEADLINE_EXCEEDED" || ctx.Err() == nil { // A caller in a hurry says nothing of the sidecar.
			c.heard(f)
		}
		return answer, f, nil
	}
}

// heard says once that the sidecar is away, and once that it is back.
func (c *caller) heard(f *failure) {
	away := f != nil && f.away()
	if c.away.Load() == away || !c.away.CompareAndSwap(!away, away) {
		return
	}
	if away {
		c.log().Warn("session-sidecar does not answer", "target", c.target, "code", f.code, "message", f.message)
	} else {
		c.log().Warn("session-sidecar answers again", "target", c.target)
	}
}

// Client is a client of the sidecar. Make one, share it among goroutines, and Close it at the end.
type Client struct {
	*caller
	sessions pb.SessionServiceClient
}

// New makes a client of the sidecar at `target`, such as "127.0.0.1:50151", "unix:/run/session-sidecar.sock" or, for TLS,
// "https://sidecar.example:50151"; if it is empty, at SESSION_SIDECAR_TARGET, else at DefaultTarget. It connects at its first call.
// Errors: *InvalidRequestError, of options and of files that will not do.
func New(target string, options ...Option) (*Client, error) {
	c, err := newCaller(target, DefaultDeadline, options)
	if err != nil {
		return nil, err
	}
	return &Client{c, pb.NewSessionServiceClient(c.conn)}, nil
}

// With is the same client, over the same connection, with other settings. It panics if a setting is out of its bounds.
func (c *Client) With(options ...Option) *Client {
	changed, err := c.with(options)
	if err != nil {
		panic(err)
	}
	return &Client{changed, c.sessions}
}

// FailPolicy is what its answers allow while nobody knows.
func (c *Client) FailPolicy() Fail { return c.fail }

// Logger is who is told what nobody asked for.
func (c *Client) Logger() *slog.Logger { return c.log() }
