package sidecar

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// DefaultAdminDeadline is how long a call of an Admin takes at most: nobody waits for a page of theirs meanwhile.
const DefaultAdminDeadline = 10 * time.Second

// Admin is a client of SessionAdminService, for operators and support staff, one tenant at a time: a listener must have the verb group
// `admin`. Each call takes an ActorID: who asks, for the audit log. Whatever fails is an error, an unreachable sidecar too.
type Admin struct {
	*caller
	service pb.SessionAdminServiceClient
}

// NewAdmin makes an Admin of the sidecar at `target`, as New does.
func NewAdmin(target string, options ...Option) (*Admin, error) {
	c, err := newCaller(target, DefaultAdminDeadline, options)
	if err != nil {
		return nil, err
	}
	return &Admin{c, pb.NewSessionAdminServiceClient(c.conn)}, nil
}

// With is the same client, over the same connection, with other settings. It panics if a setting is out of its bounds.
func (a *Admin) With(options ...Option) *Admin {
	changed, err := a.with(options)
	if err != nil {
		panic(err)
	}
	return &Admin{changed, a.service}
}

// Filter says which sessions: those that match all that is given.
type Filter struct {
	Subject string
	States  []State // Empty: live ones.
	Labels  map[string]string
	Policy  string
}

func (a *Admin) filter(filter Filter) (*pb.SessionFilter, error) {
	told := &pb.SessionFilter{Tenant: a.tenant, Subject: filter.Subject, Labels: filter.Labels, Policy: filter.Policy}
	for _, each := range filter.States {
		state, err := number[pb.SessionState]("filter.states", "SESSION_STATE_", pb.SessionState_value, each)
		if err != nil {
			return nil, err
		}
		told.States = append(told.States, state)
	}
	return told, nil
}

// ListOptions are what ListSessions is told beside the filter.
type ListOptions struct {
	PageSize int32 // 1 to 1,000; 0: 100.
	ActorID  string
}

