// Package grpcsession has gRPC servers ask session-sidecar about each call: interceptors that read the session's id from the metadata.
package grpcsession

import (
	"context"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	sidecar "session-sidecar"
	"session-sidecar/internal/gate"
)

// Options say how a server's calls name their sessions. Only Client is required.
type Options struct {
	Client *sidecar.Client
	// MetadataKey has the session's id, once. Default: "session-id".
	MetadataKey string
	// Public says which methods, such as "/shop.v1.Catalog/List", pass without a session. They are checked, not touched: no time runs.
	Public func(fullMethod string) bool
	// Passive says which methods are never activity: polls. Default: none; the policy's rules decide by the path, which is the method.
	Passive func(fullMethod string) bool
}

// UnaryServerInterceptor asks about each call before its handler. A session that lives is sidecar.FromContext(ctx). One that is over
// is refused as UNAUTHENTICATED with google.rpc.ErrorInfo, domain "sessionsidecar.v1": its reason is SESSION_ENDED (its metadata says
// why and when), SESSION_UNKNOWN or SESSION_MISSING. While nobody can know the client's fail policy decides, and UNAVAILABLE with
// google.rpc.RetryInfo says so. Whether a method only reads is not known: a session under a passive policy may call all of them.
func UnaryServerInterceptor(options Options) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := options.judged(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return handler(ctx, request)
	}
}

// StreamServerInterceptor is UnaryServerInterceptor for streams. It asks when a stream begins; for one that is to be closed when its
// session ends, watch the session.
func StreamServerInterceptor(options Options) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := options.judged(stream.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return handler(server, &withContext{stream, ctx})
	}
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *withContext) Context() context.Context { return s.ctx }

func (o *Options) judged(ctx context.Context, method string) (context.Context, error) {
	key := o.MetadataKey
	if key == "" {
		key = "session-id"
	}
	question := gate.Question{Hints: &sidecar.Hints{Path: method}}
	for _, id := range metadata.ValueFromIncomingContext(ctx, key) {
		question.IDs = append(question.IDs, sidecar.ID(id))
	}
	question.Public = o.Public != nil && o.Public(method)
	question.Passive = o.Passive != nil && o.Passive(method)
	verdict, err := gate.Ask(ctx, o.Client, question)
	switch {
	case err != nil:
		return nil, status.FromContextError(err).Err()
	case verdict.Session != nil:
		return sidecar.NewContext(ctx, verdict.Session), nil
	case question.Public:
		return ctx, nil
	}
	if verdict.Cause != nil {
		o.Client.Logger().ErrorContext(ctx, "session-sidecar cannot be asked about a call", "error", verdict.Cause)
	}
	return nil, refusal(verdict)
}

func retryDelay(answer sidecar.Answer) time.Duration {
	if unreachable, is := answer.(*sidecar.Unreachable); is && unreachable.RetryAfter > 0 {
		return unreachable.RetryAfter
	}
	return time.Second
}

func refusal(verdict gate.Verdict) error {
	code, message := codes.Unauthenticated, "the call names no session: log in"
	info := &errdetails.ErrorInfo{Domain: "sessionsidecar.v1", Reason: verdict.Error, Metadata: map[string]string{}}
	tell := func(key, value string) {
		if value != "" {
			info.Metadata[key] = value
		}
	}
	details := []protoadapt.MessageV1{protoadapt.MessageV1Of(info)}
	if verdict.Error == gate.Unavailable {
		code, message = codes.Unavailable, "for a moment it cannot be told who is logged in: try again"
		retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay(verdict.Answer))}
		details = append(details, protoadapt.MessageV1Of(retry))
	}
	switch over := verdict.Answer.(type) {
	case *sidecar.Unknown:
		message = "the session is not known: log in"
		tell("session_ref", string(over.SessionRef))
	case *sidecar.Ended:
		message = "the session has ended: log in"
		tell("session_ref", string(over.SessionRef))
		tell("reason", string(over.End.Reason))
		if !over.End.EndTime.IsZero() {
			tell("end_time", over.End.EndTime.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
		}
	}
	told, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		return status.Error(code, message)
	}
	return told.Err()
}
