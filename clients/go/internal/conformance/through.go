package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sidecar "session-sidecar"
	"session-sidecar/internal/transcript"
	pb "session-sidecar/proto/sessionsidecar/v1"
)

// errUnsayable is a request that the client cannot be made to send. It goes out as it is.
var errUnsayable = errors.New("the client has no words for this")

// ---- From the wire to the client ----

// said is the client's word for an enum of a request.
func said[T ~string](enum protoreflect.Enum) (T, error) {
	value := enum.Descriptor().Values().ByNumber(enum.Number())
	if value == nil {
		return "", errUnsayable
	}
	if enum.Number() == 0 {
		return "", nil
	}
	prefix := strings.TrimSuffix(string(enum.Descriptor().Values().Get(0).Name()), "UNSPECIFIED")
	return T(strings.TrimPrefix(string(value.Name()), prefix)), nil
}

// span is a duration. One of 0 is what the client takes for none.
func span(d *durationpb.Duration) time.Duration {
	if d != nil && d.AsDuration() == 0 {
		panic(errUnsayable)
	}
	return d.AsDuration()
}

func named(name *pb.SessionName) sidecar.Name {
	if ref, is := name.GetName().(*pb.SessionName_SessionRef); is {
		return sidecar.Ref(ref.SessionRef)
	}
	return sidecar.ID(name.GetSessionId())
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func touch(request *pb.TouchRequest) sidecar.Touch {
	touch := sidecar.Touch{ID: sidecar.ID(request.GetSessionId())}
	touch.Activity, touch.IdleFor = must(said[sidecar.Activity](request.GetActivity())), span(request.GetIdleFor())
	if h := request.GetHints(); h != nil {
		touch.Hints = &sidecar.Hints{
			Host: h.GetHost(), Method: h.GetMethod(), Path: h.GetPath(), SecFetchUser: h.GetSecFetchUser(), SecFetchMode: h.GetSecFetchMode(),
			SecFetchDest: h.GetSecFetchDest(), SecPurpose: h.GetSecPurpose(), InputReport: h.GetInputReport(),
			PageVisibility: must(said[sidecar.PageVisibility](h.GetPageVisibility())),
		}
	}
	return touch
}

// through carries out a verb of SessionService by way of the client. A panic with an error is one that the call fails with.
func through(ctx context.Context, client *sidecar.Client, request proto.Message) (answer proto.Message, err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			failed, is := thrown.(error)
			if !is {
				panic(thrown)
			}
			err = failed
		}
	}()
	switch r := request.(type) {
	case *pb.CreateRequest:
		return encoded(new(pb.CreateResponse), must(client.Create(ctx, sidecar.CreateOptions{
			Subject: r.GetSubject(), SessionID: sidecar.ID(r.GetSessionId()), Policy: r.GetPolicy(), Labels: r.GetLabels(),
			IdleTimeout: span(r.GetIdleTimeout()), AbsoluteTimeout: span(r.GetAbsoluteTimeout()), AuthenticatedAgo: span(r.GetAuthenticatedAgo()),
			IdleFor: span(r.GetIdleFor()), AuthenticationLevel: r.GetAuthenticationLevel(), RequestID: r.GetRequestId(),
		}))), nil
	case *pb.TouchRequest:
		given := touch(r)
		return touched(lived(must(client.Touch(ctx, given.ID, given.TouchOptions)))), nil
	case *pb.BatchTouchRequest:
		var touches []sidecar.Touch
		for _, each := range r.GetTouches() {
			touches = append(touches, touch(each))
		}
		response := new(pb.BatchTouchResponse)
		for _, outcome := range must(client.TouchMany(ctx, touches)) {
			if live, is := outcome.Answer.(*sidecar.Live); is {
				response.Outcomes = append(response.Outcomes, &pb.TouchOutcome{Outcome: &pb.TouchOutcome_Touch{Touch: touched(live)}})
			} else {
				response.Outcomes = append(response.Outcomes, &pb.TouchOutcome{Outcome: &pb.TouchOutcome_Error{Error: itemError(outcome)}})
			}
		}
		return response, nil
	case *pb.CheckRequest:
		return checked(ctx, client, r)
	case *pb.ExtendRequest:
		options := sidecar.ExtendOptions{WantedDuration: span(r.GetWantedDuration()), RequestID: r.GetRequestId()}
		return encoded(new(pb.ExtendResponse), must(client.Extend(ctx, sidecar.ID(r.GetSessionId()), options))), nil
	case *pb.HoldRequest:
		options := sidecar.HoldOptions{TTL: span(r.GetTtl()), Kind: must(said[sidecar.HoldKind](r.GetKind())), Purpose: r.GetPurpose()}
		if options.Kind == "" {
			return nil, errUnsayable
		}
		return encoded(new(pb.HoldResponse), must(client.Hold(ctx, sidecar.ID(r.GetSessionId()), r.GetHoldId(), options))), nil
	case *pb.ReleaseRequest:
		return encoded(new(pb.ReleaseResponse), must(client.Release(ctx, sidecar.ID(r.GetSessionId()), r.GetHoldId()))), nil
	case *pb.RotateRequest:
		options := sidecar.RotateOptions{
			NewSessionID: sidecar.ID(r.GetNewSessionId()), Subject: r.GetSubject(), AuthenticationLevel: r.GetAuthenticationLevel(),
			Login: r.AuthenticatedAgo != nil, AuthenticatedAgo: r.GetAuthenticatedAgo().AsDuration(), RequestID: r.GetRequestId(),
		}
		if r.Subject != nil && r.GetSubject() == "" {
			return nil, errUnsayable
		}
		return encoded(new(pb.RotateResponse), must(client.Rotate(ctx, sidecar.ID(r.GetSessionId()), options))), nil
	case *pb.EndRequest:
		options := sidecar.EndOptions{
			Reason: must(said[sidecar.EndReason](r.GetReason())), Actor: must(said[sidecar.Actor](r.GetActor())), ActorID: r.GetActorId(),
			Note: r.GetNote(), RequestID: r.GetRequestId(),
		}
		return encoded(new(pb.EndResponse), must(client.End(ctx, sidecar.ID(r.GetSessionId()), options))), nil
	}
	return nil, errUnsayable
}

