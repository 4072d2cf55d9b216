package sidecar

import (
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// Between the messages of the wire and the words of this package.

var (
	endReasons = pb.EndReason_value
	actors     = pb.Actor_value
)

// ---- Requests ----

// span is a duration; nil if it is 0, which means unset.
func span(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// zero is a duration of 0 that is said.
func zero() *durationpb.Duration { return new(durationpb.Duration) }

func sessionName(field string, name Name) (*pb.SessionName, error) {
	switch name := name.(type) {
	case ID:
		return &pb.SessionName{Name: &pb.SessionName_SessionId{SessionId: string(name)}}, nil
	case Ref:
		return &pb.SessionName{Name: &pb.SessionName_SessionRef{SessionRef: string(name)}}, nil
	}
	return nil, invalid(field, "is nil; an ID or a Ref is needed")
}

func sessionNames(field string, names []Name) ([]*pb.SessionName, error) {
	told := make([]*pb.SessionName, 0, len(names))
	for _, each := range names {
		name, err := sessionName(field, each)
		if err != nil {
			return nil, err
		}
		told = append(told, name)
	}
	return told, nil
}

func touchRequest(tenant string, touch Touch) (*pb.TouchRequest, error) {
	activity, err := number[pb.Activity]("activity", "ACTIVITY_", pb.Activity_value, touch.Activity)
	if err != nil {
		return nil, err
	}
	request := &pb.TouchRequest{Tenant: tenant, SessionId: string(touch.ID), Activity: activity, IdleFor: span(touch.IdleFor)}
	if hints := touch.Hints; hints != nil {
		visibility, err := number[pb.PageVisibility]("hints.page_visibility", "PAGE_VISIBILITY_", pb.PageVisibility_value, hints.PageVisibility)
		if err != nil {
			return nil, err
		}
		request.Hints = &pb.TouchHints{
			Host: hints.Host, Method: hints.Method, Path: hints.Path, SecFetchUser: hints.SecFetchUser, SecFetchMode: hints.SecFetchMode,
			SecFetchDest: hints.SecFetchDest, SecPurpose: hints.SecPurpose, PageVisibility: visibility, InputReport: hints.InputReport,
		}
	}
	return request, nil
}

// notUnicode names the field of a request that the wire cannot carry, if there is one.
func notUnicode(message protoreflect.Message) string {
	found := ""
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		name := string(field.Name())
		each := func(kind protoreflect.Kind, value protoreflect.Value) {
			switch {
			case kind == protoreflect.StringKind && !utf8.ValidString(value.String()):
				found = name
			case kind == protoreflect.MessageKind:
				if inner := notUnicode(value.Message()); inner != "" {
					found = name + "." + inner
				}
			}
		}
		switch {
		case field.IsMap():
			value.Map().Range(func(key protoreflect.MapKey, item protoreflect.Value) bool {
				each(field.MapKey().Kind(), key.Value())
				each(field.MapValue().Kind(), item)
				return found == ""
			})
		case field.IsList():
			for i := range value.List().Len() {
				each(field.Kind(), value.List().Get(i))
			}
		default:
			each(field.Kind(), value)
		}
		return found == ""
	})
	return found
}

// ---- Answers ----

func moment(stamp *timestamppb.Timestamp) time.Time {
	if stamp == nil {
		return time.Time{}
	}
	return stamp.AsTime()
}

func asStatus(m *pb.SessionStatus) Status {
	state := word[State](m.GetState().String(), "SESSION_STATE_")
	if state == "" {
		state = StateOther
	}
	return Status{
		SessionRef: Ref(m.GetSessionRef()), State: state,
		ServerTime: moment(m.GetServerTime()), ExpireTime: moment(m.GetExpireTime()), ExpiresIn: m.GetExpiresIn().AsDuration(),
		Limit: asLimit(m.GetLimit()), NextWarningTime: moment(m.GetNextWarningTime()), CanExtend: m.GetCanExtend(),
		Version: m.GetVersion(), Scope: word[Scope](m.GetScope().String(), "KNOWLEDGE_SCOPE_"), MayHaveEnded: m.GetMayHaveEnded(),
		Alias: m.GetAlias(), ReadOnly: m.GetReadOnly(), ObservedOnly: m.GetObservedOnly(),
	}
}

func asLimit(limit pb.Limit) Limit { return word[Limit](limit.String(), "LIMIT_") }

func asEnd(m *pb.SessionEnd) End {
	return End{
		Reason: word[EndReason](m.GetReason().String(), "END_REASON_"), Actor: word[Actor](m.GetActor().String(), "ACTOR_"),
		EndTime: moment(m.GetEndTime()), ActorID: m.GetActorId(), Note: m.GetNote(), SuccessorRef: Ref(m.GetSuccessorRef()),
	}
}

func asEndOrNil(m *pb.SessionEnd) *End {
	if m == nil {
		return nil
	}
	end := asEnd(m)
	return &end
}

func asRefs(values []string) []Ref {
	var refs []Ref
	for _, value := range values {
		refs = append(refs, Ref(value))
	}
	return refs
}

