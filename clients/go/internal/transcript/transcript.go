// Package transcript tells messages in the words of tests/conformance/run.py.
package transcript

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var forPeople = []string{"summary", "explanation", "problem", "toml"} // May be reworded.

// Names are what ids and refs are called in the transcript, where they must not stand themselves.
type Names struct{ byValue map[string]string }

// NewNames knows nobody yet.
func NewNames() *Names { return &Names{map[string]string{}} }

// Learn calls an id, and its ref, by an alias.
func (n *Names) Learn(alias, id, ref string) {
	for value, shown := range map[string]string{id: "<id:" + alias + ">", ref: "<ref:" + alias + ">"} {
		if _, known := n.byValue[value]; !known {
			n.byValue[value] = shown
		}
	}
}

// LearnPage tells a page token as `<token:page>`, and `$page.token` means it.
func (n *Names) LearnPage(token string) {
	for value, shown := range n.byValue {
		if shown == "<token:page>" {
			delete(n.byValue, value)
		}
	}
	n.byValue[token] = "<token:page>"
}

// Value is the id of `$alias`, the ref of `$alias.ref`.
func (n *Names) Value(name string) string {
	alias, kind, _ := strings.Cut(name[1:], ".")
	if kind == "" {
		kind = "id"
	}
	for value, shown := range n.byValue {
		if shown == "<"+kind+":"+alias+">" {
			return value
		}
	}
	panic("nobody is called " + name)
}

func (n *Names) shown(key, value string) string {
	if shown, known := n.byValue[value]; known {
		return shown
	}
	if key != "session_ref" || value == "" {
		return value
	}
	// Of a session that nobody created: numbered.
	count := 1
	for _, shown := range n.byValue {
		if strings.Contains(shown, "unknown") {
			count++
		}
	}
	n.byValue[value] = fmt.Sprintf("<ref:unknown-%d>", count)
	return n.byValue[value]
}

// duration is told in steps of ten seconds, from 6.5 s below to 3.5 s above: real time passes between two steps too, and most times get
// less by it. No whole second is where one step becomes the next.
func duration(seconds float64) string {
	rest := int(math.Floor((seconds+6.5)/10)) * 10
	told := ""
	if rest < 0 {
		told, rest = "-", -rest
	}
	if rest == 0 {
		return "0s"
	}
	for _, unit := range []struct {
		size, base int
		name       string
	}{{3600, 1e6, "h"}, {60, 60, "m"}, {1, 60, "s"}} {
		if count := rest / unit.size % unit.base; count > 0 {
			told += fmt.Sprint(count, unit.name)
		}
	}
	return strings.ReplaceAll(told, " ", "")
}

// set are the fields of a message that are set, in the order of their numbers.
func set(message protoreflect.Message) []protoreflect.FieldDescriptor {
	var found []protoreflect.FieldDescriptor
	message.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		found = append(found, field)
		return true
	})
	sort.Slice(found, func(i, j int) bool { return found[i].Number() < found[j].Number() })
	return found
}

func seconds(message protoreflect.Message) float64 {
	fields := message.Descriptor().Fields()
	return float64(message.Get(fields.ByName("seconds")).Int()) + float64(message.Get(fields.ByName("nanos")).Int())/1e9
}

// FindNow is the sidecar's clock when it made this message: the first that is told in it, in seconds of the epoch.
func FindNow(message protoreflect.Message) (float64, bool) {
	for _, field := range set(message) {
		value := message.Get(field)
		switch {
		case field.Name() == "server_time" || field.Name() == "emit_time":
			return seconds(value.Message()), true
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				if now, found := FindNow(value.List().Get(i).Message()); found {
					return now, true
				}
			}
		default:
			if now, found := FindNow(value.Message()); found {
				return now, true
			}
		}
	}
	return 0, false
}

// Flatten answers one line for each field that is set. Times are told relative to the message's own.
func (n *Names) Flatten(message protoreflect.Message) []string {
	now, _ := FindNow(message)
	return n.lines(message, "", now)
}

