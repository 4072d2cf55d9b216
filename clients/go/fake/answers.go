package fake

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// What is answered and told of a record, in the messages of the wire.

func stamp(at time.Time) *timestamppb.Timestamp {
	if at.IsZero() {
		return nil
	}
	return timestamppb.New(at)
}

func endMessage(end *tombstone) *pb.SessionEnd {
	return &pb.SessionEnd{
		Reason: end.reason, Actor: end.actor, ActorId: end.actorID, EndTime: stamp(end.at), Note: end.note, SuccessorRef: end.successor,
	}
}

func endOf(r *record) *pb.SessionEnd {
	if r.tombstone == nil {
		return nil
	}
	return endMessage(r.tombstone)
}

func aboutSession(r *record, version uint64) *pb.EventSession {
	return &pb.EventSession{SessionRef: r.ref, Tenant: r.tenant, Subject: r.subject, Labels: r.labels, Version: version}
}

// statusOf is the compact answer.
func statusOf(r *record, now time.Time, alias bool) *pb.SessionStatus {
	status := &pb.SessionStatus{
		SessionRef: r.ref, State: pb.SessionState_SESSION_STATE_ENDED, ServerTime: stamp(now), Version: r.version,
		Scope: pb.KnowledgeScope_KNOWLEDGE_SCOPE_MEMORY, Alias: alias,
	}
	if r.tombstone != nil {
		status.ExpireTime = stamp(r.tombstone.at)
		return status
	}
	expire, limit := r.deadlines(now).nearest()
	status.State = pb.SessionState_SESSION_STATE_ACTIVE
	if len(r.fired) > 0 {
		status.State = pb.SessionState_SESSION_STATE_EXPIRING
	}
	status.ExpireTime, status.ExpiresIn, status.Limit = stamp(expire), durationpb.New(max(expire.Sub(now), 0)), limit
	status.NextWarningTime, status.CanExtend = stamp(r.nextWarning(now)), r.canExtend(now)
	status.ReadOnly, status.ObservedOnly = r.limits.passive, !r.limits.enforced
	return status
}

func unknownStatus(ref string, now time.Time) *pb.SessionStatus {
	return &pb.SessionStatus{
		SessionRef: ref, State: pb.SessionState_SESSION_STATE_UNKNOWN, ServerTime: stamp(now), Scope: pb.KnowledgeScope_KNOWLEDGE_SCOPE_MEMORY,
	}
}

// sessionOf is all of a session.
func sessionOf(r *record, now time.Time, alias bool) *pb.Session {
	ends := r.deadlines(now)
	session := &pb.Session{
		Status: statusOf(r, now, alias), Tenant: r.tenant, Subject: r.subject, Policy: r.limits.policy, PolicyRevision: r.limits.revision,
		AbsoluteTimeout: durationpb.New(r.limits.absoluteTimeout), CreateTime: stamp(r.created), AuthenticationTime: stamp(r.authenticated),
		AuthenticationLevel: r.level, LastActivityTime: stamp(r.lastActivity), AbsoluteExpireTime: stamp(ends.absolute),
		Extensions: uint32(r.extensions), Labels: r.labels, End: endOf(r), PredecessorRef: r.predecessor,
	}
	if r.limits.idleTimeout < never {
		session.IdleTimeout, session.IdleExpireTime = durationpb.New(r.limits.idleTimeout), stamp(ends.idle)
		if r.tombstone != nil {
			session.IdleExpireTime = stamp(r.tombstone.idleDeadline)
		}
	}
	if r.tombstone != nil {
		return session
	}
	session.PresenceExpireTime = stamp(ends.presence)
	for _, each := range r.liveHolds(now) {
		session.Holds = append(session.Holds, &pb.SessionHold{
			HoldId: each.id, Kind: each.kind, Purpose: each.purpose, StartTime: stamp(each.started), ExpireTime: stamp(each.until),
			ExpiresIn: durationpb.New(each.until.Sub(now)),
		})
	}
	if would := r.unenforced; would != nil {
		session.UnenforcedEnd = &pb.SessionEnd{Reason: timeoutReasons[would.limit], Actor: pb.Actor_ACTOR_POLICY, EndTime: stamp(would.at)}
	}
	return session
}

// toldOf is what watchers are told of something that happened, and its kind; 0 for what goes on in another's place.
func toldOf(r *record, what news, now time.Time) (pb.EventKind, *pb.WatchExpiryResponse) {
	about, message := aboutSession(r, what.version), &pb.WatchExpiryResponse{EmitTime: stamp(now)}
	switch what := what.what.(type) {
	case warned:
		message.Message = &pb.WatchExpiryResponse_Warning{Warning: &pb.Warning{
			Session: about, Limit: what.limit, Point: durationpb.New(what.point), ExpireTime: stamp(what.expire),
			ExpiresIn: durationpb.New(what.expire.Sub(now)), CanExtend: what.canExtend,
		}}
		return pb.EventKind_EVENT_KIND_WARNING, message
	case cleared:
		message.Message = &pb.WatchExpiryResponse_Cleared{Cleared: &pb.Cleared{
			Session: about, Limit: what.limit, Cause: what.cause, ExpireTime: stamp(what.expire), ExpiresIn: durationpb.New(max(what.expire.Sub(now), 0)),
		}}
		return pb.EventKind_EVENT_KIND_CLEARED, message
	case succeeded:
		message.Message = &pb.WatchExpiryResponse_Snapshot{Snapshot: &pb.Snapshot{
			Session: about, Status: statusOf(what.record, now, false), PredecessorRef: what.record.predecessor,
		}}
		return 0, message
	}
	message.Message = &pb.WatchExpiryResponse_Ended{Ended: &pb.Ended{
		Session: about, End: endMessage(what.what.(ended).tombstone), CreateTime: stamp(r.created), LastActivityTime: stamp(r.lastActivity),
	}}
	return pb.EventKind_EVENT_KIND_ENDED, message
}

// snapshotOf is a session as it is now.
func snapshotOf(r *record, now time.Time) *pb.WatchExpiryResponse {
	snapshot := &pb.Snapshot{
		Session: aboutSession(r, r.version), Status: statusOf(r, now, false), End: endOf(r), PredecessorRef: r.predecessor,
	}
	return &pb.WatchExpiryResponse{EmitTime: stamp(now), Message: &pb.WatchExpiryResponse_Snapshot{Snapshot: snapshot}}
}
