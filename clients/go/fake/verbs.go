package fake

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

const (
	mostTouches = 1000
	mostChecks  = 100
)

// asked begins each call: with the lock, a clock that has caught up, and a tenant that is served.
func (s *server) asked(tenant string) (func(), error) {
	s.mu.Lock()
	s.catchUp()
	return s.mu.Unlock, s.ownTenant("tenant", tenant)
}

// act lets a record decide, and tells what happened.
func act[T any](s *server, r *record, command func() (T, error)) (T, error) {
	answer, err := command()
	s.publish(r)
	return answer, told(r, err)
}

// Create starts a session.
func (s *server) Create(_ context.Context, q *pb.CreateRequest) (*pb.CreateResponse, error) {
	done, err := s.asked(q.GetTenant())
	defer done()
	if err != nil {
		return nil, err
	}
	b, tenant, own := &bounds{}, q.GetTenant(), q.GetSessionId()
	if own != "" {
		b.sessionID("session_id", own)
	}
	b.text("subject", q.GetSubject(), 256)
	b.text("policy", q.GetPolicy(), 128)
	b.labels("labels", q.GetLabels())
	idle, absolute := b.span("idle_timeout", q.GetIdleTimeout(), true), b.span("absolute_timeout", q.GetAbsoluteTimeout(), true)
	ago := b.span("authenticated_ago", q.GetAuthenticatedAgo(), false)
	b.visible("authentication_level", q.GetAuthenticationLevel(), 0, 64)
	idleFor := b.span("idle_for", q.GetIdleFor(), false)
	wanted := b.request(q.GetRequestId(), q)
	if err := b.err(); err != nil {
		return nil, err
	}
	id := own
	switch {
	case own != "":
	case wanted != nil:
		id = s.madeOf(32, "id", tenant, wanted.key)
	default:
		id = base64.RawURLEncoding.EncodeToString(random(32))
	}
	ref := s.ref(tenant, id)
	known := s.find(ref)
	if wanted != nil && known != nil && known.tombstone == nil {
		return s.createdBefore(id, known, wanted)
	}
	name := q.GetPolicy()
	if name == "" {
		name = "default"
	}
	limits := s.policies[name]
	if limits == nil {
		names := strings.Join(slices.Sorted(maps.Keys(s.policies)), ", ")
		return nil, refusal("POLICY_UNKNOWN", "there is no policy of this name; there are: "+names, nil)
	}
	if own != "" {
		if err := first(s.refuseRef("session_id", tenant, own), longEnough("session_id", own, limits.minIDLength)); err != nil {
			return nil, err
		}
	}
	switch {
	case idle > limits.idleTimeout:
		return nil, invalid("idle_timeout", fmt.Sprintf("may only be stricter than the policy: at most %s", limits.idleTimeout))
	case absolute > limits.absoluteTimeout:
		return nil, invalid("absolute_timeout", fmt.Sprintf("may only be stricter than the policy: at most %s", limits.absoluteTimeout))
	}
	limits = limits.stricter(idle, absolute)
	switch {
	case limits.enforced && idleFor >= limits.idleTimeout:
		return nil, refusal("ALREADY_PAST_LIMIT", fmt.Sprintf("idle_for reaches the idle timeout of %s", limits.idleTimeout), nil)
	case limits.enforced && ago >= limits.absoluteTimeout:
		return nil, refusal("ALREADY_PAST_LIMIT", fmt.Sprintf("authenticated_ago reaches the absolute timeout of %s", limits.absoluteTimeout), nil)
	}
	var losers []*record
	switch {
	case known == nil:
		if losers, err = s.losers(limits, tenant, q.GetSubject()); err != nil {
			return nil, err
		}
	case known.tombstone != nil:
		return nil, endedError(known)
	default:
		s.examined(known)
		return nil, refusal("SESSION_EXISTS", "a live session has this id already; create sessions with fresh ids", known)
	}
	begun := &record{
		ref: ref, tenant: tenant, subject: q.GetSubject(), labels: q.GetLabels(), limits: limits, created: s.now, authenticated: s.now.Add(-ago),
		lastActivity: s.now.Add(-idleFor), level: q.GetAuthenticationLevel(), version: 1, fired: map[pb.Limit]int{},
	}
	begun.remember(wanted, s.now, "created", extendReply{})
	begun.begin(s.now)
	s.add(begun)
	return &pb.CreateResponse{SessionId: id, Session: sessionOf(begun, s.now, false), SupersededRefs: s.supersede(losers)}, nil
}

