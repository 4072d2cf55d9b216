package sidecar

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"time"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// CreateOptions are what Create is told. All of it is optional.
type CreateOptions struct {
	Subject             string
	SessionID           ID // The application's own id. Empty: the sidecar makes one, of 256 bits.
	Policy              string
	Labels              map[string]string
	IdleTimeout         time.Duration // May only be stricter than the policy; so AbsoluteTimeout.
	AbsoluteTimeout     time.Duration
	AuthenticatedAgo    time.Duration // To adopt a session that runs already.
	IdleFor             time.Duration
	AuthenticationLevel string
	RequestID           string // Empty: the client makes one.
}

// TouchOptions are what Touch is told of a request. All of it is optional.
type TouchOptions struct {
	Activity Activity // Empty: the policy's rules decide by the hints whether it counts.
	IdleFor  time.Duration
	Hints    *Hints
}

// Touch is one touch of a TouchMany.
type Touch struct {
	ID ID
	TouchOptions
}

// ExtendOptions are what Extend is told. All of it is optional.
type ExtendOptions struct {
	WantedDuration time.Duration // 0: the idle timeout.
	RequestID      string        // Empty: the client makes one.
}

// HoldOptions are what Hold is told.
type HoldOptions struct {
	TTL     time.Duration // Required.
	Kind    HoldKind      // Empty: HoldWork.
	Purpose string
}

// RotateOptions are what Rotate is told. At a login say Login and the Subject, and both deadlines begin anew.
type RotateOptions struct {
	NewSessionID        ID     // Empty: the sidecar makes one.
	Subject             string // Empty: it stays.
	Login               bool   // Somebody has proved who they are: AuthenticatedAgo ago.
	AuthenticatedAgo    time.Duration
	AuthenticationLevel string
	RequestID           string // Empty: the client makes one.
}

// EndOptions are what End is told. All of it is optional.
type EndOptions struct {
	Reason    EndReason // Logout, which is the default, or Revoked.
	Actor     Actor
	ActorID   string
	Note      string
	RequestID string // Empty: the client makes one.
}

func requestID(given string) string {
	if given != "" {
		return given
	}
	random := make([]byte, 18)
	_, _ = rand.Read(random) // It never fails.
	return base64.RawURLEncoding.EncodeToString(random)
}

// answered makes the answer of a command of what came.
func answered[R, A any](message R, f *failure, err error, read func(R) *A) (*A, error) {
	if f != nil {
		return nil, f.asCommandError()
	}
	if err != nil {
		return nil, err
	}
	return read(message), nil
}

// Create starts a session at login, or adopts one that runs already (AuthenticatedAgo, IdleFor). Errors: *RefusedError with
// SESSION_EXISTS, ALREADY_PAST_LIMIT, SUBJECT_CAP, …; *EndedError if this id ended before.
func (c *Client) Create(ctx context.Context, options CreateOptions) (*Created, error) {
	request := &pb.CreateRequest{
		Tenant: c.tenant, SessionId: string(options.SessionID), Subject: options.Subject, Policy: options.Policy, Labels: options.Labels,
		IdleTimeout: span(options.IdleTimeout), AbsoluteTimeout: span(options.AbsoluteTimeout),
		AuthenticatedAgo: span(options.AuthenticatedAgo), IdleFor: span(options.IdleFor),
		AuthenticationLevel: options.AuthenticationLevel, RequestId: requestID(options.RequestID),
	}
	m, f, err := call(ctx, c.caller, true, c.sessions.Create, request)
	return answered(m, f, err, func(m *pb.CreateResponse) *Created {
		return &Created{ID(m.GetSessionId()), asSession(m.GetSession()), asRefs(m.GetSupersededRefs())}
	})
}

// Touch reports that the person did something, and answers whether the session lives. Errors: *InvalidRequestError,
// *NotPermittedError, *RefusedError with READ_ONLY_SESSION; ctx.Err() if the caller has gone.
func (c *Client) Touch(ctx context.Context, id ID, options TouchOptions) (Answer, error) {
	request, err := touchRequest(c.tenant, Touch{id, options})
	if err != nil {
		return nil, err
	}
	m, f, err := call(ctx, c.caller, true, c.sessions.Touch, request)
	switch {
	case f != nil:
		return f.asAnswer(c.fail)
	case err != nil:
		return nil, err
	}
	return touchedAnswer(m), nil
}