func (n *Names) lines(message protoreflect.Message, prefix string, now float64) []string {
	var lines []string
	for _, field := range set(message) {
		name := string(field.Name())
		if slices.Contains([]string{"server_time", "emit_time", "resume_token"}, name) || (strings.HasSuffix(prefix, "error.") && name == "message") {
			continue
		}
		value := message.Get(field)
		switch {
		case field.IsMap():
			value.Map().Range(func(key protoreflect.MapKey, item protoreflect.Value) bool {
				lines = append(lines, n.line(prefix+name+"."+key.String(), field.MapValue(), name, item, now)...)
				return true
			})
		case field.IsList():
			for i := range value.List().Len() {
				lines = append(lines, n.line(fmt.Sprintf("%s%s[%d]", prefix, name, i), field, name, value.List().Get(i), now)...)
			}
		default:
			lines = append(lines, n.line(prefix+name, field, name, value, now)...)
		}
	}
	sort.Strings(lines)
	return lines
}

func (n *Names) line(path string, field protoreflect.FieldDescriptor, name string, value protoreflect.Value, now float64) []string {
	told := ""
	switch {
	case field.Message() != nil && field.Message().FullName() == "google.protobuf.Timestamp":
		told = "now " + duration(seconds(value.Message())-now)
	case field.Message() != nil && field.Message().FullName() == "google.protobuf.Duration":
		told = duration(seconds(value.Message()))
	case field.Message() != nil:
		inner := now
		if own, found := FindNow(value.Message()); found {
			inner = own
		}
		if lines := n.lines(value.Message(), path+".", inner); len(lines) > 0 {
			return lines
		}
		told = "{}"
	case field.Enum() != nil:
		told = string(field.Enum().Values().ByNumber(value.Enum()).Name())
	case name == "watcher_count":
		told = "<watchers>" // A watch that its client has just left may still be there.
	case slices.Contains(forPeople, name):
		told = "<text>"
	case field.Kind() == protoreflect.StringKind:
		told = n.shown(name, value.String())
	default:
		told = fmt.Sprint(value.Interface())
	}
	return []string{path + " = " + told}
}

// Problem is an error of the wire: its code and typed details. Messages are for people, and may be reworded.
type Problem struct {
	Code     string
	Reason   string
	Metadata map[string]string
	Fields   []string
}

func (p *Problem) Error() string { return p.Code }

// Decoded is an error of gRPC.
func Decoded(err error) *Problem {
	told := status.Convert(err)
	p := &Problem{Code: strings.ToUpper(wordEnd.ReplaceAllString(told.Code().String(), "${1}_$2"))}
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			p.Reason, p.Metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				p.Fields = append(p.Fields, violation.GetField())
			}
		}
	}
	return p
}

var wordEnd = regexp.MustCompile(`([a-z])([A-Z])`)

// Failed tells a problem.
func (n *Names) Failed(p *Problem) []string {
	var lines []string
	if p.Reason != "" {
		lines = append(lines, "  ErrorInfo.domain = sessionsidecar.v1", "  ErrorInfo.reason = "+p.Reason)
		for key, value := range p.Metadata {
			if strings.HasSuffix(key, "_time") {
				if _, err := time.Parse(time.RFC3339Nano, value); err != nil {
					panic(err)
				}
				value = "<time>"
			}
			lines = append(lines, "  ErrorInfo.metadata."+key+" = "+n.shown(key, value))
		}
	}
	for _, field := range p.Fields {
		lines = append(lines, "  BadRequest.field = "+field)
	}
	sort.Strings(lines)
	return append([]string{p.Code}, lines...)
}

// Spaced writes JSON as Python does, with a space after `,` and `:`, and keys in their order.
func Spaced(raw json.RawMessage) string {
	var out bytes.Buffer
	in := false
	for i, letter := range raw {
		switch {
		case letter == '"' && (i == 0 || raw[i-1] != '\\'):
			in = !in
		case !in && (letter == ' ' || letter == '\n'):
			continue
		}
		out.WriteByte(letter)
		if !in && (letter == ',' || letter == ':') {
			out.WriteByte(' ')
		}
	}
	return out.String()
}