// ListSessions lists all sessions that match. Each page is asked for when the one before it has been read; what begins or ends
// meanwhile may be missing or there. An error ends the list.
func (a *Admin) ListSessions(ctx context.Context, filter Filter, options ListOptions) iter.Seq2[*Session, error] {
	return func(yield func(*Session, error) bool) {
		told, err := a.filter(filter)
		if err != nil {
			yield(nil, err)
			return
		}
		request := &pb.ListSessionsRequest{Filter: told, ActorId: options.ActorID}
		if options.PageSize != 0 {
			request.PageSize = &options.PageSize
		}
		for {
			m, f, err := call(ctx, a.caller, true, a.service.ListSessions, request)
			page, err := answered(m, f, err, func(m *pb.ListSessionsResponse) *pb.ListSessionsResponse { return m })
			if err != nil {
				yield(nil, err)
				return
			}
			for _, each := range page.GetSessions() {
				session := asSession(each)
				if !yield(&session, nil) {
					return
				}
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

// EndSessionsOptions are what EndSessions is told beside the filter.
type EndSessionsOptions struct {
	WholeTenant bool   // All sessions of the tenant are meant; with an empty filter only.
	Excepted    []Name // Up to 100, which are spared.
	DryRun      bool   // Count only.
	Reason      EndReason
	Actor       Actor
	ActorID     string
	Note        string
}

// SessionsEnded says which sessions an EndSessions ended.
type SessionsEnded struct {
	MatchedCount uint64
	EndedCount   uint64
	SessionRefs  []Ref // The first 1,000.
}

// EndSessions ends all live sessions that match and began before the call: Revoked, unless Reason is Logout. It is not repeated when
// its connection is lost: ask ListSessions what came of it.
func (a *Admin) EndSessions(ctx context.Context, filter Filter, options EndSessionsOptions) (*SessionsEnded, error) {
	told, err := a.filter(filter)
	if err != nil {
		return nil, err
	}
	excepted, err := sessionNames("except", options.Excepted)
	if err != nil {
		return nil, err
	}
	reason, err := number[pb.EndReason]("reason", "END_REASON_", pb.EndReason_value, options.Reason)
	if err != nil {
		return nil, err
	}
	actor, err := number[pb.Actor]("actor", "ACTOR_", pb.Actor_value, options.Actor)
	if err != nil {
		return nil, err
	}
	request := &pb.EndSessionsRequest{
		Filter: told, Except: excepted, DryRun: options.DryRun, Reason: reason, Actor: actor, ActorId: options.ActorID, Note: options.Note,
		WholeTenant: options.WholeTenant,
	}
	// A second call would find none, and count them so.
	m, f, err := call(ctx, a.caller, options.DryRun, a.service.EndSessions, request)
	return answered(m, f, err, func(m *pb.EndSessionsResponse) *SessionsEnded {
		return &SessionsEnded{m.GetMatchedCount(), m.GetEndedCount(), asRefs(m.GetSessionRefs())}
	})
}

// Explained is the history of lives. Its messages are those of the .proto, whose comments explain them; they hold no id.
type Explained struct {
	Explanations []*pb.SessionExplanation
	Truncated    bool
}

func explained(m *pb.ExplainSessionResponse) *Explained {
	return &Explained{m.GetExplanations(), m.GetTruncated()}
}

// Explain tells all that is kept of a session's life: "why was I logged out?". By its ID: of those too that went on in its place.
func (a *Admin) Explain(ctx context.Context, name Name, actorID string) (*Explained, error) {
	request := &pb.ExplainSessionRequest{Tenant: a.tenant, ActorId: actorID}
	switch name := name.(type) {
	case ID:
		request.Target = &pb.ExplainSessionRequest_SessionId{SessionId: string(name)}
	case Ref:
		request.Target = &pb.ExplainSessionRequest_SessionRef{SessionRef: string(name)}
	default:
		return nil, invalid("session_id", "is nil; an ID or a Ref is needed")
	}
	m, f, err := call(ctx, a.caller, true, a.service.ExplainSession, request)
	return answered(m, f, err, explained)
}

// ExplainSubject tells the lives of a person's sessions that were live at some time of a period, whose ends may be zero: up to 100,
// the latest first.
func (a *Admin) ExplainSubject(ctx context.Context, subject string, start, end time.Time, actorID string) (*Explained, error) {
	period := &pb.SubjectPeriod{Subject: subject, StartTime: stamp(start), EndTime: stamp(end)}
	request := &pb.ExplainSessionRequest{
		Tenant: a.tenant, ActorId: actorID, Target: &pb.ExplainSessionRequest_SubjectPeriod{SubjectPeriod: period},
	}
	m, f, err := call(ctx, a.caller, true, a.service.ExplainSession, request)
	return answered(m, f, err, explained)
}

func stamp(at time.Time) *timestamppb.Timestamp {
	if at.IsZero() {
		return nil
	}
	return timestamppb.New(at)
}

// ListPolicies tells the policies as they are in force, and how they depart from the standards.
func (a *Admin) ListPolicies(ctx context.Context, actorID string) (*pb.ListPoliciesResponse, error) {
	m, f, err := call(ctx, a.caller, true, a.service.ListPolicies, &pb.ListPoliciesRequest{ActorId: actorID})
	return answered(m, f, err, func(m *pb.ListPoliciesResponse) *pb.ListPoliciesResponse { return m })
}

// Stats are counts of a tenant's sessions.
type Stats struct {
	States              map[State]uint64
	Reasons             map[EndReason]uint64
	GhostSessionCount   uint64
	WorkingSessionCount uint64
	UnenforcedEndCount  uint64
}

// Stats counts the tenant's sessions.
func (a *Admin) Stats(ctx context.Context, actorID string) (*Stats, error) {
	m, f, err := call(ctx, a.caller, true, a.service.GetStats, &pb.GetStatsRequest{Tenant: a.tenant, ActorId: actorID})
	return answered(m, f, err, func(m *pb.GetStatsResponse) *Stats {
		stats := &Stats{
			map[State]uint64{}, map[EndReason]uint64{}, m.GetGhostSessionCount(), m.GetWorkingSessionCount(), m.GetUnenforcedEndCount(),
		}
		for _, each := range m.GetStates() {
			stats.States[word[State](each.GetState().String(), "SESSION_STATE_")] += each.GetSessionCount()
		}
		for _, each := range m.GetReasons() {
			stats.Reasons[word[EndReason](each.GetReason().String(), "END_REASON_")] += each.GetSessionCount()
		}
		return stats
	})
}