func asSession(m *pb.Session) Session {
	session := Session{
		Status: asStatus(m.GetStatus()), Tenant: m.GetTenant(), Subject: m.GetSubject(), Policy: m.GetPolicy(),
		PolicyRevision: m.GetPolicyRevision(), IdleTimeout: m.GetIdleTimeout().AsDuration(), AbsoluteTimeout: m.GetAbsoluteTimeout().AsDuration(),
		CreateTime: moment(m.GetCreateTime()), AuthenticationTime: moment(m.GetAuthenticationTime()),
		AuthenticationLevel: m.GetAuthenticationLevel(), LastActivityTime: moment(m.GetLastActivityTime()),
		LastActivityAccuracy: m.GetLastActivityAccuracy().AsDuration(), IdleExpireTime: moment(m.GetIdleExpireTime()),
		AbsoluteExpireTime: moment(m.GetAbsoluteExpireTime()), PresenceExpireTime: moment(m.GetPresenceExpireTime()),
		Extensions: m.GetExtensions(), Labels: m.GetLabels(), End: asEndOrNil(m.GetEnd()), UnenforcedEnd: asEndOrNil(m.GetUnenforcedEnd()),
		PredecessorRef: Ref(m.GetPredecessorRef()),
	}
	for _, hold := range m.GetHolds() {
		session.Holds = append(session.Holds, SessionHold{
			HoldID: hold.GetHoldId(), Kind: asHoldKind(hold.GetKind()), Purpose: hold.GetPurpose(),
			StartTime: moment(hold.GetStartTime()), ExpireTime: moment(hold.GetExpireTime()), ExpiresIn: hold.GetExpiresIn().AsDuration(),
		})
	}
	return session
}

func asHoldKind(kind pb.HoldKind) HoldKind { return word[HoldKind](kind.String(), "HOLD_KIND_") }

// stateAnswer is what a status means for a request. `whole` is nil where only the status is told.
func stateAnswer(status Status, whole *Session) Answer {
	switch status.State {
	case StateActive, StateExpiring:
		return &Live{Status: status, Session: whole}
	case StateEnded:
		end := End{EndTime: status.ExpireTime}
		if whole != nil && whole.End != nil {
			end = *whole.End
		}
		return &Ended{SessionRef: status.SessionRef, End: end, Session: whole, Status: &status}
	}
	return &Unknown{SessionRef: status.SessionRef, MayHaveEnded: status.MayHaveEnded, Status: &status}
}

func touchedAnswer(m *pb.TouchResponse) Answer {
	touched := &Touched{Counted: m.GetCounted(), Result: word[TouchResult](m.GetResult().String(), "TOUCH_RESULT_"), Rule: m.GetRule()}
	return &Live{Status: asStatus(m.GetStatus()), Touch: touched}
}

// itemOutcome is the error of one item of a batch.
func itemOutcome(m *pb.ItemError, fail Fail) Outcome {
	if m.GetReason() == "SESSION_ENDED" {
		return Outcome{Answer: &Ended{SessionRef: Ref(m.GetSessionRef()), End: asEnd(m.GetEnd())}}
	}
	f := &failure{code: codeName(codes.Code(m.GetCode())), message: m.GetMessage(), reason: m.GetReason()}
	if ref := m.GetSessionRef(); ref != "" {
		f.metadata = map[string]string{"session_ref": ref}
	}
	answer, err := f.asAnswer(fail)
	return Outcome{answer, err}
}

// ---- Events ----

func asEventSession(m *pb.EventSession) EventSession {
	return EventSession{
		SessionRef: Ref(m.GetSessionRef()), SessionID: ID(m.GetSessionId()), Tenant: m.GetTenant(), Subject: m.GetSubject(),
		Labels: m.GetLabels(), Version: m.GetVersion(),
	}
}

// asEvent is what a message of the stream tells; nil for a heartbeat, and for what is too new.
func asEvent(m *pb.WatchExpiryResponse) Event {
	at := moment(m.GetEmitTime())
	switch body := m.GetMessage().(type) {
	case *pb.WatchExpiryResponse_Snapshot:
		told := body.Snapshot
		return &Snapshot{at, asEventSession(told.GetSession()), asStatus(told.GetStatus()), asEndOrNil(told.GetEnd()), Ref(told.GetPredecessorRef())}
	case *pb.WatchExpiryResponse_SnapshotEnd:
		return &SnapshotEnd{at, body.SnapshotEnd.GetSnapshotCount()}
	case *pb.WatchExpiryResponse_Warning:
		told := body.Warning
		return &Warning{
			at, asEventSession(told.GetSession()), asLimit(told.GetLimit()), told.GetPoint().AsDuration(), moment(told.GetExpireTime()),
			told.GetExpiresIn().AsDuration(), told.GetCanExtend(),
		}
	case *pb.WatchExpiryResponse_Cleared:
		told := body.Cleared
		cause := word[ClearedCause](told.GetCause().String(), "CLEARED_CAUSE_")
		return &Cleared{
			at, asEventSession(told.GetSession()), asLimit(told.GetLimit()), cause, moment(told.GetExpireTime()), told.GetExpiresIn().AsDuration(),
		}
	case *pb.WatchExpiryResponse_Ended:
		told := body.Ended
		return &SessionEnded{at, asEventSession(told.GetSession()), asEnd(told.GetEnd()), moment(told.GetCreateTime()), moment(told.GetLastActivityTime())}
	case *pb.WatchExpiryResponse_Draining:
		return &Draining{at}
	}
	return nil
}
