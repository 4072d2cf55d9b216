package fake

import (
	"context"
	"encoding/base64"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// Rotate gives a session another id.
func (s *server) Rotate(_ context.Context, q *pb.RotateRequest) (*pb.RotateResponse, error) {
	done, err := s.asked(q.GetTenant())
	defer done()
	if err != nil {
		return nil, err
	}
	b, tenant, own := &bounds{}, q.GetTenant(), q.GetNewSessionId()
	b.text("subject", q.GetSubject(), 256)
	if q.Subject != nil && q.GetSubject() == "" {
		b.invalid("subject", "is empty; leave it out to keep the subject, or give 1 to 256 bytes")
	}
	b.visible("authentication_level", q.GetAuthenticationLevel(), 0, 64)
	if q.GetAuthenticationLevel() != "" && q.AuthenticatedAgo == nil {
		b.invalid("authentication_level", "needs authenticated_ago beside it: it is the level of a new authentication")
	}
	b.sessionID("session_id", q.GetSessionId())
	if own == q.GetSessionId() {
		b.invalid("new_session_id", "is the id that the session has already; a new one is needed")
	}
	if own != "" {
		b.sessionID("new_session_id", own)
	}
	to := rotation{subject: q.Subject, level: q.GetAuthenticationLevel()}
	if ago := b.span("authenticated_ago", q.GetAuthenticatedAgo(), false); q.AuthenticatedAgo != nil {
		to.ago = &ago
	}
	to.request = b.request(q.GetRequestId(), q)
	if err := b.err(); err != nil {
		return nil, err
	}
	if err := s.refuseRef("new_session_id", tenant, own); err != nil {
		return nil, err
	}
	oldRef, id := s.ref(tenant, q.GetSessionId()), own
	switch {
	case own != "":
	case to.request != nil:
		id = s.madeOf(32, "rotation", tenant, oldRef, to.request.key)
	default:
		id = base64.RawURLEncoding.EncodeToString(random(32))
	}
	to.to = s.ref(tenant, id)
	if before, err := s.rotatedBefore(oldRef, id, to.request); before != nil || err != nil {
		return before, err
	}
	r, alias, err := s.lead(tenant, q.GetSessionId(), s.isAlias)
	if err != nil {
		return nil, err
	}
	return s.rotated(r, alias, oldRef, id, to)
}

func (s *server) rotated(r *record, alias bool, oldRef, id string, to rotation) (*pb.RotateResponse, error) {
	to.policy = s.policies[r.limits.policy]
	least := 1
	if to.policy != nil {
		least = to.policy.minIDLength
	}
	if err := longEnough("new_session_id", id, least); err != nil {
		return nil, err
	}
	taken := s.find(to.to)
	var losers []*record
	if to.policy != nil && to.subject != nil && *to.subject != r.subject && taken == nil {
		var err error
		if losers, err = s.losers(to.policy, r.tenant, *to.subject); err != nil {
			return nil, err
		}
	}
	// If the new name is taken nothing happens; but what else speaks against it is told first.
	asked := r
	if taken != nil {
		asked = r.copied()
	}
	next, err := asked.rotate(to, s.now)
	if taken == nil {
		s.publish(r)
	}
	switch {
	case err != nil:
		return nil, told(asked, err)
	case next == nil:
		if before, err := s.rotatedBefore(oldRef, id, to.request); before != nil || err != nil {
			return before, err
		}
		return nil, refusal("REQUEST_ID_REUSED", reused.message, s.find(oldRef))
	case taken != nil && taken.tombstone != nil:
		return nil, refusal("NEW_SESSION_ENDED", "a session of the new id has ended before; rotate to a fresh id", nil)
	case taken != nil:
		return nil, refusal("SESSION_EXISTS", "a live session has the new id already; rotate to a fresh id", taken)
	}
	s.add(next)
	return &pb.RotateResponse{
		SessionId: id, SupersededRefs: s.supersede(losers), Session: sessionOf(next, s.now, alias), PreviousEnd: endMessage(r.tombstone),
	}, nil
}

// rotatedBefore is what a retry is answered: the session that the same request made of this name before, or of the one that it stood
// for.
func (s *server) rotatedBefore(ref, id string, wanted *wanted) (*pb.RotateResponse, error) {
	if wanted == nil {
		return nil, nil
	}
	old := s.find(ref)
	for r := old; r != nil && r.tombstone != nil && r.tombstone.successor != ""; {
		end := r.tombstone
		next := s.find(end.successor)
		known := end.request != nil && end.request.key == wanted.key
		switch {
		case known && *end.request == *wanted && end.successor == s.ref(r.tenant, id):
			if next == nil {
				return nil, unknownTo(end.successor)
			}
			if next.tombstone != nil {
				return nil, endedError(next)
			}
			return &pb.RotateResponse{SessionId: id, Session: sessionOf(next, s.now, false), PreviousEnd: endMessage(end)}, nil
		case known && r == old:
			return nil, told(r, reused)
		}
		r = next
	}
	return nil, nil
}