func (s *server) createdBefore(id string, known *record, wanted *wanted) (*pb.CreateResponse, error) {
	before := s.examined(known).recall(wanted, s.now)
	switch {
	case before == nil:
		return nil, refusal("SESSION_EXISTS", "a live session has this id already; create sessions with fresh ids", known)
	case before.outcome != "created":
		return nil, told(known, reused)
	}
	return &pb.CreateResponse{SessionId: id, Session: sessionOf(known, s.now, false)}, nil
}

// losers are those who must go so that the subject may begin one more.
func (s *server) losers(limits *limits, tenant, subject string) ([]*record, error) {
	most := limits.maxPerSubject
	if most == 0 || !limits.enforced || subject == "" {
		return nil, nil
	}
	var peers []*record
	for _, each := range s.live() {
		if each.tenant == tenant && each.subject == subject && s.examined(each).limits.policy == limits.policy {
			peers = append(peers, each)
		}
	}
	slices.SortStableFunc(peers, func(a, b *record) int { return a.created.Compare(b.created) })
	tooMany := len(peers) + 1 - most
	if tooMany > 0 && !limits.endsOldest {
		return nil, refusal("SUBJECT_CAP", fmt.Sprintf("the subject has as many live sessions as max_sessions_per_subject allows, %d", most), nil)
	}
	return peers[:max(tooMany, 0)], nil
}

func (s *server) supersede(losers []*record) []string {
	var refs []string
	for _, each := range losers {
		refs = append(refs, each.ref)
		_, _ = s.endOne(each, &tombstone{reason: pb.EndReason_END_REASON_SUPERSEDED, actor: pb.Actor_ACTOR_POLICY}) // It lives.
	}
	return refs
}

func (s *server) endOne(r *record, end *tombstone) (*tombstone, error) {
	end.at, end.forgetAt = s.now, s.now.Add(r.limits.tombstoneTTL)
	return act(s, r, func() (*tombstone, error) { return end, r.end(end, s.now) })
}

// Touch reports activity.
func (s *server) Touch(_ context.Context, q *pb.TouchRequest) (*pb.TouchResponse, error) {
	done, err := s.asked(q.GetTenant())
	defer done()
	if err != nil {
		return nil, err
	}
	return s.touch(q)
}

func (s *server) touch(q *pb.TouchRequest) (*pb.TouchResponse, error) {
	b := &bounds{}
	b.sessionID("session_id", q.GetSessionId())
	b.known("activity", q.GetActivity())
	idleFor := b.span("idle_for", q.GetIdleFor(), false)
	b.hints(q.GetHints())
	if err := b.err(); err != nil {
		return nil, err
	}
	r, alias, err := s.lead(q.GetTenant(), q.GetSessionId(), s.isAlias)
	if err != nil {
		return nil, err
	}
	reads := slices.Contains([]string{"", "GET", "HEAD", "OPTIONS"}, q.GetHints().GetMethod())
	if r.limits.passive && r.limits.enforced && !reads {
		return nil, refusal("READ_ONLY_SESSION", "the session is for reading only (policy: passive)", r)
	}
	said := r.limits.judge(q.GetActivity(), q.GetHints(), r.reportsInput)
	result, err := act(s, r, func() (pb.TouchResult, error) {
		return r.touch(said, said.counts && q.GetHints().GetInputReport(), idleFor, s.now)
	})
	if err != nil {
		return nil, err
	}
	counted := result == pb.TouchResult_TOUCH_RESULT_COUNTED
	return &pb.TouchResponse{Status: statusOf(r, s.now, alias), Counted: counted, Result: result, Rule: said.rule}, nil
}

// BatchTouch is many touches, each with its own outcome.
func (s *server) BatchTouch(_ context.Context, q *pb.BatchTouchRequest) (*pb.BatchTouchResponse, error) {
	b := &bounds{}
	b.within("touches", len(q.GetTouches()), mostTouches)
	if err := b.err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catchUp()
	response := &pb.BatchTouchResponse{}
	for _, each := range q.GetTouches() {
		answer, err := (*pb.TouchResponse)(nil), s.ownTenant("tenant", each.GetTenant())
		if err == nil {
			answer, err = s.touch(each)
		}
		outcome := &pb.TouchOutcome{Outcome: &pb.TouchOutcome_Touch{Touch: answer}}
		if err != nil {
			outcome.Outcome = &pb.TouchOutcome_Error{Error: s.itemError(err)}
		}
		response.Outcomes = append(response.Outcomes, outcome)
	}
	return response, nil
}