// TouchMany carries out up to 1,000 touches and answers an outcome for each, in their order.
func (c *Client) TouchMany(ctx context.Context, touches []Touch) ([]Outcome, error) {
	request := &pb.BatchTouchRequest{}
	for _, each := range touches {
		touch, err := touchRequest(c.tenant, each)
		if err != nil {
			return nil, err
		}
		request.Touches = append(request.Touches, touch)
	}
	m, f, err := call(ctx, c.caller, true, c.sessions.BatchTouch, request)
	return outcomes(c, m.GetOutcomes(), len(touches), f, err, func(each *pb.TouchOutcome) Outcome {
		if problem := each.GetError(); problem != nil {
			return itemOutcome(problem, c.fail)
		}
		return Outcome{Answer: touchedAnswer(each.GetTouch())}
	})
}

func outcomes[M any](c *Client, told []M, count int, f *failure, err error, read func(M) Outcome) ([]Outcome, error) {
	if err != nil {
		return nil, err
	}
	all := make([]Outcome, 0, count)
	if f != nil {
		answer, err := f.asAnswer(c.fail)
		if err != nil {
			return nil, err
		}
		for range count {
			all = append(all, Outcome{Answer: answer})
		}
	}
	for _, each := range told {
		all = append(all, read(each))
	}
	return all, nil
}

// Check answers what a session is, by its ID or Ref; all of it in Live.Session or Ended.Session. It never extends, creates or delays.
// Errors: as of Touch.
func (c *Client) Check(ctx context.Context, name Name) (Answer, error) {
	request := &pb.CheckRequest{Tenant: c.tenant}
	switch name := name.(type) {
	case ID:
		request.Name = &pb.CheckRequest_SessionId{SessionId: string(name)}
	case Ref:
		request.Name = &pb.CheckRequest_SessionRef{SessionRef: string(name)}
	default:
		return nil, invalid("session_id", "is nil; an ID or a Ref is needed")
	}
	m, f, err := call(ctx, c.caller, true, c.sessions.Check, request)
	switch {
	case f != nil:
		return f.asAnswer(c.fail)
	case err != nil:
		return nil, err
	}
	whole := asSession(m.GetSession())
	return stateAnswer(whole.Status, &whole), nil
}

// CheckMany answers what up to 100 sessions are, in their order, without the reasons of those that ended.
func (c *Client) CheckMany(ctx context.Context, names []Name) ([]Outcome, error) {
	sessions, err := sessionNames("sessions", names)
	if err != nil {
		return nil, err
	}
	if len(sessions) == 0 {
		return nil, invalid("sessions", "is empty; name 1 to 100")
	}
	m, f, err := call(ctx, c.caller, true, c.sessions.Check, &pb.CheckRequest{Tenant: c.tenant, Sessions: sessions})
	return outcomes(c, m.GetOutcomes(), len(names), f, err, func(each *pb.CheckOutcome) Outcome {
		if problem := each.GetError(); problem != nil {
			return itemOutcome(problem, c.fail)
		}
		return Outcome{Answer: stateAnswer(asStatus(each.GetStatus()), nil)}
	})
}

// Extend says that the person pressed "stay". Errors: *EndedError, *UnknownError; *RefusedError with EXTENSION_LIMIT.
func (c *Client) Extend(ctx context.Context, id ID, options ExtendOptions) (*Extended, error) {
	request := &pb.ExtendRequest{
		Tenant: c.tenant, SessionId: string(id), WantedDuration: span(options.WantedDuration), RequestId: requestID(options.RequestID),
	}
	m, f, err := call(ctx, c.caller, true, c.sessions.Extend, request)
	return answered(m, f, err, func(m *pb.ExtendResponse) *Extended {
		return &Extended{asStatus(m.GetStatus()), m.GetGrantedDuration().AsDuration(), asLimit(m.GetClampedBy())}
	})
}

