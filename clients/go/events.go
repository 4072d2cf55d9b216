package sidecar

import "time"

// Event is what a watch tells: a [*Snapshot], [*SnapshotEnd], [*Warning], [*Cleared], [*SessionEnded], [*Draining] or [*BeginAnew].
// docs/stream.md says what to do with each.
type Event interface{ event() }

// EventSession is the session that an event is about.
type EventSession struct {
	SessionRef Ref
	SessionID  ID // Set only if the watch named the session by it.
	Tenant     string
	Subject    string
	Labels     map[string]string
	Version    uint64
}

// Snapshot is a session as it is: part of the initial state, or, with PredecessorRef, as it goes on after a Rotate.
type Snapshot struct {
	EmitTime       time.Time
	Session        EventSession
	Status         Status
	End            *End
	PredecessorRef Ref
}

// SnapshotEnd says that the initial state is complete; what follows is live.
type SnapshotEnd struct {
	EmitTime      time.Time
	SnapshotCount uint64
}

// Warning says that a session will end soon. A Cleared of the same limit, or a SessionEnded, follows.
type Warning struct {
	EmitTime   time.Time
	Session    EventSession
	Limit      Limit
	Point      time.Duration // The lead of the policy's warn_before that fired.
	ExpireTime time.Time
	ExpiresIn  time.Duration
	CanExtend  bool
}

// Cleared says that the warnings of one limit are withdrawn.
type Cleared struct {
	EmitTime   time.Time
	Session    EventSession
	Limit      Limit
	Cause      ClearedCause
	ExpireTime time.Time
	ExpiresIn  time.Duration
}

// SessionEnded says that a session ended. There is exactly one for each session.
type SessionEnded struct {
	EmitTime         time.Time
	Session          EventSession
	End              End
	CreateTime       time.Time
	LastActivityTime time.Time
}

// Draining says that this sidecar is about to stop. The watch reconnects and resumes by itself.
type Draining struct{ EmitTime time.Time }

// BeginAnew says that the log does not reach back to where the watch was. Forget what you know of its sessions: Snapshots of those
// that live follow, up to a SnapshotEnd. What is absent has ended or is out of scope.
type BeginAnew struct{ Reason string }

func (*Snapshot) event()     {}
func (*SnapshotEnd) event()  {}
func (*Warning) event()      {}
func (*Cleared) event()      {}
func (*SessionEnded) event() {}
func (*Draining) event()     {}
func (*BeginAnew) event()    {}
