package sidecar

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// What a watch makes of what comes, without a clock or a connection.

func aCourse(token string) *course {
	c := newCourse(&pb.WatchExpiryRequest{ResumeToken: token, IncludeInitialState: token == ""}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	c.random = func() float64 { return 1 }
	return c
}

func message(token string, body any) *pb.WatchExpiryResponse {
	m := &pb.WatchExpiryResponse{ResumeToken: token}
	switch body := body.(type) {
	case *pb.Snapshot:
		m.Message = &pb.WatchExpiryResponse_Snapshot{Snapshot: body}
	case *pb.SnapshotEnd:
		m.Message = &pb.WatchExpiryResponse_SnapshotEnd{SnapshotEnd: body}
	case *pb.Ended:
		m.Message = &pb.WatchExpiryResponse_Ended{Ended: body}
	case *pb.Heartbeat:
		m.Message = &pb.WatchExpiryResponse_Heartbeat{Heartbeat: body}
	}
	return m
}

func kinds(events []Event) string {
	told := ""
	for _, each := range events {
		told += fmt.Sprintf("%T ", each)
	}
	return told
}

var lost = &failure{code: "UNAVAILABLE"}

func TestPausesGrowToTenSecondsAndBeginAnewAfterAStreamThatStood(t *testing.T) {
	c := aCourse("t")
	want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000}
	for _, each := range want {
		if _, pause, err := c.broke(lost, 0); err != nil || pause != each*time.Millisecond {
			t.Error(pause, each, err)
		}
	}
	for range 100 {
		_, _, _ = c.broke(lost, 0)
	}
	if _, pause, _ := c.broke(lost, 0); pause != longestPause {
		t.Error(pause)
	}
	if _, pause, _ := c.broke(lost, longestPause); pause != firstPause {
		t.Error(pause)
	}
	c.random = func() float64 { return 0 }
	if _, pause, _ := c.broke(&failure{code: "UNAVAILABLE", retryAfter: time.Second}, 0); pause != time.Second {
		t.Error("the sidecar asked for a second:", pause)
	}
}

func TestATokenFromWithinTheInitialStateIsNotUsed(t *testing.T) {
	c := aCourse("")
	c.request()
	c.heard(message("1", &pb.Snapshot{}))
	if c.ask.ResumeToken != "" {
		t.Error(c.ask.ResumeToken)
	}
	anew, _, err := c.broke(lost, 0)
	if err != nil || anew == nil || anew.Reason != "INITIAL_STATE_INCOMPLETE" || !c.ask.IncludeInitialState {
		t.Error(anew, err)
	}
	c.request()
	c.heard(message("2", &pb.Snapshot{}))
	c.heard(message("3", &pb.SnapshotEnd{}))
	if anew, _, err := c.broke(lost, 0); err != nil || anew != nil || c.ask.ResumeToken != "3" || c.ask.IncludeInitialState {
		t.Error(anew, err, c.ask)
	}
}

func TestNothingWasToldSoNothingBeginsAnew(t *testing.T) {
	c := aCourse("")
	c.request()
	if anew, _, err := c.broke(lost, 0); err != nil || anew != nil {
		t.Error(anew, err)
	}
}

func TestAnExpiredOrGarbledTokenBeginsAnew(t *testing.T) {
	for _, each := range []struct {
		failure *failure
		reason  string
	}{
		{&failure{code: "OUT_OF_RANGE", reason: "RESUME_TOKEN_EXPIRED"}, "RESUME_TOKEN_EXPIRED"},
		{&failure{code: "INVALID_ARGUMENT", fields: []string{"resume_token"}}, "RESUME_TOKEN_INVALID"},
	} {
		c := aCourse("old")
		c.request()
		anew, _, err := c.broke(each.failure, 0)
		if err != nil || anew == nil || anew.Reason != each.reason || c.ask.ResumeToken != "" || !c.ask.IncludeInitialState {
			t.Error(each.reason, anew, err)
		}
	}
}

func TestOnlyMistakesEndIt(t *testing.T) {
	for code, ends := range map[string]bool{
		"INVALID_ARGUMENT": true, "PERMISSION_DENIED": true, "UNIMPLEMENTED": true, "UNAUTHENTICATED": true, "INTERNAL": false,
		"UNKNOWN": false, "UNAVAILABLE": false, "RESOURCE_EXHAUSTED": false, "ABORTED": false,
	} {
		if _, _, err := aCourse("t").broke(&failure{code: code}, 0); (err != nil) != ends {
			t.Error(code, err)
		}
	}
}

func TestTheInitialStateToldAgainToWhoeverResumesBeginsAnew(t *testing.T) {
	c := aCourse("t")
	c.request()
	if told := c.heard(message("1", &pb.Snapshot{})); kinds(told) != "*sidecar.BeginAnew *sidecar.Snapshot " {
		t.Error(kinds(told))
	}
}

func TestASuccessorAtTheStartOfAResumedStreamWaitsForWhatFollows(t *testing.T) {
	succeeds := &pb.Snapshot{PredecessorRef: "before"}
	c := aCourse("t")
	c.request()
	if told := c.heard(message("1", succeeds)); len(told) > 0 || c.ask.ResumeToken != "t" {
		t.Error(kinds(told), c.ask.ResumeToken)
	}
	if told := c.heard(message("2", &pb.Ended{})); kinds(told) != "*sidecar.Snapshot *sidecar.SessionEnded " || c.ask.ResumeToken != "2" {
		t.Error(kinds(told), c.ask.ResumeToken)
	}
	c.request()
	c.heard(message("3", succeeds))
	if told := c.heard(message("4", &pb.SnapshotEnd{})); kinds(told) != "*sidecar.BeginAnew *sidecar.Snapshot *sidecar.SnapshotEnd " {
		t.Error(kinds(told))
	}
	c.request()
	c.heard(message("5", succeeds))
	if told := c.heard(message("6", &pb.Heartbeat{})); kinds(told) != "*sidecar.Snapshot " || c.ask.ResumeToken != "6" {
		t.Error(kinds(told), c.ask.ResumeToken)
	}
}

func TestAStreamWhoseTokenWasTakenOutOfUseIsOpenedOnceMore(t *testing.T) {
	outdated := &failure{code: "UNAUTHENTICATED", reason: "CALLER_NOT_AUTHENTICATED"}
	c := aCourse("")
	c.heard(message("t1", &pb.SnapshotEnd{}))
	if anew, pause, err := c.broke(outdated, time.Second); anew != nil || pause != firstPause || err != nil {
		t.Error(anew, pause, err)
	}
	if _, _, err := c.broke(outdated, 0); err == nil {
		t.Error("it would go on for ever")
	}
}