// Hold is one pulse of a hold: it begins or renews it. Holding does it for you. Errors: *EndedError, *UnknownError; *RefusedError
// with HOLD_BUDGET, HOLD_CAP, PRESENCE_OFF, HOLD_KIND.
func (c *Client) Hold(ctx context.Context, id ID, holdID string, options HoldOptions) (*Held, error) {
	if options.Kind == "" {
		options.Kind = HoldWork
	}
	kind, err := number[pb.HoldKind]("kind", "HOLD_KIND_", pb.HoldKind_value, options.Kind)
	if err != nil {
		return nil, err
	}
	request := &pb.HoldRequest{
		Tenant: c.tenant, SessionId: string(id), HoldId: holdID, Kind: kind, Ttl: span(options.TTL), Purpose: options.Purpose,
	}
	m, f, err := call(ctx, c.caller, true, c.sessions.Hold, request)
	return answered(m, f, err, func(m *pb.HoldResponse) *Held {
		clamp := word[HoldClamp](m.GetClampedBy().String(), "HOLD_CLAMP_")
		return &Held{asStatus(m.GetStatus()), m.GetGrantedTtl().AsDuration(), clamp, m.GetCreated()}
	})
}

// Release ends a hold. One that is not there is no error. Errors: *EndedError, *UnknownError. It is not repeated by the client.
func (c *Client) Release(ctx context.Context, id ID, holdID string) (*Released, error) {
	request := &pb.ReleaseRequest{Tenant: c.tenant, SessionId: string(id), HoldId: holdID}
	m, f, err := call(ctx, c.caller, false, c.sessions.Release, request)
	return answered(m, f, err, func(m *pb.ReleaseResponse) *Released {
		return &Released{asStatus(m.GetStatus()), m.GetReleased()}
	})
}

// Rotate gives a session a new id. Errors: *EndedError, *UnknownError; *RefusedError with SESSION_EXISTS, NEW_SESSION_ENDED,
// SUBJECT_CAP, …
func (c *Client) Rotate(ctx context.Context, id ID, options RotateOptions) (*Rotated, error) {
	request := &pb.RotateRequest{
		Tenant: c.tenant, SessionId: string(id), NewSessionId: string(options.NewSessionID),
		AuthenticatedAgo: span(options.AuthenticatedAgo), AuthenticationLevel: options.AuthenticationLevel,
		RequestId: requestID(options.RequestID),
	}
	if options.Subject != "" {
		request.Subject = &options.Subject
	}
	if options.Login && request.AuthenticatedAgo == nil {
		request.AuthenticatedAgo = zero()
	}
	m, f, err := call(ctx, c.caller, true, c.sessions.Rotate, request)
	return answered(m, f, err, func(m *pb.RotateResponse) *Rotated {
		return &Rotated{ID(m.GetSessionId()), asSession(m.GetSession()), asEnd(m.GetPreviousEnd()), asRefs(m.GetSupersededRefs())}
	})
}

// End ends a session now. On one that ended before it answers the first end. Errors: *UnknownError.
func (c *Client) End(ctx context.Context, id ID, options EndOptions) (*EndAnswer, error) {
	reason, err := number[pb.EndReason]("reason", "END_REASON_", pb.EndReason_value, options.Reason)
	if err != nil {
		return nil, err
	}
	actor, err := number[pb.Actor]("actor", "ACTOR_", pb.Actor_value, options.Actor)
	if err != nil {
		return nil, err
	}
	request := &pb.EndRequest{
		Tenant: c.tenant, SessionId: string(id), Reason: reason, Actor: actor, ActorId: options.ActorID, Note: options.Note,
		RequestId: requestID(options.RequestID),
	}
	m, f, err := call(ctx, c.caller, true, c.sessions.End, request)
	return answered(m, f, err, func(m *pb.EndResponse) *EndAnswer {
		return &EndAnswer{asStatus(m.GetStatus()), asEnd(m.GetEnd()), m.GetEndedNow()}
	})
}
