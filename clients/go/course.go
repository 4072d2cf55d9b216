package sidecar

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
	// A stream is dead if nothing came for so many heartbeats.
	silentHeartbeats = 3
)

// course is what a watch asks for next, and what it makes of what comes. It has no clock and does no I/O.
type course struct {
	ask      *pb.WatchExpiryRequest
	log      *slog.Logger
	random   func() float64
	failures int
	// Whether the state that the watch began with was told to its end; a token from within it begins it again.
	complete bool
	toldSome bool
	// What a resumed stream began with, while it may still turn out to be the initial state again.
	resumed   bool
	held      []Event
	connected bool
}

func newCourse(ask *pb.WatchExpiryRequest, log *slog.Logger) *course {
	return &course{ask: ask, log: log, random: rand.Float64, complete: ask.ResumeToken != ""}
}

// request is what to ask for now.
func (c *course) request() *pb.WatchExpiryRequest {
	c.resumed, c.held = c.ask.ResumeToken != "", nil
	return c.ask
}

// heard is what a message tells, if it tells anything.
func (c *course) heard(message *pb.WatchExpiryResponse) []Event {
	event := asEvent(message)
	c.connected = true
	told := c.sorted(event)
	switch event.(type) {
	case *SnapshotEnd:
		c.complete = true
	case *Snapshot:
		c.toldSome = true
	}
	if c.complete && len(c.held) == 0 {
		c.ask.ResumeToken = message.GetResumeToken()
		c.ask.IncludeInitialState = false
	}
	return told
}

// The sidecar tells the initial state again to whoever resumes soon after it, with what had happened meanwhile still to come.
// Snapshots at the start of a resumed stream are that, unless they tell where a session went on.
func (c *course) sorted(event Event) []Event {
	if c.resumed {
		snapshot, is := event.(*Snapshot)
		if is && snapshot.PredecessorRef != "" {
			c.held = append(c.held, event)
			return nil
		}
		held := c.held
		c.resumed, c.held = false, nil
		_, isEnd := event.(*SnapshotEnd)
		if is || isEnd {
			held = slices.Insert(held, 0, Event(c.beginAnew("INITIAL_STATE_AGAIN")))
		}
		if event != nil {
			held = append(held, event)
		}
		return held
	}
	if event == nil {
		return nil
	}
	return []Event{event}
}

func (c *course) beginAnew(reason string) *BeginAnew {
	c.ask.ResumeToken = ""
	c.ask.IncludeInitialState = true
	c.complete, c.toldSome = false, false
	return &BeginAnew{reason}
}

// broke says, after the stream ended, having stood for so long, what to tell, and how long to wait before the next one. An error is
// what no reconnecting can mend.
func (c *course) broke(f *failure, stood time.Duration) (*BeginAnew, time.Duration, error) {
	anew := c.anew(f)
	// A stream that stood was cut off when its token was taken out of use: the next one shows the one of now.
	outdated := c.connected && f.code == "UNAUTHENTICATED"
	if anew == nil && !outdated {
		switch err := f.asError().(type) {
		case *InvalidRequestError, *NotPermittedError:
			return nil, 0, err
		}
	}
	if c.connected {
		why := f.reason
		if why == "" {
			why = f.code
		}
		c.log.Warn("a watch was cut off and reconnects", "why", why)
	}
	c.connected = false
	if stood >= longestPause {
		c.failures = 0
	}
	pause := time.Duration(c.random() * float64(min(firstPause<<c.failures, longestPause)))
	c.failures = min(c.failures+1, 16)
	return anew, pause + f.retryAfter, nil
}

func (c *course) anew(f *failure) *BeginAnew {
	switch {
	case f.code == "OUT_OF_RANGE":
		return c.beginAnew(f.reason)
	case f.code == "INVALID_ARGUMENT" && slices.Equal(f.fields, []string{"resume_token"}):
		return c.beginAnew("RESUME_TOKEN_INVALID")
	case !c.complete && c.toldSome:
		return c.beginAnew("INITIAL_STATE_INCOMPLETE")
	}
	return nil
}
