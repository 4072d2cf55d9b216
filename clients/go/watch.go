package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// WatchOptions say what to watch: exactly one of Sessions, Subject, WholeTenant and Everything.
type WatchOptions struct {
	Sessions    []Name // Up to 1,000.
	Subject     string
	WholeTenant bool
	Everything  bool // Of all tenants of the listener.

	Kinds             []EventKind   // Empty: all.
	NoInitialState    bool          // Begin with what happens from now on.
	HeartbeatInterval time.Duration // Default: 15 s. A sidecar from which nothing came for three of them is taken for gone.
	ResumeToken       string        // Of an earlier Watch, to go on there after a restart of this program.
}

// Watch tells events for ever: it reconnects with full jitter (0.1 s at first, 10 s at most) and resumes after the last message that it
// received. Close it at the end.
type Watch struct {
	caller    *caller
	course    *course
	silence   time.Duration
	begin     sync.Once
	ctx       context.Context
	cancel    context.CancelFunc
	told      chan step
	connected atomic.Bool
	token     atomic.Value // The string of the last message of which all is told.

	mu   sync.Mutex
	over error
}

// step is an event, if there is one, and the token that stands for all up to it; nil if that is the one from before.
type step struct {
	event Event
	token *string
}

// Watch watches sessions. It connects when its first event is asked for, on a connection of its own; what ended before is in its
// Snapshots or, in a scope wider than names, absent from them. Errors: *InvalidRequestError.
func (c *Client) Watch(options WatchOptions) (*Watch, error) {
	request, err := c.watchRequest(options)
	if err != nil {
		return nil, err
	}
	w := &Watch{caller: c.caller, course: newCourse(request, c.log()), told: make(chan step)}
	w.silence = silentHeartbeats * request.HeartbeatInterval.AsDuration()
	w.token.Store(options.ResumeToken)
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w, nil
}

func (c *Client) watchRequest(options WatchOptions) (*pb.WatchExpiryRequest, error) {
	names, err := sessionNames("scope.sessions.names", options.Sessions)
	if err != nil {
		return nil, err
	}
	scope := &pb.WatchScope{Tenant: c.tenant}
	said := 0
	if len(names) > 0 {
		said++
		scope.Scope = &pb.WatchScope_Sessions{Sessions: &pb.SessionNames{Names: names}}
	}
	if options.Subject != "" {
		said++
		scope.Scope = &pb.WatchScope_Subject{Subject: options.Subject}
	}
	if options.WholeTenant {
		said++
		scope.Scope = &pb.WatchScope_WholeTenant{WholeTenant: true}
	}
	if options.Everything {
		said++
		scope.Tenant, scope.Scope = "", &pb.WatchScope_Everything{Everything: true}
	}
	if said != 1 {
		return nil, invalid("scope", "give exactly one of Sessions, Subject, WholeTenant, Everything")
	}
	if options.HeartbeatInterval == 0 {
		options.HeartbeatInterval = 15 * time.Second
	}
	request := &pb.WatchExpiryRequest{
		Scope: scope, ResumeToken: options.ResumeToken, HeartbeatInterval: span(options.HeartbeatInterval),
		IncludeInitialState: !options.NoInitialState && options.ResumeToken == "",
	}
	for _, each := range options.Kinds {
		kind, err := number[pb.EventKind]("kinds", "EVENT_KIND_", pb.EventKind_value, each)
		if err != nil {
			return nil, err
		}
		request.Kinds = append(request.Kinds, kind)
	}
	if field := notUnicode(request.ProtoReflect()); field != "" {
		return nil, invalid(field, "is not valid UTF-8")
	}
	return request, nil
}

// Next waits for the next event. Errors: *InvalidRequestError and *NotPermittedError, which end the watch; ErrClosed; ctx.Err(), after
// which the watch goes on.
func (w *Watch) Next(ctx context.Context) (Event, error) {
	w.begin.Do(func() { go w.run() })
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case told, open := <-w.told:
			if !open {
				w.mu.Lock()
				defer w.mu.Unlock()
				return nil, w.over
			}
			if told.token != nil {
				w.token.Store(*told.token)
			}
			if told.event != nil {
				return told.event, nil
			}
		}
	}
}

// Events is Next in a loop, until it fails or ctx is done: `for event, err := range watch.Events(ctx)`. Do no work in the loop: a
// watch that does not read is cut off (and resumes).
func (w *Watch) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			event, err := w.Next(ctx)
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// ResumeToken is where to go on after a restart of this program: give it to the next Watch. It is empty until the initial state is
// complete. It stands for what Next has answered.
func (w *Watch) ResumeToken() string { return w.token.Load().(string) }

// Connected says whether a stream stands now.
func (w *Watch) Connected() bool { return w.connected.Load() }

// Close ends the watch, from any goroutine: Next answers ErrClosed.
func (w *Watch) Close() {
	w.cancel()
	w.begin.Do(func() { go w.run() }) // Which ends at once.
}

// Format tells that it is a watch, and not what it watches.
func (w *Watch) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "<watch connected=%t>", w.Connected()) }

func (w *Watch) run() {
	err := w.streams()
	w.mu.Lock()
	w.over = err
	w.mu.Unlock()
	w.cancel()
	close(w.told)
}

// tell hands one step to Next; false if the watch is closed.
func (w *Watch) tell(next step) bool {
	select {
	case <-w.ctx.Done():
		return false
	case w.told <- next:
		return true
	}
}

// streams opens one stream after the other. It answers why no other is opened.
func (w *Watch) streams() error {
	for {
		began := time.Now()
		f := w.stream()
		w.connected.Store(false)
		if w.ctx.Err() != nil {
			return ErrClosed
		}
		anew, pause, err := w.course.broke(f, time.Since(began))
		if err != nil {
			return err
		}
		if anew != nil && !w.tell(step{anew, new(string)}) {
			return ErrClosed
		}
		timer := time.NewTimer(pause)
		select {
		case <-w.ctx.Done():
			timer.Stop()
			return ErrClosed
		case <-timer.C:
		}
	}
}

var silent = &failure{code: "UNAVAILABLE", message: "no heartbeat came in time", reason: "SILENT"}

// stream is one stream on a connection of its own; it answers how it ended.
func (w *Watch) stream() *failure {
	conn, err := w.caller.open()
	if err != nil {
		return decode(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	// While it waits for the sidecar, and not while it waits for the application.
	var barked atomic.Bool
	dog := time.AfterFunc(w.silence, func() { barked.Store(true); cancel() })
	defer dog.Stop()
	ended := func(err error) *failure {
		switch {
		case barked.Load():
			return silent
		case errors.Is(err, io.EOF):
			return &failure{code: "UNAVAILABLE", message: "the stream ended", reason: "STREAM_ENDED"}
		}
		return decode(err)
	}
	request := proto.Clone(w.course.request()).(*pb.WatchExpiryRequest)
	stream, err := pb.NewSessionServiceClient(conn).WatchExpiry(ctx, request)
	if err != nil {
		return ended(err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		dog.Stop()
		events := w.course.heard(message)
		w.connected.Store(true)
		token := w.course.ask.ResumeToken
		if len(events) == 0 {
			events = []Event{nil}
		}
		for i, event := range events {
			next := step{event: event}
			if i == len(events)-1 {
				next.token = &token
			}
			if !w.tell(next) {
				return decode(status.FromContextError(context.Canceled).Err())
			}
		}
		dog.Reset(w.silence)
	}
}
