package sidecar

import (
	"fmt"
	"log/slog"
	"strings"
)

// ID is a session's id: a bearer secret. It prints as "[session id]", and is logged and encoded as JSON so; string(id) is the secret
// itself, for the cookie.
type ID string

const hidden = "[session id]"

// Format hides the id from every verb of package fmt.
func (ID) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// MarshalText hides the id from JSON, and so from what is logged as JSON.
func (ID) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue hides the id from package slog.
func (ID) LogValue() slog.Value { return slog.StringValue(hidden) }

// Ref names a session in logs and lists: 22 characters of base64url. It is never a credential.
type Ref string

// Name is what a session can be named by where it is only looked at: an [ID] or a [Ref].
type Name interface{ name() }

func (ID) name()  {}
func (Ref) name() {}

// State is what a session is.
type State string

// The states of a session.
const (
	StateActive   State = "ACTIVE"
	StateExpiring State = "EXPIRING" // Live, and a warning of it stands.
	StateEnded    State = "ENDED"
	StateUnknown  State = "UNKNOWN" // Never existed, or ended longer ago than is remembered.
	StateOther    State = "OTHER"   // Live for no one.
)

// Limit is the limit that sets when a session ends.
type Limit string

// The limits of a session.
const (
	LimitIdle     Limit = "IDLE"
	LimitAbsolute Limit = "ABSOLUTE"
	LimitPresence Limit = "PRESENCE"
	LimitOther    Limit = "OTHER"
)

// Scope is where an answer comes from.
type Scope string

// Where answers come from.
const (
	ScopeMemory Scope = "MEMORY"
	ScopeStore  Scope = "STORE"
	ScopeLocal  Scope = "LOCAL" // The shared store cannot be reached; this is what the sidecar knew before.
	ScopeOther  Scope = "OTHER"
)

// Activity is the kind of activity that a touch declares. Without one the policy's rules decide.
type Activity string

// What a touch can declare.
const (
	ActivityUser       Activity = "USER"
	ActivityBackground Activity = "BACKGROUND" // A poll; it keeps nobody logged in.
)

// TouchResult is what became of a touch.
type TouchResult string

// What can become of a touch.
const (
	TouchCounted TouchResult = "COUNTED"
	TouchIgnored TouchResult = "IGNORED"
	TouchStale   TouchResult = "STALE"
	TouchPending TouchResult = "PENDING"
	TouchOther   TouchResult = "OTHER"
)

// PageVisibility says whether the page that caused a request can be seen.
type PageVisibility string

// Whether a page can be seen.
const (
	PageVisible PageVisibility = "VISIBLE"
	PageHidden  PageVisibility = "HIDDEN"
)

// HoldKind is what a hold is for.
type HoldKind string

// What holds are for.
const (
	HoldWork     HoldKind = "WORK"
	HoldPresence HoldKind = "PRESENCE"
	HoldOther    HoldKind = "OTHER"
)

// HoldClamp is what cut a hold's TTL short.
type HoldClamp string

// What can cut a hold's TTL short.
const (
	ClampMaxTTL   HoldClamp = "MAX_TTL"
	ClampBudget   HoldClamp = "BUDGET"
	ClampAbsolute HoldClamp = "ABSOLUTE"
	ClampOther    HoldClamp = "OTHER"
)

// EndReason is why a session ended.
type EndReason string

// Why sessions end. Only LOGOUT and REVOKED can be commanded.
const (
	IdleTimeout     EndReason = "IDLE_TIMEOUT"
	AbsoluteTimeout EndReason = "ABSOLUTE_TIMEOUT"
	Logout          EndReason = "LOGOUT"
	Revoked         EndReason = "REVOKED"
	BrowserClosed   EndReason = "BROWSER_CLOSED"
	Superseded      EndReason = "SUPERSEDED"
	RotatedAway     EndReason = "ROTATED" // It goes on under another id: End.SuccessorRef.
	OtherReason     EndReason = "OTHER"
)

// Actor is who ended a session.
type Actor string

// Who ends sessions.
const (
	ActorUser   Actor = "USER"
	ActorAdmin  Actor = "ADMIN"
	ActorPolicy Actor = "POLICY"
	ActorSystem Actor = "SYSTEM"
	ActorOther  Actor = "OTHER"
)

// ClearedCause is what withdrew a warning.
type ClearedCause string

// What withdraws warnings.
const (
	ClearedTouched       ClearedCause = "TOUCHED"
	ClearedExtended      ClearedCause = "EXTENDED"
	ClearedHeld          ClearedCause = "HELD"
	ClearedRotated       ClearedCause = "ROTATED"
	ClearedReleased      ClearedCause = "RELEASED"
	ClearedPolicyChanged ClearedCause = "POLICY_CHANGED"
	ClearedNotEnforced   ClearedCause = "NOT_ENFORCED"
	ClearedOther         ClearedCause = "OTHER"
)

// EventKind is a kind of event that a watch can ask for.
type EventKind string

// What a watch can ask for.
const (
	KindWarning EventKind = "WARNING"
	KindCleared EventKind = "CLEARED"
	KindEnded   EventKind = "ENDED"
)

// Fail is what Touch and Check allow while the sidecar cannot be reached or cannot know.
type Fail bool

// The fail policies.
const (
	FailClosed Fail = false
	FailOpen   Fail = true
)

func (f Fail) String() string {
	if f {
		return "open"
	}
	return "closed"
}

// word is the client's word for an enum of the wire: "" for the unspecified one, OTHER for one that is too new.
func word[T ~string](name, prefix string) T {
	told, known := strings.CutPrefix(name, prefix)
	switch {
	case !known:
		return "OTHER"
	case told == "UNSPECIFIED":
		return ""
	}
	return T(told)
}

// number is the wire's number of a word; 0 if there is none.
func number[E ~int32, T ~string](field, prefix string, numbers map[string]int32, said T) (E, error) {
	if said == "" {
		return 0, nil
	}
	value, known := numbers[prefix+string(said)]
	if !known {
		return 0, invalid(field, "has no such word; see the constants of its type")
	}
	return E(value), nil
}
