package sidecar

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"
)

// How long to wait at most before a renewal that found nobody is tried again, and at least before any.
const (
	longestRetry  = 2 * time.Second
	shortestPause = 50 * time.Millisecond
)

// HoldingOptions are what Holding is told. All of it is optional.
type HoldingOptions struct {
	Purpose string
	TTL     time.Duration // Default: 1 minute.
	Kind    HoldKind      // Default: HoldWork.
	HoldID  string        // Default: a random one.
}

// Holding is a hold that renews itself until Release: at a third of what was granted.
type Holding struct {
	client  *Client
	id      ID
	holdID  string
	options HoldOptions
	granted time.Duration
	halt    func()
	release sync.Once
	done    chan struct{}

	mu      sync.Mutex
	ended   Answer
	problem error
}

// Holding keeps the session alive until Release, which is to be deferred. It renews the hold by itself; ctx is for the first call
// only. Errors: those of Hold; an unreachable sidecar only with FailClosed.
func (c *Client) Holding(ctx context.Context, id ID, options HoldingOptions) (*Holding, error) {
	if options.TTL == 0 {
		options.TTL = time.Minute
	}
	if options.HoldID == "" {
		random := make([]byte, 8)
		_, _ = rand.Read(random) // It never fails.
		options.HoldID = hex.EncodeToString(random)
	}
	h := &Holding{
		client: c, id: id, holdID: options.HoldID, granted: options.TTL, done: make(chan struct{}),
		options: HoldOptions{TTL: options.TTL, Kind: options.Kind, Purpose: options.Purpose},
	}
	held, err := c.Hold(ctx, id, h.holdID, h.options)
	var away *UnreachableError
	if err != nil && !(c.fail == FailOpen && errors.As(err, &away)) {
		return nil, err
	}
	pause, _ := h.heard(held, err)
	h.halt = c.scheduler.Start(pause, func() (time.Duration, bool) {
		return h.heard(c.Hold(context.Background(), id, h.holdID, h.options))
	})
	return h, nil
}

// heard notes what came of a pulse, and answers how long to wait before the next one; false if the session is over.
func (h *Holding) heard(held *Held, err error) (time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.problem, h.granted = nil, held.GrantedTTL
		return max(h.granted/3, shortestPause), true
	}
	if over := overAnswer(err); over != nil {
		if h.ended == nil {
			h.ended = over
			close(h.done)
		}
		return 0, false
	}
	if h.problem == nil {
		h.client.log().Warn("a hold could not be renewed and is tried again", "hold_id", h.holdID, "error", err)
	}
	h.problem = err
	pause := h.granted / 3
	var away *UnreachableError
	if errors.As(err, &away) {
		pause = time.Duration(float64(min(pause, longestRetry)) * (0.5 + mathrand.Float64()/2))
	}
	return max(pause, shortestPause), !errors.Is(err, ErrClosed)
}

// overAnswer is how the session is over, if that is what an error says.
func overAnswer(err error) Answer {
	var ended *EndedError
	var unknown *UnknownError
	switch {
	case errors.As(err, &ended):
		return ended.Answer
	case errors.As(err, &unknown):
		return unknown.Answer
	}
	return nil
}

// ID is the hold's own id.
func (h *Holding) ID() string { return h.holdID }

// Done is closed when the session ended meanwhile.
func (h *Holding) Done() <-chan struct{} { return h.done }

// Ended is how the session ended meanwhile: an *Ended or an *Unknown; nil if it did not.
func (h *Holding) Ended() Answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// Err is an *EndedError or an *UnknownError if the session ended meanwhile, else nil: for long work, between its steps.
func (h *Holding) Err() error {
	switch over := h.Ended().(type) {
	case *Ended:
		return &EndedError{over}
	case *Unknown:
		return &UnknownError{over}
	}
	return nil
}

// Problem is the error of the latest renewal, if it failed: it is tried again.
func (h *Holding) Problem() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem
}

// Release ends the hold; a second call does nothing. It takes no context, so that work that was cancelled releases too, and no more
// time than the client's deadline. If it fails, Problem tells, and the hold lapses by itself.
func (h *Holding) Release() {
	h.release.Do(func() {
		h.halt()
		if h.Ended() != nil {
			return
		}
		if _, err := h.client.Release(context.Background(), h.id, h.holdID); err != nil {
			h.heard(nil, err)
		}
	})
}

// Format tells the hold, and not the session's id.
func (h *Holding) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "<hold %s ended=%t problem=%v>", h.holdID, h.Ended() != nil, h.Problem())
}