func checked(ctx context.Context, client *sidecar.Client, r *pb.CheckRequest) (proto.Message, error) {
	response := new(pb.CheckResponse)
	if len(r.GetSessions()) > 0 {
		var names []sidecar.Name
		for _, each := range r.GetSessions() {
			names = append(names, named(each))
		}
		for _, outcome := range must(client.CheckMany(ctx, names)) {
			if status := statusOf(outcome.Answer); status != nil {
				told := encoded(new(pb.SessionStatus), status)
				response.Outcomes = append(response.Outcomes, &pb.CheckOutcome{Outcome: &pb.CheckOutcome_Status{Status: told}})
			} else {
				response.Outcomes = append(response.Outcomes, &pb.CheckOutcome{Outcome: &pb.CheckOutcome_Error{Error: itemError(outcome)}})
			}
		}
		return response, nil
	}
	var name sidecar.Name = sidecar.ID(r.GetSessionId())
	switch said := r.GetName().(type) {
	case nil:
		return nil, errUnsayable
	case *pb.CheckRequest_SessionRef:
		name = sidecar.Ref(said.SessionRef)
	}
	response.Session = new(pb.Session)
	switch answer := must(client.Check(ctx, name)).(type) {
	case *sidecar.Live:
		encoded(response.Session, answer.Session)
	case *sidecar.Ended:
		encoded(response.Session, answer.Session)
	case *sidecar.Unknown:
		response.Session.Status = encoded(new(pb.SessionStatus), answer.Status)
	default:
		return nil, asProblem(answer)
	}
	return response, nil
}

func statusOf(answer sidecar.Answer) *sidecar.Status {
	switch answer := answer.(type) {
	case *sidecar.Live:
		return &answer.Status
	case *sidecar.Ended:
		return answer.Status
	case *sidecar.Unknown:
		return answer.Status
	}
	return nil
}

// ---- From the client to the wire ----

// encoded fills a message from what the client said, by the names of its fields.
func encoded[M proto.Message](message M, from any) M {
	encode(message.ProtoReflect(), reflect.Indirect(reflect.ValueOf(from)))
	return message
}

var (
	aTime     = reflect.TypeFor[time.Time]()
	aDuration = reflect.TypeFor[time.Duration]()
)

func encode(message protoreflect.Message, from reflect.Value) {
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := strings.ReplaceAll(string(field.Name()), "_", "")
		value := from.FieldByNameFunc(func(own string) bool {
			return strings.EqualFold(own, name) || (own == "ID" && name == "sessionid")
		})
		if !value.IsValid() || field.Name() == "last_activity_accuracy" || isUnset(from, field, value) {
			continue
		}
		value = reflect.Indirect(value)
		switch {
		case value.Type() == aTime:
			message.Set(field, protoreflect.ValueOf(timestamppb.New(value.Interface().(time.Time)).ProtoReflect()))
		case value.Type() == aDuration:
			message.Set(field, protoreflect.ValueOf(durationpb.New(value.Interface().(time.Duration)).ProtoReflect()))
		case field.IsMap():
			for _, key := range value.MapKeys() {
				message.Mutable(field).Map().Set(protoreflect.ValueOf(key.String()).MapKey(), protoreflect.ValueOf(value.MapIndex(key).String()))
			}
		case field.IsList():
			list := message.Mutable(field).List()
			for i := range value.Len() {
				if item := value.Index(i); item.Kind() == reflect.String {
					list.Append(protoreflect.ValueOf(item.String()))
				} else {
					encode(list.AppendMutable().Message(), item)
				}
			}
		case field.Enum() != nil:
			prefix := strings.TrimSuffix(string(field.Enum().Values().Get(0).Name()), "UNSPECIFIED")
			number := field.Enum().Values().ByName(protoreflect.Name(prefix + value.String())).Number()
			message.Set(field, protoreflect.ValueOf(number))
		case field.Message() != nil:
			encode(message.Mutable(field).Message(), value)
		case value.Kind() == reflect.String: // Whatever it is called there.
			message.Set(field, protoreflect.ValueOf(value.String()))
		default:
			message.Set(field, protoreflect.ValueOf(value.Interface()))
		}
	}
}