func (s *server) itemError(err error) *pb.ItemError {
	var why *failed
	if !errors.As(err, &why) {
		return &pb.ItemError{Code: int32(codes.Internal), Message: err.Error()}
	}
	item := &pb.ItemError{Code: int32(why.code), Message: why.message, Reason: why.reason, SessionRef: why.metadata["session_ref"]}
	if why.reason == "SESSION_ENDED" {
		if over := s.find(item.SessionRef); over != nil {
			item.End = endOf(over)
		}
	}
	return item
}

// Check answers what sessions are.
func (s *server) Check(_ context.Context, q *pb.CheckRequest) (*pb.CheckResponse, error) {
	done, err := s.asked(q.GetTenant())
	defer done()
	if err != nil {
		return nil, err
	}
	if q.GetName() != nil {
		if len(q.GetSessions()) > 0 {
			return nil, invalid("sessions", "must be empty if session_id or session_ref is set; ask for one or for many")
		}
		name := &pb.SessionName{Name: &pb.SessionName_SessionId{SessionId: q.GetSessionId()}}
		if ref, is := q.GetName().(*pb.CheckRequest_SessionRef); is {
			name.Name = &pb.SessionName_SessionRef{SessionRef: ref.SessionRef}
		}
		session, err := s.checked(q.GetTenant(), "", name)
		if err != nil {
			return nil, err
		}
		return &pb.CheckResponse{Session: session}, nil
	}
	b := &bounds{}
	b.within("sessions", len(q.GetSessions()), mostChecks)
	if err := b.err(); err != nil {
		return nil, err
	}
	response := &pb.CheckResponse{}
	for place, name := range q.GetSessions() {
		session, err := s.checked(q.GetTenant(), fmt.Sprintf("sessions[%d].", place), name)
		outcome := &pb.CheckOutcome{Outcome: &pb.CheckOutcome_Status{Status: session.GetStatus()}}
		if err != nil {
			outcome.Outcome = &pb.CheckOutcome_Error{Error: s.itemError(err)}
		}
		response.Outcomes = append(response.Outcomes, outcome)
	}
	return response, nil
}

// checked is all that is known of the session that a name stands for: of its successor, while an id is an alias.
func (s *server) checked(tenant, field string, name *pb.SessionName) (*pb.Session, error) {
	ref, err := s.named(tenant, field, name)
	if err != nil {
		return nil, err
	}
	r := s.findOwn(tenant, ref)
	if r == nil {
		return &pb.Session{Status: unknownStatus(ref, s.now), Tenant: tenant}, nil
	}
	if _, byID := name.GetName().(*pb.SessionName_SessionId); byID {
		if next := s.successor(r, s.isAlias); next != nil {
			return sessionOf(next, s.now, true), nil
		}
	}
	return sessionOf(r, s.now, false), nil
}

// Extend says that the person pressed "stay".
func (s *server) Extend(_ context.Context, q *pb.ExtendRequest) (*pb.ExtendResponse, error) {
	done, err := s.asked(q.GetTenant())
	defer done()
	if err != nil {
		return nil, err
	}
	b := &bounds{}
	b.sessionID("session_id", q.GetSessionId())
	by := b.span("wanted_duration", q.GetWantedDuration(), true)
	wanted := b.request(q.GetRequestId(), q, "session_id")
	if err := b.err(); err != nil {
		return nil, err
	}
	r, alias, err := s.lead(q.GetTenant(), q.GetSessionId(), s.isAlias)
	if err != nil {
		return nil, err
	}
	reply, err := act(s, r, func() (extendReply, error) { return r.extend(by, wanted, s.now) })
	if err != nil {
		return nil, err
	}
	response := &pb.ExtendResponse{Status: statusOf(r, s.now, alias), GrantedDuration: durationpb.New(reply.granted)}
	if reply.clamped {
		response.ClampedBy = absolute
	}
	return response, nil
}

