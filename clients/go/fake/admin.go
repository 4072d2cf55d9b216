package fake

import (
	"context"
	"fmt"
	"slices"
	"strings"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

const (
	mostSpared = 100
	mostRefs   = 1000
)

// ListSessions lists sessions, in the order of their refs. ExplainSession, ListPolicies and GetStats are UNIMPLEMENTED.
func (s *server) ListSessions(_ context.Context, q *pb.ListSessionsRequest) (*pb.ListSessionsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catchUp()
	b := &bounds{}
	b.text("actor_id", q.GetActorId(), 128)
	found := s.filtered(b, q.GetFilter())
	size := 100
	if q.PageSize != nil {
		size = int(q.GetPageSize())
	}
	if size < 1 || size > 1000 {
		b.invalid("page_size", fmt.Sprintf("is %d; 1 to 1000 are allowed", size))
	}
	after, isToken := strings.CutPrefix(q.GetPageToken(), "after-")
	if q.GetPageToken() != "" && !(isToken && refForm.MatchString(after)) {
		b.invalid("page_token", "is not a token of this list; begin without one")
	}
	if err := b.err(); err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(each *record) bool { return each.ref <= after })
	response := &pb.ListSessionsResponse{}
	for _, each := range found[:min(size, len(found))] {
		response.Sessions = append(response.Sessions, sessionOf(each, s.now, false))
	}
	if len(found) > size {
		response.NextPageToken = "after-" + found[size-1].ref
	}
	return response, nil
}

// EndSessions ends all live sessions that match.
func (s *server) EndSessions(_ context.Context, q *pb.EndSessionsRequest) (*pb.EndSessionsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catchUp()
	b, filter := &bounds{}, q.GetFilter()
	b.text("actor_id", q.GetActorId(), 128)
	found := s.filtered(b, filter)
	if slices.Contains(filter.GetStates(), pb.SessionState_SESSION_STATE_ENDED) {
		b.invalid("filter.states", "may only name live ones, ACTIVE and EXPIRING: what has ended stays ended")
	}
	if q.GetWholeTenant() == (filter.GetSubject() != "" || len(filter.GetLabels()) > 0 || filter.GetPolicy() != "") {
		b.invalid("whole_tenant", "must be true to end all sessions of a tenant, and only then")
	}
	if count := len(q.GetExcept()); count > mostSpared {
		b.invalid("except", fmt.Sprintf("has %d items; at most %d are allowed", count, mostSpared))
	}
	reason, actor := b.endWords(q.GetReason(), q.GetActor(), pb.EndReason_END_REASON_REVOKED)
	b.text("note", q.GetNote(), 256)
	if err := b.err(); err != nil {
		return nil, err
	}
	spared := map[string]bool{}
	for place, name := range q.GetExcept() {
		ref, err := s.named(filter.GetTenant(), fmt.Sprintf("except[%d].", place), name)
		if err != nil {
			return nil, err
		}
		spared[ref] = true
	}
	follow(s.log, spared)
	response := &pb.EndSessionsResponse{}
	for _, each := range found {
		if spared[each.ref] {
			continue
		}
		response.MatchedCount++
		if len(response.SessionRefs) < mostRefs {
			response.SessionRefs = append(response.SessionRefs, each.ref)
		}
		if !q.GetDryRun() {
			if _, err := s.endOne(each, &tombstone{reason: reason, actor: actor, actorID: q.GetActorId(), note: q.GetNote()}); err != nil {
				return nil, err
			}
			response.EndedCount++
		}
	}
	return response, nil
}

// filtered are the sessions that match, in the order of their refs: live ones, if no states are named.
func (s *server) filtered(b *bounds, filter *pb.SessionFilter) []*record {
	if err := s.ownTenant("filter.tenant", filter.GetTenant()); err != nil && b.problem == nil {
		b.problem, _ = err.(*failed)
	}
	b.text("filter.subject", filter.GetSubject(), 256)
	for place, state := range filter.GetStates() {
		field := fmt.Sprintf("filter.states[%d]", place)
		b.known(field, state)
		if state == pb.SessionState_SESSION_STATE_UNSPECIFIED || state == pb.SessionState_SESSION_STATE_UNKNOWN {
			b.invalid(field, "must be ACTIVE, EXPIRING or ENDED; leave `states` empty for live sessions")
		}
	}
	b.labels("filter.labels", filter.GetLabels())
	b.text("filter.policy", filter.GetPolicy(), 128)
	states := filter.GetStates()
	if len(states) == 0 {
		states = []pb.SessionState{pb.SessionState_SESSION_STATE_ACTIVE, pb.SessionState_SESSION_STATE_EXPIRING}
	}
	var found []*record
	for ref := range s.records {
		each := s.find(ref)
		if each == nil || each.tenant != filter.GetTenant() || !matches(each, filter) {
			continue
		}
		if slices.Contains(states, statusOf(s.examined(each), s.now, false).GetState()) {
			found = append(found, each)
		}
	}
	slices.SortFunc(found, func(a, b *record) int { return strings.Compare(a.ref, b.ref) })
	return found
}

func matches(r *record, filter *pb.SessionFilter) bool {
	for key, value := range filter.GetLabels() {
		if own, has := r.labels[key]; !has || own != value {
			return false
		}
	}
	return (filter.GetSubject() == "" || filter.GetSubject() == r.subject) && (filter.GetPolicy() == "" || filter.GetPolicy() == r.limits.policy)
}
