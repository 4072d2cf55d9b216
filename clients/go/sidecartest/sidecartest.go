// Package sidecartest is for tests against a sidecar in `serve --dev`, or a fake one: its clock goes when you say so.
package sidecartest

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	sidecar "session-sidecar"
	devpb "session-sidecar/proto/sessionsidecar/dev/v1"
)

// Advance moves the clock of the client's sidecar forward, by over 0 and at most 365 days, and answers its new time. All that became due
// is then in the event log. Errors: those of gRPC; UNIMPLEMENTED of a sidecar without --dev.
func Advance(ctx context.Context, client *sidecar.Client, by time.Duration) (time.Time, error) {
	answer, err := devpb.NewTestClockServiceClient(client.Conn()).Advance(ctx, &devpb.AdvanceRequest{Duration: durationpb.New(by)})
	if err != nil {
		return time.Time{}, err
	}
	return answer.GetServerTime().AsTime(), nil
}
