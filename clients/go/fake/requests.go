package fake

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// What comes from outside, bounded. A refusal names the field and the limit, never the value: it may be a session id.

const longestSpan = 3653 * day

// failed is what the wire fails with.
type failed struct {
	code     codes.Code
	message  string
	reason   string
	metadata map[string]string
	fields   []string
}

func (f *failed) Error() string { return f.message }

// GRPCStatus is how gRPC tells it.
func (f *failed) GRPCStatus() *status.Status {
	var details []protoadapt.MessageV1
	if f.reason != "" {
		info := &errdetails.ErrorInfo{Domain: "sessionsidecar.v1", Reason: f.reason, Metadata: f.metadata}
		details = append(details, protoadapt.MessageV1Of(info))
	}
	bad := &errdetails.BadRequest{}
	for _, field := range f.fields {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field, Description: f.message})
	}
	if len(f.fields) > 0 {
		details = append(details, protoadapt.MessageV1Of(bad))
	}
	told, err := status.New(f.code, f.message).WithDetails(details...)
	if err != nil {
		return status.New(codes.Internal, err.Error())
	}
	return told
}

// bounds reads the fields of a request, and keeps the first refusal.
type bounds struct{ problem *failed }

func (b *bounds) err() error {
	if b.problem == nil {
		return nil
	}
	return b.problem
}

func invalid(field, problem string) *failed {
	return &failed{code: codes.InvalidArgument, message: field + ": " + problem, fields: []string{field}}
}

func (b *bounds) invalid(field, problem string) {
	if b.problem == nil {
		b.problem = invalid(field, problem)
	}
}

// visible is text of visible ASCII.
func (b *bounds) visible(field, text string, shortest, longest int) {
	if len(text) < shortest || len(text) > longest {
		b.invalid(field, fmt.Sprintf("is %d bytes long; %d to %d are allowed", len(text), shortest, longest))
	}
	for _, letter := range []byte(text) {
		if letter < 0x21 || letter > 0x7e {
			b.invalid(field, "has a byte that is not visible ASCII (0x21 to 0x7e)")
		}
	}
}

// sessionID is an id. How short it may be is the policy's affair.
func (b *bounds) sessionID(field, text string) {
	if text == "" {
		b.invalid(field, "is required: the session's id, 16 to 256 bytes of visible ASCII")
	}
	b.visible(field, text, 1, 256)
}

// The last character has four bits of the sixteen bytes, and two that must be 0.
var refForm = regexp.MustCompile(`\A[A-Za-z0-9_-]{21}[AQgw]\z`)

func (b *bounds) sessionRef(field, text string) {
	if !refForm.MatchString(text) {
		b.invalid(field, "is not a session_ref: it must be 22 characters of base64url")
	}
}

// text is text for people: bounded, without control characters.
func (b *bounds) text(field, text string, longest int) {
	if len(text) > longest {
		b.invalid(field, fmt.Sprintf("is %d bytes long; at most %d are allowed", len(text), longest))
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		b.invalid(field, "has a control character; remove it")
	}
}

var labelKey = regexp.MustCompile(`\A[a-z0-9_./-]{1,63}\z`)

func (b *bounds) labels(field string, labels map[string]string) {
	if len(labels) > 8 {
		b.invalid(field, fmt.Sprintf("has %d labels; at most 8 are allowed", len(labels)))
	}
	for key, value := range labels {
		if !labelKey.MatchString(key) {
			b.invalid(field, "has a key that is not 1 to 63 bytes of a-z, 0-9, `_`, `-`, `.`, `/`")
			return
		}
		b.text(field+"."+key, value, 128)
	}
}

// span is a duration from 0, or over 0, to ten years; 0 if it is unset.
func (b *bounds) span(field string, given *durationpb.Duration, over bool) time.Duration {
	if given == nil {
		return 0
	}
	return b.between(field, given, over, 0, longestSpan)
}