// isUnset says whether the sidecar told nothing. Of durations 0 says it where 0 cannot be meant.
func isUnset(from reflect.Value, field protoreflect.FieldDescriptor, value reflect.Value) bool {
	status, is := from.Interface().(sidecar.Status)
	switch {
	case is && field.Name() == "expires_in":
		return status.State != sidecar.StateActive && status.State != sidecar.StateExpiring
	case value.Type() == aDuration:
		return value.Int() == 0 && (field.Name() == "idle_timeout" || field.Name() == "absolute_timeout")
	case value.Kind() == reflect.Struct && value.Type() != aTime:
		return false
	}
	return value.IsZero()
}

func touched(live *sidecar.Live) *pb.TouchResponse {
	return &pb.TouchResponse{
		Status: encoded(new(pb.SessionStatus), live.Status), Counted: live.Touch.Counted, Rule: live.Touch.Rule,
		Result: pb.TouchResult(pb.TouchResult_value["TOUCH_RESULT_"+string(live.Touch.Result)]),
	}
}

// lived is the answer, if it is of a live session; else it panics with the error that the wire had.
func lived(answer sidecar.Answer) *sidecar.Live {
	if live, is := answer.(*sidecar.Live); is {
		return live
	}
	panic(asProblem(answer))
}

// asProblem is what the wire had for an answer or an error.
func asProblem(from any) *transcript.Problem {
	switch from := from.(type) {
	case *transcript.Problem:
		return from
	case *sidecar.Ended:
		end := from.End
		told := map[string]string{
			"session_ref": string(from.SessionRef), "reason": string(end.Reason), "actor": string(end.Actor), "actor_id": end.ActorID,
			"note": end.Note, "successor_ref": string(end.SuccessorRef), "end_time": end.EndTime.Format(time.RFC3339Nano),
		}
		return &transcript.Problem{Code: "FAILED_PRECONDITION", Reason: "SESSION_ENDED", Metadata: nonEmpty(told)}
	case *sidecar.Unknown:
		told := map[string]string{"session_ref": string(from.SessionRef)}
		if from.MayHaveEnded {
			told["may_have_ended"] = "true"
		}
		return &transcript.Problem{Code: "NOT_FOUND", Reason: "SESSION_UNKNOWN", Metadata: told}
	case *sidecar.EndedError:
		return asProblem(from.Answer)
	case *sidecar.UnknownError:
		return asProblem(from.Answer)
	case *sidecar.RefusedError:
		return &transcript.Problem{Code: from.Code, Reason: from.Reason, Metadata: from.Metadata}
	case *sidecar.NotPermittedError:
		return &transcript.Problem{Code: from.Code, Reason: from.Reason}
	case *sidecar.InvalidRequestError:
		return &transcript.Problem{Code: "INVALID_ARGUMENT", Fields: from.Fields}
	}
	panic(fmt.Sprint("nothing that the scenario has: ", from))
}

func nonEmpty(from map[string]string) map[string]string {
	for key, value := range from {
		if value == "" {
			delete(from, key)
		}
	}
	return from
}

func itemError(outcome sidecar.Outcome) *pb.ItemError {
	switch answer := outcome.Answer.(type) {
	case *sidecar.Ended:
		return &pb.ItemError{Code: 9, Reason: "SESSION_ENDED", SessionRef: string(answer.SessionRef), End: encoded(new(pb.SessionEnd), answer.End)}
	case *sidecar.Unknown:
		return &pb.ItemError{Code: 5, Reason: "SESSION_UNKNOWN", SessionRef: string(answer.SessionRef)}
	}
	var bad *sidecar.InvalidRequestError
	if !errors.As(outcome.Err, &bad) {
		panic(outcome.Err)
	}
	return &pb.ItemError{Code: 3, Message: bad.Message}
}
