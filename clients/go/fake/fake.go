// Package fake is a sidecar in the process of your tests: no program, no network, and a clock that goes when you say so.
//
//	sidecar := fake.Start(t, fake.Policy(`idle_timeout = "15m"`))
//	created, _ := sidecar.Client().Create(ctx, client.CreateOptions{Subject: "ada"})
//	sidecar.Advance(16 * time.Minute)
//
// It is asked by gRPC in memory, so your interceptors and middlewares see what they see of the program. It passes the conformance
// scenario in the program's place. What it has not: histories, policies and counts for administrators (UNIMPLEMENTED); bounds on the
// keys of a policy (`session-sidecar check-config` knows them); a policy that changes while it runs; a shared store; caps on sessions
// and streams; and it is always there.
package fake

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	sidecar "session-sidecar"
	devpb "session-sidecar/proto/sessionsidecar/dev/v1"
	pb "session-sidecar/proto/sessionsidecar/v1"
)

// Sidecar is a fake sidecar.
type Sidecar struct {
	server   *server
	grpc     *grpc.Server
	listener *bufconn.Listener
	client   *sidecar.Client
}

type settings struct {
	policies string
	tenants  []string
	problem  error
}

// Option is a setting of a fake.
type Option func(*settings)

// Policy gives the keys of the policy `default`, as in the [policy.default] of a policy file, such as `idle_timeout = "15m"`. What is not
// given is as in the policy that a new user meets.
func Policy(keys string) Option {
	return func(s *settings) { s.policies = "[policy.default]\n" + keys }
}

// PolicyFile reads the policies of a sidecar's policy file.
func PolicyFile(path string) Option {
	return func(s *settings) {
		text, err := os.ReadFile(path)
		s.policies, s.problem = string(text), err
	}
}

// Tenants are those that it serves. Default: "".
func Tenants(tenants ...string) Option { return func(s *settings) { s.tenants = tenants } }

// New makes a fake. Close it at the end. Errors: what cannot be read of a policy.
func New(options ...Option) (*Sidecar, error) {
	chosen := &settings{policies: "[policy.default]", tenants: []string{""}}
	for _, option := range options {
		option(chosen)
	}
	if chosen.problem != nil {
		return nil, chosen.problem
	}
	policies, err := readPolicies(chosen.policies)
	if err != nil {
		return nil, fmt.Errorf("session-sidecar: the policy of the fake: %w", err)
	}
	f := &Sidecar{server: newServer(policies, chosen.tenants), grpc: grpc.NewServer(), listener: bufconn.Listen(1 << 20)}
	pb.RegisterSessionServiceServer(f.grpc, f.server)
	pb.RegisterSessionAdminServiceServer(f.grpc, f.server)
	devpb.RegisterTestClockServiceServer(f.grpc, &clock{server: f.server})
	go func() { _ = f.grpc.Serve(f.listener) }()
	if f.client, err = sidecar.New(target, f.options(nil)...); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// TB is what Start needs of a *testing.T.
type TB interface {
	Helper()
	Fatal(...any)
	Cleanup(func())
}

// Start makes a fake for a test, and closes it at its end.
func Start(t TB, options ...Option) *Sidecar {
	t.Helper()
	f, err := New(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// Where there is nothing: the dialer does not look at it.
const target = "passthrough:///fake"

// options are those of its clients. It answers at once, but a test's machine may be busy.
func (f *Sidecar) options(own []sidecar.Option) []sidecar.Option {
	return append([]sidecar.Option{
		sidecar.WithDialOptions(grpc.WithContextDialer(f.dial)), sidecar.WithScheduler(f.server), sidecar.WithDeadline(20 * time.Second),
		sidecar.WithTokenFile(""),
	}, own...)
}

func (f *Sidecar) dial(ctx context.Context, _ string) (net.Conn, error) {
	return f.listener.DialContext(ctx)
}

// Client is a client of it, whose holds are renewed by its clock. The fake closes it; other settings are Client().With(…).
func (f *Sidecar) Client() *sidecar.Client { return f.client }

// Admin makes a sidecar.Admin of it, which lists and ends sessions. Close it.
func (f *Sidecar) Admin(options ...sidecar.Option) (*sidecar.Admin, error) {
	return sidecar.NewAdmin(target, f.options(options)...)
}

// Now is its clock, which stands still but for Advance.
func (f *Sidecar) Now() time.Time {
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	return f.server.now
}

// Advance moves the clock forward, from one thing that is due to the next, and answers its new time. All that became due has happened
// then, and each Holding has renewed its hold. It panics if `by` is negative.
func (f *Sidecar) Advance(by time.Duration) time.Time {
	if by < 0 {
		panic("session-sidecar: the clock of the fake only goes forward: advance by 0 or more")
	}
	return f.server.advance(by)
}

// Drain tells watches Draining, as if it were about to stop. It goes on.
func (f *Sidecar) Drain() { f.server.drain() }

// Close ends it: watches, and calls of its clients.
func (f *Sidecar) Close() {
	if f.client != nil {
		_ = f.client.Close()
	}
	f.grpc.Stop()
}

// clock is the test clock of `serve --dev`, so that a test moves either by the same call.
type clock struct {
	devpb.UnimplementedTestClockServiceServer
	server *server
}

func (c *clock) Advance(_ context.Context, q *devpb.AdvanceRequest) (*devpb.AdvanceResponse, error) {
	b := &bounds{}
	by := b.between("duration", q.GetDuration(), true, 0, 365*day)
	if err := b.err(); err != nil {
		return nil, err
	}
	return &devpb.AdvanceResponse{ServerTime: stamp(c.server.advance(by))}, nil
}
