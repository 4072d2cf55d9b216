package sidecar_test

import (
	"context"
	"errors"
	"testing"
	"time"

	sidecar "session-sidecar"
	"session-sidecar/internal/program"
)

func holds(t *testing.T, client *sidecar.Client, id sidecar.ID) map[string]sidecar.SessionHold {
	t.Helper()
	answer, err := client.Check(ctx, id)
	found := map[string]sidecar.SessionHold{}
	for _, each := range is[*sidecar.Live](t, answer, err).Session.Holds {
		found[each.HoldID] = each
	}
	return found
}

func holding(t *testing.T, client *sidecar.Client, id sidecar.ID, options sidecar.HoldingOptions) *sidecar.Holding {
	t.Helper()
	hold, err := client.Holding(ctx, id, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hold.Release)
	return hold
}

func TestAHoldLivesUntilItsRelease(t *testing.T) {
	client := program.Start(t).Client(t)
	id := create(t, client, sidecar.CreateOptions{}).ID
	working, cancel := context.WithCancel(ctx)
	hold, err := client.Holding(working, id, sidecar.HoldingOptions{Purpose: "monthly report"})
	if err != nil {
		t.Fatal(err)
	}
	if found := holds(t, client, id)[hold.ID()]; found.Purpose != "monthly report" || found.Kind != sidecar.HoldWork {
		t.Errorf("%+v", found)
	}
	if hold.Ended() != nil || hold.Problem() != nil || hold.Err() != nil {
		t.Error(hold)
	}
	cancel() // Work that was cancelled releases too.
	hold.Release()
	hold.Release()
	if left := holds(t, client, id); len(left) > 0 || hold.Problem() != nil {
		t.Error(left, hold)
	}
}

func TestAHoldIsRenewedWellBeforeItLapses(t *testing.T) {
	process := program.Start(t)
	client := process.Client(t)
	id := create(t, client, sidecar.CreateOptions{}).ID
	began := process.Metric(t, "rpcs_total")
	hold := holding(t, client, id, sidecar.HoldingOptions{TTL: 600 * time.Millisecond})
	start := holds(t, client, id)[hold.ID()].StartTime
	program.Eventually(t, "it is renewed", func() bool { return process.Metric(t, "rpcs_total")-began >= 6 })
	if again := holds(t, client, id)[hold.ID()].StartTime; !again.Equal(start) {
		t.Error("it lapsed")
	}
}

func TestASessionThatEndsMeanwhileIsTold(t *testing.T) {
	client := program.Start(t).Client(t)
	id := create(t, client, sidecar.CreateOptions{}).ID
	hold := holding(t, client, id, sidecar.HoldingOptions{TTL: 300 * time.Millisecond})
	if _, err := client.End(ctx, id, sidecar.EndOptions{Note: "over"}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-hold.Done():
	case <-time.After(program.Patience):
		t.Fatal("nobody was told")
	}
	if over := is[*sidecar.Ended](t, hold.Ended(), nil); over.End.Note != "over" {
		t.Error(over)
	}
	fails[*sidecar.EndedError](t, hold.Err())
}

func TestASessionThatEndedJustBeforeTheReleaseIsToldToo(t *testing.T) {
	client := program.Start(t).Client(t)
	id := create(t, client, sidecar.CreateOptions{}).ID
	hold := holding(t, client, id, sidecar.HoldingOptions{})
	if _, err := client.End(ctx, id, sidecar.EndOptions{}); err != nil {
		t.Fatal(err)
	}
	hold.Release()
	is[*sidecar.Ended](t, hold.Ended(), nil)
	<-hold.Done()
}

func TestHoldingFailsAsHoldDoes(t *testing.T) {
	client := program.Start(t).Client(t)
	_, err := client.Holding(ctx, program.NeverIssued, sidecar.HoldingOptions{})
	fails[*sidecar.UnknownError](t, err)
	_, err = client.Holding(ctx, create(t, client, sidecar.CreateOptions{}).ID, sidecar.HoldingOptions{Kind: sidecar.HoldPresence})
	if refused := fails[*sidecar.RefusedError](t, err); refused.Reason != "PRESENCE_OFF" {
		t.Error(refused)
	}
}

func TestASidecarThatIsAwayStopsWorkOnlyIfItFailsClosed(t *testing.T) {
	client := program.Client(t, program.Nobody(t))
	_, err := client.Holding(ctx, program.NeverIssued, sidecar.HoldingOptions{})
	fails[*sidecar.UnreachableError](t, err)
	hold := holding(t, client.With(sidecar.WithFail(sidecar.FailOpen)), program.NeverIssued, sidecar.HoldingOptions{})
	fails[*sidecar.UnreachableError](t, hold.Problem())
	if hold.Ended() != nil {
		t.Error(hold.Ended())
	}
}

func TestAHoldGoesOnWhenTheSidecarIsBack(t *testing.T) {
	first := program.Start(t)
	client := first.Client(t)
	hold := holding(t, client, create(t, client, sidecar.CreateOptions{}).ID, sidecar.HoldingOptions{TTL: 300 * time.Millisecond})
	first.Kill()
	program.Eventually(t, "the outage is told", func() bool { return hold.Problem() != nil })
	if hold.Ended() != nil {
		t.Error(hold.Ended())
	}
	program.StartAt(t, first.TCP)
	// In memory mode the sessions are lost with the process, and the work is told that.
	<-hold.Done()
	is[*sidecar.Unknown](t, hold.Ended(), nil)
	var over *sidecar.UnknownError
	if !errors.As(hold.Err(), &over) {
		t.Error(hold.Err())
	}
}

func TestAHoldSurvivesTheIdleTimeout(t *testing.T) {
	client := program.Start(t).Client(t)
	id := create(t, client, sidecar.CreateOptions{}).ID
	hold := holding(t, client, id, sidecar.HoldingOptions{})
	advance(t, client, 25*time.Second)
	answer, err := client.Touch(ctx, id, sidecar.TouchOptions{})
	is[*sidecar.Live](t, answer, err)
	hold.Release()
	advance(t, client, 21*time.Second)
	answer, err = client.Touch(ctx, id, sidecar.TouchOptions{})
	is[*sidecar.Ended](t, answer, err)
}
