package sidecar

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What can go wrong. None of these errors ever holds a session id. Use errors.As.

// EndedError is a command on a session that has ended. Answer tells why, who and when.
type EndedError struct{ Answer *Ended }

func (e *EndedError) Error() string {
	reason := string(e.Answer.End.Reason)
	if reason == "" {
		reason = "for a reason not told"
	}
	return fmt.Sprintf("session-sidecar: session %s has ended: %s", e.Answer.SessionRef, reason)
}

// UnknownError is a command on a session that is not known.
type UnknownError struct{ Answer *Unknown }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("session-sidecar: session %s is not known", e.Answer.SessionRef)
}

// UnreachableError is a command while the sidecar cannot be reached in time, or cannot know. It may have been carried out: repeating
// it is safe, with the same RequestID where it takes one.
type UnreachableError struct{ Answer *Unreachable }

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("session-sidecar does not answer: %s: %s", e.Answer.Code, e.Answer.Message)
}

// RefusedError is a command that the policy or the state refuses; Reason is one word, such as SESSION_EXISTS, EXTENSION_LIMIT,
// HOLD_BUDGET, SUBJECT_CAP, REQUEST_ID_REUSED, READ_ONLY_SESSION.
type RefusedError struct {
	Code       string
	Message    string
	Reason     string
	SessionRef Ref // Empty if no session is meant.
	Metadata   map[string]string
}

func (e *RefusedError) Error() string { return told(e.Code, e.Reason, e.Message) }

// InvalidRequestError is a request that can never succeed: a mistake in the program, or an id that somebody sent and that cannot be
// one. Fields are named as in the .proto.
type InvalidRequestError struct {
	Message string
	Fields  []string
}

func (e *InvalidRequestError) Error() string { return "session-sidecar: " + e.Message }

// NotPermittedError says that this listener does not serve this verb or tenant to this caller, or is none of session-sidecar: a
// mistake in the configuration.
type NotPermittedError struct {
	Code    string
	Message string
	Reason  string
}

func (e *NotPermittedError) Error() string { return told(e.Code, e.Reason, e.Message) }

// ErrClosed is what calls of a closed Client, and Next of a closed Watch, return.
var ErrClosed = errors.New("session-sidecar: closed")

func told(code, reason, message string) string {
	if reason == "" {
		reason = code
	}
	return fmt.Sprintf("session-sidecar: %s: %s", reason, message)
}

func invalid(field, problem string) error {
	return &InvalidRequestError{Message: field + ": " + problem, Fields: []string{field}}
}

// failure is an error of the wire, decoded: of a call, or of one item of a batch.
type failure struct {
	code       string
	message    string
	reason     string
	metadata   map[string]string
	fields     []string
	retryAfter time.Duration
}

var codeNames = map[codes.Code]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE",
	codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE", codes.DataLoss: "DATA_LOSS",
	codes.Unauthenticated: "UNAUTHENTICATED",
}

func codeName(code codes.Code) string {
	if name, known := codeNames[code]; known {
		return name
	}
	return fmt.Sprint(uint32(code))
}

func decode(err error) *failure {
	told := status.Convert(err)
	f := &failure{code: codeName(told.Code()), message: told.Message()}
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			f.reason, f.metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				f.fields = append(f.fields, violation.GetField())
			}
		case *errdetails.RetryInfo:
			f.retryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return f
}

// lostConnection says whether it was the connection that failed, not the sidecar that said so.
func (f *failure) lostConnection() bool { return f.code == "UNAVAILABLE" && f.reason == "" }

// away says whether the sidecar did not answer. Refusals are answers.
func (f *failure) away() bool { return f.code == "UNAVAILABLE" || f.code == "DEADLINE_EXCEEDED" }

// asError is the error of a failure that is about the caller or is a refusal.
func (f *failure) asError() error {
	switch f.code {
	case "INVALID_ARGUMENT":
		return &InvalidRequestError{Message: f.message, Fields: f.fields}
	case "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED":
		return &NotPermittedError{Code: f.code, Message: f.message, Reason: f.reason}
	}
	return &RefusedError{
		Code: f.code, Message: f.message, Reason: f.reason, SessionRef: Ref(f.metadata["session_ref"]), Metadata: f.metadata,
	}
}

// isSaid says whether the sidecar knows the caller and the request; all else means that it cannot be known.
func (f *failure) isSaid() bool {
	switch f.code {
	case "FAILED_PRECONDITION", "NOT_FOUND", "ALREADY_EXISTS", "OUT_OF_RANGE",
		"INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED":
		return true
	}
	return f.code == "RESOURCE_EXHAUSTED" && f.reason != ""
}

// asAnswer is what a failure means for a request; an error if it means nothing for it.
func (f *failure) asAnswer(fail Fail) (Answer, error) {
	said := f.metadata
	switch {
	case f.reason == "SESSION_ENDED":
		end := End{
			Reason: EndReason(known(said["reason"], "END_REASON_", endReasons)), Actor: Actor(known(said["actor"], "ACTOR_", actors)),
			ActorID: said["actor_id"], Note: said["note"], SuccessorRef: Ref(said["successor_ref"]),
		}
		if at, err := time.Parse(time.RFC3339Nano, said["end_time"]); err == nil {
			end.EndTime = at.UTC()
		}
		return &Ended{SessionRef: Ref(said["session_ref"]), End: end}, nil
	case f.reason == "SESSION_UNKNOWN":
		return &Unknown{SessionRef: Ref(said["session_ref"]), MayHaveEnded: said["may_have_ended"] == "true"}, nil
	case f.isSaid():
		return nil, f.asError()
	}
	return &Unreachable{allowed: bool(fail), Code: f.code, Message: f.message, RetryAfter: f.retryAfter}, nil
}

// asCommandError is what a command fails with.
func (f *failure) asCommandError() error {
	answer, err := f.asAnswer(FailClosed)
	switch answer := answer.(type) {
	case *Ended:
		return &EndedError{answer}
	case *Unknown:
		return &UnknownError{answer}
	case *Unreachable:
		return &UnreachableError{answer}
	}
	return err
}

func known(said, prefix string, numbers map[string]int32) string {
	if _, known := numbers[prefix+said]; said != "" && !known {
		return "OTHER"
	}
	return said
}