// Hold begins or renews a hold.
func (s *server) Hold(_ context.Context, q *pb.HoldRequest) (*pb.HoldResponse, error) {
	done, err := s.asked(q.GetTenant())
	defer done()
	if err != nil {
		return nil, err
	}
	b := &bounds{}
	b.sessionID("session_id", q.GetSessionId())
	b.holdID(q.GetHoldId())
	b.known("kind", q.GetKind())
	if q.GetKind() == 0 {
		b.invalid("kind", "is required: HOLD_KIND_WORK or HOLD_KIND_PRESENCE")
	}
	if q.Ttl == nil {
		b.invalid("ttl", "is required: how long the hold should live, over 0 s")
	}
	ttl := b.span("ttl", q.GetTtl(), true)
	b.text("purpose", q.GetPurpose(), 128)
	if err := b.err(); err != nil {
		return nil, err
	}
	r, alias, err := s.holder(q.GetTenant(), q.GetSessionId(), q.GetHoldId())
	if err != nil {
		return nil, err
	}
	reply, err := act(s, r, func() (holdReply, error) { return r.hold(q.GetHoldId(), q.GetKind(), ttl, q.GetPurpose(), s.now) })
	if err != nil {
		return nil, err
	}
	return &pb.HoldResponse{
		Status: statusOf(r, s.now, alias), GrantedTtl: durationpb.New(reply.granted), ClampedBy: reply.clamped, Created: reply.created,
	}, nil
}

// Release ends a hold.
func (s *server) Release(_ context.Context, q *pb.ReleaseRequest) (*pb.ReleaseResponse, error) {
	done, err := s.asked(q.GetTenant())
	defer done()
	if err != nil {
		return nil, err
	}
	b := &bounds{}
	b.sessionID("session_id", q.GetSessionId())
	b.holdID(q.GetHoldId())
	if err := b.err(); err != nil {
		return nil, err
	}
	r, alias, err := s.holder(q.GetTenant(), q.GetSessionId(), q.GetHoldId())
	if err != nil {
		return nil, err
	}
	released, err := act(s, r, func() (bool, error) { return r.release(q.GetHoldId(), s.now) })
	if err != nil {
		return nil, err
	}
	return &pb.ReleaseResponse{Status: statusOf(r, s.now, alias), Released: released}, nil
}

// End ends a session.
func (s *server) End(_ context.Context, q *pb.EndRequest) (*pb.EndResponse, error) {
	done, err := s.asked(q.GetTenant())
	defer done()
	if err != nil {
		return nil, err
	}
	b := &bounds{}
	b.sessionID("session_id", q.GetSessionId())
	reason, actor := b.endWords(q.GetReason(), q.GetActor(), pb.EndReason_END_REASON_LOGOUT)
	b.text("actor_id", q.GetActorId(), 128)
	b.text("note", q.GetNote(), 256)
	wanted := b.request(q.GetRequestId(), q, "session_id")
	if err := b.err(); err != nil {
		return nil, err
	}
	r, alias, err := s.lead(q.GetTenant(), q.GetSessionId(), s.isAlias)
	if err != nil {
		return s.endedBefore(q, wanted, err)
	}
	end, err := s.endOne(r, &tombstone{reason: reason, actor: actor, actorID: q.GetActorId(), note: q.GetNote(), request: wanted})
	if err != nil {
		return nil, err
	}
	return &pb.EndResponse{Status: statusOf(r, s.now, alias), End: endMessage(end), EndedNow: true}, nil
}

// endedBefore answers the first end. A retry is told what the first call was told.
func (s *server) endedBefore(q *pb.EndRequest, wanted *wanted, err error) (*pb.EndResponse, error) {
	var why *failed
	if !errors.As(err, &why) || why.reason != "SESSION_ENDED" {
		return nil, err
	}
	over := s.find(why.metadata["session_ref"])
	if over == nil {
		return nil, err
	}
	first := over.tombstone
	again := wanted != nil && first.request != nil && first.request.key == wanted.key
	if again && *first.request != *wanted {
		return nil, told(over, reused)
	}
	alias := over.ref != s.ref(q.GetTenant(), q.GetSessionId())
	return &pb.EndResponse{Status: statusOf(over, s.now, alias), End: endMessage(first), EndedNow: again}, nil
}