func (b *bounds) between(field string, given *durationpb.Duration, over bool, shortest, longest time.Duration) time.Duration {
	length := given.AsDuration()
	if given.CheckValid() != nil || length < shortest || length > longest || (over && length == shortest) {
		more := ""
		if over {
			more = "over "
		}
		b.invalid(field, fmt.Sprintf("must be a duration from %s%s to %s", more, shortest, longest))
	}
	return length
}

// known is a number of an enum.
func (b *bounds) known(field string, enum protoreflect.Enum) {
	if enum.Descriptor().Values().ByNumber(enum.Number()) == nil {
		b.invalid(field, fmt.Sprintf("has no value with the number %d", enum.Number()))
	}
}

func (b *bounds) hints(hints *pb.TouchHints) {
	if hints == nil {
		return
	}
	b.known("hints.page_visibility", hints.GetPageVisibility())
	for _, each := range []struct {
		field, value string
		longest      int
	}{
		{"path", hints.GetPath(), 2048}, {"host", hints.GetHost(), 255}, {"method", hints.GetMethod(), 32},
		{"sec_fetch_user", hints.GetSecFetchUser(), 64}, {"sec_fetch_mode", hints.GetSecFetchMode(), 64},
		{"sec_fetch_dest", hints.GetSecFetchDest(), 64}, {"sec_purpose", hints.GetSecPurpose(), 64},
	} {
		if len(each.value) > each.longest {
			b.invalid("hints."+each.field, fmt.Sprintf("is %d bytes long; at most %d are allowed", len(each.value), each.longest))
		}
		for _, letter := range []byte(each.value) {
			if letter < 0x20 || letter > 0x7e {
				b.invalid("hints."+each.field, "has a byte that is not visible ASCII or a space (0x20 to 0x7e)")
			}
		}
	}
}

func (b *bounds) holdID(text string) {
	if text == "" {
		b.invalid("hold_id", "is required: the owner's own id of the hold, 1 to 64 bytes of visible ASCII")
	}
	b.visible("hold_id", text, 1, 64)
}

// within is some items, and not too many.
func (b *bounds) within(field string, count, most int) {
	if count < 1 || count > most {
		b.invalid(field, fmt.Sprintf("has %d items; 1 to %d are allowed", count, most))
	}
}

// endWords are the reason of an end, `usual` if it is not said, and the actor.
func (b *bounds) endWords(reason pb.EndReason, actor pb.Actor, usual pb.EndReason) (pb.EndReason, pb.Actor) {
	b.known("reason", reason)
	if reason == 0 {
		reason = usual
	}
	if reason != pb.EndReason_END_REASON_LOGOUT && reason != pb.EndReason_END_REASON_REVOKED {
		b.invalid("reason", "must be END_REASON_LOGOUT or END_REASON_REVOKED: nobody can command the others")
	}
	b.known("actor", actor)
	switch {
	case actor != 0:
	case reason == pb.EndReason_END_REASON_LOGOUT && usual == reason:
		actor = pb.Actor_ACTOR_USER
	default:
		actor = pb.Actor_ACTOR_ADMIN
	}
	return reason, actor
}

// request is a request id, if there is one, and a hash of all that the request says but these fields. Only hashes are kept: what a
// Rotate says has an id in it.
func (b *bounds) request(id string, message proto.Message, but ...protoreflect.Name) *wanted {
	b.visible("request_id", id, 0, 128)
	if id == "" {
		return nil
	}
	rest := proto.Clone(message)
	for _, field := range append(but, "request_id") {
		rest.ProtoReflect().Clear(rest.ProtoReflect().Descriptor().Fields().ByName(field))
	}
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(rest)
	if err != nil {
		panic(err) // It came over the wire.
	}
	name := string(message.ProtoReflect().Descriptor().Name())
	return &wanted{fmt.Sprintf("%x", sha256.Sum256([]byte(id))), fmt.Sprintf("%x", sha256.Sum256(append([]byte(name), content...)))}
}
