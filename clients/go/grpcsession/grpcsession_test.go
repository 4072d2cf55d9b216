package grpcsession_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	sidecar "session-sidecar"
	"session-sidecar/grpcsession"
	"session-sidecar/internal/program"
	"session-sidecar/sidecartest"
)

var ctx = context.Background()

const (
	check = "/grpc.health.v1.Health/Check"
	watch = "/grpc.health.v1.Health/Watch"
)

// service is gRPC's own health service, which has a call and a stream. It notes the session of each.
type service struct {
	*health.Server
	seen chan *sidecar.RequestSession
}

func (s *service) Check(ctx context.Context, request *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s.seen <- sidecar.FromContext(ctx)
	return s.Server.Check(ctx, request)
}

func (s *service) Watch(_ *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	s.seen <- sidecar.FromContext(stream.Context())
	return stream.Send(&healthpb.HealthCheckResponse{})
}

type server struct {
	*service
	client healthpb.HealthClient
}

func serve(t *testing.T, options grpcsession.Options) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	guarded := grpc.NewServer(
		grpc.UnaryInterceptor(grpcsession.UnaryServerInterceptor(options)), grpc.StreamInterceptor(grpcsession.StreamServerInterceptor(options)),
	)
	s := &server{service: &service{health.NewServer(), make(chan *sidecar.RequestSession, 1)}}
	healthpb.RegisterHealthServer(guarded, s.service)
	go func() { _ = guarded.Serve(listener) }()
	t.Cleanup(guarded.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.client = healthpb.NewHealthClient(conn)
	return s
}

// ask makes a call and a stream with these ids, and answers what the handlers saw, or both refusals.
func (s *server) ask(t *testing.T, key string, ids ...sidecar.ID) (seen []*sidecar.RequestSession, refused []*status.Status) {
	t.Helper()
	patient, cancel := context.WithTimeout(ctx, program.Patience)
	defer cancel()
	for _, id := range ids {
		patient = metadata.AppendToOutgoingContext(patient, key, string(id))
	}
	_, err := s.client.Check(patient, &healthpb.HealthCheckRequest{})
	if err != nil {
		refused = append(refused, status.Convert(err))
	} else {
		seen = append(seen, <-s.seen)
	}
	stream, err := s.client.Watch(patient, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		refused = append(refused, status.Convert(err))
	} else {
		seen = append(seen, <-s.seen)
	}
	return seen, refused
}

func infoOf(t *testing.T, told *status.Status) *errdetails.ErrorInfo {
	t.Helper()
	for _, detail := range told.Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is && info.GetDomain() == "sessionsidecar.v1" {
			return info
		}
	}
	t.Fatal("nothing says why:", told)
	return nil
}

func create(t *testing.T, client *sidecar.Client) sidecar.ID {
	t.Helper()
	created, err := client.Create(ctx, sidecar.CreateOptions{Subject: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	return created.ID
}

func TestTheSessionOfACallAndOfAStream(t *testing.T) {
	client := program.Start(t).Client(t)
	s := serve(t, grpcsession.Options{Client: client, Passive: func(method string) bool { return method == watch }})
	id := create(t, client)
	seen, refused := s.ask(t, "session-id", id)
	if len(seen) != 2 || len(refused) > 0 {
		t.Fatal(seen, refused)
	}
	for i, rule := range []string{"unmatched", "declared-background"} {
		if seen[i].ID != id || seen[i].Live().Touch.Rule != rule {
			t.Error(seen[i].Live().Touch, rule)
		}
	}
}

func TestACallWhoseSessionIsOverIsToldWhy(t *testing.T) {
	client := program.Start(t).Client(t)
	s := serve(t, grpcsession.Options{Client: client, MetadataKey: "x-session"})
	id := create(t, client)
	if _, err := sidecartest.Advance(ctx, client, 21*time.Second); err != nil {
		t.Fatal(err)
	}
	for reason, ids := range map[string][]sidecar.ID{
		"SESSION_ENDED": {id}, "SESSION_UNKNOWN": {program.NeverIssued}, "SESSION_MISSING": nil,
	} {
		seen, refused := s.ask(t, "x-session", ids...)
		if len(seen) > 0 || len(refused) != 2 {
			t.Fatal(reason, seen, refused)
		}
		for _, each := range refused {
			info := infoOf(t, each)
			if each.Code() != codes.Unauthenticated || info.GetReason() != reason || (info.GetMetadata()["session_ref"] == "") != (ids == nil) {
				t.Error(each, info)
			}
			if reason == "SESSION_ENDED" && (info.GetMetadata()["reason"] != "IDLE_TIMEOUT" || info.GetMetadata()["end_time"] == "") {
				t.Error(info)
			}
		}
	}
	for _, ids := range [][]sidecar.ID{{id, id}, {"short"}, {""}} {
		if _, refused := s.ask(t, "x-session", ids...); len(refused) != 2 || infoOf(t, refused[0]).GetReason() != "SESSION_MISSING" {
			t.Error(refused)
		}
	}
}

func TestAPublicMethodIsOnlyChecked(t *testing.T) {
	client := program.Start(t).Client(t)
	s := serve(t, grpcsession.Options{Client: client, Public: func(method string) bool { return method == check || method == watch }})
	for _, ids := range [][]sidecar.ID{nil, {program.NeverIssued}} {
		if seen, refused := s.ask(t, "session-id", ids...); len(seen) != 2 || seen[0] != nil || seen[1] != nil {
			t.Error(seen, refused)
		}
	}
	if seen, refused := s.ask(t, "session-id", create(t, client)); len(seen) != 2 || seen[0].Live().Touch != nil || seen[0].Live().Session.Subject != "ada" {
		t.Error(seen, refused)
	}
}

func TestAFormerIDStillWorksForCallsInFlight(t *testing.T) {
	client := program.Start(t).Client(t)
	s := serve(t, grpcsession.Options{Client: client})
	id := create(t, client)
	if _, err := client.Rotate(ctx, id, sidecar.RotateOptions{}); err != nil {
		t.Fatal(err)
	}
	if seen, refused := s.ask(t, "session-id", id); len(seen) != 2 || !seen[0].Live().Status.Alias {
		t.Error(seen, refused)
	}
}

func TestWhileNobodyCanKnowTheFailPolicyDecides(t *testing.T) {
	client := program.Client(t, program.Nobody(t), sidecar.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	seen, refused := serve(t, grpcsession.Options{Client: client}).ask(t, "session-id", program.NeverIssued)
	if len(seen) > 0 || len(refused) != 2 {
		t.Fatal(seen, refused)
	}
	for _, each := range refused {
		retries := false
		for _, detail := range each.Details() {
			retry, is := detail.(*errdetails.RetryInfo)
			retries = retries || (is && retry.GetRetryDelay().AsDuration() == time.Second)
		}
		if each.Code() != codes.Unavailable || infoOf(t, each).GetReason() != "UNAVAILABLE" || !retries {
			t.Error(each)
		}
	}
	open := serve(t, grpcsession.Options{Client: client.With(sidecar.WithFail(sidecar.FailOpen))})
	if seen, refused := open.ask(t, "session-id", program.NeverIssued); len(seen) != 2 || seen[0].Live() != nil || !seen[0].Answer.Allowed() {
		t.Error(seen, refused)
	}
}
