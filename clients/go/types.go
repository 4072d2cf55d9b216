package sidecar

import "time"

// End is how a session ended. There is only ever one end. Reason and Actor are empty where the sidecar did not tell.
type End struct {
	Reason       EndReason
	Actor        Actor
	EndTime      time.Time // For a timeout the deadline itself.
	ActorID      string
	Note         string
	SuccessorRef Ref // The session that goes on, if it was rotated.
}

// Status is the compact answer of the hot verbs. Decide with ExpiresIn; the times are for people and logs. Times that are not told
// are zero.
type Status struct {
	SessionRef      Ref
	State           State
	ServerTime      time.Time
	ExpireTime      time.Time
	ExpiresIn       time.Duration // 0 if the session does not live.
	Limit           Limit
	NextWarningTime time.Time
	CanExtend       bool
	Version         uint64
	Scope           Scope
	MayHaveEnded    bool
	Alias           bool
	ReadOnly        bool
	ObservedOnly    bool
}

// SessionHold is a live hold.
type SessionHold struct {
	HoldID     string
	Kind       HoldKind
	Purpose    string
	StartTime  time.Time
	ExpireTime time.Time
	ExpiresIn  time.Duration
}

// Session is everything that the sidecar knows of a session, but its id. Its fields are explained in the .proto.
type Session struct {
	Status               Status
	Tenant               string
	Subject              string
	Policy               string
	PolicyRevision       uint64
	IdleTimeout          time.Duration // 0: inactivity does not end it.
	AbsoluteTimeout      time.Duration
	CreateTime           time.Time
	AuthenticationTime   time.Time
	AuthenticationLevel  string
	LastActivityTime     time.Time
	LastActivityAccuracy time.Duration
	IdleExpireTime       time.Time
	AbsoluteExpireTime   time.Time
	PresenceExpireTime   time.Time
	Extensions           uint32
	Labels               map[string]string
	Holds                []SessionHold
	End                  *End // nil while it lives.
	UnenforcedEnd        *End // How it would have ended, if its policy were enforced.
	PredecessorRef       Ref
}

// Answer is what Touch and Check answer: a [*Live], an [*Ended], an [*Unknown] or an [*Unreachable].
type Answer interface {
	// Allowed says whether the request may go on. Only of Unreachable does the fail policy decide it.
	Allowed() bool
	answer()
}

// Live says that the session lives.
type Live struct {
	Status  Status
	Session *Session // Set by Check of one session.
	Touch   *Touched // Set by Touch.
}

// Touched is what became of a touch.
type Touched struct {
	Counted bool
	Result  TouchResult
	Rule    string // What decided.
}

// Ended says that the session has ended; nothing revives it.
type Ended struct {
	SessionRef Ref
	End        End
	Session    *Session // Set by Check of one session.
	Status     *Status  // Set by Check.
}

// Unknown says that the session ended longer ago than is remembered, never existed, or was lost with a sidecar that only had memory.
type Unknown struct {
	SessionRef   Ref
	MayHaveEnded bool
	Status       *Status // Set by Check.
}

// Unreachable says that nobody knows now: the sidecar cannot be reached in time, or itself cannot know.
type Unreachable struct {
	allowed    bool
	Code       string // The gRPC code, such as UNAVAILABLE or DEADLINE_EXCEEDED.
	Message    string
	RetryAfter time.Duration // 0: not told.
}

// Allowed is true.
func (*Live) Allowed() bool { return true }

// Allowed is false, whatever the fail policy.
func (*Ended) Allowed() bool { return false }

// Allowed is false, whatever the fail policy.
func (*Unknown) Allowed() bool { return false }

// Allowed is the fail policy's word.
func (u *Unreachable) Allowed() bool { return u.allowed }

func (*Live) answer()        {}
func (*Ended) answer()       {}
func (*Unknown) answer()     {}
func (*Unreachable) answer() {}

// Ref is the session's ref.
func (l *Live) Ref() Ref { return l.Status.SessionRef }

// ExpiresIn is how long it lives if nothing else happens.
func (l *Live) ExpiresIn() time.Duration { return l.Status.ExpiresIn }

// Expiring says whether a warning of it stands.
func (l *Live) Expiring() bool { return l.Status.State == StateExpiring }

// Outcome is one item of TouchMany or CheckMany: an Answer, or the error that the single call would have returned.
type Outcome struct {
	Answer Answer // nil if there is an error.
	Err    error
}

// Created is a session that began.
type Created struct {
	ID             ID // A secret: it cannot be asked for again.
	Session        Session
	SupersededRefs []Ref
}

// Extended is what an Extend granted.
type Extended struct {
	Status          Status
	GrantedDuration time.Duration // 0 is possible and no error.
	ClampedBy       Limit
}

// Held is what a Hold granted. Renew well before GrantedTTL is over; Holding does.
type Held struct {
	Status     Status
	GrantedTTL time.Duration
	ClampedBy  HoldClamp
	Created    bool
}

// Released says whether there was a live hold to release.
type Released struct {
	Status   Status
	Released bool
}

// Rotated is a session under its new id.
type Rotated struct {
	ID             ID // A secret: it cannot be asked for again.
	Session        Session
	PreviousEnd    End
	SupersededRefs []Ref
}

// EndAnswer is the end: this call's, or the first one if there was one before.
type EndAnswer struct {
	Status   Status
	End      End
	EndedNow bool
}
